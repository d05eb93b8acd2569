//! The contents: what the lists of `docs/README.md` name, in parts by its headings.

use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};

use crate::page::resolve;
use crate::{INDEX, site_path};

/// The contents of the manual.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The manual's own title.
    pub(crate) title: String,
    pub(crate) parts: Vec<Part>,
}

/// What stands under one heading.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) title: String,
    pub(crate) entries: Vec<Entry>,
}

/// One page, or one folder of pages.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) title: String,
    pub(crate) of: Of,
}

/// Where a page comes from.
#[derive(Debug)]
pub(crate) enum Of {
    /// A file, by its path in the repository.
    File(String),
    /// All pages in a folder.
    Folder(String),
    /// What `perigee` prints with these arguments.
    Command(String),
}

impl Entry {
    /// Its path in the site.
    pub(crate) fn path(&self) -> String {
        match &self.of {
            Of::File(source) => site_path(source),
            Of::Folder(folder) => format!("{}/index.html", folder.trim_start_matches("docs/")),
            Of::Command(arguments) => format!("{}.html", arguments.replace(' ', "/")),
        }
    }
}

impl Index {
    /// Reads the index. An item without a link in front and without a command is prose.
    pub(crate) fn read(text: &str) -> Index {
        let mut index = Index::default();
        let mut heading = None;
        // What stands in the item so far, and whether something is known of it.
        let mut words = String::new();
        let mut link: Option<String> = None;
        let mut is_found = true;
        for event in Parser::new(text) {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    heading = Some(level);
                    words.clear();
                }
                Event::End(TagEnd::Heading(_)) => {
                    let title = std::mem::take(&mut words);
                    match heading.take() {
                        Some(HeadingLevel::H1) => index.title = title,
                        _ => index.parts.push(Part { title, entries: Vec::new() }),
                    }
                }
                Event::Start(Tag::Item) => {
                    words.clear();
                    is_found = false;
                }
                Event::End(TagEnd::Item) => is_found = true,
                Event::Start(Tag::Link { dest_url, .. }) if !is_found && words.trim().is_empty() => {
                    link = Some(dest_url.into_string());
                }
                Event::End(TagEnd::Link) => {
                    let target = link.take().and_then(|link| resolve(INDEX, &link));
                    if let Some(target) = target {
                        let of = match target.strip_suffix('/') {
                            Some(folder) => Of::Folder(folder.to_owned()),
                            None => Of::File(target),
                        };
                        index.add(std::mem::take(&mut words), of);
                        is_found = true;
                    }
                }
                Event::Code(code) => match code.strip_prefix("perigee ") {
                    Some(arguments) if !is_found && arguments.starts_with("reference ") => {
                        let title = words.trim().trim_end_matches(':').to_owned();
                        index.add(title, Of::Command(arguments.to_owned()));
                        is_found = true;
                    }
                    _ => words.push_str(&code),
                },
                Event::Text(text) => words.push_str(&text),
                _ => {}
            }
        }
        index.parts.retain(|part| !part.entries.is_empty());
        index
    }

    fn add(&mut self, title: String, of: Of) {
        if let Some(part) = self.parts.last_mut() {
            part.entries.push(Entry { title, of });
        }
    }
}
