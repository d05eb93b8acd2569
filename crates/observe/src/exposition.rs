//! Writes Prometheus' text exposition format 0.0.4: one `# HELP` and one `# TYPE` line per family, then its samples.
//! Knows nothing of what is counted.

use std::fmt::Write;

use crate::catalogue::{Family, Kind};
use crate::histogram::{Merged, SHOWN};

/// The text so far.
pub(crate) struct Exposition {
    text: String,
    family: Option<&'static Family>,
}

impl Exposition {
    pub(crate) fn new() -> Self {
        Exposition { text: String::with_capacity(32 * 1024), family: None }
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// One sample of a counter or gauge.
    pub(crate) fn sample(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        debug_assert_ne!(family.kind, Kind::Histogram, "{}", family.name);
        self.begin(family);
        self.series(family, "", labels, None);
        self.text.push(' ');
        self.number(value);
        self.text.push('\n');
    }

    /// A gauge of milliseconds, shown in seconds.
    pub(crate) fn seconds(&mut self, family: &'static Family, labels: &[&str], ms: u64) {
        self.begin(family);
        self.series(family, "", labels, None);
        let _ = writeln!(self.text, " {}.{:03}", ms / 1000, ms % 1000);
    }

    /// All lines of one histogram series, in seconds.
    pub(crate) fn histogram(&mut self, family: &'static Family, labels: &[&str], merged: &Merged) {
        debug_assert_eq!(family.kind, Kind::Histogram, "{}", family.name);
        self.begin(family);
        for power in SHOWN {
            let us = 1u64 << power;
            let bound = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
            self.bucket(family, labels, bound.trim_end_matches('0'), merged.count_up_to_power(power));
        }
        self.bucket(family, labels, "+Inf", merged.count());
        self.series(family, "_sum", labels, None);
        let _ = writeln!(self.text, " {}.{:06}", merged.sum_us / 1_000_000, merged.sum_us % 1_000_000);
        self.series(family, "_count", labels, None);
        self.text.push(' ');
        self.number(merged.count());
        self.text.push('\n');
    }

    fn bucket(&mut self, family: &'static Family, labels: &[&str], bound: &str, count: u64) {
        self.series(family, "_bucket", labels, Some(bound));
        self.text.push(' ');
        self.number(count);
        self.text.push('\n');
    }

    fn begin(&mut self, family: &'static Family) {
        if self.family.is_some_and(|current| std::ptr::eq(current, family)) {
            return;
        }
        self.family = Some(family);
        let _ = write!(self.text, "# HELP {} ", family.name);
        for char in family.help.chars() {
            match char {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
        let _ = writeln!(self.text, "\n# TYPE {} {}", family.name, family.kind.as_str());
    }

    fn series(&mut self, family: &Family, suffix: &str, labels: &[&str], bound: Option<&str>) {
        assert_eq!(family.labels.len(), labels.len(), "{} takes a value for each label", family.name);
        self.text.push_str(family.name);
        self.text.push_str(suffix);
        let pairs = family.labels.iter().copied().zip(labels.iter().copied());
        let mut separator = '{';
        for (name, value) in pairs.chain(bound.map(|bound| ("le", bound))) {
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            for char in value.chars() {
                match char {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
    }

    fn number(&mut self, value: u64) {
        let _ = write!(self.text, "{value}");
    }
}
