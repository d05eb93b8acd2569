//! A configuration that is being written: one line for each key, each with the statements that it comes from, so that what the
//! reader refuses can be taken out again and be told.

use std::collections::BTreeSet;

use model::glob::IGNORES_CASE;
use model::{Diagnostic, Snapshot};

use crate::ledger::{Id, Ledger, Place};
use crate::{Broken, Imported};

/// Keys that say when a rule applies, or all that it does: without one of them it would be another rule.
const ESSENTIAL: [&str; 9] =
    ["name", "path", "methods", "hosts", "scheme", "with_header", "with_cookie", "status", "redirect"];

/// Keys that tell visitors apart, or keep from the origin what it could tell them apart by: without one of them, what is stored would be
/// for more than it may be. So are those that begin with the first.
const SEPARATING: [&str; 3] = ["key.", "request_cookies", "request_headers.remove"];

fn is_separating(key: &str) -> bool {
    SEPARATING.iter().any(|beginning| key.starts_with(beginning))
}

/// Stands where nobody is let through: no such name exists (RFC 6761 §6.4), so the answer is 502.
pub(crate) const REFUSED_ORIGIN: &str = "http://refused.invalid";

/// Rules that a site may have in our configuration. Of more, the last would be left out, which may be those that refuse.
const RULES_MAX: usize = 1000;

/// Rules of a site, copies among them, from which on copies are for all that a stricter rule is for, so that there is one of each.
const NARROW_COPIES_UP_TO: usize = RULES_MAX / 2;

/// Times that the text is read: each time at least one line is taken out.
const ROUNDS_MAX: usize = 200;

/// `key = value`, with `key` dotted where it lies in tables.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    key: String,
    value: String,
    from: Vec<Id>,
}

impl Line {
    fn is_condition(&self) -> bool {
        matches!(&*self.key, "path" | "hosts" | "scheme" | "methods") || self.key.starts_with("with_")
    }

    fn is_separating(&self) -> bool {
        is_separating(&self.key)
    }

    fn is_of_query(&self) -> bool {
        self.key.split('.').next() == Some("query")
    }
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

    /// The texts of a list, or the one text; nothing where there is no such key.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        let value = self.get(key).unwrap_or_default();
        let mut texts = Vec::new();
        let mut text: Option<String> = None;
        let mut rest = value.chars();
        while let Some(next) = rest.next() {
            match (next, &mut text) {
                ('"', None) => text = Some(String::new()),
                ('"', Some(_)) => texts.extend(text.take()),
                ('\\', Some(text)) => text.extend(rest.next()),
                (next, Some(text)) => text.push(next),
                (_, None) => {}
            }
        }
        texts
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.lines.retain(|line| line.key != key);
    }

    /// The keys that begin so, with another beginning.
    pub(crate) fn renamed(&self, beginning: &str, to: &str) -> Keys {
        let mut keys = Keys::default();
        for line in &self.lines {
            if let Some(rest) = line.key.strip_prefix(beginning) {
                keys.set(format!("{to}{rest}"), &*line.value, &line.from);
            }
        }
        keys
    }

    /// Puts the texts of all keys below `key` into its one list.
    pub(crate) fn gather(&mut self, key: &str) {
        let beginning = format!("{key}.");
        let (mut texts, mut from): (Vec<String>, Vec<Id>) = Default::default();
        for line in self.lines.iter().filter(|line| line.key.starts_with(&beginning)) {
            texts.push(line.value.clone());
            from.extend(&line.from);
        }
        if !texts.is_empty() {
            self.remove_under(&beginning);
            self.set(key, format!("[{}]", texts.join(", ")), &from);
        }
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

    /// Says all that `other` says of settings of a cache: each of them as a whole.
    pub(crate) fn overlay(&mut self, other: &Keys) {
        if other.get("ttl").is_some() {
            self.remove("ttl_overrides");
            self.remove_table("ttl_by_status");
        }
        for table in ["query", "origin", "browser_ttl"] {
            if other.has_table(table) {
                self.remove_table(table);
            }
        }
        let mut other = other.clone();
        for key in ["request_headers.remove", "response_headers.remove"] {
            // Headers that go, go for each of them.
            let both = [self.texts(key), other.texts(key)].concat();
            if let Some(line) = other.lines.iter_mut().find(|line| line.key == key) {
                line.value = quote_list(&both);
            }
        }
        self.extend(&other);
    }

    /// Those that say when a rule applies.
    fn conditions(&self) -> Keys {
        Keys { lines: self.lines.iter().filter(|line| line.is_condition()).cloned().collect() }
    }

    /// The others.
    fn without_conditions(&self) -> Keys {
        Keys { lines: self.lines.iter().filter(|line| !line.is_condition()).cloned().collect() }
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
    /// Whether it holds for more than what it stands for, as a pattern that has no exact equal does.
    pub(crate) is_wide: bool,
    /// The place whose pattern holds for more, where it is of such a one: all of its rules hold for just the same more.
    pub(crate) wide_place: Option<Id>,
    /// Whether it stands before others that would be tried first.
    pub(crate) is_early: bool,
    /// Whether it keeps somebody out though it is a redirect: it sends away who is not known.
    pub(crate) keeps_out: bool,
}

/// What a rule does with a request that it should not have had, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Openness {
    /// Nobody gets any content: it is refused or sent elsewhere.
    Closed,
    /// The origin is asked each time.
    Passed,
    /// What is stored is for all.
    Shared,
}

impl DraftRule {
    /// A rule that answers nobody. `who` is what did not let anybody through.
    pub(crate) fn refusal(name: &str, keys: Keys, from: Vec<Id>, who: &str) -> DraftRule {
        let mut rule =
            DraftRule { name: format!("{name}-refused"), from: from.clone(), keys, ..DraftRule::default() };
        rule.remarks.push(format!("{who} This origin does not exist, so the answer is 502."));
        rule.remarks.push("Take the rule out once your origin refuses by itself.".into());
        rule.keys.set("origin", quote(REFUSED_ORIGIN), &from);
        rule.keys.set("cache", "false", &[]);
        rule
    }

    pub(crate) fn openness(&self) -> Openness {
        match self.keys.get("cache") {
            _ if self.is_refusal() || self.keys.has_table("redirect") => Openness::Closed,
            Some("false") => Openness::Passed,
            _ => Openness::Shared,
        }
    }

    /// Has it pass by the cache: what says how it is stored goes.
    pub(crate) fn pass(&mut self, from: &[Id]) {
        self.keys.set("cache", "false", from);
        for key in
            ["ttl", "ttl_overrides", "ttl_max", "stale_while_revalidate", "stale_if_error", "set_cookie"]
        {
            self.keys.remove(key);
        }
        for table in ["ttl_by_status", "key", "query", "compress"] {
            self.keys.remove_table(table);
        }
    }

    pub(crate) fn is_refusal(&self) -> bool {
        self.keys.get("origin") == Some(&*quote(REFUSED_ORIGIN))
    }

    /// Whether somebody is kept out by it: other redirects only say where something is.
    pub(crate) fn is_guard(&self) -> bool {
        self.is_refusal() || self.keeps_out
    }

    /// Whether it holds for more than it stands for.
    pub(crate) fn holds_for_more(&self) -> bool {
        self.is_wide || self.wide_place.is_some()
    }

    /// Whether it tells visitors apart as well as another.
    fn separates_as(&self, other: &DraftRule) -> bool {
        let mut lines = other.keys.lines.iter().filter(|line| line.is_separating());
        // Nothing keeps apart more queries than saying nothing of them.
        let of_query = |rule: &DraftRule| Keys {
            lines: rule.keys.lines.iter().filter(|line| line.is_of_query()).cloned().collect(),
        };
        let query = of_query(self);
        lines.all(|line| self.keys.get(&line.key) == Some(&*line.value))
            && (query.lines.is_empty() || query.says_as(&of_query(other)))
    }
}

/// A site.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftSite {
    pub(crate) name: String,
    /// Lines of comment before it.
    pub(crate) remarks: Vec<String>,
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
    /// Whether it is of a rule that keeps somebody out, or passes by the cache: that may hold for more, and must not hold for less.
    is_strict: bool,
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
        if let Some(site) = self.sites.iter().find(|site| site.rules.len() > RULES_MAX) {
            return Err(Broken {
                place: Place { file: name.into(), line: 1, column: 1 },
                message: format!(
                    "{} would have {} rules; a site may have {RULES_MAX}",
                    site.name,
                    site.rules.len()
                ),
                help: "take out what is the same but for its path, or import it in parts".into(),
            });
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
        let mut out = Writer { lines: Vec::new(), part: 0, site: 0, is_strict: false, ledger };
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
            out.remarks(&site.remarks);
            out.head("[[site]]", &site.from);
            site.keys.lines.insert(0, named(&site.name, &mut names));
            out.keys(&site.keys);
            let mut names = BTreeSet::new();
            for rule in &mut site.rules {
                out.remarks(&rule.remarks);
                out.is_strict = rule.keys.get("cache") == Some("false") || rule.is_guard();
                out.head("[[site.rule]]", &rule.from);
                rule.keys.lines.insert(0, named(&rule.name, &mut names));
                out.keys(&rule.keys);
                out.is_strict = false;
            }
        }
        out.lines
    }
}

struct Writer<'a> {
    lines: Vec<Written>,
    part: usize,
    site: usize,
    is_strict: bool,
    ledger: &'a Ledger,
}

impl Writer<'_> {
    fn plain(&self, text: &str) -> Written {
        let (part, site, is_strict) = (self.part, self.site, self.is_strict);
        Written {
            text: text.into(),
            key: String::new(),
            from: Vec::new(),
            part,
            site,
            is_head: false,
            is_strict,
        }
    }

    fn comment(&mut self, text: &str) {
        let line = self.plain(format!("# {}", one_line(text)).trim_end());
        self.lines.push(line);
    }

    /// Begins a site or a rule.
    fn remarks(&mut self, remarks: &[String]) {
        self.lines.push(self.plain(""));
        remarks.iter().for_each(|remark| self.comment(remark));
    }

    fn head(&mut self, title: &str, from: &[Id]) {
        if !title.starts_with("[[site") {
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
    let (part, site) = (lines[index].part, lines[index].site);
    // A rule that refuses or passes holds for more without one of its conditions; without the rule, it would be shared or open.
    let is_condition =
        lines[index].is_strict && !lines[index].is_head && !matches!(&*top, "origin" | "redirect");
    let is_whole = !is_condition
        && (lines[index].is_head || ESSENTIAL.contains(&&*top) || top == "origin" || top == "domains");
    let is_passed = lines.iter().any(|line| line.part == part && line.key == "cache" && !is_left_out(line));
    let is_of_rule = part > 0 && !lines[index].is_strict && site > 0;
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
    if !is_whole && is_of_rule && !is_passed && is_separating(&lines[index].key) {
        let line = &mut lines[index];
        line.text = format!("cache = false  {}", line.text);
        "cache".clone_into(&mut line.key);
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

/// A path, or a pattern of paths, as rules have it: in the spelling in which paths are compared.
pub(crate) fn path_pattern(path: &str) -> String {
    let (mark, path) = match path.strip_prefix(IGNORES_CASE) {
        Some(rest) => (IGNORES_CASE, rest),
        None => ("", path),
    };
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'?' | b'#' | b'"' | 0..=b' ' | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            byte => encoded.push(char::from(byte)),
        }
    }
    let normal = semantics::key::normalise_path(encoded.as_bytes());
    format!("{mark}{}", String::from_utf8_lossy(&normal))
}

/// The path of a pattern of URLs.
pub(crate) fn without_query(pattern: &str) -> &str {
    let begin = if pattern.starts_with(IGNORES_CASE) { IGNORES_CASE.len() } else { 0 };
    pattern[begin..].find('?').map_or(pattern, |query| &pattern[..begin + query])
}

/// Whether two patterns have no text in common, as far as their beginnings and ends tell.
pub(crate) fn are_apart(one: &str, other: &str) -> bool {
    let bare = |text: &str| text.strip_prefix(IGNORES_CASE).unwrap_or(text).to_ascii_lowercase();
    let (one, other) = (bare(one), bare(other));
    let apart = |a: &str, b: &str| {
        let length = a.len().min(b.len());
        a.as_bytes()[..length] != b.as_bytes()[..length]
    };
    let head = |text: &str| text.split('*').next().unwrap_or_default().to_owned();
    let tail = |text: &str| -> String { text.rsplit('*').next().unwrap_or_default().chars().rev().collect() };
    let is_whole = |text: &str| !text.contains('*');
    match (is_whole(&one), is_whole(&other)) {
        (true, true) => one != other,
        (true, false) => !model::glob::Glob::new(&other).matches(one.as_bytes()),
        (false, true) => !model::glob::Glob::new(&one).matches(other.as_bytes()),
        (false, false) => apart(&head(&one), &head(&other)) || apart(&tail(&one), &tail(&other)),
    }
}

/// A pattern for what two patterns have in common, and whether it is just that: else it is for more of the second. Nothing where they are
/// apart.
pub(crate) fn common(one: &str, other: &str) -> Option<(String, bool)> {
    let glob = model::glob::Glob::new;
    if are_apart(one, other) {
        return None;
    }
    if glob(one).covers(&glob(other)) {
        return Some((other.to_owned(), true));
    }
    if glob(other).covers(&glob(one)) {
        return Some((one.to_owned(), true));
    }
    // Of two that differ in whether letter case counts, what both have is not said.
    let is_bare = |text: &str| !text.starts_with(IGNORES_CASE);
    let folded = |text: &str| format!("{IGNORES_CASE}{}", text.strip_prefix(IGNORES_CASE).unwrap_or(text));
    let is_same_kind = is_bare(one) == is_bare(other);
    if !is_same_kind && glob(&folded(one)).covers(&glob(other)) {
        return Some((other.to_owned(), false));
    }
    if !is_same_kind && glob(&folded(other)).covers(&glob(one)) {
        return Some((one.to_owned(), false));
    }
    // A beginning and an end, where no text has them one over the other.
    let ends = |begin: &str, end: &str| -> Option<String> {
        let mark =
            if begin.starts_with(IGNORES_CASE) || end.starts_with(IGNORES_CASE) { IGNORES_CASE } else { "" };
        let bare = |text: &str| text.strip_prefix(IGNORES_CASE).unwrap_or(text).to_owned();
        let (begin, end) = (bare(begin), bare(end));
        let (head, tail) = (begin.strip_suffix('*')?, end.strip_prefix('*')?);
        let last = tail.split('*').next().unwrap_or_default();
        let lies_over = (1..=last.len().min(head.len())).any(|length| {
            head.to_ascii_lowercase().ends_with(last.to_ascii_lowercase().get(..length).unwrap_or_default())
        });
        (!head.contains('*') && !lies_over).then(|| format!("{mark}{head}*{tail}"))
    };
    Some(match ends(one, other).or_else(|| ends(other, one)) {
        Some(both) => (both, is_same_kind),
        None => (other.to_owned(), false),
    })
}

/// Keeps closed what the order of rules would open.
///
/// A rule that is wide, or early, takes requests that a stricter one behind it was for. So a copy of the stricter one comes before it: for all
/// that it is for or, where it is for all that the other is, for just that, so that what stands between keeps its own. First come copies
/// of rules that share what the other would share with more, as passes; then of those that pass; then of those that let nobody through. A copy
/// takes from rules that it has been put before as a wide one does, and those that this may not happen to are stricter, so that they come later.
pub(crate) fn close(rules: &mut Vec<DraftRule>, ledger: &mut Ledger) {
    let place = |(place, rule)| Placed { place, rule, is_copy: false };
    let mut placed: Vec<Placed> = std::mem::take(rules).into_iter().enumerate().map(place).collect();
    for level in [Openness::Shared, Openness::Passed, Openness::Closed] {
        let mut at = 0;
        while at < placed.len() {
            let strict = &placed[at];
            let is_of_level = strict.rule.openness() == level && !strict.is_copy;
            if is_of_level && (level != Openness::Closed || strict.rule.is_guard()) {
                at = copy_before(&mut placed, at, ledger);
            }
            at += 1;
        }
    }
    rules.extend(placed.into_iter().map(|placed| placed.rule));
}

/// A rule, and where it stood before there were copies: those have the place of what they are copies of.
#[derive(Clone)]
struct Placed {
    place: usize,
    rule: DraftRule,
    is_copy: bool,
}

/// Puts copies of the rule at `at` before those that would take from it. Where it stands then.
fn copy_before(placed: &mut Vec<Placed>, at: usize, ledger: &mut Ledger) -> usize {
    const TOLD: &str = "its rule comes before one whose patterns hold for more than its expression: it would be opened, or shared, by that";
    const TOLD_OF_ALL: &str = "its patterns hold for more than its expression, and what is behind it is stricter: a rule before it is that for all of it";
    const REMARK: &str =
        "Before a rule that would take some of it, as its patterns hold for more than what they stand for.";
    let (mut index, mut at) = (0, at);
    while index < at {
        if !takes_from(placed, index, at) {
            index += 1;
            continue;
        }
        let (strict, wide) = (placed[at].clone(), &placed[index].rule);
        // The stars of a redirect's target are those of its own path.
        let is_whole = covers(&strict.rule, wide)
            && !strict.rule.keys.has_table("redirect")
            && placed.len() < NARROW_COPIES_UP_TO;
        let mut copy = match (is_whole, strict.rule.openness()) {
            (false, _) => strict.rule.clone(),
            // What it says goes for all of the wide one, and it is nearer to what that says.
            (true, Openness::Shared | Openness::Passed) => {
                DraftRule { name: format!("{}-past-the-cache", wide.name), ..wide.clone() }
            }
            (true, Openness::Closed) => {
                let mut keys = wide.keys.conditions();
                keys.extend(&strict.rule.keys.without_conditions());
                DraftRule { keys, ..strict.rule.clone() }
            }
        };
        if strict.rule.openness() > Openness::Closed {
            copy.pass(&strict.rule.from);
        }
        copy.remarks.push(REMARK.into());
        copy.is_wide = strict.rule.is_wide;
        copy.wide_place = strict.rule.wide_place;
        // What would be tried before an early one, would be so before what comes before that.
        copy.is_early = placed[index..=at].iter().any(|behind| behind.rule.is_early);
        strict.rule.from.iter().for_each(|id| ledger.not_mapped(*id, TOLD));
        if is_whole {
            wide.from.iter().for_each(|id| ledger.not_mapped(*id, TOLD_OF_ALL));
        }
        placed.insert(index, Placed { place: strict.place, rule: copy, is_copy: true });
        at += 1;
        if !is_whole {
            break;
        }
        index += 2;
    }
    at
}

/// Whether the rule at `index` may take a request that the stricter one at `at` was for, and be more open to it.
fn takes_from(placed: &[Placed], index: usize, at: usize) -> bool {
    let (before, strict) = (&placed[index], &placed[at]);
    let is_misplaced = before.rule.is_early || before.place > strict.place;
    let is_more_open = match (before.rule.openness(), strict.rule.openness()) {
        (Openness::Shared, Openness::Shared) => !before.rule.separates_as(&strict.rule),
        (before, strict) => before > strict,
    };
    if !(is_misplaced || before.rule.holds_for_more())
        || !is_more_open
        || !may_meet(&before.rule, &strict.rule)
    {
        return false;
    }
    // Who has cookies is passed because of them; where they are taken away, there is no need.
    let is_bare = strict.rule.openness() == Openness::Passed
        && strict.rule.keys.get("with_header.Cookie") == Some("true")
        && before.rule.keys.get("request_cookies") == Some(&*quote("none"));
    let is_dead = || placed[..index].iter().any(|first| covers(&first.rule, &before.rule));
    // What came before the stricter one has taken all that both are for: it holds for just that, or for as much more as the stricter one, and
    // no early rule has kept it from that.
    let is_kept = |first: &Placed| {
        let mut early = placed.iter().filter(|one| one.rule.is_early && one.place <= first.place);
        early.any(|early| may_meet(&early.rule, &first.rule))
    };
    let is_caught = || {
        placed.iter().any(|first| {
            let is_as_it_was = !first.is_copy && first.place < strict.place;
            let is_sure = !first.rule.holds_for_more()
                || (!first.rule.is_wide && first.rule.wide_place == strict.rule.wide_place);
            is_as_it_was && is_sure && covers_both(&first.rule, &before.rule, &strict.rule) && !is_kept(first)
        })
    };
    !is_bare && !is_dead() && !is_caught()
}

/// Keeps paths in other spellings as closed as those that `reader` read them as: refused where a rule keeps somebody out of some, not stored
/// where one passes some.
pub(crate) fn close_spellings(rules: &mut Vec<DraftRule>, spellings: &[&str], reader: &str) {
    let Some(first) = rules.iter().position(|rule| rule.openness() > Openness::Closed) else { return };
    let has_path = |rule: &DraftRule| rule.keys.get("path").is_some();
    let is_guarded = rules.iter().any(|rule| rule.is_guard() && has_path(rule));
    let is_passed = rules.iter().any(|rule| rule.openness() == Openness::Passed && has_path(rule))
        && rules.iter().any(|rule| rule.openness() == Openness::Shared);
    let mut keys = Keys::default();
    keys.set("path", quote_list(spellings), &[]);
    let name = "other-spellings";
    let remark = |what: &str| {
        format!(
            "In another spelling, these paths would pass by the rules that {what}; {reader} reads them as one."
        )
    };
    // A pass for all of them would open what is guarded behind it.
    if is_guarded || (is_passed && rules[first..].iter().any(DraftRule::is_guard)) {
        rules.insert(0, DraftRule::refusal(name, keys, Vec::new(), &remark("refuse")));
    } else if is_passed {
        keys.set("cache", "false", &[]);
        let remarks = vec![remark("do not store")];
        rules.insert(first, DraftRule { name: name.into(), remarks, keys, ..DraftRule::default() });
    }
}

/// Takes out rules that say what the one behind them says, for no more.
pub(crate) fn simplify(rules: &mut Vec<DraftRule>) {
    for at in (1..rules.len()).rev() {
        let (before, rule) = (&rules[at - 1], &rules[at]);
        let said = |rule: &DraftRule| rule.keys.without_conditions();
        if covers(rule, before) && said(rule).says_as(&said(before)) {
            rules.remove(at - 1);
        }
    }
}

/// Whether one is for all requests that the other is for.
fn covers(one: &DraftRule, other: &DraftRule) -> bool {
    covers_both(one, other, other)
}

/// Whether one is for all requests that two others are both for.
fn covers_both(one: &DraftRule, other: &DraftRule, another: &DraftRule) -> bool {
    let glob = model::glob::Glob::new;
    let lists = ["path", "hosts", "scheme", "methods"].iter().all(|key| {
        let mine = one.keys.texts(key);
        let is_mine = |their: &String| mine.iter().any(|my| glob(my).covers(&glob(their)));
        let holds = |theirs: &[String]| !theirs.is_empty() && theirs.iter().all(is_mine);
        mine.is_empty() || holds(&other.keys.texts(key)) || holds(&another.keys.texts(key))
    });
    let mut fields = one.keys.lines.iter().filter(|line| line.key.starts_with("with_"));
    let is_said =
        |line: &Line| [other, another].iter().any(|rule| rule.keys.get(&line.key) == Some(&*line.value));
    lists && fields.all(is_said)
}

/// Whether there may be a request that both are for.
fn may_meet(one: &DraftRule, other: &DraftRule) -> bool {
    let lists = ["path", "hosts", "scheme"].iter().all(|key| {
        let (mine, theirs) = (one.keys.texts(key), other.keys.texts(key));
        mine.is_empty()
            || theirs.is_empty()
            || mine.iter().any(|my| theirs.iter().any(|their| !are_apart(my, their)))
    });
    let (mine, theirs) = (one.keys.texts("methods"), other.keys.texts("methods"));
    // A rule for GET is for HEAD too.
    let is_get = |method: &String| matches!(&**method, "GET" | "HEAD");
    let is_theirs =
        |method: &String| theirs.contains(method) || (is_get(method) && theirs.iter().any(is_get));
    let methods = mine.is_empty() || theirs.is_empty() || mine.iter().any(is_theirs);
    // One asks that there is none of what the other asks for.
    let fields = one.keys.lines.iter().filter(|line| line.key.starts_with("with_")).all(|line| {
        other.keys.get(&line.key).is_none_or(|value| (value == "false") == (line.value == "false"))
    });
    lists && methods && fields
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

#[cfg(test)]
mod tests;
