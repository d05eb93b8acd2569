//! From the lines of a section to the parts of a request head (RFC 9114 §4.3), and to trailers. What the parts mean is
//! judged in [`crate::intake`].

use semantics::Fields;
use semantics::fields::{is_control, is_tchar};

use super::qpack::Section;

/// The pseudo-header fields of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pseudo<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) authority: Option<&'a str>,
    /// The protocol that CONNECT is to open (RFC 9220).
    pub(crate) connects_to: Option<&'a str>,
}

/// What is wrong with a message, for the log.
pub(crate) type Malformed = &'static str;

/// Reads a request's pseudo-header fields, which stand in front; the number is that of their lines.
pub(crate) fn pseudo(section: &Section) -> Result<(Pseudo<'_>, usize), Malformed> {
    let (mut method, mut scheme, mut path, mut authority, mut protocol) = (None, None, None, None, None);
    let is_pseudo = |line: &(&[u8], &[u8])| line.0.starts_with(b":");
    let mut count = 0;
    for (name, value) in section.lines().take_while(is_pseudo) {
        let slot = match name {
            b":method" => &mut method,
            b":scheme" => &mut scheme,
            b":path" => &mut path,
            b":authority" => &mut authority,
            b":protocol" => &mut protocol,
            _ => return Err("a pseudo-header field is none of a request's"),
        };
        let text =
            std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        let text = text.ok_or("a pseudo-header field has a byte that it must not have")?;
        if slot.replace(text).is_some() {
            return Err("a pseudo-header field stands there twice");
        }
        count += 1;
    }
    for (name, value) in section.lines().skip(count) {
        check(name, value)?;
    }
    let (Some(method), Some(_scheme)) = (method, scheme) else {
        return Err("a pseudo-header field is missing");
    };
    if protocol.is_some() && method != "CONNECT" {
        return Err(":protocol stands beside a method that opens no tunnel");
    }
    // CONNECT has none without :protocol; it is refused with a reason of its own.
    let target = path
        .or((method == "CONNECT" && protocol.is_none()).then_some("*"))
        .ok_or("a pseudo-header field is missing")?;
    let authority = authority.filter(|authority| !authority.is_empty());
    Ok((Pseudo { method, target, authority, connects_to: protocol }, count))
}

/// The fields of a trailer section.
pub(crate) fn trailers(section: &Section) -> Result<Fields, Malformed> {
    let mut fields = Fields::new();
    for (name, value) in section.lines() {
        check(name, value)?;
        fields.append(name, semantics::fields::trim(value)).map_err(|_| "too many trailer fields")?;
    }
    Ok(fields)
}

/// RFC 9114 §4.2 and §10.3: lower-case names, and values without what ends a line elsewhere.
fn check(name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    if name.is_empty() || !name.iter().all(|&byte| is_tchar(byte) && !byte.is_ascii_uppercase()) {
        return Err("a field name has a byte that it must not have");
    }
    if value.iter().any(|&byte| is_control(byte)) {
        return Err("a field value has a control byte");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::qpack;
    use super::*;

    fn section(lines: &[(&str, &str)]) -> Section {
        let mut out = Vec::new();
        qpack::begin(&mut out);
        for (name, value) in lines {
            // As a literal: what we would not write ourselves must be readable here.
            out.push(0x27);
            out.push(name.len() as u8 - 7);
            out.extend_from_slice(name.as_bytes());
            out.push(value.len() as u8);
            out.extend_from_slice(value.as_bytes());
        }
        qpack::decode(&out, 4096).expect("the section is sound")
    }

    fn judged(lines: &[(&str, &str)]) -> Result<usize, Malformed> {
        pseudo(&section(lines)).map(|(_, count)| count)
    }

    const METHOD: (&str, &str) = (":method", "GET");
    const SCHEME: (&str, &str) = (":scheme", "https");

    #[test]
    fn a_request_is_taken_apart() {
        let section = section(&[METHOD, SCHEME, ("accept-x", "a b"), ("accept-y", "")]);
        assert!(pseudo(&section).is_err(), "without a path");
        let mut text = Vec::new();
        qpack::begin(&mut text);
        for (name, value) in
            [METHOD, (":path", "/a?b"), SCHEME, (":authority", "site.example"), ("te", "trailers")]
        {
            qpack::write_line(&mut text, name.as_bytes(), value.as_bytes());
        }
        let section = qpack::decode(&text, 4096).expect("the section is sound");
        let wanted =
            Pseudo { method: "GET", target: "/a?b", authority: Some("site.example"), connects_to: None };
        assert_eq!(pseudo(&section), Ok((wanted, 4)));
    }

    #[test]
    fn malformed_requests_are_refused() {
        for lines in [
            &[METHOD, METHOD, SCHEME][..],
            &[METHOD, SCHEME, ("accept-x", ""), (":scheme", "https")],
            &[METHOD, SCHEME, (":status", "200")],
            &[METHOD, SCHEME, ("Accept-X", "")],
            &[METHOD, SCHEME, ("accept x", "")],
            &[METHOD, SCHEME, ("accept-x", "a\nb")],
            &[METHOD, SCHEME, ("accept-x", "a\0b")],
            &[(":method", "GE T"), SCHEME],
            &[METHOD, SCHEME, (":protocol", "websocket")],
            &[(":method", "CONNECT"), SCHEME, (":protocol", "websocket")],
        ] {
            assert!(judged(lines).is_err(), "{lines:?}");
        }
        assert!(trailers(&section(&[("check-sum", "1")])).is_ok());
        assert!(trailers(&section(&[METHOD])).is_err());
    }
}
