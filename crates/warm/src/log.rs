//! Lines of access logs: our own in JSON, and the common and combined formats that web servers write.
//!
//! ```text
//! {"time":…,"method":"GET","host":"www.shop.example","target":"/a?b","status":200,…}
//! 192.0.2.1 - - [23/Nov/2026:20:44:33 +0000] "GET /a?b HTTP/1.1" 200 5120 "-" "Mozilla/5.0 …"
//! ```
//!
//! The second says nothing of the host: the caller does. None says whether it came over TLS.

use std::collections::HashMap;

use serde::Deserialize;

use crate::url::Url;

/// One request of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged<'a> {
    /// The method.
    pub method: std::borrow::Cow<'a, str>,
    /// What it was sent to; `None` in the common and combined formats.
    pub host: Option<std::borrow::Cow<'a, str>>,
    /// Path and query.
    pub target: std::borrow::Cow<'a, str>,
    /// The answer's status.
    pub status: u16,
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    method: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    host: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    target: std::borrow::Cow<'a, str>,
    status: u16,
}

impl Logged<'_> {
    /// Reads a line, without its end; `None` when it is none of a log. Never fails in another way.
    pub fn parse(line: &str) -> Option<Logged<'_>> {
        let line = line.trim();
        if line.starts_with('{') {
            let Json { method, host, target, status } = serde_json::from_str(line).ok()?;
            return Some(Logged { method, host: Some(host), target, status });
        }
        // The client's name and its user's may be anything without a bracket; what is quoted has its quotes escaped.
        let rest = line.split_once('[')?.1.split_once("] \"")?.1;
        let (request, rest) = until_quote(rest)?;
        let status = rest.split_ascii_whitespace().next()?.parse().ok()?;
        let mut words = request.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !version.to_ascii_uppercase().starts_with("HTTP/") {
            return None;
        }
        let (method, target) = (method.into(), unescaped(target)?);
        Some(Logged { method, host: None, target, status })
    }
}

/// What comes before the first quote that is not escaped, and after it.
fn until_quote(text: &str) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    Some((&text[..end], &text[end + 1..]))
}

/// Servers write odd bytes as `\xHH`, quotes and backslashes with a backslash before them.
fn unescaped(text: &str) -> Option<std::borrow::Cow<'_, str>> {
    if !text.contains('\\') {
        return Some(text.into());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                after
            }
            (b'\\', [escaped, after @ ..]) => {
                out.push(*escaped);
                after
            }
            (byte, after) => {
                out.push(*byte);
                after
            }
        };
    }
    String::from_utf8(out).ok().map(Into::into)
}

/// What was asked for, in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Each URL once, what was asked for most first; of equals in the order of their names.
    pub urls: Vec<Url>,
    /// Lines that are none of a log.
    pub bad: usize,
    /// Requests that say nothing of what can be stored: other methods than GET, failures, hosts that are not known.
    pub left_out: usize,
}

/// What visitors have asked for with GET, and got (200, 203, 206, 304, or a redirect).
///
/// - `lines`: without their ends.
/// - `host`: for lines that say none; without it those are left out.
/// - `is_https`: how all of it is asked for.
/// - `max`: the different URLs that are counted, at most: of more, those that come first in the log.
pub fn asked_of_log<'a>(
    lines: impl Iterator<Item = &'a str>,
    host: Option<&str>,
    is_https: bool,
    max: usize,
) -> Asked {
    let (mut counts, mut asked) = (HashMap::<Url, u64>::new(), Asked::default());
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let Some(logged) = Logged::parse(line) else {
            asked.bad += 1;
            continue;
        };
        let is_good = logged.method == "GET" && matches!(logged.status, 200 | 203 | 206 | 301..=308);
        let host = logged.host.as_deref().or(host).filter(|_| is_good && logged.target.starts_with('/'));
        let Some(url) = host.and_then(|host| Url::of(is_https, host, &logged.target).ok()) else {
            asked.left_out += 1;
            continue;
        };
        let has_room = counts.len() < max;
        match counts.get_mut(&url) {
            Some(count) => *count += 1,
            None if has_room => drop(counts.insert(url, 1)),
            None => asked.left_out += 1,
        }
    }
    let mut counted: Vec<(Url, u64)> = counts.into_iter().collect();
    counted.sort_by(|(one, count), (other, more)| more.cmp(count).then_with(|| one.cmp(other)));
    asked.urls = counted.into_iter().map(|(url, _)| url).collect();
    asked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &str = r#"{"time":"2026-11-23T20:44:33.120Z","id":"0f","client":"192.0.2.1","method":"GET","host":"www.shop.example","target":"/a?b=\"","protocol":"HTTP/2.0","status":200,"why":"fresh"}"#;

    #[test]
    fn lines_of_all_formats_are_read() {
        let cases = [
            (OURS, Some("GET www.shop.example /a?b=\" 200")),
            (r#"1.2.3.4 - - [23/Nov/2026:20:44:33 +0000] "GET /a HTTP/1.1" 200 12"#, Some("GET - /a 200")),
            (
                r#"a.example - bob [23/Nov/2026:20:44:33 +0000] "GET /a?q=\"x\x22 HTTP/2.0" 304 - "-" "Moz \"illa" "#,
                Some("GET - /a?q=\"x\" 304"),
            ),
            (r#"1.2.3.4 - - [x] "-" 400 0"#, None),
            (r#"1.2.3.4 - - [x] "GET /a b HTTP/1.1" 200 0"#, None),
            (r#"1.2.3.4 - - [x] "GET /a HTTP/1.1"#, None),
            (r#"1.2.3.4 - - [x] "GET /a HTTP/1.1" many 0"#, None),
            (r#"1.2.3.4 - - [x] "GET /\xfq HTTP/1.1" 200 0"#, None),
            (r#"{"method":"GET"}"#, None),
            ("{", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let read = Logged::parse(line).map(|logged| {
                let host = logged.host.as_deref().unwrap_or("-");
                format!("{} {host} {} {}", logged.method, logged.target, logged.status)
            });
            assert_eq!(read.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn what_was_asked_for_most_comes_first() {
        let line = |target: &str, status| format!(r#"1.2.3.4 - - [x] "GET {target} HTTP/1.1" {status} 0"#);
        let lines = [
            line("/b", 200),
            line("/a", 200),
            line("/a", 304),
            line("/missing", 404),
            line("/c", 200),
            "nonsense".to_owned(),
            OURS.to_owned(),
            r#"1.2.3.4 - - [x] "POST /a HTTP/1.1" 200 0"#.to_owned(),
        ];
        let asked = asked_of_log(lines.iter().map(String::as_str), Some("shop"), true, 10);
        let urls: Vec<String> = asked.urls.iter().map(Url::to_string).collect();
        let expected =
            ["https://shop/a", "https://shop/b", "https://shop/c", "https://www.shop.example/a?b=\""];
        assert_eq!(urls, expected);
        assert_eq!((asked.bad, asked.left_out), (1, 2));
        let few = asked_of_log(lines.iter().map(String::as_str), None, false, 10);
        assert_eq!((few.urls.len(), few.left_out), (1, 6));
        assert_eq!(asked_of_log(lines.iter().map(String::as_str), Some("shop"), true, 2).urls.len(), 2);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_reader_panic(line in r#"[\[\]"\\{}:, a-zé0-9/x-]{0,80}"#) {
            let _ = Logged::parse(&line);
            let _ = Logged::parse(&format!("h - - [x] \"{line}"));
        }
    }
}
