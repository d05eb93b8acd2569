//! VCL: what a program of Varnish says in conditions and plain statements, as rules.
//!
//! | VCL | here |
//! |---|---|
//! | `backend` with its probe | origin, `origin_options` |
//! | `if (…) { return (pass); }` in `vcl_recv` | a rule with `cache = false` |
//! | `set req.backend_hint`, `unset req.http.…` | the rule's origin, its request headers and cookies |
//! | `set beresp.ttl`, `.grace`, `.uncacheable`, `unset beresp.http.…` in `vcl_backend_response` | lifetimes of the rule |
//! | `set resp.http.…` in `vcl_deliver` | response headers of the rule |
//!
//! Statements have effects under the conditions around them. Each set of conditions becomes a rule that has the effects of all conditions that hold
//! whenever its own do; where two overlap by chance, the first rule decides alone. Every other statement is reported. Not run:
//! regular substitutions, `call`, directors, inline C, modules.

mod conditions;
mod lexer;

use std::collections::HashMap;

use crate::draft::{Draft, DraftRule, DraftSite, Keys, dotted, quote, secs};
use crate::ledger::{Id, Ledger};
use crate::{Broken, Imported};
use conditions::Condition;
use lexer::{Statement, Token};

/// Stands where nobody is let through, and where no backend is named. No such names exist (RFC 6761 §6.4).
const REFUSED_ORIGIN: &str = "http://refused.invalid";
const NO_ORIGIN: &str = "http://name-an-origin.invalid";

/// Varnish's `default_ttl` and `default_grace`.
const TTL_SECS: u64 = 120;
const GRACE_SECS: u64 = 10;

/// Reads a program.
pub(super) fn import(text: &str, name: &str) -> Result<Imported, Broken> {
    let mut ledger = Ledger::default();
    let program = lexer::read(text, name, &mut ledger)?;
    let mut reader = Reader {
        ledger: &mut ledger,
        backends: HashMap::new(),
        probes: HashMap::new(),
        first: None,
        effects: Vec::new(),
        always_hashes: false,
    };
    reader.declarations(&program);
    for statement in &program {
        if let Some(sub) = statement.name_of("sub") {
            reader.sub(sub, statement);
        }
    }
    let site = reader.site();
    let mut draft = Draft::default();
    draft.edge.set("listen", "[\"0.0.0.0:80\", \"[::]:80\"]", &[]);
    draft.sites.extend(site);
    draft.finish(ledger, "VCL program", name)
}

/// What is said where some conditions hold.
struct Effect {
    condition: Condition,
    keys: Keys,
    from: Vec<Id>,
}

struct Reader<'a> {
    ledger: &'a mut Ledger,
    backends: HashMap<String, Keys>,
    probes: HashMap<String, Keys>,
    first: Option<String>,
    effects: Vec<Effect>,
    /// Whether `vcl_recv` ends by itself, so that Varnish's own, which passes for cookies, is not run.
    always_hashes: bool,
}

impl Reader<'_> {
    fn not_mapped(&mut self, statement: &Statement, instead: &str) {
        statement.each(&mut |one| {
            if self.ledger.is_silent(one.id) {
                self.ledger.not_mapped(one.id, instead);
            }
        });
    }

    // --- Backends ---

    fn declarations(&mut self, program: &[Statement]) {
        for statement in program {
            if let Some(name) = statement.name_of("probe") {
                let keys = self.probe(statement);
                self.probes.insert(name.to_owned(), keys);
                self.ledger.mapped(statement.id, "origin_options.health");
            }
        }
        for statement in program {
            match statement.words().first().copied() {
                Some("vcl") => self.ledger.not_needed(statement.id, "the version of the language"),
                Some("import") => self
                    .ledger
                    .not_mapped(statement.id, "modules are not loaded: see what is said of their calls"),
                Some("include") => self.ledger.not_mapped(
                    statement.id,
                    "the file is not part of this text: import it by itself, or put it here",
                ),
                Some("acl") => self.not_mapped(
                    statement,
                    "rules do not know who asks: block lists networks; purges need a token",
                ),
                Some("backend") => self.backend(statement),
                _ => {}
            }
        }
    }

    fn backend(&mut self, statement: &Statement) {
        let Some(name) = statement.name_of("backend") else { return };
        let (mut keys, mut host, mut port) = (Keys::default(), String::new(), "80".to_owned());
        let mut ids = vec![statement.id];
        for field in &statement.block {
            let words = field.words();
            let (Some(key), Some(value)) = (words.first().copied(), field.value()) else { continue };
            let id = [field.id];
            match key {
                ".host" => {
                    host = value.to_owned();
                    ids.push(field.id);
                }
                ".port" => {
                    port = value.to_owned();
                    ids.push(field.id);
                }
                ".host_header" => self.map(&mut keys, "origin_options.host", quote(value), &id),
                ".connect_timeout" => self.time(&mut keys, "origin_options.timeouts.connect", field),
                ".first_byte_timeout" => self.time(&mut keys, "origin_options.timeouts.first_byte", field),
                ".between_bytes_timeout" => self.time(&mut keys, "origin_options.timeouts.idle", field),
                ".max_connections" => self.ledger.not_mapped(
                    field.id,
                    "write origin_options.budget with in_flight, for all edges together",
                ),
                ".probe" if field.block.is_empty() => {
                    self.ledger.mapped(field.id, "origin_options.health");
                    if let Some(probe) = self.probes.get(value).cloned() {
                        keys.extend(&probe);
                    }
                }
                ".path" => {
                    self.ledger.not_mapped(field.id, "origins are reached by TCP: have it listen on a port")
                }
                _ => {}
            }
        }
        for field in statement
            .block
            .iter()
            .filter(|field| field.words().first() == Some(&".probe") && !field.block.is_empty())
        {
            self.ledger.mapped(field.id, "origin_options.health");
            let probe = self.probe(field);
            keys.extend(&probe);
        }
        if host.is_empty() {
            self.ledger.not_mapped(statement.id, "it has no .host: name an origin");
            return;
        }
        let host = host.split_once(':').filter(|_| host.matches(':').count() == 1).map_or(
            &*host,
            |(bare, of_host)| {
                of_host.clone_into(&mut port);
                bare
            },
        );
        let port = if port == "80" || port == "http" { String::new() } else { format!(":{port}") };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.map(&mut keys, "origin", quote(&format!("http://{host}{port}")), &ids);
        self.first.get_or_insert_with(|| name.to_owned());
        self.backends.insert(name.to_owned(), keys);
    }

    fn probe(&mut self, statement: &Statement) -> Keys {
        let mut keys = Keys::default();
        for field in &statement.block {
            let (Some(key), Some(value)) = (field.words().first().copied(), field.value()) else { continue };
            let id = &[field.id];
            match key {
                ".url" => self.map(&mut keys, "origin_options.health.path", quote(value), id),
                ".interval" => self.time(&mut keys, "origin_options.health.interval", field),
                ".timeout" => self.time(&mut keys, "origin_options.health.timeout", field),
                ".expected_response" => self.map(
                    &mut keys,
                    "origin_options.health.statuses",
                    value.parse::<u16>().map_or(quote(value), |code| code.to_string()),
                    id,
                ),
                ".threshold" | ".window" | ".initial" => {
                    self.ledger.not_mapped(
                        field.id,
                        "write down_after and up_after in origin_options.health: probes in a row count",
                    );
                }
                ".request" => self
                    .ledger
                    .not_mapped(field.id, "probes are GET requests: write origin_options.health.path"),
                _ => {}
            }
        }
        keys
    }

    fn map(&mut self, keys: &mut Keys, key: &str, value: impl Into<String>, from: &[Id]) {
        keys.set(key, value, from);
        from.iter().for_each(|id| self.ledger.mapped(*id, key));
    }

    fn time(&mut self, keys: &mut Keys, key: &str, field: &Statement) {
        match field.duration_ms() {
            Some(ms) => {
                let time = quote(&model::units::write_duration(std::time::Duration::from_millis(ms)));
                self.map(keys, key, time, &[field.id]);
            }
            None => self.ledger.not_mapped(field.id, format!("its time is computed: write {key}")),
        }
    }

    // --- Subroutines ---

    fn sub(&mut self, name: &str, statement: &Statement) {
        match name {
            "vcl_recv" | "vcl_backend_response" | "vcl_fetch" | "vcl_deliver" => {
                self.ledger.mapped(statement.id, "[[site.rule]]");
                self.block(name, &statement.block, &[Condition::default()], false);
            }
            "vcl_init" | "vcl_fini" => {
                self.not_mapped(
                    statement,
                    "programs are not run: of several backends, write a list into origin",
                );
            }
            "vcl_hash" => {
                self.ledger.mapped(statement.id, "key");
                self.hash(&statement.block, &Condition::default());
            }
            "vcl_hit" | "vcl_miss" | "vcl_pass" | "vcl_pipe" | "vcl_purge" | "vcl_synth" | "vcl_error"
            | "vcl_backend_fetch" | "vcl_backend_error" => {
                self.not_mapped(statement, "programs are not run: what is stale answers by stale_if_error, WebSocket passes by itself, errors are the origin's");
            }
            _ => self.not_mapped(
                statement,
                "programs are not run: what it does where it is called has to be said in rules",
            ),
        }
    }

    /// Statements under conditions of which one has to hold. `is_hidden`: what stands around it is not known, so nothing may come of it.
    fn block(&mut self, sub: &str, block: &[Statement], around: &[Condition], is_hidden: bool) {
        let mut is_else_of = false;
        for statement in block {
            let words = statement.words();
            match words.first().copied() {
                Some("if") => {
                    is_else_of = true;
                    self.branch(sub, statement, around, is_hidden);
                }
                Some("else" | "elsif" | "elseif" | "elif") if is_else_of => {
                    // Where the first did not hold; rules go in order, so its own condition is enough.
                    if statement.words().get(1) == Some(&"if") || words[0] != "else" {
                        self.branch(sub, statement, around, is_hidden);
                    } else {
                        self.ledger.mapped(statement.id, "a rule after those before it");
                        self.block(sub, &statement.block, around, is_hidden);
                    }
                }
                _ => {
                    is_else_of = false;
                    self.statement(sub, statement, around, is_hidden);
                }
            }
        }
    }

    fn branch(&mut self, sub: &str, statement: &Statement, around: &[Condition], is_hidden: bool) {
        let found = conditions::read(statement.condition());
        let joined: Result<Vec<Condition>, String> = found.and_then(|ways| {
            let mut joined = Vec::new();
            for outer in around {
                for way in &ways {
                    joined.push(
                        outer.and(way).ok_or("two of the conditions around it have no common pattern")?,
                    );
                }
            }
            Ok(joined)
        });
        match joined {
            Ok(joined) if !is_hidden => {
                self.ledger.mapped(statement.id, "conditions of a rule");
                if joined.iter().any(|condition| !condition.is_exact) {
                    self.ledger.not_mapped(statement.id, "its condition has no exact equal; see the rule");
                }
                self.block(sub, &statement.block, &joined, false);
            }
            Ok(_) => self.not_mapped(statement, "it stands within a condition that is not mapped"),
            Err(why) => self.not_mapped(statement, &format!("its condition cannot be said by a rule: {why}")),
        }
    }

    fn effect(&mut self, around: &[Condition], key: &str, value: impl Into<String>, id: Id) {
        let value = value.into();
        self.ledger.mapped(id, key);
        for condition in around {
            let mut keys = Keys::default();
            keys.set(key, &*value, &[id]);
            self.effects.push(Effect { condition: condition.clone(), keys, from: vec![id] });
        }
    }

    fn statement(&mut self, sub: &str, statement: &Statement, around: &[Condition], is_hidden: bool) {
        let id = statement.id;
        if is_hidden {
            return self.not_mapped(statement, "it stands within a condition that is not mapped");
        }
        let words = statement.words();
        match (words.first().copied().unwrap_or_default(), words.get(1).copied().unwrap_or_default()) {
            ("return", _) => self.ending(sub, statement, around),
            ("unset" | "remove", target) => self.unset(statement, target, around),
            ("set", target) => self.set(statement, target, around),
            ("error", code) => self.refuse(id, code, around),
            ("call", _) => {
                self.ledger.not_mapped(id, "programs are not run: what it does has to be said in rules")
            }
            ("std.collect" | "std.log" | "std.syslog" | "std.querysort", _) => {
                self.ledger.not_mapped(
                    id,
                    "modules are not run: the order of a query's parts is of no account with query.sort",
                );
            }
            ("ban" | "purge", _) => self.ledger.not_mapped(id, "purge by perigee purge, or by the API"),
            ("new", _) => self.ledger.not_mapped(
                id,
                "requests are not spread: of a list of origins the first that is well is asked",
            ),
            _ => {}
        }
    }

    /// `return (…)`.
    fn ending(&mut self, sub: &str, statement: &Statement, around: &[Condition]) {
        let id = statement.id;
        let words = statement.words();
        let action =
            words.iter().find(|word| !matches!(**word, "return" | "(" | ")")).copied().unwrap_or_default();
        let is_unconditional = around.iter().all(Condition::is_always);
        match (sub, action) {
            ("vcl_recv", "pass" | "pipe") => self.effect(around, "cache", "false", id),
            ("vcl_recv", "hash" | "lookup") => {
                self.always_hashes |= is_unconditional;
                if is_unconditional {
                    self.ledger.not_needed(id, "what is not passed is looked up");
                } else {
                    // Before what comes later could pass it.
                    self.effect(around, "cache", "true", id);
                }
            }
            ("vcl_recv", "synth" | "error") => {
                let code = words.iter().find(|word| word.parse::<u16>().is_ok()).copied().unwrap_or_default();
                self.refuse(id, code, around);
            }
            ("vcl_recv", "purge") => self.ledger.not_mapped(id, "purge by perigee purge, or by the API"),
            ("vcl_backend_response" | "vcl_fetch", "pass" | "hit_for_pass" | "abandon") => {
                self.effect(around, "cache", "false", id)
            }
            (_, "deliver" | "fetch" | "ok") => self.ledger.not_needed(id, "it goes on so by itself"),
            (_, action) => {
                self.ledger.not_mapped(id, format!("{action:?} has no equal: programs are not run"))
            }
        }
    }

    /// An answer that is made here.
    fn refuse(&mut self, id: Id, code: &str, around: &[Condition]) {
        match code.parse::<u16>() {
            Ok(400..=599) if !around.iter().any(Condition::is_always) => {
                self.ledger.not_mapped(id, "the rule has an origin that does not exist: let the origin refuse, then take the rule out");
                for condition in around {
                    let mut keys = Keys::default();
                    keys.set("origin", quote(REFUSED_ORIGIN), &[id]);
                    keys.set("cache", "false", &[id]);
                    self.effects.push(Effect { condition: condition.clone(), keys, from: vec![id] });
                }
            }
            _ => self.ledger.not_mapped(
                id,
                "the edge makes no answers but redirects: write redirect in a rule, or https = \"redirect\"",
            ),
        }
    }

    fn unset(&mut self, statement: &Statement, target: &str, around: &[Condition]) {
        let id = statement.id;
        let lower = target.to_ascii_lowercase();
        match &*lower {
            "req.http.cookie" | "bereq.http.cookie" => {
                self.effect(around, "request_cookies", quote("none"), id)
            }
            "beresp.http.set-cookie" => self.effect(around, "set_cookie", quote("strip"), id),
            "req.http.accept-encoding" => {
                self.ledger.not_needed(id, "one copy is kept, and others are made of it")
            }
            "beresp.http.cache-control" | "beresp.http.expires" | "beresp.http.pragma" => {
                self.ledger.not_mapped(id, "what the origin says of lifetimes is overridden by ttl, and sent to visitors: see browser_ttl");
            }
            "beresp.http.vary" => {
                self.ledger.not_mapped(id, "Vary is obeyed: make spellings equal by the key vary")
            }
            _ => {
                let (table, name) = match lower.split_once(".http.") {
                    Some(("req" | "bereq", _)) => (
                        "request_headers",
                        &target
                            [target.len() - lower.split_once(".http.").map_or(0, |(_, name)| name.len())..],
                    ),
                    Some(("beresp" | "resp" | "obj", _)) => (
                        "response_headers",
                        &target
                            [target.len() - lower.split_once(".http.").map_or(0, |(_, name)| name.len())..],
                    ),
                    _ => return self.ledger.not_mapped(id, format!("{target} has no equal here")),
                };
                self.remove(around, table, name, id);
            }
        }
    }

    /// A removal; those of one condition stand in one list, which the rule puts together.
    fn remove(&mut self, around: &[Condition], table: &str, name: &str, id: Id) {
        // Each has a key of its own here, and they become one list in the rule.
        self.effect(around, &dotted(&format!("{table}.remove"), name), quote(name), id);
    }

    fn set(&mut self, statement: &Statement, target: &str, around: &[Condition]) {
        let id = statement.id;
        let lower = target.to_ascii_lowercase();
        match &*lower {
            "beresp.ttl" => match statement.duration_ms() {
                Some(ms) => self.effect(around, "ttl", secs(ms / 1000), id),
                None => self.ledger.not_mapped(id, "its time is computed: write ttl"),
            },
            "beresp.grace" => match statement.duration_ms() {
                Some(ms) => {
                    self.effect(around, "stale_while_revalidate", secs(ms / 1000), id);
                    self.effect(around, "stale_if_error", secs(ms / 1000), id);
                }
                None => self
                    .ledger
                    .not_mapped(id, "its time is computed: write stale_while_revalidate and stale_if_error"),
            },
            "beresp.keep" | "req.grace" => {
                self.ledger.not_needed(id, "what is stale is kept as long as there is room, and validated")
            }
            "beresp.uncacheable" if statement.value() == Some("true") => {
                self.effect(around, "cache", "false", id)
            }
            "beresp.do_gzip"
            | "beresp.do_gunzip"
            | "beresp.do_stream"
            | "req.hash_ignore_busy"
            | "beresp.storage" => {
                self.ledger.not_needed(id, "it is done so by itself");
            }
            "beresp.do_esi" => {
                self.ledger.not_mapped(id, "pages are not put together (ESI): let the origin do it")
            }
            "req.backend_hint" | "req.backend" | "bereq.backend" => {
                let name = statement.value().unwrap_or_default();
                match self.backends.get(name).cloned() {
                    Some(keys) => {
                        self.ledger.mapped(id, "origin");
                        for condition in around {
                            self.effects.push(Effect {
                                condition: condition.clone(),
                                keys: keys.clone(),
                                from: vec![id],
                            });
                        }
                    }
                    None => self
                        .ledger
                        .not_mapped(id, format!("{name:?} is no backend of this text: name an origin")),
                }
            }
            "req.url" | "bereq.url" => {
                self.ledger.not_mapped(id, "paths are not changed; parameters that are of no account: query = { drop = [\"utm_*\"] }");
            }
            "req.http.host" => {
                self.ledger.not_mapped(id, "write all hosts into domains, and origin_options.host")
            }
            "bereq.http.host" => match statement.literal() {
                Some(host) => self.effect(around, "origin_options.host", quote(host), id),
                None => self.ledger.not_mapped(id, "write origin_options.host"),
            },
            "req.http.x-forwarded-for" | "bereq.http.x-forwarded-for" => {
                self.ledger.not_needed(id, "it is sent by itself")
            }
            "req.http.cookie" => {
                self.ledger.not_mapped(id, "write request_cookies = { keep = […] }, and key.cookies")
            }
            "beresp.http.cache-control" | "resp.http.cache-control" if statement.literal().is_some() => {
                let value = statement.literal().unwrap_or_default();
                self.effect(around, "response_headers.set.Cache-Control", quote(value), id);
            }
            _ => {
                let name =
                    &target[target.len() - lower.split_once(".http.").map_or(0, |(_, name)| name.len())..];
                let table = match lower.split_once(".http.") {
                    Some(("req" | "bereq", _)) => "request_headers",
                    Some(("beresp" | "resp", _)) => "response_headers",
                    _ => return self.ledger.not_mapped(id, format!("{target} has no equal here")),
                };
                match statement.literal() {
                    _ if name.to_ascii_lowercase().starts_with("x-cache") => {
                        self.ledger.not_needed(id, "Cache-Status (RFC 9211) says it on every answer");
                    }
                    Some(value) => {
                        self.effect(around, &dotted(&format!("{table}.set"), name), quote(value), id)
                    }
                    None => self.ledger.not_mapped(id, "values are not computed: let the origin send it"),
                }
            }
        }
    }

    fn hash(&mut self, block: &[Statement], around: &Condition) {
        for statement in block {
            let words = statement.words();
            match words.first().copied() {
                Some("hash_data") => {
                    let what = words
                        .iter()
                        .find(|word| word.contains('.'))
                        .copied()
                        .unwrap_or_default()
                        .to_ascii_lowercase();
                    match &*what {
                        "req.url" | "req.http.host" | "server.ip" => self.ledger.not_needed(
                            statement.id,
                            "site, scheme, host, path and query always belong to the key",
                        ),
                        "req.http.x-forwarded-proto" => {
                            self.ledger.not_needed(statement.id, "the scheme always belongs to the key")
                        }
                        what => match what.strip_prefix("req.http.") {
                            Some(name) => self.effect(
                                std::slice::from_ref(around),
                                "key.headers",
                                quote(name),
                                statement.id,
                            ),
                            None => self
                                .ledger
                                .not_mapped(statement.id, "write key.headers, key.cookies or key.device"),
                        },
                    }
                }
                Some("return") => self.ledger.not_needed(statement.id, "it goes on so by itself"),
                // What counts only under a condition counts always: more keys, and never a wrong one.
                Some("if" | "else" | "elsif" | "elseif" | "elif") => {
                    self.ledger.not_needed(statement.id, "what is in it belongs to every key");
                    self.hash(&statement.block, around);
                }
                _ => {}
            }
        }
    }

    // --- The site ---

    fn site(&mut self) -> Option<DraftSite> {
        let first = self.first.as_ref().and_then(|name| self.backends.get(name)).cloned();
        if first.is_none() && self.effects.is_empty() {
            return None;
        }
        let mut base = Keys::default();
        base.extend(&first.unwrap_or_default());
        if base.get("origin").is_none() {
            base.set("origin", quote(NO_ORIGIN), &[]);
        }
        let mut conditions: Vec<Condition> = Vec::new();
        // What refuses or passes comes first, as vcl_recv does.
        for is_pass in [true, false] {
            for effect in &self.effects {
                let passes = effect.keys.get("cache") == Some("false");
                if passes == is_pass
                    && !effect.condition.is_always()
                    && !conditions.contains(&effect.condition)
                {
                    conditions.push(effect.condition.clone());
                }
            }
        }
        conditions.push(Condition::default());
        let mut rules: Vec<DraftRule> = Vec::new();
        for condition in conditions {
            let mut rule = DraftRule { name: condition.name(), ..DraftRule::default() };
            let mut said = base.clone();
            let mut removed: HashMap<&str, (Vec<String>, Vec<Id>)> = HashMap::new();
            let mut keyed: (Vec<String>, Vec<Id>) = Default::default();
            for effect in self.effects.iter().filter(|effect| effect.condition.covers(&condition)) {
                if effect.condition == condition {
                    rule.from.extend(&effect.from);
                }
                for table in ["request_headers", "response_headers"] {
                    if let Some(name) = effect.keys.first_under(&format!("{table}.remove.")) {
                        let list = removed.entry(table).or_default();
                        list.0.push(name.to_owned());
                        list.1.extend(&effect.from);
                    }
                }
                if let Some(name) = effect.keys.get("key.headers") {
                    keyed.0.push(name.to_owned());
                    keyed.1.extend(&effect.from);
                }
                said.extend(&effect.keys);
            }
            said.remove_under("request_headers.remove.");
            said.remove_under("response_headers.remove.");
            for table in ["request_headers", "response_headers"] {
                if let Some((mut names, from)) = removed.remove(table) {
                    names.dedup();
                    said.set(format!("{table}.remove"), format!("[{}]", names.join(", ")), &from);
                }
            }
            if !keyed.0.is_empty() {
                keyed.0.dedup();
                said.set("key.headers", format!("[{}]", keyed.0.join(", ")), &keyed.1);
            }
            rule.keys = condition.keys(&rule.from);
            let is_passed = said.get("cache") == Some("false");
            if is_passed {
                for key in ["ttl", "stale_while_revalidate", "stale_if_error", "set_cookie"] {
                    said.remove(key);
                }
                said.remove_table("key");
                rule.keys.extend(&said);
                rules.push(rule);
                continue;
            }
            if said.get("cache") == Some("true") {
                said.remove("cache");
            }
            if said.get("ttl").is_none() {
                said.set("ttl", secs(TTL_SECS), &[]);
                said.set("ttl_overrides", "false", &[]);
            }
            if said.get("stale_while_revalidate").is_none() {
                said.set("stale_while_revalidate", secs(GRACE_SECS), &[]);
            }
            // Varnish's own vcl_recv passes what has a cookie or Authorization.
            let asks_by_cookie = said.get("request_cookies").is_none() && !rule.keys.has_table("with_cookie");
            if !self.always_hashes && asks_by_cookie && !rule.keys.has_table("with_header") {
                let mut passed = DraftRule {
                    name: format!("{}-with-cookies", rule.name),
                    from: rule.from.clone(),
                    keys: rule.keys.clone(),
                    ..DraftRule::default()
                };
                passed.remarks.push("Varnish passes requests with cookies, unless the program takes them away or looks them up by itself.".into());
                passed.keys.set("with_header.Cookie", "true", &[]);
                passed.keys.extend(&base);
                passed.keys.set("cache", "false", &[]);
                rules.push(passed);
            }
            rule.keys.extend(&said);
            rules.push(rule);
        }
        let mut keys = Keys::default();
        keys.set("domains", quote("*"), &[]);
        keys.set("origin", base.get("origin").unwrap_or_default().to_owned(), &[]);
        keys.set("heuristic.percent", "0", &[]);
        // Nor are static files opened to scripts of other sites.
        keys.set("cors", quote("off"), &[]);
        Some(DraftSite { name: "default".into(), from: Vec::new(), keys, rules })
    }
}

impl Statement {
    /// The name behind a keyword, as in `backend default {`.
    fn name_of(&self, keyword: &str) -> Option<&str> {
        match self.words()[..] {
            [first, name, ..] if first == keyword => Some(name),
            _ => None,
        }
    }

    /// What stands behind `=`, if it is one word or text.
    fn value(&self) -> Option<&str> {
        let equals = self.tokens.iter().position(|token| token.is("="))?;
        match &self.tokens[equals + 1..] {
            [] => None,
            [one] => Some(one.text()),
            [one, Token::Sign(open), ..] if open == "(" => Some(one.text()),
            [one, ..] => Some(one.text()),
        }
    }

    /// The text behind `=`, if nothing else is there.
    fn literal(&self) -> Option<&str> {
        let equals = self.tokens.iter().position(|token| token.is("="))?;
        match &self.tokens[equals + 1..] {
            [Token::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The time behind `=`, if nothing else is there.
    fn duration_ms(&self) -> Option<u64> {
        let equals = self.tokens.iter().position(|token| token.is("="))?;
        match &self.tokens[equals + 1..] {
            [Token::Word(word)] => lexer::duration_ms(word),
            _ => None,
        }
    }
}
