//! The static table of QPACK (RFC 9204 Appendix A): field lines, and names, that have a number.

/// Name and value by number.
#[rustfmt::skip]
pub(super) const LINES: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

/// The number of the first line of a name, by the name's length: names of equal length stand side by side, and an answer
/// has few lines of each.
const BY_LENGTH: [(&str, u8); NAMES] = by_length();
/// Where those of a length begin; they end where those of the next begin.
const BEGINS: [u8; LENGTH_MAX + 2] = begins();

const NAMES: usize = count_names();
const LENGTH_MAX: usize = 32;

const fn is_first_of_its_name(number: usize) -> bool {
    let mut earlier = 0;
    while earlier < number {
        if equals(LINES[earlier].0.as_bytes(), LINES[number].0.as_bytes()) {
            return false;
        }
        earlier += 1;
    }
    true
}

const fn equals(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

const fn count_names() -> usize {
    let (mut count, mut number) = (0, 0);
    while number < LINES.len() {
        count += is_first_of_its_name(number) as usize;
        number += 1;
    }
    count
}

const fn by_length() -> [(&'static str, u8); NAMES] {
    let mut names = [("", 0); NAMES];
    let (mut filled, mut length) = (0, 0);
    while length <= LENGTH_MAX {
        let mut number = 0;
        while number < LINES.len() {
            if LINES[number].0.len() == length && is_first_of_its_name(number) {
                names[filled] = (LINES[number].0, number as u8);
                filled += 1;
            }
            number += 1;
        }
        length += 1;
    }
    names
}

const fn begins() -> [u8; LENGTH_MAX + 2] {
    let mut begins = [0; LENGTH_MAX + 2];
    let (mut length, mut at) = (0, 0);
    while length < LENGTH_MAX + 2 {
        while at < NAMES && BY_LENGTH[at].0.len() < length {
            at += 1;
        }
        begins[length] = at as u8;
        length += 1;
    }
    begins
}

/// The first number of a name, which is lower case.
pub(super) fn number_of_name(name: &[u8]) -> Option<usize> {
    if name.len() > LENGTH_MAX {
        return None;
    }
    let same_length = usize::from(BEGINS[name.len()])..usize::from(BEGINS[name.len() + 1]);
    let found = BY_LENGTH[same_length].iter().find(|(known, _)| known.as_bytes() == name)?;
    Some(usize::from(found.1))
}

/// The number of a line whose name has the number `first`; those of a name stand mostly side by side.
pub(super) fn number_of_line(first: usize, value: &[u8]) -> Option<usize> {
    let name = LINES[first].0;
    let run = LINES[first..].iter().take_while(|line| line.0 == name);
    run.zip(first..).find(|(line, _)| line.1.as_bytes() == value).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_by_its_first_number() {
        for (number, (name, value)) in LINES.iter().enumerate() {
            let first = LINES.iter().position(|line| line.0 == *name);
            assert_eq!(number_of_name(name.as_bytes()), first);
            let found = first.and_then(|first| number_of_line(first, value.as_bytes()));
            assert!(found.is_none_or(|found| found == number), "{name}: {value}");
        }
        assert_eq!(number_of_name(b"x-request-id"), None);
        assert_eq!(number_of_line(25, b"404"), Some(27));
    }
}
