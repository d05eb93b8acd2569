//! What is said to etcd's JSON gateway and what it answers, without IO: JSON with keys and values in base64 and whole numbers as
//! texts (the proto3 mapping). Fields that are zero are left out by etcd.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::{Digest, Error, Mark};

// --- Requests ---

pub(super) fn text(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(super) fn put(key: &[u8], value: &[u8]) -> Value {
    json!({ "request_put": { "key": text(key), "value": text(value) } })
}

/// Deletes a key, or all from it up to `end`.
pub(super) fn delete(key: &[u8], end: Option<&[u8]>) -> Value {
    match end {
        None => json!({ "request_delete_range": { "key": text(key) } }),
        Some(end) => json!({ "request_delete_range": { "key": text(key), "range_end": text(end) } }),
    }
}

pub(super) fn get(key: &[u8]) -> Value {
    json!({ "request_range": { "key": text(key) } })
}

/// The revision of a key, without its value.
pub(super) fn get_revision(key: &[u8]) -> Value {
    json!({ "request_range": { "key": text(key), "keys_only": true } })
}

/// In the order of keys, which is etcd's own: any other makes it read the whole range. As of a revision; 0 is the newest one.
pub(super) fn get_range(key: &[u8], end: &[u8], limit: usize, revision: u64) -> Value {
    let (limit, revision) = (limit.to_string(), revision.to_string());
    json!({ "request_range": { "key": text(key), "range_end": text(end), "limit": limit, "revision": revision } })
}

/// That a key was written last at a revision; 0: that it is absent.
pub(super) fn is_at(key: &[u8], revision: u64) -> Value {
    json!({ "key": text(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() })
}

pub(super) fn is_value(key: &[u8], value: &[u8]) -> Value {
    json!({ "key": text(key), "target": "VALUE", "result": "EQUAL", "value": text(value) })
}

/// `compare` decides between the two; without any, it is `success`.
pub(super) fn transaction(compare: Vec<Value>, success: Vec<Value>, failure: Vec<Value>) -> Vec<u8> {
    json!({ "compare": compare, "success": success, "failure": failure }).to_string().into_bytes()
}

// --- Answers ---

/// Of every answer.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    /// Which cluster: a member that was set up anew belongs to another one.
    #[serde(default)]
    pub(super) cluster_id: String,
    /// The newest one when it was answered.
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: u64,
}

/// A key with its value.
#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    #[serde(default, deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(default, deserialize_with = "number")]
    pub(super) mod_revision: u64,
    /// How often it was written since it was created.
    #[serde(default, deserialize_with = "number")]
    pub(super) version: u64,
}

/// What a range has.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Range {
    #[serde(default)]
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    /// Whether the limit ended it.
    #[serde(default)]
    pub(super) more: bool,
}

/// What a transaction has come to.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Transaction {
    #[serde(default)]
    pub(super) header: Header,
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Debug, Deserialize)]
struct Response {
    response_range: Option<Range>,
}

impl Transaction {
    /// What its ranges have, one for each operation; other operations give an empty one.
    pub(super) fn into_ranges(self) -> Vec<Range> {
        self.responses.into_iter().map(|response| response.response_range.unwrap_or_default()).collect()
    }
}

/// A token.
#[derive(Debug, Deserialize)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// An answer that says which cluster it is of.
pub(super) trait Answer: for<'de> Deserialize<'de> + Send {
    fn header(&self) -> &Header;
}

#[cfg(fuzzing)]
impl Range {
    /// One key.
    pub(super) fn of(key: &str, value: &[u8]) -> Range {
        let kv = KeyValue { key: key.into(), value: value.into(), mod_revision: 1, version: 1 };
        Range { kvs: vec![kv], ..Range::default() }
    }
}

impl Answer for Range {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Answer for Transaction {
    fn header(&self) -> &Header {
        &self.header
    }
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    result: Option<Watched>,
    error: Option<Value>,
}

/// What a watch has seen.
#[derive(Debug, Deserialize)]
pub(super) struct Watched {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    canceled: bool,
    #[serde(default, deserialize_with = "number")]
    compact_revision: u64,
    #[serde(default)]
    cancel_reason: String,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

impl Answer for Watched {
    fn header(&self) -> &Header {
        &self.header
    }
}

/// A change of a key.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) kv: Option<KeyValue>,
}

impl Line {
    /// What it has seen; else what to say of it.
    pub(super) fn read(line: &[u8]) -> Result<Watched, String> {
        let line: Line = serde_json::from_slice(line)
            .map_err(|error| format!("a watch said something unknown: {error}"))?;
        match line {
            Line { result: Some(watched), .. } if !watched.canceled => Ok(watched),
            Line { result: Some(watched), .. } if watched.compact_revision > 0 => Err(format!(
                "the watch began before revision {}, to which etcd is compacted",
                watched.compact_revision
            )),
            Line { result: Some(watched), .. } => {
                Err(format!("etcd ended the watch: {}", watched.cancel_reason))
            }
            Line { error, .. } => Err(format!("etcd ended the watch: {}", error.unwrap_or_default())),
        }
    }
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a whole number")))
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

// --- What is kept under keys ---

/// Names of the last commits that the head keeps: an answer may stay lost while so many others commit.
pub(super) const RECENT_MAX: usize = 32;

/// The head's value: where the journal ends. Every commit writes it, so that it orders them all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The last record.
    #[serde(flatten)]
    pub(super) mark: Mark,
    /// Names of the last commits, the newest last: by them, who has lost an answer finds out.
    pub(super) recent: Vec<String>,
}

impl Head {
    pub(super) fn read(value: &[u8]) -> Result<Head, String> {
        serde_json::from_slice(value).map_err(|error| format!("its head is not ours: {error}"))
    }

    /// After a commit of that name.
    pub(super) fn then(&self, mark: Mark, name: &str) -> Head {
        let kept = self.recent.len().saturating_sub(RECENT_MAX - 1);
        let recent = self.recent.iter().skip(kept).cloned().chain([name.to_owned()]);
        Head { mark, recent: recent.collect() }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        json!(self).to_string().into_bytes()
    }
}

/// A record's value: the digest up to it, and its text.
pub(super) fn record_value(digest: Digest, text: &str) -> Vec<u8> {
    [&digest.0, text.as_bytes()].concat()
}

/// `None` when it is none of ours.
pub(super) fn read_record(value: &[u8]) -> Option<(Digest, &str)> {
    let (digest, text) = value.split_first_chunk::<16>()?;
    Some((Digest(*digest), std::str::from_utf8(text).ok()?))
}

// --- Errors ---

/// What etcd says instead of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another member, or the same one later, may do it. Whether it was done is not known, unless `is_untouched`.
    Retry {
        /// What it said.
        why: String,
        /// It is certain that nothing was written.
        is_untouched: bool,
    },
    /// The token is not valid any more.
    Token(String),
    /// The revision that was asked for is not kept any more.
    Compacted,
    /// Nothing was written, and no member would do it.
    Final(Error),
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    message: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    code: u32,
}

/// Bytes of a message that are shown.
const SHOWN_MAX: usize = 200;

/// From the status and content of an answer other than 200 of an endpoint. By text, as etcd's codes say too little; the texts are those
/// of etcd 3.4 to 3.6 (`rpctypes/error.go`).
pub(super) fn refused(endpoint: &str, status: u16, content: &[u8]) -> Refused {
    let shown = || String::from_utf8_lossy(&content[..content.len().min(SHOWN_MAX)]).trim().to_owned();
    if status == 404 {
        return Refused::Final(Error::Broken(format!(
            "{endpoint} has no JSON gateway under /v3: wanted is etcd 3.4 or newer, its client address, --enable-grpc-gateway"
        )));
    }
    if content.starts_with(b"CommonName of client") {
        return Refused::Final(Error::Broken(format!(
            "etcd at {endpoint} refused: {}; where etcd has roles, its gateway wants a client certificate without a CommonName",
            shown()
        )));
    }
    let Ok(complaint) = serde_json::from_slice::<Complaint>(content) else {
        return Refused::Retry {
            why: format!("{endpoint} answered {status}: {}", shown()),
            is_untouched: false,
        };
    };
    let mut said = if complaint.message.is_empty() { complaint.error } else { complaint.message };
    said.truncate(said.floor_char_boundary(SHOWN_MAX));
    let said_in = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let broken =
        |next: &str| Refused::Final(Error::Broken(format!("etcd at {endpoint} refused: {said}; {next}")));
    if said_in(&["database space exceeded"]) {
        return Refused::Final(Error::Unavailable(format!(
            "etcd at {endpoint} has reached its space quota ({said}); compact it, defragment each member, then \
             `etcdctl alarm disarm`, or raise --quota-backend-bytes"
        )));
    }
    if said_in(&["request is too large", "larger than max"]) {
        return broken("it must take 1.5 MiB at once (--max-request-bytes 1572864, which is its default)");
    }
    if said_in(&["too many operations"]) {
        return broken("it must take 128 operations at once (--max-txn-ops 128, which is its default)");
    }
    if said_in(&["invalid auth token", "auth store is old", "revision in header is old"]) {
        return Refused::Token(said);
    }
    if said_in(&["permission denied"]) {
        return broken(
            "set a user whose role has readwrite on the prefix: `etcdctl role grant-permission ROLE --prefix=true readwrite PREFIX/`",
        );
    }
    if said_in(&["user name is empty"]) {
        return broken("it wants a user and password, none is set");
    }
    if said_in(&["authentication is not enabled"]) {
        return broken("enable it, or set no user");
    }
    if said_in(&["authentication failed"]) {
        return broken("correct user or password");
    }
    if said_in(&["has been compacted"]) {
        return Refused::Compacted;
    }
    if complaint.code == 12 || said_in(&["not capable"]) {
        return broken("wanted is etcd 3.4 or newer");
    }
    let is_untouched = said_in(&["too many requests"]);
    Refused::Retry { why: format!("etcd at {endpoint} said: {said}"), is_untouched }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_complains_of_becomes_what_to_do() {
        let complain = |message: &str, code: u32| {
            let content = json!({ "error": message, "message": message, "code": code }).to_string();
            refused("http://a:2379", 400, content.as_bytes())
        };
        let steps = [
            ("etcdserver: mvcc: database space exceeded", 8, "alarm disarm"),
            ("etcdserver: request is too large", 3, "--max-request-bytes"),
            ("etcdserver: too many operations in txn request", 3, "--max-txn-ops"),
            ("etcdserver: permission denied", 7, "role grant-permission"),
            ("etcdserver: user name is empty", 3, "none is set"),
            ("etcdserver: authentication is not enabled", 9, "set no user"),
            ("etcdserver: authentication failed, invalid user ID or password", 3, "correct user"),
            ("unknown service", 12, "3.4 or newer"),
        ];
        for (message, code, step) in steps {
            let Refused::Final(error) = complain(message, code) else { panic!("{message} is not final") };
            let text = error.to_string();
            assert!(
                text.contains(step) && text.contains("http://a:2379") && text.contains(message),
                "{text}"
            );
        }
        let retries = [
            ("etcdserver: no leader", 14, false),
            ("etcdserver: leader changed", 14, false),
            ("etcdserver: request timed out, possibly due to previous leader failure", 14, false),
            ("etcdserver: too many requests", 8, true),
            ("etcdserver: corrupt cluster", 15, false),
        ];
        for (message, code, wanted) in retries {
            let answer = complain(message, code);
            assert!(
                matches!(&answer, Refused::Retry { is_untouched, .. } if *is_untouched == wanted),
                "{answer:?}"
            );
        }
        for message in ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"] {
            assert_eq!(complain(message, 16), Refused::Token(message.to_owned()));
        }
        assert_eq!(
            complain("etcdserver: mvcc: required revision has been compacted", 11),
            Refused::Compacted
        );
        assert!(matches!(refused("a", 404, b"Not Found\n"), Refused::Final(Error::Broken(_))));
        let named = b"CommonName of client sending a request against gateway will be ignored and not used as expected\n";
        assert!(
            matches!(refused("a", 400, named), Refused::Final(Error::Broken(why)) if why.contains("without a CommonName"))
        );
        assert!(matches!(refused("a", 502, b"<html>"), Refused::Retry { is_untouched: false, .. }));
    }

    #[test]
    fn answers_are_read_as_etcd_writes_them() {
        let answer = br#"{"header":{"cluster_id":"324952591200643719","member_id":"33","revision":"3","raft_term":"2"},
            "succeeded":true,"responses":[{"response_put":{"header":{"revision":"3"}}},{"response_range":{"header":{"revision":"3"},
            "kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"2"}],"more":true,"count":"9"}},
            {"response_range":{"header":{"revision":"3"}}}]}"#;
        let read: Transaction = serde_json::from_slice(answer).unwrap();
        assert!(
            read.succeeded && read.header.revision == 3 && read.header.cluster_id == "324952591200643719"
        );
        let ranges = read.into_ranges();
        assert_eq!(ranges.len(), 3);
        let found = &ranges[1].kvs[0];
        assert_eq!(
            (&*found.key, &*found.value, found.mod_revision, found.version),
            (&b"a"[..], &b""[..], 3, 2)
        );
        assert!(ranges[1].more && ranges[2].kvs.is_empty());

        let line = br#"{"result":{"header":{"revision":"9"},"events":[{"kv":{"key":"YQ==","mod_revision":"9","value":"Yg=="}}]}}"#;
        let watched = Line::read(line).unwrap();
        assert_eq!(watched.events[0].kv.as_ref().unwrap().value, b"b");
        for (line, says) in [
            (&br#"{"result":{"canceled":true,"compact_revision":"3"}}"#[..], "revision 3"),
            (br#"{"result":{"canceled":true,"cancel_reason":"why not"}}"#, "why not"),
            (br#"{"error":{"grpc_code":14,"message":"no leader"}}"#, "no leader"),
            (b"{}", "ended"),
            (b"<", "unknown"),
            (br#"{"result":{"events":[{"kv":{"mod_revision":"x"}}]}}"#, "unknown"),
        ] {
            let error = Line::read(line).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_head_keeps_the_names_of_the_last_commits() {
        let mut head = Head::default();
        for n in 0..100_u64 {
            let mark = Mark { position: n, ..Mark::default() };
            head = Head::read(&head.then(mark, &n.to_string()).to_bytes()).unwrap();
        }
        assert_eq!(head.mark.position, 99);
        assert_eq!(head.recent, (100 - RECENT_MAX..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
