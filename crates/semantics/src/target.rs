//! What a request asked for, and which resource of the same host a reference in its response means (RFC 3986 §5.2). Used
//! where a response speaks about a URL: Content-Location and Location, for storing and invalidating.

/// The target of a request as far as its response may refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Host as the client named it, with its port if it gave one.
    pub authority: &'a str,
    /// Host under which the origin knows itself, when that is another: it writes this one into absolute references.
    pub origin_authority: Option<&'a str>,
    /// Path and query as the client sent them, from the first `/`.
    pub path_and_query: &'a str,
}

impl Target<'_> {
    /// The path and query that `reference` means, when it is on this host: absolute (`http` or `https`, default ports
    /// count as none), `//host/…`, `/…`, `?…`, relative, or empty. Dot segments are resolved and the fragment dropped.
    ///
    /// `None` for another host, another scheme, user information, bytes that cannot stand in a URL, and a target that
    /// does not start with `/`. A response must not touch what other hosts serve (RFC 9111 §4.4), and http and https of
    /// one host are one site here.
    pub fn resolve(&self, reference: &[u8]) -> Option<String> {
        let reference = std::str::from_utf8(reference).ok()?;
        let broken = |character: char| character.is_ascii_control() || " \"<>\\^`{|}".contains(character);
        if reference.contains(broken) || !self.path_and_query.starts_with('/') {
            return None;
        }
        let reference = reference.split('#').next().unwrap_or_default();
        let rest = match scheme(reference) {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
                Some(reference[scheme.len() + 1..].strip_prefix("//")?)
            }
            Some(_) => return None,
            None => reference.strip_prefix("//"),
        };
        let (base_path, _) = split_query(self.path_and_query);
        if let Some(rest) = rest {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path_and_query) = rest.split_at(end);
            return self.is_here(authority).then(|| without_dots(path_and_query));
        }
        match reference.bytes().next() {
            None => Some(self.path_and_query.to_owned()),
            Some(b'?') => Some(format!("{base_path}{reference}")),
            Some(b'/') => Some(without_dots(reference)),
            Some(_) => {
                let directory = &base_path[..base_path.rfind('/')? + 1];
                Some(without_dots(&format!("{directory}{reference}")))
            }
        }
    }

    fn is_here(&self, authority: &str) -> bool {
        let same = |known: &str| without_port(known).eq_ignore_ascii_case(without_port(authority));
        same(self.authority) || self.origin_authority.is_some_and(same)
    }
}

/// The scheme before the first `:`, when there is one before any of `/?#` (RFC 3986 §3.1).
fn scheme(reference: &str) -> Option<&str> {
    let end = reference.find([':', '/', '?'])?;
    let scheme = &reference[..end];
    let sound = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    (reference.as_bytes()[end] == b':' && sound).then_some(scheme)
}

fn without_port(authority: &str) -> &str {
    authority.strip_suffix(":80").or_else(|| authority.strip_suffix(":443")).unwrap_or(authority)
}

/// Path and the query with its `?`.
fn split_query(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()))
}

/// RFC 3986 §5.2.4 on the path; the query stays. An empty path becomes `/`.
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = split_query(path_and_query);
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_means_a_resource_of_the_same_host_or_nothing() {
        let target = Target {
            authority: "www.shop.example",
            origin_authority: Some("origin.shop.example:8080"),
            path_and_query: "/a/b;p?x=1",
        };
        let check = |reference: &str, expected: Option<&str>| {
            assert_eq!(target.resolve(reference.as_bytes()).as_deref(), expected, "{reference:?}");
        };
        check("", Some("/a/b;p?x=1"));
        check("#top", Some("/a/b;p?x=1"));
        check("?y=2", Some("/a/b;p?y=2"));
        check("/c", Some("/c"));
        check("c", Some("/a/c"));
        check("./c", Some("/a/c"));
        check("../c?z#f", Some("/c?z"));
        check("../../../c", Some("/c"));
        check("c/.", Some("/a/c/"));
        check("c/..", Some("/a/"));
        check("/x/./y/../z", Some("/x/z"));
        check("/x//y", Some("/x//y"));
        check("/x?q=/../", Some("/x?q=/../"));
        check("//WWW.shop.example/c", Some("/c"));
        check("https://www.shop.example:443/c", Some("/c"));
        check("HTTP://www.shop.example", Some("/"));
        check("http://www.shop.example?q", Some("/?q"));
        check("http://origin.shop.example:8080/c", Some("/c"));
        check("http://origin.shop.example/c", None);
        check("http://www.shop.example:8080/c", None);
        check("http://evil.example/c", None);
        check("//evil.example/c", None);
        check("http://www.shop.example@evil.example/", None);
        check("http://user@www.shop.example/", None);
        check("ftp://www.shop.example/c", None);
        check("mailto:a@b.example", None);
        check("http:c", None);
        check("/a b", None);
        check("/a\u{0}", None);
        check("c:d", None);
        check("./c:d", Some("/a/c:d"));
        let asterisk = Target { path_and_query: "*", ..target };
        assert_eq!(asterisk.resolve(b"/c"), None);
        assert_eq!(target.resolve(b"/\xff"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_reference_panics(reference: Vec<u8>, base in "/[a-z./?]{0,12}") {
            let target = Target { authority: "h", origin_authority: None, path_and_query: &base };
            if let Some(found) = target.resolve(&reference) {
                proptest::prop_assert!(found.starts_with('/'));
            }
        }
    }
}
