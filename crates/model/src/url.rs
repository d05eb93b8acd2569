//! An absolute URL as people give it to a purge or to `explain`, taken apart as an edge takes a request apart.

use semantics::request_rules::is_host;

use crate::Scheme;
use crate::diagnostic::Mistake;

/// An absolute `http` or `https` URL, without its fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Url<'a> {
    /// What is before `://`.
    pub scheme: Scheme,
    /// Host and port, as they are written: [`is_host`].
    pub authority: &'a str,
    /// `/` at least; neither decoded nor normalised.
    pub path: &'a str,
    /// What is behind `?`; `None` without one.
    pub query: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// Takes one apart. Refuses another scheme, user information, hosts that are none, and white space, control characters
    /// or spaces anywhere; characters beyond ASCII are taken in path and query.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &'a str) -> Result<Url<'a>, Mistake> {
        const NONE: Mistake = Mistake {
            error: "is not an absolute URL",
            wanted: "a URL such as https://www.shop.example/a.css",
            next: "give it as a visitor's browser has it, percent-encoded, with http:// or https://",
        };
        let (scheme, rest) = text.split_once("://").ok_or(NONE)?;
        let scheme = match () {
            () if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            () if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            () => return Err(NONE),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !is_host(authority) || tail.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(NONE);
        }
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (tail, None),
        };
        Ok(Url { scheme, authority, path: if path.is_empty() { "/" } else { path }, query })
    }

    /// The host in lower case, without port: what sites are found by.
    pub fn host(&self) -> String {
        without_port(self.authority).to_ascii_lowercase()
    }

    /// The port; the scheme's own where none is named.
    pub fn port(&self) -> u16 {
        let named = self.authority[without_port(self.authority).len()..].strip_prefix(':');
        named.and_then(|port| port.parse().ok()).unwrap_or(self.scheme.default_port())
    }
}

/// `host:port` without `:port`; an IPv6 literal keeps its brackets.
pub fn without_port(authority: &str) -> &str {
    match authority.rfind([':', ']']) {
        Some(colon) if authority.as_bytes()[colon] == b':' => &authority[..colon],
        _ => authority,
    }
}

// --- Names with a hash ---

/// Directories of build tools in which all is named by its content.
const FINGERPRINTED: [&str; 3] = ["/_next/static/", "/_app/immutable/", "/build/assets/"];

/// Whether a path names its content, so that what stands there never changes: by a hash in the file's name, as build tools write it
/// (`app.3f9a1c2b.js`, `main-BkW7cD0e.css`, `index-DhG8s_2K.js`, `main-5KX7Q2ZL.js`), or by a directory that holds nothing else (`/_next/static/…`,
/// Magento's `/static/version1700000000/…`).
///
/// A hash stands behind a dot, dash or underscore, as a name that is nothing else may be whose picture it is. It has 8 to 64 hex digits, letters and
/// figures among them; or letters of both cases, or eight of base32, with figures and without a word. Dates (`2024-11-28`, `20241128`), numbers and
/// `MacBook2024` are none. What is in doubt is none: by it, browsers are told to keep something for a year.
pub fn is_fingerprinted(path: &str) -> bool {
    if FINGERPRINTED.iter().any(|directory| path.contains(directory)) {
        return true;
    }
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_version = |segment: &str| {
        let digits = segment.strip_prefix("version").map_or(&[][..], str::as_bytes);
        digits.len() >= 8 && digits.iter().all(u8::is_ascii_digit)
    };
    if directories.split('/').any(is_version) {
        return true;
    }
    let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem).as_bytes();
    // One of base64url may have dashes and underscores in it.
    let last = stem.len().checked_sub(9).map(|at| &stem[at..]).filter(|last| b".-".contains(&last[0]));
    let is_separator = |byte: &u8| b".-_".contains(byte);
    stem.split(is_separator).skip(1).any(is_hash) || last.is_some_and(|last| is_of_chance(&last[1..], b"-_"))
}

fn is_hash(part: &[u8]) -> bool {
    let is_hex = part.iter().all(u8::is_ascii_hexdigit)
        && part.iter().any(u8::is_ascii_digit)
        && part.iter().any(u8::is_ascii_alphabetic)
        && !begins_with_date(part);
    let is_base32 = part.len() == 8 && part.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'));
    (8..=64).contains(&part.len())
        && (is_hex || is_base32 && has_figure_within(part) || is_of_chance(part, b""))
}

/// Letters of both cases, figures, and these: no name of a product, with its year or number at the end.
fn is_of_chance(text: &[u8], beside: &[u8]) -> bool {
    let is_word = |four: &[u8]| four.iter().all(u8::is_ascii_lowercase);
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || beside.contains(byte))
        && text.iter().any(u8::is_ascii_lowercase)
        && text.iter().any(u8::is_ascii_uppercase)
        && has_figure_within(text)
        && !text.windows(4).any(is_word)
}

/// Whether a letter stands right behind a figure.
fn has_figure_within(text: &[u8]) -> bool {
    text.windows(2).any(|two| two[0].is_ascii_digit() && two[1].is_ascii_alphabetic())
}

/// `20241128` and what stands behind it.
fn begins_with_date(text: &[u8]) -> bool {
    let number = |from, to| std::str::from_utf8(text.get(from..to)?).ok()?.parse::<u32>().ok();
    let [year, month, day] = [(0, 4), (4, 6), (6, 8)].map(|(from, to)| number(from, to).unwrap_or(0));
    (1900..2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_made_from_their_content_are_known_and_others_are_not() {
        for path in [
            "/a/app.3f9a1c2b.js",
            "/static/css/welcome_page.7df0a4b3cd9e.css",
            "/assets/application-908e25f4bf641868d8683022a5b62f54.js",
            "/x_0123456789abcdef0123.png",
            "/chunk.12345678a.js",
            "/main-BkW7cD0e.css",
            "/index.BkW7cD0e.min.css",
            "/assets/index-DhG8s_2K.js",
            "/main-5KX7Q2ZL.js",
            "/_next/static/chunks/main.js",
            "/_app/immutable/chunks/BkW7cD0e.js",
            "/build/assets/x.js",
            "/static/version1700000000/frontend/a.js",
            "app.3f9a1c2b.js",
        ] {
            assert!(is_fingerprinted(path), "{path}");
        }
        for path in [
            "/",
            "",
            "/app.js",
            "/app.css",
            "/jquery-3.7.1.min.js",
            "/my-template.js",
            "/deadbeef",
            "/facade-decade.css",
            // Dates and numbers.
            "/photo-20241128.jpg",
            "/photo_20241128.jpg",
            "/report-2024-11-28.css",
            "/report-20241128a.css",
            "/2024-11-28.css",
            "/20241128.css",
            "/log-20241128T103000Z.txt",
            "/a-1732790400.js",
            "/x.12345678.js",
            "/hero-1600X1200.jpg",
            "/media/2024-10/12345678",
            "/version2/app.js",
            "/x/version1700000000",
            // Words.
            "/Summer2024Banner.png",
            "/sale-Summer2024Banner.png",
            "/iPhone15Pro.jpg",
            "/hero-iPhone15Pro.jpg",
            "/hero-MacBook2024.svg",
            "/photo-portrait.jpg",
            "/hero-New_York.jpg",
            "/trip-DSC01234.jpg",
            // Whose picture it is.
            "/avatars/507f1f77bcf86cd799439011.jpg",
            "/BkW7cD0e.png",
            "/ö-ö.ä.js",
        ] {
            assert!(!is_fingerprinted(path), "{path}");
        }
    }

    #[test]
    fn an_absolute_url_is_taken_apart_and_anything_else_is_none() {
        let check = |text: &str, expected: Option<(&str, &str, &str, Option<&str>)>| {
            let url = Url::parse(text).ok();
            let place = url.map(|url| format!("{}:{}", url.host(), url.port())).unwrap_or_default();
            let found = url.map(|url| (url.scheme.as_str(), place.as_str(), url.path, url.query));
            assert_eq!(found, expected, "{text}");
        };
        check(
            "https://www.shop.example/a.css?v=2",
            Some(("https", "www.shop.example:443", "/a.css", Some("v=2"))),
        );
        check("HTTP://WWW.Shop.example:8080", Some(("http", "www.shop.example:8080", "/", None)));
        check("http://a?b?c#d", Some(("http", "a:80", "/", Some("b?c"))));
        check("http://a:/#?b", Some(("http", "a:80", "/", None)));
        check("https://[2001:DB8::1]:443/ö", Some(("https", "[2001:db8::1]:443", "/ö", None)));
        check("http://[::1]", Some(("http", "[::1]:80", "/", None)));
        for text in [
            "",
            "/a.css",
            "www.shop.example/a.css",
            "ftp://a/",
            "http:///a",
            "http://user@a/",
            "http://a b/",
            "http://a/b c",
            "http://a/\n",
            "http://a:x/",
            "http://[::1/",
        ] {
            check(text, None);
        }
    }
}
