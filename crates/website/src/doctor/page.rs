//! What a page is made of, as far as its HTML tells.

use std::cell::RefCell;
use std::collections::HashSet;

use lol_html::html_content::Element;
use lol_html::{HtmlRewriter, Settings, element, text};

use crate::rewrite::{css_urls, srcset_urls};

/// Where a page or file is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) secure: bool,
    /// Host, with a port that is not the scheme's own; in lower case.
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
}

impl Address {
    /// Reads an absolute URL.
    pub(super) fn parse(url: &str) -> Option<Address> {
        let (scheme, rest) = url.split_once("://")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let authority = authority.to_ascii_lowercase();
        let own_port = if secure { ":443" } else { ":80" };
        let authority = authority.strip_suffix(own_port).unwrap_or(&authority).to_owned();
        if authority.is_empty() || authority.contains(['@', ' ', '\\']) {
            return None;
        }
        let target = rest.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Some(Address { secure, authority, target })
    }

    /// What a URL on this page leads to; `None` for what is no page or file.
    pub(super) fn join(&self, url: &str) -> Option<Address> {
        let url = url.trim();
        let scheme = if self.secure { "https" } else { "http" };
        if url.is_empty() || url.starts_with('#') {
            return None;
        }
        if url.starts_with("//") {
            return Address::parse(&format!("{scheme}:{url}"));
        }
        let word = url.find([':', '/', '?', '#']);
        if word.is_some_and(|at| url[at..].starts_with(':')) {
            return Address::parse(url);
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let path = match url.chars().next() {
            Some('/') => url.to_owned(),
            Some('?') => format!("{path}{url}"),
            _ => format!("{}{url}", &path[..=path.rfind('/').unwrap_or(0)]),
        };
        let (path, query) = path.find(['?', '#']).map_or((&*path, ""), |at| path.split_at(at));
        let mut segments: Vec<&str> = Vec::new();
        for segment in path.split('/').skip(1) {
            match segment {
                "." => {}
                ".." => drop(segments.pop()),
                other => segments.push(other),
            }
        }
        if path.ends_with("/.") || path.ends_with("/..") {
            segments.push("");
        }
        Address::parse(&format!("{scheme}://{}/{}{query}", self.authority, segments.join("/")))
    }

    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }

    pub(super) fn host(&self) -> &str {
        let end = self.authority.rfind(':').filter(|at| !self.authority[*at..].contains(']'));
        self.authority[..end.unwrap_or(self.authority.len())].trim_matches(['[', ']'])
    }

    pub(super) fn host_and_port(&self) -> String {
        let has_port = self.authority.rfind(':').is_some_and(|at| !self.authority[at..].contains(']'));
        match has_port {
            true => self.authority.clone(),
            false => format!("{}:{}", self.authority, if self.secure { 443 } else { 80 }),
        }
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.origin(), self.target)
    }
}

/// How a page uses a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Style,
    Script,
    /// Fetched with CORS.
    Module,
    /// Fetched with CORS.
    Font,
    /// Sound and films.
    Media,
    /// What it names counts only on the page's own host.
    Manifest,
    Other,
    /// Taken from the page's own host alone.
    SameOriginOnly,
}

/// A file of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) address: Address,
    pub(super) use_: Use,
    pub(super) has_integrity: bool,
    pub(super) has_crossorigin: bool,
}

/// What a page is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<File>,
    pub(super) links: Vec<Address>,
    /// Policies of `meta` elements.
    pub(super) policies: Vec<String>,
    /// What inline scripts start as workers.
    pub(super) workers: Vec<Address>,
    /// What is in `files`.
    known: HashSet<(Address, Use)>,
    base: Option<Address>,
    /// The inline script that is being read.
    script: String,
}

/// Reads a page.
pub(super) fn scan(page: &Address, html: &[u8]) -> Found {
    let found = RefCell::new(Found { base: Some(page.clone()), ..Found::default() });
    read(html, &found);
    found.into_inner()
}

fn read(html: &[u8], found: &RefCell<Found>) {
    let settings = Settings::new()
        .with_strict(false)
        .append_element_content_handler(element!("*", |element| {
            found.borrow_mut().tag(element);
            Ok(())
        }))
        .append_element_content_handler(text!("script, style", |chunk| {
            let found = &mut *found.borrow_mut();
            found.script.push_str(chunk.as_str());
            if chunk.last_in_text_node() {
                found.text();
            }
            Ok(())
        }));
    let mut rewriter = HtmlRewriter::new(settings, |_: &[u8]| {});
    // What cannot be read to its end has been read as far as it goes.
    if rewriter.write(html).is_ok() {
        let _ = rewriter.end();
    }
}

/// The files that a style sheet names.
pub(super) fn scan_css(sheet: &Address, css: &[u8]) -> Vec<File> {
    let files = css_urls(css).into_iter().filter_map(|url| {
        let address = sheet.join(&url)?;
        Some(File { use_: use_in_css(&address), address, has_integrity: false, has_crossorigin: false })
    });
    files.collect()
}

fn use_in_css(address: &Address) -> Use {
    let is_font = [".woff2", ".woff", ".ttf", ".otf"].iter().any(|ending| address.path().ends_with(ending));
    match address.path() {
        _ if is_font => Use::Font,
        path if path.ends_with(".css") => Use::Style,
        _ => Use::Other,
    }
}

impl Found {
    fn tag(&mut self, element: &Element<'_, '_>) {
        let get = |name: &str| element.get_attribute(name).map(|value| value.replace("&amp;", "&"));
        let lower = |name: &str| get(name).unwrap_or_default().to_ascii_lowercase();
        let name = element.tag_name();
        match &*name {
            "base" => {
                if let Some(base) = get("href").and_then(|href| self.base.as_ref()?.join(&href)) {
                    self.base = Some(base);
                }
            }
            "a" => self.links.extend(get("href").and_then(|href| self.base.as_ref()?.join(&href))),
            "meta" if lower("http-equiv") == "content-security-policy" => {
                self.policies.extend(get("content").map(|policy| policy.replace("&#39;", "'")));
            }
            "script" => {
                let use_ = if lower("type") == "module" { Use::Module } else { Use::Script };
                self.file(element, get("src"), use_);
            }
            "link" => {
                let rel = lower("rel");
                let has = |word: &str| rel.split_ascii_whitespace().any(|known| known == word);
                let use_ = match &*lower("as") {
                    _ if has("stylesheet") => Use::Style,
                    _ if has("modulepreload") => Use::Module,
                    _ if has("manifest") => Use::Manifest,
                    "style" => Use::Style,
                    "script" => Use::Script,
                    "font" => Use::Font,
                    "audio" | "video" => Use::Media,
                    _ => Use::Other,
                };
                if has("stylesheet")
                    || has("icon")
                    || has("preload")
                    || has("modulepreload")
                    || has("manifest")
                {
                    self.file(element, get("href"), use_);
                }
            }
            "img" | "source" | "video" | "audio" | "embed" => {
                let use_ = if matches!(&*name, "img" | "embed") { Use::Other } else { Use::Media };
                self.file(element, get("src"), use_);
                self.file(element, get("poster"), Use::Other);
                let set = get("srcset").unwrap_or_default();
                for url in srcset_urls(&set) {
                    self.file(element, Some(url.to_owned()), Use::Other);
                }
            }
            "use" | "track" => {
                self.file(element, get("href").or(get("xlink:href")).or(get("src")), Use::SameOriginOnly);
            }
            _ => {}
        }
        if let Some(style) = get("style") {
            self.css(&style);
        }
    }

    fn file(&mut self, element: &Element<'_, '_>, url: Option<String>, use_: Use) {
        let Some(address) = url.and_then(|url| self.base.as_ref()?.join(&url)) else { return };
        let (has_integrity, has_crossorigin) =
            (element.has_attribute("integrity"), element.has_attribute("crossorigin"));
        self.add(File { address, use_, has_integrity, has_crossorigin });
    }

    fn css(&mut self, css: &str) {
        let Some(base) = self.base.clone() else { return };
        scan_css(&base, css.as_bytes()).into_iter().for_each(|file| self.add(file));
    }

    fn add(&mut self, file: File) {
        if self.known.insert((file.address.clone(), file.use_)) {
            self.files.push(file);
        }
    }

    /// The end of an inline script or style sheet.
    fn text(&mut self) {
        let text = std::mem::take(&mut self.script);
        self.css(&text);
        for start in ["new Worker(", "new SharedWorker(", "serviceWorker.register(", "importScripts("] {
            for (at, _) in text.match_indices(start) {
                let rest = text[at + start.len()..].trim_start();
                let Some(quote) = rest.chars().next().filter(|quote| matches!(quote, '"' | '\'' | '`'))
                else {
                    continue;
                };
                let url = rest[1..].split(quote).next().unwrap_or_default();
                self.workers.extend(self.base.as_ref().and_then(|base| base.join(url)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_as_browsers_do() {
        let page = Address::parse("https://www.example/lamps/red.html?x=1#y").unwrap();
        for (url, to) in [
            ("/a.css", Some("https://www.example/a.css")),
            ("a.css?v=1", Some("https://www.example/lamps/a.css?v=1")),
            ("../a/./b/../c.css", Some("https://www.example/a/c.css")),
            ("../..", Some("https://www.example/")),
            ("?page=2", Some("https://www.example/lamps/red.html?page=2")),
            ("//cdn.example:443/a", Some("https://cdn.example/a")),
            ("HTTP://cdn.example", Some("http://cdn.example/")),
            ("mailto:x@example", None),
            ("javascript:void(0)", None),
            ("#top", None),
            ("", None),
        ] {
            assert_eq!(page.join(url).map(|address| address.to_string()).as_deref(), to, "{url}");
        }
        assert_eq!(page.host_and_port(), "www.example:443");
        let literal = Address::parse("http://[::1]:8080/").unwrap();
        assert_eq!((literal.host(), &*literal.host_and_port()), ("::1", "[::1]:8080"));
    }

    #[test]
    fn a_page_tells_its_files_and_how_it_uses_them() {
        let found = super::super::found_in(
            "https://www.example/",
            concat!(
                "<base href=/b/><script type=module src=m.js></script><link rel=stylesheet href=/a.css integrity=x>",
                "<style>@font-face{src:url(/f.woff2)}</style><img srcset='/1.png 1x, /2.png 2x'><a href=/c/>c</a>",
                "<script>new Worker('w.js'); x = \"new SharedWorker\"</script><svg><use href=/s.svg#i /></svg>",
                "<meta http-equiv=content-security-policy content=\"img-src 'self'\">",
            ),
        );
        let files: Vec<_> = found.files.iter().map(|file| (file.address.path(), file.use_)).collect();
        assert_eq!(
            files,
            [
                ("/b/m.js", Use::Module),
                ("/a.css", Use::Style),
                ("/f.woff2", Use::Font),
                ("/1.png", Use::Other),
                ("/2.png", Use::Other),
                ("/s.svg", Use::SameOriginOnly),
            ]
        );
        assert!(found.files[1].has_integrity && !found.files[1].has_crossorigin);
        assert_eq!(found.links.len(), 1);
        assert_eq!(found.workers, [Address::parse("https://www.example/b/w.js").unwrap()]);
        assert_eq!(found.policies, ["img-src 'self'"]);
    }

    /// Each compared with each other, they would take minutes.
    #[test]
    fn a_page_of_many_files_is_read_in_time() {
        use rustix::time::{ClockId, clock_gettime};
        let worked_secs = || clock_gettime(ClockId::ThreadCPUTime).tv_sec;
        let page: String = (0..100_000).map(|index| format!("<img src={index}>")).collect();
        let before = worked_secs();
        let found = super::super::found_in("https://www.example/", &page);
        assert_eq!(found.files.len(), 100_000);
        assert!(worked_secs() - before < 15);
    }
}
