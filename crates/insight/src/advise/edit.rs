//! Changes to the text of a configuration: one key of a site, of a rule or of `[store]`, or a new rule. Comments and order stay.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One change; lines are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    place: Place,
    /// Keys and values, as they stand in the file.
    keys: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Behind the header in this line.
    Section { line: usize, what: String },
    /// A new rule at the end of the site that begins in this line.
    NewRule { site_line: usize, site: String, paths: Vec<String> },
    /// `[store]`, wherever it is.
    Store,
}

impl Edit {
    /// Sets a key of the section whose header is in `line`; `what` is what people call it.
    pub(super) fn section(line: u32, what: impl Into<String>, key: &str, value: String) -> Edit {
        let place = Place::Section { line: line as usize, what: what.into() };
        Edit { place, keys: vec![(key.to_owned(), value)] }
    }

    /// A new last rule of a site for these paths.
    pub(super) fn new_rule(site_line: u32, site: &str, paths: &[String], key: &str, value: String) -> Edit {
        let place =
            Place::NewRule { site_line: site_line as usize, site: site.to_owned(), paths: paths.to_vec() };
        Edit { place, keys: vec![(key.to_owned(), value)] }
    }

    /// Sets a key of `[store]`.
    pub(super) fn store(key: &str, value: String) -> Edit {
        Edit { place: Place::Store, keys: vec![(key.to_owned(), value)] }
    }

    /// Both at once, where they are in the same place.
    pub(super) fn with(&self, other: &Edit) -> Option<Edit> {
        let differ = self.keys.iter().all(|(key, _)| other.keys.iter().all(|(name, _)| key != name));
        let keys = self.keys.iter().chain(&other.keys).cloned().collect();
        (self.place == other.place && differ).then(|| Edit { place: self.place.clone(), keys })
    }

    /// The text with the change. Where the place is not what it was, the text as it is.
    pub fn apply(&self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let Some((headers, store)) = headers(text) else { return text.to_owned() };
        match &self.place {
            Place::Section { line, .. } => {
                let Some(header) = line.checked_sub(1).filter(|at| headers.contains(at)) else {
                    return text.to_owned();
                };
                self.set_keys(&mut lines, &headers, header);
            }
            Place::Store => match store {
                Some(header) => self.set_keys(&mut lines, &headers, header),
                None => {
                    let rows = self.keys.iter().map(|(key, value)| format!("{key} = {value}"));
                    let section = ["[store]".to_owned()].into_iter().chain(rows).chain([String::new()]);
                    let first = headers.first().copied().unwrap_or(lines.len());
                    lines.splice(first..first, section);
                }
            },
            Place::NewRule { site_line, .. } => {
                let Some(header) = site_line.checked_sub(1).filter(|at| headers.contains(at)) else {
                    return text.to_owned();
                };
                // A site ends where a section begins that is not below it.
                let is_other = |at: &&usize| {
                    let line: String = lines[**at].split_whitespace().collect();
                    **at > header && !line.starts_with("[[site.") && !line.starts_with("[site.")
                };
                let end = headers.iter().find(is_other).copied().unwrap_or(lines.len());
                let rule = self.lines();
                lines.splice(end..end, [String::new()].into_iter().chain(rule.lines().map(str::to_owned)));
            }
        }
        lines.join("\n") + "\n"
    }

    fn set_keys(&self, lines: &mut Vec<String>, headers: &[usize], header: usize) {
        let next = headers.iter().find(|at| **at > header);
        let mut end = next.copied().unwrap_or(lines.len());
        for (key, value) in &self.keys {
            let is_it = |line: &String| {
                line.split_once('=').is_some_and(|(name, _)| name.trim().trim_matches('"') == key)
            };
            let row = format!("{key} = {value}");
            match (header + 1..end).find(|at| is_it(&lines[*at])) {
                Some(at) => {
                    // A value may go on over several lines, as long as a bracket is open.
                    let mut last = at;
                    while last + 1 < end && depth(&lines[at..=last]) > 0 {
                        last += 1;
                    }
                    lines.splice(at..=last, [row]);
                    end -= last - at;
                }
                None => {
                    lines.insert(header + 1, row);
                    end += 1;
                }
            }
        }
    }

    /// The lines that are new.
    pub fn lines(&self) -> String {
        let rows: Vec<String> = self.keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        match &self.place {
            Place::NewRule { paths, .. } => {
                let paths: Vec<String> = paths.iter().map(|path| format!("\"{path}\"")).collect();
                format!("[[site.rule]]\npath = [{}]\n{}", paths.join(", "), rows.join("\n"))
            }
            Place::Store => format!("[store]\n{}", rows.join("\n")),
            Place::Section { .. } => rows.join("\n"),
        }
    }

    pub(super) fn apply_words(&self) -> String {
        match &self.place {
            Place::Section { what, line } => format!("in {what} (line {line})"),
            Place::NewRule { site, .. } => format!("as the last rule of site {site}"),
            Place::Store => "in [store]; memory changes with the next reload".to_owned(),
        }
    }

    pub(super) fn undo_words(&self) -> String {
        match &self.place {
            Place::NewRule { .. } => "take the rule out again".to_owned(),
            Place::Section { .. } | Place::Store => {
                "put the line back to what it was, or take it out".to_owned()
            }
        }
    }
}

/// In which lines, from 0, sections begin, in order, and the one of `[store]`; nothing of what is no TOML.
fn headers(text: &str) -> Option<(Vec<usize>, Option<usize>)> {
    let root = DeTable::parse(text).ok()?;
    let header = |value: &Spanned<DeValue<'_>>| {
        let start = value.span().start;
        text[start..].starts_with('[').then(|| text[..start].matches('\n').count())
    };
    let (mut headers, mut values) = (Vec::new(), root.get_ref().values().collect::<Vec<_>>());
    while let Some(value) = values.pop() {
        match value.get_ref() {
            // The others are inline, or begin with a section further down.
            DeValue::Table(table) => {
                headers.extend(header(value));
                values.extend(table.values());
            }
            DeValue::Array(all) => values.extend(all.iter()),
            _ => {}
        }
    }
    headers.sort_unstable();
    Some((headers, root.get_ref().get("store").and_then(header)))
}

/// How many brackets are open at the end; those within strings count too, which no value here has.
fn depth(lines: &[String]) -> i32 {
    let bytes = lines.iter().flat_map(|line| line.bytes());
    bytes.fold(0, |depth, byte| match byte {
        b'[' | b'{' => depth + 1,
        b']' | b'}' => depth - 1,
        _ => depth,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[edge]\n\n[[site]]\nname = \"a\"\nquery = { drop = [\n  \"x\",\n] }\n# why\n[[site.rule]]\nttl = \"1m\"\n\n[[site]]\nname = \"b\"\n";

    #[test]
    fn a_key_is_set_where_it_belongs_and_the_rest_stays() {
        let edit = Edit::section(9, "rule 1", "ttl", "\"1d\"".into());
        assert_eq!(edit.apply(TEXT), TEXT.replace("\"1m\"", "\"1d\""));
        let edit = Edit::section(3, "site a", "query", "\"ignore\"".into());
        assert_eq!(edit.apply(TEXT), TEXT.replace("{ drop = [\n  \"x\",\n] }", "\"ignore\""));
        let edit = Edit::section(9, "rule 1", "set_cookie", "\"strip\"".into());
        assert_eq!(edit.apply(TEXT), TEXT.replace("ttl =", "set_cookie = \"strip\"\nttl ="));
        let edit = Edit::store("memory", "\"1GiB\"".into());
        assert_eq!(edit.apply(TEXT), format!("[store]\nmemory = \"1GiB\"\n\n{TEXT}"));
        assert_eq!(Edit::section(2, "nothing", "a", "1".into()).apply(TEXT), TEXT);
    }

    #[test]
    fn sections_are_told_from_lines_of_arrays_whatever_is_written_beside_them() {
        let edit = Edit::store("memory", "\"1GiB\"".into());
        for header in ["[store] # on tmpfs", "[ store ]", "[store]"] {
            let text = format!("{header}\nmemory = \"1MiB\"\n\n{TEXT}");
            assert_eq!(edit.apply(&text), text.replace("1MiB", "1GiB"), "{header}");
        }
        let text = "[[pop]]\nlocation = [\n  [50.1, 8.6],\n]\nname = \"x\"\n";
        let named = Edit::section(1, "pop x", "name", "\"y\"".into());
        assert_eq!(named.apply(text), text.replace("\"x\"", "\"y\""));
        assert_eq!(Edit::section(3, "nothing", "a", "1".into()).apply(text), text);
        let stored = edit.apply(&format!("node = [\n[1]\n]\n{text}"));
        assert_eq!(stored, format!("node = [\n[1]\n]\n[store]\nmemory = \"1GiB\"\n\n{text}"));
    }

    #[test]
    fn a_new_rule_comes_last_in_its_site() {
        let edit = Edit::new_rule(3, "a", &["/*.css".into()], "ttl", "\"1d\"".into());
        let rule = "\n[[site.rule]]\npath = [\"/*.css\"]\nttl = \"1d\"\n";
        assert_eq!(
            edit.apply(TEXT),
            TEXT.replace("\n[[site]]\nname = \"b\"", &format!("\n{rule}[[site]]\nname = \"b\""))
        );
        let both = edit.with(&Edit::new_rule(3, "a", &["/*.css".into()], "set_cookie", "\"strip\"".into()));
        assert!(both.unwrap().apply(TEXT).contains("ttl = \"1d\"\nset_cookie = \"strip\"\n[[site]]"));
    }
}
