//! CloudFront: a distribution is a site, its behaviours are rules in their order, the default behaviour the last one.
//!
//! Policies that AWS manages are known by their ids. Of one's own the distribution has the id alone, so its behaviour is not
//! cached until somebody says what belongs to the key; a behaviour for signed URLs answers nobody, nor does one whose requests a function
//! sees first: it may be what keeps visitors out. A filter of requests, a restriction by country and being switched off close all of it.

use std::collections::HashMap;

use crate::draft::{
    Draft, DraftRule, DraftSite, Keys, Openness, REFUSED_ORIGIN, close, close_spellings, dotted, is_domain,
    path_pattern, quote, quote_list, secs,
};
use crate::json::{self, Node};
use crate::ledger::{Id, Ledger, Outcome};
use crate::{Broken, Imported};

/// Paths that are others' in another spelling: CloudFront removes dot segments (RFC 3986 §6.2.2) before it looks for a behaviour, and then
/// asks the origin for the path as it came.
const OTHER_SPELLINGS: [&str; 5] = ["*/./*", "*/../*", "*/.", "*/..", "*%2E*"];

/// What CloudFront does with a lifetime that is said by nobody.
const YEAR_SECS: u64 = 31_536_000;

/// Reads a distribution.
pub(super) fn import(text: &str, name: &str) -> Result<Imported, Broken> {
    let mut ledger = Ledger::default();
    let root = json::read(text, name, &mut ledger)?;
    let config = [&["DistributionConfig"][..], &["Distribution", "DistributionConfig"], &[]];
    let config = config.iter().find_map(|path| root.at(path)).unwrap_or(&root);
    if config.get("DefaultCacheBehavior").is_none() {
        return Err(Broken {
            place: ledger.place(root.id).clone(),
            message: "there is no DefaultCacheBehavior: this is not the configuration of a distribution"
                .into(),
            help: "give it what aws cloudfront get-distribution-config --id ID prints".into(),
        });
    }
    let mut reader = Reader { ledger: &mut ledger, origins: HashMap::new() };
    let mut draft = Draft::default();
    draft.edge.set("listen", "[\"0.0.0.0:80\", \"[::]:80\"]", &[]);
    let site = reader.site(config);
    for name in
        ["ETag", "Id", "ARN", "Status", "LastModifiedTime", "DomainName", "InProgressInvalidationBatches"]
    {
        // What stands around the configuration.
        reader.not_needed(
            root.get(name).or_else(|| root.at(&["Distribution", name])),
            "about the distribution, not its configuration",
        );
    }
    draft.sites.push(site);
    for leaf in root.leaves() {
        if ledger.is_silent(leaf.id) && leaf.is_nothing() {
            ledger.not_needed(leaf.id, "it is off, or says nothing");
        }
    }
    draft.finish(ledger, "CloudFront distribution", name)
}

struct Reader<'a> {
    ledger: &'a mut Ledger,
    /// Origins and groups by their ids.
    origins: HashMap<String, Keys>,
}

impl Reader<'_> {
    fn map(&mut self, keys: &mut Keys, key: &str, value: impl Into<String>, node: &Node) {
        let ids: Vec<Id> = node.leaves().iter().map(|leaf| leaf.id).collect();
        keys.set(key, value, &ids[..1.min(ids.len())]);
        ids.iter().for_each(|id| self.ledger.mapped(*id, key));
    }

    fn not_needed(&mut self, node: Option<&Node>, why: &str) {
        if let Some(node) = node {
            node.speak_for(&Outcome::NotNeeded(why.into()), self.ledger);
        }
    }

    fn not_mapped(&mut self, node: Option<&Node>, instead: &str) {
        if let Some(node) = node.filter(|node| !node.is_nothing()) {
            node.speak_for(&Outcome::NotMapped(instead.into()), self.ledger);
        }
    }

    fn not_a_domain(&mut self, node: &Node) {
        for leaf in node.leaves() {
            self.ledger.settle(leaf.id, Outcome::NotMapped("it is no host: write domains".into()));
        }
    }

    /// The texts of a list, as CloudFront writes them: `{"Quantity": 1, "Items": ["a"]}`.
    fn texts<'n>(&mut self, list: Option<&'n Node>) -> Vec<&'n str> {
        let Some(list) = list else { return Vec::new() };
        self.not_needed(list.get("Quantity"), "it counts what is there");
        list.get("Items").map_or(&[][..], Node::items).iter().filter_map(Node::text).collect()
    }

    fn items<'n>(&mut self, list: Option<&'n Node>) -> &'n [Node] {
        let Some(list) = list else { return &[] };
        self.not_needed(list.get("Quantity"), "it counts what is there");
        list.get("Items").map_or(&[], Node::items)
    }

    fn site(&mut self, config: &Node) -> DraftSite {
        let mut keys = Keys::default();
        let aliases: Vec<&str> =
            self.texts(config.get("Aliases")).into_iter().filter(|name| is_domain(name)).collect();
        match config.at(&["Aliases", "Items"]).filter(|_| !aliases.is_empty()) {
            Some(items) => {
                // What a wildcard holds already is not said twice.
                let is_held = |name: &&&str| {
                    aliases.iter().any(|wide| {
                        wide.strip_prefix('*').is_some_and(|end| wide != *name && name.ends_with(end))
                    })
                };
                let names: Vec<&str> = aliases.iter().filter(|name| !is_held(name)).copied().collect();
                self.map(&mut keys, "domains", quote_list(&names), items);
                for node in items.items().iter().filter(|node| !node.text().is_some_and(is_domain)) {
                    self.not_a_domain(node);
                }
            }
            // The name that CloudFront gives is not part of the configuration.
            None => keys.set("domains", quote("*"), &[]),
        }
        for group in self.items(config.get("Origins")) {
            self.origin(group);
        }
        for group in self.items(config.get("OriginGroups")) {
            self.origin_group(group);
        }
        let mut errors = Keys::default();
        for error in self.items(config.get("CustomErrorResponses")) {
            self.error(error, &mut errors);
        }
        let mut rules = self.closed(config);
        for behaviour in self.items(config.get("CacheBehaviors")) {
            rules.extend(self.behaviour(behaviour, &errors));
        }
        if let Some(behaviour) = config.get("DefaultCacheBehavior") {
            rules.extend(self.behaviour(behaviour, &errors));
        }
        close(&mut rules, self.ledger);
        close_spellings(&mut rules, &OTHER_SPELLINGS, "CloudFront");
        let origin = rules
            .iter()
            .rev()
            .filter(|rule| !rule.is_refusal())
            .find_map(|rule| rule.keys.get("origin").map(str::to_owned));
        keys.set("origin", origin.unwrap_or_else(|| quote(REFUSED_ORIGIN)), &[]);
        // CloudFront guesses no lifetimes: it has a default.
        keys.set("heuristic.percent", "0", &[]);
        // Nor are static files opened to scripts of other sites.
        keys.set("cors", quote("off"), &[]);
        self.rest(config);
        let name = aliases.first().map_or("distribution", |name| name.trim_start_matches("*."));
        DraftSite { name: name.to_owned(), keys, rules, ..DraftSite::default() }
    }

    // --- Origins ---

    fn origin(&mut self, origin: &Node) {
        let mut keys = Keys::default();
        let Some((id, domain)) =
            origin.get("Id").and_then(Node::text).zip(origin.get("DomainName").and_then(Node::text))
        else {
            return;
        };
        self.not_needed(origin.get("Id"), "a name within the distribution");
        let custom = origin.get("CustomOriginConfig");
        let policy = custom.and_then(|custom| custom.get("OriginProtocolPolicy"));
        let port = |name: &str, default: u64| {
            custom.and_then(|custom| custom.get(name)).and_then(Node::number).map_or(String::new(), |port| {
                if port == default { String::new() } else { format!(":{port}") }
            })
        };
        let (scheme, port) = match policy.and_then(Node::text) {
            Some("http-only") => ("http", port("HTTPPort", 80)),
            _ => ("https", port("HTTPSPort", 443)),
        };
        if let Some(policy) = policy {
            match policy.text() {
                Some("match-viewer") => {
                    let why = "origins are asked by one protocol, whatever visitors speak: https is taken";
                    self.ledger.not_mapped(policy.id, why);
                }
                _ => self.ledger.mapped(policy.id, "origin"),
            }
        }
        let path = origin.get("OriginPath").and_then(Node::text).unwrap_or_default();
        if let Some(node) = origin.get("OriginPath").filter(|node| !node.is_nothing()) {
            self.ledger.mapped(node.id, "origin");
        }
        if let Some(node) = origin.get("DomainName") {
            self.map(&mut keys, "origin", quote(&format!("{scheme}://{domain}{port}{path}")), node);
            // Unless a policy says otherwise, the origin is asked for its own name.
            keys.set("origin_options.host", quote(domain), &[node.id]);
        }
        if let Some(custom) = custom {
            for port in ["HTTPPort", "HTTPSPort"] {
                if let Some(node) = custom.get(port) {
                    self.ledger.mapped(node.id, "origin");
                }
            }
            if let Some(node) = custom.get("OriginReadTimeout")
                && let Some(seconds) = node.number()
            {
                for key in ["first_byte", "idle"] {
                    self.map(&mut keys, &format!("origin_options.timeouts.{key}"), secs(seconds), node);
                }
            }
            if let Some(node) = custom.get("OriginKeepaliveTimeout")
                && let Some(seconds) = node.number()
            {
                self.map(&mut keys, "origin_options.timeouts.keep_alive", secs(seconds), node);
            }
            self.not_needed(custom.get("OriginSslProtocols"), "TLS 1.2 and 1.3 are spoken with origins");
        }
        if let Some(node) = origin.get("ConnectionTimeout")
            && let Some(seconds) = node.number()
        {
            self.map(&mut keys, "origin_options.timeouts.connect", secs(seconds), node);
        }
        self.not_needed(origin.get("ConnectionAttempts"), "retries have a budget: see origin_options.retry");
        for header in self.items(origin.get("CustomHeaders")) {
            let name = header.get("HeaderName").and_then(Node::text);
            let value = header.get("HeaderValue").and_then(Node::text);
            if let Some((name, value)) = name.zip(value) {
                self.map(
                    &mut keys,
                    &dotted("origin_options.request_headers.set", name),
                    quote(value),
                    header,
                );
            }
        }
        let signed = "requests are not signed for S3: have the bucket answer to a secret header or to the edges' addresses";
        self.not_mapped(origin.get("OriginAccessControlId"), signed);
        self.not_mapped(origin.at(&["S3OriginConfig", "OriginAccessIdentity"]), signed);
        self.not_mapped(
            origin.get("VpcOriginConfig"),
            "have the edges reach the origin: by a route into its network",
        );
        if let Some(shield) = origin.get("OriginShield") {
            match shield.get("Enabled").and_then(Node::bool) {
                Some(true) => {
                    self.not_mapped(Some(shield), "write shield = \"POP\" into the site, once there are PoPs")
                }
                _ => self.not_needed(Some(shield), "it is off"),
            }
        }
        self.origins.insert(id.to_owned(), keys);
    }

    fn origin_group(&mut self, group: &Node) {
        let Some(id) = group.get("Id").and_then(Node::text) else { return };
        self.not_needed(group.get("Id"), "a name within the distribution");
        let (mut keys, mut urls) = (Keys::default(), Vec::new());
        for (index, member) in self.items(group.get("Members")).iter().enumerate() {
            let Some(node) = member.get("OriginId") else { continue };
            let Some(origin) = node.text().and_then(|id| self.origins.get(id)).cloned() else { continue };
            self.ledger.mapped(node.id, "origin");
            let Some(url) = origin.get("origin").map(str::to_owned) else { continue };
            // What one origin is sent is often a secret that it shares with CloudFront alone.
            let sent = "origin_options.request_headers.";
            let own = origin.renamed(sent, &format!("origin_options.request_headers_of.{url}."));
            let is_known = urls.contains(&url);
            urls.push(url);
            if index == 0 {
                keys.extend(&origin);
                keys.remove_under(sent);
            }
            if !is_known {
                keys.extend(&own);
            }
            if index > 0 && origin.get("origin_options.host") != keys.get("origin_options.host") {
                let instead = "origins of a list are asked for one host: give this one the other's name, or see origin_options.host";
                self.ledger.not_mapped(node.id, instead);
            }
        }
        if urls.is_empty() {
            return;
        }
        keys.set("origin", format!("[{}]", urls.join(", ")), &[group.id]);
        let codes = group.at(&["FailoverCriteria", "StatusCodes"]);
        self.not_needed(codes.and_then(|codes| codes.get("Quantity")), "it counts what is there");
        if let Some(items) = codes.and_then(|codes| codes.get("Items")) {
            let codes: Vec<String> =
                items.items().iter().filter_map(Node::number).map(|code| code.to_string()).collect();
            self.map(&mut keys, "origin_options.fail_over", format!("[{}]", codes.join(", ")), items);
        }
        self.not_needed(group.get("SelectionCriteria"), "the first that is well is asked");
        self.origins.insert(id.to_owned(), keys);
    }

    fn error(&mut self, error: &Node, keys: &mut Keys) {
        let Some(code) = error.get("ErrorCode").and_then(Node::number) else { return };
        if let Some(node) = error.get("ErrorCachingMinTTL")
            && let Some(ttl) = node.number()
        {
            let key = format!("ttl_by_status.{code}");
            self.map(keys, &key, secs(ttl), node);
            if let Some(node) = error.get("ErrorCode") {
                self.ledger.mapped(node.id, key);
            }
        }
        let pages = "error pages are the origin's: have it answer with this page and status";
        self.not_mapped(error.get("ResponsePagePath"), pages);
        self.not_mapped(error.get("ResponseCode"), pages);
        self.not_mapped(error.get("ErrorCode"), pages);
    }

    // --- Behaviours ---

    fn behaviour(&mut self, behaviour: &Node, errors: &Keys) -> Vec<DraftRule> {
        let mut keys = Keys::default();
        let mut is_wide = false;
        let pattern = behaviour.get("PathPattern");
        let mut name = "rest".to_owned();
        if let Some((node, text)) = pattern.and_then(|node| Some((node, node.text()?))) {
            name = text.to_owned();
            // "?" stands for one character there.
            let (paths, fit) = one_character(text);
            if !fit.is_empty() {
                self.ledger.not_mapped(node.id, fit);
            }
            is_wide = paths.len() == 1 && text.contains('?');
            self.map(&mut keys, "path", quote_list(&paths), node);
        }
        let from = [behaviour.id];
        let target = behaviour.get("TargetOriginId");
        let origin = target.and_then(Node::text).and_then(|id| self.origins.get(id)).cloned();
        match (&origin, target) {
            (Some(origin), Some(target)) => {
                self.ledger.mapped(target.id, "origin");
                keys.extend(origin);
            }
            (_, target) => {
                self.not_mapped(target, "there is no such origin in this text: name one");
                keys.set("origin", quote(REFUSED_ORIGIN), &from);
            }
        }
        if let Some(node) = behaviour.get("ViewerProtocolPolicy") {
            match node.text() {
                Some("redirect-to-https") => self.map(&mut keys, "https", quote("redirect"), node),
                Some("https-only") => {
                    self.map(&mut keys, "https", quote("redirect"), node);
                    self.ledger.not_mapped(node.id, "who comes without TLS is redirected, not refused");
                }
                _ => self.ledger.not_needed(node.id, "visitors choose"),
            }
        }
        let place = keys.get("path").map(str::to_owned);
        let methods = self.methods(behaviour);
        self.caching(behaviour, errors, &mut keys);
        match behaviour.get("Compress").map(|node| (node, node.bool())) {
            Some((node, Some(false))) if keys.get("cache").is_none() => {
                self.map(&mut keys, "compress", "false", node)
            }
            Some((node, _)) => self.ledger.not_needed(node.id, "compress is on, of what is cached"),
            None => {}
        }
        self.response_headers(behaviour, &mut keys);
        let mut first_seen_by: Vec<Id> = Vec::new();
        for list in ["LambdaFunctionAssociations", "FunctionAssociations"] {
            for item in self.items(behaviour.get(list)) {
                match item.get("EventType").and_then(Node::text) {
                    Some("viewer-request") => {
                        first_seen_by.extend(item.leaves().iter().map(|leaf| leaf.id));
                        self.not_mapped(
                            Some(item),
                            "programs are not run, and it may be what keeps visitors out: the rule refuses all; write what it does as rules, or let the origin do it, then name the origin in the rule",
                        );
                    }
                    _ => self
                        .not_mapped(Some(item), "programs are not run: write rules, or let the origin do it"),
                }
            }
        }
        self.not_mapped(
            behaviour.get("FieldLevelEncryptionId"),
            "fields are not encrypted: TLS to the origin has to do",
        );
        self.not_mapped(
            behaviour.get("RealtimeLogConfigArn"),
            "write access_log in [edge]: a URL takes batches of lines",
        );
        let wide_place = Some(behaviour.id).filter(|_| is_wide);
        let mut rule = DraftRule { name, from: from.to_vec(), keys, wide_place, ..DraftRule::default() };
        if !first_seen_by.is_empty() {
            refuse(
                &mut rule,
                "A function sees requests first here, and whom it lets through is not known.",
                &from,
            );
        }
        for list in ["TrustedSigners", "TrustedKeyGroups"] {
            let Some(node) = behaviour.get(list) else { continue };
            match node.get("Enabled").and_then(Node::bool) {
                Some(true) => {
                    self.not_mapped(
                        Some(node),
                        "signatures of URLs are not checked: the rule refuses all; let the origin check, then name it in the rule",
                    );
                    refuse(&mut rule, "CloudFront lets in only signed URLs here.", &from);
                }
                _ => self.not_needed(Some(node), "it is off"),
            }
        }
        // What is shared may be so for less; what is not must not be for less.
        if rule.openness() != Openness::Shared
            && let Some(pattern) = pattern.and_then(Node::text).filter(|text| text.contains('?'))
        {
            rule.wide_place = Some(behaviour.id);
            rule.keys.set("path", quote(&path_of(&pattern.replace('?', "*"))), &from);
        }
        let mut rules = vec![rule];
        if let Some((methods, ids)) = methods.filter(|_| !rules[0].is_refusal()) {
            rules[0].keys.set("methods", methods, &ids);
            let mut keys = Keys::default();
            if let Some(place) = place {
                keys.set("path", place, &from);
            }
            let who = "CloudFront refuses other methods here.";
            let refusal = DraftRule::refusal(&rules[0].name, keys, ids, who);
            rules.push(DraftRule { wide_place: rules[0].wide_place, ..refusal });
        }
        rules
    }

    /// The methods that are let through, where some are not, and where they stand.
    fn methods(&mut self, behaviour: &Node) -> Option<(String, Vec<Id>)> {
        let allowed = behaviour.get("AllowedMethods")?;
        let methods = self.texts(Some(allowed));
        let mut found = None;
        if let Some(items) = allowed.get("Items") {
            match methods.contains(&"POST") || methods.is_empty() {
                true => self.not_needed(Some(items), "methods pass as visitors use them"),
                false => {
                    items.speak_for(
                        &Outcome::Mapped("methods, and a rule that refuses the others".into()),
                        self.ledger,
                    );
                    let ids = items.leaves().iter().map(|leaf| leaf.id).collect();
                    found = Some((quote_list(&methods), ids));
                }
            }
        }
        if let Some(cached) = allowed.get("CachedMethods") {
            let with_options = self.texts(Some(cached)).contains(&"OPTIONS");
            match with_options {
                true => self.not_mapped(
                    cached.get("Items"),
                    "answers to OPTIONS are not stored; preflights are answered by cors",
                ),
                false => self.not_needed(Some(cached), "GET and HEAD are what is cached"),
            }
        }
        found
    }

    /// What closes the whole distribution to some or to all, which no rule says: so all is refused, before all other rules.
    fn closed(&mut self, config: &Node) -> Vec<DraftRule> {
        let geo = config.at(&["Restrictions", "GeoRestriction"]);
        let is_restricted = !matches!(
            geo.and_then(|geo| geo.get("RestrictionType")).and_then(Node::text),
            Some("none") | None
        );
        let is_off = config.get("Enabled").and_then(Node::bool) == Some(false);
        let guards = [
            (
                config.get("WebACLId").filter(|node| !node.is_nothing()),
                "web-acl",
                "A filter of requests (WAF) stands before it, and whom it lets through is not part of this text.",
            ),
            (
                geo.filter(|_| is_restricted),
                "countries",
                "It is open to some countries alone, and rules do not know where visitors are.",
            ),
            (config.get("Enabled").filter(|_| is_off), "switched-off", "The distribution is switched off."),
        ];
        let mut rules = Vec::new();
        for (node, name, who) in guards {
            if let Some(node) = node {
                let ids: Vec<Id> = node.leaves().iter().map(|leaf| leaf.id).take(1).collect();
                rules.push(DraftRule::refusal(name, Keys::default(), ids, who));
            }
        }
        rules
    }

    fn caching(&mut self, behaviour: &Node, errors: &Keys, keys: &mut Keys) {
        let request = behaviour.get("OriginRequestPolicyId").filter(|node| !node.is_nothing());
        let sends = request.and_then(Node::text).map_or(Some(Sends::default()), sent);
        if let Some(node) = request {
            match &sends {
                Some(_) => self.ledger.mapped(node.id, "origin_options.host, request_cookies, query"),
                None => self.ledger.not_mapped(
                    node.id,
                    "what it sends to the origin is not part of this text; everything is sent: see aws cloudfront get-origin-request-policy",
                ),
            }
        }
        let sends = sends.unwrap_or(Sends { host: false, query: true, cookies: true, headers: Headers::All });
        if sends.host {
            keys.remove("origin_options.host");
        }
        if let Some(node) = behaviour.get("CachePolicyId") {
            let Some(policy) = node.text().and_then(managed) else {
                let instead = "what it has in its key is not part of this text, so nothing is cached: write query, key and ttl \
                               (aws cloudfront get-cache-policy says them), and take cache = false out";
                self.ledger.not_mapped(node.id, instead);
                keys.set("cache", "false", &[node.id]);
                return;
            };
            if policy.max == 0 {
                self.map(keys, "cache", "false", node);
                return;
            }
            self.ledger.mapped(node.id, "ttl, query, key");
            self.lifetimes((policy.min, policy.default, policy.max), [Some(node); 3], keys);
            self.key(&policy, &sends, node, keys);
            keys.extend(errors);
            return;
        }
        let forwarded = behaviour.get("ForwardedValues");
        let policy = self.forwarded(forwarded);
        let ttl = |name: &str| behaviour.get(name);
        let of = |node: Option<&Node>, default: u64| node.and_then(Node::number).unwrap_or(default);
        let nodes = [ttl("MinTTL"), ttl("DefaultTTL"), ttl("MaxTTL")];
        let times = (of(nodes[0], 0), of(nodes[1], 86_400), of(nodes[2], YEAR_SECS));
        if policy.headers.contains(&"*".to_owned()) {
            let why = "with all headers in the key nothing is cached";
            nodes.into_iter().flatten().for_each(|node| self.ledger.not_needed(node.id, why));
            keys.remove("origin_options.host");
            keys.set("cache", "false", &[behaviour.id]);
            return;
        }
        if policy.headers.iter().any(|name| name.eq_ignore_ascii_case("host")) {
            keys.remove("origin_options.host");
        }
        self.lifetimes(times, nodes, keys);
        let node = forwarded.unwrap_or(behaviour);
        let sends = Sends { cookies: sends.cookies || policy.cookies == Cookies::All, ..sends };
        self.key(&policy, &sends, node, keys);
        keys.extend(errors);
    }

    /// The key of a behaviour without a policy.
    fn forwarded(&mut self, forwarded: Option<&Node>) -> Policy {
        let mut policy = Policy::default();
        let Some(forwarded) = forwarded else { return policy };
        if let Some(node) = forwarded.get("QueryString") {
            policy.all_queries = node.bool() == Some(true);
            self.ledger.mapped(node.id, "query");
        }
        let kept = self.texts(forwarded.get("QueryStringCacheKeys"));
        if !kept.is_empty() {
            policy.queries = kept.iter().map(|name| (*name).to_owned()).collect();
            policy.all_queries = false;
            if let Some(items) = forwarded.at(&["QueryStringCacheKeys", "Items"]) {
                items.speak_for(&Outcome::Mapped("query.keep".into()), self.ledger);
            }
        }
        if let Some(cookies) = forwarded.get("Cookies") {
            let names = self.texts(cookies.get("WhitelistedNames"));
            policy.cookies = match cookies.get("Forward").and_then(Node::text) {
                Some("all") => Cookies::All,
                Some("whitelist") => Cookies::Some(names.iter().map(|name| (*name).to_owned()).collect()),
                _ => Cookies::None,
            };
            cookies.speak_for(&Outcome::Mapped("request_cookies, key".into()), self.ledger);
        }
        let headers = self.texts(forwarded.get("Headers"));
        policy.headers = headers.iter().map(|name| (*name).to_owned()).collect();
        if let Some(items) = forwarded.at(&["Headers", "Items"]) {
            for node in items.items() {
                match node.text() {
                    Some(name) if name.to_ascii_lowercase().starts_with("cloudfront-") => self.ledger.not_mapped(
                        node.id,
                        format!("{name} is CloudFront's own: key.device tells mobile, tablet and desktop apart"),
                    ),
                    Some("*") => self.ledger.mapped(node.id, "cache = false"),
                    Some(name) if name.eq_ignore_ascii_case("host") => self.ledger.mapped(node.id, "the host is always in the key"),
                    _ => self.ledger.mapped(node.id, "key.headers"),
                }
            }
        }
        policy
    }

    /// Minimum, default and maximum.
    fn lifetimes(
        &mut self,
        (min, default, max): (u64, u64, u64),
        nodes: [Option<&Node>; 3],
        keys: &mut Keys,
    ) {
        let [of_min, of_default, of_max] = nodes;
        let from: Vec<Id> = of_default.map(|node| node.id).into_iter().collect();
        let mut say = |node: Option<&Node>, outcome: Outcome| {
            if let Some(node) = node {
                self.ledger.note(node.id, outcome);
            }
        };
        if min > 0 && min >= max {
            keys.set("ttl", secs(min), &from);
            nodes.into_iter().for_each(|node| say(node, Outcome::Mapped("ttl".into())));
            return;
        }
        if max == 0 {
            keys.set("ttl", secs(0), &from);
            nodes.into_iter().for_each(|node| say(node, Outcome::Mapped("ttl".into())));
            return;
        }
        let default = default.clamp(min, max);
        if default > 0 {
            keys.set("ttl", secs(default), &from);
            keys.set("ttl_overrides", "false", &from);
        }
        say(of_default, Outcome::Mapped("ttl, ttl_overrides".into()));
        match min {
            0 | 1 => say(of_min, Outcome::NotNeeded("the origin's lifetimes hold".into())),
            _ => say(
                of_min,
                Outcome::NotMapped("what the origin says is not lengthened: where it is too short, write ttl without ttl_overrides".into()),
            ),
        }
        match max >= YEAR_SECS {
            true => say(of_max, Outcome::NotNeeded("the origin's lifetimes hold".into())),
            false => {
                let from: Vec<Id> = of_max.map(|node| node.id).into_iter().collect();
                keys.set("ttl_max", secs(max), &from);
                say(of_max, Outcome::Mapped("ttl_max".into()));
            }
        }
    }

    fn key(&mut self, policy: &Policy, sends: &Sends, node: &Node, keys: &mut Keys) {
        let from = &[node.id];
        match (policy.all_queries, policy.queries.is_empty()) {
            (true, _) => {}
            (false, false) => keys.set("query.keep", quote_list(&policy.queries), from),
            (false, true) if sends.query => self.ledger.not_mapped(
                node.id,
                "the query is sent to the origin but not in the key there; here what is sent is in the key: write query = \"ignore\" where it is of no account",
            ),
            (false, true) => keys.set("query", quote("ignore"), from),
        }
        let is_own = |name: &&String| {
            let lower = name.to_ascii_lowercase();
            !lower.starts_with("cloudfront-") && lower != "host" && lower != "accept-encoding"
        };
        let mut headers: Vec<&str> = policy.headers.iter().filter(is_own).map(String::as_str).collect();
        match &policy.cookies {
            Cookies::All => headers.push("Cookie"),
            Cookies::Some(names) => {
                // Names with "*" are no names for a key.
                let (wide, plain): (Vec<&String>, Vec<&String>) =
                    names.iter().partition(|name| name.contains(['*', '?']));
                if !plain.is_empty() {
                    keys.set("key.cookies", quote_list(&plain), from);
                }
                if !wide.is_empty() {
                    headers.push("Cookie");
                }
                if !sends.cookies {
                    keys.set("request_cookies.keep", quote_list(names), from);
                }
            }
            Cookies::None if !sends.cookies => keys.set("request_cookies", quote("none"), from),
            Cookies::None => {}
        }
        if !headers.is_empty() {
            keys.set("key.headers", quote_list(&headers), from);
        }
        let is_sent = |name: &str| {
            let is_it = |known: &str| known.eq_ignore_ascii_case(name);
            policy.headers.iter().any(|known| is_it(known))
                || match sends.headers {
                    Headers::OfKey => false,
                    Headers::These(names) => names.iter().any(|known| is_it(known)),
                    Headers::All => true,
                }
        };
        let unsent: Vec<&str> = NOT_SENT.into_iter().filter(|name| !is_sent(name)).collect();
        if !unsent.is_empty() {
            keys.set("request_headers.remove", quote_list(&unsent), from);
        }
        if !is_sent("User-Agent") {
            keys.set(dotted("request_headers.set", "User-Agent"), quote(USER_AGENT), from);
        }
        if policy.headers.iter().any(|name| name.to_ascii_lowercase().contains("viewer-country")) {
            self.ledger.not_mapped(
                node.id,
                "countries are not in the key: have the origin tell them apart otherwise",
            );
        }
        if policy.headers.iter().any(|name| name.eq_ignore_ascii_case("authorization")) {
            keys.set("share_authorized", "true", from);
        }
    }

    fn response_headers(&mut self, behaviour: &Node, keys: &mut Keys) {
        let Some(node) = behaviour.get("ResponseHeadersPolicyId").filter(|node| !node.is_nothing()) else {
            return;
        };
        let (is_cors, with_preflight, is_secure) = match node.text().unwrap_or_default() {
            "60669652-455b-4ae9-85a4-c4c02393f86c" => (true, false, false),
            "5cc3b908-e619-4b99-88e5-2cf7f45965bd" => (true, true, false),
            "67f7725c-6f97-4210-82d7-5512b31e9d03" => (false, false, true),
            "e61eb60c-9c35-4d20-a928-2b84e02af89c" => (true, false, true),
            "eaab4381-ed33-4a86-88ca-d9558dc6cd63" => (true, true, true),
            _ => {
                let instead = "which headers it sets is not part of this text: write response_headers (aws cloudfront get-response-headers-policy)";
                self.ledger.not_mapped(node.id, instead);
                return;
            }
        };
        match (is_cors, with_preflight) {
            (true, true) => {
                self.map(keys, "cors.origins", quote("*"), node);
                self.map(keys, "cors.methods", quote_list(&["PUT", "PATCH", "DELETE"]), node);
                self.map(keys, "cors.expose", quote("*"), node);
            }
            (true, false) => self.map(keys, "cors", quote("all"), node),
            _ => {}
        }
        if is_secure {
            for (name, value) in [
                ("Referrer-Policy", "strict-origin-when-cross-origin"),
                ("Strict-Transport-Security", "max-age=31536000"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "SAMEORIGIN"),
                ("X-XSS-Protection", "1; mode=block"),
            ] {
                self.map(keys, &dotted("response_headers.set", name), quote(value), node);
            }
        }
    }

    // --- The rest ---

    fn rest(&mut self, config: &Node) {
        for name in
            ["CallerReference", "Comment", "PriceClass", "HttpVersion", "IsIPV6Enabled", "ConnectionMode"]
        {
            let why = match name {
                "PriceClass" => "where content is served is where edges are",
                "HttpVersion" | "IsIPV6Enabled" => {
                    "HTTP/2 and HTTP/3, IPv4 and IPv6 are spoken wherever [edge] listens"
                }
                _ => "a note",
            };
            self.not_needed(config.get(name), why);
        }
        match config.get("Enabled") {
            Some(node) if node.bool() == Some(true) => self.ledger.not_needed(node.id, "it is on"),
            Some(node) => self.ledger.not_mapped(
                node.id,
                "the distribution is switched off: a rule refuses all, until you take it out",
            ),
            None => {}
        }
        self.not_mapped(
            config.get("DefaultRootObject"),
            "the origin is asked for /: have it answer with this file",
        );
        self.not_mapped(
            config.get("WebACLId"),
            "there is no filter of requests but block, rate_limit and limits: a rule refuses all; take it out once you can do without",
        );
        if let Some(logging) = config.get("Logging") {
            match logging.get("Enabled").and_then(Node::bool) {
                Some(true) => self.not_mapped(
                    Some(logging),
                    "write access_log in [edge], and access_log_format = \"cloudfront\" for the same lines",
                ),
                _ => self.not_needed(Some(logging), "it is off"),
            }
        }
        if let Some(geo) = config.at(&["Restrictions", "GeoRestriction"]) {
            match geo.get("RestrictionType").and_then(Node::text) {
                Some("none") | None => self.not_needed(Some(geo), "nobody is kept out"),
                _ => self.not_mapped(
                    Some(geo),
                    "rules do not know where visitors are: a rule refuses all; have the origin refuse, or block their networks, then take it out",
                ),
            }
        }
        if let Some(certificate) = config.get("ViewerCertificate") {
            for name in ["MinimumProtocolVersion", "SSLSupportMethod", "CertificateSource"] {
                self.not_needed(certificate.get(name), "TLS 1.2 and 1.3 are spoken, by SNI");
            }
            self.not_mapped(
                Some(certificate),
                "keys do not leave ACM: write listen_tls in [edge], and [acme] with accept_terms = true, or [[certificate]]",
            );
        }
        self.not_mapped(config.get("ContinuousDeploymentPolicyId"), "roll out in stages: perigee apply");
    }
}

/// A path pattern, which may lack its "/".
fn path_of(text: &str) -> String {
    let begin = if text.starts_with(['/', '*']) { "" } else { "/" };
    path_pattern(&format!("{begin}{text}"))
}

/// The patterns of a path pattern in which `?` stands for one character, and what is not the same about them.
fn one_character(text: &str) -> (Vec<String>, &'static str) {
    match text.matches('?').count() {
        0 => (vec![path_of(text)], ""),
        1 => {
            let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("-_.~".chars());
            let of = |letter: char| path_of(&text.replace('?', letter.encode_utf8(&mut [0; 4])));
            (
                letters.map(of).collect(),
                "\"?\" stands for one character there; the rule has letters and digits in its place",
            )
        }
        _ => {
            let fit = "\"?\" stands for one character there; the rule has \"*\", which is for more";
            (vec![path_of(&text.replace('?', "*"))], fit)
        }
    }
}

/// Has a rule answer nobody.
fn refuse(rule: &mut DraftRule, who: &str, from: &[Id]) {
    rule.pass(&[]);
    rule.keys.remove_table("origin_options");
    rule.keys.set("origin", quote(REFUSED_ORIGIN), from);
    rule.remarks.push(format!("{who} This origin does not exist, so the answer is 502."));
}

/// What belongs to a key, and for how long it is kept.
#[derive(Debug, Default)]
struct Policy {
    min: u64,
    default: u64,
    max: u64,
    all_queries: bool,
    queries: Vec<String>,
    headers: Vec<String>,
    cookies: Cookies,
}

#[derive(Debug, Default, PartialEq)]
enum Cookies {
    #[default]
    None,
    Some(Vec<String>),
    All,
}

/// A cache policy that AWS manages, by its id ("Use managed cache policies" of the CloudFront developer guide).
fn managed(id: &str) -> Option<Policy> {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let optimized = Policy { min: 1, default: 86_400, max: YEAR_SECS, ..Policy::default() };
    let overriding = ["Host", "Origin", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"];
    let origin =
        Policy { max: YEAR_SECS, headers: texts(&overriding), cookies: Cookies::All, ..Policy::default() };
    Some(match id {
        // CachingOptimized, CachingOptimizedForUncompressedObjects
        "658327ea-f89d-4fab-a63d-7e88639e58f6" | "b2884449-e4de-46a7-ac36-70bc7f1ddd6d" => optimized,
        // CachingDisabled
        "4135ea2d-6df8-44a3-9df3-4b5a84be39ad" => Policy::default(),
        // Elemental-MediaPackage
        "08627262-05a9-4f76-9ded-b50ca2e3a84f" => Policy {
            min: 0,
            queries: texts(&["aws.manifestfilter", "start", "end", "m"]),
            headers: texts(&["Origin"]),
            ..optimized
        },
        // Amplify
        "2e54312d-136d-493c-8eb9-b001f22f67d2" => Policy {
            min: 2,
            default: 2,
            max: 600,
            all_queries: true,
            headers: texts(&["Authorization", "CloudFront-Viewer-Country", "Host"]),
            cookies: Cookies::All,
            ..Policy::default()
        },
        // UseOriginCacheControlHeaders, and the same with queries
        "83da9c7e-98b4-4e11-a168-04f0df8e2c65" => origin,
        "4cc15a8a-d715-48a4-82b8-cc0b614638fe" => Policy { all_queries: true, ..origin },
        _ => return None,
    })
}

/// What goes to the origin beside the key.
#[derive(Debug, Default)]
struct Sends {
    host: bool,
    query: bool,
    cookies: bool,
    headers: Headers,
}

/// Which of the visitor's headers those are.
#[derive(Debug, Default)]
enum Headers {
    #[default]
    OfKey,
    These(&'static [&'static str]),
    All,
}

/// What browsers say of themselves in every request, and CloudFront does not pass on unless it is told to ("HTTP request headers and CloudFront
/// behavior" of its developer guide). An origin that answers by them needs no Vary there, as it never sees them.
const NOT_SENT: [&str; 5] = ["Accept", "Accept-Charset", "Accept-Language", "Origin", "Referer"];

/// By which CloudFront calls itself instead of the visitor's browser.
const USER_AGENT: &str = "Amazon CloudFront";

/// An origin request policy that AWS manages, by its id.
fn sent(id: &str) -> Option<Sends> {
    const CORS: &[&str] = &["Origin"];
    let (host, query, cookies, headers) = match id {
        // AllViewer, AllViewerAndCloudFrontHeaders-2022-06
        "216adef6-5c7f-47e4-b989-5492eafa07d3" | "33f36d7e-f396-46d9-90e0-52428a34d9dc" => {
            (true, true, true, Headers::All)
        }
        // AllViewerExceptHostHeader
        "b689b0a8-53d0-40ab-baf2-68738e2966ac" => (false, true, true, Headers::All),
        // CORS-S3Origin, CORS-CustomOrigin
        "88a5eaf4-2fd4-4709-b370-b4c650ea3fcf" | "59781a5b-3903-41f3-afcb-af62929ccde1" => {
            (false, false, false, Headers::These(CORS))
        }
        // UserAgentRefererHeaders
        "acba4595-bd28-49b8-b9fe-13317c0390fa" => {
            (false, false, false, Headers::These(&["User-Agent", "Referer"]))
        }
        // Elemental-MediaTailor-PersonalizedManifests
        "775133bc-15f2-49f9-abea-afb2e0bf67d2" => {
            (false, true, false, Headers::These(&["Origin", "User-Agent"]))
        }
        _ => return None,
    };
    Some(Sends { host, query, cookies, headers })
}
