//! Plays one test: sends its requests through the proxy, one connection each, and judges what came back and what the
//! origin saw. The client sends what Node's `fetch` sends (joined header lines, its usual request headers).

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::definition::{Expected, Line, Source, Step, Test};
use super::origin::{Scripts, Seen, indent, parse_int, resolve};
use crate::wire::{End, Response, Wire};

/// Longest time for one request with its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// `pause_after`.
const PAUSE: Duration = Duration::from_secs(3);

/// Why a test did not pass by itself (its dependencies are looked at later).
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) message: String,
}

/// What a failure says about the subject of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The behaviour that is tested is not there.
    Subject,
    /// The test did not get so far.
    Setup,
    /// The exchange broke: no connection, no response, a body cut short.
    Exchange,
}

type Verdict = Result<(), Failure>;

/// Where to play.
#[derive(Clone)]
pub(super) struct Stage {
    /// `host:port` of the proxy.
    pub(super) proxy: String,
    pub(super) scripts: Scripts,
    /// Keep a log of every message.
    pub(super) log: bool,
}

/// Plays `test` from its first request to its last.
pub(super) async fn play(stage: &Stage, test: &Test) -> (Verdict, Vec<String>) {
    let token = token();
    stage.scripts.begin(&token, test.requests.clone());
    let verdict = play_as(stage, test, &token).await;
    (verdict, stage.scripts.end(&token))
}

async fn play_as(stage: &Stage, test: &Test, token: &str) -> Verdict {
    let mut responses: Vec<Response> = Vec::new();
    for (index, step) in test.requests.iter().enumerate() {
        let request = Request::of(test, step, index, token, &stage.proxy, responses.last());
        let exchange = tokio::time::timeout(REQUEST_TIMEOUT, request.send(stage, token)).await;
        let response = match exchange {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(exchange_failure(index, &format!("no response: {error}"))),
            Err(_) => return Err(exchange_failure(index, "no complete response within 10 s")),
        };
        check_response(step, index as i64 + 1, &response, token)?;
        responses.push(response);
        if step.pause_after.is_some() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    check_origin(test, &responses, &stage.scripts.seen(token))
}

fn exchange_failure(index: usize, what: &str) -> Failure {
    Failure { kind: FailureKind::Exchange, message: format!("request {}: {what}", index + 1) }
}

fn assert(is_setup: bool, holds: bool, message: impl FnOnce() -> String) -> Verdict {
    match holds {
        true => Ok(()),
        false => {
            let kind = if is_setup { FailureKind::Setup } else { FailureKind::Subject };
            Err(Failure { kind, message: message() })
        }
    }
}

/// A fresh URL segment in the form of a UUID.
fn token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = time.map_or(0, |since| since.as_nanos() as u64);
    let pid = std::process::id();
    format!(
        "{pid:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        count & 0xffff,
        count >> 16 & 0xfff,
        7,
        time & 0xffff_ffff_ffff
    )
}

// --- Client ---

struct Request {
    method: String,
    bytes: Vec<u8>,
    head_bytes: usize,
}

impl Request {
    fn of(
        test: &Test,
        step: &Step,
        index: usize,
        token: &str,
        host: &str,
        previous: Option<&Response>,
    ) -> Request {
        let mut lines: Vec<(String, String)> = Vec::new();
        join(&mut lines, "Pragma", "foo");
        join(&mut lines, "Cache-Control", "nothing-to-see-here");
        for line in &step.request_headers {
            let value =
                match (step.magic_ims && line.name.eq_ignore_ascii_case("if-modified-since"), previous) {
                    (true, Some(previous)) => resolve(line, step, server_now(previous), ""),
                    _ => line.value.as_str().map_or_else(|| line.value.to_string(), str::to_owned),
                };
            join(&mut lines, &line.name, &value);
        }
        join(&mut lines, "Test-Name", &test.name);
        join(&mut lines, "Test-ID", &test.id);
        join(&mut lines, "Req-Num", &(index + 1).to_string());
        let has = |lines: &[(String, String)], name: &str| {
            lines.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
        };
        let encoding = if has(&lines, "range") { "identity" } else { "gzip, deflate" };
        let body = step.request_body.as_deref().unwrap_or("");
        if step.request_body.is_some() && !has(&lines, "content-type") {
            join(&mut lines, "content-type", "text/plain;charset=UTF-8");
        }
        for (name, value) in [
            ("accept", "*/*"),
            ("accept-language", "*"),
            ("sec-fetch-mode", "cors"),
            ("user-agent", "node"),
            ("accept-encoding", encoding),
        ] {
            if !has(&lines, name) {
                join(&mut lines, name, value);
            }
        }
        if step.request_body.is_some() || matches!(step.method(), "POST" | "PUT" | "PATCH") {
            join(&mut lines, "content-length", &body.len().to_string());
        }
        let file = step.filename.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
        let query = step.query_arg.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let mut head = format!("{} /test/{token}{file}{query} HTTP/1.1\r\n", step.method());
        head.push_str(&format!("host: {host}\r\nconnection: keep-alive\r\n"));
        for (name, value) in lines {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let head_bytes = head.len();
        Request { method: step.method().to_owned(), bytes: (head + body).into_bytes(), head_bytes }
    }

    async fn send(&self, stage: &Stage, token: &str) -> std::io::Result<Response> {
        if stage.log {
            stage.scripts.log(token, format!("client sent\n{}", indent(&self.bytes[..self.head_bytes])));
        }
        let mut wire = Wire::connect(&stage.proxy).await?;
        wire.write(&self.bytes).await?;
        let response = wire.read_response(&self.method).await?;
        if stage.log {
            for head in response.interim.iter().chain([&response.head]) {
                stage.scripts.log(token, format!("client received\n{}", indent(&head.raw)));
            }
            let body = String::from_utf8_lossy(&response.body.bytes);
            stage.scripts.log(token, format!("client received body ({:?}): {body:.200}", response.body.end));
        }
        match response.body.end {
            End::Whole => Ok(response),
            End::Cut => Err(std::io::Error::other("the body ended early")),
        }
    }
}

/// Lines of one name become one, as `fetch` does.
fn join(lines: &mut Vec<(String, String)>, name: &str, value: &str) {
    match lines.iter_mut().find(|(present, _)| present.eq_ignore_ascii_case(name)) {
        Some((_, joined)) => *joined = format!("{joined}, {value}"),
        None => lines.push((name.to_owned(), value.to_owned())),
    }
}

fn server_now(response: &Response) -> i64 {
    response.head.field("server-now").as_deref().and_then(parse_int).unwrap_or(0) / 1000
}

// --- What the client saw ---

fn check_response(step: &Step, number: i64, response: &Response, token: &str) -> Verdict {
    let head = &response.head;
    let status = head.status();
    let origin_count = head.field("server-request-count").as_deref().and_then(parse_int);
    if let Some(numbers) = head.field("request-numbers") {
        let numbers: Vec<&str> = numbers.split(' ').collect();
        let distinct: HashSet<&&str> = numbers.iter().collect();
        assert(true, distinct.len() == numbers.len(), || {
            format!("the proxy repeated a request: {numbers:?}")
        })?;
    }
    let is_setup = step.is_setup("expected_type");
    match step.expected_type {
        Some(Source::Cached) if status == 304 && origin_count.is_none() => {}
        Some(Source::Cached) => assert(is_setup, origin_count.is_some_and(|count| count < number), || {
            format!("response {number} does not come from the cache")
        })?,
        Some(Source::NotCached) => {
            assert(is_setup, origin_count == Some(number), || {
                format!("response {number} comes from the cache")
            })?;
        }
        _ => {}
    }
    check_status(step, number, status)?;
    check_fields(step, number, response)?;
    check_interim(step, response)?;
    check_body(step, number, response, token)
}

fn check_status(step: &Step, number: i64, status: u16) -> Verdict {
    let wrong = |expected: u16| move || format!("response {number} has status {status}, not {expected}");
    if let Some(expected) = step.expected_status {
        return expected.map_or(Ok(()), |expected| {
            assert(step.is_setup("expected_status"), status == expected, wrong(expected))
        });
    }
    if let Some((expected, _)) = step.response_status {
        return assert(true, status == expected, wrong(expected));
    }
    if status == 999 {
        return assert(step.is_setup("expected_type"), false, || {
            format!("request {number} reached the origin without a validator")
        });
    }
    assert(true, status == 200, wrong(200))
}

fn check_fields(step: &Step, number: i64, response: &Response) -> Verdict {
    let head = &response.head;
    let is_setup = step.is_setup("expected_response_headers");
    for expected in &step.expected_response_headers {
        let (name, rest) = parts(expected);
        let value = head.field(name);
        let shown = value.as_deref().unwrap_or("absent").to_owned();
        let (holds, wanted) = match rest {
            [] => (value.is_some(), "present".to_owned()),
            [Value::String(sign), other] if sign == "=" => {
                let other = head.field(other.as_str().unwrap_or(""));
                (value.is_some() && value == other, format!("{other:?}"))
            }
            [Value::String(sign), least] if sign == ">" => {
                let least = least.as_i64().unwrap_or(i64::MAX);
                let number = value.as_deref().and_then(parse_int);
                (number.is_some_and(|number| number > least), format!("more than {least}"))
            }
            [scripted, ..] => {
                let line = Line { name: name.to_owned(), value: scripted.clone(), remembered: true };
                let base = head.field("server-base-url").unwrap_or_default();
                let wanted = resolve(&line, step, server_now(response), &base);
                (value.as_deref() == Some(&wanted), wanted)
            }
        };
        assert(is_setup, holds, || format!("response {number} has {name}: {shown}; expected: {wanted}"))?;
    }
    let is_setup = step.is_setup("expected_response_headers_missing");
    for expected in &step.expected_response_headers_missing {
        let (name, rest) = parts(expected);
        let value = head.field(name);
        let bad = match (rest.first().and_then(Value::as_str), &value) {
            (None, value) => value.is_some(),
            (Some(part), Some(value)) => value.contains(part),
            (Some(_), None) => false,
        };
        assert(is_setup, !bad, || {
            format!("response {number} must not have {name}: {}", value.unwrap_or_default())
        })?;
    }
    Ok(())
}

fn parts(expected: &Expected) -> (&str, &[Value]) {
    match expected {
        Expected::Name(name) => (name, &[]),
        Expected::Parts(parts) => {
            (parts.first().and_then(Value::as_str).unwrap_or(""), parts.get(1..).unwrap_or_default())
        }
    }
}

/// Statuses and the presence of fields, in order; more interim responses than expected are no failure.
fn check_interim(step: &Step, response: &Response) -> Verdict {
    let is_setup = step.is_setup("expected_interim_responses");
    for (index, expected) in step.expected_interim_responses.iter().flatten().enumerate() {
        let received = response.interim.get(index);
        let status = expected.first().and_then(Value::as_u64).unwrap_or(0);
        let received_status = received.map_or(0, |head| head.status());
        assert(is_setup, u64::from(received_status) == status, || {
            format!(
                "interim response {} has status {received_status} (0: not received), not {status}",
                index + 1
            )
        })?;
        for line in expected.get(1).and_then(Value::as_array).into_iter().flatten() {
            let name = line.get(0).and_then(Value::as_str).unwrap_or("");
            assert(is_setup, received.is_some_and(|head| head.fields.contains(name)), || {
                format!("interim response {} has no {name}", index + 1)
            })?;
        }
    }
    Ok(())
}

fn check_body(step: &Step, number: i64, response: &Response, token: &str) -> Verdict {
    if step.check_body == Some(false) {
        return Ok(());
    }
    let (is_setup, expected) = match (&step.expected_response_text, &step.response_body) {
        (Some(None), _) => return Ok(()),
        (Some(Some(text)), _) => (step.is_setup("expected_response_text"), text.as_str()),
        (None, Some(text)) => (true, text.as_str()),
        (None, None) if matches!(response.head.status(), 204 | 304) || step.method() == "HEAD" => {
            return Ok(());
        }
        (None, None) => (true, token),
    };
    let received = &response.body.bytes;
    assert(is_setup, received == expected.as_bytes(), || {
        format!("response {number} has body {:?}, not {expected:?}", String::from_utf8_lossy(received))
    })
}

// --- What the origin saw ---

fn check_origin(test: &Test, responses: &[Response], seen: &[Seen]) -> Verdict {
    let mut requests = seen.iter();
    for (index, (step, response)) in test.requests.iter().zip(responses).enumerate() {
        let number = index as i64 + 1;
        let is_setup = step.is_setup("expected_type");
        if step.expected_type == Some(Source::Cached) {
            continue;
        }
        let request = requests.next();
        if step.expected_type == Some(Source::NotCached) {
            assert(is_setup, request.is_some_and(|request| request.number == Some(number)), || {
                format!("request {number} did not reach the origin")
            })?;
        }
        let validator = match step.expected_type {
            Some(Source::EtagValidated) => Some("if-none-match"),
            Some(Source::LmValidated) => Some("if-modified-since"),
            _ => None,
        };
        if let Some(validator) = validator {
            assert(is_setup, request.is_some(), || format!("request {number} did not reach the origin"))?;
            assert(is_setup, request.is_some_and(|request| request.fields.contains_key(validator)), || {
                format!("request {number} reached the origin without {validator}")
            })?;
        }
        let Some(request) = request else {
            let needs_one = step.expected_method.is_some()
                || !step.expected_request_headers.is_empty()
                || !step.expected_request_headers_missing.is_empty();
            assert(false, !needs_one, || format!("request {number} did not reach the origin"))?;
            continue;
        };
        check_request(step, number, request)?;
        for (name, sent) in request.remembered.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date")) {
            let received = response.head.field(name);
            assert(true, received.as_ref() == Some(sent), || {
                format!("response {number} has {name}: {received:?}, the origin sent {sent:?}")
            })?;
        }
    }
    Ok(())
}

fn check_request(step: &Step, number: i64, request: &Seen) -> Verdict {
    let value_of = |name: &str| request.fields.get(&name.to_ascii_lowercase());
    for expected in &step.expected_request_headers {
        let (name, rest) = parts(expected);
        let value = value_of(name);
        let holds = match rest.first().and_then(Value::as_str) {
            None => value.is_some(),
            Some(wanted) => value.is_some_and(|value| value == wanted),
        };
        assert(step.is_setup("expected_request_headers"), holds, || {
            format!("request {number} reached the origin with {name}: {value:?}; expected: {rest:?}")
        })?;
    }
    for expected in &step.expected_request_headers_missing {
        let (name, rest) = parts(expected);
        let value = value_of(name);
        let bad = match rest.first().and_then(Value::as_str) {
            None => value.is_some(),
            Some(unwanted) => value.is_some_and(|value| value == unwanted),
        };
        assert(step.is_setup("expected_request_headers_missing"), !bad, || {
            format!("request {number} reached the origin with {name}: {value:?}")
        })?;
    }
    let Some(method) = &step.expected_method else { return Ok(()) };
    assert(step.is_setup("expected_method"), &request.method == method, || {
        format!("request {number} reached the origin as {}, not {method}", request.method)
    })
}
