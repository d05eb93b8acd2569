//! nginx: servers become sites, locations become rules in the order in which nginx would choose them.
//!
//! | nginx | here |
//! |---|---|
//! | `server`, by its names; the ones for http and https of one name together | a site; rules for `scheme` where the two differ |
//! | `location`: `=`, then `^~` by length, then expressions in their order, then prefixes by length | rules, in this order |
//! | what a location inherits | written into its rule: a rule is whole by itself, as nginx's levels do not inherit as ours do |
//! | what nginx refuses or guards (`deny all`, `auth_basic`, `return 403`) | a rule whose origin does not exist: nothing that was guarded is opened |
//! | what is no HTTP (`root`, `fastcgi_pass`) | a rule whose origin is to be named, for the same reason |
//!
//! Not read: `stream`, `mail`, Lua, njs and Perl.

mod answers;
mod caching;
mod conditions;
mod content;
mod fetching;
mod known;
mod locations;
mod parse;
mod rewritten;

use std::collections::{BTreeSet, HashMap};

use crate::draft::{
    Draft, DraftRule, DraftSite, Keys, Openness, REFUSED_ORIGIN, close, close_spellings, is_domain, quote,
    quote_list,
};
use crate::ledger::{Id, Ledger, Outcome};
use crate::{Broken, Imported};
use parse::{Directive, Files};

/// Stands where nginx answers from files or a protocol that is no HTTP. No such name exists (RFC 6761 §6.4).
const FILES_ORIGIN: &str = "http://name-an-origin.invalid";

/// Reads a configuration of nginx.
pub(super) fn import(text: &str, name: &str) -> Result<Imported, Broken> {
    let mut ledger = Ledger::default();
    let files = Files::read(text, name, &mut ledger)?;
    let mut world = World::of(&files, &mut ledger);
    let mut draft = Draft::default();
    world.build(&mut draft);
    world.speak_for_the_rest();
    draft.finish(ledger, "nginx configuration", name)
}

/// The levels that a directive is looked for in, from `http` to the innermost.
#[derive(Clone, Debug, Default)]
struct Scope<'a> {
    levels: Vec<Vec<&'a Directive>>,
}

impl<'a> Scope<'a> {
    fn with(&self, level: Vec<&'a Directive>) -> Scope<'a> {
        let mut levels = self.levels.clone();
        levels.push(level);
        Scope { levels }
    }

    /// All of a name, of the innermost level that has any: so nginx inherits.
    fn all(&self, name: &str) -> Vec<&'a Directive> {
        let of = |level: &Vec<&'a Directive>| -> Vec<&'a Directive> {
            level.iter().filter(|directive| directive.name == name).copied().collect()
        };
        self.levels.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    fn last(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).last().copied()
    }

    /// Whether a flag is on.
    fn is_on(&self, name: &str) -> bool {
        self.last(name).is_some_and(|directive| directive.arg(0) == "on")
    }

    fn innermost(&self) -> &[&'a Directive] {
        self.levels.last().map_or(&[], Vec::as_slice)
    }

    /// The first of a name in the innermost level: what is not inherited.
    fn own(&self, name: &str) -> Option<&'a Directive> {
        self.innermost().iter().find(|directive| directive.name == name).copied()
    }
}

/// A `server`.
struct Server<'a> {
    directive: &'a Directive,
    scope: Scope<'a>,
    names: Vec<(String, Id)>,
    is_plain: bool,
    is_tls: bool,
}

/// Domains that have the same servers.
struct Names {
    domains: Vec<(String, Id)>,
    /// The server that answers by http, and the one that does by https.
    plain: Option<usize>,
    tls: Option<usize>,
}

/// Everything that is known while servers are read.
struct World<'a> {
    files: &'a Files,
    ledger: &'a mut Ledger,
    http: Scope<'a>,
    servers: Vec<Server<'a>>,
    upstreams: HashMap<&'a str, &'a Directive>,
    maps: HashMap<&'a str, &'a Directive>,
    /// `keys_zone` → seconds of `inactive`.
    zones: HashMap<&'a str, u64>,
    limits: HashMap<&'a str, &'a Directive>,
    /// `deny` with networks, each once.
    denied: Vec<&'a Directive>,
}

impl<'a> World<'a> {
    fn of(files: &'a Files, ledger: &'a mut Ledger) -> World<'a> {
        let main = files.flat(&files.main, ledger);
        let mut http = Vec::new();
        for directive in &main {
            match &*directive.name {
                "http" => {
                    ledger.mapped(directive.id, "the file");
                    http.extend(files.flat(directive.children(), ledger));
                }
                _ => http.push(*directive),
            }
        }
        let mut world = World {
            files,
            ledger,
            http: Scope::default(),
            servers: Vec::new(),
            upstreams: HashMap::new(),
            maps: HashMap::new(),
            zones: HashMap::new(),
            limits: HashMap::new(),
            denied: Vec::new(),
        };
        for directive in &http {
            match &*directive.name {
                "upstream" => _ = world.upstreams.insert(directive.arg(0), directive),
                "map" => _ = world.maps.insert(directive.arg(1).trim_start_matches('$'), directive),
                "limit_req_zone" => {
                    let zone = directive.args.iter().find_map(|arg| arg.strip_prefix("zone="));
                    let zone = zone.unwrap_or_default().split(':').next().unwrap_or_default();
                    world.limits.insert(zone, directive);
                }
                _ => {}
            }
        }
        world.http = Scope::default().with(http);
        world
    }

    fn map(&mut self, keys: &mut Keys, key: &str, value: impl Into<String>, from: &[Id]) {
        keys.set(key, value, from);
        from.iter().for_each(|id| self.ledger.mapped(*id, key));
    }

    fn build(&mut self, draft: &mut Draft) {
        self.read_store(draft);
        let http = self.http.clone();
        let servers: Vec<&Directive> =
            http.innermost().iter().filter(|directive| directive.name == "server").copied().collect();
        if servers.is_empty() {
            // A fragment, as lies in conf.d: what stands in it is one server's.
            if let Some(first) =
                http.innermost().iter().find(|one| matches!(&*one.name, "location" | "proxy_pass"))
            {
                let names = vec![("*".to_owned(), first.id)];
                let scope = Scope::default().with(http.innermost().to_vec());
                self.servers.push(Server { directive: first, scope, names, is_plain: true, is_tls: false });
            }
        }
        let mut scopes: Vec<(&Directive, Scope<'a>)> = Vec::new();
        for server in servers {
            let level = self.files.flat(server.children(), self.ledger);
            scopes.push((server, http.with(level)));
        }
        let has_public = scopes.iter().any(|(_, scope)| !is_of_this_machine(scope));
        for (server, scope) in scopes {
            if has_public && is_of_this_machine(&scope) {
                // A site answers on every address that is listened on.
                self.ledger.not_mapped(
                    server.id,
                    "it listens on this machine's own addresses alone, and a site answers on all: left out; give it a node of its own",
                );
                continue;
            }
            self.read_server(server, scope, draft);
        }
        self.read_addresses(draft);
        self.read_limits(draft);
        self.denying(&http);
        let spellings: Vec<&str> = match self.keeps_slashes() {
            true => OTHER_SPELLINGS.into_iter().filter(|spelling| *spelling != "*//*").collect(),
            false => OTHER_SPELLINGS.to_vec(),
        };
        for names in self.sites() {
            if let Some(mut site) = self.build_site(&names) {
                close(&mut site.rules, self.ledger);
                close_spellings(&mut site.rules, &spellings, "nginx");
                draft.sites.push(site);
            }
        }
        let denied = std::mem::take(&mut self.denied);
        if !denied.is_empty() {
            let networks: Vec<&str> = denied.iter().map(|one| one.arg(0)).collect();
            let ids: Vec<Id> = denied.iter().map(|one| one.id).collect();
            self.map(&mut draft.root, "block", quote_list(&networks), &ids);
        }
    }

    /// Whether `//` is another path than `/` anywhere.
    fn keeps_slashes(&self) -> bool {
        let mut keeps = false;
        self.files.each(|directive| keeps |= directive.name == "merge_slashes" && directive.arg(0) == "off");
        keeps
    }

    // --- What a node is told ---

    fn read_store(&mut self, draft: &mut Draft) {
        let http = self.http.clone();
        let mut disk: Option<(u64, Id)> = None;
        for prefix in ["proxy", "fastcgi", "uwsgi", "scgi"] {
            for path in http.all(&format!("{prefix}_cache_path")) {
                let option = |name: &str| path.args.iter().find_map(|arg| arg.strip_prefix(name));
                let zone = option("keys_zone=").unwrap_or_default().split(':').next().unwrap_or_default();
                // Ten minutes, unless it is said.
                let inactive = option("inactive=").and_then(known::time_ms).map_or(600, |ms| ms / 1000);
                self.zones.insert(zone, inactive);
                match option("max_size=").and_then(known::size) {
                    Some(size) => {
                        disk = Some((disk.map_or(0, |(sum, _)| sum) + size, path.id));
                        self.ledger.mapped(path.id, "store.disk.size");
                    }
                    None => self.ledger.not_mapped(
                        path.id,
                        "without max_size nothing says how large it may become: add [[store.disk]] with path and size",
                    ),
                }
            }
        }
        if let Some((size, id)) = disk {
            // What nginx has stored there cannot be read by anybody else.
            draft.disk.set("path", quote("/var/cache/perigee"), &[id]);
            draft.disk.set("size", quote(&model::ByteSize(size).to_string()), &[id]);
        }
        let proxies = http.all("set_real_ip_from");
        let networks: Vec<&str> =
            proxies.iter().map(|one| one.arg(0)).filter(|network| !network.starts_with("unix:")).collect();
        if !networks.is_empty() {
            let ids: Vec<Id> = proxies.iter().map(|one| one.id).collect();
            self.map(&mut draft.edge, "trusted_proxies", quote_list(&networks), &ids);
        }
    }

    fn read_server(&mut self, directive: &'a Directive, scope: Scope<'a>, draft: &mut Draft) {
        let listens: Vec<&Directive> =
            scope.innermost().iter().filter(|one| one.name == "listen").copied().collect();
        let is_tls = |listen: &&&Directive| listen.args.iter().any(|arg| matches!(&**arg, "ssl" | "quic"));
        let has_tls = listens.iter().any(|listen| is_tls(&listen)) || scope.is_on("ssl");
        let is_plain =
            listens.is_empty() || listens.iter().any(|listen| !is_tls(&listen) && !scope.is_on("ssl"));
        let is_default = listens
            .iter()
            .any(|one| one.args.iter().any(|arg| matches!(&**arg, "default_server" | "default")));
        let mut names: Vec<(String, Id)> = Vec::new();
        let server_names: Vec<&Directive> =
            scope.innermost().iter().filter(|one| one.name == "server_name").copied().collect();
        for server_name in &server_names {
            for name in &server_name.args {
                match domains_of(name) {
                    Ok(found) => {
                        self.ledger.mapped(server_name.id, "domains");
                        names.extend(found.into_iter().map(|domain| (domain, server_name.id)));
                    }
                    Err(outcome) => self.ledger.note(server_name.id, outcome),
                }
            }
        }
        if server_names.is_empty() || is_default {
            names.push(("*".to_owned(), directive.id));
        }
        self.read_certificates(&scope, draft);
        if let Some(protocols) = scope.last("ssl_protocols") {
            match protocols.args.iter().any(|arg| arg == "TLSv1.2") {
                true => self
                    .ledger
                    .not_needed(protocols.id, "TLS 1.2 and 1.3 are what is spoken; older versions are not"),
                false => self.map(&mut draft.root, "tls.min_version", quote("1.3"), &[protocols.id]),
            }
        }
        if listens.iter().any(|one| one.args.iter().any(|arg| arg == "proxy_protocol")) {
            draft.edge.set("proxy_protocol", "true", &[directive.id]);
        }
        self.servers.push(Server { directive, scope, names, is_plain, is_tls: has_tls });
    }

    fn read_certificates(&mut self, scope: &Scope<'a>, draft: &mut Draft) {
        let (chains, keys) = (scope.all("ssl_certificate"), scope.all("ssl_certificate_key"));
        for (index, chain) in chains.iter().enumerate() {
            let Some(key) = keys.get(index) else {
                self.ledger.not_mapped(
                    chain.id,
                    "it has no ssl_certificate_key: add [[certificate]] with chain and key",
                );
                continue;
            };
            let mut certificate = Keys::default();
            self.map(&mut certificate, "chain", quote(chain.arg(0)), &[chain.id]);
            self.map(&mut certificate, "key", quote(key.arg(0)), &[key.id]);
            if !draft.certificates.iter().any(|known| known.says_as(&certificate)) {
                draft.certificates.push(certificate);
            }
        }
    }

    /// `listen` of all servers. TLS is listened for where there is a certificate.
    fn read_addresses(&mut self, draft: &mut Draft) {
        let has_certificate = !draft.certificates.is_empty();
        let mut plain: (Vec<String>, Vec<Id>) = Default::default();
        let mut tls: (Vec<String>, Vec<Id>) = Default::default();
        for server in &self.servers {
            for listen in server.scope.innermost().iter().filter(|one| one.name == "listen") {
                let Some(address) = address_of(listen.arg(0)) else {
                    self.ledger.not_mapped(listen.id, "name an address and a port in [edge] listen");
                    continue;
                };
                let flag = |name: &str| listen.args.iter().any(|arg| arg == name);
                let is_tls = flag("ssl") || flag("quic") || server.scope.is_on("ssl");
                if is_tls && !has_certificate {
                    let instead =
                        "there is no certificate in this text: add listen_tls and [[certificate]] or [acme]";
                    self.ledger.not_mapped(listen.id, instead);
                    continue;
                }
                let (to, key) =
                    if is_tls { (&mut tls, "edge.listen_tls") } else { (&mut plain, "edge.listen") };
                if !to.0.contains(&address) {
                    to.0.push(address);
                }
                to.1.push(listen.id);
                self.ledger.mapped(listen.id, key);
            }
        }
        for (key, (addresses, ids)) in [("listen", plain), ("listen_tls", tls)] {
            if !addresses.is_empty() {
                draft.edge.set(key, quote_list(&addresses), &ids);
            }
        }
    }

    /// `client_max_body_size`: a node has one limit.
    fn read_limits(&mut self, draft: &mut Draft) {
        let mut sizes: Vec<(Id, u64)> = Vec::new();
        self.files.each(|directive| {
            if directive.name == "client_max_body_size" {
                sizes.extend(known::size(directive.arg(0)).map(|size| (directive.id, size)));
            }
        });
        let Some(largest) = sizes.iter().map(|(_, size)| *size).max() else { return };
        // 0 is no limit.
        let is_open = sizes.iter().any(|(_, size)| *size == 0);
        for (id, size) in sizes {
            match size {
                0 => self
                    .ledger
                    .not_needed(id, "bodies have a limit of 20 GiB: see body_bytes_max in [edge] limits"),
                size if is_open || size < largest => {
                    self.ledger
                        .not_mapped(id, "the limit is one for all sites of a node, and the largest is taken");
                }
                size => {
                    let value = quote(&model::ByteSize(size).to_string());
                    draft.edge.set("limits.body_bytes_max", value, &[id]);
                    self.ledger.mapped(id, "edge.limits.body_bytes_max");
                }
            }
        }
    }

    // --- Sites ---

    /// Domains with the servers that they have for http and https, those with the same ones together.
    fn sites(&mut self) -> Vec<Names> {
        let mut domains: Vec<(String, Id, Option<usize>, Option<usize>)> = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            for (domain, id) in &server.names {
                let place = match domains.iter().position(|(known, ..)| known == domain) {
                    Some(place) => place,
                    None => {
                        domains.push((domain.clone(), *id, None, None));
                        domains.len() - 1
                    }
                };
                let (_, _, plain, tls) = &mut domains[place];
                let mut is_taken = true;
                for slot in [(server.is_plain, plain), (server.is_tls, tls)] {
                    if slot.0 && slot.1.is_none_or(|taken| taken == index) {
                        *slot.1 = Some(index);
                        is_taken = false;
                    }
                }
                if is_taken {
                    self.ledger.not_mapped(
                        *id,
                        format!("{domain:?} has a server already; a site answers on every port: give this one a name of its own"),
                    );
                }
            }
        }
        let mut sites: Vec<Names> = Vec::new();
        for (domain, id, plain, tls) in domains {
            match sites.iter_mut().find(|names| (names.plain, names.tls) == (plain, tls)) {
                Some(names) => names.domains.push((domain, id)),
                None => sites.push(Names { domains: vec![(domain, id)], plain, tls }),
            }
        }
        sites
    }

    fn build_site(&mut self, of_site: &Names) -> Option<DraftSite> {
        let Names { domains, plain, tls } = of_site;
        let (plain, tls) = (*plain, *tls);
        let mut keys = Keys::default();
        let ids: Vec<Id> = domains.iter().map(|(_, id)| *id).collect();
        // What a wildcard holds already is not said twice.
        let is_held = |domain: &str| {
            domains.iter().any(|(wide, _)| {
                wide.strip_prefix('*')
                    .is_some_and(|end| wide != domain && !end.is_empty() && domain.ends_with(end))
            })
        };
        let names: Vec<&str> =
            domains.iter().map(|(domain, _)| &**domain).filter(|domain| !is_held(domain)).collect();
        keys.set("domains", quote_list(&names), &ids);
        let mut rules = Vec::new();
        let mut from: BTreeSet<Id> = BTreeSet::new();
        let mut https = None;
        let both = (plain, tls);
        for (server, scheme) in [(plain, "http"), (tls, "https")] {
            let Some(server) = server else { continue };
            let is_alone = both == (Some(server), Some(server)) || both.0.is_none() || both.1.is_none();
            if both == (Some(server), Some(server)) && scheme == "https" {
                continue;
            }
            let directive = self.servers[server].directive;
            if directive.name == "server" {
                self.ledger.mapped(directive.id, "[[site]]");
                from.insert(directive.id);
            }
            if !is_alone
                && scheme == "http"
                && let Some(ids) = self.only_redirects_to_https(server)
            {
                self.map(&mut keys, "https", quote("redirect"), &ids);
                https = Some(ids);
                continue;
            }
            let scheme = (!is_alone && https.is_none()).then_some(scheme);
            rules.extend(self.rules_of_server(server, scheme));
        }
        if rules.is_empty() && https.is_none() {
            return None;
        }
        let refused = quote(REFUSED_ORIGIN);
        let is_catch_all = names == ["*"];
        if is_catch_all
            && !rules.is_empty()
            && rules.iter().all(|rule| rule.keys.get("origin") == Some(&*refused))
        {
            for id in rules.iter().flat_map(|rule| &rule.from).chain(&from) {
                self.ledger.settle(
                    *id,
                    Outcome::NotNeeded("a host that no site has is answered with an error anyway".into()),
                );
            }
            return None;
        }
        // What no rule decides about; nginx would have looked for a file.
        let last = rules.iter().rev().find(|rule| rule.keys.get("path").is_none());
        let origin = last.and_then(|rule| rule.keys.get("origin")).map(str::to_owned);
        let origin_from = last.map(|rule| rule.from.clone()).unwrap_or_default();
        let origin =
            origin.or_else(|| rules.iter().find_map(|rule| rule.keys.get("origin").map(str::to_owned)));
        keys.set("origin", origin.unwrap_or_else(|| quote(FILES_ORIGIN)), &origin_from);
        // nginx guesses no lifetimes, and stores no cookies.
        keys.set("heuristic.percent", "0", &[]);
        keys.set("set_cookie", quote("never"), &[]);
        // Nor are static files opened to scripts of other sites.
        keys.set("cors", quote("off"), &[]);
        self.read_clients(tls, &mut keys);
        let name =
            domains.iter().map(|(domain, _)| &**domain).find(|domain| *domain != "*").unwrap_or("default");
        let name = name.trim_start_matches("*.").to_owned();
        let mut scopes = [plain, tls].into_iter().flatten().map(|server| &self.servers[server].scope);
        let mut remarks = Vec::new();
        if rules.iter().any(|rule| rule.openness() == Openness::Shared)
            && scopes.any(|scope| caching::hears_accel_expires(scope, "proxy"))
        {
            remarks.push(caching::ACCEL_EXPIRES.to_owned());
        }
        Some(DraftSite { name, remarks, from: from.into_iter().collect(), keys, rules })
    }

    /// Visitors' certificates.
    fn read_clients(&mut self, tls: Option<usize>, keys: &mut Keys) {
        let Some(scope) = tls.map(|server| self.servers[server].scope.clone()) else { return };
        // Either will do (since 1.27.2).
        let authority =
            scope.last("ssl_client_certificate").or_else(|| scope.last("ssl_trusted_certificate"));
        let (Some(authority), Some(verify)) = (authority, scope.last("ssl_verify_client")) else {
            return;
        };
        let word = match verify.arg(0) {
            "on" => "required",
            "optional" => "optional",
            _ => return,
        };
        self.map(keys, "client_ca", quote(authority.arg(0)), &[authority.id]);
        self.map(keys, "client_certificate", quote(word), &[verify.id]);
    }

    /// The statements of a server that sends everybody to https and does nothing else.
    fn only_redirects_to_https(&self, server: usize) -> Option<Vec<Id>> {
        let scope = &self.servers[server].scope;
        let is_same_host = |directive: &&&Directive| {
            directive.name == "return"
                && matches!(directive.arg(0), "301" | "302" | "307" | "308")
                && directive.arg(1).strip_prefix("https://").is_some_and(|rest| {
                    let rest = rest.replace("${host}", "$host").replace("${request_uri}", "$request_uri");
                    matches!(
                        &*rest,
                        "$host$request_uri"
                            | "$http_host$request_uri"
                            | "$server_name$request_uri"
                            | "$host$uri$is_args$args"
                    )
                })
        };
        let mut ids = Vec::new();
        for directive in scope.innermost() {
            match &*directive.name {
                "return" if is_same_host(&directive) => ids.push(directive.id),
                // certbot writes one for each name, and a 404 for the rest.
                "return" if directive.arg(0) == "404" && !ids.is_empty() => ids.push(directive.id),
                "if" if directive.children().iter().all(|child| is_same_host(&&child)) => {
                    ids.push(directive.id);
                    ids.extend(directive.children().iter().map(|child| child.id));
                }
                "location" if directive.args == ["/"] => {
                    let children = directive.children();
                    if children.is_empty() || !children.iter().all(|child| is_same_host(&&child)) {
                        return None;
                    }
                    ids.push(directive.id);
                    ids.extend(children.iter().map(|child| child.id));
                }
                "location"
                    if directive.arg(0).contains("/.well-known/acme-challenge")
                        || directive.arg(1).contains("/.well-known/acme-challenge") => {}
                "location" | "if" | "rewrite" | "return" | "proxy_pass" => return None,
                _ => {}
            }
        }
        (!ids.is_empty()).then_some(ids)
    }

    // --- What is left ---

    /// Speaks for what nobody has asked for: by its name, or because of the block that it is in.
    fn speak_for_the_rest(&mut self) {
        let files = self.files;
        let ledger = &mut *self.ledger;
        files.each(|directive| {
            if ledger.is_silent(directive.id) {
                let outcome = known::outcome(directive);
                if let Some(outcome) = outcome {
                    speak_for_children(directive, &outcome, ledger);
                    ledger.note(directive.id, outcome);
                }
            }
        });
    }
}

/// What became of a block is what became of all that nobody has spoken for in it.
fn speak_for_children(directive: &Directive, outcome: &Outcome, ledger: &mut Ledger) {
    let name = &directive.name;
    for child in directive.children() {
        if ledger.is_silent(child.id) {
            let of_block = match outcome {
                Outcome::NotNeeded(_) => {
                    Outcome::NotNeeded(format!("it is part of a block {name} that is not needed"))
                }
                _ => {
                    Outcome::NotMapped(format!("it is part of a block {name} that is not mapped: see there"))
                }
            };
            ledger.note(child.id, of_block);
        }
        speak_for_children(child, outcome, ledger);
    }
}

/// The domains that a name of `server_name` stands for.
fn domains_of(name: &str) -> Result<Vec<String>, Outcome> {
    let lower = name.to_ascii_lowercase();
    if lower == "_" {
        return Ok(vec!["*".to_owned()]);
    }
    if lower.is_empty() {
        return Err(Outcome::NotNeeded("a request without Host is refused".into()));
    }
    if lower.starts_with('~') {
        return Err(Outcome::NotMapped(format!("{name:?} is an expression: write its hosts into domains")));
    }
    if let Some(rest) = lower.strip_prefix('.').filter(|rest| is_domain(rest)) {
        return Ok(vec![rest.to_owned(), format!("*.{rest}")]);
    }
    if lower.ends_with(".*") {
        return Err(Outcome::NotMapped(format!(
            "{name:?} has its star at the end: write its hosts into domains"
        )));
    }
    if !is_domain(&lower) {
        return Err(Outcome::NotMapped(format!("{name:?} is no host: write its hosts into domains")));
    }
    Ok(vec![lower])
}

/// Whether a server is reached from its own machine alone.
fn is_of_this_machine(scope: &Scope<'_>) -> bool {
    let mut listens = scope.innermost().iter().filter(|one| one.name == "listen").peekable();
    let is_own = |listen: &str| {
        listen.starts_with("unix:")
            || address_of(listen)
                .and_then(|address| address.parse::<std::net::SocketAddr>().ok())
                .is_some_and(|address| address.ip().is_loopback())
    };
    listens.peek().is_some() && listens.all(|listen| is_own(listen.arg(0)))
}

/// Paths that are others' in another spelling: nginx reads them as one before it looks for a location.
const OTHER_SPELLINGS: [&str; 8] = ["*//*", "*/./*", "*/../*", "*/.", "*/..", "*%2E*", "*%2F*", "*%5C*"];

/// The address that `listen` names.
fn address_of(listen: &str) -> Option<String> {
    if listen.starts_with("unix:") {
        return None;
    }
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    if let Some(port) = port(listen) {
        return Some(format!("0.0.0.0:{port}"));
    }
    let (host, number) = match listen.rsplit_once(':') {
        Some((host, number)) if !number.contains(']') => (host, port(number)?),
        _ => (listen, 80),
    };
    let host = match host {
        "*" => "0.0.0.0",
        "localhost" => "127.0.0.1",
        host => host,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().ok().map(|_| format!("{host}:{number}"))
}

/// A rule that answers nobody.
fn refusal(name: &str, keys: Keys, from: Vec<Id>) -> DraftRule {
    DraftRule::refusal(name, keys, from, "nginx lets nobody through here.")
}

/// The same where more is refused than nginx did, because what it did cannot be said.
fn wide_refusal(name: &str, keys: Keys, from: Vec<Id>, what: &str) -> DraftRule {
    let who =
        format!("nginx lets not everybody through here: {what}. That cannot be said, so all is refused.");
    DraftRule::refusal(name, keys, from, &who)
}
