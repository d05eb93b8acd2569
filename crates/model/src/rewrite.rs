//! What is rewritten in pages and style sheets so that their static files come from another host: the settings. How it is
//! done is the `website` crate's affair.

use crate::glob::Glob;

/// Endings of paths that are taken for static files unless a rule lists paths.
pub const EXTENSIONS: &[&str] = &[
    "apng",
    "avif",
    "bmp",
    "css",
    "cur",
    "eot",
    "gif",
    "ico",
    "jpeg",
    "jpg",
    "js",
    "jxl",
    "m4a",
    "m4v",
    "map",
    "mjs",
    "mp3",
    "mp4",
    "oga",
    "ogg",
    "ogv",
    "opus",
    "otf",
    "png",
    "svg",
    "ttf",
    "wasm",
    "wav",
    "weba",
    "webm",
    "webmanifest",
    "webp",
    "woff",
    "woff2",
];

/// What a rule says about rewriting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Where static files of the page's own host are fetched from: scheme and authority, like `https://cdn.shop.example`. Empty where
    /// none move.
    pub host: Box<str>,
    /// Other hosts whose files move, lower-case and without a default port, each with where they move to.
    pub hosts: Vec<(Box<str>, Box<str>)>,
    /// Paths that move. Empty: those that end in one of [`EXTENSIONS`].
    pub paths: Vec<Glob>,
    /// Whether the pictures of previews move (`og:image`, `twitter:image`).
    pub social_images: bool,
    /// Whether files named in JSON-LD move.
    pub structured_data: bool,
    /// Paths that move in the strings of inline scripts.
    pub inline_scripts: Vec<Glob>,
    /// Whether pages get the script that tells of page views ([`crate::rum::SCRIPT_TAG`]).
    pub script: bool,
}

impl Rewrite {
    /// Whether a file with this path (no query) moves.
    pub fn moves(&self, path: &[u8]) -> bool {
        if !self.paths.is_empty() {
            return self.paths.iter().any(|glob| glob.matches(path));
        }
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let mut parts = name.rsplitn(2, |&byte| byte == b'.');
        let extension = parts.next().unwrap_or_default();
        parts.next().is_some() && semantics::fields::is_one_of(extension, EXTENSIONS)
    }

    /// Has the files of these hosts move like the page's own: a style sheet that has moved names them too. Not those that files
    /// move to.
    pub fn add_own_hosts<'h>(&mut self, hosts: impl Iterator<Item = &'h str>) {
        if self.host.is_empty() {
            return;
        }
        for host in hosts {
            let is_target = |to: &str| to.split_once("://").is_some_and(|(_, authority)| authority == host);
            let is_known = self.hosts.iter().any(|(from, to)| **from == *host || is_target(to));
            if !is_known && !is_target(&self.host) {
                self.hosts.push((host.into(), self.host.clone()));
            }
        }
    }

    /// Where files of this host move to; `own` is the page's.
    pub fn target<'a>(&'a self, host: &str, own: &str) -> Option<&'a str> {
        if self.host.is_empty() {
            return None;
        }
        let pair = self.hosts.iter().find(|(from, _)| **from == *host);
        pair.map(|(_, to)| &**to).or_else(|| (host == own).then_some(&*self.host))
    }

    /// All of it as one line: what is stored under other settings is something else.
    pub fn write_key(&self, text: &mut Vec<u8>) {
        let globs = |globs: &[Glob]| globs.iter().map(Glob::as_str).collect::<Vec<_>>().join(" ");
        let hosts: Vec<_> = self.hosts.iter().map(|(from, to)| format!("{from}={to}")).collect();
        let line = format!(
            "rewrite {} | {} | {} | {}{} | {}\n",
            self.host,
            hosts.join(" "),
            globs(&self.paths),
            u8::from(self.social_images),
            u8::from(self.structured_data),
            globs(&self.inline_scripts)
        );
        text.extend_from_slice(line.as_bytes());
        if self.script {
            text.extend_from_slice(b"with script\n");
        }
    }
}

/// `scheme://authority` of what an operator has written: a host alone is reached by https. `None` when it is neither.
pub fn origin_of(text: &str) -> Option<Box<str>> {
    let (scheme, authority) = match text.split_once("://") {
        None => ("https", text),
        Some((scheme @ ("https" | "http"), authority)) => {
            (scheme, authority.strip_suffix('/').unwrap_or(authority))
        }
        Some(_) => return None,
    };
    let is_host =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']' | b'_');
    let fits = !authority.is_empty() && authority.bytes().all(is_host);
    fits.then(|| format!("{scheme}://{}", authority.to_ascii_lowercase()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_files_move_by_their_ending_and_by_listed_paths_alone_where_there_are_some() {
        let by_ending = Rewrite::default();
        for (path, moves) in [
            ("/a.css", true),
            ("/a.b.JPEG", true),
            ("/a.css/", false),
            ("/css", false),
            ("/.css", true),
            ("/a.php", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(by_ending.moves(path.as_bytes()), moves, "{path}");
        }
        let listed = Rewrite { paths: vec![Glob::new("/static/*")], ..Rewrite::default() };
        assert!(listed.moves(b"/static/x") && !listed.moves(b"/a.css"));
    }

    #[test]
    fn a_host_alone_is_reached_by_https() {
        for (text, origin) in [
            ("cdn.shop.example", Some("https://cdn.shop.example")),
            ("CDN.shop.example:8443", Some("https://cdn.shop.example:8443")),
            ("http://127.0.0.1:8080/", Some("http://127.0.0.1:8080")),
            ("https://a/b", None),
            ("ftp://a", None),
            ("", None),
            ("a\"b", None),
        ] {
            assert_eq!(origin_of(text).as_deref(), origin, "{text}");
        }
    }
}
