//! What HTTP demands of a request head beyond its syntax: exactly one host, one unambiguous body length, a target of
//! the right form (RFC 9110 §7.2, §10.1.1; RFC 9112 §3.2, §6).
//!
//! The byte parser has split the head into method, target, version and trimmed field lines, and refused what breaks
//! the grammar (bare CR, obs-fold, space before a colon, NUL). [`check_request`] runs next, on every request,
//! before a site is looked up, a key is written or a byte goes to an origin. Where the RFC leaves a recipient the
//! choice between repairing and refusing (two equal Content-Lengths, Content-Length beside Transfer-Encoding) it
//! refuses: a message that two parsers can read differently is how requests are smuggled.
//!
//! After a [`Refused`] the connection closes: where the next request would begin is not known, or not worth knowing.

use crate::Fields;
use crate::fields::is_tchar;
use crate::hop::connection_lists;
use crate::list::tokens;

/// Longest host with its port, in bytes: 253 of a DNS name and 6 of `:65535`.
pub const HOST_BYTES_MAX: usize = 259;

/// Protocol version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and any later minor version (RFC 9110 §2.5).
    Http11,
    /// HTTP/2 and later: `:authority` stands as Host among the fields, `:path` is the target.
    Http2,
}

/// What a sound request head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The host with its port, as sent: of an absolute target if there is one, else of Host. Only letters, digits,
    /// `-`, `.`, `_`, or an IP literal in brackets. Empty only for HTTP/1.0 without Host.
    ///
    /// When the target was absolute the caller replaces Host by this before anything reads it (RFC 9112 §3.2.2).
    pub host: &'a str,
    /// Path, from its first `/`; `*` for a request about the server itself.
    pub path: &'a [u8],
    /// What is behind the first `?`; `None` without one.
    pub query: Option<&'a [u8]>,
    /// How the target was written.
    pub form: Form,
    /// How the body is framed.
    pub body: Body,
    /// Whether the client waits for 100 before it sends the body.
    pub expects_continue: bool,
    /// Whether the client can use the connection again (RFC 9112 §9.3).
    pub keeps_alive: bool,
}

/// The form of a request target (RFC 9112 §3.2). The authority form is CONNECT's, which is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`.
    Absolute,
    /// `*`, also from OPTIONS with an absolute target that has neither path nor query.
    Asterisk,
}

/// How long the body of a request is (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// No body: neither Content-Length nor Transfer-Encoding.
    None,
    /// Content-Length: so many bytes, possibly 0.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])* $name:ident = $status:literal, $sentence:literal;)*) => {
        /// Which rule a request broke.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refused { $($(#[doc = $doc])* $name,)* }

        impl Refused {
            /// All of them, in the order of declaration.
            pub const ALL: &'static [Refused] = &[$(Refused::$name),*];

            /// Status of the answer.
            pub const fn status(self) -> u16 { match self { $(Refused::$name => $status,)* } }

            /// The sentence for the log. The client sees only the status.
            pub const fn sentence(self) -> &'static str { match self { $(Refused::$name => $sentence,)* } }
        }
    };
}

refusals! {
    /// RFC 9110 §9.1.
    MethodIsNoToken = 400, "The method is not a token.";
    /// RFC 9110 §9.3.6: this is no forward proxy.
    Connect = 405, "CONNECT asks for a tunnel, which this server does not open.";
    /// RFC 9112 §3.2.
    TargetForm = 400, "The request target is neither a path, an absolute http or https URI, nor an asterisk.";
    /// RFC 9112 §3.2: control characters, spaces and fragments.
    TargetBytes = 400, "The request target has a control character, a space or a fragment.";
    /// RFC 9110 §4.2.4.
    TargetUserinfo = 400, "The request target carries a user name or password.";
    /// RFC 9112 §3.2.4.
    AsteriskMethod = 400, "Only OPTIONS may ask for the asterisk target.";
    /// RFC 9112 §3.2.
    HostMissing = 400, "An HTTP/1.1 request has no Host.";
    /// RFC 9112 §3.2.
    HostRepeated = 400, "The request has more than one Host.";
    /// RFC 9112 §3.2.
    HostInvalid = 400, "The Host is not a name or address with an optional port.";
    /// RFC 9110 §8.6.
    LengthInvalid = 400, "The Content-Length is not a decimal number.";
    /// RFC 9112 §6.3.
    LengthRepeated = 400, "The request has more than one Content-Length.";
    /// RFC 9112 §6.1.
    LengthAndCoding = 400, "The request has both Content-Length and Transfer-Encoding.";
    /// RFC 9112 §6.1.
    CodingInHttp10 = 400, "An HTTP/1.0 request has a Transfer-Encoding.";
    /// RFC 9112 §6.3.
    CodingNotChunked = 400, "The last transfer coding is not chunked, so the body has no end.";
    /// RFC 9112 §7.
    CodingRepeated = 400, "The transfer coding chunked is applied more than once or not last.";
    /// RFC 9112 §6.1.
    CodingUnknown = 501, "The body has a transfer coding besides chunked.";
    /// RFC 9113 §8.2.2, RFC 9114 §4.2.
    ConnectionField = 400, "The request has a field that concerns an HTTP/1.1 connection.";
    /// RFC 9113 §8.3.1, RFC 9114 §4.3.1.
    PathForm = 400, "The :path is neither a path nor an asterisk.";
    /// RFC 9110 §10.1.1.
    Expectation = 417, "The request expects something other than 100-continue.";
    /// RFC 9110 §9.3.8.
    TraceBody = 400, "A TRACE request has a body.";
}

/// Checks a request head and says what it means. Allocates nothing.
///
/// Not checked: whether the method is known, limits of size, whether the host is one of ours, trailers, and fields
/// that do not decide who is asked for what and where the body ends.
///
/// ```
/// use semantics::Fields;
/// use semantics::request_rules::{Refused, Version, check_request};
/// let fields: Fields = [("Host", "shop.example"), ("Host", "other.example")].into_iter().collect();
/// assert_eq!(check_request(b"GET", b"/", Version::Http11, &fields), Err(Refused::HostRepeated));
/// ```
pub fn check_request<'a>(
    method: &[u8],
    target: &'a [u8],
    version: Version,
    fields: &'a Fields,
) -> Result<Checked<'a>, Refused> {
    if method.is_empty() || !method.iter().all(|&byte| is_tchar(byte)) {
        return Err(Refused::MethodIsNoToken);
    }
    if method == b"CONNECT" {
        return Err(Refused::Connect);
    }
    if version == Version::Http2 {
        check_http2(target, fields)?;
    }
    let body = check_framing(version, fields)?;
    if method == b"TRACE" && !matches!(body, Body::None | Body::Length(0)) {
        return Err(Refused::TraceBody);
    }
    let target = check_target(method, target)?;
    let host = check_host(version, fields)?;
    Ok(Checked {
        host: target.authority.unwrap_or(host),
        path: target.path,
        query: target.query,
        form: target.form,
        body,
        expects_continue: check_expectation(version, fields)?,
        keeps_alive: !connection_lists(fields, "close")
            && (version >= Version::Http11 || connection_lists(fields, "keep-alive")),
    })
}

/// Whether `text` is a host with an optional port, as [`Checked::host`] describes it. Stricter than RFC 3986 §3.2.2,
/// whose `reg-name` allows percent-encodings and punctuation that no name in DNS has.
pub fn is_host(text: &str) -> bool {
    if text.len() > HOST_BYTES_MAX {
        return false;
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((literal, "")) => (literal, None),
            Some((literal, port)) if port.starts_with(':') => (literal, Some(&port[1..])),
            _ => return false,
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let host_is_sound = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    };
    host_is_sound && port.is_none_or(is_port)
}

/// `*DIGIT` up to 65535. An empty port is allowed by RFC 3986 §3.2.3 and means the default.
fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

// --- Rules ---

/// What HTTP/2 and HTTP/3 leave out: the connection's own affairs are not told in fields.
fn check_http2(target: &[u8], fields: &Fields) -> Result<(), Refused> {
    const CONNECTION_FIELDS: [&str; 5] =
        ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"];
    let is_odd_te = |value: &[u8]| !value.eq_ignore_ascii_case(b"trailers");
    if CONNECTION_FIELDS.iter().any(|name| fields.contains(name)) || fields.get_all("te").any(is_odd_te) {
        return Err(Refused::ConnectionField);
    }
    match target {
        [b'/', ..] | b"*" => Ok(()),
        _ => Err(Refused::PathForm),
    }
}

fn check_framing(version: Version, fields: &Fields) -> Result<Body, Refused> {
    let mut lengths = fields.get_all("content-length");
    let length = lengths.next();
    if fields.contains("transfer-encoding") {
        if length.is_some() {
            return Err(Refused::LengthAndCoding);
        }
        if version == Version::Http10 {
            return Err(Refused::CodingInHttp10);
        }
        return check_codings(fields);
    }
    let Some(length) = length else { return Ok(Body::None) };
    // A list of equal numbers may be repaired (RFC 9110 §8.6) or refused; it is refused like two lines.
    if lengths.next().is_some() || length.contains(&b',') {
        return Err(Refused::LengthRepeated);
    }
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return Err(Refused::LengthInvalid);
    }
    let number = std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok());
    number.map(Body::Length).ok_or(Refused::LengthInvalid)
}

fn check_codings(fields: &Fields) -> Result<Body, Refused> {
    let (mut count, mut chunked, mut last_is_chunked) = (0, 0, false);
    for coding in fields.get_all("transfer-encoding").flat_map(tokens) {
        count += 1;
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_is_chunked);
    }
    match (count, chunked, last_is_chunked) {
        (1, 1, true) => Ok(Body::Chunked),
        (_, 0, _) => Err(Refused::CodingNotChunked),
        (_, 1, true) => Err(Refused::CodingUnknown),
        _ => Err(Refused::CodingRepeated),
    }
}

struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
    form: Form,
}

fn check_target<'a>(method: &[u8], target: &'a [u8]) -> Result<Target<'a>, Refused> {
    // Bytes above ASCII and characters such as `|` are outside RFC 3986, but browsers and feeds send them, and they
    // frame nothing.
    if target.iter().any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
        return Err(Refused::TargetBytes);
    }
    if target == b"*" {
        let form = Form::Asterisk;
        let asterisk = Target { authority: None, path: target, query: None, form };
        return if method == b"OPTIONS" { Ok(asterisk) } else { Err(Refused::AsteriskMethod) };
    }
    if target.starts_with(b"/") {
        let (path, query) = split_query(target);
        return Ok(Target { authority: None, path, query, form: Form::Origin });
    }
    let after_scheme = ["http://", "https://"].iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme.as_bytes()).then(|| &target[scheme.len()..])
    });
    let rest = after_scheme.ok_or(Refused::TargetForm)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'\\')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.contains(&b'@') {
        return Err(Refused::TargetUserinfo);
    }
    let authority =
        std::str::from_utf8(authority).ok().filter(|host| is_host(host)).ok_or(Refused::HostInvalid)?;
    if rest.is_empty() && method == b"OPTIONS" {
        return Ok(Target { authority: Some(authority), path: b"*", query: None, form: Form::Asterisk });
    }
    let (path, query) = split_query(rest);
    let path = match path {
        [] => b"/",
        [b'/', ..] => path,
        _ => return Err(Refused::TargetForm),
    };
    Ok(Target { authority: Some(authority), path, query, form: Form::Absolute })
}

fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(mark) => (&target[..mark], Some(&target[mark + 1..])),
        None => (target, None),
    }
}

fn check_host(version: Version, fields: &Fields) -> Result<&str, Refused> {
    let mut hosts = fields.get_all("host");
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::Http10 => Ok(""),
        (None, _) => Err(Refused::HostMissing),
        (Some(_), Some(_)) => Err(Refused::HostRepeated),
        (Some(host), None) => {
            std::str::from_utf8(host).ok().filter(|host| is_host(host)).ok_or(Refused::HostInvalid)
        }
    }
}

/// HTTP/1.0 clients cannot read a 100, so what they expect is ignored.
fn check_expectation(version: Version, fields: &Fields) -> Result<bool, Refused> {
    let mut expected = false;
    if version >= Version::Http11 {
        for expectation in fields.get_all("expect").flat_map(tokens) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refused::Expectation);
            }
            expected = true;
        }
    }
    Ok(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V11: Version = Version::Http11;
    const V10: Version = Version::Http10;

    fn refused(method: &str, target: &str, version: Version, lines: &[(&str, &str)]) -> Option<Refused> {
        let fields: Fields = lines.iter().copied().collect();
        check_request(method.as_bytes(), target.as_bytes(), version, &fields).err()
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        let check = |version, lines: &[(&str, &str)], expected| {
            assert_eq!(refused("GET", "/", version, lines), expected, "{lines:?}");
        };
        check(V11, &[("Host", "a.example")], None);
        check(V11, &[("hOST", "A.example:8080")], None);
        check(V11, &[("Host", "a.example:")], None);
        check(V11, &[("Host", "[::1]:80")], None);
        check(V11, &[("Host", "127.0.0.1")], None);
        check(V11, &[], Some(Refused::HostMissing));
        check(V10, &[], None);
        check(V11, &[("Host", "a"), ("Host", "a")], Some(Refused::HostRepeated));
        check(V10, &[("Host", "a"), ("host", "b")], Some(Refused::HostRepeated));
        let long = "a".repeat(HOST_BYTES_MAX + 1);
        for host in [
            "",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "user:pw@a",
            "a#b",
            "a?b",
            "a\\b",
            "a:b",
            "a:99999",
            "a:80:80",
            ":80",
            "[::1",
            "[::1]x",
            "[x]",
            "[]",
            "é",
            "a%2fb",
            "a:+80",
            &long,
        ] {
            check(V11, &[("Host", host)], Some(Refused::HostInvalid));
        }
    }

    #[test]
    fn a_body_has_exactly_one_length() {
        let check = |version, lines: &[(&str, &str)], expected: Result<Body, Refused>| {
            let mut fields: Fields = lines.iter().copied().collect();
            fields.append("Host", "a").unwrap();
            let found = check_request(b"POST", b"/", version, &fields).map(|checked| checked.body);
            assert_eq!(found, expected, "{lines:?}");
        };
        const CL: &str = "Content-Length";
        const TE: &str = "Transfer-Encoding";
        check(V11, &[], Ok(Body::None));
        check(V11, &[(CL, "0")], Ok(Body::Length(0)));
        check(V11, &[(CL, "007")], Ok(Body::Length(7)));
        check(V11, &[(CL, "18446744073709551615")], Ok(Body::Length(u64::MAX)));
        for bad in ["18446744073709551616", "", "-1", "+1", "1.0", "0x1", "1 1", "a", "\u{661}"] {
            check(V11, &[(CL, bad)], Err(Refused::LengthInvalid));
        }
        check(V11, &[(CL, "1"), (CL, "1")], Err(Refused::LengthRepeated));
        check(V11, &[(CL, "1, 1")], Err(Refused::LengthRepeated));
        check(V11, &[(CL, "1"), (CL, "2")], Err(Refused::LengthRepeated));
        check(V11, &[(TE, "Chunked")], Ok(Body::Chunked));
        check(V11, &[(TE, ", chunked")], Ok(Body::Chunked));
        check(V11, &[(TE, "chunked"), (CL, "1")], Err(Refused::LengthAndCoding));
        check(V11, &[(TE, ""), (CL, "1")], Err(Refused::LengthAndCoding));
        check(V10, &[(TE, "chunked")], Err(Refused::CodingInHttp10));
        check(V11, &[(TE, "gzip, chunked")], Err(Refused::CodingUnknown));
        check(V11, &[(TE, "gzip"), (TE, "chunked")], Err(Refused::CodingUnknown));
        check(V11, &[(TE, "chunked, gzip")], Err(Refused::CodingRepeated));
        check(V11, &[(TE, "chunked, chunked")], Err(Refused::CodingRepeated));
        check(V11, &[(TE, "chunked"), (TE, "identity")], Err(Refused::CodingRepeated));
        for bad in ["", "identity", "xchunked", "chunked;q=1", "\u{b}chunked", "\"chunked\"", "chunked x"] {
            check(V11, &[(TE, bad)], Err(Refused::CodingNotChunked));
        }
    }

    #[test]
    fn a_target_has_one_of_three_forms() {
        let check = |method: &str,
                     target: &str,
                     expected: Result<(&str, &str, Option<&str>, Form), Refused>| {
            let fields: Fields = [("Host", "h")].into_iter().collect();
            let found = check_request(method.as_bytes(), target.as_bytes(), V11, &fields).map(|checked| {
                let text = |bytes| std::str::from_utf8(bytes).unwrap();
                (checked.host.to_owned(), text(checked.path), checked.query.map(text), checked.form)
            });
            let expected = expected.map(|(host, path, query, form)| (host.to_owned(), path, query, form));
            assert_eq!(found, expected, "{method} {target}");
        };
        check("GET", "/", Ok(("h", "/", None, Form::Origin)));
        check("M-SEARCH", "/a?b?c", Ok(("h", "/a", Some("b?c"), Form::Origin)));
        check("GET", "/?", Ok(("h", "/", Some(""), Form::Origin)));
        check("GET", "//a", Ok(("h", "//a", None, Form::Origin)));
        check("GET", "/http://b/", Ok(("h", "/http://b/", None, Form::Origin)));
        check("GET", "/ä|%zz", Ok(("h", "/ä|%zz", None, Form::Origin)));
        check("GET", "HTTP://B.example:81/c?d", Ok(("B.example:81", "/c", Some("d"), Form::Absolute)));
        check("GET", "https://b", Ok(("b", "/", None, Form::Absolute)));
        check("GET", "http://b?x", Ok(("b", "/", Some("x"), Form::Absolute)));
        check("OPTIONS", "*", Ok(("h", "*", None, Form::Asterisk)));
        check("OPTIONS", "http://b", Ok(("b", "*", None, Form::Asterisk)));
        check("OPTIONS", "http://b/", Ok(("b", "/", None, Form::Absolute)));
        check("GET", "*", Err(Refused::AsteriskMethod));
        check("GET", "http://u:p@b/", Err(Refused::TargetUserinfo));
        check("GET", "http://b@c", Err(Refused::TargetUserinfo));
        check("GET", "http:///a", Err(Refused::HostInvalid));
        check("GET", "http://b\\c/", Err(Refused::TargetForm));
        check("GET", "http://b:x/", Err(Refused::HostInvalid));
        for target in ["", "a", "ftp://b/", "http:/b", "b:443", "**", "?a", "\\a"] {
            check("GET", target, Err(Refused::TargetForm));
        }
        for target in ["/a b", "/a#b", "/a\t", "/\u{7f}", "/\0", "/a\r"] {
            check("GET", target, Err(Refused::TargetBytes));
        }
        check("CONNECT", "b:443", Err(Refused::Connect));
        for method in ["", "G T", "GET:", "GÉT"] {
            check(method, "/", Err(Refused::MethodIsNoToken));
        }
    }

    #[test]
    fn the_host_field_must_be_sound_even_beside_an_absolute_target() {
        assert_eq!(refused("GET", "http://b/", V11, &[]), Some(Refused::HostMissing));
        assert_eq!(refused("GET", "http://b/", V11, &[("Host", "a b")]), Some(Refused::HostInvalid));
        assert_eq!(refused("GET", "http://b/", V11, &[("Host", "other")]), None);
    }

    #[test]
    fn expectation_persistence_and_trace_follow_the_version() {
        let check =
            |method: &str, version, lines: &[(&str, &str)], expected: Result<(bool, bool), Refused>| {
                let mut fields: Fields = lines.iter().copied().collect();
                fields.append("Host", "a").unwrap();
                let found = check_request(method.as_bytes(), b"/", version, &fields)
                    .map(|checked| (checked.expects_continue, checked.keeps_alive));
                assert_eq!(found, expected, "{lines:?}");
            };
        check("PUT", V11, &[("Expect", "100-Continue")], Ok((true, true)));
        check("PUT", V11, &[("Expect", "")], Ok((false, true)));
        check("PUT", V11, &[("Expect", "100-continue, x")], Err(Refused::Expectation));
        check("PUT", V10, &[("Expect", "100-continue")], Ok((false, false)));
        check("GET", V11, &[("Connection", "a, Close")], Ok((false, false)));
        check("GET", V10, &[("Connection", "Keep-Alive")], Ok((false, true)));
        check("GET", V10, &[("Connection", "keep-alive"), ("Connection", "close")], Ok((false, false)));
        check("TRACE", V11, &[], Ok((false, true)));
        check("TRACE", V11, &[("Content-Length", "0")], Ok((false, true)));
        check("TRACE", V11, &[("Content-Length", "1")], Err(Refused::TraceBody));
    }

    #[test]
    fn every_refusal_is_a_client_error_or_not_implemented_with_a_sentence() {
        for refused in Refused::ALL {
            assert!(matches!(refused.status(), 400 | 405 | 417 | 501), "{refused:?}");
            assert!(refused.sentence().ends_with('.'), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn any_head_is_refused_or_has_a_plain_host_and_a_path(
            method in "[A-Z ]{0,8}",
            target in "(http://)?[a-z@:/?*\\[\\]\\\\# ]{0,16}",
            host in prop::option::of("[a-z:.\\[\\]0-9@, ]{0,12}"),
        ) {
            let mut fields = Fields::new();
            if let Some(host) = &host {
                fields.append("Host", host).unwrap();
            }
            if let Ok(checked) = check_request(method.as_bytes(), target.as_bytes(), V11, &fields) {
                prop_assert!(is_host(checked.host));
                prop_assert!(checked.path.starts_with(b"/") || checked.form == Form::Asterisk);
            }
        }
    }
}
