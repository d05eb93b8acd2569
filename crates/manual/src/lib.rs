//! Makes the manual of the Markdown in `docs/`: a site of plain files that also works from a disk, without a server. Finds what is
//! wrong with it on the way: links and anchors that lead nowhere, and pages that no reader would find.
//!
//! `docs/README.md` is the first page and the index. An item of its lists that begins with a link is a page; a link to a folder
//! stands for all pages in it; and an item with a code span `perigee reference PART` is a page that this command prints, so what is
//! generated from code is never kept beside it. Nothing else than `docs/README.md` has to be edited for a new page.

mod index;
mod page;
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use index::Index;
use page::{Heading, Rendered};

/// The index, and the first page.
const INDEX: &str = "docs/README.md";

/// Markdown that is no page, but whose links must lead somewhere.
const ALSO_CHECKED: [&str; 1] = ["README.md"];

/// What was made.
#[derive(Debug, Default)]
pub struct Manual {
    /// The files of the site, by their path in it.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What is wrong, one sentence each, with file and line. Empty when all is well.
    pub problems: Vec<String>,
}

/// One page, read.
#[derive(Debug)]
struct Page {
    /// What the contents call it.
    title: String,
    /// Its path in the repository, or the command that prints it.
    source: String,
    /// Its path in the site.
    path: String,
    /// Whether the contents name it; a page of a folder is named by the folder's own page.
    listed: bool,
    text: String,
}

/// What links can lead to.
struct World<'a> {
    root: &'a Path,
    /// By path in the repository: path in the site, and headings.
    pages: BTreeMap<&'a str, (&'a str, Vec<Heading>)>,
}

/// Makes the manual of the repository at `root`. `print` runs `perigee` with some arguments and returns what it prints, or why it
/// could not.
///
/// # Errors
/// The index, or a page that it names, cannot be read; the error names the file.
pub fn make(root: &Path, print: &dyn Fn(&[&str]) -> Result<String, String>) -> io::Result<Manual> {
    let mut manual = Manual::default();
    let index_text = read(root, INDEX)?;
    let index = Index::read(&index_text);
    let mut pages = vec![Page {
        title: index.title.clone(),
        source: INDEX.to_owned(),
        path: site_path(INDEX),
        listed: false,
        text: index_text,
    }];
    for entry in index.parts.iter().flat_map(|part| &part.entries) {
        match &entry.of {
            index::Of::File(source) => pages.push(Page {
                title: entry.title.clone(),
                source: source.clone(),
                path: entry.path(),
                listed: true,
                text: match read(root, source) {
                    Ok(text) => text,
                    Err(error) => {
                        manual.problems.push(format!("{INDEX}: {error}"));
                        continue;
                    }
                },
            }),
            index::Of::Folder(folder) => pages.extend(folder_pages(root, folder, entry)?),
            index::Of::Command(arguments) => {
                let words: Vec<&str> = arguments.split(' ').collect();
                match print(&words) {
                    Ok(text) => pages.push(Page {
                        title: entry.title.clone(),
                        source: format!("perigee {arguments}"),
                        path: entry.path(),
                        listed: true,
                        text,
                    }),
                    Err(error) => manual.problems.push(format!("perigee {arguments}: {error}")),
                }
            }
        }
    }
    let known: BTreeSet<&str> = pages.iter().map(|page| page.source.as_str()).collect();
    for source in markdown_below(root, "docs")? {
        if !known.contains(source.as_str()) {
            manual.problems.push(format!("{source} is in no index: give it a line in {INDEX}"));
        }
    }

    let of = |page| {
        let Page { source, path, text, .. }: &Page = page;
        (source.as_str(), (path.as_str(), page::headings(text)))
    };
    let world = World { root, pages: pages.iter().map(of).collect() };
    let mut sections = Vec::new();
    let listed: Vec<&Page> = pages.iter().filter(|page| page.listed).collect();
    for page in &pages {
        let rendered: Rendered = page::render(&page.source, &page.path, &page.text, &world);
        manual.problems.extend(rendered.problems);
        for file in rendered.files {
            manual.files.insert(carried_path(&file), fs::read(root.join(&file))?);
        }
        sections.extend(rendered.sections.into_iter().map(|section| (page, section)));
        let html = shell::page(&index, &listed, page, &world.pages[page.source.as_str()].1, &rendered.html);
        manual.files.insert(page.path.clone(), html.into_bytes());
    }
    for source in ALSO_CHECKED {
        let text = read(root, source)?;
        manual.problems.extend(page::render(source, source, &text, &world).problems);
    }
    manual.files.insert("search-index.js".to_owned(), shell::search_index(&sections).into_bytes());
    for (name, text) in shell::ASSETS {
        manual.files.insert(name.to_owned(), text.as_bytes().to_vec());
    }
    Ok(manual)
}

/// All pages of a folder, after one that lists them.
fn folder_pages(root: &Path, folder: &str, entry: &index::Entry) -> io::Result<Vec<Page>> {
    let mut list = format!("# {}\n\n", entry.title);
    let mut pages = Vec::new();
    for source in markdown_below(root, folder)? {
        let text = read(root, &source)?;
        let title = page::title(&text).unwrap_or_else(|| source.clone());
        list.push_str(&format!(
            "- [{title}]({})\n",
            source.trim_start_matches(folder).trim_start_matches('/')
        ));
        pages.push(Page { title, path: site_path(&source), source, listed: false, text });
    }
    // Where a link to the folder leads.
    pages.insert(
        0,
        Page {
            title: entry.title.clone(),
            source: format!("{folder}/"),
            path: entry.path(),
            listed: true,
            text: list,
        },
    );
    Ok(pages)
}

fn read(root: &Path, source: &str) -> io::Result<String> {
    fs::read_to_string(root.join(source))
        .map_err(|error| io::Error::new(error.kind(), format!("{source} cannot be read: {error}")))
}

/// The Markdown files in a folder of the repository and below, in order.
fn markdown_below(root: &Path, folder: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            found.extend(markdown_below(root, &path)?);
        } else if path.ends_with(".md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Where a page of the repository is in the site: `docs/a.md` is `a.html`.
fn site_path(source: &str) -> String {
    match source {
        INDEX => "index.html".to_owned(),
        _ => format!("{}.html", source.trim_start_matches("docs/").trim_end_matches(".md")),
    }
}

/// Where a file that a page links to, and that is no page, is in the site.
fn carried_path(source: &str) -> String {
    match source.strip_prefix("docs/") {
        Some(inside) => inside.to_owned(),
        None => format!("files/{source}"),
    }
}

/// From one file of the site to another: `../a.html`.
fn relative(from: &str, to: &str) -> String {
    format!("{}{to}", "../".repeat(from.matches('/').count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with these files, made into a manual.
    fn manual_of(name: &str, files: &[(&str, &str)]) -> Manual {
        let root = std::env::temp_dir().join(format!("perigee-manual-{}-{name}", std::process::id()));
        for (path, text) in [("README.md", ""), ("docs/decisions/0001-a.md", "# One")].iter().chain(files) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("folders are made");
            fs::write(path, text).expect("files are written");
        }
        let manual = make(&root, &|words| Ok(format!("# Printed\n\n{}\n", words.join(" ")))).expect("read");
        fs::remove_dir_all(root).expect("removed");
        manual
    }

    const INDEX_TEXT: &str = "# Manual\n\n## Part\n- [A](a.md): the first\n- [Why](decisions/)\n- Words: `perigee reference whys`\n";

    #[test]
    fn a_sound_manual_has_a_file_for_each_page_and_no_problem() {
        let a = "# A\n\n## Two words\n\nSee [here](#two-words), [there](decisions/0001-a.md#one), [the index](README.md).\n";
        let manual = manual_of("sound", &[("docs/README.md", INDEX_TEXT), ("docs/a.md", a)]);
        assert_eq!(manual.problems, Vec::<String>::new());
        let paths: Vec<&str> = manual.files.keys().map(String::as_str).collect();
        let wanted = [
            "a.html",
            "decisions/0001-a.html",
            "decisions/index.html",
            "index.html",
            "manual.css",
            "manual.js",
            "reference/whys.html",
            "search-index.js",
        ];
        assert_eq!(paths, wanted);
        let html = String::from_utf8_lossy(&manual.files["a.html"]);
        assert!(html.contains(r#"href="decisions/0001-a.html#one""#), "{html}");
        let printed = String::from_utf8_lossy(&manual.files["reference/whys.html"]);
        assert!(printed.contains("reference whys") && printed.contains(r#"href="../a.html""#), "{printed}");
    }

    #[test]
    fn what_leads_nowhere_is_named_with_its_line() {
        let check = |text: &str, wanted: &str| {
            let manual = manual_of("nowhere", &[("docs/README.md", INDEX_TEXT), ("docs/a.md", text)]);
            assert_eq!(manual.problems, [wanted], "{text:?}");
        };
        check("# A\n\n[x](b.md)\n", "docs/a.md:3: the link to b.md leads nowhere: there is no docs/b.md");
        check("# A\n[x](#b)\n", "docs/a.md:2: the link to #b leads nowhere: docs/a.md has no such heading");
        check(
            "# A\n\n\n[x](decisions/0001-a.md#b)\n",
            "docs/a.md:4: the link to decisions/0001-a.md#b leads nowhere: docs/decisions/0001-a.md has no such heading",
        );
        check("# A\n![x](b.png)\n", "docs/a.md:2: the link to b.png leads nowhere: there is no docs/b.png");
        check(
            "# A\n[x](/b)\n",
            "docs/a.md:2: the link to /b begins at the root: write it from this file's folder",
        );
        check("# A\n[x](../../b)\n", "docs/a.md:2: the link to ../../b leads out of the repository");
        check("# A\n<b>x</b>\n", "docs/a.md:2: HTML; pages are plain Markdown");
    }

    #[test]
    fn a_page_that_is_in_no_index_is_named() {
        let manual = manual_of(
            "lost",
            &[("docs/README.md", INDEX_TEXT), ("docs/a.md", "# A"), ("docs/b/c.md", "# C")],
        );
        assert_eq!(manual.problems, ["docs/b/c.md is in no index: give it a line in docs/README.md"]);
    }

    #[test]
    fn an_index_that_names_no_file_is_told() {
        let manual = manual_of("missing", &[("docs/README.md", INDEX_TEXT)]);
        assert!(
            manual.problems[0].starts_with("docs/README.md: docs/a.md cannot be read"),
            "{:?}",
            manual.problems
        );
    }
}
