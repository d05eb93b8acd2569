//! Splitting of comma-separated field values (RFC 9110 §5.6.1) and reading of weights (§12.4.2).
//!
//! Two ways to split: [`tokens`] for lists whose members cannot hold a quoted string (Connection, Vary), where a stray
//! quote must not hide a later member, and [`members`] for everything else. Neither allocates, both skip empty members.

use crate::fields::trim;

/// The members of a list of tokens: split at every comma, trimmed, empty ones skipped.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// The members of a list, trimmed, empty ones skipped. A comma inside a quoted string does not split; a quoted string
/// that never ends reaches to the end of the value.
pub(crate) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    let raw = std::iter::from_fn(move || {
        let value = rest?;
        let end = unquoted_comma(value).unwrap_or(value.len());
        rest = value.get(end + 1..);
        Some(trim(&value[..end]))
    });
    raw.filter(|member| !member.is_empty())
}

fn unquoted_comma(value: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut index = 0;
    while index < value.len() {
        match value[index] {
            b'"' => quoted = !quoted,
            b'\\' if quoted => index += 1,
            b',' if !quoted => return Some(index),
            _ => {}
        }
        index += 1;
    }
    None
}

/// Appends `values`, the lines of one field, as one list: joined by commas, without the white space around those commas
/// that are not in a quoted string. Empty members stay. Writing the result again changes nothing.
pub(crate) fn write_joined<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a [u8]>) {
    let start = out.len();
    let (mut quoted, mut escaped, mut behind_comma) = (false, false, false);
    for (index, value) in values.enumerate() {
        let comma: &[u8] = if index == 0 { b"" } else { b"," };
        for &byte in comma.iter().chain(value) {
            if byte == b',' && !quoted {
                while out.len() > start && matches!(out.last(), Some(b' ' | b'\t')) {
                    out.pop();
                }
            }
            if behind_comma && matches!(byte, b' ' | b'\t') {
                continue;
            }
            out.push(byte);
            behind_comma = byte == b',' && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = quoted && byte == b'\\' && !escaped;
        }
    }
}

/// A member such as `br;q=0.5` as its name and its weight in thousandths (1000 when there is none). `None` when the
/// weight is malformed (RFC 9110 §12.4.2) or the name empty; parameters other than `q` are passed over.
pub(crate) fn weighted(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|&byte| byte == b';').map(trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let mut weight = 1000;
    for part in parts {
        if let [b'q' | b'Q', b'=', digits @ ..] = part {
            weight = weight_of(digits)?;
        }
    }
    Some((name, weight))
}

/// `0`, `1`, `0.` and up to three digits in thousandths.
fn weight_of(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut weight = 0;
    for index in 0..3 {
        let digit = fraction.get(index).copied().unwrap_or(b'0');
        weight = weight * 10 + u16::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    match (whole, weight) {
        (b'0', _) => Some(weight),
        (_, 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_quoted_string_splits_tokens_but_not_members() {
        let value = br#"a , "b,\"c" ,,d"#;
        assert_eq!(members(value).collect::<Vec<_>>(), [&b"a"[..], br#""b,\"c""#, b"d"]);
        assert_eq!(tokens(value).count(), 4);
        assert_eq!(members(br#"x, "never ends, y"#).count(), 2);
    }

    #[test]
    fn a_weight_is_thousandths_and_a_malformed_one_is_none() {
        let check = |member: &str, expected: Option<(&str, u16)>| {
            assert_eq!(
                weighted(member.as_bytes()),
                expected.map(|(name, weight)| (name.as_bytes(), weight)),
                "{member:?}"
            );
        };
        check("gzip", Some(("gzip", 1000)));
        check("gzip;q=0.5", Some(("gzip", 500)));
        check("gzip ; Q=0.123", Some(("gzip", 123)));
        check("text/html;level=1;q=0", Some(("text/html", 0)));
        check("gzip;q=1.000", Some(("gzip", 1000)));
        check("gzip;q=1.001", None);
        check("gzip;q=0.1234", None);
        check("gzip;q=", None);
        check("gzip;q=.5", None);
        check("gzip;q=-1", None);
        check(";q=1", None);
    }
}
