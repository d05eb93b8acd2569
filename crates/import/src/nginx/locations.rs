//! Locations as rules, in the order in which nginx would choose them.
//!
//! nginx takes an exact location, else remembers the longest prefix; unless that says `^~`, the first expression that matches wins over
//! it. So the rules are: exact ones; prefixes with `^~` and what lies within them, longest first; expressions in their order;
//! prefixes, longest first; `/`. What this cannot say is told: an expression that nginx would prefer within a plain prefix that
//! itself lies within a `^~` one.

use model::redirect::Redirect;

use super::caching::PASSES;
use super::conditions::{Condition, METHODS};
use super::parse::Directive;
use super::{FILES_ORIGIN, Scope, World, refusal};
use crate::draft::{DraftRule, Keys, quote, quote_list};
use crate::ledger::Id;
use crate::pattern::{Patterns, patterns};

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
}

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
        let mut rules = self.rewrites(&scope, &ground);
        let answers_all =
            rules.iter().any(|rule| rule.keys.get("path").is_none() && !has_condition(&rule.keys));
        if !answers_all {
            let mut locations = Vec::new();
            self.collect(&scope, None, &mut locations);
            let has_rest = locations.iter().any(|one| one.paths.is_empty() && one.kind != Kind::Expression);
            for location in self.ordered(locations) {
                rules.extend(self.rules_of_location(&location));
            }
            if !has_rest {
                rules.extend(self.rest(&scope));
            }
        }
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
            let paths = match kind {
                Kind::Exact => vec![text.clone()],
                Kind::Prefix { .. } if text == "/" => Vec::new(),
                Kind::Prefix { .. } => vec![format!("{text}*")],
                Kind::Expression => {
                    let ignores_case = directive.arg(0).starts_with("~*");
                    match patterns(&text, ignores_case).and_then(|found| inside(found, outer)) {
                        Some(found) => {
                            if !found.is_exact {
                                let message = format!(
                                    "its expression has no exact equal; the rule is for {}",
                                    found.globs.join(", ")
                                );
                                self.ledger.not_mapped(directive.id, message);
                            }
                            groups = found.groups;
                            found.globs
                        }
                        None => {
                            let instead = "its expression cannot be said by patterns with \"*\": write rules by hand, before the others";
                            self.ledger.not_mapped(directive.id, instead);
                            continue;
                        }
                    }
                }
            };
            self.ledger.mapped(directive.id, "[[site.rule]]");
            if scope.innermost().iter().any(|one| one.name == "location") {
                let prefix = matches!(kind, Kind::Prefix { .. }).then_some(&*text).or(outer);
                self.collect(&scope, prefix, found);
            }
            found.push(Location { directive, kind, text, scope, paths, groups });
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
        for one in
            locations.iter().filter(|one| one.kind == Kind::Prefix { is_final: false } && rank(one) == 1)
        {
            if has_expressions {
                let instead = "it lies within a ^~ location, so its rule stands before those of expressions, which nginx would try first";
                self.ledger.not_mapped(one.directive.id, instead);
            }
        }
        let mut ordered = locations;
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
        let mut rules = self.rewrites(&location.scope, &ground);
        let answers_all = rules.iter().any(|rule| {
            !has_condition(&rule.keys)
                && (rule.keys.get("path").map(str::to_owned) == path_value(&location.paths))
        });
        if !answers_all {
            rules.extend(self.content(&location.scope, &ground));
        }
        rules
    }

    // --- What is answered at once ---

    /// `return`, `rewrite` and `if` of a level, in their order.
    fn rewrites(&mut self, scope: &Scope<'a>, ground: &Ground<'_>) -> Vec<DraftRule> {
        let mut rules = Vec::new();
        for directive in scope.innermost().to_vec() {
            match &*directive.name {
                "return" => {
                    rules.extend(self.answer(
                        directive,
                        &Condition { is_exact: true, ..Condition::default() },
                        ground,
                    ));
                    break;
                }
                "rewrite" => rules.extend(self.rewrite(directive, ground)),
                "if" => rules.extend(self.branch(directive, scope, ground)),
                _ => {}
            }
        }
        // Redirects have the headers that are added to answers.
        for rule in rules.iter_mut().filter(|rule| rule.keys.has_table("redirect")) {
            let mut keys = Keys::default();
            self.response_headers(scope, "proxy", &mut keys);
            keys.remove("set_cookie");
            keys.remove("response_headers.remove");
            rule.keys.extend(&keys);
        }
        rules
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
        let status = match directive.arg(2) {
            "permanent" => 301,
            "redirect" => 302,
            _ if target.starts_with("http://")
                || target.starts_with("https://")
                || target.starts_with("$scheme") =>
            {
                302
            }
            _ => {
                self.ledger.not_mapped(
                    directive.id,
                    "paths are not changed but by a redirect: have the origin know the path that visitors ask for",
                );
                return None;
            }
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
        let Some(mut keys) = condition.within(ground.paths) else {
            self.ledger.not_mapped(
                directive.id,
                "its paths are not those of its location: write a rule with redirect",
            );
            return None;
        };
        keys.set("path", quote_list(&found.globs), &[directive.id]);
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
        let conditions = match self.conditions_of_if(directive) {
            Ok(conditions) => conditions,
            Err(instead) => {
                self.ledger.not_mapped(directive.id, instead);
                return Vec::new();
            }
        };
        let mut rules = Vec::new();
        for condition in &conditions {
            if !condition.is_exact {
                self.ledger.not_mapped(directive.id, "its condition has no exact equal; see the rule");
            }
            let answer = says.iter().find(|one| one.name == "return").copied();
            if let Some(answer) = answer {
                let rule = self.answer(answer, condition, ground);
                if rule.is_some() {
                    self.ledger.mapped(directive.id, "[[site.rule]]");
                }
                rules.extend(rule);
                continue;
            }
            let Some(keys) = condition.within(ground.paths) else {
                self.ledger.not_mapped(
                    directive.id,
                    "its paths are not those of its location: write a rule by hand",
                );
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
                rules.push(rule);
            }
        }
        rules
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
        let mut rules = Vec::new();
        if let Some(except) = scope.own("limit_except") {
            let refused: Vec<&str> = METHODS
                .iter()
                .filter(|method| {
                    !except
                        .args
                        .iter()
                        .any(|allowed| allowed == *method || (allowed == "GET" && **method == "HEAD"))
                })
                .copied()
                .collect();
            if !refused.is_empty() {
                let mut keys = keys.clone();
                keys.set("methods", quote_list(&refused), &[except.id]);
                self.ledger.mapped(except.id, "a rule that refuses the other methods");
                except
                    .children()
                    .iter()
                    .for_each(|child| self.ledger.mapped(child.id, "a rule that refuses the other methods"));
                rules.push(refusal(ground.name, keys, [ground.from, &[except.id]].concat()));
            }
        }
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
            self.caching(&scope, prefix, &mut keys);
        } else {
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

    /// Whether nginx lets through only whom it knows. Nothing that is guarded may be opened.
    fn is_guarded(&mut self, scope: &Scope<'a>) -> bool {
        let mut guards: Vec<&Directive> = Vec::new();
        guards.extend(scope.last("auth_basic").filter(|one| one.arg(0) != "off"));
        guards.extend(scope.last("auth_request").filter(|one| one.arg(0) != "off"));
        guards.extend(scope.last("auth_jwt").filter(|one| one.arg(0) != "off"));
        guards.extend(scope.own("internal"));
        guards.extend(scope.all("deny").into_iter().filter(|one| one.arg(0) == "all"));
        for guard in &guards {
            self.ledger.not_mapped(
                guard.id,
                "nobody is asked who they are: the rule refuses all; let the origin ask, then take the rule out",
            );
        }
        !guards.is_empty()
    }
}

/// Patterns of an expression within a prefix.
fn inside(found: Patterns, outer: Option<&str>) -> Option<Patterns> {
    let Some(outer) = outer.filter(|outer| *outer != "/") else { return Some(found) };
    let globs: Vec<String> = found
        .globs
        .iter()
        .filter_map(|glob| match glob.strip_prefix('*') {
            Some(rest) => Some(format!("{outer}*{rest}")),
            None => glob.starts_with(outer).then(|| glob.clone()),
        })
        .collect();
    (!globs.is_empty()).then_some(Patterns { globs, ..found })
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
