//! Conditions of VCL, as conditions of a rule: a list of which one has to hold.
//!
//! Read: `&&`, `||`, parentheses; `==`, `~` and a name alone, for URL, method, host and other request headers, and `bereq` alike. `!=` and
//! `!~` for methods alone, `!` for a header that is absent. Not read: addresses, statuses, restarts, what the response says.

use super::Token;
use crate::draft::{Keys, dotted, quote, quote_list};
use crate::ledger::Id;
use crate::pattern::patterns;

/// Ways in which a condition may hold, at most.
const WAYS_MAX: usize = 64;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What must hold, all together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    paths: Vec<String>,
    hosts: Vec<String>,
    methods: Vec<String>,
    lines: Vec<(String, String)>,
    pub(super) is_exact: bool,
}

impl Default for Condition {
    fn default() -> Condition {
        Condition {
            paths: Vec::new(),
            hosts: Vec::new(),
            methods: Vec::new(),
            lines: Vec::new(),
            is_exact: true,
        }
    }
}

impl Condition {
    /// Whether it holds for every request.
    pub(super) fn is_always(&self) -> bool {
        self.paths.is_empty() && self.hosts.is_empty() && self.methods.is_empty() && self.lines.is_empty()
    }

    pub(super) fn keys(&self, from: &[Id]) -> Keys {
        let mut keys = Keys::default();
        for (key, values) in [("path", &self.paths), ("hosts", &self.hosts), ("methods", &self.methods)] {
            if !values.is_empty() {
                keys.set(key, quote_list(values), from);
            }
        }
        self.lines.iter().for_each(|(key, value)| keys.set(key, value, from));
        keys
    }

    pub(super) fn name(&self) -> String {
        let first =
            [&self.paths, &self.hosts, &self.methods].into_iter().find_map(|list| list.first()).cloned();
        first.or_else(|| self.lines.first().map(|(key, _)| key.clone())).unwrap_or_else(|| "rest".into())
    }

    /// Whether it holds whenever `other` does.
    pub(super) fn covers(&self, other: &Condition) -> bool {
        let lists = |mine: &[String], theirs: &[String]| {
            let glob = model::glob::Glob::new;
            mine.is_empty()
                || (!theirs.is_empty()
                    && theirs.iter().all(|their| mine.iter().any(|my| glob(my).covers(&glob(their)))))
        };
        lists(&self.paths, &other.paths)
            && lists(&self.hosts, &other.hosts)
            && lists(&self.methods, &other.methods)
            && self.lines.iter().all(|line| other.lines.contains(line))
    }

    /// Both together, where that can be said.
    pub(super) fn and(&self, other: &Condition) -> Option<Condition> {
        let both = |one: &[String], other: &[String]| -> Option<Vec<String>> {
            match (one, other) {
                ([], only) | (only, []) => Some(only.to_vec()),
                (one, other) => {
                    let glob = model::glob::Glob::new;
                    let mut common = Vec::new();
                    for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                        if glob(a).covers(&glob(b)) {
                            common.push(b.clone());
                        } else if glob(b).covers(&glob(a)) {
                            common.push(a.clone());
                        }
                    }
                    common.dedup();
                    (!common.is_empty()).then_some(common)
                }
            }
        };
        let mut lines = self.lines.clone();
        for (key, value) in &other.lines {
            match lines.iter().find(|(known, _)| known == key) {
                Some((_, known)) if known == value => {}
                Some(_) => return None,
                None => lines.push((key.clone(), value.clone())),
            }
        }
        Some(Condition {
            paths: both(&self.paths, &other.paths)?,
            hosts: both(&self.hosts, &other.hosts)?,
            methods: both(&self.methods, &other.methods)?,
            lines,
            is_exact: self.is_exact && other.is_exact,
        })
    }
}

/// Reads what stands in the parentheses. The error is a part of a sentence.
pub(super) fn read(tokens: &[Token]) -> Result<Vec<Condition>, String> {
    let mut reader = Reader { tokens, at: 0, depth: 0 };
    let ways = reader.any()?;
    match reader.tokens.get(reader.at) {
        None => Ok(ways),
        Some(token) => Err(format!("{:?} is not understood there", token.text())),
    }
}

struct Reader<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn take(&mut self, sign: &str) -> bool {
        let is_there = self.tokens.get(self.at).is_some_and(|token| token.is(sign));
        self.at += usize::from(is_there);
        is_there
    }

    fn any(&mut self) -> Result<Vec<Condition>, String> {
        const DEPTH_MAX: usize = 16;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("its parentheses lie too deep".into());
        }
        let mut ways = self.all()?;
        while self.take("||") {
            ways.extend(self.all()?);
            if ways.len() > WAYS_MAX {
                return Err(format!("there are more than {WAYS_MAX} ways in which it holds"));
            }
        }
        self.depth -= 1;
        Ok(ways)
    }

    fn all(&mut self) -> Result<Vec<Condition>, String> {
        let mut ways = self.one()?;
        while self.take("&&") {
            let more = self.one()?;
            if ways.len() * more.len() > WAYS_MAX {
                return Err(format!("there are more than {WAYS_MAX} ways in which it holds"));
            }
            let mut both = Vec::new();
            for (one, other) in ways.iter().flat_map(|one| more.iter().map(move |other| (one, other))) {
                both.push(one.and(other).ok_or("two conditions on the same thing have no common pattern")?);
            }
            ways = both;
        }
        Ok(ways)
    }

    fn one(&mut self) -> Result<Vec<Condition>, String> {
        if self.take("(") {
            let ways = self.any()?;
            return if self.take(")") { Ok(ways) } else { Err("a parenthesis is not closed".into()) };
        }
        let is_not = self.take("!");
        let Some(Token::Word(name)) = self.tokens.get(self.at) else {
            return Err("it is not understood".into());
        };
        self.at += 1;
        let operator = ["==", "~", "!=", "!~", "<", ">", "<=", ">="].into_iter().find(|sign| self.take(sign));
        let Some(operator) = operator else {
            return match name.split_once(".http.") {
                Some(("req" | "bereq", header)) => {
                    let line = (dotted("with_header", header), (!is_not).to_string());
                    Ok(vec![Condition { lines: vec![line], ..Condition::default() }])
                }
                _ => Err(format!("rules have no condition on {name}")),
            };
        };
        if is_not {
            return Err("\"!\" has no word in rules: write the cases that are meant".into());
        }
        let mut text = String::new();
        match self.tokens.get(self.at) {
            Some(Token::Text(found) | Token::Word(found)) => text.push_str(found),
            _ => return Err(format!("what {name} is compared with is not understood")),
        }
        self.at += 1;
        // Texts that stand side by side are one.
        while let Some(Token::Text(more)) = self.tokens.get(self.at) {
            text.push_str(more);
            self.at += 1;
        }
        compare(name, operator, &text)
    }
}

fn compare(name: &str, operator: &str, text: &str) -> Result<Vec<Condition>, String> {
    let (globs, is_exact) = match operator {
        "==" | "!=" => (vec![text.to_owned()], true),
        "~" | "!~" => {
            let found = patterns(text, false)
                .ok_or_else(|| format!("{text:?} cannot be said by patterns with \"*\""))?;
            (found.globs, found.is_exact)
        }
        _ => return Err(format!("rules do not know what is {operator} something")),
    };
    let is_not = operator.starts_with('!');
    let lower = name.to_ascii_lowercase();
    let no_not = || match is_not {
        true => Err(format!("{operator} on {name} has no word in rules: write the cases that are meant")),
        false => Ok(()),
    };
    match &*lower {
        "req.method" | "req.request" | "bereq.method" => {
            let holds = |method: &&&str| {
                globs.iter().any(|glob| model::glob::Glob::new(glob).matches(method.as_bytes()))
            };
            let methods: Vec<String> = METHODS
                .iter()
                .filter(|method| holds(method) != is_not)
                .map(|method| (*method).to_owned())
                .collect();
            match methods.is_empty() {
                true => Err(format!("{text:?} is no method that visitors use")),
                false => Ok(vec![Condition { methods, is_exact, ..Condition::default() }]),
            }
        }
        "req.url" | "bereq.url" => {
            no_not()?;
            let paths: Vec<String> =
                globs.iter().map(|glob| glob.split('?').next().unwrap_or_default().to_owned()).collect();
            // The query is part of a URL there, so an end there is no end of a path; those that say both come out once.
            let is_exact = is_exact && paths == globs;
            let mut unique: Vec<String> = Vec::new();
            paths.into_iter().for_each(|path| {
                if !unique.contains(&path) {
                    unique.push(path);
                }
            });
            Ok(vec![Condition { paths: unique, is_exact, ..Condition::default() }])
        }
        "req.http.host" | "bereq.http.host" => {
            no_not()?;
            Ok(vec![Condition { hosts: globs, is_exact, ..Condition::default() }])
        }
        other => match other.split_once(".http.") {
            Some(("req" | "bereq", _)) => {
                no_not()?;
                let header =
                    &name[name.len() - other.split_once(".http.").map_or(0, |(_, header)| header.len())..];
                let line = |glob: &String| (dotted("with_header", header), quote(glob));
                Ok(globs
                    .iter()
                    .map(|glob| Condition { lines: vec![line(glob)], is_exact, ..Condition::default() })
                    .collect())
            }
            _ => Err(format!("rules have no condition on {name}")),
        },
    }
}
