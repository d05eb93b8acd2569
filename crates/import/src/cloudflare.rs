//! Cloudflare: cache rules, redirects, header changes and page rules of a zone, as its API gives them: a ruleset, a list of page rules,
//! a list of several such answers, each with or without `result` around it.
//!
//! Of several rules that hold, Cloudflare puts what they say together, and of each setting the last word wins; here the first that matches
//! decides alone. So each set of rules that may hold together becomes a rule that says what they say together, on top of what a zone does
//! without any: it caches files with some extensions, and nothing else. Page rules go by priority, the first wins, and what it says is
//! said before the others. Where the origin is, DNS knows, and no rule.
//!
//! What is blocked under an expression that cannot be said is refused wherever it may hold, and what is not cached under one is not.

mod expression;

use crate::condition::Condition;
use crate::draft::{
    Draft, DraftRule, DraftSite, Keys, close, close_spellings, dotted, is_domain, quote, quote_list, secs,
    simplify,
};
use crate::json::{self, Node};
use crate::ledger::{Id, Ledger, Outcome};
use crate::pattern::covering;
use crate::{Broken, Imported};

/// Stands for the origin, which is in the zone's DNS. No such name exists (RFC 6761 §6.4).
const ORIGIN: &str = "http://name-an-origin.invalid";

/// What is cached without a rule ("Default cache behavior" of Cloudflare's documentation).
const EXTENSIONS: &str = "7z avi avif apk bin bmp bz2 class css csv doc docx dmg ejs eot eps exe flac gif gz ico iso jar jpg jpeg js mid \
                          midi mkv mp3 mp4 ogg otf pdf pict pls png ppt pptx ps rar svg svgz swf tar tif tiff ttf webm webp woff woff2 \
                          xls xlsx zip zst";

/// Paths that are others' in another spelling: rules see URLs normalised ("Cloudflare normalization", which is on unless it is switched off),
/// and origins see them as they came.
const OTHER_SPELLINGS: [&str; 7] = ["*//*", "*/./*", "*/../*", "*/.", "*/..", "*%2E*", "*\\*"];

/// Lifetimes where the origin says nothing, there too.
const SILENT: [(&str, u64); 4] = [("302-303", 1200), ("403", 60), ("404", 180), ("410", 180)];
const SILENT_SECS: u64 = 7200;

/// Reads rules of a zone.
pub(super) fn import(text: &str, name: &str) -> Result<Imported, Broken> {
    let mut ledger = Ledger::default();
    let root = json::read(text, name, &mut ledger)?;
    let mut reader = Reader {
        ledger: &mut ledger,
        redirects: Vec::new(),
        pages: Vec::new(),
        caching: Vec::new(),
        passed: Vec::new(),
        unkeyed: Vec::new(),
        headers: Keys::default(),
        hosts: Vec::new(),
    };
    reader.answer(&root);
    let site = reader.site();
    let Some(site) = site else {
        return Err(Broken {
            place: ledger.place(root.id).clone(),
            message: "there are no rules in it: neither rulesets nor page rules".into(),
            help: "give it what the API answers for /zones/ZONE/rulesets/ID, or for /zones/ZONE/pagerules"
                .into(),
        });
    };
    let mut draft = Draft::default();
    draft.edge.set("listen", "[\"0.0.0.0:80\", \"[::]:80\"]", &[]);
    draft.sites.push(site);
    for leaf in root.leaves() {
        if ledger.is_silent(leaf.id) && leaf.is_nothing() {
            ledger.not_needed(leaf.id, "it is off, or says nothing");
        }
    }
    draft.finish(ledger, "Cloudflare rules", name)
}

struct Reader<'a> {
    ledger: &'a mut Ledger,
    redirects: Vec<DraftRule>,
    /// With their priority: the highest is first.
    pages: Vec<(u64, Settings)>,
    /// In the order of Cloudflare, of which the last wins.
    caching: Vec<Vec<Settings>>,
    /// What is passed for an expression that cannot be said.
    passed: Vec<Settings>,
    /// What is passed for a key of a page rule that is not read: cache rules leave the key as it is.
    unkeyed: Vec<Settings>,
    /// Of rules that are for all requests.
    headers: Keys,
    hosts: Vec<String>,
}

/// What is said of those for whom a condition holds.
#[derive(Clone, Debug)]
struct Settings {
    name: String,
    condition: Condition,
    keys: Keys,
    from: Vec<Id>,
}

/// Settings that hold together, at most as many: each becomes a rule. What would make more is left to the rules that are there.
const TOGETHER_MAX: usize = 128;

impl Reader<'_> {
    fn map(&mut self, keys: &mut Keys, key: &str, value: impl Into<String>, node: &Node) {
        keys.set(key, value, &[node.id]);
        node.speak_for(&Outcome::Mapped(key.into()), self.ledger);
    }

    fn note(&mut self, node: Option<&Node>, outcome: Outcome) {
        if let Some(node) = node {
            node.speak_for(&outcome, self.ledger);
        }
    }

    /// One answer of the API, or a list of some.
    fn answer(&mut self, node: &Node) {
        for item in node.items() {
            self.answer(item);
        }
        let about = "about the answer, not the rules";
        for name in ["success", "errors", "messages", "result_info"] {
            self.note(node.get(name), Outcome::NotNeeded(about.into()));
        }
        if let Some(result) = node.get("result") {
            self.answer(result);
        }
        if node.get("targets").is_some() {
            self.page_rule(node);
        }
        let Some(rules) = node.get("rules") else { return };
        for name in ["id", "name", "description", "kind", "version", "last_updated", "source"] {
            self.note(node.get(name), Outcome::NotNeeded("a note".into()));
        }
        let phase = node.get("phase").and_then(Node::text).unwrap_or_default().to_owned();
        self.note(node.get("phase"), Outcome::NotNeeded("rules are told apart by what they do".into()));
        for rule in rules.items() {
            self.rule(rule, &phase);
        }
    }

    /// A rule of a ruleset.
    fn rule(&mut self, rule: &Node, phase: &str) {
        for name in ["id", "ref", "version", "last_updated", "description", "categories", "logging"] {
            self.note(rule.get(name), Outcome::NotNeeded("a note".into()));
        }
        if rule.get("enabled").and_then(Node::bool) == Some(false) {
            rule.speak_for(&Outcome::NotNeeded("the rule is switched off".into()), self.ledger);
            return;
        }
        self.note(rule.get("enabled"), Outcome::NotNeeded("it is on".into()));
        let name = rule
            .get("description")
            .and_then(Node::text)
            .filter(|text| !text.is_empty())
            .unwrap_or("rule")
            .to_owned();
        let action = rule.get("action").and_then(Node::text).unwrap_or_default().to_owned();
        let Some(expression) = rule.get("expression") else { return };
        if rule.get("ratelimit").is_some_and(|limit| !limit.is_nothing()) {
            let instead = "it keeps nobody out who asks seldom: write rate_limit = { requests = …, per = … } into a rule";
            rule.speak_for(&Outcome::NotMapped(instead.into()), self.ledger);
            return;
        }
        let conditions = match expression::read(expression.text().unwrap_or_default()) {
            Ok(conditions) => conditions,
            Err(why) => {
                self.unsaid(rule, expression, &name, &action, &why);
                return;
            }
        };
        match conditions.iter().all(|condition| condition.is_exact) {
            true => self.note(Some(expression), Outcome::Mapped("path, hosts and other conditions".into())),
            false => {
                self.ledger.mapped(expression.id, "path, hosts and other conditions");
                self.ledger.not_mapped(expression.id, "it has no exact equal; see the rule");
            }
        }
        let parameters = rule.get("action_parameters");
        let Some(keys) = self.action(&action, parameters, phase) else {
            let instead = format!(
                "{action}: requests are not filtered, challenged or scored here: see block, rate_limit and limits"
            );
            self.ledger.settle(expression.id, Outcome::NotMapped(instead.clone()));
            rule.speak_for(&Outcome::NotMapped(instead), self.ledger);
            return;
        };
        self.note(rule.get("action"), Outcome::Mapped("[[site.rule]]".into()));
        if conditions.iter().all(Condition::is_always) && action == "rewrite" {
            self.headers.extend(&keys);
            return;
        }
        let geo = parameters.and_then(|all| all.at(&["cache_key", "custom_key", "user", "geo"]));
        let is_by_country = geo.and_then(Node::bool) == Some(true);
        let mut ways = Vec::new();
        for condition in conditions {
            self.hosts.extend(condition.hosts.iter().cloned());
            let (name, from) = (name.clone(), vec![expression.id]);
            if action == "block" {
                self.redirects.push(blocked(&name, &condition, from));
                continue;
            }
            if is_by_country {
                // Whatever others say after it: they leave the key as it is.
                let mut keys = Keys::default();
                keys.set("cache", "false", &from);
                let (name, condition, from) = (name.clone(), condition.clone(), from.clone());
                self.passed.push(Settings { name, condition, keys, from });
            }
            match keys.has_table("redirect") {
                true => {
                    let mut all = condition.keys(&from);
                    all.extend(&keys);
                    let is_wide = condition.is_wide;
                    self.redirects.push(DraftRule { name, from, keys: all, is_wide, ..DraftRule::default() });
                }
                false => ways.push(Settings { name, condition, keys: keys.clone(), from }),
            }
        }
        self.caching.push(ways);
    }

    /// A rule for an expression that cannot be said: what it keeps out, or out of the cache, is kept so wherever it may hold.
    fn unsaid(&mut self, rule: &Node, expression: &Node, name: &str, action: &str, why: &str) {
        let bypasses = rule.at(&["action_parameters", "cache"]).and_then(Node::bool) == Some(false);
        let separates = rule
            .at(&["action_parameters", "cache_key", "custom_key"])
            .is_some_and(|key| ["header", "cookie", "user"].iter().any(|part| key.get(part).is_some()));
        let wide = expression::read_wide(expression.text().unwrap_or_default());
        let from = vec![expression.id];
        let and = match action {
            "block" => {
                self.redirects.extend(wide.iter().map(|condition| blocked(name, condition, from.clone())));
                "; all is refused for which it may hold, until that rule is taken out"
            }
            "set_cache_settings" if bypasses || separates => {
                for condition in wide {
                    let mut keys = Keys::default();
                    keys.set("cache", "false", &from);
                    // Wherever it may hold, and whatever others say after it.
                    let name = name.to_owned();
                    self.passed.push(Settings { name, condition, keys, from: from.clone() });
                }
                "; nothing is cached for which it may hold"
            }
            _ => "",
        };
        let instead = format!("its expression cannot be said by conditions of a rule: {why}{and}");
        rule.speak_for(&Outcome::NotMapped(instead), self.ledger);
    }

    /// What a rule does.
    fn action(&mut self, action: &str, parameters: Option<&Node>, phase: &str) -> Option<Keys> {
        let mut keys = Keys::default();
        match (action, parameters) {
            ("set_cache_settings", Some(parameters)) => self.cache_settings(parameters, &mut keys),
            ("redirect", Some(parameters)) => self.redirect(parameters, &mut keys)?,
            ("rewrite", Some(parameters)) => self.header_changes(parameters, phase, &mut keys)?,
            ("block", _) => {
                self.note(
                    parameters,
                    Outcome::NotMapped("the answer is 502: the origin does not exist".into()),
                );
            }
            ("route", Some(parameters)) => {
                let host = parameters.get("host_header");
                if let Some((node, host)) = host.and_then(|node| Some((node, node.text()?))) {
                    self.map(&mut keys, "origin_options.host", quote(host), node);
                }
                let origin = parameters.at(&["origin", "host"]);
                if let Some((node, host)) = origin.and_then(|node| Some((node, node.text()?))) {
                    self.map(&mut keys, "origin", quote(&format!("https://{host}")), node);
                    self.note(
                        parameters.at(&["origin", "port"]),
                        Outcome::NotMapped("write the port into the origin".into()),
                    );
                }
            }
            _ => return None,
        }
        Some(keys)
    }

    // --- Cache rules ---

    fn cache_settings(&mut self, parameters: &Node, keys: &mut Keys) {
        let is_off = parameters.get("cache").and_then(Node::bool) == Some(false);
        if is_off {
            if let Some(node) = parameters.get("cache") {
                self.map(keys, "cache", "false", node);
            }
            parameters.speak_for(&Outcome::NotNeeded("nothing is cached".into()), self.ledger);
            return;
        }
        if let Some(node) = parameters.get("cache") {
            self.map(keys, "cache", "true", node);
        }
        if let Some(edge) = parameters.get("edge_ttl") {
            let mode = edge.get("mode").and_then(Node::text).unwrap_or_default();
            let default = edge.get("default").and_then(|node| Some((node, node.number()?)));
            match (mode, default) {
                ("override_origin", Some((node, ttl))) => self.map(keys, "ttl", secs(ttl), node),
                // What the origin says nothing of is not kept, whatever was said of it before.
                ("bypass_by_default", _) => {
                    keys.set("ttl", secs(0), &[edge.id]);
                    keys.set("ttl_overrides", "false", &[edge.id]);
                }
                (_, Some((node, ttl))) => {
                    self.map(keys, "ttl", secs(ttl), node);
                    keys.set("ttl_overrides", "false", &[node.id]);
                }
                ("respect_origin", None) => silent(keys, &[edge.id]),
                _ => {}
            }
            self.note(edge.get("mode"), Outcome::Mapped("ttl_overrides".into()));
            for status in edge.get("status_code_ttl").map_or(&[][..], Node::items) {
                self.status_ttl(status, keys);
            }
        } else if parameters.get("cache").is_some() {
            silent(keys, &[parameters.id]);
        }
        if let Some(browser) = parameters.get("browser_ttl") {
            match (browser.get("mode").and_then(Node::text), browser.get("default")) {
                (Some("override_origin"), Some(node)) => {
                    if let Some(ttl) = node.number() {
                        self.map(keys, "browser_ttl", secs(ttl), node);
                    }
                    self.note(browser.get("mode"), Outcome::Mapped("browser_ttl".into()));
                }
                (Some("bypass"), _) => {
                    self.map(keys, "response_headers.set.Cache-Control", quote("no-cache"), browser);
                }
                _ => browser.speak_for(
                    &Outcome::NotNeeded("visitors are told what the origin says".into()),
                    self.ledger,
                ),
            }
        }
        if let Some(key) = parameters.get("cache_key") {
            self.cache_key(key, keys);
        }
        if let Some(stale) = parameters.get("serve_stale") {
            match stale.get("disable_stale_while_updating").and_then(Node::bool) {
                Some(true) => self.map(keys, "stale_while_revalidate", secs(0), stale),
                _ => stale.speak_for(
                    &Outcome::NotMapped("how long is not said: write stale_while_revalidate".into()),
                    self.ledger,
                ),
            }
        }
        if let Some(timeout) = parameters.get("read_timeout")
            && let Some(seconds) = timeout.number()
        {
            self.map(keys, "origin_options.timeouts.first_byte", secs(seconds), timeout);
        }
        self.note(
            parameters.get("respect_strong_etags"),
            Outcome::NotNeeded("the origin's ETags are kept, with a suffix for copies".into()),
        );
        self.note(
            parameters.get("origin_error_page_passthru"),
            Outcome::NotNeeded("the origin's error pages are sent".into()),
        );
        self.note(
            parameters.get("origin_cache_control"),
            Outcome::NotNeeded("the origin's Cache-Control is obeyed".into()),
        );
        self.note(
            parameters.get("cache_reserve"),
            Outcome::NotMapped("write [[store.disk]]: everything is kept there".into()),
        );
        self.note(
            parameters.get("additional_cacheable_ports"),
            Outcome::NotNeeded("a site answers on every port that [edge] listens on".into()),
        );
    }

    fn status_ttl(&mut self, status: &Node, keys: &mut Keys) {
        let (Some(value), range) = (status.get("value"), status.get("status_code_range")) else { return };
        let code = status.get("status_code").and_then(Node::number).map(|code| code.to_string());
        let range = range.map(|range| {
            let of = |name: &str, default: u64| range.get(name).and_then(Node::number).unwrap_or(default);
            format!("{}-{}", of("from", 100), of("to", 599))
        });
        let Some(key) = code.or(range) else { return };
        let key = dotted("ttl_by_status", &key);
        // What is no time is not kept either: whatever was meant, that shares nothing.
        let (ttl, instead) = match value.number() {
            None if value.is_minus_one() => (0, None),
            None => (0, Some("it is no time, so nothing of it is kept: write ttl_by_status")),
            Some(0) => (
                0,
                Some(
                    "it is kept and validated at each use there, and fetched whole here: write a short time",
                ),
            ),
            Some(ttl) => (ttl, None),
        };
        keys.set(&*key, secs(ttl), &[value.id]);
        if let Some(instead) = instead {
            self.note(Some(value), Outcome::NotMapped(instead.into()));
        }
        status.speak_for(&Outcome::Mapped(key), self.ledger);
    }

    fn cache_key(&mut self, key: &Node, keys: &mut Keys) {
        if let Some(node) = key.get("ignore_query_strings_order")
            && node.bool() == Some(true)
        {
            self.map(keys, "query.sort", "true", node);
        }
        for node in [key.get("cache_by_device_type"), key.at(&["custom_key", "user", "device_type"])]
            .into_iter()
            .flatten()
        {
            if node.bool() == Some(true) {
                self.map(keys, "key.device", "true", node);
            }
        }
        self.note(
            key.get("cache_deception_armor"),
            Outcome::NotMapped("there is no such guard: have rules for static files name their paths".into()),
        );
        let Some(custom) = key.get("custom_key") else { return };
        if let Some(query) = custom.get("query_string") {
            for (name, to, all) in [("include", "query.keep", "all"), ("exclude", "query.drop", "ignore")] {
                let Some(list) = query.get(name) else { continue };
                let is_all = list.text() == Some("*") || list.get("all").and_then(Node::bool) == Some(true);
                let items = list.get("list").unwrap_or(list).items();
                let names: Vec<&str> = items.iter().filter_map(Node::text).collect();
                if is_all || names == ["*"] {
                    self.map(keys, "query", quote(all), list);
                } else if !names.is_empty() {
                    self.map(keys, to, quote_list(&names), list);
                }
            }
        }
        // Where a part of what is said counts there, all of it does here: more keys, and never a wrong one.
        let mut headers = Named::default();
        if let Some(header) = custom.get("header") {
            headers.all_of(header.get("include"));
            for (name, instead) in [
                ("check_presence", "all that they say is in the key: write vary = { NAME = \"presence\" }"),
                ("contains", "all that they say is in the key: write vary = { NAME = [\"…\"] }"),
            ] {
                headers.all_of(header.get(name));
                self.note(header.get(name), Outcome::NotMapped(instead.into()));
            }
            self.note(
                header.get("exclude_origin"),
                Outcome::NotNeeded("Origin is not in the key; see cors".into()),
            );
        }
        if let Some(lang) = custom.at(&["user", "lang"]).filter(|lang| lang.bool() == Some(true)) {
            headers.names.push("Accept-Language".into());
            headers.from.push(lang.id);
            let instead = "all of Accept-Language is in the key: write vary for its values";
            self.note(Some(lang), Outcome::NotMapped(instead.into()));
        }
        let mut cookies = Named::default();
        if let Some(cookie) = custom.get("cookie") {
            cookies.all_of(cookie.get("include"));
            cookies.all_of(cookie.get("check_presence"));
            let instead = "all that they say is in the key: write a rule with with_cookie";
            self.note(cookie.get("check_presence"), Outcome::NotMapped(instead.into()));
        }
        for (named, key) in [(headers, "key.headers"), (cookies, "key.cookies")] {
            if !named.names.is_empty() {
                keys.set(key, quote_list(&named.names), &named.from);
                named.from.iter().for_each(|id| self.ledger.mapped(*id, key));
            }
        }
        if let Some(geo) = custom.at(&["user", "geo"]).filter(|geo| geo.bool() == Some(true)) {
            let instead = "countries are not in the key, so nothing is cached; take cache = false out where it is the same for all";
            self.note(Some(geo), Outcome::NotMapped(instead.into()));
        }
        self.note(
            custom.get("host"),
            Outcome::NotMapped("the host that visitors ask for is always in the key".into()),
        );
    }

    // --- Redirects and headers ---

    fn redirect(&mut self, parameters: &Node, keys: &mut Keys) -> Option<()> {
        let from = parameters.get("from_value")?;
        let target = from.at(&["target_url", "value"])?;
        let keeps = from.get("preserve_query_string").and_then(Node::bool) == Some(true);
        let status = from.get("status_code").and_then(Node::number).unwrap_or(301);
        let to = target.text()?.replace('{', "{{").replace('}', "}}");
        let to = if keeps { format!("{to}{{query}}") } else { to };
        keys.set("redirect.to", quote(&to), &[target.id]);
        keys.set("redirect.status", status.to_string(), &[target.id]);
        from.speak_for(&Outcome::Mapped("redirect".into()), self.ledger);
        Some(())
    }

    fn header_changes(&mut self, parameters: &Node, phase: &str, keys: &mut Keys) -> Option<()> {
        let table = if phase.contains("response") { "response_headers" } else { "request_headers" };
        self.note(
            parameters.get("uri"),
            Outcome::NotMapped("paths are not changed but by a redirect".into()),
        );
        let headers = parameters.get("headers")?;
        let mut removed: Vec<&str> = Vec::new();
        let mut from: Vec<Id> = Vec::new();
        for (name, change) in headers.members() {
            let value = change.get("value").and_then(Node::text);
            match (change.get("operation").and_then(Node::text), value) {
                (Some("remove"), _) => {
                    removed.push(name);
                    from.push(change.id);
                    change.speak_for(&Outcome::Mapped(format!("{table}.remove")), self.ledger);
                }
                (Some(operation @ ("set" | "add")), Some(value)) => {
                    let key = dotted(&format!("{table}.{operation}"), name);
                    keys.set(&*key, quote(value), &[change.id]);
                    change.speak_for(&Outcome::Mapped(key), self.ledger);
                }
                _ => change.speak_for(
                    &Outcome::NotMapped("there are no expressions in values: let the origin send it".into()),
                    self.ledger,
                ),
            }
        }
        if !removed.is_empty() {
            keys.set(format!("{table}.remove"), quote_list(&removed), &from);
        }
        Some(())
    }

    // --- Page rules ---

    fn page_rule(&mut self, rule: &Node) {
        for name in ["id", "created_on", "modified_on"] {
            self.note(rule.get(name), Outcome::NotNeeded("a note".into()));
        }
        if rule.get("status").and_then(Node::text) == Some("disabled") {
            rule.speak_for(&Outcome::NotNeeded("the rule is switched off".into()), self.ledger);
            return;
        }
        self.note(rule.get("status"), Outcome::NotNeeded("it is on".into()));
        self.note(rule.get("priority"), Outcome::Mapped("the order of rules".into()));
        let target = rule.get("targets").and_then(|targets| targets.items().first());
        let Some(value) = target.and_then(|target| target.at(&["constraint", "value"])) else { return };
        let actions = rule.get("actions").map_or(&[][..], Node::items);
        let mut condition = match expression::of_url(value.text().unwrap_or_default()) {
            Ok(condition) => condition,
            Err(why) => {
                rule.speak_for(
                    &Outcome::NotMapped(format!("its URL cannot be said by conditions of a rule: {why}")),
                    self.ledger,
                );
                return;
            }
        };
        self.ledger.mapped(value.id, "hosts, path, scheme");
        let forwards =
            actions.iter().any(|action| action.get("id").and_then(Node::text) == Some("forwarding_url"));
        if forwards && condition.paths.is_empty() {
            // So that there is a star that its target can name.
            condition.paths.push("/*".into());
        }
        if !condition.is_exact {
            self.ledger.not_mapped(value.id, "rules have no condition on the query");
        }
        self.note(rule.get("targets"), Outcome::Mapped("hosts, path, scheme".into()));
        self.hosts.extend(condition.hosts.iter().cloned());
        let mut keys = Keys::default();
        let stars = condition.paths.first().map_or(0, |path| path.matches('*').count());
        let before = condition.hosts.first().map_or(0, |host| host.matches('*').count());
        for action in actions {
            self.page_action(action, &mut keys, before, stars);
        }
        let name = value.text().unwrap_or_default().to_owned();
        let priority = rule.get("priority").and_then(Node::number).unwrap_or(0);
        // Whatever else is said of caching, before or behind it.
        if let Some(unread) = actions.iter().find(|action| is_unread_key(action)) {
            let from = vec![value.id, unread.id];
            keys.set("cache", "false", &[unread.id]);
            let mut passed = Keys::default();
            passed.set("cache", "false", &[unread.id]);
            self.unkeyed.push(Settings {
                name: name.clone(),
                condition: condition.clone(),
                keys: passed,
                from,
            });
        }
        let is_by_cookie =
            |action: &&Node| action.get("id").and_then(Node::text) == Some("bypass_cache_on_cookie");
        let cookies = actions.iter().find(is_by_cookie).and_then(|action| action.get("value"));
        if let Some((node, expression)) = cookies.and_then(|node| Some((node, node.text()?))) {
            let mut passed = keys.clone();
            passed.set("cache", "false", &[node.id]);
            for way in self.with_cookies(node, expression) {
                let Some(condition) = condition.and(&way) else { continue };
                let (name, from) = (format!("{name}-with-cookies"), vec![value.id, node.id]);
                self.pages.push((priority, Settings { name, condition, keys: passed.clone(), from }));
            }
        }
        self.pages.push((priority, Settings { name, condition, keys, from: vec![value.id] }));
    }

    /// Those who have a cookie whose name an expression is for; as there is one pattern for all cookies of a request, perhaps more.
    fn with_cookies(&mut self, node: &Node, expression: &str) -> Vec<Condition> {
        const KEY: &str = "with_header.Cookie";
        // Where a name begins or ends is not said of all of them.
        let globs = match expression.contains(['^', '$']) {
            true => vec!["*".to_owned()],
            false => covering(expression, true),
        };
        self.ledger.mapped(node.id, format!("{KEY}, in a rule with cache = false"));
        let of = |glob: &String| {
            let value = if glob == "*" { "true".to_owned() } else { quote(glob) };
            Condition { lines: vec![(KEY.to_owned(), value)], is_wide: true, ..Condition::default() }
        };
        globs.iter().map(of).collect()
    }

    fn page_action(&mut self, action: &Node, keys: &mut Keys, stars_of_host: usize, stars: usize) {
        let (Some(id), value) = (action.get("id").and_then(Node::text), action.get("value")) else { return };
        self.note(action.get("id"), Outcome::NotNeeded("it names the action, which see".into()));
        let (text, number) = (value.and_then(Node::text), value.and_then(Node::number));
        let Some(value) = value else {
            // Actions that are a word alone.
            match id {
                "always_use_https" => {
                    keys.set("https", quote("redirect"), &[action.id]);
                    self.ledger.mapped(action.id, "https");
                }
                _ => self.ledger.not_mapped(action.id, format!("{id} has no equal here")),
            }
            return;
        };
        match (id, text, number) {
            ("cache_level", Some("bypass"), _) => self.map(keys, "cache", "false", value),
            ("cache_level", Some("cache_everything"), _) => {
                self.map(keys, "cache", "true", value);
                if keys.get("ttl").is_none() {
                    silent(keys, &[value.id]);
                }
            }
            ("cache_level", Some("simplified" | "basic"), _) => self.ledger.not_mapped(
                value.id,
                "write query = \"ignore\" where the origin needs no query: it is not sent there either then",
            ),
            ("cache_level", ..) => self.ledger.not_needed(value.id, "it is so without a rule"),
            ("edge_cache_ttl", _, Some(ttl)) => {
                self.map(keys, "ttl", secs(ttl), value);
                keys.remove("ttl_overrides");
            }
            ("browser_cache_ttl", _, Some(0)) => {
                self.ledger.not_needed(value.id, "visitors are told what the origin says")
            }
            ("browser_cache_ttl", _, Some(ttl)) => self.map(keys, "browser_ttl", secs(ttl), value),
            ("cache_ttl_by_status", ..) => {
                for (status, ttl) in value.members() {
                    let seconds =
                        ttl.number().or_else(|| ttl.text().and_then(|text| text.parse().ok())).unwrap_or(0);
                    self.map(keys, &dotted("ttl_by_status", status), secs(seconds), ttl);
                }
            }
            ("cache_by_device_type", Some("on"), _) => self.map(keys, "key.device", "true", value),
            ("sort_query_string_for_cache", Some("on"), _) => self.map(keys, "query.sort", "true", value),
            ("host_header_override", Some(host), _) => {
                self.map(keys, "origin_options.host", quote(host), value)
            }
            ("resolve_override", Some(host), _) => {
                self.map(keys, "origin", quote(&format!("https://{host}")), value)
            }
            ("forwarding_url", ..) => {
                let url = value.get("url").and_then(Node::text).unwrap_or_default();
                let status = value.get("status_code").and_then(Node::number).unwrap_or(301);
                let mut to = url.replace('{', "{{").replace('}', "}}");
                let mut is_known = true;
                for number in 1..=9_usize {
                    let name = format!("${number}");
                    if to.contains(&name) {
                        // Stars of the host come first.
                        is_known &= number > stars_of_host && number <= stars_of_host + stars;
                        to = to.replace(&name, &format!("{{{}}}", number.saturating_sub(stars_of_host)));
                    }
                }
                if is_known {
                    keys.set("redirect.to", quote(&to), &[value.id]);
                    keys.set("redirect.status", status.to_string(), &[value.id]);
                    value.speak_for(&Outcome::Mapped("redirect".into()), self.ledger);
                } else {
                    value.speak_for(&Outcome::NotMapped("what a \"*\" of the host stands for is not known in redirects: write one for each host".into()), self.ledger);
                }
            }
            // A rule before this one, which see.
            ("bypass_cache_on_cookie", Some(_), _) => {}
            ("bypass_cache_on_cookie" | "cache_on_cookie", ..) => {
                let instead = "nothing is cached: write rules with with_cookie, and take cache = false out";
                value.speak_for(&Outcome::NotMapped(instead.into()), self.ledger);
            }
            ("cache_key_fields" | "cache_key", ..) => {
                let instead = "it is not read, so nothing is cached: write query, key.headers and key.cookies, and take cache = false out";
                value.speak_for(&Outcome::NotMapped(instead.into()), self.ledger);
            }
            (
                "origin_error_page_pass_thru"
                | "respect_strong_etag"
                | "explicit_cache_control"
                | "opportunistic_encryption",
                ..,
            ) => {
                value.speak_for(&Outcome::NotNeeded("it is so without a rule".into()), self.ledger);
            }
            ("ssl" | "automatic_https_rewrites", ..) => {
                value.speak_for(
                    &Outcome::NotMapped("write https:// into the origin, and https = \"redirect\"".into()),
                    self.ledger,
                );
            }
            (id, ..) => value.speak_for(&Outcome::NotMapped(format!("{id} has no equal here")), self.ledger),
        }
    }

    // --- The site ---

    fn site(mut self) -> Option<DraftSite> {
        if self.redirects.is_empty()
            && self.pages.is_empty()
            && self.caching.iter().all(Vec::is_empty)
            && self.passed.is_empty()
            && self.headers.says_as(&Keys::default())
        {
            return None;
        }
        let mut keys = Keys::default();
        self.hosts.sort();
        self.hosts.dedup();
        // A domain has its star at the start alone; others are conditions of rules.
        let has_all = self.hosts.is_empty() || !self.hosts.iter().all(|host| is_domain(host));
        let is_held = |host: &String, hosts: &[String]| {
            hosts
                .iter()
                .any(|wide| wide.strip_prefix('*').is_some_and(|end| wide != host && host.ends_with(end)))
        };
        let domains: Vec<String> =
            self.hosts.iter().filter(|host| !is_held(host, &self.hosts)).cloned().collect();
        keys.set("domains", if has_all { quote("*") } else { quote_list(&domains) }, &[]);
        keys.set("origin", quote(ORIGIN), &[]);
        keys.set("heuristic.percent", "0", &[]);
        // Nor are static files opened to scripts of other sites.
        keys.set("cors", quote("off"), &[]);
        // What the origin says to Cloudflare alone it says to whoever is in its place.
        let targeted = ["Perigee-Cache-Control", "Cloudflare-CDN-Cache-Control", "CDN-Cache-Control"];
        keys.set("targeted", quote_list(&targeted), &[]);
        keys.extend(&self.headers.clone());
        let mut rules = std::mem::take(&mut self.redirects);
        self.pages.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        let pages: Vec<Settings> =
            std::mem::take(&mut self.pages).into_iter().map(|(_, page)| page).collect();
        for page in pages.iter().filter(|page| page.keys.has_table("redirect")) {
            let mut keys = page.condition.keys(&page.from);
            keys.extend(&page.keys);
            let (name, from, is_wide) = (page.name.clone(), page.from.clone(), page.condition.is_wide);
            rules.push(DraftRule { name, from, keys, is_wide, ..DraftRule::default() });
        }
        let mut together = unruled();
        together = self.parted(together, &pages);
        let mut passed = std::mem::take(&mut self.passed);
        for settings in std::mem::take(&mut self.caching) {
            if !settings.is_empty() {
                passed.append(&mut self.unkeyed);
            }
            together = self.parted(together, &settings);
        }
        together = self.parted(together, &passed);
        let mut caching: Vec<DraftRule> = together.into_iter().map(rule_of).collect();
        simplify(&mut caching);
        rules.extend(caching);
        close(&mut rules, self.ledger);
        close_spellings(&mut rules, &OTHER_SPELLINGS, "Cloudflare");
        let name = domains.first().map_or("zone", |host| host.trim_start_matches("*.")).to_owned();
        Some(DraftSite { name, keys, rules, ..DraftSite::default() })
    }
}

impl Reader<'_> {
    /// Each of what holds together, with the first of some settings that holds, and then without them.
    fn parted(&mut self, together: Vec<Settings>, settings: &[Settings]) -> Vec<Settings> {
        let mut rest = together;
        let mut parted = Vec::new();
        for more in settings.iter().filter(|more| !more.keys.has_table("redirect")) {
            let mut without = Vec::new();
            for mut known in rest {
                let Some(condition) = known.condition.and(&more.condition) else {
                    without.push(known);
                    continue;
                };
                if parted.len() + without.len() >= TOGETHER_MAX {
                    for id in &more.from {
                        self.ledger.not_mapped(
                            *id,
                            format!("it would make more than {TOGETHER_MAX} rules of those that hold together: nothing is cached where it is not said"),
                        );
                    }
                    known.keys.set("cache", "false", &more.from);
                    without.push(known);
                    continue;
                }
                let mut both = Settings { condition, ..known.clone() };
                // A rule for all is not named for it.
                if !more.condition.is_always() {
                    both.name.clone_from(&more.name);
                }
                both.keys.overlay(&more.keys);
                both.from.extend(&more.from);
                parted.push(both);
                if !more.condition.covers(&known.condition) || more.condition.is_wide {
                    without.push(known);
                }
            }
            rest = without;
        }
        parted.extend(rest);
        parted
    }
}

/// Names that belong to a key, and where they are said.
#[derive(Default)]
struct Named {
    names: Vec<String>,
    from: Vec<Id>,
}

impl Named {
    /// The items of a list, or the names of an object.
    fn all_of(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        let names = node.items().iter().filter_map(Node::text).map(str::to_owned);
        for name in names.chain(node.members().iter().map(|(name, _)| name.to_owned())) {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        self.from.extend(node.leaves().iter().map(|leaf| leaf.id));
    }
}

/// What a zone does without rules: it caches files, and nothing else.
fn unruled() -> Vec<Settings> {
    let mut files = Settings {
        name: "files".into(),
        condition: Condition {
            paths: EXTENSIONS.split_whitespace().map(|extension| format!("*.{extension}")).collect(),
            ..Condition::default()
        },
        keys: Keys::default(),
        from: Vec::new(),
    };
    let mut rest = Settings { name: "rest".into(), condition: Condition::default(), ..files.clone() };
    silent(&mut files.keys, &[]);
    rest.keys.set("cache", "false", &[]);
    vec![files, rest]
}

fn rule_of(settings: Settings) -> DraftRule {
    let Settings { name, condition, keys, from } = settings;
    let mut rule = DraftRule {
        name,
        keys: condition.keys(&from),
        from,
        is_wide: condition.is_wide,
        ..DraftRule::default()
    };
    match &*rule.name {
        "files" => rule.remarks.push("What Cloudflare caches without a rule.".into()),
        "rest" => rule.remarks.push("And what it does not.".into()),
        _ => {}
    }
    rule.keys.extend(&keys);
    match rule.keys.get("cache") {
        Some("false") => rule.pass(&[]),
        _ => rule.keys.remove("cache"),
    }
    rule
}

fn blocked(name: &str, condition: &Condition, from: Vec<Id>) -> DraftRule {
    let mut rule =
        DraftRule::refusal(name, condition.keys(&from), from, "Cloudflare lets nobody through here.");
    rule.is_wide = condition.is_wide;
    rule
}

/// Whether an action of a page rule makes a key that is not read here.
fn is_unread_key(action: &Node) -> bool {
    match action.get("id").and_then(Node::text) {
        Some("cache_key_fields" | "cache_key" | "cache_on_cookie") => true,
        Some("bypass_cache_on_cookie") => action.get("value").and_then(Node::text).is_none(),
        _ => false,
    }
}

fn silent(keys: &mut Keys, from: &[Id]) {
    keys.set("ttl", secs(SILENT_SECS), from);
    for (status, ttl) in SILENT {
        keys.set(dotted("ttl_by_status", status), secs(ttl), from);
    }
    keys.set("ttl_overrides", "false", from);
}
