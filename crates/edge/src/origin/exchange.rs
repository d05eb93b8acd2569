//! One request and its answer's head on one connection: the message is built, sent, waited for and translated. Called
//! by [`super::Origins`], which chooses origin and connection and decides about another try.
//!
//! Framing is made here and nowhere else: whatever the visitor's fields say, the origin gets `Content-Length` or
//! `Transfer-Encoding: chunked`, never both, and never neither where a body follows (RFC 9112 §6).

use std::error::Error as _;
use std::sync::atomic::{AtomicU32, Ordering};

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Uri};
use hyper::body::{Body as _, Incoming};
use model::Origin;
use semantics::Fields;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::OriginRequest;
use super::body::Upload;
use super::error::{FetchError, FetchErrorKind, Phase, Sent};
use super::pool::Lease;

/// Most interim (1xx) responses before one final response. Each gives the origin its first-byte time anew, so this
/// bounds the wait too.
const INFORMATIONAL_MAX: u32 = 32;

/// Interim responses that may wait for the caller. More in one read are left out: they are hints.
const INFORMATIONAL_QUEUED: usize = 8;

/// An exchange that gave no head.
pub(super) struct Failed {
    pub(super) error: FetchError,
    /// The body, when it can still be sent from its beginning.
    pub(super) upload: Option<Upload>,
    /// The connection had been kept from an earlier exchange and ended before any byte of an answer: most likely the
    /// origin had closed it while it was idle, and the failure says nothing about the origin.
    pub(super) stale: bool,
}

impl Failed {
    pub(super) fn before(error: FetchError, upload: Upload) -> Self {
        Failed { error, upload: Some(upload), stale: false }
    }
}

/// Sends the request and waits for the head of the final response.
///
/// - `total`: when the whole fetch must be over.
/// - `on_informational`: gets each interim response but 101. HTTP/1.1 only: HTTP/2 origins' interim responses are not
///   seen by the client library.
pub(super) async fn exchange(
    origin: &Origin,
    request: &OriginRequest,
    upload: Upload,
    lease: &mut Lease,
    total: Option<Instant>,
    on_informational: &dyn Fn(u16, Fields),
) -> Result<http::Response<Incoming>, Failed> {
    let resendable = upload.is_empty();
    let progress = upload.progress();
    let mut message = match message(origin, request, upload, lease.is_http2()) {
        Ok(message) => message,
        Err((error, upload)) => return Err(Failed::before(error, upload)),
    };
    let (notes, mut interim) = mpsc::channel(INFORMATIONAL_QUEUED);
    let seen = AtomicU32::new(0);
    hyper::ext::on_informational(&mut message, move |response| {
        let seen = seen.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = notes.try_send((seen, response.status().as_u16(), fields_of(response.headers())));
    });

    let read_before = lease.meter().read();
    let reused = lease.is_reused();
    progress.touch();
    let fail = |error: FetchError| Failed {
        error,
        upload: resendable.then(|| Upload::new(super::RequestBody::Empty)),
        stale: false,
    };
    let patience = request.patience.map_or(origin.timeouts.first_byte, |patience| patience.first_byte);
    // A machine that is gone does not acknowledge. What cannot be sent again waits on, for the way may be mended in time.
    let unheard = origin.timeouts.connect;
    let mut look_at = (resendable && request.retry_safe).then(|| Instant::now() + unheard);
    let deadline = |look_at: Option<Instant>| {
        [total, look_at].into_iter().flatten().fold(progress.late_at(patience), Instant::min)
    };
    let asked = lease.meter().asks();
    let sent = lease.send(message);
    let mut sent = std::pin::pin!(sent);
    let mut wake = std::pin::pin!(sleep_until(deadline(look_at)));
    let result = loop {
        // Cancelling `sent` closes the connection or resets the stream; the other two lose nothing.
        tokio::select! {
            biased;
            Some((seen, status, fields)) = interim.recv() => {
                if seen > INFORMATIONAL_MAX {
                    let detail = "too many interim responses";
                    return Err(fail(FetchError::new(FetchErrorKind::Protocol, Sent::Answer, detail)));
                }
                progress.touch();
                on_informational(status, fields);
            }
            result = &mut sent => break result,
            () = &mut wake => {
                let now = Instant::now();
                let phase = match total {
                    Some(total) if total <= now => Phase::Total,
                    _ if progress.is_late(patience) => Phase::FirstByte,
                    _ => {
                        if let Some(due) = look_at.filter(|due| *due <= now) {
                            if lease.meter().is_unheard(unheard) {
                                let detail = format_args!("nothing that was sent is acknowledged within {unheard:?}");
                                let kind = FetchErrorKind::Timeout(Phase::Connect);
                                let failed = fail(FetchError::new(kind, Sent::Request, detail));
                                // Something between may have forgotten the connection while it was idle.
                                return Err(Failed { stale: reused, ..failed });
                            }
                            look_at = Some(due + unheard);
                        }
                        wake.as_mut().reset(deadline(look_at));
                        continue;
                    }
                };
                let detail = format_args!("no answer within {patience:?}");
                return Err(fail(FetchError::new(FetchErrorKind::Timeout(phase), Sent::Request, detail)));
            }
        }
    };
    match result {
        Ok(response) => {
            asked.answered();
            while let Ok((_, status, fields)) = interim.try_recv() {
                on_informational(status, fields);
            }
            Ok(response)
        }
        Err(unsent) => {
            let (error, upload) = unsent;
            if let Some(upload) = upload {
                let error = FetchError::new(FetchErrorKind::Reset, Sent::Nothing, chain(&error));
                return Err(Failed { error, upload: Some(upload), stale: reused });
            }
            let silent = lease.is_http2() || lease.meter().read() == read_before;
            let mut failed = fail(head_failure(&error, silent, progress.is_broken()));
            failed.stale = reused && silent && connection_ended(&error, &failed.error);
            Err(failed)
        }
    }
}

// --- Building the message ---

/// The request as hyper sends it.
fn message(
    origin: &Origin,
    request: &OriginRequest,
    upload: Upload,
    http2: bool,
) -> Result<http::Request<Upload>, (FetchError, Upload)> {
    let head = (|| {
        let method = http::Method::from_bytes(request.method.as_bytes()).map_err(|_| "the method")?;
        let host = origin.host_override.as_deref().unwrap_or(&request.host);
        let mut headers = HeaderMap::with_capacity(request.fields.len() + 4);
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path_and_query(origin, &request.target).ok_or("the target")?);
        if http2 {
            uri.scheme = Some(match origin.scheme {
                model::Scheme::Http => Scheme::HTTP,
                model::Scheme::Https => Scheme::HTTPS,
            });
            uri.authority = Some(Authority::try_from(host).map_err(|_| "the host")?);
        } else {
            headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| "the host")?);
        }
        append_fields(&mut headers, &request.fields).map_err(|_| "a field")?;
        frame(&mut headers, request, &upload, http2);
        if let Some(protocol) = request.upgrade.as_deref().filter(|_| !http2) {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_str(protocol).map_err(|_| "the upgrade")?);
        } else if request.takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            if !http2 {
                headers.insert(CONNECTION, HeaderValue::from_static("TE"));
            }
        }
        Ok::<_, &str>((method, Uri::from_parts(uri).map_err(|_| "the target")?, headers))
    })();
    match head {
        Ok((method, uri, headers)) => {
            let mut message = http::Request::new(upload);
            *message.method_mut() = method;
            *message.uri_mut() = uri;
            *message.headers_mut() = headers;
            Ok(message)
        }
        Err(what) => {
            let detail = format_args!("{what} cannot be sent to an origin");
            Err((FetchError::new(FetchErrorKind::Unsendable, Sent::Nothing, detail), upload))
        }
    }
}

/// Says how long the body is. Only here.
fn frame(headers: &mut HeaderMap, request: &OriginRequest, upload: &Upload, http2: bool) {
    match upload.length() {
        Some(0) if matches!(&*request.method, "POST" | "PUT" | "PATCH") => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(0) => {}
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        // Said even where the library would guess that GET has no body.
        None if !http2 => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        None => {}
    }
}

/// The path prefix and the visitor's target. Bytes that RFC 3986 does not allow and the library would refuse or cut
/// (`#`) are sent percent-encoded, as browsers do.
fn path_and_query(origin: &Origin, visited: &str) -> Option<PathAndQuery> {
    let prefix = if visited.starts_with('/') { &*origin.path_prefix } else { "" };
    let whole = [prefix, visited].concat();
    if !whole.contains('#')
        && let Ok(path) = PathAndQuery::try_from(whole.as_str())
    {
        return Some(path);
    }
    let mut encoded = String::with_capacity(whole.len() + 16);
    for byte in whole.bytes() {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'?'..=b'Z' | b'_' | b'a'..=b'z' | b'~' | b'[' | b']' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    PathAndQuery::try_from(encoded).ok()
}

fn append_fields(headers: &mut HeaderMap, fields: &Fields) -> Result<(), http::Error> {
    for (name, value) in fields.iter() {
        let name = HeaderName::from_bytes(name)?;
        if !matches!(name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING | CONNECTION | UPGRADE) {
            headers.append(name, HeaderValue::from_bytes(value)?);
        }
    }
    Ok(())
}

/// Trailer fields, or those of an interim response, for the library; what it cannot express is left out.
pub(crate) fn header_map(fields: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// The lines of `headers`, which the library has validated: no CR, LF or NUL in a value, only tokens as names.
pub(crate) fn fields_of(headers: &HeaderMap) -> Fields {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut fields = Fields::with_capacity(headers.len(), bytes);
    for (name, value) in headers {
        fields.append_unchecked(name.as_str().as_bytes(), semantics::fields::trim(value.as_bytes()));
    }
    fields
}

// --- Reading the answer ---

/// The fields of a final response, with one `Content-Length` line at most: none beside Transfer-Encoding, which wins
/// (RFC 9112 §6.3), and one where the origin repeated it. Says whether the connection may be kept: after conflicting
/// framing it may not.
pub(super) fn response_fields(headers: &mut HeaderMap) -> (Fields, bool) {
    let conflicting = headers.contains_key(TRANSFER_ENCODING) && headers.remove(CONTENT_LENGTH).is_some();
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
        || headers.get(CONTENT_LENGTH).is_some_and(|value| value.as_bytes().contains(&b','))
    {
        // The library has checked that all of them are the same number.
        let first =
            headers.get(CONTENT_LENGTH).and_then(|value| value.as_bytes().split(|&byte| byte == b',').next());
        if let Some(Ok(first)) = first.map(|first| HeaderValue::from_bytes(semantics::fields::trim(first))) {
            headers.insert(CONTENT_LENGTH, first);
        }
    }
    (fields_of(headers), !conflicting)
}

/// Length of the body to come, when the head tells it.
pub(super) fn body_length(head_only: bool, status: u16, body: &Incoming) -> Option<u64> {
    if head_only || matches!(status, 204 | 304) { Some(0) } else { body.size_hint().exact() }
}

// --- Failures ---

/// What it means that no head came. `silent`: no byte of an answer was read.
fn head_failure(error: &hyper::Error, silent: bool, upload_broken: bool) -> FetchError {
    let answered = if silent { Sent::Request } else { Sent::Answer };
    let (kind, sent) = if upload_broken {
        (FetchErrorKind::Upload, answered)
    } else if let Some(error) = http2_cause(error) {
        match error.reason() {
            // The origin says that it has done nothing (RFC 9113 §8.7).
            Some(h2::Reason::REFUSED_STREAM) => (FetchErrorKind::Reset, Sent::Nothing),
            _ if error.is_library() && !error.is_io() => (FetchErrorKind::Protocol, Sent::Answer),
            _ => (FetchErrorKind::Reset, Sent::Request),
        }
    } else if error.is_parse() {
        (FetchErrorKind::Protocol, Sent::Answer)
    } else if error.is_user() {
        (FetchErrorKind::Unsendable, Sent::Request)
    } else {
        (FetchErrorKind::Reset, answered)
    };
    FetchError::new(kind, sent, chain(error))
}

/// Whether the whole connection ended, as opposed to one HTTP/2 stream on it. A stream that was refused counts: the
/// origin is done with this connection, or has enough of it.
fn connection_ended(error: &hyper::Error, failure: &FetchError) -> bool {
    failure.kind() == FetchErrorKind::Reset
        && http2_cause(error)
            .is_none_or(|cause| cause.is_go_away() || cause.is_io() || failure.sent_nothing())
}

/// What it means that a body ended in `error`.
pub(super) fn body_failure(error: &hyper::Error) -> FetchError {
    let kind = match http2_cause(error) {
        Some(cause) if cause.is_library() && !cause.is_io() => FetchErrorKind::Protocol,
        Some(_) => FetchErrorKind::Truncated,
        None => match io_cause(error).map(std::io::Error::kind) {
            Some(std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput) => {
                FetchErrorKind::Protocol
            }
            _ => FetchErrorKind::Truncated,
        },
    };
    FetchError::new(kind, Sent::Answer, chain(error))
}

fn http2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

fn io_cause(error: &hyper::Error) -> Option<&std::io::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// An error and its causes as one line.
fn chain(error: &hyper::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
