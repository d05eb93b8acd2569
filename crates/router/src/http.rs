//! The little of HTTP/1.1 that the router's own addresses speak: one request per connection, read whole before it is answered.
//!
//! No library's server: a few paths with a bounded body need none. Heads are read by `httparse`; what is ambiguous (RFC 9112 §6.3) is
//! refused, as there is no second request for it to hide.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Fields of a head.
const FIELDS_MAX: usize = 64;
/// Bytes of a body: some ten thousand round trips.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a peer may take for a request, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Before the question mark.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) media: &'static str,
    /// Further fields, each with its line end.
    pub(crate) fields: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn text(status: u16, body: impl Into<String>) -> Answer {
        Answer { status, media: "text/plain; version=0.0.4", fields: String::new(), body: body.into() }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Answer {
        Answer {
            status,
            media: "application/json",
            fields: "Cache-Control: no-store\r\n".to_owned(),
            body: format!("{body:#}\n"),
        }
    }
}

impl Request {
    /// The value of a parameter of the query, percent-decoded; as it stands where that cannot be done, or makes no text.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let query = self.query.as_deref()?;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.into_iter().find(|(known, _)| *known == name)?;
        Some(decoded(value).unwrap_or_else(|| value.to_owned()))
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        // The parser of numbers would take a sign.
        let code = Some(code).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(rest.bytes());
    }
    String::from_utf8(bytes).ok()
}

/// A request without its body, how long its head is, and how long the body.
type Head = (Request, usize, usize);

/// Reads a head. `None`: there is more to come.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Head>, (u16, &'static str)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        // A whole one too: whether it came at once or in pieces makes no difference.
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Complete(_)) => return Err((431, "the head is too long\n")),
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_BYTES_MAX => {
            return Err((431, "the head is too long\n"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err((400, "this is no request of HTTP/1.1\n")),
    };
    let mut request = Request { method: head.method.unwrap_or_default().to_owned(), ..Request::default() };
    let target = head.path.unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    (request.path, request.query) = (path.to_owned(), query.map(str::to_owned));
    let mut body: Option<usize> = None;
    for field in head.headers.iter() {
        let text = || std::str::from_utf8(field.value).map(|text| text.trim().to_owned()).ok();
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("transfer-encoding") {
            return Err((411, "the body must say its length: Content-Length\n"));
        } else if is("content-length") {
            // Digits alone (RFC 9110 §8.6): the parser of numbers would take a sign.
            let digits = text().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let read = digits.and_then(|text| text.parse().ok());
            if body.is_some() || read.is_none() {
                return Err((400, "Content-Length must be one number\n"));
            }
            body = read;
        } else if is("host") {
            if request.host.is_some() {
                return Err((400, "there must be one Host\n"));
            }
            request.host = text();
        } else if is("authorization") {
            request.authorization = text();
        }
    }
    match body.unwrap_or(0) {
        body if body > BODY_BYTES_MAX => Err((413, "the body is longer than 1 MiB\n")),
        body => Ok(Some((request, length, body))),
    }
}

/// Reads a request and answers it.
pub(crate) async fn serve(
    mut stream: TcpStream,
    peer: IpAddr,
    answer: impl FnOnce(IpAddr, &Request) -> Answer,
) -> std::io::Result<()> {
    let read = timeout(PATIENCE, read(&mut stream)).await??;
    let (answer, is_head) = match read {
        None => return Ok(()),
        Some(Ok(request)) => (answer(peer, &request), request.method == "HEAD"),
        Some(Err((status, why))) => (Answer::text(status, why), false),
    };
    let mut text = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Connection: close\r\n\r\n",
        answer.status,
        reason(answer.status),
        answer.media,
        answer.body.len(),
        answer.fields,
    );
    if !is_head {
        text.push_str(&answer.body);
    }
    timeout(PATIENCE, stream.write_all(text.as_bytes())).await??;
    stream.shutdown().await
}

type Read = Option<Result<Request, (u16, &'static str)>>;

async fn read(stream: &mut TcpStream) -> std::io::Result<Read> {
    let mut bytes = Vec::with_capacity(1024);
    let mut piece = [0; 4096];
    let (mut request, head, body) = loop {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece[..count]);
        match parse(&bytes) {
            Ok(None) => {}
            Ok(Some(parsed)) => break parsed,
            Err(refused) => return Ok(Some(Err(refused))),
        }
    };
    bytes.drain(..head);
    while bytes.len() < body {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece[..count]);
    }
    bytes.truncate(body);
    request.body = bytes;
    Ok(Some(Ok(request)))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_and_what_is_ambiguous_refused() {
        let text = b"POST /v1/samples?site=shop&ip=2001%3Adb8::1 HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n\r\nhello";
        let (request, head, body) = parse(text).unwrap().unwrap();
        assert_eq!((request.path.as_str(), body, text.len() - head), ("/v1/samples", 5, 5));
        assert_eq!(request.parameter("ip").as_deref(), Some("2001:db8::1"));
        assert_eq!(request.parameter("site").as_deref(), Some("shop"));
        assert_eq!(request.parameter("nothing"), None);
        for (value, wanted) in [
            ("a%2Db%5f", "a-b_"),
            ("%C3%a4", "ä"),
            ("", ""),
            // What is encoded badly, or no text, is taken as it stands: it is not nothing.
            ("50%", "50%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%+f", "%+f"),
            ("%ä", "%ä"),
            ("%ff", "%ff"),
        ] {
            let request = Request { query: Some(format!("ip=x&site={value}&more=y")), ..Request::default() };
            assert_eq!(request.parameter("site").as_deref(), Some(wanted));
        }
        assert_eq!(parse(&text[..40]), Ok(None));
        for (fields, status) in [
            ("Transfer-Encoding: chunked", 411),
            ("Content-Length: 5\r\nContent-Length: 5", 400),
            ("Content-Length: five", 400),
            ("Content-Length: +5", 400),
            ("Content-Length: 9999999", 413),
            ("Host: a\r\nHost: b", 400),
            ("no field", 400),
        ] {
            let read = parse(format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes());
            assert_eq!(read.unwrap_err().0, status, "{fields}");
        }
        assert_eq!(parse(&vec![b'A'; HEAD_BYTES_MAX]).unwrap_err().0, 431);
        let whole = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse(whole.as_bytes()).unwrap_err().0, 431);
    }
}
