//! Sitemaps and their indexes, as sitemaps.org 0.9 has them: XML in UTF-8, a `loc` in each `url` or `sitemap`.
//!
//! What else stands in them (images, languages, dates) is passed over, whatever its namespace; a `loc` of another namespace is
//! somebody else's. A document type is refused: nothing good needs one here, and entities that name others are how small files
//! become large ones. What is not XML but text is a sitemap too, a URL in each line.

use quick_xml::events::Event;
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

use crate::list::urls_of_list;
use crate::url::{URL_BYTES_MAX, Url};

/// Bytes of a sitemap, uncompressed: what sitemaps.org allows, rounded up.
pub const SITEMAP_BYTES_MAX: usize = 64 << 20;

/// Locations in one: what sitemaps.org allows.
pub const LOCATIONS_MAX: usize = 50_000;

/// Elements within each other, at most; a sitemap has three.
const DEPTH_MAX: usize = 16;

/// The namespaces of the protocol: now, and before it had a home.
const NAMESPACES: [&str; 5] = [
    "http://www.sitemaps.org/schemas/sitemap/0.9",
    "https://www.sitemaps.org/schemas/sitemap/0.9",
    "http://www.google.com/schemas/sitemap/0.84",
    "http://www.google.com/schemas/sitemap/0.9",
    "http://www.google.com/schemas/sitemap/0.9/",
];

/// What a sitemap names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sitemap {
    /// Pages, in order.
    pub urls: Vec<Url>,
    /// Other sitemaps, of an index.
    pub sitemaps: Vec<Url>,
    /// Locations that are no URLs.
    pub bad: usize,
}

/// Why a text is no sitemap: a part of a sentence that follows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a sitemap or an index that is not compressed (any more: [`crate::inflated`]).
///
/// # Errors
/// It is no XML, has a document type, is nested deeply or has more than [`LOCATIONS_MAX`] locations, or is XML of another kind.
pub fn read_sitemap(text: &[u8]) -> Result<Sitemap, Unreadable> {
    if text.len() > SITEMAP_BYTES_MAX {
        return Err(Unreadable(format!("is longer than {SITEMAP_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(text).map_err(|_| Unreadable("is not in UTF-8".to_owned()))?;
    let text = text.trim_start_matches('\u{feff}');
    if !text.trim_start().starts_with('<') {
        let (urls, bad) = urls_of_list(text, LOCATIONS_MAX);
        return Ok(Sitemap { urls, bad, ..Sitemap::default() });
    }
    Reading { reader: NsReader::from_str(text), path: Vec::new(), location: None, found: Sitemap::default() }
        .read()
}

/// An element that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    UrlSet,
    Index,
    Url,
    Sitemap,
    Location,
    Other,
}

struct Reading<'a> {
    reader: NsReader<&'a [u8]>,
    path: Vec<Element>,
    /// The text of the location that is being read.
    location: Option<String>,
    found: Sitemap,
}

impl Reading<'_> {
    fn read(mut self) -> Result<Sitemap, Unreadable> {
        let wrong = |reason: String| Err(Unreadable(reason));
        loop {
            let (namespace, event) = match self.reader.read_resolved_event() {
                Ok(resolved) => resolved,
                Err(error) => return wrong(format!("is no XML: {error}")),
            };
            let is_ours = match &namespace {
                ResolveResult::Bound(namespace) => NAMESPACES.contains(&namespace.into_inner()),
                ResolveResult::Unbound => true,
                ResolveResult::Unknown(_) => false,
            };
            match event {
                Event::DocType(_) => return wrong("has a document type, which no sitemap needs".to_owned()),
                Event::Start(start) => {
                    let element =
                        if is_ours { element(start.local_name().into_inner()) } else { Element::Other };
                    self.open(element)?;
                }
                Event::Empty(start) => {
                    let element =
                        if is_ours { element(start.local_name().into_inner()) } else { Element::Other };
                    self.open(element)?;
                    self.close()?;
                }
                Event::End(_) => self.close()?,
                Event::Text(text) => self.add(&text.xml10_content()),
                Event::CData(text) => self.add(&text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let char = match reference.resolve_char_ref() {
                        Ok(Some(char)) => Some(char.to_string()),
                        _ => predefined(&reference.xml10_content()).map(str::to_owned),
                    };
                    match char {
                        Some(char) => self.add(&char),
                        None => return wrong("has an entity that XML does not know".to_owned()),
                    }
                }
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Eof => break,
            }
        }
        match self.path.is_empty() {
            true => Ok(self.found),
            false => wrong("ends in the middle".to_owned()),
        }
    }

    fn open(&mut self, element: Element) -> Result<(), Unreadable> {
        if self.path.len() >= DEPTH_MAX {
            return Err(Unreadable(format!("has elements {DEPTH_MAX} deep")));
        }
        let is_root = matches!(element, Element::UrlSet | Element::Index);
        if self.path.is_empty() && !is_root {
            return Err(Unreadable("is XML, but neither urlset nor sitemapindex".to_owned()));
        }
        let parents: &[Element] = match element {
            Element::UrlSet | Element::Index => &[],
            Element::Url => &[Element::UrlSet],
            Element::Sitemap => &[Element::Index],
            Element::Location => &[Element::Url, Element::Sitemap],
            Element::Other => &[],
        };
        let is_in_place = match self.path.last() {
            None => is_root,
            Some(parent) => parents.contains(parent),
        };
        let element = if is_in_place { element } else { Element::Other };
        if element == Element::Location {
            self.location = Some(String::new());
        }
        self.path.push(element);
        Ok(())
    }

    fn add(&mut self, text: &str) {
        // One byte too many is enough to know that it is too long.
        if let (Some(location), Some(Element::Location)) = (&mut self.location, self.path.last())
            && location.len() <= URL_BYTES_MAX
        {
            location.push_str(text);
        }
    }

    fn close(&mut self) -> Result<(), Unreadable> {
        let closed = self.path.pop();
        if closed != Some(Element::Location) {
            return Ok(());
        }
        let location = self.location.take().unwrap_or_default();
        match Url::parse(&location) {
            Ok(url) if self.path.last() == Some(&Element::Sitemap) => self.found.sitemaps.push(url),
            Ok(url) => self.found.urls.push(url),
            Err(_) => self.found.bad += 1,
        }
        let count = self.found.urls.len() + self.found.sitemaps.len() + self.found.bad;
        match count <= LOCATIONS_MAX {
            true => Ok(()),
            false => Err(Unreadable(format!("has more than {LOCATIONS_MAX} locations"))),
        }
    }
}

fn element(name: &str) -> Element {
    match name {
        "urlset" => Element::UrlSet,
        "sitemapindex" => Element::Index,
        "url" => Element::Url,
        "sitemap" => Element::Sitemap,
        "loc" => Element::Location,
        _ => Element::Other,
    }
}

/// The five entities that XML has by itself (XML 1.0 §4.6).
fn predefined(name: &str) -> Option<&'static str> {
    Some(match name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "apos" => "'",
        "quot" => "\"",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let read = read_sitemap(text.as_bytes()).map(|found| {
            let urls = found.urls.iter().map(Url::to_string);
            let sitemaps = found.sitemaps.iter().map(|url| format!("+{url}"));
            let bad = (found.bad > 0).then(|| format!("{} bad", found.bad));
            urls.chain(sitemaps).chain(bad).collect::<Vec<_>>().join(" ")
        });
        match (read, expected) {
            (Err(Unreadable(reason)), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
            (read, expected) => {
                assert_eq!(read, expected.map(str::to_owned).map_err(|e| Unreadable(e.to_owned())), "{text}");
            }
        }
    }

    const SET: &str = r#"<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9""#;

    #[test]
    fn the_pages_of_a_sitemap_are_read_and_nothing_else() {
        check(
            &format!(
                r#"<?xml version="1.0" encoding="UTF-8"?>
                {SET} xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
                <!-- <url><loc>http://a/no</loc></url> -->
                <url><loc> http://a/1?x=1&amp;y=2 </loc><lastmod>2026-01-01</lastmod>
                  <image:image><image:loc>http://a/image.png</image:loc></image:image></url>
                <url><loc><![CDATA[http://a/2?x&y]]></loc></url>
                <url><loc>http://a/&#51;&#x34;</loc></url>
                <url><loc>nonsense</loc></url><url><loc/></url>
                <loc>http://a/not-in-a-url</loc>
                </urlset>"#
            ),
            Ok("http://a/1?x=1&y=2 http://a/2?x&y http://a/34 2 bad"),
        );
    }

    #[test]
    fn an_index_names_sitemaps_with_or_without_a_prefix_or_namespace() {
        check(
            r#"<s:sitemapindex xmlns:s="http://www.sitemaps.org/schemas/sitemap/0.9">
               <s:sitemap><s:loc>http://a/1.xml.gz</s:loc></s:sitemap></s:sitemapindex>"#,
            Ok("+http://a/1.xml.gz"),
        );
        check("<sitemapindex><sitemap><loc>http://a/1</loc></sitemap></sitemapindex>", Ok("+http://a/1"));
        check("\u{feff}<urlset/>", Ok(""));
        check("http://a/1\nhttp://a/2\n", Ok("http://a/1 http://a/2"));
    }

    #[test]
    fn what_is_hostile_or_no_sitemap_is_refused() {
        check(
            r#"<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>"#,
            Err("a document type"),
        );
        check("<urlset><url><loc>http://a/&evil;</loc></url></urlset>", Err("an entity"));
        check("<html><body/></html>", Err("neither urlset nor sitemapindex"));
        check(r#"<urlset xmlns="http://other.example/"><url/></urlset>"#, Err("neither urlset"));
        check("<urlset><url></urlset>", Err("is no XML"));
        check("<urlset><url>", Err("ends in the middle"));
        check(&format!("<urlset>{}", "<x>".repeat(100)), Err("deep"));
        check(
            &format!("{SET}>{}</urlset>", "<url><loc>x</loc></url>".repeat(LOCATIONS_MAX + 1)),
            Err("more than"),
        );
        assert!(read_sitemap(b"<urlset>\xff</urlset>").unwrap_err().0.contains("UTF-8"));
        let long = format!("<urlset><url><loc>http://a/{}</loc></url></urlset>", "x".repeat(1 << 20));
        check(&long, Ok("1 bad"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(<|>|/|&|;|#|\"|=|!|\\[|\\]|-| |urlset|url|loc|sitemap|xmlns|:|http://a|x){0,60}") {
            let _ = read_sitemap(text.as_bytes());
            let _ = read_sitemap(format!("<urlset>{text}</urlset>").as_bytes());
        }
    }
}
