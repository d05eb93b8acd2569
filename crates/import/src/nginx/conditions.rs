//! When something holds, as conditions of a rule: of `if`, of `map`, and of variables that these set.

use super::caching::variables;
use super::parse::Directive;
use super::{Scope, World};
use crate::draft::{Keys, common, dotted, path_pattern, quote, quote_list, without_query};
use crate::ledger::Id;
use crate::pattern::patterns;
use model::glob::IGNORES_CASE;

/// Methods that visitors use.
pub(super) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What must hold, all together.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    /// One of these paths; any without.
    pub(super) paths: Vec<String>,
    /// Keys of a rule, with their values.
    pub(super) lines: Vec<(String, String)>,
    pub(super) from: Vec<Id>,
    pub(super) is_exact: bool,
    /// Whether it may hold for less than what is asked for: then nothing that is guarded can rest on it.
    pub(super) is_short: bool,
}

impl Condition {
    fn of(key: impl Into<String>, value: impl Into<String>) -> Condition {
        Condition { lines: vec![(key.into(), value.into())], is_exact: true, ..Condition::default() }
    }

    /// What holds for every request.
    pub(super) fn always() -> Condition {
        Condition { is_exact: true, ..Condition::default() }
    }

    pub(super) fn says_as(&self, other: &Condition) -> bool {
        (&self.paths, &self.lines) == (&other.paths, &other.lines)
    }

    /// The keys of a rule for this condition within the paths of a location: for all that both hold for, and perhaps more; nothing
    /// where they have nothing in common.
    pub(super) fn within(&self, paths: &[String]) -> Option<Keys> {
        let mut keys = Keys::default();
        let both: Vec<String> = match (paths, &self.paths[..]) {
            ([], own) => own.to_vec(),
            (paths, []) => paths.to_vec(),
            (paths, own) => {
                let mut both: Vec<String> = Vec::new();
                for path in
                    paths.iter().flat_map(|path| own.iter().filter_map(|own| Some(common(path, own)?.0)))
                {
                    if !both.contains(&path) {
                        both.push(path);
                    }
                }
                if both.is_empty() {
                    return None;
                }
                both
            }
        };
        if !both.is_empty() {
            keys.set("path", quote_list(&both), &self.from);
        }
        for (key, value) in &self.lines {
            keys.set(key, value, &self.from);
        }
        Some(keys)
    }
}

/// What conditions are for.
pub(super) struct Purpose {
    /// What becomes of the statements that say them, for the report.
    pub(super) to: &'static str,
    /// What of the query tells apart what is kept.
    pub(super) keyed: QueryKeyed,
}

impl Purpose {
    /// Rules that refuse: nothing is left out of these.
    const REFUSE: Purpose = Purpose { to: "a rule that refuses", keyed: QueryKeyed::Parts(Vec::new()) };

    /// Rules that pass by a cache with such keys.
    pub(super) fn pass(keyed: QueryKeyed) -> Purpose {
        Purpose { to: "a rule with cache = false", keyed }
    }

    /// Whether conditions on these variables may be left out: what is kept under one is for those who ask with the same query.
    pub(super) fn may_leave_out(&self, names: &[String]) -> bool {
        let is_keyed = |name: &String| match &self.keyed {
            QueryKeyed::Whole => is_of_query(name),
            QueryKeyed::Parts(parts) => parts.contains(name),
        };
        !names.is_empty() && names.iter().all(is_keyed)
    }
}

/// What of the query is in a key.
pub(super) enum QueryKeyed {
    Whole,
    /// These variables.
    Parts(Vec<String>),
}

/// Whether a value of `proxy_no_cache` could hold at all.
pub(super) fn is_said(value: &str) -> bool {
    !value.is_empty() && value != "0"
}

impl<'a> World<'a> {
    /// When `value`, a variable or several, is neither empty nor "0": any of the conditions.
    pub(super) fn conditions_of_value(
        &mut self,
        value: &str,
        scope: &Scope<'a>,
        purpose: &Purpose,
    ) -> Result<Vec<Condition>, String> {
        let names = super::caching::variables(value);
        let plain: String = names
            .iter()
            .fold(value.replace(['{', '}'], ""), |text, name| text.replacen(&format!("${name}"), "", 1));
        if names.is_empty() || !plain.trim_matches(['"', ' ']).is_empty() {
            return Err("only variables are understood here: write a rule with cache = false".into());
        }
        let mut all = Vec::new();
        for name in names {
            all.extend(self.conditions_of_variable(&name, scope, purpose)?);
        }
        Ok(all)
    }

    pub(super) fn conditions_of_variable(
        &mut self,
        name: &str,
        scope: &Scope<'a>,
        purpose: &Purpose,
    ) -> Result<Vec<Condition>, String> {
        if let Some(cookie) = name.strip_prefix("cookie_") {
            return Ok(vec![Condition::of(dotted("with_cookie", cookie), "true")]);
        }
        if let Some(header) = name.strip_prefix("http_") {
            return Ok(vec![Condition::of(dotted("with_header", &header.replace('_', "-")), "true")]);
        }
        if is_of_query(name) {
            return Err(
                "rules have no condition on the query: let the origin say Cache-Control: no-store".into()
            );
        }
        if let Some(map) = self.maps.get(name).copied() {
            return self.conditions_of_map(map, purpose);
        }
        // Set within an `if` of the server or the location.
        let mut found = Vec::new();
        let (mut is_set, mut is_said_whole) = (false, true);
        for directive in scope.levels.iter().flatten() {
            let sets =
                |child: &Directive| child.name == "set" && child.arg(0).trim_start_matches('$') == name;
            if sets(directive) {
                is_set = true;
                if is_said(directive.arg(1)) {
                    return Err(format!(
                        "${name} is {:?} from the start: write a rule with cache = false",
                        directive.arg(1)
                    ));
                }
                self.ledger.mapped(directive.id, format!("{}, where an if changes it", purpose.to));
            }
            let Some(child) = directive.children().iter().find(|child| sets(child)) else { continue };
            if directive.name != "if" || !is_said(child.arg(1)) {
                continue;
            }
            is_set = true;
            match self.conditions_of_if(directive) {
                Ok(conditions) => {
                    found.extend(
                        conditions
                            .into_iter()
                            .map(|condition| Condition { from: vec![directive.id, child.id], ..condition }),
                    );
                }
                Err(why) => {
                    self.ledger.not_mapped(directive.id, why.clone());
                    self.ledger.not_mapped(child.id, why);
                    is_said_whole &= purpose.may_leave_out(&variables(&directive.args.join(" ")));
                }
            }
        }
        match is_set {
            true if !is_said_whole => Err(format!("a part of what sets ${name} cannot be said")),
            true => Ok(found),
            false => Err(format!("what ${name} is, is not known here: write a rule with cache = false")),
        }
    }

    fn conditions_of_map(&mut self, map: &'a Directive, purpose: &Purpose) -> Result<Vec<Condition>, String> {
        let source = map.arg(0).to_owned();
        let mut found = Vec::new();
        if map.children().iter().any(|entry| &*entry.name == "default" && is_said(entry.arg(0))) {
            for entry in map.children() {
                self.ledger.not_mapped(
                    entry.id,
                    "its map holds for all but those that are named: write the rules by hand",
                );
            }
            return Err("its map holds by default: write the rules by hand".into());
        }
        self.ledger.mapped(map.id, purpose.to);
        let mut is_said_whole = true;
        for entry in map.children() {
            let holds = is_said(entry.arg(0));
            match &*entry.name {
                "default" | "volatile" | "hostnames" | "" if !holds => {
                    self.ledger.not_needed(entry.id, "nothing holds unless a rule says so");
                }
                pattern if holds => {
                    let (operator, text) = match pattern {
                        text if text.starts_with("~*") => ("~*", &text[2..]),
                        text if text.starts_with('~') => ("~", &text[1..]),
                        text => ("=", text),
                    };
                    match compare(&source, operator, text) {
                        Ok(conditions) => {
                            self.ledger.mapped(entry.id, purpose.to);
                            found.extend(
                                conditions.into_iter().map(|one| Condition { from: vec![entry.id], ..one }),
                            );
                        }
                        Err(why) => {
                            self.ledger.not_mapped(entry.id, why);
                            is_said_whole &= purpose.may_leave_out(&variables(&source));
                        }
                    }
                }
                _ => self.ledger.not_needed(entry.id, "nothing holds unless a rule says so"),
            }
        }
        match is_said_whole {
            true => Ok(found),
            false => Err("a part of its map cannot be said".into()),
        }
    }

    /// When an `if` holds that keeps somebody out: conditions that hold for no less than it does.
    pub(super) fn conditions_of_guard(
        &mut self,
        directive: &'a Directive,
        scope: &Scope<'a>,
    ) -> Result<Vec<Condition>, String> {
        let variable = match parts_of_if(directive) {
            Some((first, operator, _)) if operator.is_empty() => first.trim_start_matches('$').to_owned(),
            _ => String::new(),
        };
        let is_set = |directive: &&Directive| {
            let sets = |one: &Directive| one.name == "set" && one.arg(0).trim_start_matches('$') == variable;
            sets(directive) || directive.children().iter().any(sets)
        };
        let is_known = self.maps.contains_key(&*variable) || scope.levels.iter().flatten().any(is_set);
        let found = match is_known {
            true => self.conditions_of_variable(&variable, scope, &Purpose::REFUSE)?,
            false => self.conditions_of_if(directive)?,
        };
        match found.iter().any(|condition| condition.is_short) {
            true => Err("patterns would hold for less".into()),
            false => Ok(found),
        }
    }

    /// For whom an `if` with "is not" does not hold: conditions that hold for no more than them.
    pub(super) fn exceptions_of_guard(&self, directive: &Directive) -> Option<Vec<Condition>> {
        let (first, operator, text) = parts_of_if(directive)?;
        let operator = operator.strip_prefix('!').filter(|operator| matches!(*operator, "=" | "~" | "~*"))?;
        let found = compare(&first, operator, &text).ok().filter(|_| !text.is_empty())?;
        let is_usable = |one: &Condition| one.is_exact && !one.is_short && one.paths.is_empty();
        let of = |one: Condition| Condition { from: vec![directive.id], ..one };
        found.iter().all(is_usable).then(|| found.into_iter().map(of).collect())
    }

    /// The condition of an `if`.
    pub(super) fn conditions_of_if(&mut self, directive: &Directive) -> Result<Vec<Condition>, String> {
        let Some((first, operator, rest)) = parts_of_if(directive) else {
            return Err("its condition is not understood: write a rule by hand".into());
        };
        if first.starts_with('-') || first.starts_with('!') {
            return Err("files are not looked for: let the origin do it".into());
        }
        let found = match &*operator {
            "" => compare(&first, "!=", ""),
            "=" | "!=" | "~" | "~*" | "!~" | "!~*" => compare(&first, &operator, &rest),
            _ => Err("its condition is not understood: write a rule by hand".into()),
        }?;
        Ok(found.into_iter().map(|condition| Condition { from: vec![directive.id], ..condition }).collect())
    }
}

/// What stands in the parentheses of an `if`: a variable, an operator or none, a text.
fn parts_of_if(directive: &Directive) -> Option<(String, String, String)> {
    let text = directive.args.join(" ");
    let inside = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut words = inside.split_whitespace();
    let first = words.next().unwrap_or_default().to_owned();
    let operator = words.next().unwrap_or_default().to_owned();
    let rest = words.collect::<Vec<_>>().join(" ");
    Some((first, operator, rest.trim_matches(['"', '\'']).to_owned()))
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

fn is_of_query(name: &str) -> bool {
    name.starts_with("arg_") || matches!(name, "args" | "query_string" | "is_args")
}

/// Conditions for a variable that is compared with a text.
fn compare(variable: &str, operator: &str, text: &str) -> Result<Vec<Condition>, String> {
    let variable = variable.trim_start_matches('$').trim_matches(['{', '}']);
    let no = |why: &str| Err(format!("${variable}: {why}"));
    if !variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return no("several variables in one: write a rule for each");
    }
    let expression = |ignores_case| {
        patterns(text, ignores_case)
            .ok_or_else(|| format!("{text:?} cannot be said by patterns with \"*\": write a rule by hand"))
    };
    let globs = || -> Result<(Vec<String>, bool), String> {
        match operator {
            "=" => Ok((vec![text.to_owned()], true)),
            "~" | "!~" => expression(false).map(|found| (found.globs, found.is_exact)),
            "~*" | "!~*" => expression(true).map(|found| (found.globs, found.is_exact)),
            _ => {
                Err(format!("${variable}: a rule has no word for \"is not\": write the cases that are meant"))
            }
        }
    };
    // A header or cookie has one pattern, so several are several conditions.
    let with = |table: &str, name: &str| -> Result<Vec<Condition>, String> {
        let key = dotted(table, name);
        match (operator, text) {
            ("!=", "") => Ok(vec![Condition::of(key, "true")]),
            ("=", "") => Ok(vec![Condition::of(key, "false")]),
            ("~" | "~*" | "=", _) => {
                let (globs, is_exact) = globs()?;
                let of = |glob: String| match &*glob {
                    "*" => Condition { is_exact, ..Condition::of(&key, "true") },
                    glob => Condition { is_exact, ..Condition::of(&key, quote(glob)) },
                };
                Ok(globs.into_iter().map(of).collect())
            }
            _ => {
                Err(format!("${variable}: a rule has no word for \"is not\": write the cases that are meant"))
            }
        }
    };
    match variable {
        "request_method" => {
            let (globs, _) = match operator {
                "!=" => (vec![text.to_owned()], true),
                _ => globs()?,
            };
            // Methods that are named, whether visitors use them or not.
            if !operator.starts_with('!') && globs.iter().all(|glob| is_method(glob)) {
                return Ok(vec![Condition::of("methods", quote_list(&globs))]);
            }
            let matched = |method: &&&str| {
                globs.iter().any(|glob| model::glob::Glob::new(glob).matches(method.as_bytes()))
            };
            let is_negated = operator.starts_with('!');
            let methods: Vec<&str> =
                METHODS.iter().filter(|method| matched(method) != is_negated).copied().collect();
            if methods.is_empty() {
                no("no method that visitors use")
            } else {
                // There are others, which nobody has named.
                Ok(vec![Condition { is_short: true, ..Condition::of("methods", quote_list(&methods)) }])
            }
        }
        "host" | "http_host" | "server_name" => {
            let (globs, is_exact) = globs()?;
            Ok(vec![Condition { is_exact, ..Condition::of("hosts", quote_list(&globs)) }])
        }
        "scheme" => match (operator, text) {
            ("=", "http") | ("!=", "https") => Ok(vec![Condition::of("scheme", quote("http"))]),
            ("=", "https") | ("!=", "http") => Ok(vec![Condition::of("scheme", quote("https"))]),
            _ => no("is not understood: write a rule by hand"),
        },
        "https" => match (operator, text) {
            ("=", "on") | ("!=", "") => Ok(vec![Condition::of("scheme", quote("https"))]),
            ("=", "") | ("!=", "on") => Ok(vec![Condition::of("scheme", quote("http"))]),
            _ => no("is not understood: write a rule by hand"),
        },
        "http_x_forwarded_proto" if matches!((operator, text), ("=", "http") | ("!=", "https")) => {
            // Believed of trusted proxies, which then is the scheme.
            let is_exact = operator == "=";
            Ok(vec![Condition { is_exact, is_short: !is_exact, ..Condition::of("scheme", quote("http")) }])
        }
        "uri" | "document_uri" | "request_uri" => {
            let (globs, is_exact) = globs()?;
            // The query is no part of the path, but of what is asked for. A pattern that begins with its star may be for a query too, and
            // one without any is for no query.
            let bare: Vec<String> = globs.iter().map(|glob| without_query(glob).to_owned()).collect();
            let is_of_path = |glob: &String| {
                let bare = glob.strip_prefix(IGNORES_CASE).unwrap_or(glob);
                bare.len() > 1 && bare.find('*') == Some(bare.len() - 1)
            };
            let is_whole = bare == globs;
            let is_short = variable == "request_uri" && !(is_whole && globs.iter().all(is_of_path));
            let paths = bare.iter().map(|path| path_pattern(path)).collect();
            Ok(vec![Condition { paths, is_exact: is_exact && is_whole, is_short, ..Condition::default() }])
        }
        "args" | "query_string" | "is_args" => no("rules have no condition on the query"),
        _ => {
            if let Some(cookie) = variable.strip_prefix("cookie_") {
                with("with_cookie", cookie)
            } else if let Some(header) = variable.strip_prefix("http_") {
                with("with_header", &header.replace('_', "-"))
            } else {
                no("rules have no condition on it: write one on the path, a header or a cookie")
            }
        }
    }
}
