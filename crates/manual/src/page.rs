//! One page: from Markdown to HTML, with its headings, the links that lead nowhere, and what the search looks through.

use std::collections::{BTreeSet, HashMap};

use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use crate::{World, carried_path, relative};

/// A heading, and what leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    pub(crate) level: HeadingLevel,
    pub(crate) text: String,
    /// As on the usual forges: lower case, blanks as hyphens, without punctuation; numbered when it is there already.
    pub(crate) anchor: String,
}

/// What stands under a heading, for the search.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) heading: String,
    pub(crate) anchor: String,
    pub(crate) text: String,
}

/// A page, made.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    pub(crate) html: String,
    pub(crate) sections: Vec<Section>,
    /// Files of the repository that it links to, and that are no pages.
    pub(crate) files: BTreeSet<String>,
    pub(crate) problems: Vec<String>,
}

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// The headings of a page.
pub(crate) fn headings(text: &str) -> Vec<Heading> {
    let mut found = Vec::new();
    let mut taken: HashMap<String, u32> = HashMap::new();
    let mut current: Option<(HeadingLevel, String)> = None;
    for event in parser(text) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => current = Some((level, String::new())),
            Event::End(TagEnd::Heading(_)) => {
                let Some((level, text)) = current.take() else { continue };
                let base = anchor_of(&text);
                let count = taken.entry(base.clone()).and_modify(|count| *count += 1).or_default();
                let anchor = if *count == 0 { base } else { format!("{base}-{count}") };
                found.push(Heading { level, text, anchor });
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some((_, words)) = &mut current {
                    words.push_str(&text);
                }
            }
            _ => {}
        }
    }
    found
}

/// The title of a page: its first heading.
pub(crate) fn title(text: &str) -> Option<String> {
    headings(text).into_iter().next().map(|heading| heading.text)
}

fn anchor_of(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|char| match char {
        ' ' => Some('-'),
        '-' | '_' => Some(char),
        _ if char.is_alphanumeric() => Some(char),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

/// From a link in a file of the repository to the path that it names there, without its anchor; a folder ends with a slash. `None`
/// when it leads out of the repository.
pub(crate) fn resolve(source: &str, link: &str) -> Option<String> {
    let link = link.split('#').next().unwrap_or_default();
    let mut parts: Vec<&str> = source.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    let end = if link.ends_with('/') { "/" } else { "" };
    Some(format!("{}{end}", parts.join("/")))
}

/// What becomes of a link.
enum Led {
    /// It leads here.
    To(String),
    /// To a folder of the repository, which is no part of the site: the words stay, the link goes.
    Nowhere,
    /// To nothing, and why.
    Wrong(String),
}

impl World<'_> {
    fn lead(&self, source: &str, path: &str, link: &str, files: &mut BTreeSet<String>) -> Led {
        if link.contains("://") || link.starts_with("mailto:") {
            return Led::To(link.to_owned());
        }
        if link.starts_with('/') {
            return Led::Wrong(format!(
                "the link to {link} begins at the root: write it from this file's folder"
            ));
        }
        let Some(mut target) = (match link.starts_with('#') {
            true => Some(source.to_owned()),
            false => resolve(source, link),
        }) else {
            return Led::Wrong(format!("the link to {link} leads out of the repository"));
        };
        let anchor = link.split_once('#').map(|(_, anchor)| anchor);
        if self.root.join(&target).is_dir() && !target.ends_with('/') {
            target.push('/');
        }
        if let Some((to, headings)) = self.pages.get(target.as_str()) {
            let to = relative(path, to);
            return match anchor {
                None => Led::To(to),
                Some(anchor) if headings.iter().any(|heading| heading.anchor == anchor) => {
                    Led::To(format!("{to}#{anchor}"))
                }
                Some(_) => {
                    Led::Wrong(format!("the link to {link} leads nowhere: {target} has no such heading"))
                }
            };
        }
        if target.ends_with('/') && self.root.join(&target).is_dir() {
            return Led::Nowhere;
        }
        if self.root.join(&target).is_file() {
            let to = relative(path, &carried_path(&target));
            files.insert(target);
            return Led::To(to);
        }
        Led::Wrong(format!("the link to {link} leads nowhere: there is no {target}"))
    }
}

/// Makes the page at `source` into the file at `path` of the site.
pub(crate) fn render(source: &str, path: &str, text: &str, world: &World<'_>) -> Rendered {
    let mut rendered = Rendered::default();
    let mut headings = headings(text).into_iter();
    let mut events: Vec<Event<'_>> = Vec::new();
    let mut anchor = String::new();
    // Links that lead to folders: their words stay.
    let mut unlinked = false;
    let mut in_heading = false;
    for (event, range) in parser(text).into_offset_iter() {
        let line = || text[..range.start].matches('\n').count() + 1;
        let event = match event {
            Event::Start(Tag::Heading { level, classes, attrs, .. }) => {
                if let Some(heading) = headings.next() {
                    anchor = heading.anchor.clone();
                    rendered.sections.push(Section {
                        heading: heading.text,
                        anchor: heading.anchor,
                        text: String::new(),
                    });
                }
                in_heading = true;
                Event::Start(Tag::Heading { level, id: Some(anchor.clone().into()), classes, attrs })
            }
            Event::End(TagEnd::Heading(level)) => {
                in_heading = false;
                let link =
                    format!(r##" <a class="anchor" href="#{anchor}" aria-label="Link to this">#</a>"##);
                events.push(Event::InlineHtml(link.into()));
                Event::End(TagEnd::Heading(level))
            }
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                match world.lead(source, path, &dest_url, &mut rendered.files) {
                    Led::To(to) => Event::Start(Tag::Link { link_type, dest_url: to.into(), title, id }),
                    Led::Nowhere => {
                        unlinked = true;
                        continue;
                    }
                    Led::Wrong(why) => {
                        rendered.problems.push(format!("{source}:{}: {why}", line()));
                        unlinked = true;
                        continue;
                    }
                }
            }
            Event::End(TagEnd::Link) if unlinked => {
                unlinked = false;
                continue;
            }
            Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
                let dest_url = match world.lead(source, path, &dest_url, &mut rendered.files) {
                    Led::To(to) => CowStr::from(to),
                    Led::Nowhere => dest_url,
                    Led::Wrong(why) => {
                        rendered.problems.push(format!("{source}:{}: {why}", line()));
                        dest_url
                    }
                };
                Event::Start(Tag::Image { link_type, dest_url, title, id })
            }
            Event::Start(Tag::Table(alignment)) => {
                events.push(Event::Html(r#"<div class="table">"#.into()));
                Event::Start(Tag::Table(alignment))
            }
            Event::End(TagEnd::Table) => {
                events.push(Event::End(TagEnd::Table));
                Event::Html("</div>\n".into())
            }
            // Comments speak to those who edit.
            Event::Html(code) | Event::InlineHtml(code) if code.trim_start().starts_with("<!--") => continue,
            Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) => continue,
            Event::Html(_) | Event::InlineHtml(_) => {
                let problem = format!("{source}:{}: HTML; pages are plain Markdown", line());
                if rendered.problems.last() != Some(&problem) {
                    rendered.problems.push(problem);
                }
                continue;
            }
            event => event,
        };
        if let Some(section) = rendered.sections.last_mut()
            && !in_heading
        {
            match &event {
                Event::Text(words) | Event::Code(words) => section.text.push_str(words),
                Event::SoftBreak | Event::HardBreak | Event::End(_) => section.text.push(' '),
                _ => {}
            }
        }
        events.push(event);
    }
    html::push_html(&mut rendered.html, events.into_iter());
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_those_of_the_usual_forges() {
        let text = "# Why did it miss?\n## [[site.rule]]\n## `perigee store`\n## Same\n## Same\n## a key's file, v2\n";
        let anchors: Vec<String> = headings(text).into_iter().map(|heading| heading.anchor).collect();
        assert_eq!(
            anchors,
            ["why-did-it-miss", "siterule", "perigee-store", "same", "same-1", "a-keys-file-v2"]
        );
    }

    #[test]
    fn links_are_read_from_the_folder_of_their_file() {
        for (source, link, wanted) in [
            ("docs/a.md", "b.md#c", Some("docs/b.md")),
            ("docs/how-to/a.md", "../b.md", Some("docs/b.md")),
            ("docs/a.md", "../ARCHITECTURE.md", Some("ARCHITECTURE.md")),
            ("docs/a.md", "decisions/", Some("docs/decisions/")),
            ("README.md", "docs/a.md", Some("docs/a.md")),
            ("docs/a.md", "../../b.md", None),
        ] {
            assert_eq!(resolve(source, link).as_deref(), wanted, "{source} {link}");
        }
    }
}
