//! One URL: where it leads, and what its beginning becomes. Everything behind the beginning stays as it was written.

use model::rewrite::Rewrite;
use semantics::key::{has_dot_segment, normalise_host};

/// Longest URL that is looked at; browsers and servers stop at about as much (RFC 9110 §4.1 asks for 8,000).
pub(super) const URL_BYTES_MAX: usize = 8 * 1024;

/// The page or style sheet that URLs stand in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whether it is fetched by https.
    pub secure: bool,
    /// Host, with a port that is not the scheme's own.
    pub authority: String,
    /// From the first `/` to before the `?`.
    pub path: String,
}

/// Why a URL stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Left {
    /// It leads to a host that is not listed.
    Host,
    /// Its path is not among those that move.
    Path,
    /// It is written in a way that is not taken apart: escapes, blanks, backslashes, dot segments, or too long. Or what it is
    /// relative to is, or has what could not be written into any place of a page, such as a quote.
    Spelling,
    /// Browsers refuse this use of a file from another host.
    SameOriginOnly,
    /// It is one of those that move only when a rule says so.
    NotAsked,
    /// It stands in a style sheet that moves, and moves with it.
    Follows,
}

impl Left {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Left::Host => "its host is not one of those that move",
            Left::Path => "its path is not one of those that move",
            Left::Spelling => "it, or what it is relative to, is written in a way that is not taken apart",
            Left::SameOriginOnly => "browsers refuse this use of a file from another host",
            Left::NotAsked => "such URLs move only when asked to",
            Left::Follows => "it is relative to a style sheet that moves",
        }
    }
}

/// What becomes of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mapped {
    /// So many bytes of its beginning are replaced.
    To { replaced: usize, with: String },
    /// Nothing, for a reason worth telling.
    Left(Left),
    /// It has nothing to do with files of a host: a fragment, `data:`, or where files move to already.
    Nothing,
}

/// What relative URLs are resolved against.
#[derive(Clone, Debug)]
pub(super) struct Base {
    /// `None` if it cannot be told.
    authority: Option<String>,
    /// The path up to and with its last `/`; `None` if it cannot be told, or cannot be written everywhere.
    directory: Option<String>,
    /// Whose files move without being listed.
    own: String,
}

/// What a URL begins with.
enum Start<'u> {
    /// An authority; behind it, at this byte, the path.
    Authority(&'u [u8], usize),
    /// A path from the root.
    Path,
    /// A path from the page.
    Relative,
}

impl Base {
    pub(super) fn of(page: &Page) -> Base {
        let authority = normalise_host(&page.authority).into_owned();
        Base {
            own: authority.clone(),
            authority: Some(authority),
            directory: directory(page.path.as_bytes()),
        }
    }

    /// The same after `<base href>`.
    pub(super) fn with_href(&self, href: &[u8]) -> Base {
        let own = self.own.clone();
        if href.iter().any(|byte| matches!(byte, b'&' | b'\\') || *byte < b' ') {
            return Base { authority: None, directory: None, own };
        }
        let (authority, directory) = match start(href) {
            Some(Start::Authority(authority, at)) => {
                let authority = String::from_utf8_lossy(authority);
                (Some(normalise_host(&authority).into_owned()), directory(path_of(&href[at..])))
            }
            Some(Start::Path) => (self.authority.clone(), directory(path_of(href))),
            Some(Start::Relative) => {
                let below = |(skipped, above): (usize, &str)| {
                    directory(&[above.as_bytes(), path_of(&href[skipped..])].concat())
                };
                (self.authority.clone(), self.climb(href).and_then(below))
            }
            None => return self.clone(),
        };
        Base { authority, directory, own }
    }

    /// What becomes of `url`, which has no blanks around it.
    pub(super) fn map(&self, rewrite: &Rewrite, url: &[u8]) -> Mapped {
        if url.is_empty() || matches!(url[0], b'#' | b'?') {
            return Mapped::Nothing;
        }
        let Some(start) = start(url) else { return Mapped::Nothing };
        let own = || self.authority.as_deref();
        let placed = match start {
            Start::Authority(authority, at) => {
                // Credentials, and whatever else is no plain host.
                let is_plain = |authority: &&str| !authority.contains(['@', '&', '%', '\\']);
                let authority = std::str::from_utf8(authority).ok().filter(is_plain);
                authority.map(|authority| (normalise_host(authority), at, ""))
            }
            Start::Path => own().map(|authority| (authority.into(), 0, "")),
            Start::Relative => own()
                .zip(self.climb(url))
                .map(|(authority, (skipped, directory))| (authority.into(), skipped, directory)),
        };
        let Some((authority, replaced, directory)) = placed else { return Mapped::Left(Left::Spelling) };
        let Some(target) = rewrite.target(&authority, &self.own) else {
            let is_there = |to: &str| to.split_once("://").is_some_and(|(_, host)| host == authority);
            let moved = is_there(&rewrite.host) || rewrite.hosts.iter().any(|(_, to)| is_there(to));
            return if moved { Mapped::Nothing } else { Mapped::Left(Left::Host) };
        };
        let rest = path_of(&url[replaced..]);
        let is_odd = |byte: &u8| matches!(byte, b'\\' | b'&' | b'"' | b'\'' | b'<' | b'>') || *byte <= b' ';
        if url.len() > URL_BYTES_MAX || rest.iter().any(is_odd) || has_dot_segment(rest) {
            return Mapped::Left(Left::Spelling);
        }
        let moves = match directory.is_empty() {
            true => rewrite.moves(rest),
            false => rewrite.moves(&[directory.as_bytes(), rest].concat()),
        };
        match moves {
            true => Mapped::To { replaced, with: [target, directory].concat() },
            false => Mapped::Left(Left::Path),
        }
    }

    /// How many bytes of a relative URL are dot segments, and the directory that they lead to.
    fn climb(&self, url: &[u8]) -> Option<(usize, &str)> {
        let mut directory = self.directory.as_deref()?;
        let mut at = 0;
        loop {
            let rest = &url[at..];
            if rest.starts_with(b"./") {
                at += 2;
            } else if rest.starts_with(b"../") {
                at += 3;
                let parent = directory[..directory.len() - 1].rfind('/').map_or(1, |slash| slash + 1);
                directory = directory.get(..parent).unwrap_or("/");
            } else {
                return Some((at, directory));
            }
        }
    }
}

/// `None` for what is no URL of a file on a host.
fn start(url: &[u8]) -> Option<Start<'_>> {
    let after = |at: usize| {
        let end = url[at..]
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
            .map_or(url.len(), |end| at + end);
        (end > at).then(|| Start::Authority(&url[at..end], end))
    };
    if url.starts_with(b"//") {
        return after(2);
    }
    if url.starts_with(b"/") {
        return Some(Start::Path);
    }
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let word = url.iter().take_while(|byte| is_scheme(byte)).count();
    if url.get(word) != Some(&b':') || !url[0].is_ascii_alphabetic() {
        return Some(Start::Relative);
    }
    let is_http = matches!(url[..word].to_ascii_lowercase().as_slice(), b"http" | b"https");
    (is_http && url[word..].starts_with(b"://")).then(|| after(word + 3)).flatten()
}

/// Up to the query or the fragment.
fn path_of(url: &[u8]) -> &[u8] {
    let end = url.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(url.len());
    &url[..end]
}

/// A path up to and with its last `/`, if it may be put into any attribute, style sheet and script. A visitor who asks for
/// `/'onerror=…//x` chooses it: a quote, parenthesis or `&` in it must end nothing there, and other bytes than those of ASCII are
/// read in whatever encoding the page has. What leads elsewhere by a dot segment is no directory.
fn directory(path: &[u8]) -> Option<String> {
    let directory = path.iter().rposition(|byte| *byte == b'/').map_or(&b"/"[..], |slash| &path[..=slash]);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~!$*+,;=:@%".contains(byte);
    let fits = directory.iter().all(is_plain) && !has_dot_segment(directory);
    fits.then(|| String::from_utf8_lossy(directory).into_owned())
}

#[cfg(test)]
mod tests {
    use model::glob::Glob;

    use super::*;

    fn page() -> Page {
        Page { secure: true, authority: "www.shop.example".into(), path: "/lamps/red.html".into() }
    }

    fn rewrite() -> Rewrite {
        Rewrite {
            host: "https://cdn.example".into(),
            hosts: vec![("img.shop.example".into(), "https://pics.example".into())],
            ..Rewrite::default()
        }
    }

    fn mapped(base: &Base, rewrite: &Rewrite, url: &str) -> String {
        match base.map(rewrite, url.as_bytes()) {
            Mapped::To { replaced, with } => format!("{with}{}", &url[replaced..]),
            Mapped::Left(left) => format!("{left:?}"),
            Mapped::Nothing => "-".into(),
        }
    }

    #[test]
    fn a_url_moves_by_its_beginning_alone() {
        let base = Base::of(&page());
        for (url, becomes) in [
            ("/a.css", "https://cdn.example/a.css"),
            ("/a.css?v=1&x=%20#f", "https://cdn.example/a.css?v=1&x=%20#f"),
            ("a.css", "https://cdn.example/lamps/a.css"),
            ("./a.css", "https://cdn.example/lamps/a.css"),
            ("../a.css", "https://cdn.example/a.css"),
            ("../../../a.css", "https://cdn.example/a.css"),
            ("//www.shop.example/a.css", "https://cdn.example/a.css"),
            ("http://WWW.shop.example:80/a.css", "https://cdn.example/a.css"),
            ("https://www.shop.example/a.css", "https://cdn.example/a.css"),
            ("https://img.shop.example/a.png", "https://pics.example/a.png"),
            ("https://cdn.example/a.png", "-"),
            ("https://pics.example/a.png", "-"),
            ("https://other.example/a.png", "Host"),
            ("https://www.shop.example:8443/a.png", "Host"),
            ("https://user@www.shop.example/a.png", "Spelling"),
            ("https://www.shop.example", "Path"),
            ("/checkout", "Path"),
            ("/x/../a.css", "Spelling"),
            ("/a\\b.css", "Spelling"),
            ("/a b.css", "Spelling"),
            ("&#x2F;a.css", "Spelling"),
            ("/caf\u{e9}.css", "https://cdn.example/caf\u{e9}.css"),
            ("#top", "-"),
            ("?page=2", "-"),
            ("", "-"),
            ("data:image/png;base64,AAAA", "-"),
            ("javascript:void(0)", "-"),
            ("https:a.css", "-"),
        ] {
            assert_eq!(mapped(&base, &rewrite(), url), becomes, "{url}");
        }
    }

    #[test]
    fn a_base_decides_for_what_is_relative_and_moves_nothing_itself() {
        for (href, url, becomes) in [
            ("https://www.shop.example/shop/", "a.css", "https://cdn.example/shop/a.css"),
            ("/shop/x.html", "a.css", "https://cdn.example/shop/a.css"),
            ("../shop/", "a.css", "https://cdn.example/shop/a.css"),
            ("//other.example/", "a.css", "Host"),
            ("//other.example/", "https://www.shop.example/a.css", "https://cdn.example/a.css"),
            ("https://img.shop.example/x/", "a.png", "https://pics.example/x/a.png"),
        ] {
            let base = Base::of(&page()).with_href(href.as_bytes());
            assert_eq!(mapped(&base, &rewrite(), url), becomes, "{href} {url}");
        }
    }

    /// A directory comes from a visitor, or from a part of the page that is written otherwise: no byte of it may end what it is
    /// put into, or mean something else there.
    #[test]
    fn what_cannot_be_written_everywhere_is_put_into_no_page() {
        for directory in [
            "it's", "a\"b", "a)b", "a(b", "a<b", "a>b", "a b", "a&b", "a\\b", "a\nb", "a`b", "a{b", "\u{e9}",
            "a/../b",
        ] {
            let base = Base::of(&Page { path: format!("/{directory}/x.html"), ..page() });
            assert_eq!(mapped(&base, &rewrite(), "a.css"), "Spelling", "{directory}");
            assert_eq!(mapped(&base, &rewrite(), "/a.css"), "https://cdn.example/a.css", "{directory}");
        }
        let base = Base::of(&Page { path: "/a//x.html".into(), ..page() });
        assert_eq!(mapped(&base, &rewrite(), "../b.css"), "https://cdn.example/a/b.css");
        let base = Base::of(&Page { path: "/a-._~!$*+,;=:@%20b/x.html".into(), ..page() });
        assert_eq!(mapped(&base, &rewrite(), "a.css"), "https://cdn.example/a-._~!$*+,;=:@%20b/a.css");
        for (href, relative, absolute) in [
            ("/it's/", "Spelling", "https://cdn.example/a.css"),
            ("/a)b/", "Spelling", "https://cdn.example/a.css"),
            ("/a/../b/", "Spelling", "https://cdn.example/a.css"),
            ("/\u{e9}/", "Spelling", "https://cdn.example/a.css"),
            // Nobody here knows where these lead.
            ("/a&#x2F;b/", "Spelling", "Spelling"),
            ("&#104;ttps://other.example/", "Spelling", "Spelling"),
            ("\\\\other.example/", "Spelling", "Spelling"),
        ] {
            let base = Base::of(&page()).with_href(href.as_bytes());
            assert_eq!(mapped(&base, &rewrite(), "a.css"), relative, "{href}");
            assert_eq!(mapped(&base, &rewrite(), "/a.css"), absolute, "{href}");
        }
    }

    #[test]
    fn listed_paths_are_compared_resolved() {
        let listed = Rewrite { paths: vec![Glob::new("/lamps/static/*")], ..rewrite() };
        let base = Base::of(&page());
        assert_eq!(mapped(&base, &listed, "static/a.xyz"), "https://cdn.example/lamps/static/a.xyz");
        assert_eq!(mapped(&base, &listed, "/static/a.css"), "Path");
    }
}
