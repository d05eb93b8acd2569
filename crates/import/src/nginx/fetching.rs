//! Where a location's content comes from, and what is changed on the way.

use super::parse::Directive;
use super::{FILES_ORIGIN, Scope, World, known};
use crate::draft::{Keys, dotted, quote, quote_list, secs};
use crate::ledger::Id;

/// Fields that cannot be changed by a rule, or that the edge sends by itself.
const SENT: [&str; 11] = [
    "host",
    "connection",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
    "content-length",
    "te",
    "via",
    "transfer-encoding",
];

impl<'a> World<'a> {
    /// `proxy_pass`: `origin`, and the Host that it is asked for. `path` is the location's prefix, where it has one.
    pub(super) fn origin(
        &mut self,
        pass: &'a Directive,
        path: Option<&str>,
        scope: &Scope<'a>,
        keys: &mut Keys,
    ) {
        let url = pass.arg(0);
        let Some((scheme, rest)) =
            url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        else {
            self.ledger.not_mapped(pass.id, format!("{url:?} is no origin by itself: name one in the rule"));
            keys.set("origin", quote(FILES_ORIGIN), &[pass.id]);
            return;
        };
        let (authority, uri) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        // What nginx is asked for is what it asks for, unless a URI is named.
        let uri = if uri.starts_with("/$request_uri") || uri == "$request_uri" { "" } else { uri };
        let authority = authority.strip_suffix("$request_uri").unwrap_or(authority);
        let uri = if uri.starts_with("$request_uri") { "" } else { uri };
        if authority.contains('$') || authority.starts_with("unix:") || uri.contains('$') {
            self.ledger.not_mapped(
                pass.id,
                format!("{url:?} is known only when a request comes: name an origin in the rule"),
            );
            keys.set("origin", quote(FILES_ORIGIN), &[pass.id]);
            return;
        }
        let prefix = match (uri, path) {
            ("", _) => "",
            (uri, Some(path)) if uri.ends_with(path) => &uri[..uri.len() - path.len()],
            (uri, Some(path)) => {
                self.ledger.not_mapped(
                    pass.id,
                    format!("the path is not changed from {path} to {uri}: have the origin answer at {path}"),
                );
                ""
            }
            (uri, None) => {
                self.ledger.not_mapped(
                    pass.id,
                    format!("the path is not changed to {uri}: have the origin answer at the path asked for"),
                );
                ""
            }
        };
        let mut ids = vec![pass.id];
        let mut urls: Vec<String> = Vec::new();
        match self.upstreams.get(authority).copied() {
            Some(upstream) => {
                self.ledger.mapped(upstream.id, "origin");
                urls = self.servers_of(upstream, scheme, prefix, &mut ids, keys);
            }
            None => urls.push(format!("{scheme}://{authority}{prefix}")),
        }
        if urls.is_empty() {
            urls.push(FILES_ORIGIN.to_owned());
        }
        self.map(keys, "origin", quote_list(&urls), &ids);
        let hosts = scope.all("proxy_set_header");
        let host = hosts.iter().find(|one| one.arg(0).eq_ignore_ascii_case("host"));
        match host.map(|one| (one.arg(1), one.id)) {
            Some(("$host" | "$http_host" | "${host}" | "$host:$server_port", id)) => {
                self.ledger.not_needed(id, "the origin is asked for the host that the visitor asked for");
            }
            Some(("$proxy_host" | "", id)) => self.map(keys, "origin_options.host", quote(authority), &[id]),
            Some((value, id)) if !value.contains('$') => {
                self.map(keys, "origin_options.host", quote(value), &[id])
            }
            Some((value, id)) => {
                self.ledger.not_mapped(id, format!("{value} is no host by itself: write origin_options.host"))
            }
            // nginx asks for the name in proxy_pass.
            None => keys.set("origin_options.host", quote(authority), &[pass.id]),
        }
        if scheme == "https" {
            self.tls(scope, keys);
        }
    }

    /// The origins of an `upstream`, in the order in which they are tried.
    fn servers_of(
        &mut self,
        upstream: &'a Directive,
        scheme: &str,
        prefix: &str,
        ids: &mut Vec<Id>,
        keys: &mut Keys,
    ) -> Vec<String> {
        let (mut urls, mut backups) = (Vec::new(), Vec::new());
        let flat = self.files.flat(upstream.children(), self.ledger);
        let count = flat
            .iter()
            .filter(|one| one.name == "server" && !one.args.iter().any(|arg| arg == "backup"))
            .count();
        for directive in flat {
            match &*directive.name {
                "server" => {
                    let address = directive.arg(0);
                    let flag = |name: &str| directive.args.iter().any(|arg| arg == name);
                    if flag("down") {
                        self.ledger.not_needed(directive.id, "it is marked as down");
                        continue;
                    }
                    if address.starts_with("unix:") {
                        self.ledger.not_mapped(directive.id, "origins are reached by TCP: have it listen on a port");
                        continue;
                    }
                    ids.push(directive.id);
                    let url = format!("{scheme}://{address}{prefix}");
                    match flag("backup") {
                        true => backups.push(url),
                        false => urls.push(url),
                    }
                    for arg in &directive.args {
                        self.server_option(directive, arg, keys);
                    }
                    if count > 1 && !flag("backup") {
                        self.ledger.not_mapped(
                            directive.id,
                            "requests are not spread: the first origin that is well is asked; put a balancer there if one is too little",
                        );
                    }
                }
                "least_conn" | "ip_hash" | "hash" | "random" | "least_time" | "sticky" => self.ledger.not_mapped(
                    directive.id,
                    "requests are not spread over origins: the first that is well is asked; put a balancer there",
                ),
                "keepalive" | "keepalive_timeout" | "keepalive_requests" | "keepalive_time" | "zone" | "queue" => {
                    self.ledger.not_needed(directive.id, "connections to origins are kept by themselves");
                }
                _ => {}
            }
        }
        urls.extend(backups);
        urls.dedup();
        urls
    }

    fn server_option(&mut self, directive: &'a Directive, option: &str, keys: &mut Keys) {
        let ids = &[directive.id];
        match option.split_once('=') {
            Some(("max_fails", count)) => {
                self.map(keys, "origin_options.health.aside_after", toml_number(count), ids)
            }
            Some(("fail_timeout", time)) => {
                if let Some(ms) = known::time_ms(time) {
                    self.map(keys, "origin_options.health.aside", duration(ms), ids);
                }
            }
            Some(("max_conns", _)) => {
                self.ledger.not_mapped(
                    directive.id,
                    "max_conns: write origin_options.budget with in_flight, for all edges together",
                );
            }
            Some(("weight", "1")) | None => {}
            Some((name, _)) => {
                self.ledger.not_mapped(directive.id, format!("{name} has no equal: put a balancer there"))
            }
        }
    }

    fn tls(&mut self, scope: &Scope<'a>, keys: &mut Keys) {
        if let Some(name) = scope.last("proxy_ssl_name") {
            match name.arg(0) {
                "$host" | "$http_host" | "$proxy_host" => {
                    self.ledger.not_needed(name.id, "the origin's host is asked for and expected")
                }
                other => self.map(keys, "origin_options.tls.server_name", quote(other), &[name.id]),
            }
        }
        if let Some(ca) = scope.last("proxy_ssl_trusted_certificate") {
            self.map(keys, "origin_options.tls.ca", quote(ca.arg(0)), &[ca.id]);
        }
        match scope.last("proxy_ssl_verify") {
            Some(verify) if verify.arg(0) == "off" => {
                self.map(keys, "origin_options.tls.verify", "false", &[verify.id])
            }
            Some(verify) => self.ledger.not_needed(verify.id, "the origin's certificate is always checked"),
            None => {}
        }
    }

    /// Headers, times and what else belongs to a location, whatever it passes requests to.
    pub(super) fn handling(&mut self, scope: &Scope<'a>, prefix: &str, keys: &mut Keys) {
        if prefix == "proxy" {
            self.request_headers(scope, keys);
            self.timeouts(scope, keys);
        }
        self.response_headers(scope, prefix, keys);
        self.expires(scope, keys);
        self.compress(scope, keys);
        self.rates(scope, keys);
    }

    fn request_headers(&mut self, scope: &Scope<'a>, keys: &mut Keys) {
        let mut removed: Vec<(&str, Id)> = Vec::new();
        for header in scope.all("proxy_set_header") {
            let (name, value) = (header.arg(0), header.arg(1));
            match &*name.to_ascii_lowercase() {
                "host" => {}
                "upgrade" => self.ledger.not_needed(header.id, "WebSocket passes by itself; see websocket"),
                "x-real-ip" => self
                    .ledger
                    .not_mapped(header.id, "the visitor's address is the last one in X-Forwarded-For"),
                lower if SENT.contains(&lower) => {
                    self.ledger.not_needed(header.id, format!("{name} is sent by itself"))
                }
                "range" if value == "$slice_range" => {
                    self.ledger.not_needed(header.id, "long bodies are fetched in parts by themselves")
                }
                _ if value.is_empty() => removed.push((name, header.id)),
                _ if value.contains('$') => {
                    self.ledger.not_mapped(
                        header.id,
                        format!("{name}: there are no variables; have the origin read what is sent"),
                    );
                }
                _ => self.map(keys, &dotted("request_headers.set", name), quote(value), &[header.id]),
            }
        }
        self.remove("request_headers.remove", &removed, keys);
    }

    fn remove(&mut self, key: &str, removed: &[(&str, Id)], keys: &mut Keys) {
        if !removed.is_empty() {
            let names: Vec<&str> = removed.iter().map(|(name, _)| *name).collect();
            let ids: Vec<Id> = removed.iter().map(|(_, id)| *id).collect();
            self.map(keys, key, quote_list(&names), &ids);
        }
    }

    pub(super) fn response_headers(&mut self, scope: &Scope<'a>, prefix: &str, keys: &mut Keys) {
        let hidden = scope.all(&format!("{prefix}_hide_header"));
        let removed: Vec<(&str, Id)> = hidden.iter().map(|one| (one.arg(0), one.id)).collect();
        // A cookie that is hidden keeps an answer out of the cache all the same, unless it is ignored too.
        self.remove("response_headers.remove", &removed, keys);
        let mut added: Vec<(String, Vec<String>, Vec<Id>)> = Vec::new();
        for header in scope.all("add_header") {
            let (name, value) = (header.arg(0), header.arg(1));
            if value.contains("$upstream_cache_status") {
                self.ledger.not_needed(header.id, "Cache-Status (RFC 9211) says it on every answer");
            } else if value.contains('$') {
                self.ledger
                    .not_mapped(header.id, format!("{name}: there are no variables; let the origin send it"));
            } else if value.is_empty() {
                self.ledger.not_needed(header.id, "it is not sent without a value");
            } else {
                if header.arg(2) != "always" {
                    self.ledger.not_mapped(
                        header.id,
                        "every answer has it; without \"always\" nginx leaves it out of errors",
                    );
                }
                match added.iter_mut().find(|(known, ..)| known == name) {
                    Some((_, values, ids)) => {
                        values.push(value.to_owned());
                        ids.push(header.id);
                    }
                    None => added.push((name.to_owned(), vec![value.to_owned()], vec![header.id])),
                }
            }
        }
        for (name, values, ids) in added {
            self.map(keys, &dotted("response_headers.add", &name), quote_list(&values), &ids);
        }
    }

    fn expires(&mut self, scope: &Scope<'a>, keys: &mut Keys) {
        let Some(expires) = scope.last("expires") else { return };
        let id = &[expires.id];
        match expires.args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["off"] => self.ledger.not_needed(expires.id, "the origin's max-age is sent"),
            ["max"] => self.map(keys, "browser_ttl", secs(315_360_000), id),
            ["epoch"] => self.map(keys, "response_headers.set.Cache-Control", quote("no-cache"), id),
            [time] if time.starts_with('-') => {
                self.map(keys, "response_headers.set.Cache-Control", quote("no-cache"), id);
            }
            [time] => match known::time_ms(time) {
                Some(ms) => self.map(keys, "browser_ttl", secs(ms / 1000), id),
                None => self.ledger.not_mapped(
                    expires.id,
                    format!("{time} is no time by itself: write browser_ttl in a rule for each path"),
                ),
            },
            _ => self.ledger.not_mapped(expires.id, "write browser_ttl with a time from now"),
        }
    }

    fn compress(&mut self, scope: &Scope<'a>, keys: &mut Keys) {
        match scope.last("gzip") {
            Some(gzip) if gzip.arg(0) == "off" => {
                self.map(keys, "compress", "false", &[gzip.id]);
                return;
            }
            Some(gzip) => self.ledger.not_needed(gzip.id, "compress is on, in zstd, brotli and gzip"),
            None => return,
        }
        if let Some(types) = scope.last("gzip_types") {
            // text/html is always one of them.
            let mut names: Vec<&str> = vec!["text/html"];
            names.extend(types.args.iter().map(String::as_str).filter(|name| *name != "text/html"));
            names.dedup();
            if types.args.iter().any(|name| name == "*") {
                names = vec!["*"];
            }
            self.map(keys, "compress.types", quote_list(&names), &[types.id]);
        }
        if let Some(length) = scope.last("gzip_min_length") {
            match known::size(length.arg(0)) {
                Some(size) => {
                    self.map(
                        keys,
                        "compress.min_size",
                        quote(&model::ByteSize(size).to_string()),
                        &[length.id],
                    );
                }
                None => self.ledger.not_mapped(length.id, "write compress.min_size"),
            }
        }
    }

    /// `limit_req`.
    fn rates(&mut self, scope: &Scope<'a>, keys: &mut Keys) {
        let limits = scope.all("limit_req");
        let Some(limit) = limits.first() else { return };
        let option = |directive: &'a Directive, name: &str| {
            directive.args.iter().find_map(|arg| arg.strip_prefix(name))
        };
        for other in &limits[1..] {
            self.ledger.not_mapped(other.id, "a rule has one rate_limit: the first is taken");
        }
        let zone = option(limit, "zone=").and_then(|zone| self.limits.get(zone)).copied();
        let rate = zone.and_then(|zone| option(zone, "rate="));
        let parsed = rate.and_then(|rate| {
            let (number, per) = rate.split_once("r/")?;
            Some((number.parse::<u32>().ok()?, if per == "m" { "1m" } else { "1s" }))
        });
        let (Some(zone), Some((requests, per))) = (zone, parsed) else {
            self.ledger.not_mapped(
                limit.id,
                "its zone is not in this text: write rate_limit = { requests = …, per = … }",
            );
            return;
        };
        let by = match zone.arg(0) {
            "$binary_remote_addr" | "$remote_addr" => "client",
            "$server_name" | "$host" => "all",
            key => {
                self.ledger.not_mapped(
                    limit.id,
                    format!("{key}: requests are counted by client or all together: write rate_limit"),
                );
                self.ledger.not_mapped(zone.id, "see limit_req");
                return;
            }
        };
        let ids = &[zone.id, limit.id];
        let burst = option(limit, "burst=").and_then(|burst| burst.parse::<u32>().ok()).unwrap_or(0);
        self.map(keys, "rate_limit.requests", requests.to_string(), ids);
        self.map(keys, "rate_limit.per", quote(per), ids);
        // nginx counts what comes on top of the one that is due.
        self.map(keys, "rate_limit.burst", burst.saturating_add(1).to_string(), ids);
        self.map(keys, "rate_limit.by", quote(by), ids);
    }

    fn timeouts(&mut self, scope: &Scope<'a>, keys: &mut Keys) {
        for (name, of) in
            [("proxy_connect_timeout", &["connect"][..]), ("proxy_read_timeout", &["first_byte", "idle"])]
        {
            let Some(timeout) = scope.last(name) else { continue };
            match known::time_ms(timeout.arg(0)) {
                Some(ms) => {
                    for key in of {
                        self.map(
                            keys,
                            &format!("origin_options.timeouts.{key}"),
                            duration(ms),
                            &[timeout.id],
                        );
                    }
                }
                None => self.ledger.not_mapped(timeout.id, "write origin_options.timeouts"),
            }
        }
        if let Some(timeout) = scope.last("proxy_send_timeout") {
            self.ledger.not_needed(timeout.id, "origin_options.timeouts.idle holds in both directions");
        }
        let Some(next) = scope.last("proxy_next_upstream") else { return };
        let mut statuses: Vec<&str> = Vec::new();
        for case in &next.args {
            match case.strip_prefix("http_") {
                Some(status) => statuses.push(status),
                None if case == "non_idempotent" => {
                    self.ledger
                        .not_mapped(next.id, "non_idempotent: what changes something is never sent twice");
                }
                None => {}
            }
        }
        let list: Vec<String> = statuses.iter().map(|status| toml_number(status)).collect();
        self.map(keys, "origin_options.fail_over", format!("[{}]", list.join(", ")), &[next.id]);
    }
}

/// A whole number as TOML; what is none becomes a text, which the reader then refuses by name.
fn toml_number(text: &str) -> String {
    text.parse::<u32>().map_or_else(|_| quote(text), |number| number.to_string())
}

fn duration(ms: u64) -> String {
    quote(&model::units::write_duration(std::time::Duration::from_millis(ms)))
}
