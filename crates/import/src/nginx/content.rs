//! The rules for a location's content: a refusal where it is guarded, else those that pass by the cache, then its own.

use super::answers::{Ground, path_value, required};
use super::caching::PASSES;
use super::conditions::Condition;
use super::parse::Directive;
use super::{FILES_ORIGIN, Scope, World, refusal};
use crate::draft::{DraftRule, Keys, quote, quote_list};

impl<'a> World<'a> {
    /// The rules for a location's content: those that pass by the cache, then its own.
    pub(super) fn content(&mut self, scope: &Scope<'a>, ground: &Ground<'_>) -> Vec<DraftRule> {
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
    pub(super) fn pass(&mut self, scope: &Scope<'a>) -> (Option<(&'a Directive, &'static str)>, Scope<'a>) {
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

    /// Whether nginx lets through only whom it knows, here or where `try_files` leads to. Nothing that is guarded may be opened.
    fn is_guarded(&mut self, scope: &Scope<'a>) -> bool {
        let (_, named) = self.pass(scope);
        let mut guards: Vec<&Directive> = Vec::new();
        for scope in [scope, &named] {
            for name in ["auth_basic", "auth_request", "auth_jwt"] {
                guards.extend(scope.last(name).filter(|one| one.arg(0) != "off"));
            }
            guards.extend(scope.levels.iter().flatten().filter(|one| may_refuse(one)));
            guards.extend(self.denying(scope));
        }
        guards.extend(scope.own("internal"));
        // What is not there for all servers is most often servers.
        let of_all = |world: &Self, one: &Directive| {
            one.name == "include" && world.http.innermost().iter().any(|known| known.id == one.id)
        };
        guards.retain(|one| !of_all(self, one));
        for guard in &guards {
            let instead = match &*guard.name {
                "include" => {
                    "the file is not part of this text, and may say who is kept out: the rule refuses all; import what nginx -T prints"
                }
                _ => {
                    "nobody is asked who they are: the rule refuses all; let the origin ask, then take the rule out"
                }
            };
            self.ledger.not_mapped(guard.id, instead);
        }
        !guards.is_empty()
    }
}

/// Whether a directive may keep somebody out in a way that is not read here: a program, a module's own kind of authentication, a
/// firewall, or a file that is not there.
fn may_refuse(directive: &Directive) -> bool {
    const PROGRAMS: [&str; 4] = ["access_by_lua", "rewrite_by_lua", "server_rewrite_by_lua", "js_access"];
    // Read by themselves, or said beside what asks.
    const READ: [&str; 3] = ["auth_basic", "auth_request", "auth_jwt"];
    const BESIDE: [&str; 4] = ["auth_basic_user_file", "auth_request_set", "auth_delay", "auth_http"];
    let (name, argument) = (&*directive.name, directive.arg(0));
    match name {
        "include" => !is_harmless(argument),
        "modsecurity" => argument == "on",
        _ if PROGRAMS.iter().any(|program| name.starts_with(program)) => true,
        _ => {
            name.starts_with("auth_")
                && argument != "off"
                && !READ.contains(&name)
                && !name.starts_with("auth_jwt_")
                && !BESIDE.iter().any(|helper| name.starts_with(helper))
        }
    }
}

/// Whether a file of this name holds, by custom, what keeps nobody out: variables for programs, or how TLS is spoken.
fn is_harmless(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.ends_with("_params") || file.starts_with("fastcgi") || file == "options-ssl-nginx.conf"
}

/// An address or a network, but not everybody.
fn is_some_network(text: &str) -> bool {
    model::settings::Network::parse(text).is_ok_and(|network| network.prefix_len() > 0)
}
