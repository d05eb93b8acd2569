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

#[cfg(test)]
mod tests {
    use super::*;

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
