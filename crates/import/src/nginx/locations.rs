//! Locations as rules, in the order in which nginx would choose them.
//!
//! nginx takes an exact location, else remembers the longest prefix; unless that says `^~`, the first expression that matches wins over
//! it. So the rules are: exact ones; prefixes with `^~` and what lies within them, longest first; expressions in their order;
//! prefixes, longest first; `/`. What this cannot say is told: an expression that nginx would prefer within a plain prefix that
//! itself lies within a `^~` one.
//!
//! What keeps somebody out is never said for less. Where a pattern or a condition cannot be said, all is refused that it could be for:
//! what covers the expression, else the whole location or server. "Is not" becomes rules for those whom it lets in, and a refusal behind them.

use model::glob::IGNORES_CASE;
use model::redirect::Redirect;

use super::caching::PASSES;
use super::conditions::Condition;
use super::parse::Directive;
use super::{FILES_ORIGIN, Scope, World, refusal, wide_refusal};
use crate::draft::{DraftRule, Keys, Openness, are_apart, common, path_pattern, quote, quote_list};
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

/// Rules that are made once all that stands before them is known.
type Rest<'r, 'a> = &'r mut dyn FnMut(&mut World<'a>) -> Vec<DraftRule>;

/// Where a rule applies: the location, or the server.
struct Ground<'g> {
    name: &'g str,
    paths: &'g [String],
    groups: &'g [Option<usize>],
    from: &'g [Id],
    /// The location's prefix, where it is one.
    prefix: Option<&'g str>,
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

    /// What is rewritten before nginx chooses a location is as closed as where it leads to: here the rule is chosen by the path as visitors ask
    /// for it.
    fn close_what_is_rewritten(&mut self, scope: &Scope<'a>, rules: &mut Vec<DraftRule>) {
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

    // --- What is answered at once ---

    /// `return`, `rewrite` and `if` of a level, in their order, and then the rest, unless nothing is left for it.
    fn rewrites(&mut self, scope: &Scope<'a>, ground: &Ground<'_>, rest: Rest<'_, 'a>) -> Vec<DraftRule> {
        let directives = scope.innermost().to_vec();
        self.rewrites_of(&directives, scope, ground, rest)
    }

    fn rewrites_of(
        &mut self,
        directives: &[&'a Directive],
        scope: &Scope<'a>,
        ground: &Ground<'_>,
        rest: Rest<'_, 'a>,
    ) -> Vec<DraftRule> {
        let mut rules: Vec<DraftRule> = Vec::new();
        for (index, directive) in directives.iter().enumerate() {
            match &*directive.name {
                "return" => {
                    rules.extend(self.answer(directive, &Condition::always(), ground));
                    break;
                }
                "rewrite" => rules.extend(self.rewrite(directive, ground)),
                "if" => match self.exceptions(directive, ground) {
                    Some((exceptions, last)) => {
                        let behind = self.rewrites_of(&directives[index + 1..], scope, ground, rest);
                        rules.extend(required(behind, &exceptions));
                        rules.push(last);
                        self.add_headers(scope, &mut rules);
                        return rules;
                    }
                    None => rules.extend(self.branch(directive, scope, ground)),
                },
                _ => {}
            }
        }
        self.add_headers(scope, &mut rules);
        let answers_all = rules.iter().any(|rule| {
            !has_condition(&rule.keys) && rule.keys.get("path").map(str::to_owned) == path_value(ground.paths)
        });
        if !answers_all {
            rules.extend(rest(self));
        }
        rules
    }

    /// Redirects have the headers that are added to answers.
    fn add_headers(&mut self, scope: &Scope<'a>, rules: &mut [DraftRule]) {
        for rule in rules.iter_mut().filter(|rule| rule.keys.has_table("redirect")) {
            let mut keys = Keys::default();
            self.response_headers(scope, "proxy", &mut keys);
            keys.remove("set_cookie");
            keys.remove("response_headers.remove");
            rule.keys.extend(&keys);
        }
    }

    /// `if … is not …` that sends all others away: whom it lets in, and the rule for the others.
    fn exceptions(
        &mut self,
        directive: &'a Directive,
        ground: &Ground<'_>,
    ) -> Option<(Vec<Condition>, DraftRule)> {
        const EXCEPTIONS_MAX: usize = 8;
        let answer = directive.children().iter().find(|one| one.name == "return")?;
        let exceptions = self.exceptions_of_guard(directive)?;
        let others = Condition { from: vec![directive.id], ..Condition::always() };
        let mut last = self.answer(answer, &others, ground)?;
        last.keeps_out = keeps_out(answer, directive);
        if exceptions.is_empty() || exceptions.len() > EXCEPTIONS_MAX {
            return None;
        }
        self.ledger.mapped(directive.id, "conditions of the rules after it, and a rule behind them");
        Some((exceptions, last))
    }

    fn rule(&self, ground: &Ground<'_>, mut keys: Keys, from: &[Id]) -> DraftRule {
        if keys.get("path").is_none()
            && let Some(path) = path_value(ground.paths)
        {
            keys.set("path", path, ground.from);
        }
        let from = [ground.from, from].concat();
        DraftRule { name: ground.name.to_owned(), from, keys, ..DraftRule::default() }
    }

    /// `return` under a condition.
    fn answer(
        &mut self,
        directive: &'a Directive,
        condition: &Condition,
        ground: &Ground<'_>,
    ) -> Option<DraftRule> {
        let keys = condition.within(ground.paths)?;
        let from = [&condition.from[..], &[directive.id]].concat();
        let (status, target) = match directive.arg(0) {
            url if url.starts_with("http") => (302, url),
            status => (status.parse::<u16>().ok()?, directive.arg(1)),
        };
        if model::redirect::STATUSES.contains(&status) {
            let mut keys = keys;
            let stars = if ground.paths.len() == 1 { ground.groups } else { &[] };
            match self.redirect(target, status, stars, &mut keys, &from) {
                Ok(()) => {
                    let rule = self.rule(ground, keys, &from);
                    return Some(rule);
                }
                Err(instead) => {
                    self.ledger.not_mapped(directive.id, instead);
                    return None;
                }
            }
        }
        if status >= 400 {
            self.ledger.not_mapped(
                directive.id,
                "the rule has an origin that does not exist: let the origin refuse, then take the rule out",
            );
            let rule = self.rule(ground, keys, &from);
            return Some(refusal(ground.name, rule.keys, rule.from));
        }
        self.ledger
            .not_mapped(directive.id, "the edge makes no answers but redirects: let the origin answer");
        None
    }

    fn redirect(
        &mut self,
        target: &str,
        status: u16,
        groups: &[Option<usize>],
        keys: &mut Keys,
        from: &[Id],
    ) -> Result<(), String> {
        let template = template(target, groups)?;
        let stars = groups.len();
        Redirect::parse(&template, status, stars)
            .map_err(|why| format!("its target {why}: write a redirect by hand"))?;
        self.map(keys, "redirect.to", quote(&template), from);
        keys.set("redirect.status", status.to_string(), from);
        Ok(())
    }

    /// `rewrite … permanent` and its like; what changes paths silently is not mapped.
    fn rewrite(&mut self, directive: &'a Directive, ground: &Ground<'_>) -> Option<DraftRule> {
        let target = directive.arg(1);
        let Some(status) = status_of(directive) else {
            self.ledger.not_mapped(
                directive.id,
                "paths are not changed but by a redirect: have the origin know the path that visitors ask for",
            );
            return None;
        };
        let Some(found) = patterns(directive.arg(0), false) else {
            self.ledger.not_mapped(
                directive.id,
                "its expression cannot be said by patterns with \"*\": write a rule with redirect",
            );
            return None;
        };
        let condition =
            Condition { paths: found.globs.clone(), is_exact: found.is_exact, ..Condition::default() };
        // The groups of its target are those of its own pattern: narrowed to the location's paths they would be others.
        let own = quote_list(&found.globs);
        let within =
            condition.within(ground.paths).filter(|keys| keys.get("path").is_none_or(|path| path == own));
        let Some(mut keys) = within else {
            self.ledger.not_mapped(
                directive.id,
                "its paths are not those of its location: write a rule with redirect",
            );
            return None;
        };
        keys.set("path", own, &[directive.id]);
        // rewrite keeps the query, unless its target ends with "?".
        let target = match target.strip_suffix('?') {
            Some(bare) => bare.to_owned(),
            None if target.contains('?') || target.contains("$request_uri") => target.to_owned(),
            None => format!("{target}$is_args$args"),
        };
        match self.redirect(&target, status, &found.groups, &mut keys, &[directive.id]) {
            Ok(()) => {
                if !found.is_exact {
                    let message = format!(
                        "its expression has no exact equal; the rule is for {}",
                        found.globs.join(", ")
                    );
                    self.ledger.not_mapped(directive.id, message);
                }
                Some(self.rule(&Ground { name: "moved", ..*ground }, keys, &[directive.id]))
            }
            Err(instead) => {
                self.ledger.not_mapped(directive.id, instead);
                None
            }
        }
    }

    /// `if`: a rule for each way in which its condition holds.
    fn branch(&mut self, directive: &'a Directive, scope: &Scope<'a>, ground: &Ground<'_>) -> Vec<DraftRule> {
        let says: Vec<&Directive> =
            directive.children().iter().filter(|one| !matches!(&*one.name, "set" | "break")).collect();
        if says.is_empty() {
            // It is read where its variable is used.
            return Vec::new();
        }
        let guard = says.iter().find(|one| keeps_out(one, directive)).copied();
        let conditions = match guard {
            Some(_) => self.conditions_of_guard(directive, scope),
            None => self.conditions_of_if(directive),
        };
        let conditions = match (conditions, guard) {
            (Ok(conditions), _) => conditions,
            (Err(instead), None) => {
                self.ledger.not_mapped(directive.id, instead);
                return Vec::new();
            }
            (Err(why), Some(guard)) => return vec![self.refuse_all(directive, guard, &why, ground)],
        };
        let mut rules = Vec::new();
        for condition in &conditions {
            if !condition.is_exact {
                self.ledger.not_mapped(directive.id, "its condition has no exact equal; see the rule");
            }
            let answer = says.iter().find(|one| one.name == "return").copied();
            if let Some(answer) = answer {
                let mut rule = self.answer(answer, condition, ground);
                if let Some(rule) = &mut rule {
                    rule.keeps_out = guard.is_some();
                    self.ledger.mapped(directive.id, "[[site.rule]]");
                } else if guard.is_some() && condition.within(ground.paths).is_some() {
                    return vec![self.refuse_all(directive, answer, "its answer cannot be said", ground)];
                }
                rules.extend(rule);
                continue;
            }
            let Some(keys) = condition.within(ground.paths) else {
                self.ledger.not_needed(directive.id, "its paths are none of its location's");
                continue;
            };
            if says.iter().any(|one| one.name == "rewrite") {
                for one in says.iter().filter(|one| one.name == "rewrite") {
                    let Some(mut rule) = self.rewrite(one, ground) else { continue };
                    condition
                        .lines
                        .iter()
                        .for_each(|(key, value)| rule.keys.set(key, value, &condition.from));
                    self.ledger.mapped(directive.id, "[[site.rule]]");
                    rules.push(rule);
                }
                continue;
            }
            // What else may stand in an `if` of a location changes what it says.
            let inner = scope.with(self.files.flat(directive.children(), self.ledger));
            self.ledger.mapped(directive.id, "[[site.rule]]");
            for mut rule in self.content(&inner, ground) {
                let mut merged = keys.clone();
                merged.extend(&rule.keys);
                rule.keys = merged;
                rule.is_wide |= !condition.is_exact;
                rules.push(rule);
            }
        }
        rules
    }

    /// The refusal of all where a guard stands that cannot be said.
    fn refuse_all(
        &mut self,
        directive: &'a Directive,
        guard: &'a Directive,
        why: &str,
        ground: &Ground<'_>,
    ) -> DraftRule {
        let place = if ground.paths.is_empty() { "the whole server" } else { "the whole location" };
        let instead = format!(
            "it keeps somebody out, and whom cannot be said ({why}): {place} is refused; let the origin refuse, then take the rule out"
        );
        self.ledger.not_mapped(directive.id, instead);
        self.ledger.not_mapped(guard.id, format!("see its if: {place} is refused"));
        let what = format!("{} {}", directive.name, directive.args.join(" "));
        let rule = self.rule(ground, Keys::default(), &[directive.id, guard.id]);
        wide_refusal(ground.name, rule.keys, rule.from, &what)
    }

    // --- What is fetched ---

    /// The rules for a location's content: those that pass by the cache, then its own.
    fn content(&mut self, scope: &Scope<'a>, ground: &Ground<'_>) -> Vec<DraftRule> {
        let mut keys = Keys::default();
        if let Some(path) = path_value(ground.paths) {
            keys.set("path", path, ground.from);
        }
        if self.is_guarded(scope) {
            for directive in scope.innermost().iter().filter(|one| one.name != "location") {
                if self.ledger.is_silent(directive.id) {
                    self.ledger.not_mapped(directive.id, "the rule answers nobody: see what guards it");
                }
            }
            return vec![refusal(ground.name, keys, ground.from.to_vec())];
        }
        if let Some(except) = scope.own("limit_except") {
            let to = "methods, and a rule that refuses the others";
            self.ledger.mapped(except.id, to);
            except.children().iter().for_each(|child| self.ledger.mapped(child.id, to));
            let methods: Vec<String> = except.args.iter().map(|method| method.to_ascii_uppercase()).collect();
            let allowed = Condition {
                lines: vec![("methods".to_owned(), quote_list(&methods))],
                from: vec![except.id],
                ..Condition::always()
            };
            let mut rules = required(self.fetching(scope, ground, keys.clone()), &[allowed]);
            rules.push(refusal(ground.name, keys, [ground.from, &[except.id]].concat()));
            return rules;
        }
        self.fetching(scope, ground, keys)
    }

    /// The rules for what is fetched.
    fn fetching(&mut self, scope: &Scope<'a>, ground: &Ground<'_>, mut keys: Keys) -> Vec<DraftRule> {
        let mut rules = Vec::new();
        let (pass, scope) = self.pass(scope);
        let prefix = pass.map_or("proxy", |(_, prefix)| prefix);
        let mut fetch = Keys::default();
        match pass {
            Some((pass, "proxy")) => self.origin(pass, ground.prefix, &scope, &mut fetch),
            Some((pass, _)) => {
                self.ledger.not_mapped(pass.id, "origins speak HTTP: let nginx stay in front of it, and name that as the origin of the rule");
                fetch.set("origin", quote(FILES_ORIGIN), &[pass.id]);
            }
            None => fetch.set("origin", quote(FILES_ORIGIN), ground.from),
        }
        self.handling(&scope, prefix, &mut fetch);
        let mut is_cached = self.is_cached(&scope, prefix);
        let mut unsaid = Vec::new();
        if is_cached {
            let conditions;
            (conditions, unsaid) = self.passes(&scope, prefix);
            // Of several origins the key says which, unless it is one's own.
            let is_computed = fetch.get("origin") == Some(&*quote(FILES_ORIGIN));
            unsaid.extend(
                pass.filter(|(pass, _)| is_computed && pass.arg(0).contains('$')).map(|(pass, _)| pass.id),
            );
            // What was never shared under some condition is shared under none, while that cannot be said.
            is_cached = unsaid.is_empty();
            for condition in conditions {
                let Some(mut keys) = condition.within(ground.paths) else { continue };
                keys.extend(&fetch);
                keys.set("cache", "false", &condition.from);
                let from = [ground.from, &condition.from].concat();
                let name = format!("{}-past-the-cache", ground.name);
                // What has no effect beside it.
                keys.remove("set_cookie");
                keys.remove_table("compress");
                rules.push(DraftRule { name, from, keys, ..DraftRule::default() });
            }
        }
        keys.extend(&fetch);
        if is_cached {
            unsaid.extend(self.caching(&scope, prefix, &mut keys));
        }
        if !is_cached {
            keys.set("cache", "false", &unsaid);
            keys.remove("set_cookie");
            keys.remove_table("compress");
        }
        let mut rule = DraftRule {
            name: ground.name.to_owned(),
            from: ground.from.to_vec(),
            keys,
            ..DraftRule::default()
        };
        if is_cached && !unsaid.is_empty() {
            rule.pass(&unsaid);
        }
        if rule.keys.get("origin").is_some_and(|origin| origin == quote(FILES_ORIGIN)) {
            rule.remarks.push("What nginx answers here by itself needs an origin: a server that has these files, or nginx on another port.".into());
        }
        rules.push(rule);
        rules
    }

    /// What requests are passed to; with `try_files … @name`, what that location passes them to.
    fn pass(&mut self, scope: &Scope<'a>) -> (Option<(&'a Directive, &'static str)>, Scope<'a>) {
        let own =
            |scope: &Scope<'a>| PASSES.iter().find_map(|(name, prefix)| Some((scope.own(name)?, *prefix)));
        // An `if` within a location passes to what the location does, unless it says otherwise.
        for depth in (1..=scope.levels.len()).rev() {
            let here = Scope { levels: scope.levels[..depth].to_vec() };
            if let Some(pass) = own(&here) {
                return (Some(pass), scope.clone());
            }
            let is_branch = depth == scope.levels.len() && depth > 1;
            if !is_branch {
                break;
            }
        }
        if let Some(files) = scope.own("try_files")
            && let Some(last) = files.args.last()
        {
            let named =
                scope.levels.iter().rev().flatten().find(|one| one.name == "location" && one.arg(0) == last);
            if let Some(named) = named.copied().filter(|_| last.starts_with('@')) {
                let level = self.files.flat(named.children(), self.ledger);
                let base = Scope { levels: scope.levels[..scope.levels.len() - 1].to_vec() };
                let merged = base.with(scope.innermost().to_vec()).with(level);
                if let Some(pass) = own(&merged) {
                    self.ledger.mapped(named.id, "the origin of the location that names it");
                    self.ledger.not_mapped(
                        files.id,
                        "files are not looked for: the origin is asked for all of it, and must have them",
                    );
                    return (Some(pass), merged);
                }
            }
        }
        (None, scope.clone())
    }

    /// `deny` for all; what denies some networks is blocked on the whole node.
    pub(super) fn denying(&mut self, scope: &Scope<'a>) -> Vec<&'a Directive> {
        let is_access = |one: &&&Directive| matches!(&*one.name, "allow" | "deny");
        let level = scope.levels.iter().rev().find(|level| level.iter().any(|one| is_access(&one)));
        let mut guards = Vec::new();
        for one in level.into_iter().flatten().filter(is_access).copied() {
            match (&*one.name, one.arg(0)) {
                ("allow", "all") => break,
                ("deny", "unix:") => self.ledger.not_needed(one.id, "visitors come by TCP and UDP"),
                ("deny", network) if is_some_network(network) => {
                    if !self.denied.iter().any(|known| known.id == one.id) {
                        self.denied.push(one);
                    }
                    if !self.http.innermost().iter().any(|of_all| of_all.id == one.id) {
                        self.ledger.not_mapped(one.id, "it is blocked for every site and path");
                    }
                }
                ("deny", _) => guards.push(one),
                _ => {}
            }
        }
        guards
    }

    /// Whether nginx lets through only whom it knows. Nothing that is guarded may be opened.
    fn is_guarded(&mut self, scope: &Scope<'a>) -> bool {
        let mut guards: Vec<&Directive> = Vec::new();
        guards.extend(scope.last("auth_basic").filter(|one| one.arg(0) != "off"));
        guards.extend(scope.last("auth_request").filter(|one| one.arg(0) != "off"));
        guards.extend(scope.last("auth_jwt").filter(|one| one.arg(0) != "off"));
        guards.extend(scope.own("internal"));
        guards.extend(self.denying(scope));
        for guard in &guards {
            self.ledger.not_mapped(
                guard.id,
                "nobody is asked who they are: the rule refuses all; let the origin ask, then take the rule out",
            );
        }
        !guards.is_empty()
    }
}

/// The status of a `rewrite` that is a redirect.
fn status_of(rewrite: &Directive) -> Option<u16> {
    let is_url = ["http://", "https://", "$scheme"].iter().any(|begin| rewrite.arg(1).starts_with(begin));
    match rewrite.arg(2) {
        "permanent" => Some(301),
        "redirect" => Some(302),
        _ => is_url.then_some(302),
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

/// Patterns of an expression within a prefix, in the spelling of paths.
fn inside(globs: &[String], outer: Option<&str>) -> Vec<String> {
    let outer = outer.filter(|outer| *outer != "/").map(|outer| path_pattern(&format!("{outer}*")));
    let globs = globs.iter().map(|glob| path_pattern(glob));
    match outer {
        Some(outer) => globs.filter_map(|glob| Some(common(&outer, &glob)?.0)).collect(),
        None => globs.collect(),
    }
}

/// Whether what an `if` answers keeps somebody out: a refusal, or sending elsewhere who is not known.
fn keeps_out(answer: &Directive, condition: &Directive) -> bool {
    let status = answer.arg(0).parse::<u16>().unwrap_or(302);
    let asks_who = condition.args.iter().any(|arg| {
        ["cookie", "authorization", "remote_", "ssl_client", "jwt", "realip"]
            .iter()
            .any(|who| arg.contains(who))
    });
    answer.name == "return" && (status >= 400 || (matches!(status, 302 | 303 | 307) && asks_who))
}

/// The rules for those alone for whom one of the exceptions holds.
fn required(rules: Vec<DraftRule>, exceptions: &[Condition]) -> Vec<DraftRule> {
    let mut kept = Vec::new();
    for rule in rules {
        for exception in exceptions {
            let mut rule = rule.clone();
            let (mut is_said, mut is_empty) = (true, false);
            for (key, value) in &exception.lines {
                let known = rule.keys.get(key).map(str::to_owned);
                match known {
                    Some(known) if known == *value => {}
                    Some(_) if key == "methods" => {
                        let mut allowed = Keys::default();
                        allowed.set("methods", value, &[]);
                        let allowed = allowed.texts("methods");
                        let mut both = rule.keys.texts("methods");
                        both.retain(|one| {
                            allowed.contains(one) || (one == "HEAD" && allowed.iter().any(|one| one == "GET"))
                        });
                        is_empty |= both.is_empty();
                        rule.keys.set(key, quote_list(&both), &exception.from);
                    }
                    Some(_) => is_said = false,
                    None => rule.keys.set(key, value, &exception.from),
                }
            }
            // Where both cannot be said, what refuses may do so to more, and others may not.
            if !is_empty && (is_said || rule.is_refusal()) {
                kept.push(rule);
            }
        }
    }
    kept
}

/// An address or a network, but not everybody.
fn is_some_network(text: &str) -> bool {
    model::settings::Network::parse(text).is_ok_and(|network| network.prefix_len() > 0)
}

fn path_value(paths: &[String]) -> Option<String> {
    (!paths.is_empty()).then(|| quote_list(paths))
}

fn has_condition(keys: &Keys) -> bool {
    ["methods", "hosts", "scheme"].iter().any(|key| keys.get(key).is_some())
        || keys.has_table("with_header")
        || keys.has_table("with_cookie")
}

/// nginx's variables as the placeholders of a redirect.
fn template(target: &str, groups: &[Option<usize>]) -> Result<String, String> {
    let mut template = String::new();
    let mut rest = target;
    while let Some(next) = rest.chars().next() {
        if next != '$' {
            template.push(next);
            if matches!(next, '{' | '}') {
                template.push(next);
            }
            rest = &rest[next.len_utf8()..];
            continue;
        }
        let after = &rest[1..];
        let is_braced = after.starts_with('{');
        let body = if is_braced { &after[1..] } else { after };
        let is_group = body.starts_with(|c: char| c.is_ascii_digit());
        let end = match is_group {
            true => 1,
            false => body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len()),
        };
        let name = &body[..end];
        rest = body[end..].strip_prefix('}').filter(|_| is_braced).unwrap_or(&body[end..]);
        match name {
            "scheme" => template.push_str("{scheme}"),
            "host" | "http_host" | "server_name" => template.push_str("{host}"),
            "request_uri" => template.push_str("{path}{query}"),
            "uri" | "document_uri" => template.push_str("{path}"),
            "is_args" => {
                if let Some(args) = rest.strip_prefix("$args").or_else(|| rest.strip_prefix("$query_string"))
                {
                    rest = args;
                    template.push_str("{query}");
                } else {
                    return Err("$is_args stands alone in its target: write a redirect by hand".into());
                }
            }
            name if is_group => {
                let star = name
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| groups.iter().position(|group| *group == Some(number)));
                match star {
                    Some(star) => template.push_str(&format!("{{{}}}", star + 1)),
                    None => {
                        return Err(format!(
                            "${name} of its target is not all that a \"*\" stands for: write a redirect by hand"
                        ));
                    }
                }
            }
            name => return Err(format!("${name} is not known in redirects: write one by hand")),
        }
    }
    Ok(template)
}
