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
//! The program is followed for all requests at once: a list of [`Path`]s, each with the conditions under which a request takes it, in
//! the order in which rules are tried. An `if` parts a path in those for which it holds, which come first, and the rest; what ends a path
//! (`return`) keeps later statements from it. So each path becomes a rule, and the last is for all that is left.
//!
//! Whether a condition holds that no rule can say is not known. Then what it would do is not done, but for what keeps something from
//! visitors: who might be refused is refused, and what might not be shared is not, for all who come there. Not run: regular
//! substitutions, directors, inline C, modules.

mod conditions;
mod lexer;

use std::collections::{BTreeSet, HashMap};

use crate::condition::Condition;
use crate::draft::{Draft, DraftRule, DraftSite, Keys, close, dotted, quote, secs, simplify};
use crate::ledger::{Id, Ledger, Outcome};
use crate::{Broken, Imported};
use conditions::Expr;
use lexer::{Statement, Token};

/// Stands where no backend is named. No such name exists (RFC 6761 §6.4).
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
        subs: HashMap::new(),
        backends: HashMap::new(),
        probes: HashMap::new(),
        first: None,
        computed: BTreeSet::new(),
        count: 1,
    };
    reader.declarations(&program);
    for statement in &program {
        if let Some(name) = statement.name_of("sub") {
            reader.subs.entry(name).or_default().push(statement);
        }
    }
    let site = reader.follow();
    let mut draft = Draft::default();
    draft.edge.set("listen", "[\"0.0.0.0:80\", \"[::]:80\"]", &[]);
    draft.sites.extend(site);
    draft.finish(ledger, "VCL program", name)
}

/// Requests that take the same way through the program, as far as it has been followed.
#[derive(Clone, Debug, Default)]
struct Path {
    condition: Condition,
    /// What has been said on the way.
    keys: Keys,
    from: Vec<Id>,
    /// Why nobody is let through.
    refused: Option<String>,
    is_passed: bool,
    /// Whether it may be passed for a condition that cannot be said, so that what the origin is sent stays as it is.
    is_maybe_passed: bool,
    /// The subroutine has ended for it.
    is_ended: bool,
    /// So has one that was called.
    has_returned: bool,
    /// vcl_recv has ended by itself, so that Varnish's own, which passes for cookies, is not run.
    is_hashed: bool,
    /// So has vcl_backend_response.
    is_delivered: bool,
    /// Longest lifetime that is said under a condition which cannot be said.
    ttl_max_ms: Option<u64>,
}

/// How sure it is that a statement is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Sure,
    Unsure,
    /// It depends on the query, which belongs to the key: what is kept is for those who ask with the same.
    OfQuery,
    /// It depends on the response's being an error.
    OfErrors,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Holds,
    Fails,
    Open(Reach),
}

struct Reader<'a> {
    ledger: &'a mut Ledger,
    subs: HashMap<&'a str, Vec<&'a Statement>>,
    backends: HashMap<String, Keys>,
    probes: HashMap<String, Keys>,
    first: Option<String>,
    /// Request headers, in lower case, whose values the program computes.
    computed: BTreeSet<String>,
    /// How many paths there are.
    count: usize,
}

/// Paths, at most: each becomes a rule. A condition that would make more is as one that cannot be said.
const PATHS_MAX: usize = 128;

/// Calls within calls, at most.
const CALLS_MAX: usize = 8;

impl<'a> Reader<'a> {
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

    // --- Following ---

    /// All of the program, and the site that comes of it.
    fn follow(&mut self) -> Option<DraftSite> {
        self.note_what_is_computed();
        let subs: Vec<(&'a str, Vec<&'a Statement>)> =
            self.subs.iter().map(|(name, of)| (*name, of.clone())).collect();
        let mut paths = vec![Path::default()];
        let mut is_empty = true;
        for name in FOLLOWED {
            let Some((_, statements)) = subs.iter().find(|(known, _)| *known == name) else { continue };
            is_empty = false;
            for path in &mut paths {
                path.is_ended = path.refused.is_some();
            }
            for statement in statements {
                self.ledger.mapped(statement.id, if name == "vcl_hash" { "key" } else { "[[site.rule]]" });
                paths = self.run(name, &statement.block, paths, Reach::Sure, 0);
            }
        }
        for (name, statements) in &subs {
            for statement in statements.iter().filter(|_| !FOLLOWED.contains(name)) {
                paths = self.not_followed(name, statement, paths);
            }
        }
        self.speak_for_the_unreached(&subs);
        (self.first.is_some() || !is_empty).then(|| self.site(paths))
    }

    /// What is not run, but may keep something from visitors.
    fn not_followed(&mut self, name: &str, statement: &'a Statement, paths: Vec<Path>) -> Vec<Path> {
        let (instead, is_hook) = match name {
            "vcl_init" | "vcl_fini" => {
                ("programs are not run: of several backends, write a list into origin", false)
            }
            "vcl_hit" | "vcl_miss" | "vcl_pass" => (NOT_RUN, true),
            "vcl_pipe" | "vcl_purge" | "vcl_synth" | "vcl_error" | "vcl_backend_fetch"
            | "vcl_backend_error" => (NOT_RUN, false),
            // Where it is called, it is run.
            _ => return paths,
        };
        let paths = match is_hook {
            true => {
                let mut paths = paths;
                paths.iter_mut().for_each(|path| path.is_ended = path.refused.is_some());
                self.run("vcl_hit", &statement.block, paths, Reach::Unsure, 0)
            }
            false => paths,
        };
        self.not_mapped(statement, instead);
        paths
    }

    /// Headers of requests whose values no rule can say: a key that has one of them would tell nobody apart.
    fn note_what_is_computed(&mut self) {
        let mut computed = BTreeSet::new();
        for statement in self.subs.values().flatten() {
            statement.each(&mut |one| {
                let words = one.words();
                if let [first, target, ..] = words[..]
                    && first == "set"
                    && let Some((_, header)) = target.to_ascii_lowercase().split_once("req.http.")
                    && one.literal().is_none()
                {
                    computed.insert(header.to_owned());
                }
            });
        }
        self.computed = computed;
    }

    fn speak_for_the_unreached(&mut self, subs: &[(&'a str, Vec<&'a Statement>)]) {
        let known: Vec<&str> = FOLLOWED.to_vec();
        for (name, statements) in subs {
            for statement in statements {
                let is_followed = known.contains(name) || !self.ledger.is_silent(statement.id);
                statement.each(&mut |one| {
                    if self.ledger.is_silent(one.id) {
                        let outcome = match is_followed {
                            true => Outcome::NotNeeded(
                                "nothing comes there: what stands before it ends it, or is refused".into(),
                            ),
                            false => {
                                Outcome::NotMapped("it is called by nothing that is followed here".into())
                            }
                        };
                        self.ledger.note(one.id, outcome);
                    }
                });
            }
        }
    }

    /// The statements of a block, for each of the paths that come there.
    fn run(
        &mut self,
        sub: &str,
        block: &'a [Statement],
        paths: Vec<Path>,
        reach: Reach,
        depth: usize,
    ) -> Vec<Path> {
        let mut paths = paths;
        let mut at = 0;
        while at < block.len() {
            let length = chain_length(&block[at..]);
            let mut next = Vec::new();
            for mut path in paths {
                match () {
                    () if path.is_ended || path.has_returned => next.push(path),
                    () if length > 0 => {
                        next.extend(self.branches(sub, &block[at..at + length], path, reach, depth))
                    }
                    () if block[at].words().first() == Some(&"call") => {
                        next.extend(self.call(sub, &block[at], path, reach, depth));
                    }
                    () => {
                        self.statement(sub, &block[at], &mut path, reach);
                        next.push(path);
                    }
                }
            }
            paths = next;
            at += length.max(1);
        }
        paths
    }

    /// `if`, and what of `elsif` and `else` follows.
    fn branches(
        &mut self,
        sub: &str,
        chain: &'a [Statement],
        path: Path,
        reach: Reach,
        depth: usize,
    ) -> Vec<Path> {
        let Some((first, rest)) = chain.split_first() else { return vec![path] };
        let words = first.words();
        if words.first() == Some(&"else") && words.get(1) != Some(&"if") && sub != "vcl_hash" {
            match reach {
                Reach::Sure => self.ledger.mapped(first.id, "a rule after those before it"),
                Reach::OfQuery if !self.ledger.is_silent(first.id) => {}
                _ => self.ledger.not_mapped(first.id, UNKNOWN_AROUND),
            }
            return self.run(sub, &first.block, vec![path], reach, depth);
        }
        if sub == "vcl_hash" {
            return self.branches_of_hash(chain, path, depth);
        }
        let expr = conditions::read(first.condition());
        if expr.is_unkept() && is_about_keeping(&first.block) {
            let instead = "what sets a cookie, or says that no cache may keep it, is not stored";
            first.each(&mut |one| self.ledger.not_needed(one.id, instead));
            return self.branches(sub, rest, path, reach, depth);
        }
        let mut found = Vec::new();
        for (mut path, truth) in self.part(&expr, path) {
            match truth {
                Truth::Fails => found.extend(self.branches(sub, rest, path, reach, depth)),
                Truth::Holds => {
                    match reach {
                        Reach::Sure => self.ledger.mapped(first.id, "conditions of a rule"),
                        Reach::OfQuery if !self.ledger.is_silent(first.id) => {}
                        _ => self.ledger.not_mapped(first.id, UNKNOWN_AROUND),
                    }
                    if !path.condition.is_exact {
                        self.ledger.not_mapped(first.id, "its condition has no exact equal; see the rule");
                    }
                    path.from.push(first.id);
                    found.extend(self.run(sub, &first.block, vec![path], reach, depth));
                }
                Truth::Open(open) => {
                    if open != Reach::OfQuery || self.ledger.is_silent(first.id) {
                        let why = why_unsure(&expr).unwrap_or("it would take too many rules");
                        self.ledger
                            .not_mapped(first.id, format!("its condition cannot be said by a rule: {why}"));
                    }
                    let reach = if reach == Reach::Sure { open } else { reach };
                    for path in self.run(sub, &first.block, vec![path], reach, depth) {
                        match path.is_ended {
                            true => found.push(path),
                            false => found.extend(self.branches(sub, rest, path, reach, depth)),
                        }
                    }
                }
            }
        }
        found
    }

    /// What belongs to the key under a condition belongs to every key.
    fn branches_of_hash(&mut self, chain: &'a [Statement], path: Path, depth: usize) -> Vec<Path> {
        let mut paths = vec![path];
        for statement in chain {
            self.ledger.not_needed(statement.id, "what is in it belongs to every key");
            paths = self.run("vcl_hash", &statement.block, paths, Reach::Unsure, depth);
        }
        paths
    }

    /// Those of a path for whom a condition holds, those for whom it does not, and those of whom that is not known, in the order in which
    /// rules are tried.
    fn part(&mut self, expr: &Expr, path: Path) -> Vec<(Path, Truth)> {
        match expr {
            Expr::Is(ways) => {
                let mut parts = Vec::new();
                for way in ways {
                    if way.covers(&path.condition) && !way.is_wide {
                        parts.push((path, Truth::Holds));
                        return parts;
                    }
                    let Some(condition) = path.condition.and(way) else { continue };
                    if self.count >= PATHS_MAX {
                        parts.push((path, Truth::Open(Reach::Unsure)));
                        return parts;
                    }
                    self.count += 1;
                    parts.push((Path { condition, ..path.clone() }, Truth::Holds));
                }
                parts.push((path, Truth::Fails));
                parts
            }
            Expr::Perhaps(ways, _) => {
                let parts = self.part(&Expr::Is(ways.clone()), path).into_iter();
                let open = |truth| if truth == Truth::Holds { Truth::Open(Reach::Unsure) } else { truth };
                parts.map(|(path, truth)| (path, open(truth))).collect()
            }
            Expr::Unsure(_) | Expr::Unkept => vec![(path, Truth::Open(Reach::Unsure))],
            Expr::OfQuery(_) => vec![(path, Truth::Open(Reach::OfQuery))],
            Expr::OfErrors => vec![(path, Truth::Open(Reach::OfErrors))],
            Expr::Not(inner) => {
                let flip = |truth| match truth {
                    Truth::Holds => Truth::Fails,
                    Truth::Fails => Truth::Holds,
                    // That it is no error says nothing.
                    Truth::Open(Reach::OfErrors) => Truth::Open(Reach::Unsure),
                    open => open,
                };
                self.part(inner, path).into_iter().map(|(path, truth)| (path, flip(truth))).collect()
            }
            Expr::All(parts) => self.part_by(parts, path, Truth::Holds),
            Expr::Any(parts) => self.part_by(parts, path, Truth::Fails),
        }
    }

    /// `&&` (all have to hold) and `||` (the first that holds is enough): `neutral` is what leaves it to the others.
    fn part_by(&mut self, exprs: &[Expr], path: Path, neutral: Truth) -> Vec<(Path, Truth)> {
        let mut parts = vec![(path, neutral)];
        let decided = if neutral == Truth::Holds { Truth::Fails } else { Truth::Holds };
        for expr in exprs {
            let mut next = Vec::new();
            for (path, before) in parts {
                if before == decided {
                    next.push((path, before));
                    continue;
                }
                for (path, truth) in self.part(expr, path) {
                    let both = match (before, truth) {
                        (_, truth) if truth == decided => decided,
                        (Truth::Open(one), Truth::Open(other)) if one == other => before,
                        // Of all, the one that says least decides; of any, the one that says most.
                        (Truth::Open(one), Truth::Open(other)) => {
                            let least = if one == Reach::Unsure { other } else { one };
                            Truth::Open(if neutral == Truth::Holds { least } else { Reach::Unsure })
                        }
                        (Truth::Open(_), _) => before,
                        (_, truth) => truth,
                    };
                    next.push((path, both));
                }
            }
            parts = next;
        }
        parts
    }

    /// `call`: what the subroutine does, as if it stood there.
    fn call(
        &mut self,
        sub: &str,
        statement: &'a Statement,
        path: Path,
        reach: Reach,
        depth: usize,
    ) -> Vec<Path> {
        let name = statement.words().get(1).copied().unwrap_or_default().to_owned();
        let called = self.subs.get(&*name).cloned().filter(|_| depth < CALLS_MAX);
        let Some(called) = called else {
            let mut path = path;
            self.ledger.not_mapped(
                statement.id,
                "it is not part of this text, and may keep something from the cache: so nothing is stored that comes there",
            );
            self.pass(statement.id, &mut path, Reach::Unsure);
            return vec![path];
        };
        let to = "the rules of what calls it";
        self.ledger.mapped(statement.id, to);
        let mut paths = vec![path];
        for statement in called {
            self.ledger.mapped(statement.id, to);
            paths = self.run(sub, &statement.block, paths, reach, depth + 1);
        }
        paths.iter_mut().for_each(|path| path.has_returned = false);
        paths
    }

    fn pass(&mut self, id: Id, path: &mut Path, reach: Reach) {
        if matches!(reach, Reach::OfQuery | Reach::OfErrors) {
            return;
        }
        path.is_passed = true;
        path.is_maybe_passed |= reach != Reach::Sure;
        path.from.push(id);
    }

    /// Says `key = value`, where that is sure.
    fn say(&mut self, path: &mut Path, key: &str, value: impl Into<String>, id: Id, reach: Reach) {
        if reach != Reach::Sure {
            return self.ledger.not_mapped(id, UNKNOWN_AROUND);
        }
        path.keys.set(key, value, &[id]);
        path.from.push(id);
        self.ledger.mapped(id, key);
    }

    fn statement(&mut self, sub: &str, statement: &Statement, path: &mut Path, reach: Reach) {
        let id = statement.id;
        let words = statement.words();
        let may_refuse = words.iter().any(|word| matches!(*word, "error" | "synth" | "fail" | "purge"));
        if reach == Reach::OfQuery && !may_refuse && !self.ledger.is_silent(id) {
            return;
        }
        match (words.first().copied().unwrap_or_default(), words.get(1).copied().unwrap_or_default()) {
            ("return", _) => self.ending(sub, statement, path, reach),
            ("unset" | "remove", target) => self.unset(statement, target, path, reach),
            ("set", "req.hash") => self.hash(statement, path),
            ("set", target) => self.set(statement, target, path, reach),
            ("error", code) => self.refuse(id, code, path),
            ("hash_data", _) => self.hash(statement, path),
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
            _ => self.ledger.not_mapped(id, "unknown here: look it up, and say it by hand if it matters"),
        }
    }

    /// `return (…)`.
    fn ending(&mut self, sub: &str, statement: &Statement, path: &mut Path, reach: Reach) {
        let id = statement.id;
        let words = statement.words();
        let action =
            words.iter().find(|word| !matches!(**word, "return" | "(" | ")")).copied().unwrap_or_default();
        let is_sure = reach == Reach::Sure;
        match (sub, action) {
            (_, "") => {
                // Of a subroutine that was called.
                path.has_returned |= is_sure;
                return self.ledger.not_needed(id, "it goes on so by itself");
            }
            ("vcl_recv", "pass" | "pipe")
            | ("vcl_backend_response" | "vcl_fetch", "pass" | "hit_for_pass" | "abandon") => {
                match is_sure {
                    true => self.ledger.mapped(id, "cache"),
                    false => self.ledger.not_mapped(id, "where it might be reached, nothing is stored"),
                }
                self.pass(id, path, reach);
            }
            ("vcl_recv", "hash" | "lookup") => {
                path.is_hashed |= is_sure;
                self.ledger.not_needed(id, "what is not passed is looked up");
            }
            (_, "synth" | "error" | "fail" | "purge") => {
                let code = words.iter().find(|word| word.parse::<u16>().is_ok()).copied();
                let code = code.unwrap_or(if action == "purge" { "405" } else { "503" });
                self.refuse(id, code, path);
            }
            (_, "restart" | "retry" | "vcl") => {
                self.ledger.not_mapped(
                    id,
                    format!(
                        "{action:?} has no equal: programs are not run; nothing is stored that comes there"
                    ),
                );
                self.pass(id, path, Reach::Unsure);
            }
            (_, "pass") => {
                self.ledger.not_mapped(id, "where it might be reached, nothing is stored");
                self.pass(id, path, Reach::Unsure);
            }
            (_, "deliver" | "fetch" | "ok" | "lookup" | "hash" | "miss") => {
                path.is_delivered |= is_sure && matches!(sub, "vcl_backend_response" | "vcl_fetch");
                self.ledger.not_needed(id, "it goes on so by itself");
            }
            (_, action) => {
                self.ledger.not_mapped(id, format!("{action:?} has no equal: programs are not run"))
            }
        }
        path.is_ended |= is_sure;
    }

    /// An answer that is made here. Nobody gets what is behind it; who only might get it neither.
    fn refuse(&mut self, id: Id, code: &str, path: &mut Path) {
        match code.parse::<u16>() {
            Ok(400..) => {
                self.ledger.not_mapped(id, "the rule has an origin that does not exist: let the origin refuse, then take the rule out; where it is a redirect, write one");
                path.refused = Some("Varnish lets nobody through here.".into());
                path.is_ended = true;
                path.from.push(id);
            }
            _ => {
                self.ledger.not_mapped(
                    id,
                    "the edge makes no answers but redirects: write redirect in a rule, or https = \"redirect\"; nothing is stored that comes there",
                );
                self.pass(id, path, Reach::Unsure);
            }
        }
    }

    fn unset(&mut self, statement: &Statement, target: &str, path: &mut Path, reach: Reach) {
        let id = statement.id;
        let lower = target.to_ascii_lowercase();
        match &*lower {
            // Who might be passed keeps them.
            "req.http.cookie" | "bereq.http.cookie" if path.is_maybe_passed => {
                self.ledger
                    .not_mapped(id, "cookies are kept, as what comes there may have to be passed with them");
            }
            "req.http.cookie" | "bereq.http.cookie" => {
                self.say(path, "request_cookies", quote("none"), id, reach)
            }
            "beresp.http.set-cookie" => self.say(path, "set_cookie", quote("strip"), id, reach),
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
                self.remove(path, table, name, id, reach);
            }
        }
    }

    /// A removal. Each has a key of its own here, and they become one list in the rule.
    fn remove(&mut self, path: &mut Path, table: &str, name: &str, id: Id, reach: Reach) {
        let is_kept = table == "response_headers" && reach != Reach::Sure;
        if is_kept {
            self.ledger.not_mapped(id, "it is taken out of every answer that comes there");
        }
        let reach = if is_kept { Reach::Sure } else { reach };
        if reach == Reach::Sure {
            path.keys.remove(&dotted(&format!("{table}.set"), name));
        }
        self.say(path, &dotted(&format!("{table}.remove"), name), quote(name), id, reach);
    }

    fn set(&mut self, statement: &Statement, target: &str, path: &mut Path, reach: Reach) {
        let id = statement.id;
        let lower = target.to_ascii_lowercase();
        match &*lower {
            "beresp.ttl" => match statement.duration_ms() {
                Some(ms) if reach == Reach::Unsure => {
                    path.ttl_max_ms = Some(path.ttl_max_ms.unwrap_or(ms).min(ms));
                    self.ledger.not_mapped(id, "nothing that comes there is kept for longer; write ttl");
                }
                Some(ms) => self.say(path, "ttl", secs(ms / 1000), id, reach),
                None => self.ledger.not_mapped(id, "its time is computed: write ttl"),
            },
            "beresp.grace" => match statement.duration_ms() {
                Some(ms) => {
                    self.say(path, "stale_while_revalidate", secs(ms / 1000), id, reach);
                    self.say(path, "stale_if_error", secs(ms / 1000), id, reach);
                }
                None => self
                    .ledger
                    .not_mapped(id, "its time is computed: write stale_while_revalidate and stale_if_error"),
            },
            "beresp.keep" | "req.grace" => {
                self.ledger.not_needed(id, "what is stale is kept as long as there is room, and validated")
            }
            "beresp.uncacheable" | "bereq.uncacheable" | "req.hash_always_miss"
                if statement.value() == Some("true") =>
            {
                match reach {
                    Reach::Sure => self.ledger.mapped(id, "cache"),
                    _ => self.ledger.not_mapped(id, "where it might be reached, nothing is stored"),
                }
                self.pass(id, path, reach);
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
                    Some(_) if reach != Reach::Sure => self.ledger.not_mapped(id, UNKNOWN_AROUND),
                    Some(keys) => {
                        self.ledger.mapped(id, "origin");
                        path.keys.remove_table("origin_options");
                        path.keys.extend(&keys);
                        path.from.push(id);
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
                Some(host) => self.say(path, "origin_options.host", quote(host), id, reach),
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
                self.say(path, "response_headers.set.Cache-Control", quote(value), id, reach);
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
                        self.say(path, &dotted(&format!("{table}.set"), name), quote(value), id, reach)
                    }
                    None => self.ledger.not_mapped(id, "values are not computed: let the origin send it"),
                }
            }
        }
    }

    /// A part of the key. Under whatever condition it stands, it is one: more keys, and never a wrong one.
    fn hash(&mut self, statement: &Statement, path: &mut Path) {
        let id = statement.id;
        let is_name = |word: &&&str| ["req.", "client.", "server."].iter().any(|of| word.starts_with(of));
        let words: Vec<&str> = statement.words().into_iter().filter(|word| *word != "req.hash").collect();
        let names: Vec<String> = words.iter().filter(is_name).map(|word| word.to_ascii_lowercase()).collect();
        let is_text = statement.tokens.iter().all(|token| {
            matches!(token, Token::Text(_) | Token::Sign(_))
                || matches!(token.text(), "hash_data" | "set" | "req.hash")
        });
        if is_text {
            return self.ledger.not_needed(id, "it is the same in every key");
        }
        if names.is_empty() {
            self.ledger.not_mapped(
                id,
                "write key.headers, key.cookies or key.device; nothing is stored that comes there",
            );
            return self.pass(id, path, Reach::Unsure);
        }
        for name in names {
            match &*name {
                "req.url" | "req.http.host" | "server.ip" => {
                    self.ledger.not_needed(id, "site, scheme, host, path and query always belong to the key")
                }
                "req.http.x-forwarded-proto" => {
                    self.ledger.not_needed(id, "the scheme always belongs to the key")
                }
                name => match name.strip_prefix("req.http.") {
                    Some(header) if !self.computed.contains(header) => {
                        let at = words
                            .iter()
                            .find(|word| word.to_ascii_lowercase() == format!("req.http.{header}"));
                        let header = at.map_or(header, |word| &word["req.http.".len()..]);
                        self.say(path, &format!("key.headers.{header}"), quote(header), id, Reach::Sure);
                    }
                    _ => {
                        self.ledger.not_mapped(
                            id,
                            format!("{name} is computed here, or known to no rule: write key.headers, key.cookies or key.device; nothing is stored that comes there"),
                        );
                        self.pass(id, path, Reach::Unsure);
                    }
                },
            }
        }
    }

    // --- The site ---

    fn site(&mut self, paths: Vec<Path>) -> DraftSite {
        let first = self.first.as_ref().and_then(|name| self.backends.get(name)).cloned().unwrap_or_default();
        let mut base = first;
        if base.get("origin").is_none() {
            base.set("origin", quote(NO_ORIGIN), &[]);
        }
        let mut rules: Vec<DraftRule> = Vec::new();
        let mut before: Vec<Condition> = Vec::new();
        for path in paths {
            // What an earlier one takes whole is never tried.
            if before.iter().any(|condition| condition.covers(&path.condition)) {
                continue;
            }
            if !path.condition.is_wide {
                before.push(path.condition.clone());
            }
            rules.extend(self.rules(path, &base));
        }
        simplify(&mut rules);
        close(&mut rules, self.ledger);
        let mut keys = Keys::default();
        keys.set("domains", quote("*"), &[]);
        keys.set("origin", base.get("origin").unwrap_or_default().to_owned(), &[]);
        keys.set("heuristic.percent", "0", &[]);
        // Nor are static files opened to scripts of other sites.
        keys.set("cors", quote("off"), &[]);
        DraftSite { name: "default".into(), from: Vec::new(), keys, rules }
    }

    /// The rule of a path, and the one before it for those who come with cookies.
    fn rules(&mut self, path: Path, base: &Keys) -> Vec<DraftRule> {
        let mut from: Vec<Id> = Vec::new();
        path.from.iter().for_each(|id| {
            if !from.contains(id) {
                from.push(*id);
            }
        });
        let (name, conditions) = (path.condition.name(), path.condition.keys(&from));
        if let Some(who) = &path.refused {
            let mut rule = DraftRule::refusal(&name, conditions, from, who);
            rule.is_wide = path.condition.is_wide;
            return vec![rule];
        }
        let mut said = base.clone();
        if path.keys.get("origin").is_some() {
            said.remove_table("origin_options");
        }
        said.extend(&path.keys);
        for table in ["request_headers", "response_headers"] {
            said.gather(&format!("{table}.remove"));
        }
        said.gather("key.headers");
        let mut rule = DraftRule { name, from, is_wide: path.condition.is_wide, ..DraftRule::default() };
        rule.keys = conditions.clone();
        let shortest = path.ttl_max_ms.map(|ms| ms / 1000);
        let ttl = said.get("ttl").map(str::to_owned);
        if path.is_passed || ttl.as_deref() == Some(&*secs(0)) || shortest == Some(0) {
            rule.keys.extend(&said);
            rule.pass(&[]);
            return vec![rule];
        }
        if let Some(shortest) = shortest {
            said.set("ttl_max", secs(shortest), &[]);
        }
        if let (Some(shortest), Some(ttl)) = (shortest, &ttl) {
            let ttl = model::units::parse_duration(ttl.trim_matches('"')).map_or(0, |ttl| ttl.as_secs());
            said.set("ttl", secs(ttl.min(shortest)), &[]);
        }
        if ttl.is_none() {
            said.set("ttl", secs(TTL_SECS.min(shortest.unwrap_or(TTL_SECS))), &[]);
            said.set("ttl_overrides", "false", &[]);
        }
        // Varnish's own vcl_backend_response keeps nothing that says no-cache.
        if ttl.is_some() && !path.is_delivered {
            said.set("ttl_overrides", quote("unless-no-cache"), &[]);
        }
        if said.get("stale_while_revalidate").is_none() {
            said.set("stale_while_revalidate", secs(GRACE_SECS), &[]);
        }
        rule.keys.extend(&said);
        // Varnish's own vcl_recv passes what has a cookie or Authorization.
        let cookie = conditions.get("with_header.Cookie").map(str::to_owned);
        let has_cookies = said.get("request_cookies").is_none() && cookie.as_deref() != Some("false");
        if path.is_hashed || !has_cookies {
            return vec![rule];
        }
        let remark = "Varnish passes requests with cookies, unless the program takes them away or looks them up by itself.";
        if cookie.is_some() {
            rule.remarks.push(remark.into());
            rule.pass(&[]);
            return vec![rule];
        }
        let mut passed = rule.clone();
        passed.name = format!("{}-with-cookies", rule.name);
        passed.remarks.push(remark.into());
        passed.keys = conditions;
        passed.keys.set("with_header.Cookie", "true", &[]);
        passed.keys.extend(&said);
        passed.pass(&[]);
        vec![passed, rule]
    }
}

/// Subroutines that are followed, in the order in which a request comes to them.
const FOLLOWED: [&str; 5] = ["vcl_recv", "vcl_hash", "vcl_backend_response", "vcl_fetch", "vcl_deliver"];

const NOT_RUN: &str = "programs are not run: what is stale answers by stale_if_error, WebSocket passes by itself, errors are the origin's";

const UNKNOWN_AROUND: &str = "it stands within a condition that is not mapped";

/// How many statements an `if` and what belongs to it are; 0 where there is none.
fn chain_length(block: &[Statement]) -> usize {
    let word = |statement: &Statement| statement.words().first().copied().unwrap_or_default().to_owned();
    if block.first().is_none_or(|first| word(first) != "if") {
        return 0;
    }
    1 + block[1..]
        .iter()
        .take_while(|next| matches!(&*word(next), "else" | "elsif" | "elseif" | "elif"))
        .count()
}

/// Whether a block says nothing but that something is not kept, or for how long.
fn is_about_keeping(block: &[Statement]) -> bool {
    block.iter().all(|statement| {
        matches!(
            statement.words()[..],
            ["set", "beresp.uncacheable" | "beresp.ttl" | "beresp.grace", ..]
                | ["return", "(", "deliver" | "pass" | "hit_for_pass", ..]
        )
    })
}

/// Why it is not known whether a condition holds.
fn why_unsure(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Unsure(why) | Expr::OfQuery(why) | Expr::Perhaps(_, why) => Some(why),
        Expr::Unkept | Expr::OfErrors => Some("rules have no condition on what the response says"),
        Expr::Not(inner) => why_unsure(inner),
        Expr::All(parts) | Expr::Any(parts) => parts.iter().find_map(why_unsure),
        Expr::Is(_) => None,
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
