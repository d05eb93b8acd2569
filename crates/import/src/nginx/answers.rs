//! What nginx answers at once, and under which condition: `return`, `rewrite` that is a redirect, `if`. "Is not"
//! becomes rules for those whom it lets in, and a refusal behind them.

use model::redirect::Redirect;

use super::conditions::Condition;
use super::parse::Directive;
use super::{Scope, World, refusal, wide_refusal};
use crate::draft::{DraftRule, Keys, quote, quote_list};
use crate::ledger::Id;
use crate::pattern::patterns;

/// Rules that are made once all that stands before them is known.
type Rest<'r, 'a> = &'r mut dyn FnMut(&mut World<'a>) -> Vec<DraftRule>;

/// Where a rule applies: the location, or the server.
pub(super) struct Ground<'g> {
    pub(super) name: &'g str,
    pub(super) paths: &'g [String],
    pub(super) groups: &'g [Option<usize>],
    pub(super) from: &'g [Id],
    /// The location's prefix, where it is one.
    pub(super) prefix: Option<&'g str>,
}

impl<'a> World<'a> {
    /// `return`, `rewrite` and `if` of a level, in their order, and then the rest, unless nothing is left for it.
    pub(super) fn rewrites(
        &mut self,
        scope: &Scope<'a>,
        ground: &Ground<'_>,
        rest: Rest<'_, 'a>,
    ) -> Vec<DraftRule> {
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
}

/// The status of a `rewrite` that is a redirect.
pub(super) fn status_of(rewrite: &Directive) -> Option<u16> {
    let is_url = ["http://", "https://", "$scheme"].iter().any(|begin| rewrite.arg(1).starts_with(begin));
    match rewrite.arg(2) {
        "permanent" => Some(301),
        "redirect" => Some(302),
        _ => is_url.then_some(302),
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
pub(super) fn required(rules: Vec<DraftRule>, exceptions: &[Condition]) -> Vec<DraftRule> {
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

pub(super) fn path_value(paths: &[String]) -> Option<String> {
    (!paths.is_empty()).then(|| quote_list(paths))
}

pub(super) fn has_condition(keys: &Keys) -> bool {
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
