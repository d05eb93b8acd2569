//! The beacon: one script for what browsers time, and one path for what they tell. Of two parts, each of which may be there or not:
//! how far PoPs are ([`crate::measure`]), and how fast pages are ([`crate::rum`]).
//!
//! ```text
//! GET  /.perigee/beacon.js           the script, with a token for each part: who may tell what, and until when
//! GET  /.perigee/beacon              204: what the script times, at this PoP and at three others
//! POST /.perigee/beacon?TOKEN&fra=23.4&iad=91.0&nrt=x        what came of it, in ms; x: no answer
//! POST /.perigee/beacon?v=TOKEN&ttfb=48.1&lcp=612.4&…&p=/tea what a page view was like
//! ```
//!
//! What is told stands in the URL: a request without content is answered without waiting for one, and a URL has its bound already.

use std::sync::LazyLock;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use bytes::Bytes;
use model::rum::SCRIPT_PATH;
use semantics::{Fields, Why};

use crate::answer::{Answer, Body, Head, Note};
use crate::request::{Method, Request};
use crate::rum;
use crate::storage::chance;
use crate::worker::Worker;

/// Where what browsers time and tell goes.
pub(crate) const PATH: &str = "/.perigee/beacon";

/// Bytes of a MAC in a token.
const MAC_BYTES: usize = 16;

/// Characters of a token.
const TOKEN_CHARS: usize = 26 + 2 * MAC_BYTES;

/// The answer to a request of the beacon; `None` for all others, and where there is none.
pub(crate) fn answer(worker: &Worker, request: &Request) -> Option<Answer> {
    let path = request.path();
    if path != SCRIPT_PATH && path != PATH {
        return None;
    }
    let loaded = worker.loaded();
    let measuring = worker.shared.measuring.serves(&loaded.snapshot);
    let site = loaded.snapshot.site_for(&request.host).filter(|site| rum::concerns(site));
    if measuring.is_none() && site.is_none() {
        return None;
    }
    let now_secs = (request.now.0 / 1_000).max(0) as u64;
    Some(match (&request.method, path) {
        (Method::Get | Method::Head, SCRIPT_PATH) => {
            let views = site.and_then(|site| worker.shared.rum.part(site, request, now_secs));
            let trips = measuring.map(|measuring| measuring.part(&loaded.snapshot, request.client, now_secs));
            let waits = site.is_some_and(rum::waits_for_consent);
            say(200, Some(script(views.as_deref(), trips.as_deref(), waits)))
        }
        (Method::Get | Method::Head, PATH) => say(204, None),
        (Method::Post, PATH) => {
            let query = request.query().unwrap_or_default();
            let told = match (query.strip_prefix("v="), measuring, site) {
                (Some(view), _, Some(site)) => {
                    let slot = loaded.slot(site);
                    worker.shared.rum.take(&worker.shared.registry, site, slot, request, view, now_secs)
                }
                (None, Some(measuring), _) => measuring.take_report(request.client, query, now_secs),
                _ => Err(404),
            };
            say(told.map_or_else(|status| status, |()| 204), None)
        }
        (_, SCRIPT_PATH) => not_allowed("GET, HEAD"),
        _ => not_allowed("GET, HEAD, POST"),
    })
}

/// RFC 9110 §15.5.6.
fn not_allowed(allowed: &str) -> Answer {
    let mut answer = say(405, None);
    if let Head::Own(fields) = &mut answer.head {
        fields.append_unchecked(b"Allow", allowed.as_bytes());
    }
    answer
}

fn say(status: u16, script: Option<String>) -> Answer {
    let mut fields = Fields::new();
    // Pages of other origins load the script and time this.
    fields.append_unchecked(b"Access-Control-Allow-Origin", b"*");
    fields.append_unchecked(b"Timing-Allow-Origin", b"*");
    fields.append_unchecked(b"Cross-Origin-Resource-Policy", b"cross-origin");
    fields.append_unchecked(b"Cache-Control", b"no-store");
    if script.is_some() {
        fields.append_unchecked(b"Content-Type", b"text/javascript");
    }
    let body = script.map(Bytes::from);
    Answer {
        length: match (&body, status) {
            (Some(body), _) => Some(body.len() as u64),
            (None, 204) => None,
            (None, _) => Some(0),
        },
        body: body.map_or(Body::Empty, Body::Bytes),
        ..Answer::new(status, Head::Own(fields), Note::of(Why::Beacon))
    }
}

// --- The script ---

/// What tells of page views, without what is for its readers alone.
static VIEWS: LazyLock<String> = LazyLock::new(|| {
    let lines = include_str!("beacon/views.js").lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.fold(String::new(), |text, line| text + line + "\n")
});

/// Both parts, as far as there are: `o` is where they are told of, `views` with the token of a page view.
fn script(views: Option<&str>, trips: Option<&str>, waits: bool) -> String {
    let mut parts = String::new();
    if let Some(token) = views {
        parts = format!("const views=o+\"{PATH}?v={token}\";\n{}", *VIEWS);
    }
    parts.push_str(trips.unwrap_or_default());
    if parts.is_empty() {
        return parts;
    }
    let begin = match waits {
        true => "self.perigeeConsent===true?begin():addEventListener(\"perigee-consent\",begin,{once:true})",
        false => "begin()",
    };
    format!(
        "(()=>{{const o=new URL(document.currentScript.src).origin,begin=()=>{{\n{parts}}};\n{begin}}})();\n"
    )
}

// --- Tokens ---

/// A time, a number that is drawn once, and a MAC over both and what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// In s since 1970: what it means is for its purpose to say.
    pub(crate) at: u64,
    pub(crate) nonce: u64,
    mac: [u8; MAC_BYTES],
}

/// A key for one purpose: what is signed with it means nothing elsewhere.
pub(crate) fn key_for(secret: &[u8], purpose: &str) -> hmac::Key {
    let of_secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&of_secret, purpose.as_bytes()).as_ref())
}

impl Token {
    /// A new one. `what`: all that it is good for.
    pub(crate) fn make(key: &hmac::Key, at: u64, what: &str) -> Token {
        let nonce = chance() as u64;
        Token { at, nonce, mac: Self::mac(key, at, nonce, what) }
    }

    fn mac(key: &hmac::Key, at: u64, nonce: u64, what: &str) -> [u8; MAC_BYTES] {
        let tag = hmac::sign(key, format!("{at} {nonce} {what}").as_bytes());
        std::array::from_fn(|index| tag.as_ref().get(index).copied().unwrap_or_default())
    }

    /// Whether it was made with this key, for this.
    pub(crate) fn is_for(&self, key: &hmac::Key, what: &str) -> bool {
        verify_slices_are_equal(&Self::mac(key, self.at, self.nonce, what), &self.mac).is_ok()
    }

    /// Reads what [`std::fmt::Display`] writes.
    pub(crate) fn read(text: &str) -> Option<Token> {
        let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != TOKEN_CHARS || !text.as_bytes().iter().all(is_hex) {
            return None;
        }
        let mut mac = [0; MAC_BYTES];
        for (index, byte) in mac.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[26 + 2 * index..][..2], 16).ok()?;
        }
        let number = |range| u64::from_str_radix(&text[range], 16).ok();
        Some(Token { at: number(0..10)?, nonce: number(10..26)?, mac })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:010x}{:016x}", self.at, self.nonce)?;
        self.mac.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_thing_and_one_key() {
        let key = key_for(&[7; 32], "a");
        let token = Token::make(&key, 1_800_000_000, "this");
        let read = Token::read(&token.to_string()).unwrap();
        assert_eq!(read, token);
        assert!(read.is_for(&key, "this"));
        assert!(!read.is_for(&key, "that") && !read.is_for(&key_for(&[7; 32], "b"), "this"));
        assert!(!Token { at: 1, ..token }.is_for(&key, "this"));
        for text in ["", "0", &"+".repeat(58), &"ü".repeat(29), &token.to_string()[1..]] {
            assert_eq!(Token::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_script_has_the_parts_that_are_wanted_and_waits_where_it_must() {
        assert_eq!(script(None, None, true), "");
        let both = script(Some("TOKEN"), Some("trips();\n"), true);
        assert!(
            both.contains("beacon?v=TOKEN\"")
                && both.contains("trips();")
                && both.contains("perigee-consent")
        );
        let views = script(Some("TOKEN"), None, false);
        assert!(views.ends_with("begin()})();\n") && !views.contains("//"), "{views}");
        assert!(views.len() < 4_096, "{} bytes for each page view", views.len());
    }
}
