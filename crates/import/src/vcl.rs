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
//! Whether a condition holds that no rule can say is not known, and neither is it of one on what the program has changed before. Then what it
//! would do is not done, but for what keeps something from visitors: who might be refused is refused, and what might not be shared is not,
//! for all who come there. What is said of errors alone is no rule for others. Not run: regular substitutions, directors, inline C, modules.

mod backends;
mod conditions;
mod lexer;
mod site;

use std::collections::{BTreeSet, HashMap};

use crate::condition::Condition;
use crate::draft::{Draft, DraftSite, Keys, dotted, quote, secs};
use crate::ledger::{Id, Ledger, Outcome};
use crate::{Broken, Imported};
use conditions::{Changed, Expr};
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
    refused: Option<&'static str>,
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
    /// Within a condition on the query, headers were asked for too.
    is_for_some: bool,
    /// The subroutine may have ended for it, and not by a pass.
    is_maybe_ended: bool,
    changed: Changed,
}

impl Path {
    /// How sure it is that a statement is reached. The query is no reason to share what is not for all who ask with the same.
    fn reach(&self, reach: Reach) -> Reach {
        match reach {
            Reach::OfQuery if self.is_for_some || !self.condition.lines.is_empty() => Reach::Unsure,
            Reach::Sure | Reach::OfQuery if self.is_maybe_ended => Reach::Unsure,
            reach => reach,
        }
    }
}

/// How sure it is that a statement is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Sure,
    Unsure,
    /// It depends on the query, which belongs to the key: what is kept is for those who ask with the same.
    OfQuery,
    /// It depends on the response's being an error, and perhaps on more.
    OfErrors,
}

impl Reach {
    /// Where one condition has to hold, and another too.
    fn and(self, other: Reach) -> Reach {
        match (self, other) {
            (Reach::Sure, reach) | (reach, Reach::Sure) => reach,
            // Whatever else is asked, it is for errors alone.
            (Reach::OfErrors, _) | (_, Reach::OfErrors) => Reach::OfErrors,
            (Reach::OfQuery, Reach::OfQuery) => Reach::OfQuery,
            _ => Reach::Unsure,
        }
    }

    /// Where one of two that are open is enough.
    fn or(self, other: Reach) -> Reach {
        match (self, other) {
            (one, other) if one == other => one,
            (Reach::OfQuery, Reach::OfErrors) | (Reach::OfErrors, Reach::OfQuery) => Reach::OfQuery,
            _ => Reach::Unsure,
        }
    }
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
    /// Request headers, in lower case, to which the program gives values.
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

    // --- Following ---

    /// All of the program, and the site that comes of it.
    fn follow(&mut self) -> Option<DraftSite> {
        self.note_what_is_computed();
        let subs: Vec<(&'a str, Vec<&'a Statement>)> =
            self.subs.iter().map(|(name, of)| (*name, of.clone())).collect();
        let mut paths = vec![Path { changed: Changed::at_start(), ..Path::default() }];
        let mut is_empty = true;
        for name in FOLLOWED {
            let Some((_, statements)) = subs.iter().find(|(known, _)| *known == name) else { continue };
            is_empty = false;
            for path in &mut paths {
                path.is_ended = path.refused.is_some();
                path.is_maybe_ended = false;
                path.has_returned = false;
                if name != "vcl_recv" {
                    note_what_is_changed_between(&subs, &mut path.changed);
                }
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
                for path in &mut paths {
                    path.is_ended = path.refused.is_some();
                    path.is_maybe_ended = false;
                    path.has_returned = false;
                    // They run before what has been followed last, and what that changed was not changed there.
                    path.changed.all();
                }
                self.run("vcl_hit", &statement.block, paths, Reach::Unsure, 0)
            }
            false => paths,
        };
        self.not_mapped(statement, instead);
        paths
    }

    /// Headers of requests to which the program gives values, also such as stand there: visitors do not send them, so a key that has one of
    /// them would tell nobody apart.
    fn note_what_is_computed(&mut self) {
        let mut computed = BTreeSet::new();
        for statement in self.subs.values().flatten() {
            statement.each(&mut |one| {
                let words = one.words();
                let first = words.first().copied().unwrap_or_default();
                let changed = match first {
                    "set" => &words[1..words.len().min(2)],
                    "std.collect" | "std.log" | "std.syslog" => &[],
                    module if module.contains('.') => &words[1..],
                    _ => &[],
                };
                let headers = changed.iter().map(|name| name.to_ascii_lowercase());
                computed.extend(headers.filter_map(|name| Some(name.strip_prefix("req.http.")?.to_owned())));
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
                let reach = path.reach(reach);
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
                        path.changed.by(&block[at], reach);
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
        let expr = conditions::read(first.condition(), &path.changed);
        if expr.is_unkept() && is_about_keeping(&first.block) {
            let instead = "what sets a cookie, or says that no cache may keep it, is not stored";
            first.each(&mut |one| self.ledger.not_needed(one.id, instead));
            return self.branches(sub, rest, path, reach, depth);
        }
        let mut path = path;
        path.is_for_some |= reach == Reach::OfQuery && expr.asks_headers();
        let reach = path.reach(reach);
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
                    let is_for_some = open == Reach::OfQuery && expr.is_of_query_for_some();
                    let open = path.reach(if is_for_some { Reach::Unsure } else { open });
                    if open != Reach::OfQuery || self.ledger.is_silent(first.id) {
                        let why = why_unsure(&expr).unwrap_or("it would take too many rules");
                        self.ledger
                            .not_mapped(first.id, format!("its condition cannot be said by a rule: {why}"));
                    }
                    // That it is no error says nothing of the others.
                    let of_others = if open == Reach::OfErrors { reach } else { reach.and(open) };
                    for path in self.run(sub, &first.block, vec![path], reach.and(open), depth) {
                        match path.is_ended {
                            true => found.push(path),
                            false => found.extend(self.branches(sub, rest, path, of_others, depth)),
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
                        (Truth::Open(one), Truth::Open(other)) => {
                            Truth::Open(if neutral == Truth::Holds { one.and(other) } else { one.or(other) })
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
            path.changed.all();
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
            ("error", code) => self.refuse(id, code, path, reach),
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
            (
                _,
                "restart" | "retry" | "vcl" | "synth" | "error" | "fail" | "purge" | "pass" | "pipe"
                | "hit_for_pass" | "abandon",
            ) if reach == Reach::OfErrors => match action {
                "pass" | "hit_for_pass" => self.ledger.not_mapped(id, ERRORS_KEPT),
                _ => self.ledger.not_mapped(id, OF_ERRORS),
            },
            (_, "") => {
                // Of a subroutine that was called.
                path.has_returned |= is_sure;
                path.is_maybe_ended |= reach == Reach::Unsure;
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
                path.is_maybe_ended |= reach == Reach::Unsure;
                self.ledger.not_needed(id, "what is not passed is looked up");
            }
            (_, "synth" | "error" | "fail" | "purge") => {
                let code = words.iter().find(|word| word.parse::<u16>().is_ok()).copied();
                let code = code.unwrap_or(if action == "purge" { "405" } else { "503" });
                self.refuse(id, code, path, reach);
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
                path.is_maybe_ended |= reach == Reach::Unsure;
                self.ledger.not_needed(id, "it goes on so by itself");
            }
            (_, action) => {
                self.ledger.not_mapped(id, format!("{action:?} has no equal: programs are not run"))
            }
        }
        path.is_ended |= is_sure;
    }

    /// An answer that is made here. Nobody gets what is behind it; who only might get it neither.
    fn refuse(&mut self, id: Id, code: &str, path: &mut Path, reach: Reach) {
        match code.parse::<u16>() {
            _ if reach == Reach::OfErrors => self.ledger.not_mapped(id, OF_ERRORS),
            Ok(400..) => {
                self.ledger.not_mapped(id, "the rule has an origin that does not exist: let the origin refuse, then take the rule out; where it is a redirect, write one");
                path.refused = Some(match reach {
                    Reach::Sure => "Varnish lets nobody through here.",
                    _ => "Varnish lets not everybody through here. Whom cannot be said, so all is refused.",
                });
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
                Some(_) if reach == Reach::OfErrors => self.ledger.not_mapped(id, ERRORS_KEPT),
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
                    Reach::OfErrors => self.ledger.not_mapped(id, ERRORS_KEPT),
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
}

/// Subroutines that are followed, in the order in which a request comes to them.
const FOLLOWED: [&str; 5] = ["vcl_recv", "vcl_hash", "vcl_backend_response", "vcl_fetch", "vcl_deliver"];

/// Those that Varnish itself calls beside them, for requests that an origin answers.
const NOT_FOLLOWED: [&str; 5] = ["vcl_hit", "vcl_miss", "vcl_pass", "vcl_pipe", "vcl_backend_fetch"];

const NOT_RUN: &str = "programs are not run: what is stale answers by stale_if_error, WebSocket passes by itself, errors are the origin's";

const OF_ERRORS: &str = "errors are sent as the origin says, and kept for no longer; a failed fetch is tried again by origin_options.retry, and what is stale bridges it by stale_if_error";

const ERRORS_KEPT: &str = "errors are kept for as long as the origin says, and not where it says nothing: have it say no-store of those that may not be, and write ttl_by_status for others";

const UNKNOWN_AROUND: &str = "it stands within a condition that is not mapped";

/// What subroutines that are not followed may have done to requests, after vcl_recv.
fn note_what_is_changed_between(subs: &[(&str, Vec<&Statement>)], changed: &mut Changed) {
    for statement in subs.iter().filter(|(name, _)| NOT_FOLLOWED.contains(name)).flat_map(|(_, of)| of) {
        statement.each(&mut |one| match one.words().first() {
            Some(&"call") => changed.all(),
            _ => changed.by(one, Reach::Unsure),
        });
    }
}

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
