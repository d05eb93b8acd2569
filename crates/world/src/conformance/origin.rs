//! The scripted origin of the conformance run: answers each request as the script of its test says, on real sockets,
//! and remembers what it saw.
//!
//! The URL names the script (`/test/<token>…`) and the request's `Req-Num` names the step. It behaves on the wire as the
//! public harness's origin does, which is Node's server: header names in the script's case, `Content-Length` for
//! HTTP/1.1 and close for HTTP/1.0, no framing at all beside a foreign `Transfer-Encoding` (the connection then closes
//! after five idle seconds), 1xx written as they are, `Date` and `Keep-Alive` added where the script has none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::definition::{Line, Source, Step};
use crate::dates;
use crate::wire::{Framing, Head, Wire};

/// How long a connection may be idle; what Node does and says in `Keep-Alive`.
const IDLE: Duration = Duration::from_secs(5);

/// Request fields of which Node keeps the first line only; others are joined by `", "`.
const FIRST_LINE_ONLY: [&str; 17] = [
    "age",
    "authorization",
    "content-length",
    "content-type",
    "etag",
    "expires",
    "from",
    "host",
    "if-modified-since",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "proxy-authorization",
    "referer",
    "retry-after",
    "user-agent",
];

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// `Req-Num` of the request; `None` when it had none.
    pub(super) number: Option<i64>,
    pub(super) method: String,
    /// Lower-case names.
    pub(super) fields: HashMap<String, String>,
    /// Response headers to be compared with what the client got.
    pub(super) remembered: Vec<(String, String)>,
}

/// One running test: its steps (dates become text when they are first sent), what was seen, and a log for people.
#[derive(Default)]
pub(super) struct Script {
    steps: Vec<Step>,
    seen: Vec<Seen>,
    log: Vec<String>,
}

/// All running tests by token. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Scripts(Arc<Mutex<HashMap<String, Script>>>);

impl Scripts {
    /// Makes `token` answer with `steps`.
    pub(super) fn begin(&self, token: &str, steps: Vec<Step>) {
        self.with(|all| all.insert(token.to_owned(), Script { steps, ..Script::default() }));
    }

    /// What was seen under `token`, in order.
    pub(super) fn seen(&self, token: &str) -> Vec<Seen> {
        self.with(|all| all.get(token).map(|script| script.seen.clone()).unwrap_or_default())
    }

    /// Adds to the log of `token`.
    pub(super) fn log(&self, token: &str, entry: String) {
        self.with(|all| {
            if let Some(script) = all.get_mut(token) {
                script.log.push(entry);
            }
        });
    }

    /// The log of `token`, and the end of it.
    pub(super) fn end(&self, token: &str) -> Vec<String> {
        self.with(|all| all.remove(token).map(|script| script.log).unwrap_or_default())
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Script>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Accepts connections for ever. Call inside a `LocalSet`.
pub(super) async fn run(listener: TcpListener, scripts: Scripts) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(stream, scripts.clone()));
        }
    }
}

async fn serve(stream: TcpStream, scripts: Scripts) {
    let mut wire = Wire::new(stream);
    loop {
        let Ok(Ok(Some(head))) = tokio::time::timeout(IDLE, wire.read_head()).await else { return };
        if head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
            && wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err()
        {
            return;
        }
        wire.read_body(Framing::of_request(&head)).await;
        let (_, target) = head.method_and_target();
        let token = target.strip_prefix("/test/").unwrap_or("");
        let token = token.split(['/', '?']).next().unwrap_or("").to_owned();
        scripts.log(&token, format!("origin received\n{}", indent(&head.raw)));
        let pause = scripts.with(|all| all.get(&token).and_then(|script| script.step(&head)?.response_pause));
        if let Some(secs) = pause {
            tokio::time::sleep(Duration::from_secs(secs)).await;
        }
        let answer = scripts.with(|all| all.get_mut(&token).and_then(|script| script.answer(&head)));
        let Some(answer) = answer else {
            let sorry = b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = wire.write(sorry).await;
            return;
        };
        let Answer::Send { bytes, body, then } = answer else {
            scripts.log(&token, "origin closed the connection without an answer".to_owned());
            return;
        };
        scripts.log(&token, format!("origin sent\n{}", indent(&bytes)));
        let body = body.unwrap_or_else(|| token.clone());
        if wire
            .write(&[&bytes[..], if then.has_body { body.as_bytes() } else { b"" }].concat())
            .await
            .is_err()
        {
            return;
        }
        if then.close {
            return;
        }
    }
}

enum Answer {
    Disconnect,
    Send { bytes: Vec<u8>, body: Option<String>, then: Then },
}

struct Then {
    has_body: bool,
    close: bool,
}

impl Script {
    fn number(head: &Head) -> Option<i64> {
        parse_int(&head.field("req-num")?)
    }

    fn index(&self, head: &Head) -> usize {
        let number = Script::number(head).filter(|&number| number > 0);
        number.map_or(self.seen.len(), |number| number as usize - 1)
    }

    fn step(&self, head: &Head) -> Option<&Step> {
        self.steps.get(self.index(head))
    }

    /// Builds the answer to `head` and remembers the request. `None`: the script has no such step.
    fn answer(&mut self, head: &Head) -> Option<Answer> {
        let index = self.index(head);
        let number = Script::number(head);
        let (method, target) = head.method_and_target();
        let fields = fields_as_node_joins_them(head);
        let mut step = self.steps.get(index)?.clone();
        let previous = index.checked_sub(1).and_then(|previous| self.steps.get(previous));
        let (status, phrase) = status_of(&step, previous, &fields);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);

        let mut headers = Headers::default();
        headers.add("Server-Base-Url", target.to_owned());
        headers.add("Server-Request-Count", (self.seen.len() + 1).to_string());
        headers.add("Client-Request-Count", number.map_or("NaN".to_owned(), |number| number.to_string()));
        headers.add("Server-Now", now_ms.to_string());
        let mut remembered: Vec<(String, String)> = Vec::new();
        for at in 0..step.response_headers.len() {
            let value = resolve(&step.response_headers[at], &step, now_ms / 1000, target);
            step.response_headers[at].value = Value::String(value.clone());
            let line = &step.response_headers[at];
            headers.add(&line.name, value);
            if line.remembered {
                remembered.retain(|(name, _)| name != &line.name);
                remembered.push((line.name.clone(), headers.joined(&line.name)));
            }
        }
        if !headers.has("Content-Type") {
            headers.add("Content-Type", "text/plain".to_owned());
        }
        self.seen.push(Seen { number, method: method.to_owned(), fields, remembered });
        let numbers =
            self.seen.iter().map(|seen| seen.number.map_or("NaN".to_owned(), |number| number.to_string()));
        headers.add("Request-Numbers", numbers.collect::<Vec<_>>().join(" "));
        self.steps[index] = step.clone();
        if step.disconnect {
            return Some(Answer::Disconnect);
        }
        let token = target.split(['/', '?']).nth(2).unwrap_or("");
        let body_bytes = step.response_body.as_ref().map_or(token.len(), String::len);
        let mut bytes = interim(&step);
        let has_body = method != "HEAD" && status != 204 && status != 304;
        let close = headers.finish(head, now_ms / 1000, has_body.then_some(body_bytes));
        bytes.extend_from_slice(format!("HTTP/1.1 {status} {phrase}\r\n").as_bytes());
        headers.write(&mut bytes);
        Some(Answer::Send { bytes, body: step.response_body, then: Then { has_body, close } })
    }
}

/// 304 when a validator matches what the step before sent, 999 when the script wants a conditional request and this
/// is none.
fn status_of(step: &Step, previous: Option<&Step>, fields: &HashMap<String, String>) -> (u16, String) {
    let validated = matches!(step.expected_type, Some(Source::EtagValidated | Source::LmValidated));
    if !validated {
        return step.response_status.clone().unwrap_or((200, "OK".to_owned()));
    }
    let matches = |sent: &str, received: &str| {
        let lines = previous.map(|step| &step.response_headers[..]).unwrap_or_default();
        let sent = lines
            .iter()
            .rfind(|line| line.name.eq_ignore_ascii_case(sent))
            .and_then(|line| line.value.as_str());
        sent.is_some_and(|sent| !sent.is_empty() && fields.get(received).is_some_and(|value| value == sent))
    };
    if matches("Last-Modified", "if-modified-since") || matches("ETag", "if-none-match") {
        (304, "Not Modified".to_owned())
    } else {
        (999, "304 Not Generated".to_owned())
    }
}

/// The text of a scripted header: dates from numbers, locations under the request's own URL.
pub(super) fn resolve(line: &Line, step: &Step, now_secs: i64, base: &str) -> String {
    let name = line.name.to_ascii_lowercase();
    if let (true, Some(delta)) = (is_date(&name), line.value.as_i64()) {
        return match step.rfc850date.contains(&name) {
            true => dates::rfc850(now_secs + delta),
            false => dates::imf_fixdate(now_secs + delta),
        };
    }
    let value = match &line.value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match (step.magic_locations && matches!(&name[..], "location" | "content-location"), value.is_empty()) {
        (false, _) => value,
        (true, true) => base.to_owned(),
        (true, false) => format!("{base}/{value}"),
    }
}

fn is_date(name: &str) -> bool {
    matches!(name, "date" | "expires" | "last-modified" | "if-modified-since" | "if-unmodified-since")
}

fn interim(step: &Step) -> Vec<u8> {
    let mut bytes = Vec::new();
    for response in &step.interim_responses {
        let status = response.first().and_then(Value::as_u64).unwrap_or(0);
        let phrase = if status == 103 { "Early Hints" } else { "Processing" };
        bytes.extend_from_slice(format!("HTTP/1.1 {status} {phrase}\r\n").as_bytes());
        for line in response.get(1).and_then(Value::as_array).into_iter().flatten() {
            let part = |at: usize| line.get(at).and_then(Value::as_str).unwrap_or("");
            bytes.extend_from_slice(format!("{}: {}\r\n", part(0), part(1)).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn fields_as_node_joins_them(head: &Head) -> HashMap<String, String> {
    let mut fields: HashMap<String, String> = HashMap::new();
    for (name, value) in head.fields.iter() {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value = String::from_utf8_lossy(value);
        match fields.get_mut(&name) {
            Some(_) if FIRST_LINE_ONLY.contains(&&name[..]) => {}
            Some(joined) => {
                *joined = format!("{joined}{}{value}", if name == "cookie" { "; " } else { ", " })
            }
            None => drop(fields.insert(name, value.into_owned())),
        }
    }
    fields
}

/// Response headers: a name keeps its first place and takes further values as further lines.
#[derive(Default)]
struct Headers(Vec<(String, Vec<String>)>);

impl Headers {
    fn add(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(present, _)| present.eq_ignore_ascii_case(name)) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.to_owned(), vec![value])),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(present, _)| present.eq_ignore_ascii_case(name))
    }

    fn joined(&self, name: &str) -> String {
        let values = self.0.iter().find(|(present, _)| present.eq_ignore_ascii_case(name));
        values.map(|(_, values)| values.join(", ")).unwrap_or_default()
    }

    /// Adds what the server adds of its own. Says whether the connection closes after the body.
    fn finish(&mut self, request: &Head, now_secs: i64, body_bytes: Option<usize>) -> bool {
        let old = request.line.ends_with("HTTP/1.0");
        let asked =
            request.field("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
        let mut close = old || asked;
        if !self.has("Date") {
            self.add("Date", dates::imf_fixdate(now_secs));
        }
        if self.has("Connection") {
            close |= self.joined("Connection").to_ascii_lowercase().contains("close");
        } else if close {
            self.add("Connection", "close".to_owned());
        } else {
            self.add("Connection", "keep-alive".to_owned());
            if !self.has("Keep-Alive") {
                self.add("Keep-Alive", "timeout=5".to_owned());
            }
        }
        if let (Some(length), false, false, false) =
            (body_bytes, old, self.has("Content-Length"), self.has("Transfer-Encoding"))
        {
            self.add("Content-Length", length.to_string());
        }
        close
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        for (name, values) in &self.0 {
            for value in values {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        bytes.extend_from_slice(b"\r\n");
    }
}

/// The leading decimal number of `text`, as JavaScript's `parseInt` reads it.
pub(super) fn parse_int(text: &str) -> Option<i64> {
    let text = text.trim_start();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    let number: i64 = digits[..end].parse().ok()?;
    Some(if text.starts_with('-') { -number } else { number })
}

/// Bytes of a head for people, each line moved in.
pub(super) fn indent(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end().lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}
