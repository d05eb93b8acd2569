//! When a rule applies, while rules are put together: conditions that hold together, cover each other, or never meet.
//!
//! Called for VCL and Cloudflare, whose statements all apply to whoever their conditions hold for; of rules here the first that matches
//! decides alone.

use crate::draft::{Keys, common, quote, quote_list};
use crate::ledger::Id;

/// What must hold, all together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) paths: Vec<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) methods: Vec<String>,
    pub(crate) scheme: Option<&'static str>,
    /// Other keys of a rule, with their values: of headers.
    pub(crate) lines: Vec<(String, String)>,
    /// Whether it says what the program does, as far as anybody would mind.
    pub(crate) is_exact: bool,
    /// Whether it holds for more.
    pub(crate) is_wide: bool,
}

impl Default for Condition {
    fn default() -> Condition {
        Condition {
            paths: Vec::new(),
            hosts: Vec::new(),
            methods: Vec::new(),
            scheme: None,
            lines: Vec::new(),
            is_exact: true,
            is_wide: false,
        }
    }
}

impl Condition {
    pub(crate) fn keys(&self, from: &[Id]) -> Keys {
        let mut keys = Keys::default();
        for (key, values) in [("path", &self.paths), ("hosts", &self.hosts), ("methods", &self.methods)] {
            if !values.is_empty() {
                keys.set(key, quote_list(values), from);
            }
        }
        if let Some(scheme) = self.scheme {
            keys.set("scheme", quote(scheme), from);
        }
        self.lines.iter().for_each(|(key, value)| keys.set(key, value, from));
        keys
    }

    pub(crate) fn name(&self) -> String {
        let first =
            [&self.paths, &self.hosts, &self.methods].into_iter().find_map(|list| list.first()).cloned();
        first.or_else(|| self.lines.first().map(|(key, _)| key.clone())).unwrap_or_else(|| "rest".into())
    }

    /// Whether it holds for every request.
    pub(crate) fn is_always(&self) -> bool {
        let lists = [&self.paths, &self.hosts, &self.methods];
        lists.iter().all(|list| list.is_empty()) && self.scheme.is_none() && self.lines.is_empty()
    }

    /// Whether it holds whenever `other` does.
    pub(crate) fn covers(&self, other: &Condition) -> bool {
        let lists = |mine: &[String], theirs: &[String]| {
            let glob = model::glob::Glob::new;
            mine.is_empty()
                || (!theirs.is_empty()
                    && theirs.iter().all(|their| mine.iter().any(|my| glob(my).covers(&glob(their)))))
        };
        lists(&self.paths, &other.paths)
            && lists(&self.hosts, &other.hosts)
            && lists(&self.methods, &other.methods)
            && (self.scheme.is_none() || self.scheme == other.scheme)
            && self.lines.iter().all(|line| other.lines.contains(line))
    }

    /// Both together; nothing where they never hold for the same request. Where that cannot be said, it is for more.
    pub(crate) fn and(&self, other: &Condition) -> Option<Condition> {
        let is_exact = self.is_exact && other.is_exact;
        let mut is_wide = self.is_wide || other.is_wide;
        let mut both = |one: &[String], other: &[String]| -> Option<Vec<String>> {
            match (one, other) {
                ([], only) | (only, []) => Some(only.to_vec()),
                (one, other) => {
                    let mut shared: Vec<String> = Vec::new();
                    for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                        if let Some((pattern, is_said)) = common(a, b) {
                            is_wide |= !is_said;
                            if !shared.contains(&pattern) {
                                shared.push(pattern);
                            }
                        }
                    }
                    (!shared.is_empty()).then_some(shared)
                }
            }
        };
        let (paths, hosts) = (both(&self.paths, &other.paths)?, both(&self.hosts, &other.hosts)?);
        let methods: Vec<String> = match (&self.methods[..], &other.methods[..]) {
            ([], only) | (only, []) => only.to_vec(),
            (one, other) => one.iter().filter(|method| other.contains(method)).cloned().collect(),
        };
        if methods.is_empty() && !(self.methods.is_empty() && other.methods.is_empty()) {
            return None;
        }
        let scheme = match (self.scheme, other.scheme) {
            (Some(one), Some(other)) if one != other => return None,
            (one, other) => one.or(other),
        };
        let mut lines = self.lines.clone();
        for (key, value) in &other.lines {
            let Some((_, known)) = lines.iter_mut().find(|(known, _)| known == key) else {
                lines.push((key.clone(), value.clone()));
                continue;
            };
            match (&**known, &**value) {
                (one, other) if one == other => {}
                ("false", _) | (_, "false") => return None,
                (_, "true") => {}
                ("true", _) => known.clone_from(value),
                // A field may have several lines, so that both hold.
                _ => {
                    is_wide = true;
                    known.clone_from(value);
                }
            }
        }
        Some(Condition { paths, hosts, methods, scheme, lines, is_exact, is_wide })
    }
}
