//! Rewrites pages and style sheets as they stream through, so that their static files come from another host.
//!
//! A URL that moves gets another beginning; all other bytes leave as they came, in whatever encoding, whether the page is well
//! formed or not. What cannot be taken apart passes: a page that stays as it is works, a page that is half right does not.
//!
//! ```
//! use website::{Kind, Page, Rewriter};
//!
//! let rewrite = model::rewrite::Rewrite { host: "https://cdn.example".into(), ..Default::default() };
//! let page = Page { secure: true, authority: "www.example".into(), path: "/".into() };
//! let mut rewriter = Rewriter::new(&rewrite.into(), Kind::Html, &page);
//! let mut out = Vec::new();
//! rewriter.push(b"<p>Tea <img src=/t", &mut out);
//! rewriter.push(b"ea.jpg> <a href=/tea>more</a>", &mut out);
//! let report = rewriter.finish(&mut out);
//! assert_eq!(out, b"<p>Tea <img src=https://cdn.example/tea.jpg> <a href=/tea>more</a>");
//! assert_eq!(report.changed, 1);
//! ```

mod csp;
mod css;
mod html;
mod script;
mod srcset;
mod url;

use std::sync::Arc;

use model::rewrite::Rewrite;

pub(crate) use csp::allows;
pub use url::{Left, Page};

use url::{Base, Mapped};

/// What is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A page.
    Html,
    /// A style sheet.
    Css,
}

impl Kind {
    /// What a response with this Content-Type is; `None` for all that is not rewritten, and for encodings in which `<` is not
    /// the byte that it is in ASCII.
    pub fn of_content_type(value: &[u8]) -> Option<Kind> {
        let text = String::from_utf8_lossy(value).to_ascii_lowercase();
        let (name, parameters) = text.split_once(';').unwrap_or((&text, ""));
        if ["utf-16", "utf-32", "ucs-2", "iso-2022", "utf-7", "hz-gb"]
            .iter()
            .any(|odd| parameters.contains(odd))
        {
            return None;
        }
        match name.trim() {
            "text/html" => Some(Kind::Html),
            "text/css" => Some(Kind::Css),
            _ => None,
        }
    }
}

/// Where a URL stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Construct {
    /// `src`, `poster`, `href` and the like, by element and attribute.
    Attribute(&'static str, &'static str),
    /// A style sheet, a `style` element or a `style` attribute.
    Css,
    /// An import map.
    ImportMap,
    /// JSON-LD.
    StructuredData,
    /// A string of an inline script.
    InlineScript,
}

impl std::fmt::Display for Construct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Construct::Attribute(element, attribute) => write!(f, "<{element} {attribute}>"),
            Construct::Css => f.write_str("CSS"),
            Construct::ImportMap => f.write_str("import map"),
            Construct::StructuredData => f.write_str("JSON-LD"),
            Construct::InlineScript => f.write_str("inline script"),
        }
    }
}

/// One URL that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub construct: Construct,
    /// As it was written.
    pub url: String,
    /// What it has become, or why it has not.
    pub outcome: Result<String, Left>,
}

/// What was done to a page or style sheet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// URLs that were changed.
    pub changed: u64,
    /// URLs of files that were looked at and left.
    pub left: u64,
    /// Whether the rest passed as it is, because a limit was reached: one tag or script that is too long.
    pub failed_open: bool,
    /// Each URL, if asked for ([`Rewriter::recording`]).
    pub entries: Vec<Entry>,
}

/// A page or style sheet on its way.
pub struct Rewriter(Inner);

enum Inner {
    Html(Box<html::Html>),
    Css(Box<Sheet>),
    /// What is not rewritten after all.
    Raw(Report),
}

impl std::fmt::Debug for Rewriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.0 {
            Inner::Html(_) => "html",
            Inner::Css(_) => "css",
            Inner::Raw(_) => "raw",
        };
        f.debug_tuple("Rewriter").field(&kind).finish()
    }
}

impl Rewriter {
    /// Begins the page or style sheet that stands at `page`.
    pub fn new(rewrite: &Arc<Rewrite>, kind: Kind, page: &Page) -> Rewriter {
        Self::begin(rewrite, kind, page, false)
    }

    /// The same, with each URL in the report.
    pub fn recording(rewrite: &Arc<Rewrite>, kind: Kind, page: &Page) -> Rewriter {
        Self::begin(rewrite, kind, page, true)
    }

    fn begin(rewrite: &Arc<Rewrite>, kind: Kind, page: &Page, records: bool) -> Rewriter {
        let mover = Mover::new(rewrite.clone(), page, records);
        Rewriter(match kind {
            Kind::Html => Inner::Html(Box::new(html::Html::new(mover))),
            Kind::Css => {
                // What is relative to a sheet that moves, moves with it.
                let moves = rewrite.moves(page.path.as_bytes());
                Inner::Css(Box::new(Sheet { scanner: css::Scanner::default(), mover, moves }))
            }
        })
    }

    /// Takes more of it, and puts what is ready to `out`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match &mut self.0 {
            Inner::Html(html) => {
                if !html.push(input, out) {
                    let report = html.report();
                    self.0 = Inner::Raw(report);
                }
            }
            Inner::Css(sheet) => sheet.push(input, out),
            Inner::Raw(_) => out.extend_from_slice(input),
        }
    }

    /// Puts the rest to `out`.
    pub fn finish(self, out: &mut Vec<u8>) -> Report {
        match self.0 {
            Inner::Html(html) => html.finish(out),
            Inner::Css(mut sheet) => {
                sheet.scanner.finish(out);
                sheet.mover.report
            }
            Inner::Raw(report) => report,
        }
    }
}

/// A style sheet by itself.
struct Sheet {
    scanner: css::Scanner,
    mover: Mover,
    moves: bool,
}

impl Sheet {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let Sheet { scanner, mover, moves } = self;
        scanner.push(input, out, &mut |url| match *moves && !is_absolute(url) {
            true => {
                mover.leave(Construct::Css, url, Left::Follows);
                None
            }
            false => mover.css(url),
        });
    }
}

fn is_absolute(url: &[u8]) -> bool {
    url.starts_with(b"//") || url.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"http"))
}

/// Moves URLs of one page, and keeps count.
struct Mover {
    rewrite: Arc<Rewrite>,
    /// The same for the strings of inline scripts, if any move.
    inline: Option<Rewrite>,
    base: Base,
    records: bool,
    report: Report,
}

impl Mover {
    fn new(rewrite: Arc<Rewrite>, page: &Page, records: bool) -> Mover {
        let inline = (!rewrite.inline_scripts.is_empty())
            .then(|| Rewrite { paths: rewrite.inline_scripts.clone(), ..(*rewrite).clone() });
        Mover { base: Base::of(page), inline, rewrite, records, report: Report::default() }
    }

    /// What becomes of a URL; it is counted.
    fn map(&mut self, construct: Construct, url: &[u8]) -> Mapped {
        let rewrite = match (construct, &self.inline) {
            (Construct::InlineScript, Some(inline)) => inline,
            _ => &self.rewrite,
        };
        let mapped = match (construct, url.ends_with(b"/")) {
            // A prefix of modules moves if a module there does.
            (Construct::ImportMap, true) => self.base.map(rewrite, &[url, b"index.js"].concat()),
            _ => self.base.map(rewrite, url),
        };
        match &mapped {
            Mapped::To { replaced, with } => {
                self.report.changed += 1;
                if self.records {
                    let after = [with.as_bytes(), &url[*replaced..]].concat();
                    self.record(construct, url, Ok(String::from_utf8_lossy(&after).into_owned()));
                }
            }
            Mapped::Left(left) => self.leave(construct, url, *left),
            Mapped::Nothing => {}
        }
        mapped
    }

    fn css(&mut self, url: &[u8]) -> Option<(usize, String)> {
        let path = url.split(|byte| *byte == b'#').next().unwrap_or_default();
        if path.len() < url.len() && path.ends_with(b".svg") && !path.is_empty() {
            // A filter, a mask or a marker in another document: like <use>.
            self.leave(Construct::Css, url, Left::SameOriginOnly);
            return None;
        }
        match self.map(Construct::Css, url) {
            Mapped::To { replaced, with } => Some((replaced, with)),
            Mapped::Left(_) | Mapped::Nothing => None,
        }
    }

    /// A URL that would move, but for where it stands.
    fn would_move(&mut self, construct: Construct, url: &[u8], left: Left) {
        if let Mapped::To { .. } = self.base.map(&self.rewrite, url) {
            self.leave(construct, url, left);
        }
    }

    fn leave(&mut self, construct: Construct, url: &[u8], left: Left) {
        self.report.left += 1;
        if self.records {
            self.record(construct, url, Err(left));
        }
    }

    fn record(&mut self, construct: Construct, url: &[u8], outcome: Result<String, Left>) {
        let url = String::from_utf8_lossy(url).into_owned();
        self.report.entries.push(Entry { construct, url, outcome });
    }

    /// Where files move to, each once.
    fn origins(&self) -> Vec<&str> {
        origins(&self.rewrite)
    }
}

fn origins(rewrite: &Rewrite) -> Vec<&str> {
    if rewrite.host.is_empty() {
        return Vec::new();
    }
    let mut origins = vec![&*rewrite.host];
    for (_, to) in &rewrite.hosts {
        if !origins.contains(&&**to) {
            origins.push(to);
        }
    }
    origins
}

/// A Content-Security-Policy (the value of one field line) that allows the host that files move to; `None` if it does
/// already.
pub fn extended_policy(rewrite: &Rewrite, value: &str) -> Option<String> {
    csp::extended(value, &origins(rewrite))
}

/// A value of `Link` whose preloads move with those of the page; `None` if none does.
pub fn moved_links(rewrite: &Rewrite, page: &Page, value: &str) -> Option<String> {
    let base = Base::of(page);
    csp::moved_links(value, |url| base.map(rewrite, url.as_bytes()))
}

/// The URLs that a style sheet names.
pub(crate) fn css_urls(sheet: &[u8]) -> Vec<String> {
    let mut urls = Vec::new();
    css::Scanner::default().push(sheet, &mut Vec::new(), &mut |url| {
        urls.push(String::from_utf8_lossy(url).into_owned());
        None
    });
    urls
}

/// The URLs of a `srcset`.
pub(crate) fn srcset_urls(set: &str) -> Vec<&str> {
    srcset::candidates(set.as_bytes()).into_iter().filter_map(|range| set.get(range)).collect()
}
