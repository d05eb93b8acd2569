//! `rewrite` that changes a path silently, before nginx chooses a location: nothing here does that, so what it is for becomes as closed as where
//! it may lead to.

use model::glob::IGNORES_CASE;

use super::answers::{has_condition, status_of};
use super::parse::Directive;
use super::{Scope, World};
use crate::draft::{DraftRule, Openness, are_apart, path_pattern, quote_list};
use crate::ledger::Id;
use crate::pattern::covering;

impl<'a> World<'a> {
    /// What is rewritten before nginx chooses a location is as closed as where it leads to: here the rule is chosen by the path as visitors ask
    /// for it.
    pub(super) fn close_what_is_rewritten(&mut self, scope: &Scope<'a>, rules: &mut Vec<DraftRule>) {
        let mut rewrites = Vec::new();
        self.silent_rewrites(scope.innermost(), false, &mut rewrites);
        let ways = ways_of(&rewrites);
        let mut copies = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            if !rule.is_guard() && rule.openness() != Openness::Passed {
                continue;
            }
            let is_taken = |target: &str| {
                rules[..at].iter().any(|before| {
                    !before.holds_for_more()
                        && !before.is_early
                        && !has_condition(&before.keys)
                        && covers_path(before, target)
                })
            };
            let may_be: Vec<bool> = rewrites.iter().map(|rewrite| rewrite.may_lead_to(rule)).collect();
            if !may_be.contains(&true) {
                continue;
            }
            let is_left: Vec<bool> = rewrites.iter().map(|rewrite| !is_taken(&rewrite.target)).collect();
            // What a later one keeps of a path, an earlier one may have made.
            let leads_there =
                |way: &&Way| way.all.iter().any(|at| may_be[*at]) && way.all.iter().any(|at| is_left[*at]);
            let there: Vec<&Rewrite<'_>> = ways
                .iter()
                .filter(leads_there)
                .flat_map(|way| &way.firsts)
                .map(|at| &rewrites[*at])
                .collect();
            if there.is_empty() {
                continue;
            }
            let ids: Vec<Id> = there.iter().map(|rewrite| rewrite.id).collect();
            for id in &ids {
                self.ledger.not_mapped(*id, "what it is for is as closed as where it may lead to");
            }
            let mut paths: Vec<String> = there.iter().flat_map(|rewrite| rewrite.from.clone()).collect();
            paths.sort();
            paths.dedup();
            let mut copy = rule.clone();
            copy.keys.remove("path");
            if !paths.iter().any(|path| path == "*") {
                copy.keys.set("path", quote_list(&paths), &ids);
            }
            copy.name = format!("{}-rewritten", rule.name);
            copy.from.extend(&ids);
            copy.remarks.push("What nginx rewrites, as where that may lead to.".into());
            copy.is_early = true;
            copies.push(copy);
        }
        rules.splice(0..0, copies);
    }

    /// `rewrite` that is no redirect, and comes before the choice of a location.
    fn silent_rewrites(
        &mut self,
        directives: &[&'a Directive],
        is_in_location: bool,
        found: &mut Vec<Rewrite<'a>>,
    ) {
        for directive in directives.iter().copied() {
            let is_location = directive.name == "location";
            match &*directive.name {
                "rewrite"
                    if status_of(directive).is_none() && !(is_in_location && directive.arg(2) == "break") =>
                {
                    found.push(Rewrite::new(directive, is_in_location));
                }
                "if" | "location" => {
                    let inside = self.files.flat(directive.children(), self.ledger);
                    self.silent_rewrites(&inside, is_in_location || is_location, found);
                }
                _ => {}
            }
        }
    }
}

/// A `rewrite` that changes paths before a location is chosen.
struct Rewrite<'a> {
    id: Id,
    /// Patterns of what it is for.
    from: Vec<String>,
    /// A pattern for the paths that it leads to.
    target: String,
    /// What its target ends with of what it is for.
    kept: Option<Kept<'a>>,
    is_in_location: bool,
    /// Whether those behind it are left out.
    is_last: bool,
}

/// Some of what a path was before.
struct Kept<'a> {
    /// The part of the expression that stands before it, as far as that is known.
    behind: &'a str,
    /// Whether it goes to the end.
    is_end: bool,
}

impl<'a> Rewrite<'a> {
    fn new(rewrite: &'a Directive, is_in_location: bool) -> Rewrite<'a> {
        Rewrite {
            id: rewrite.id,
            from: covering(rewrite.arg(0), false).iter().map(|glob| path_pattern(glob)).collect(),
            target: path_pattern(&target_of(rewrite.arg(1))),
            kept: kept_of(rewrite.arg(0), rewrite.arg(1)),
            is_in_location,
            is_last: matches!(rewrite.arg(2), "last" | "break"),
        }
    }

    /// Whether a rule may be for some of the paths that it leads to, and not for what those come from.
    fn may_lead_to(&self, rule: &DraftRule) -> bool {
        let paths = rule.keys.texts("path");
        paths.is_empty()
            || paths.iter().any(|path| !are_apart(path, &self.target) && !self.is_kept_from(path))
    }

    /// Whether a pattern is for what it leads to only where what is kept of what was asked for makes it so: then it is for that too.
    fn is_kept_from(&self, path: &str) -> bool {
        let bare = path.strip_prefix(IGNORES_CASE).unwrap_or(path);
        let Some(literal) = self.target.strip_suffix('*') else { return false };
        let Some(wanted) = bare.strip_prefix('*') else { return false };
        let Some(kept) = self.kept.as_ref().filter(|kept| kept.is_end || wanted.ends_with('*')) else {
            return false;
        };
        let wanted = wanted.trim_end_matches('*');
        // What is written in the target may be the beginning of it.
        let folded = literal.to_ascii_lowercase();
        let is_begun = |length: usize| {
            wanted.get(..length).is_some_and(|begin| {
                folded.ends_with(&begin.to_ascii_lowercase()) && !kept.behind.ends_with(begin)
            })
        };
        ![literal, wanted].iter().any(|text| text.contains('*'))
            && !(1..wanted.len()).any(is_begun)
            && !model::glob::Glob::new(path).matches(literal.as_bytes())
    }

    /// Whether it may be for what another leads to, and comes behind that.
    fn follows(&self, other: &Rewrite<'_>, is_behind: bool) -> bool {
        let is_reached = self.is_in_location || (is_behind && !other.is_in_location && !other.is_last);
        is_reached && self.from.iter().any(|from| !are_apart(from, &other.target))
    }
}

/// Rewrites that a request may come to first, and those with all that may follow them.
struct Way {
    firsts: Vec<usize>,
    all: Vec<usize>,
}

/// What may follow what. Of very many any may follow any.
fn ways_of(rewrites: &[Rewrite<'_>]) -> Vec<Way> {
    const FOLLOWED_MAX: usize = 256;
    let count = rewrites.len();
    if count > FOLLOWED_MAX {
        return vec![Way { firsts: (0..count).collect(), all: (0..count).collect() }];
    }
    let followers = |at: usize| -> Vec<usize> {
        (0..count).filter(|next| rewrites[*next].follows(&rewrites[at], *next > at)).collect()
    };
    let followers: Vec<Vec<usize>> = (0..count).map(followers).collect();
    let way_of = |first: usize| {
        let mut way = Way { firsts: vec![first], all: vec![first] };
        let mut at = 0;
        while let Some(known) = way.all.get(at).copied() {
            let new: Vec<usize> =
                followers[known].iter().copied().filter(|next| !way.all.contains(next)).collect();
            way.all.extend(new);
            at += 1;
        }
        way
    };
    (0..count).map(way_of).collect()
}

/// A pattern for the paths that a `rewrite` leads to: whatever a variable stands for.
fn target_of(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut parts = path.split('$');
    let mut pattern = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let behind = match part.strip_prefix('{') {
            Some(braced) => braced.split_once('}').map_or("", |(_, behind)| behind),
            // A group has one digit.
            None if part.starts_with(|c: char| c.is_ascii_digit()) => &part[1..],
            None => part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'),
        };
        if !pattern.ends_with('*') {
            pattern.push('*');
        }
        pattern.push_str(behind);
    }
    pattern
}

/// What a target ends with of what was asked for.
fn kept_of<'a>(expression: &'a str, target: &str) -> Option<Kept<'a>> {
    let path = target.split('?').next().unwrap_or_default();
    let (_, name) = path.rsplit_once('$')?;
    match name.trim_start_matches('{').trim_end_matches('}') {
        "uri" | "document_uri" => Some(Kept { behind: "", is_end: true }),
        name => group(expression, name.parse().ok()?),
    }
}

/// A group of an expression, as what it keeps.
fn group(expression: &str, wanted: usize) -> Option<Kept<'_>> {
    // Groups with names are counted too, and what else "(?" begins.
    if expression.matches("(?").count() != expression.matches("(?:").count() {
        return None;
    }
    let (mut open, mut count, mut is_class, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, sign) in expression.char_indices() {
        match sign {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '[' => is_class = true,
            ']' => is_class = false,
            '(' if !is_class => {
                let is_group = !expression[at + 1..].starts_with('?');
                count += usize::from(is_group);
                open.push((at, is_group.then_some(count)));
            }
            ')' if !is_class => {
                let (from, number) = open.pop()?;
                if number != Some(wanted) {
                    continue;
                }
                let rest = &expression[at + 1..];
                let takes_all = [".*", ".+"].iter().any(|all| expression[..at].ends_with(all));
                let has_ways = expression.contains('|');
                // Of what is repeated, it is the last.
                let is_once = !rest.starts_with(['*', '+', '{']);
                return Some(Kept {
                    behind: if is_once { &expression[..from] } else { "" },
                    is_end: open.is_empty() && !has_ways && (rest == "$" || (rest.is_empty() && takes_all)),
                });
            }
            _ => {}
        }
    }
    None
}

/// Whether a rule is for all of the paths.
fn covers_path(rule: &DraftRule, target: &str) -> bool {
    let glob = model::glob::Glob::new;
    let paths = rule.keys.texts("path");
    paths.is_empty() || paths.iter().any(|path| glob(path).covers(&glob(target)))
}
