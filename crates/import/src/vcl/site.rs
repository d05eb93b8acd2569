//! The paths of a program as rules of a site, in their order.

use super::{GRACE_SECS, NO_ORIGIN, Path, Reader, TTL_SECS};
use crate::condition::Condition;
use crate::draft::{DraftRule, DraftSite, Keys, close, quote, secs, simplify};
use crate::ledger::Id;

/// What Varnish's own vcl_backend_response takes from the origin.
pub(super) const SURROGATE_CONTROL: &str = "Varnish keeps nothing that says Surrogate-Control: no-store, which is not read here: have the origin say \
                                            Cache-Control: no-store there.";

impl Reader<'_> {
    pub(super) fn site(&mut self, paths: Vec<Path>) -> DraftSite {
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
        // Varnish's own vcl_backend_response stores no cookies.
        keys.set("set_cookie", quote("never"), &[]);
        // Nor are static files opened to scripts of other sites.
        keys.set("cors", quote("off"), &[]);
        DraftSite {
            name: "default".into(),
            remarks: vec![SURROGATE_CONTROL.into()],
            keys,
            rules,
            ..DraftSite::default()
        }
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
        if let Some(who) = path.refused {
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
