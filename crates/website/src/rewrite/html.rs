//! Pages. The HTML rewriter finds out where tags, attributes and texts are; nothing is changed in it, so that it gives back each
//! byte as it came. What moves is replaced by position on the way out.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use encoding_rs::WINDOWS_1252;
use lol_html::html_content::{Attribute, Element, TextChunk};
use lol_html::{AsciiCompatibleEncoding, HtmlRewriter, MemorySettings, OutputSink, Settings};
use lol_html::{bail_out, element, text};
use model::rum::SCRIPT_TAG;

use super::script::{self, SCRIPT_BYTES_MAX};
use super::url::{Left, Mapped};
use super::{Construct, Mover, Report, csp, css, srcset};

/// Memory for one page: the longest tag, and the names of what is open. A tag with a picture as `data:` in it is the longest that
/// pages have.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A page on its way.
pub(super) struct Html {
    /// `None` after it has given up.
    parser: Option<HtmlRewriter<'static, Sink>>,
    state: Rc<RefCell<State>>,
}

struct Sink(Rc<RefCell<State>>);

struct State {
    mover: Mover,
    /// The page's bytes that have not left yet: names and values are read here, where nothing is copied.
    window: Window,
    /// How many bytes of the page have left the parser.
    passed: usize,
    /// What is to be replaced in the bytes that come, in order.
    edits: VecDeque<(Range<usize>, Vec<u8>)>,
    out: Vec<u8>,
    /// What the text behind the last tag is.
    text: Text,
    /// The style sheet that it may be.
    sheet: css::Scanner,
    /// What has come of the script that it may be.
    held: Vec<u8>,
    has_base: bool,
    has_preconnect: bool,
    /// Whether it is a whole page, and not a part for another one's script.
    is_page: bool,
    has_script: bool,
    /// Whether nothing has been seen yet that ends the head.
    in_head: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    /// Nothing that is looked at.
    Passes,
    Style,
    ImportMap,
    StructuredData,
    Inline,
}

impl Html {
    pub(super) fn new(mover: Mover) -> Html {
        let state = Rc::new(RefCell::new(State {
            mover,
            window: Window::default(),
            passed: 0,
            edits: VecDeque::new(),
            out: Vec::new(),
            text: Text::Passes,
            sheet: css::Scanner::default(),
            held: Vec::new(),
            has_base: false,
            has_preconnect: false,
            is_page: false,
            has_script: false,
            in_head: true,
        }));
        let (tags, texts, failing) = (state.clone(), state.clone(), state.clone());
        // Read as windows-1252 each byte is a character and comes back as that byte, whatever the page is encoded in.
        let bytes = AsciiCompatibleEncoding::new(WINDOWS_1252).unwrap_or_else(AsciiCompatibleEncoding::utf_8);
        let memory = MemorySettings::default()
            .with_max_allowed_memory_usage(PAGE_BYTES_MAX)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let settings = Settings::new()
            .with_encoding(bytes)
            .with_strict(false)
            .with_memory_settings(memory)
            .append_element_content_handler(element!("*", move |element| {
                tags.borrow_mut().tag(element);
                Ok(())
            }))
            .append_element_content_handler(text!("style, script", move |chunk| {
                texts.borrow_mut().text(chunk);
                Ok(())
            }))
            .append_bail_out_handler(bail_out!(move |_, _| failing.borrow_mut().give_up()));
        let parser = HtmlRewriter::new(settings, Sink(state.clone()));
        Html { parser: Some(parser), state }
    }

    /// Whether it goes on; if not, all that came has left, and the rest is to pass.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        {
            let state = &mut *self.state.borrow_mut();
            state.window.push(input, state.passed);
        }
        let goes_on = self.parser.as_mut().is_some_and(|parser| parser.write(input).is_ok());
        if !goes_on {
            self.parser = None;
        }
        self.take(out);
        goes_on
    }

    pub(super) fn finish(mut self, out: &mut Vec<u8>) -> Report {
        if let Some(parser) = self.parser.take() {
            // What fails here has given everything back too.
            let _ = parser.end();
        }
        self.state.borrow_mut().give_back();
        self.take(out);
        self.report()
    }

    pub(super) fn report(&self) -> Report {
        std::mem::take(&mut self.state.borrow_mut().mover.report)
    }

    fn take(&self, out: &mut Vec<u8>) {
        out.append(&mut self.state.borrow_mut().out);
    }
}

impl OutputSink for Sink {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.borrow_mut().pass(chunk);
    }
}

impl State {
    /// Lets the next bytes of the page go, as far as they are not replaced.
    fn pass(&mut self, chunk: &[u8]) {
        let (start, end) = (self.passed, self.passed + chunk.len());
        let mut at = start;
        while let Some((range, _)) = self.edits.front() {
            let range = range.clone();
            if range.start >= end {
                break;
            }
            if range.start >= at {
                self.out.extend_from_slice(&chunk[at - start..range.start - start]);
                if let Some((_, with)) = self.edits.front_mut() {
                    self.out.append(with);
                }
            }
            at = range.end.min(end);
            if range.end > end {
                break;
            }
            self.edits.pop_front();
        }
        if at < end {
            self.out.extend_from_slice(&chunk[at - start..]);
        }
        self.passed = end;
    }

    fn replace(&mut self, range: Range<usize>, with: impl Into<Vec<u8>>) {
        self.edits.push_back((range, with.into()));
    }

    /// The rest passes as it is, behind what is held.
    fn give_up(&mut self) {
        self.mover.report.failed_open = true;
        self.text = Text::Passes;
        self.give_back();
    }

    /// Lets go what is held and what stands before a place that does not come any more.
    fn give_back(&mut self) {
        for (range, mut with) in self.edits.drain(..) {
            if range.is_empty() {
                self.out.append(&mut with);
            }
        }
        self.sheet.finish(&mut self.out);
        self.out.append(&mut self.held);
    }

    // --- Texts ---

    fn text(&mut self, chunk: &TextChunk<'_>) {
        match self.text {
            Text::Passes => {}
            Text::Style => self.style(chunk),
            Text::ImportMap | Text::StructuredData | Text::Inline => self.script(chunk),
        }
    }

    fn style(&mut self, chunk: &TextChunk<'_>) {
        let mut out = Vec::new();
        let mover = &mut self.mover;
        let range = chunk.source_location().bytes();
        self.sheet.push(self.window.get(&range), &mut out, &mut |url| mover.css(url));
        if chunk.last_in_text_node() {
            self.sheet.finish(&mut out);
        }
        self.replace(range, out);
    }

    fn script(&mut self, chunk: &TextChunk<'_>) {
        let range = chunk.source_location().bytes();
        if self.held.len() + range.len() > SCRIPT_BYTES_MAX {
            self.text = Text::Passes;
            self.mover.report.failed_open = true;
            let held = std::mem::take(&mut self.held);
            return self.replace(range.start..range.start, held);
        }
        self.held.extend_from_slice(self.window.get(&range));
        if !chunk.last_in_text_node() {
            return self.replace(range, []);
        }
        let held = std::mem::take(&mut self.held);
        let moved = match std::str::from_utf8(&held) {
            Ok(text) => self.moved_script(text).into_bytes(),
            Err(_) => WINDOWS_1252.encode(&self.moved_script(&WINDOWS_1252.decode(&held).0)).0.into_owned(),
        };
        self.replace(range, moved);
    }

    fn moved_script(&mut self, script: &str) -> String {
        let mover = &mut self.mover;
        let map = |construct| move |url: &[u8]| mover.map(construct, url);
        let edits = match self.text {
            Text::ImportMap => script::import_map(script, &mut map(Construct::ImportMap)),
            Text::StructuredData => Some(script::strings(script, &mut map(Construct::StructuredData))),
            Text::Inline => Some(script::strings(script, &mut map(Construct::InlineScript))),
            Text::Style | Text::Passes => None,
        };
        script::applied(script, 0..script.len(), &edits.unwrap_or_default())
    }

    // --- Tags ---

    fn tag(&mut self, element: &Element<'_, '_>) {
        let window = std::mem::take(&mut self.window);
        self.tag_in(element, &window);
        self.window = window;
    }

    fn tag_in(&mut self, element: &Element<'_, '_>, window: &Window) {
        let start = element.source_location().bytes().start;
        let mut tag = Tag { attributes: element.attributes(), window, edits: Vec::new(), moved: false };
        let name = window.name_at(start + 1);
        let kind = ElementKind::of(name);
        if self.mover.rewrite.script && !self.has_script {
            self.put_script(name, start, &mut tag);
        }
        self.in_head = self.in_head && !matches!(kind, ElementKind::Body | ElementKind::Fetching(_));
        self.text = Text::Passes;
        match kind {
            ElementKind::Script => self.script_tag(&mut tag),
            ElementKind::Style => self.text = Text::Style,
            ElementKind::Link => self.link_tag(&mut tag),
            ElementKind::Meta => self.meta_tag(&mut tag),
            ElementKind::Base => self.base_tag(&tag),
            ElementKind::Fetching(("input", _)) if !tag.is("type", "image") => {}
            ElementKind::Fetching((element, uses)) => {
                for (attribute, use_) in uses {
                    self.attribute(&mut tag, element, attribute, *use_);
                }
            }
            ElementKind::Head | ElementKind::Body => {}
        }
        if let Some(range) = tag.value("style") {
            self.style_attribute(&mut tag, range);
        }
        if tag.moved && self.in_head && !std::mem::replace(&mut self.has_preconnect, true) {
            let link = format!("<link rel=preconnect href=\"{}\">", self.mover.rewrite.host);
            tag.edits.push((start..start, link.into_bytes()));
        }
        if tag.edits.len() > 1 {
            tag.edits.sort_by_key(|(range, _)| range.start);
        }
        self.edits.extend(tag.edits);
    }

    /// Puts the script that tells of page views before the first tag that may follow one: after what says how the rest is read.
    fn put_script(&mut self, name: &[u8], start: usize, tag: &mut Tag<'_, '_>) {
        let is_one_of =
            |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        self.is_page |= is_one_of(&["html", "head", "body"]);
        if self.is_page && !is_one_of(&["html", "head", "title", "meta", "base"]) {
            tag.edits.push((start..start, SCRIPT_TAG.into()));
            self.has_script = true;
        }
    }

    /// Moves what an attribute names, or says why not.
    fn attribute(
        &mut self,
        tag: &mut Tag<'_, '_>,
        element: &'static str,
        attribute: &'static str,
        use_: Use,
    ) {
        let Some(at) = tag.value(attribute) else { return };
        let value = tag.window.get(&at);
        let construct = Construct::Attribute(element, attribute);
        let urls = match use_ {
            Use::Set => srcset::candidates(value),
            Use::Url | Use::SameOriginOnly => vec![trimmed(value)],
        };
        // With credentials `Access-Control-Allow-Origin: *` does not count (Fetch, "CORS check").
        let is_refused = use_ == Use::SameOriginOnly || tag.is("crossorigin", "use-credentials");
        for range in urls {
            let url = &value[range.clone()];
            if is_refused {
                self.mover.would_move(construct, url, Left::SameOriginOnly);
            } else if let Mapped::To { replaced, with } = self.mover.map(construct, url) {
                let start = at.start + range.start;
                tag.edits.push((start..start + replaced, with.into_bytes()));
                tag.moved = true;
            }
        }
    }

    /// A file from another host is checked by its hash only if it is fetched with CORS (SRI §3.2).
    fn with_integrity(&self, tag: &mut Tag<'_, '_>) {
        if let (true, Some(integrity), None) = (tag.moved, tag.name("integrity"), tag.name("crossorigin")) {
            tag.edits.push((integrity.start..integrity.start, b"crossorigin=anonymous ".to_vec()));
        }
    }

    fn script_tag(&mut self, tag: &mut Tag<'_, '_>) {
        self.attribute(tag, "script", "src", Use::Url);
        self.with_integrity(tag);
        let type_ = tag.lower("type");
        self.text = match type_.trim() {
            _ if tag.value("src").is_some() => Text::Passes,
            "importmap" => Text::ImportMap,
            "application/ld+json" if self.mover.rewrite.structured_data => Text::StructuredData,
            "application/ld+json" => Text::Passes,
            _ if self.mover.inline.is_some() => Text::Inline,
            _ => Text::Passes,
        };
    }

    fn link_tag(&mut self, tag: &mut Tag<'_, '_>) {
        let (rel, as_) = (tag.lower("rel"), tag.lower("as"));
        if rel.split_ascii_whitespace().any(|word| word == "preconnect") {
            let href = tag.lower("href");
            self.has_preconnect |= href.trim().trim_end_matches('/') == &*self.mover.rewrite.host;
        }
        if !is_link_that_moves(&rel) {
            return;
        }
        if !may_come_from_elsewhere(&rel, &as_) {
            return self.attribute(tag, "link", "href", Use::SameOriginOnly);
        }
        self.attribute(tag, "link", "href", Use::Url);
        self.attribute(tag, "link", "imagesrcset", Use::Set);
        self.with_integrity(tag);
    }

    fn meta_tag(&mut self, tag: &mut Tag<'_, '_>) {
        let Some(at) = tag.value("content") else { return };
        let content = tag.window.get(&at);
        let is_policy = ["content-security-policy", "content-security-policy-report-only"];
        if is_policy.iter().any(|name| tag.is("http-equiv", name)) {
            let Ok(content) = std::str::from_utf8(content) else { return };
            let quotes = ["&#39;", "&#x27;", "&apos;", "&#039;"];
            let plain = quotes.iter().fold(content.to_owned(), |text, quote| text.replace(quote, "'"));
            if let Some(extended) = csp::extended(&plain, &self.mover.origins()) {
                let written = if plain == content { extended } else { extended.replace('\'', "&#39;") };
                tag.edits.push((at, written.into_bytes()));
            }
        } else if PREVIEWS.iter().any(|name| tag.is("property", name) || tag.is("name", name)) {
            match self.mover.rewrite.social_images {
                true => self.attribute(tag, "meta", "content", Use::Url),
                false => {
                    let construct = Construct::Attribute("meta", "content");
                    self.mover.would_move(construct, &content[trimmed(content)], Left::NotAsked);
                }
            }
            // Nothing is fetched from there by this page.
            tag.moved = false;
        }
    }

    fn base_tag(&mut self, tag: &Tag<'_, '_>) {
        let Some(at) = tag.value("href") else { return };
        if !std::mem::replace(&mut self.has_base, true) {
            let href = tag.window.get(&at);
            self.mover.base = self.mover.base.with_href(&href[trimmed(href)]);
        }
    }

    fn style_attribute(&mut self, tag: &mut Tag<'_, '_>, at: Range<usize>) {
        let value = tag.window.get(&at);
        if !value.contains(&b'(') {
            return;
        }
        let (mut scanner, mut moved) = (css::Scanner::default(), Vec::new());
        let changed = self.mover.report.changed;
        let mover = &mut self.mover;
        // A quote that is written as a reference is one to CSS.
        let mut change = |url: &[u8]| {
            let (before, inner) = unquoted(url);
            let (replaced, with) = mover.css(inner)?;
            Some((before + replaced, format!("{}{with}", String::from_utf8_lossy(&url[..before]))))
        };
        scanner.push(value, &mut moved, &mut change);
        scanner.finish(&mut moved);
        if self.mover.report.changed > changed {
            tag.edits.push((at, moved));
        }
    }
}

/// The bytes of a page from some position on.
#[derive(Default)]
struct Window {
    start: usize,
    bytes: Vec<u8>,
}

impl Window {
    /// Takes more in, and lets go what is before `passed`.
    fn push(&mut self, input: &[u8], passed: usize) {
        let gone = (passed - self.start).min(self.bytes.len());
        self.bytes.drain(..gone);
        self.start += gone;
        self.bytes.extend_from_slice(input);
    }

    /// The bytes at these positions of the page.
    fn get(&self, range: &Range<usize>) -> &[u8] {
        let at = |position: usize| position.checked_sub(self.start);
        at(range.start)
            .zip(at(range.end))
            .and_then(|(start, end)| self.bytes.get(start..end))
            .unwrap_or_default()
    }

    /// The name of the tag that begins before this position.
    fn name_at(&self, position: usize) -> &[u8] {
        let rest = self.get(&(position..self.start + self.bytes.len()));
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
        &rest[..rest.iter().position(is_end).unwrap_or(rest.len())]
    }
}

/// A tag's attributes, and what is to be replaced in it.
struct Tag<'t, 'i> {
    attributes: &'t [Attribute<'i>],
    window: &'t Window,
    edits: Vec<(Range<usize>, Vec<u8>)>,
    moved: bool,
}

impl Tag<'_, '_> {
    fn find(&self, name: &str) -> Option<&Attribute<'_>> {
        self.attributes.iter().find(|attribute| {
            let range = attribute.name_source_location().map(|location| location.bytes());
            range.is_some_and(|range| {
                range.len() == name.len() && self.window.get(&range).eq_ignore_ascii_case(name.as_bytes())
            })
        })
    }

    /// Where an attribute's name is.
    fn name(&self, name: &str) -> Option<Range<usize>> {
        Some(self.find(name)?.name_source_location()?.bytes())
    }

    /// Where its value is, as it is written.
    fn value(&self, name: &str) -> Option<Range<usize>> {
        Some(self.find(name)?.value_source_location()?.bytes())
    }

    /// Its value in lower case; empty without.
    fn lower(&self, name: &str) -> String {
        let value = self.value(name).map(|range| self.window.get(&range)).unwrap_or_default();
        String::from_utf8_lossy(value).to_ascii_lowercase()
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.value(name).is_some_and(|range| {
            let found = self.window.get(&range);
            found[trimmed(found)].eq_ignore_ascii_case(value.as_bytes())
        })
    }
}

/// How an attribute holds URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Url,
    /// Candidates with descriptors.
    Set,
    /// A URL that browsers take from the page's own host alone.
    SameOriginOnly,
}

/// An element's name, and what it fetches by which attribute.
type Fetching = (&'static str, &'static [(&'static str, Use)]);

const IMG: Fetching = (
    "img",
    &[
        ("src", Use::Url),
        ("srcset", Use::Set),
        ("data-src", Use::Url),
        ("data-srcset", Use::Set),
        ("data-original", Use::Url),
        ("data-lazy-src", Use::Url),
        ("data-lazy-srcset", Use::Set),
    ],
);
const SOURCE: Fetching =
    ("source", &[("src", Use::Url), ("srcset", Use::Set), ("data-src", Use::Url), ("data-srcset", Use::Set)]);
const VIDEO: Fetching = ("video", &[("src", Use::Url), ("poster", Use::Url), ("data-src", Use::Url)]);
const AUDIO: Fetching = ("audio", &[("src", Use::Url)]);
/// A drawing in it is a document of its own: to policies and to scripts it is a frame.
const EMBED: Fetching = ("embed", &[("src", Use::SameOriginOnly)]);
const INPUT: Fetching = ("input", &[("src", Use::Url)]);
const IMAGE: Fetching = ("image", &[("href", Use::Url), ("xlink:href", Use::Url)]);
const USE: Fetching = ("use", &[("href", Use::SameOriginOnly), ("xlink:href", Use::SameOriginOnly)]);
const TRACK: Fetching = ("track", &[("src", Use::SameOriginOnly)]);

/// What an element means here.
#[derive(Clone, Copy)]
enum ElementKind {
    Script,
    Style,
    Link,
    Meta,
    Base,
    Fetching(Fetching),
    /// Another that does not end the head.
    Head,
    /// Any other.
    Body,
}

impl ElementKind {
    fn of(name: &[u8]) -> ElementKind {
        const LONGEST: usize = 8;
        let mut lower = [0; LONGEST];
        let Some(lower) = lower.get_mut(..name.len()) else { return ElementKind::Body };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        match &*lower {
            b"script" => ElementKind::Script,
            b"style" => ElementKind::Style,
            b"link" => ElementKind::Link,
            b"meta" => ElementKind::Meta,
            b"base" => ElementKind::Base,
            b"img" => ElementKind::Fetching(IMG),
            b"source" => ElementKind::Fetching(SOURCE),
            b"video" => ElementKind::Fetching(VIDEO),
            b"audio" => ElementKind::Fetching(AUDIO),
            b"embed" => ElementKind::Fetching(EMBED),
            b"input" => ElementKind::Fetching(INPUT),
            b"image" => ElementKind::Fetching(IMAGE),
            b"use" => ElementKind::Fetching(USE),
            b"track" => ElementKind::Fetching(TRACK),
            b"html" | b"head" | b"title" | b"noscript" | b"template" => ElementKind::Head,
            _ => ElementKind::Body,
        }
    }
}

/// Pictures that others show of a page.
const PREVIEWS: &[&str] =
    &["og:image", "og:image:url", "og:image:secure_url", "twitter:image", "twitter:image:src"];

/// Whether links of this `rel` name a file that this page uses: not those that say which page it is, or which is near.
pub(super) fn is_link_that_moves(rel: &str) -> bool {
    const MOVING: &[&str] = &[
        "stylesheet",
        "icon",
        "apple-touch-icon",
        "apple-touch-icon-precomposed",
        "mask-icon",
        "preload",
        "modulepreload",
        "prefetch",
        "manifest",
    ];
    rel.split_ascii_whitespace().any(|word| MOVING.contains(&word))
}

/// Whether what a link fetches may come from where files move to: not a manifest, whose `start_url`, `scope` and shortcuts count
/// only if they are of the page's own host, and are relative to it (Web Application Manifest, "processing"); and of what is
/// preloaded, not what scripts fetch, workers, tracks and frames, as it is not asked for there then.
pub(super) fn may_come_from_elsewhere(rel: &str, as_: &str) -> bool {
    let is_one_of = |names: &[&str]| rel.split_ascii_whitespace().any(|word| names.contains(&word));
    let is_preload = is_one_of(&["preload", "prefetch"]);
    !is_one_of(&["manifest"])
        && (!is_preload || matches!(as_, "" | "style" | "script" | "font" | "image" | "audio" | "video"))
}

/// What is between the blanks of a value.
fn trimmed(value: &[u8]) -> Range<usize> {
    let start = value.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let blanks = value[start..].iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
    start..value.len() - blanks
}

/// Bytes before, and the URL within, quotes that are written as references.
fn unquoted(url: &[u8]) -> (usize, &[u8]) {
    for quote in [b"&quot;".as_slice(), b"&#34;", b"&#39;", b"&#x27;", b"&apos;", b"&#039;"] {
        if let Some(inner) = url.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return (quote.len(), inner);
        }
    }
    (0, url)
}

#[cfg(test)]
mod tests;
