//! HTTP/1.1 on the wire, as functions on bytes: where a request head ends, what it says, how its body is framed, and
//! how a response head is written. No IO: [`crate::connection`] reads and writes.
//!
//! Stricter than RFC 9112 allows a server to be, because a shared cache that guesses can be made to guess differently
//! from the origin behind it: a bare LF or CR anywhere in a head, obs-fold, a space before a colon, NUL and any other
//! control byte are refused. The head itself is parsed by `httparse`; everything that it lets pass and RFC 9112
//! forbids is refused here or by [`semantics::request_rules`].

pub(crate) mod body;

use semantics::Fields;
use semantics::fields::{LINES_MAX, is_control, write_decimal};

use crate::request::Protocol;

/// What of a head has come so far. Feed it the whole buffer after each read; it looks only at what is new.
#[derive(Default)]
pub(crate) struct HeadScan {
    scanned: usize,
}

/// What [`HeadScan::scan`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// The head is not complete.
    More,
    /// The head is `buffer[..end]`, with the empty line.
    Head { end: usize },
    /// A line ended with LF alone, or the first line is longer than any request line could be.
    Bad(BadHead),
}

/// Why a head was refused, before its meaning was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// LF without CR before it.
    BareLf,
    /// Something that is no HTTP/1.x request line or field line.
    Syntax,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
    /// More than [`LINES_MAX`] field lines.
    TooManyLines,
}

impl BadHead {
    /// One sentence for the log.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            BadHead::BareLf => "a line of the head ends with LF without CR",
            BadHead::Syntax => "the head is not a request line followed by field lines",
            BadHead::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
            BadHead::TooManyLines => "the head has too many field lines",
        }
    }
}

impl HeadScan {
    /// Looks for the end of the head in `buffer`.
    pub(crate) fn scan(&mut self, buffer: &[u8]) -> Scanned {
        while let Some(found) = memchr::memchr(b'\n', &buffer[self.scanned..]) {
            let lf = self.scanned + found;
            if lf == 0 || buffer[lf - 1] != b'\r' {
                return Scanned::Bad(BadHead::BareLf);
            }
            self.scanned = lf + 1;
            if lf >= 3 && buffer[lf - 3] == b'\r' && buffer[lf - 2] == b'\n' {
                return Scanned::Head { end: lf + 1 };
            }
        }
        self.scanned = buffer.len();
        Scanned::More
    }
}

/// The parts of a request head that is well formed.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) protocol: Protocol,
    pub(crate) fields: Fields,
}

/// Parses a complete head (`bytes` ends with the empty line).
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Head<'_>, BadHead> {
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; LINES_MAX];
    let mut request = httparse::Request::new(&mut []);
    let status =
        httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, &mut lines);
    match status {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooManyLines),
        Err(httparse::Error::Version) => return Err(BadHead::Version),
        _ => return Err(BadHead::Syntax),
    }
    let protocol = match request.version {
        Some(1) => Protocol::Http11,
        Some(0) => Protocol::Http10,
        _ => return Err(BadHead::Version),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else { return Err(BadHead::Syntax) };
    let mut fields = Fields::with_capacity(request.headers.len() + 4, bytes.len() + 128);
    for line in request.headers.iter() {
        if line.value.iter().any(|&byte| is_control(byte)) {
            return Err(BadHead::Syntax);
        }
        fields.append_unchecked(line.name.as_bytes(), semantics::fields::trim(line.value));
    }
    Ok(Head { method, target, protocol, fields })
}

/// Appends a status line. The reason phrase is the registered one, or empty: its content means nothing (RFC 9112 §4).
pub(crate) fn write_status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(out, status.into());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The registered reason phrase.
pub(crate) fn reason(status: u16) -> &'static str {
    if status == 200 {
        return "OK";
    }
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

/// Appends `name: value CRLF` for a number.
pub(crate) fn write_number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    write_decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the size line of a chunk (RFC 9112 §7.1).
pub(crate) fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    use std::io::Write as _;
    let _ = write!(out, "{size:x}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_bytewise(bytes: &[u8]) -> Scanned {
        let mut scan = HeadScan::default();
        for end in 1..=bytes.len() {
            match scan.scan(&bytes[..end]) {
                Scanned::More => {}
                other => return other,
            }
        }
        Scanned::More
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(scan_bytewise(head), Scanned::Head { end: head.len() });
        let mut with_body = head.to_vec();
        with_body.extend_from_slice(b"body\nwith\nlines");
        assert_eq!(HeadScan::default().scan(&with_body), Scanned::Head { end: head.len() });
    }

    #[test]
    fn a_bare_lf_is_refused_at_once() {
        for head in ["GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "\nGET"] {
            assert_eq!(scan_bytewise(head.as_bytes()), Scanned::Bad(BadHead::BareLf), "{head:?}");
        }
    }

    #[test]
    fn heads_that_could_be_read_in_two_ways_are_refused() {
        for (head, why) in [
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", BadHead::Syntax),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", BadHead::Syntax),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", BadHead::Syntax),
            ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", BadHead::Syntax),
            ("GET / HTTP/1.1\r\nX: a\x0bb\r\n\r\n", BadHead::Syntax),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::Syntax),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BadHead::Syntax),
            ("GET /\r\nHost: a\r\n\r\n", BadHead::Syntax),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", BadHead::Version),
            ("G\tT / HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::Syntax),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", BadHead::Syntax),
            ("GET / HTTP/1.1\r\nnocolon\r\n\r\n", BadHead::Syntax),
        ] {
            assert_eq!(parse_head(head.as_bytes()).err(), Some(why), "{head:?}");
        }
    }

    #[test]
    fn a_status_line_needs_no_registered_status() {
        let mut out = Vec::new();
        write_status_line(&mut out, 999);
        write_status_line(&mut out, 404);
        write_number(&mut out, "Age", 0);
        write_number(&mut out, "Content-Length", u64::MAX);
        assert_eq!(
            out,
            b"HTTP/1.1 999 \r\nHTTP/1.1 404 Not Found\r\nAge: 0\r\nContent-Length: 18446744073709551615\r\n"
        );
    }
}
