//! Locations as rules, in the order in which nginx would choose them.
//!
//! nginx takes an exact location, else remembers the longest prefix; unless that says `^~`, the first expression that matches wins over
//! it. So the rules are: exact ones; prefixes with `^~` and what lies within them, longest first; expressions in their order;
//! prefixes, longest first; `/`. What this cannot say is told: an expression that nginx would prefer within a plain prefix that
//! itself lies within a `^~` one.
//!
//! What keeps somebody out is never said for less. Where a pattern or a condition cannot be said, all is refused that it could be for:
//! what covers the expression, else the whole location or server.

use super::answers::Ground;
use super::parse::Directive;
use super::{Scope, World};
use crate::draft::{DraftRule, Openness, are_apart, common, path_pattern, quote};
use crate::ledger::Id;
use crate::pattern::{covering, patterns};

/// How a location is chosen.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Exact,
    /// `is_final`: with `^~`.
    Prefix {
        is_final: bool,
    },
    Expression,
}

struct Location<'a> {
    directive: &'a Directive,
    kind: Kind,
    text: String,
    scope: Scope<'a>,
    /// Patterns of its paths; none is every path.
    paths: Vec<String>,
    /// What the stars of its pattern are groups of.
    groups: Vec<Option<usize>>,
    /// How well the paths say what it is for.
    fit: Fit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Exact,
    /// They are more.
    Wide,
    /// They stand before what nginx would try first.
    Early,
    /// They only cover what its expression could be for.
    Covering,
}

impl<'a> World<'a> {
    /// The rules of a server; for one scheme alone, where it is named.
    pub(super) fn rules_of_server(&mut self, server: usize, scheme: Option<&str>) -> Vec<DraftRule> {
        let scope = self.servers[server].scope.clone();
        let ground = Ground { name: "server", paths: &[], groups: &[], from: &[], prefix: None };
        let inner = scope.clone();
        let mut rules = self.rewrites(&scope, &ground, &mut |world| {
            let (scope, mut rules) = (&inner, Vec::new());
            let mut locations = Vec::new();
            world.collect(scope, None, &mut locations);
            let has_rest = locations.iter().any(|one| one.paths.is_empty() && one.kind != Kind::Expression);
            let mut unshared: Vec<(Vec<String>, Id)> = Vec::new();
            for location in world.ordered(locations) {
                let mut found = world.rules_of_location(&location);
                if location.fit == Fit::Covering {
                    found.retain(DraftRule::is_refusal);
                    if found.is_empty() && !world.shares(&location.scope) {
                        unshared.push((location.paths.clone(), location.directive.id));
                    }
                }
                rules.extend(found);
            }
            if !has_rest {
                rules.extend(world.rest(scope));
            }
            world.pass_what_was_not_shared(&unshared, &mut rules);
            rules
        });
        self.close_what_is_rewritten(&scope, &mut rules);
        if let Some(scheme) = scheme {
            for rule in &mut rules {
                rule.name = format!("{}-{scheme}", rule.name);
                if rule.keys.get("scheme").is_none() {
                    rule.keys.set("scheme", quote(scheme), &[]);
                }
            }
        }
        rules
    }

    /// What no location is for: files, or what a fragment without locations passes on.
    fn rest(&mut self, scope: &Scope<'a>) -> Vec<DraftRule> {
        let ground = Ground { name: "rest", paths: &[], groups: &[], from: &[], prefix: Some("/") };
        let mut rules = self.content(scope, &ground);
        for rule in &mut rules {
            rule.remarks.push("What no location is for.".into());
        }
        rules
    }

    fn collect(&mut self, scope: &Scope<'a>, outer: Option<&str>, found: &mut Vec<Location<'a>>) {
        for directive in scope.innermost().to_vec() {
            if directive.name != "location" {
                continue;
            }
            let (kind, text) = match (directive.arg(0), directive.arg(1)) {
                ("=", path) => (Kind::Exact, path.to_owned()),
                ("^~", path) => (Kind::Prefix { is_final: true }, path.to_owned()),
                ("~" | "~*", text) => (Kind::Expression, text.to_owned()),
                (name, _) if name.starts_with('@') => continue,
                // `location =/path` and its like, without the blank.
                (word, "") if word.starts_with("=/") => (Kind::Exact, word[1..].to_owned()),
                (word, "") if word.starts_with("~*") => (Kind::Expression, word[2..].to_owned()),
                (word, "") if word.starts_with('~') => (Kind::Expression, word[1..].to_owned()),
                (word, _) => (Kind::Prefix { is_final: false }, word.to_owned()),
            };
            let level = self.files.flat(directive.children(), self.ledger);
            let scope = scope.with(level);
            let mut groups = Vec::new();
            let mut fit = Fit::Exact;
            let paths = match kind {
                Kind::Exact => vec![path_pattern(&text)],
                Kind::Prefix { .. } if text == "/" => Vec::new(),
                Kind::Prefix { .. } => vec![path_pattern(&format!("{text}*"))],
                Kind::Expression => {
                    let ignores_case = directive.arg(0).starts_with("~*");
                    match patterns(&text, ignores_case) {
                        Some(found) => {
                            let globs = inside(&found.globs, outer);
                            if !found.is_exact {
                                let message = format!(
                                    "its expression has no exact equal; the rule is for {}",
                                    globs.join(", ")
                                );
                                self.ledger.not_mapped(directive.id, message);
                                fit = Fit::Wide;
                            }
                            groups = if globs == found.globs { found.groups } else { Vec::new() };
                            globs
                        }
                        None => {
                            let globs = inside(&covering(&text, ignores_case), outer);
                            let instead = format!(
                                "its expression cannot be said by patterns with \"*\": what it keeps out is refused, and what it does not share is \
                                 not shared, at all that it could be for ({}); write rules by hand, before the others",
                                globs.join(", ")
                            );
                            self.ledger.not_mapped(directive.id, instead);
                            fit = Fit::Covering;
                            globs
                        }
                    }
                }
            };
            if paths.is_empty() && kind == Kind::Expression {
                self.ledger.not_needed(directive.id, "it has no paths in common with the location around it");
                continue;
            }
            if fit != Fit::Covering {
                self.ledger.mapped(directive.id, "[[site.rule]]");
            }
            if scope.innermost().iter().any(|one| one.name == "location") {
                let prefix = matches!(kind, Kind::Prefix { .. }).then_some(&*text).or(outer);
                self.collect(&scope, prefix, found);
            }
            found.push(Location { directive, kind, text, scope, paths, groups, fit });
        }
    }

    fn ordered(&mut self, locations: Vec<Location<'a>>) -> Vec<Location<'a>> {
        let finals: Vec<String> = locations
            .iter()
            .filter(|one| one.kind == Kind::Prefix { is_final: true })
            .map(|one| one.text.clone())
            .collect();
        let has_expressions = locations.iter().any(|one| one.kind == Kind::Expression);
        let rank = |one: &Location<'_>| match one.kind {
            Kind::Exact => 0,
            Kind::Prefix { .. } if finals.iter().any(|text| one.text.starts_with(text)) => 1,
            Kind::Expression => 2,
            Kind::Prefix { .. } => 3,
        };
        let mut ordered = locations;
        for one in &mut ordered {
            let is_before = one.kind == Kind::Prefix { is_final: false } && rank(one) == 1;
            if is_before && has_expressions {
                one.fit = Fit::Early;
                let instead = "it lies within a ^~ location, so its rule stands before those of expressions, which nginx would try first";
                self.ledger.not_mapped(one.directive.id, instead);
            }
        }
        // The sort keeps expressions in their order.
        ordered.sort_by_key(|one| {
            let length = if one.kind == Kind::Expression { 0 } else { one.text.len() };
            (rank(one), std::cmp::Reverse(length))
        });
        ordered
    }

    fn rules_of_location(&mut self, location: &Location<'a>) -> Vec<DraftRule> {
        let name = match location.text.trim_matches('/') {
            "" => "rest".to_owned(),
            text => text.to_owned(),
        };
        let from = [location.directive.id];
        let prefix = matches!(location.kind, Kind::Prefix { .. } | Kind::Exact).then_some(&*location.text);
        let ground =
            Ground { name: &name, paths: &location.paths, groups: &location.groups, from: &from, prefix };
        let mut rules =
            self.rewrites(&location.scope, &ground, &mut |world| world.content(&location.scope, &ground));
        for rule in &mut rules {
            rule.wide_place = Some(location.directive.id).filter(|_| location.fit == Fit::Wide);
            rule.is_early = location.fit == Fit::Early;
        }
        rules
    }

    /// Whether what a location answers is kept for all.
    fn shares(&mut self, scope: &Scope<'a>) -> bool {
        let (pass, scope) = self.pass(scope);
        pass.is_some_and(|(_, prefix)| {
            scope.last(&format!("{prefix}_cache")).is_some_and(|cache| cache.arg(0) != "off")
        })
    }

    /// What a location whose paths cannot be said did not share is shared by none of the rules that may have it now.
    fn pass_what_was_not_shared(&mut self, unshared: &[(Vec<String>, Id)], rules: &mut [DraftRule]) {
        for rule in rules.iter_mut().filter(|rule| rule.openness() == Openness::Shared) {
            let paths = rule.keys.texts("path");
            let may_have = |globs: &[String]| {
                paths.is_empty() || paths.iter().any(|path| globs.iter().any(|glob| !are_apart(path, glob)))
            };
            let ids: Vec<Id> =
                unshared.iter().filter(|(globs, _)| may_have(globs)).map(|(_, id)| *id).collect();
            if !ids.is_empty() {
                rule.pass(&ids);
                rule.remarks
                    .push("Some of it was not shared by nginx, which cannot be said: so nothing is.".into());
            }
        }
    }
}

/// Patterns of an expression within a prefix, in the spelling of paths.
fn inside(globs: &[String], outer: Option<&str>) -> Vec<String> {
    let outer = outer.filter(|outer| *outer != "/").map(|outer| path_pattern(&format!("{outer}*")));
    let globs = globs.iter().map(|glob| path_pattern(glob));
    match outer {
        Some(outer) => globs.filter_map(|glob| Some(common(&outer, &glob)?.0)).collect(),
        None => globs.collect(),
    }
}
