//! What is wrong in a configuration, and where: one value per finding, and its text for people.
//!
//! Text form, as printed by `perigee check`; the caret line is under the value that is meant:
//!
//! ```text
//! error: "5 parsecs" is not a duration
//!   --> perigee.toml:12:7
//!    |
//! 12 | ttl = "5 parsecs"
//!    |       ^^^^^^^^^^^
//!    = write e.g. "90s"
//! ```

use std::fmt;
use std::ops::Range;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but probably does not say what was meant.
    Warning,
}

impl Severity {
    /// The word in front of the message.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// What is wrong with a value that an API was given, in words that stand behind its name: `url is not an absolute URL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub error: &'static str,
    /// What was wanted.
    pub wanted: &'static str,
    /// What to do.
    pub next: &'static str,
}

/// Where the lines of a text begin, so that a line number costs no walk through the text.
#[derive(Clone, Debug)]
pub struct Lines {
    newlines: Vec<usize>,
}

impl Lines {
    /// The lines of `text`; one walk through it.
    pub fn of(text: &str) -> Lines {
        Lines { newlines: text.match_indices('\n').map(|(index, _)| index).collect() }
    }

    /// The line that holds the byte at `index`, from 1.
    pub fn line_of(&self, index: usize) -> u32 {
        self.newlines.partition_point(|newline| *newline < index) as u32 + 1
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Name of the text, as given to `Snapshot::parse`; usually the file's path.
    pub source: String,
    /// Line in the text, from 1.
    pub line: u32,
    /// Column in the line, in characters, from 1.
    pub column: u32,
    /// Bytes of the text that are meant.
    pub span: Range<usize>,
    /// The text that was found there, at most one line of it.
    pub found: String,
    /// What is wrong: a sentence without a full stop that names the value found.
    pub message: String,
    /// What to write instead, or the next step; empty when the message says it all.
    pub help: String,
    /// The whole line of the text, without its end.
    pub line_text: String,
}

impl Diagnostic {
    /// A finding at `span` of `text`, whose lines are `lines`. A span beyond the text is cut to it.
    pub fn at(
        severity: Severity,
        source: &str,
        text: &str,
        lines: &Lines,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Diagnostic {
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let column = text[line_start..start].chars().count() + 1;
        Diagnostic {
            severity,
            source: source.to_owned(),
            line: lines.line_of(start),
            column: column as u32,
            span: start..end,
            found: text[start..end.min(line_end)].to_owned(),
            message: message.into(),
            help: help.into(),
            line_text: text[line_start..line_end].trim_end_matches('\r').to_owned(),
        }
    }

    /// Whether the configuration cannot be used because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "{}: {}", self.severity.as_str(), self.message)?;
        writeln!(f, "{margin}--> {}:{}:{}", self.source, self.line, self.column)?;
        // Tabs are shown as one space each, so that the caret stands under its value; other control characters
        // must not reach a terminal.
        let shown: String = self.line_text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {shown}")?;
        let indent = " ".repeat(self.column.saturating_sub(1) as usize);
        let carets = "^".repeat(self.found.trim_end().chars().count().max(1));
        writeln!(f, "{margin} | {indent}{carets}")?;
        if !self.help.is_empty() {
            writeln!(f, "{margin} = {}", self.help)?;
        }
        Ok(())
    }
}

/// The candidate that `found` was probably meant to be: at most a third of its letters differ.
pub fn did_you_mean<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (found.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(&found.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A mistaken value as a refusal shows it: quoted, and of its characters the first 200.
pub fn shown(found: &str) -> String {
    format!("{:?}", found.chars().take(200).collect::<String>())
}

/// The first five names, and how many more there are: for a refusal of one that is not among them.
pub fn few<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let first: Vec<&str> = names.by_ref().take(SHOWN).collect();
    match names.count() {
        0 => first.join(" or "),
        more => format!("{} or one of {more} more", first.join(", ")),
    }
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour to get from `a` to `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    /// Longer texts are no typing errors of a key; bounds the quadratic cost.
    const CHARS_MAX: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > CHARS_MAX {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let mut least = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(rows[i - 2][j - 2] + 1);
                    }
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_a_few_of_what_there_is() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(few(names.into_iter().take(2)), "a or b");
        assert_eq!(few(names.into_iter()), "a, b, c, d, e or one of 2 more");
    }
}
