//! A configuration that is being written: one line for each key, each with the statements that it comes from, so that what the
//! reader refuses can be taken out again and be told.

use std::collections::BTreeSet;

use model::{Diagnostic, Snapshot};

use crate::ledger::{Id, Ledger, Place};
use crate::{Broken, Imported};

/// Keys that say when a rule applies, or all that it does: without one of them it would be another rule.
const ESSENTIAL: [&str; 9] =
    ["name", "path", "methods", "hosts", "scheme", "with_header", "with_cookie", "status", "redirect"];

/// Times that the text is read: each time at least one line is taken out.
const ROUNDS_MAX: usize = 200;

/// `key = value`, with `key` dotted where it lies in tables.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    key: String,
    value: String,
    from: Vec<Id>,
}

/// The keys of a table, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Keys {
    lines: Vec<Line>,
}

impl Keys {
    /// Says `key = value`, instead of what was said before.
    pub(crate) fn set(&mut self, key: impl Into<String>, value: impl Into<String>, from: &[Id]) {
        let line = Line { key: key.into(), value: value.into(), from: from.to_vec() };
        match self.lines.iter_mut().find(|known| known.key == line.key) {
            Some(known) => *known = line,
            None => self.lines.push(line),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|line| line.key == key).map(|line| &*line.value)
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.lines.retain(|line| line.key != key);
    }

    /// The value of the first key that begins so.
    pub(crate) fn first_under(&self, beginning: &str) -> Option<&str> {
        self.lines.iter().find(|line| line.key.starts_with(beginning)).map(|line| &*line.value)
    }

    /// Takes out all keys that begin so.
    pub(crate) fn remove_under(&mut self, beginning: &str) {
        self.lines.retain(|line| !line.key.starts_with(beginning));
    }

    /// Takes out a table, or a key of its name.
    pub(crate) fn remove_table(&mut self, table: &str) {
        self.lines.retain(|line| line.key.split('.').next() != Some(table));
    }

    pub(crate) fn has_table(&self, table: &str) -> bool {
        self.lines.iter().any(|line| line.key.split('.').next() == Some(table))
    }

    /// Says all that `other` says.
    pub(crate) fn extend(&mut self, other: &Keys) {
        other.lines.iter().for_each(|line| self.set(&*line.key, &*line.value, &line.from));
    }

    /// What both say alike, whatever it comes from.
    pub(crate) fn says_as(&self, other: &Keys) -> bool {
        let said = |keys: &Keys| -> BTreeSet<(String, String)> {
            keys.lines.iter().map(|line| (line.key.clone(), line.value.clone())).collect()
        };
        said(self) == said(other)
    }
}

/// A rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftRule {
    /// Made unique when it is written.
    pub(crate) name: String,
    /// Lines of comment before it.
    pub(crate) remarks: Vec<String>,
    pub(crate) from: Vec<Id>,
    pub(crate) keys: Keys,
}

/// A site.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftSite {
    pub(crate) name: String,
    pub(crate) from: Vec<Id>,
    pub(crate) keys: Keys,
    pub(crate) rules: Vec<DraftRule>,
}

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) root: Keys,
    pub(crate) edge: Keys,
    pub(crate) disk: Keys,
    pub(crate) certificates: Vec<Keys>,
    pub(crate) sites: Vec<DraftSite>,
}

/// One line of the text that is made.
struct Written {
    text: String,
    key: String,
    from: Vec<Id>,
    /// Number of the rule or table that it belongs to.
    part: usize,
    /// Number of the site, from 1; 0 before the first.
    site: usize,
    is_head: bool,
}

impl Draft {
    /// Writes it, takes out what the reader refuses, and closes the ledger.
    ///
    /// - `what`: what the text was, as in "nginx configuration".
    pub(crate) fn finish(self, mut ledger: Ledger, what: &str, name: &str) -> Result<Imported, Broken> {
        let nothing = |help: &str| Broken {
            place: Place { file: name.into(), line: 1, column: 1 },
            message: format!("nothing in this {what} becomes a site"),
            help: help.into(),
        };
        if self.sites.is_empty() {
            return Err(nothing("name a file in which content is fetched from an origin"));
        }
        let mut lines = self.write(&ledger, what, name);
        for _ in 0..ROUNDS_MAX {
            let config: String = lines.iter().map(|line| format!("{}\n", line.text)).collect();
            let parsed = Snapshot::parse(&config, "the imported configuration");
            if parsed.snapshot.is_some() {
                return Ok(Imported { config, items: ledger.close() });
            }
            let errors: Vec<&Diagnostic> =
                parsed.diagnostics.iter().filter(|found| found.is_error()).collect();
            let taken = errors.iter().filter(|error| take_out(&mut lines, &mut ledger, error)).count();
            if taken == 0 {
                let first = errors.first().map_or("", |error| &*error.message);
                return Err(nothing(first));
            }
        }
        Err(nothing("import it in parts"))
    }

    fn write(mut self, ledger: &Ledger, what: &str, name: &str) -> Vec<Written> {
        let mut out = Writer { lines: Vec::new(), part: 0, site: 0, ledger };
        out.comment(&format!("Imported from the {what} {}; comments name its lines.", one_line(name)));
        out.comment("What is not mapped stands in the report of the import, and is not in here.");
        out.keys(&self.root);
        if !self.edge.lines.is_empty() {
            out.head("[edge]", &[]);
            out.keys(&self.edge);
        }
        if !self.disk.lines.is_empty() {
            out.head("[[store.disk]]", &[]);
            out.keys(&self.disk);
        }
        for certificate in &self.certificates {
            out.head("[[certificate]]", &[]);
            out.keys(certificate);
        }
        let mut names = BTreeSet::new();
        for site in &mut self.sites {
            out.site += 1;
            out.head("[[site]]", &site.from);
            site.keys.lines.insert(0, named(&site.name, &mut names));
            out.keys(&site.keys);
            let mut names = BTreeSet::new();
            for rule in &mut site.rules {
                out.lines.push(out.plain(""));
                for remark in &rule.remarks {
                    out.comment(remark);
                }
                out.head("[[site.rule]]", &rule.from);
                rule.keys.lines.insert(0, named(&rule.name, &mut names));
                out.keys(&rule.keys);
            }
        }
        out.lines
    }
}

struct Writer<'a> {
    lines: Vec<Written>,
    part: usize,
    site: usize,
    ledger: &'a Ledger,
}

impl Writer<'_> {
    fn plain(&self, text: &str) -> Written {
        let (part, site) = (self.part, self.site);
        Written { text: text.into(), key: String::new(), from: Vec::new(), part, site, is_head: false }
    }

    fn comment(&mut self, text: &str) {
        let line = self.plain(format!("# {}", one_line(text)).trim_end());
        self.lines.push(line);
    }

    fn head(&mut self, title: &str, from: &[Id]) {
        if !title.starts_with("[[site.") {
            self.lines.push(self.plain(""));
        }
        self.part += 1;
        let text = format!("{title}{}", self.origin(from));
        self.lines.push(Written { from: from.to_vec(), is_head: true, ..self.plain(&text) });
    }

    fn keys(&mut self, keys: &Keys) {
        for line in &keys.lines {
            let text = format!("{} = {}{}", line.key, line.value, self.origin(&line.from));
            self.lines.push(Written { key: line.key.clone(), from: line.from.clone(), ..self.plain(&text) });
        }
    }

    /// Where a line comes from, as a comment.
    fn origin(&self, from: &[Id]) -> String {
        let places: BTreeSet<String> = from
            .iter()
            .map(|id| {
                let place = self.ledger.place(*id);
                let file = place.file.rsplit('/').next().unwrap_or_default();
                format!("{}:{}", one_line(file), place.line)
            })
            .collect();
        const SHOWN: usize = 4;
        let more = if places.len() > SHOWN { ", …" } else { "" };
        let shown: Vec<String> = places.into_iter().take(SHOWN).collect();
        if shown.is_empty() { String::new() } else { format!("  # {}{more}", shown.join(", ")) }
    }
}

/// Makes a comment of the line that an error is about, or of its whole rule. Whether there was something to take out.
fn take_out(lines: &mut [Written], ledger: &mut Ledger, error: &Diagnostic) -> bool {
    let Some(index) = (error.line as usize).checked_sub(1).filter(|index| *index < lines.len()) else {
        return false;
    };
    let is_left_out = |line: &Written| line.text.starts_with('#') || line.text.is_empty();
    if is_left_out(&lines[index]) {
        return false;
    }
    let top = lines[index].key.split('.').next().unwrap_or_default().to_owned();
    let is_whole = lines[index].is_head || ESSENTIAL.contains(&&*top) || top == "origin" || top == "domains";
    let (part, site) = (lines[index].part, lines[index].site);
    // Without its head, rules would be another site's.
    let is_site = lines[index].text.starts_with("[[site]]") || top == "domains";
    let mut reason = format!("{}: {}", lines[index].key, error.message);
    if !error.help.is_empty() {
        reason.push_str(&format!("; {}", error.help));
    }
    // A rule without its origin would ask the site's.
    let range: Vec<usize> = match is_whole && part > 0 {
        true => {
            let belongs = |line: &Written| if is_site { line.site == site } else { line.part == part };
            (0..lines.len()).filter(|at| belongs(&lines[*at]) && !is_left_out(&lines[*at])).collect()
        }
        false => vec![index],
    };
    for at in range {
        let line = &mut lines[at];
        for id in &line.from {
            ledger.retract(*id, &line.key);
            ledger.not_mapped(*id, format!("cannot be said so: {}", reason.trim_start_matches(": ")));
        }
        line.text = format!("# left out: {}", line.text);
    }
    true
}

fn named(name: &str, taken: &mut BTreeSet<String>) -> Line {
    let clean: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect();
    let mut clean = clean.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    clean.truncate(48);
    if clean.is_empty() {
        clean.push_str("all");
    }
    let mut unique = clean.clone();
    let mut number = 2;
    while !taken.insert(unique.clone()) {
        unique = format!("{clean}-{number}");
        number += 1;
    }
    Line { key: "name".into(), value: quote(&unique), from: Vec::new() }
}

/// Whether a site can have it as a domain: a host, or one behind `*.`.
pub(crate) fn is_domain(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

// --- TOML ---

/// A text as TOML writes it.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A list of texts; of one alone, the text.
pub(crate) fn quote_list<T: AsRef<str>>(texts: &[T]) -> String {
    match texts {
        [one] => quote(one.as_ref()),
        _ => {
            let quoted: Vec<String> = texts.iter().map(|text| quote(text.as_ref())).collect();
            format!("[{}]", quoted.join(", "))
        }
    }
}

/// Seconds as a duration.
pub(crate) fn secs(secs: u64) -> String {
    quote(&model::Ttl::from_secs(secs).to_string())
}

/// A dotted key whose last part is a text of somebody's own.
pub(crate) fn dotted(table: &str, name: &str) -> String {
    let is_bare =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_bare { format!("{table}.{name}") } else { format!("{table}.{}", quote(name)) }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
