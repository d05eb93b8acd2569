//! What a location says about caching, as keys of its rule.

use super::conditions::{Condition, Purpose, QueryKeyed, is_said};
use super::parse::Directive;
use super::{Scope, World, known};
use crate::draft::{Keys, dotted, quote, quote_list, secs};
use crate::ledger::Id;

/// Directives that pass requests on, and the prefix of what belongs to each.
pub(super) const PASSES: [(&str, &str); 4] =
    [("proxy_pass", "proxy"), ("fastcgi_pass", "fastcgi"), ("uwsgi_pass", "uwsgi"), ("scgi_pass", "scgi")];

/// Variables that say nothing which is not in every key, or the same for all.
const OF_EVERY_KEY: [&str; 14] = [
    "is_args",
    "scheme",
    "host",
    "http_host",
    "server_name",
    "proxy_host",
    "server_port",
    "proxy_port",
    "slice_range",
    "request_method",
    "https",
    "hostname",
    "server_protocol",
    "document_root",
];

/// What becomes of a query that is not in the key: an answer to one visitor's is for all.
const QUERY_NOT_SENT: &str = "what of the query is not in the key is not sent to the origin either, where nginx sent that of whoever asked first: \
                              keep what the origin needs (query.keep)";

/// What nginx takes from the origin before all else.
pub(super) const ACCEL_EXPIRES: &str = "nginx goes by the origin's X-Accel-Expires first, which is not read here: where it says 0, have the origin say \
                                        Cache-Control: no-store.";

impl<'a> World<'a> {
    /// Whether the location uses a cache; `prefix` is that of its pass.
    pub(super) fn is_cached(&mut self, scope: &Scope<'a>, prefix: &str) -> bool {
        let Some(cache) = scope.last(&format!("{prefix}_cache")) else { return false };
        self.ledger.mapped(cache.id, "cache");
        cache.arg(0) != "off"
    }

    /// The keys of a rule that caches. What keeps it from caching after all, because its key cannot be said.
    pub(super) fn caching(&mut self, scope: &Scope<'a>, prefix: &str, keys: &mut Keys) -> Option<Id> {
        let mut unsaid = None;
        self.stale(scope, prefix, keys);
        self.lifetimes(scope, prefix, keys);
        if let Some(key) = scope.last(&format!("{prefix}_cache_key")) {
            unsaid = Some(key.id).filter(|_| !self.cache_key(key, keys));
        }
        if let Some(methods) = scope.last(&format!("{prefix}_cache_methods")) {
            match methods.args.iter().any(|method| method == "POST") {
                true => self
                    .ledger
                    .not_mapped(methods.id, "answers to POST are not stored; GET and HEAD always are"),
                false => self.ledger.not_needed(methods.id, "GET and HEAD are what is cached"),
            }
        }
        if let Some(cache) = scope.last(&format!("{prefix}_cache"))
            && hears_accel_expires(scope, prefix)
        {
            self.ledger.not_mapped(cache.id, ACCEL_EXPIRES);
        }
        unsaid
    }

    /// `proxy_cache_valid` and `proxy_ignore_headers`.
    fn lifetimes(&mut self, scope: &Scope<'a>, prefix: &str, keys: &mut Keys) {
        let mut said = Vec::new();
        let (good, any) = (dotted("ttl_by_status", "200-299"), dotted("ttl_by_status", "300-599"));
        for valid in scope.all(&format!("{prefix}_cache_valid")) {
            let Some((time, statuses)) = valid.args.split_last() else { continue };
            let Some(ttl) = known::time_ms(time).map(|ms| ms / 1000) else {
                self.ledger.not_mapped(valid.id, format!("{time:?} is no time: write ttl"));
                continue;
            };
            let statuses: Vec<&str> = match statuses {
                [] => vec!["200", "301", "302"],
                statuses => statuses.iter().map(String::as_str).collect(),
            };
            for status in &statuses {
                // Of no time there is only a word by status: what "ttl" keeps for none may answer when stale.
                let of_good = if ttl == 0 { good.clone() } else { "ttl".to_owned() };
                let of_good = Some(of_good).filter(|_| keys.get("ttl").or(keys.get(&good)).is_none());
                let wanted = match *status {
                    // As of a whole, a part of it.
                    "200" => [of_good, None],
                    "any" => [of_good, Some(any.clone())],
                    status => [Some(dotted("ttl_by_status", status)), None],
                };
                for key in wanted.into_iter().flatten() {
                    // The first that holds a status counts.
                    if keys.get(&key).is_none() {
                        self.map(keys, &key, secs(ttl), &[valid.id]);
                    }
                }
            }
            said.push(valid.id);
            if statuses.contains(&"any") {
                break;
            }
        }
        let is_stale_served = ["stale_while_revalidate", "stale_if_error"]
            .iter()
            .any(|key| keys.get(key).is_some_and(|window| window != secs(0)));
        if !said.is_empty() || is_stale_served {
            // What nothing is said of is not kept, and would be here: by "ttl", or to answer when stale.
            if keys.get("ttl").is_none() && keys.get(&good).is_none() {
                keys.set(&*good, secs(0), &said);
            }
            if keys.get(&any).is_none() {
                keys.set(&*any, secs(0), &said);
            }
        }
        let mut overrides = (false, false);
        for ignored in scope.all(&format!("{prefix}_ignore_headers")) {
            for name in &ignored.args {
                match &*name.to_ascii_lowercase() {
                    "cache-control" => overrides.0 = true,
                    "expires" => overrides.1 = true,
                    "set-cookie" => self.map(keys, "set_cookie", quote("strip"), &[ignored.id]),
                    "vary" => self.ledger.not_mapped(
                        ignored.id,
                        "Vary is obeyed: have the origin not send it, or make spellings equal by the key vary",
                    ),
                    _ => self.ledger.not_needed(ignored.id, "X-Accel headers mean nothing here"),
                }
            }
            if overrides != (false, false) {
                match overrides {
                    (true, true) if !said.is_empty() => {
                        let key = "ttl; private and no-store still keep an answer out of the cache";
                        self.ledger.mapped(ignored.id, key);
                    }
                    (true, true) if is_stale_served => {
                        self.ledger.mapped(ignored.id, "ttl_by_status; no time is said, so nothing is kept");
                    }
                    _ => self.ledger.not_mapped(
                        ignored.id,
                        "Cache-Control and Expires are obeyed, unless both are ignored and a time is said: write ttl",
                    ),
                }
            }
        }
        if (!said.is_empty() || is_stale_served) && overrides != (true, true) {
            // proxy_cache_valid stands in for an origin that says nothing.
            keys.set("ttl_overrides", "false", &said);
        }
    }

    /// `proxy_cache_use_stale`, for as long as nginx would have kept it.
    fn stale(&mut self, scope: &Scope<'a>, prefix: &str, keys: &mut Keys) {
        let zone = scope.last(&format!("{prefix}_cache")).map_or("", |cache| cache.arg(0));
        let inactive = self.zones.get(zone).copied().unwrap_or(600);
        for stale in scope.all(&format!("{prefix}_cache_use_stale")) {
            for case in &stale.args {
                match &**case {
                    "updating" => self.map(keys, "stale_while_revalidate", secs(inactive), &[stale.id]),
                    "off" => self.map(keys, "stale_if_error", secs(0), &[stale.id]),
                    "error" | "timeout" | "invalid_header" | "http_500" | "http_502" | "http_503"
                    | "http_504" => {
                        self.map(keys, "stale_if_error", secs(inactive), &[stale.id]);
                    }
                    case => self.ledger.not_mapped(
                        stale.id,
                        format!("{case}: only failures (5xx) are bridged by what is stale"),
                    ),
                }
            }
        }
        for update in scope.all(&format!("{prefix}_cache_background_update")) {
            match keys.get("stale_while_revalidate") {
                Some(_) => self.ledger.mapped(update.id, "stale_while_revalidate"),
                None => self.ledger.not_needed(
                    update.id,
                    "what is stale is fetched in the background within stale_while_revalidate",
                ),
            }
        }
    }

    /// `proxy_cache_key`: what it has beside site, scheme, host, path and query. Whether all of that is said.
    fn cache_key(&mut self, directive: &'a Directive, keys: &mut Keys) -> bool {
        let text: String = directive.args.join(" ");
        let (mut headers, mut cookies, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_said = true;
        let (mut has_path, mut has_query) = (false, false);
        for variable in self.sources(directive, variables(&text)) {
            match &*variable {
                "request_uri" | "request" => (has_path, has_query) = (true, true),
                "uri" | "document_uri" => has_path = true,
                "args" | "query_string" => has_query = true,
                name if OF_EVERY_KEY.contains(&name) => {}
                "http_cookie" => headers.push("Cookie".to_owned()),
                other => {
                    if let Some(name) = other.strip_prefix("cookie_") {
                        cookies.push(name.to_owned());
                    } else if let Some(name) = other.strip_prefix("arg_") {
                        kept.push(name.to_owned());
                    } else if let Some(name) = other.strip_prefix("http_") {
                        headers.push(name.replace('_', "-"));
                    } else {
                        is_said = false;
                        let instead = format!(
                            "${other} tells visitors apart by what is not known here, so nothing is cached: write key.headers, key.cookies or \
                             key.device, and take cache = false out"
                        );
                        self.ledger.not_mapped(directive.id, instead);
                    }
                }
            }
        }
        let id = &[directive.id];
        match (has_query, kept.is_empty()) {
            (true, _) => self
                .ledger
                .mapped(directive.id, "the key: site, scheme, host, path and query always belong to it"),
            (false, false) => {
                self.map(keys, "query.keep", quote_list(&kept), id);
                self.ledger.not_mapped(directive.id, QUERY_NOT_SENT);
            }
            (false, true) if has_path => {
                self.map(keys, "query", quote("ignore"), id);
                self.ledger.not_mapped(directive.id, QUERY_NOT_SENT);
            }
            (false, true) => self.ledger.not_mapped(directive.id, "the path always belongs to the key"),
        }
        if !headers.is_empty() {
            self.map(keys, "key.headers", quote_list(&headers), id);
        }
        if !cookies.is_empty() {
            self.map(keys, "key.cookies", quote_list(&cookies), id);
        }
        is_said
    }

    /// Variables of a key, and in place of those that a `map` makes of what can be in a key, all of that: more keys, and never a wrong one.
    fn sources(&mut self, directive: &'a Directive, variables_of_key: Vec<String>) -> Vec<String> {
        let mut sources = Vec::new();
        for variable in variables_of_key {
            let of_map = self.maps.get(&*variable).and_then(|map| Some((*map, sources_of(map)?)));
            let is_known = |name: &String| {
                ["http_", "cookie_", "arg_"].iter().any(|of| name.starts_with(of))
                    || OF_EVERY_KEY.contains(&&**name)
            };
            let Some((map, names)) = of_map.filter(|(_, names)| names.iter().all(is_known)) else {
                sources.push(variable);
                continue;
            };
            self.ledger.mapped(map.id, "key");
            map.children().iter().for_each(|entry| self.ledger.mapped(entry.id, "key"));
            let instead = format!(
                "all that its map is made of (${}) is in the key, where ${variable} has few values: make spellings equal by the key vary",
                names.join(", $")
            );
            self.ledger.not_mapped(directive.id, instead);
            sources.extend(names);
        }
        sources
    }

    /// When a location that caches does not: `proxy_cache_bypass` and `proxy_no_cache`; and directives that have conditions which
    /// cannot be said.
    pub(super) fn passes(&mut self, scope: &Scope<'a>, prefix: &str) -> (Vec<Condition>, Vec<Id>) {
        let (mut conditions, mut unsaid): (Vec<Condition>, Vec<Id>) = (Vec::new(), Vec::new());
        let purpose = Purpose::pass(query_keyed(scope, prefix));
        for (name, is_fresh) in [("no_cache", false), ("cache_bypass", true)] {
            for directive in scope.all(&format!("{prefix}_{name}")) {
                for arg in &directive.args {
                    if !is_said(arg) {
                        self.ledger.not_needed(directive.id, format!("{arg} never holds"));
                        continue;
                    }
                    match self.conditions_of_value(arg, scope, &purpose) {
                        Ok(found) => {
                            for condition in found {
                                self.ledger.mapped(directive.id, purpose.to);
                                for id in &condition.from {
                                    self.ledger.mapped(*id, purpose.to);
                                }
                                if !condition.is_exact {
                                    self.ledger.not_mapped(
                                        directive.id,
                                        format!("{arg}: its pattern has no exact equal; see the rule"),
                                    );
                                }
                                if is_fresh
                                    && !scope
                                        .all(&format!("{prefix}_no_cache"))
                                        .iter()
                                        .any(|other| other.args.contains(arg))
                                {
                                    let instead =
                                        format!("{arg} does not refresh what is stored: purge instead");
                                    self.ledger.not_mapped(directive.id, instead);
                                }
                                let with_id = Condition {
                                    from: [&condition.from[..], &[directive.id]].concat(),
                                    ..condition
                                };
                                match conditions.iter_mut().find(|known| known.says_as(&with_id)) {
                                    Some(known) => known.from.extend(with_id.from),
                                    None => conditions.push(with_id),
                                }
                            }
                        }
                        Err(instead) => {
                            self.ledger.not_mapped(directive.id, format!("{arg}: {instead}"));
                            if !purpose.may_leave_out(&variables(arg)) {
                                unsaid.push(directive.id);
                            }
                        }
                    }
                }
            }
        }
        (conditions, unsaid)
    }
}

/// Whether the origin's X-Accel-Expires counts there.
pub(super) fn hears_accel_expires(scope: &Scope<'_>, prefix: &str) -> bool {
    let ignored = scope.all(&format!("{prefix}_ignore_headers"));
    !ignored.iter().flat_map(|one| &one.args).any(|name| name.eq_ignore_ascii_case("X-Accel-Expires"))
}

/// What of the query is in the key; nginx's own has all of it.
fn query_keyed(scope: &Scope<'_>, prefix: &str) -> QueryKeyed {
    let Some(key) = scope.last(&format!("{prefix}_cache_key")) else { return QueryKeyed::Whole };
    let names = variables(&key.args.join(" "));
    match names.iter().any(|name| is_whole_query(name)) {
        true => QueryKeyed::Whole,
        false => QueryKeyed::Parts(names),
    }
}

/// Whether a variable has all of the query.
fn is_whole_query(name: &str) -> bool {
    matches!(name, "request_uri" | "request" | "args" | "query_string")
}

/// Variables that a `map` makes its values of; nothing where another file says some.
fn sources_of(map: &Directive) -> Option<Vec<String>> {
    let mut names = variables(map.arg(0));
    for entry in map.children() {
        if entry.name == "include" {
            return None;
        }
        // Groups of an entry's own expression are parts of what is looked up.
        let is_group = |name: &String| {
            entry.name.starts_with('~')
                && (name.starts_with(|c: char| c.is_ascii_digit())
                    || entry.name.contains(&format!("<{name}>")))
        };
        names.extend(variables(entry.arg(0)).into_iter().filter(|name| !is_group(name)));
    }
    names.sort();
    names.dedup();
    Some(names)
}

/// Names of the variables in a text: `$a` and `${a}`.
pub(super) fn variables(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut parts = text.split('$');
    parts.next();
    for part in parts {
        let part = part.strip_prefix('{').unwrap_or(part);
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        names.push(part[..end].to_owned());
    }
    names
}
