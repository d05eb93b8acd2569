//! What is around each page: contents, search, the way to the next one.

use pulldown_cmark::HeadingLevel;

use crate::index::{Index, Of};
use crate::page::{Heading, Section};
use crate::{Page, relative};

/// Files that all pages use.
pub(crate) const ASSETS: [(&str, &str); 2] = [
    ("manual.css", include_str!("../assets/manual.css")),
    ("manual.js", include_str!("../assets/manual.js")),
];

/// Bytes of a section that can be found: the long tables are found by their heading and their first keys.
const SECTION_BYTES_MAX: usize = 4096;

/// A whole page. `listed` are the pages of the contents, in order.
pub(crate) fn page(
    index: &Index,
    listed: &[&Page],
    page: &Page,
    headings: &[Heading],
    content: &str,
) -> String {
    let to = |path: &str| escape(&relative(&page.path, path));
    let root = "../".repeat(page.path.matches('/').count());
    let mut contents = String::new();
    for part in &index.parts {
        contents.push_str(&format!("<h2>{}</h2>\n<ul>\n", escape(&part.title)));
        for entry in &part.entries {
            let path = entry.path();
            let is_here = path == page.path;
            let mark = if is_here { r#" aria-current="page""# } else { "" };
            contents.push_str(&format!(r#"<li><a href="{}"{mark}>{}</a>"#, to(&path), escape(&entry.title)));
            if is_here && !matches!(entry.of, Of::Folder(_)) {
                let inner = headings.iter().filter(|heading| heading.level == HeadingLevel::H2);
                let inner: String = inner
                    .map(|heading| {
                        format!("<li><a href=\"#{}\">{}</a></li>\n", heading.anchor, escape(&heading.text))
                    })
                    .collect();
                contents.push_str(&format!("\n<ul>\n{inner}</ul>\n"));
            }
            contents.push_str("</li>\n");
        }
        contents.push_str("</ul>\n");
    }
    let place = listed.iter().position(|one| one.path == page.path);
    let before = place.and_then(|place| place.checked_sub(1)).map(|place| listed[place]);
    let after = match place {
        Some(place) => listed.get(place + 1),
        None if page.path == "index.html" => listed.first(),
        None => None,
    };
    let step = |page: &Page, rel: &str, word: &str| {
        format!(r#"<a rel="{rel}" href="{}"><span>{word}</span> {}</a>"#, to(&page.path), escape(&page.title))
    };
    let steps = before.map_or_else(String::new, |page| step(page, "prev", "before:"))
        + &after.map_or_else(String::new, |page| step(page, "next", "next:"));
    let title = match page.path.as_str() {
        "index.html" => escape(&index.title),
        _ => format!("{} · {}", escape(&page.title), escape(&index.title)),
    };
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="{root}manual.css">
<script defer src="{root}manual.js" data-root="{root}"></script>
</head>
<body>
<header><a href="{root}index.html">{manual}</a> <a class="to-contents" href="#contents">Contents</a>
<search><input type="search" id="query" placeholder="Search ( / )" aria-label="Search the manual" aria-controls="results" autocomplete="off"></search></header>
<div id="results" role="region" aria-label="Results" aria-live="polite" hidden></div>
<main>
{content}<footer>{steps}</footer>
</main>
<nav id="contents" aria-label="Contents">
{contents}</nav>
</body>
</html>
"##,
        manual = escape(&index.title),
    )
}

/// What the search looks through: a script, as pages from a disk may not fetch anything else.
pub(crate) fn search_index(sections: &[(&Page, Section)]) -> String {
    let rows: Vec<serde_json::Value> = sections
        .iter()
        .map(|(page, section)| {
            let words: Vec<&str> = section.text.split_whitespace().collect();
            let mut text = words.join(" ");
            let end = (0..=SECTION_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
            serde_json::json!([page.path, page.title, section.anchor, section.heading, text])
        })
        .collect();
    format!("var SECTIONS = {};\n", serde_json::Value::from(rows))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
