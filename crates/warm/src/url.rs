//! A URL as an edge can be asked for it (RFC 3986 §3, RFC 9110 §4.2).

use std::fmt;

/// Bytes of a URL, at most: what edges take in a request line by default.
pub const URL_BYTES_MAX: usize = 8_192;

/// An absolute `http` or `https` URL, without user information and fragment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    is_https: bool,
    authority: Box<str>,
    target: Box<str>,
}

impl Url {
    /// Reads one. Spaces around it do not count; characters beyond ASCII are percent-encoded, as browsers do.
    ///
    /// Refuses, with a part of a sentence: another scheme, user information, no host, control characters and spaces within, more
    /// than [`URL_BYTES_MAX`] bytes.
    ///
    /// ```
    /// let url = warm::Url::parse(" https://www.shop.example/a?b#c ").unwrap();
    /// assert_eq!((url.host(), url.target()), ("www.shop.example", "/a?b"));
    /// ```
    pub fn parse(text: &str) -> Result<Url, &'static str> {
        let text = text.trim();
        if text.len() > URL_BYTES_MAX {
            return Err("is too long");
        }
        let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
        let is_https = match () {
            () if scheme.eq_ignore_ascii_case("https") => true,
            () if scheme.eq_ignore_ascii_case("http") => false,
            () => return Err("is neither http nor https"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        Url::of(is_https, authority, rest)
    }

    /// One from its parts: `target` is what a request line has of it, path and query.
    ///
    /// # Errors
    /// As [`Url::parse`].
    pub fn of(is_https: bool, authority: &str, target: &str) -> Result<Url, &'static str> {
        let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if authority.contains('@') {
            return Err("has user information");
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Err("has no host");
        }
        if authority.len() > 300 || !authority.bytes().all(is_of_host) {
            return Err("has a host that is none");
        }
        let target = target.split('#').next().unwrap_or_default();
        if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err("has a space or a control character");
        }
        let mut encoded = String::with_capacity(target.len() + 1);
        if !target.starts_with('/') {
            encoded.push('/');
        }
        for char in target.chars() {
            match char {
                char if char.is_ascii() => encoded.push(char),
                char => {
                    let bytes = &mut [0; 4];
                    char.encode_utf8(bytes)
                        .bytes()
                        .for_each(|byte| encoded.push_str(&format!("%{byte:02X}")));
                }
            }
        }
        if encoded.len() > URL_BYTES_MAX {
            return Err("is too long");
        }
        Ok(Url { is_https, authority: authority.to_ascii_lowercase().into(), target: encoded.into() })
    }

    /// Whether it is asked for over TLS.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Host and port, as in Host.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.authority,
        }
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.target)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let cases = [
            ("http://a", Ok("http://a/")),
            ("HTTPS://A.Example:8443/x?y=1#z", Ok("https://a.example:8443/x?y=1")),
            ("http://a?x", Ok("http://a/?x")),
            ("http://[2001:db8::1]:80/x", Ok("http://[2001:db8::1]:80/x")),
            ("https://a/ö", Ok("https://a/%C3%B6")),
            ("ftp://a/", Err("is neither http nor https")),
            ("/a", Err("has no scheme")),
            ("http:///a", Err("has no host")),
            ("http://:80/a", Err("has no host")),
            ("http://u@a/", Err("has user information")),
            ("http://a b/", Err("has a host that is none")),
            ("http://a/b c", Err("has a space or a control character")),
            ("http://a/b\r\nHost: x", Err("has a space or a control character")),
        ];
        for (text, expected) in cases {
            assert_eq!(Url::parse(text).map(|url| url.to_string()), expected.map(str::to_owned), "{text}");
        }
        assert_eq!(Url::parse(&format!("http://a/{}", "x".repeat(URL_BYTES_MAX))), Err("is too long"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_alike(text in "https?://[a-zé:@\\[\\]/?# .%0-9]{0,24}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert_eq!(Url::parse(&url.to_string()), Ok(url.clone()));
                prop_assert!(url.target().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
