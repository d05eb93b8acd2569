//! From evidence to candidates: what may be wrong, and what would be changed. Whether it is worth it, replay decides.

use std::collections::BTreeMap;

use model::glob::Glob;
use model::{Cache, Rule, Site};
use semantics::key::QueryPart;
use semantics::{Normalise, SetCookie};

use super::evidence::{Class, Evidence, Selector, Where};
use super::{Candidate, Edit, Fault, Metric};
use crate::replay::Replay;

/// Least requests of a kind before anything is concluded from them.
const SEEN_MIN: u64 = 5;

/// What text is after compressing, about: brotli and zstd make a quarter to a third of pages, styles and scripts.
const COMPRESSED_SHARE: f64 = 0.3;

/// A lifetime that is short for what has not changed.
const SHORT_SECS: u32 = 3600;

/// Finds what may be wrong, most requests first.
pub(super) fn find(evidence: &Evidence, replay: &Replay, text: &str) -> Vec<Candidate> {
    let sites = &replay.snapshot().sites;
    let mut found: Vec<(u64, Candidate)> = Vec::new();
    let mut by_place: BTreeMap<(usize, u32), Vec<(&Where, &Class)>> = BTreeMap::new();
    for (place, class) in &evidence.classes {
        by_place.entry((place.site, place.rule)).or_default().push((place, class));
    }
    for ((site, number), mut classes) in by_place {
        classes.sort_by(|(one, _), (other, _)| one.pattern.cmp(&other.pattern));
        let at = At { site: &sites[site], number, classes: &classes, is_whole: !evidence.is_full() };
        of_classes(&at, &classes, &mut found);
        of_selectors(&at, evidence, &mut found);
    }
    pair(&mut found);
    of_memory(replay, text, &mut found);
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// A rule of a site, or its own keys.
struct At<'a> {
    site: &'a Site,
    number: u32,
    /// What was seen there.
    classes: &'a Classes<'a>,
    /// Whether that is all.
    is_whole: bool,
}

impl At<'_> {
    fn rule(&self) -> &Rule {
        match self.number {
            0 => &self.site.defaults,
            number => &self.site.rules[number as usize - 1],
        }
    }

    /// Sets a key where these classes are decided about, and for nothing else that was seen: in their rule, else in a new one for them.
    /// `None` where neither can be.
    fn set(&self, scope: &[String], key: &str, value: &str) -> Option<Edit> {
        let mut others =
            self.classes.iter().map(|(place, _)| &place.pattern).filter(|pattern| !scope.contains(pattern));
        match self.number {
            _ if !self.is_whole => None,
            0 if scope.iter().any(|pattern| pattern == "/*") => None,
            // A wider pattern is for what a narrower one is for: "/*.js" for "/assets/*.js", "/item/*" for "/item/*.html".
            0 => {
                let globs: Vec<Glob> = scope.iter().map(|pattern| Glob::new(pattern)).collect();
                let is_taken = |other: &String| globs.iter().any(|glob| glob.matches(other.as_bytes()));
                let edit = || Edit::new_rule(self.site.line, &self.site.name, scope, key, value.to_owned());
                (!others.any(is_taken)).then(edit)
            }
            _ if others.next().is_none() => self.set_all(key, value),
            _ => None,
        }
    }

    /// Sets a key for all that the rule, or the site, decides about.
    fn set_all(&self, key: &str, value: &str) -> Option<Edit> {
        let rule = self.rule();
        let (line, what) = match self.number {
            0 => (self.site.line, format!("site {}", self.site.name)),
            _ => (rule.line, format!("{} of site {}", rule.name(), self.site.name)),
        };
        (line > 0).then(|| Edit::section(line, what, key, value.to_owned()))
    }

    fn candidate(
        &self,
        fault: Fault,
        evidence: String,
        scope: Vec<String>,
        edit: Option<Edit>,
    ) -> Option<Candidate> {
        Some(Candidate {
            faults: vec![fault],
            evidence,
            site: self.site.name.to_string(),
            scope,
            edit: Some(edit?),
            at_origin: None,
            metric: Metric::HitRatio,
            estimate: None,
            validated: Vec::new(),
        })
    }
}

type Classes<'a> = [(&'a Where, &'a Class)];

/// The patterns and the sum of those classes for which `count` is not nothing.
fn gather(classes: &Classes<'_>, count: impl Fn(&Class) -> u64) -> Option<(Vec<String>, u64)> {
    let hit: Vec<_> = classes.iter().filter(|(_, class)| count(class) > 0).collect();
    let sum = hit.iter().map(|(_, class)| count(class)).sum();
    (sum >= SEEN_MIN).then(|| (hit.iter().map(|(place, _)| place.pattern.clone()).collect(), sum))
}

fn list(scope: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = scope.len().saturating_sub(SHOWN);
    let shown = scope[..scope.len().min(SHOWN)].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

fn of_classes(at: &At<'_>, classes: &Classes<'_>, found: &mut Vec<(u64, Candidate)>) {
    let policy = &at.rule().policy;
    let mut push = |count: u64, candidate: Option<Candidate>| found.extend(candidate.map(|one| (count, one)));
    let is_static = |class: &Class| u64::from(class.is_static);

    if policy.ttl.is_none()
        && let Some((scope, count)) = gather(classes, |class| class.silent * is_static(class))
    {
        let said = format!("{count} answers for {} say nothing of how long they are fresh", list(&scope));
        let edit = at.set(&scope, "ttl", "\"1d\"");
        push(count, at.candidate(Fault::MissingTtl, said, scope, edit));
    }
    let is_short = |class: &Class| {
        let short = class.lifetime_min.is_some_and(|secs| secs < SHORT_SECS) && class.again_changed == 0;
        if short && class.again_same >= SEEN_MIN { class.again_same * is_static(class) } else { 0 }
    };
    if policy.ttl.is_none()
        && let Some((scope, count)) = gather(classes, is_short)
    {
        let said = format!(
            "{count} times something of {} was fetched again, and it had never changed",
            list(&scope)
        );
        let edit = at.set(&scope, "ttl", "\"1d\"");
        push(count, at.candidate(Fault::ShortTtl, said, scope, edit));
    }
    if !matches!(policy.set_cookie, SetCookie::Strip | SetCookie::Never)
        && let Some((scope, count)) = gather(classes, |class| class.set_cookie * is_static(class))
    {
        let said = format!("{count} answers for {} set a cookie, and are not kept", list(&scope));
        let edit = at.set(&scope, "set_cookie", "\"strip\"");
        push(count, at.candidate(Fault::SetCookie, said, scope, edit));
    }
    if at.rule().cache == Cache::Pass
        && at.number > 0
        && let Some((scope, count)) = gather(classes, |class| class.passed_by_rule * is_static(class))
    {
        let said =
            format!("{count} requests for {} are static content and are kept from the cache", list(&scope));
        let edit = at.set(&scope, "cache", "true");
        push(count, at.candidate(Fault::CacheOff, said, scope, edit));
    }
    if policy.ttl_by_status.is_empty()
        && let Some((scope, count)) = gather(classes, |class| class.missing)
    {
        let said =
            format!("{count} times the origin was asked for what is not there (404), in {}", list(&scope));
        let edit = at.set_all("ttl_by_status", "{ \"404\" = \"1m\", \"410\" = \"1m\" }");
        let candidate = at.candidate(Fault::UncachedErrors, said, scope, edit);
        push(count, candidate.map(|one| Candidate { metric: Metric::OriginRequestsPerRequest, ..one }));
    }
    if policy.stale_while_revalidate.is_none()
        && let Some((scope, count)) = gather(classes, |class| class.waited)
    {
        let said = format!(
            "{count} visitors waited while something that had gone stale was fetched anew, in {}",
            list(&scope)
        );
        let edit = at.set_all("stale_while_revalidate", "\"1m\"");
        push(count, at.candidate(Fault::NoStaleWhileRevalidate, said, scope, edit));
    }
    if policy.stale_if_error.is_none()
        && let Some((scope, count)) = gather(classes, |class| class.failed)
    {
        let said = format!("{count} visitors saw the origin fail, in {}", list(&scope));
        let edit = at.set_all("stale_if_error", "\"1d\"");
        let candidate = at.candidate(Fault::NoStaleIfError, said, scope, edit);
        push(count, candidate.map(|one| Candidate { metric: Metric::ErrorRatio, ..one }));
    }
    if let Some((scope, count)) = gather(classes, |class| class.again_unvalidated) {
        let said = format!(
            "{count} times the same content of {} was sent again by the origin: it has neither ETag nor Last-Modified",
            list(&scope)
        );
        push(
            count,
            Some(Candidate {
                faults: vec![Fault::NoValidators],
                evidence: said,
                site: at.site.name.to_string(),
                at_origin: Some("have the origin send ETag or Last-Modified for these".to_owned()),
                edit: None,
                metric: Metric::OriginBytesPerRequest,
                estimate: None,
                validated: scope.clone(),
                scope,
            }),
        );
    }
    of_visitors(at, classes, &mut push);
}

/// What costs visitors, and no hits.
fn of_visitors(at: &At<'_>, classes: &Classes<'_>, push: &mut impl FnMut(u64, Option<Candidate>)) {
    let sum = |scope: &[String], of: fn(&Class) -> u64| {
        let in_scope = classes.iter().filter(|(place, _)| scope.contains(&place.pattern));
        in_scope.map(|(_, class)| of(class)).sum::<u64>() as f64
    };
    // What a browser keeps cannot be purged: not where anything may change under its name.
    let short = |class: &Class| match class.is_static && class.may_be_hashed && class.short_in_browsers > 0 {
        true => class.repeated,
        false => 0,
    };
    if let Some((scope, count)) = gather(classes, short) {
        let before = count as f64 / sum(&scope, |class| class.requests).max(1.0);
        let said = format!(
            "{count} times a visitor came again for a file of {} whose name holds a hash of its content",
            list(&scope)
        );
        let edit = at.set(&scope, "browser_ttl", "\"365d\"");
        let candidate = at.candidate(Fault::ShortBrowserTtl, said, scope, edit);
        push(
            count,
            candidate.map(|one| Candidate {
                metric: Metric::RepeatRatio,
                estimate: Some((before, 0.0)),
                ..one
            }),
        );
    }
    if let Some((scope, count)) = gather(classes, |class| class.uncompressed) {
        let before = sum(&scope, |class| class.bytes) / sum(&scope, |class| class.requests).max(1.0);
        let said = format!("{count} answers with text of {} were sent without compression", list(&scope));
        let edit = at.set_all("compress", "true");
        let candidate = at.candidate(Fault::Uncompressed, said, scope, edit);
        let estimate = Some((before, before * COMPRESSED_SHARE));
        push(count, candidate.map(|one| Candidate { metric: Metric::BytesPerRequest, estimate, ..one }));
    }
}

/// What tells requests apart, and no answers.
fn of_selectors(at: &At<'_>, evidence: &Evidence, found: &mut Vec<(u64, Candidate)>) {
    let rule = at.rule();
    let mut needless: Vec<(&Selector, u64)> = (evidence.selectors.iter())
        .filter(|((site, number, _), _)| (*site, *number) == (at.site.index, at.number))
        .filter(|(_, sameness)| sameness.same >= SEEN_MIN && sameness.different == 0)
        .map(|((.., selector), sameness)| (selector, sameness.same))
        .collect();
    needless.sort();
    let total = |of: &[(&Selector, u64)]| of.iter().map(|(_, same)| same).sum::<u64>();
    let mut push = |count: u64, candidate: Option<Candidate>| found.extend(candidate.map(|one| (count, one)));

    let parameters: Vec<_> =
        needless.iter().filter(|(one, _)| matches!(one, Selector::Parameter(_))).copied().collect();
    let mut names: Vec<String> =
        parameters.iter().filter_map(|(one, _)| one.name()).map(str::to_owned).collect();
    if !names.is_empty() {
        let said = format!(
            "{} answers were the same whatever these parameters said: {}",
            total(&parameters),
            names.join(", ")
        );
        let former = match &rule.key.query.part {
            QueryPart::All => Some(Vec::new()),
            QueryPart::Drop(names) => Some(names.clone()),
            // Everything is left out, or chosen by name already.
            QueryPart::None | QueryPart::Keep(_) => None,
        };
        if let Some(former) = former {
            names.extend(former);
            names.sort();
            names.dedup();
            let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            let sort = if rule.key.query.sort { ", sort = true" } else { "" };
            let edit = at.set_all("query", &format!("{{ drop = [{}]{sort} }}", quoted.join(", ")));
            push(total(&parameters), at.candidate(Fault::QueryNoise, said, Vec::new(), edit));
        }
    }
    if let Some((_, same)) = needless.iter().find(|(one, _)| **one == Selector::Order)
        && rule.key.query.part == QueryPart::All
    {
        let said = format!("{same} answers were the same with the same parameters in another order");
        let edit = at.set_all("query", "{ sort = true }");
        push(*same, at.candidate(Fault::QueryOrder, said, Vec::new(), edit));
    }
    let headers: Vec<_> =
        needless.iter().filter(|(one, _)| matches!(one, Selector::Header(_))).copied().collect();
    let is_of_key = |name: &str| {
        let cookie = name.strip_prefix("cookie:");
        rule.key.headers.iter().any(|known| known == name)
            || cookie.is_some_and(|cookie| rule.key.cookies.iter().any(|known| known == cookie))
            || (name == "device" && rule.key.device_class)
    };
    let (of_key, of_vary): (Vec<_>, Vec<_>) =
        headers.into_iter().partition(|(one, _)| one.name().is_some_and(is_of_key));
    let of_vary: Vec<_> = (of_vary.into_iter())
        .filter(|(one, _)| {
            let name = one.name().unwrap_or_default();
            !name.contains(':')
                && !rule.policy.vary_normalise.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
        })
        .collect();
    let names = |of: &[(&Selector, u64)]| {
        of.iter().filter_map(|(one, _)| one.name()).map(str::to_owned).collect::<Vec<_>>()
    };
    if !of_vary.is_empty() {
        let new = names(&of_vary);
        let said = format!(
            "{} answers were the same whatever these headers of Vary said: {}",
            total(&of_vary),
            new.join(", ")
        );
        let kept =
            rule.policy.vary_normalise.iter().map(|(name, way)| format!("{name:?} = {}", written(way)));
        let rows: Vec<String> =
            kept.chain(new.iter().map(|name| format!("{name:?} = \"presence\""))).collect();
        let edit = at.set_all("vary", &format!("{{ {} }}", rows.join(", ")));
        push(total(&of_vary), at.candidate(Fault::UselessVary, said, Vec::new(), edit));
    }
    if !of_key.is_empty() {
        let old = names(&of_key);
        let said = format!(
            "{} answers were the same whatever these parts of the key said: {}",
            total(&of_key),
            old.join(", ")
        );
        let quote =
            |left: Vec<&String>| left.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let headers: Vec<_> = rule.key.headers.iter().filter(|name| !old.contains(name)).collect();
        let cookies: Vec<_> =
            rule.key.cookies.iter().filter(|name| !old.contains(&format!("cookie:{name}"))).collect();
        let device = rule.key.device_class && !old.iter().any(|name| name == "device");
        let value = format!(
            "{{ headers = [{}], cookies = [{}], device = {device} }}",
            quote(headers),
            quote(cookies)
        );
        let edit = at.set_all("key", &value);
        push(total(&of_key), at.candidate(Fault::UselessKey, said, Vec::new(), edit));
    }
}

impl Selector {
    fn name(&self) -> Option<&str> {
        match self {
            Selector::Parameter(name) | Selector::Header(name) => Some(name),
            Selector::Order => None,
        }
    }
}

/// A way of comparing, as the configuration writes it.
fn written(way: &Normalise) -> String {
    match way {
        Normalise::Lowercase => "\"lowercase\"".to_owned(),
        Normalise::SortedList => "\"sorted\"".to_owned(),
        Normalise::Presence => "\"presence\"".to_owned(),
        Normalise::FirstOf(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            format!("[{}]", values.join(", "))
        }
    }
}

/// Two faults of the same classes may hide each other: a lifetime is no use to what sets a cookie. They are tried together too.
fn pair(found: &mut Vec<(u64, Candidate)>) {
    let mut pairs = Vec::new();
    for (index, (count, one)) in found.iter().enumerate() {
        for (other_count, other) in &found[index + 1..] {
            let is_hit = one.metric == Metric::HitRatio && other.metric == Metric::HitRatio;
            let both = one.edit.as_ref().zip(other.edit.as_ref()).and_then(|(edit, more)| edit.with(more));
            let is_same = one.site == other.site && one.scope == other.scope && !one.scope.is_empty();
            if let Some(edit) = both.filter(|_| is_hit && is_same) {
                pairs.push((
                    (*count).max(*other_count),
                    Candidate {
                        faults: [&one.faults[..], &other.faults[..]].concat(),
                        evidence: format!("{}; {}", one.evidence, other.evidence),
                        edit: Some(edit),
                        ..one.clone()
                    },
                ));
            }
        }
    }
    found.extend(pairs);
}

fn of_memory(replay: &Replay, text: &str, found: &mut Vec<(u64, Candidate)>) {
    let stats = replay.memory();
    let Some(site) = replay.snapshot().sites.first() else { return };
    // A cluster's configuration has no memory of its own, and what a switch says is not in the file.
    let is_of_a_node =
        text.contains("[edge]") || text.contains("[store]") || replay.snapshot().routing.pops.is_empty();
    if stats.evictions < SEEN_MIN || replay.settings().memory_bytes.is_some() || !is_of_a_node {
        return;
    }
    let mib = (replay.snapshot().edge.store.memory.0 >> 20).max(1) * 2;
    found.push((
        stats.evictions,
        Candidate {
            faults: vec![Fault::SmallMemory],
            evidence: format!("{} objects had to leave memory for others", stats.evictions),
            site: site.name.to_string(),
            scope: Vec::new(),
            edit: Some(Edit::store("memory", format!("\"{mib}MiB\""))),
            at_origin: None,
            metric: Metric::HitRatio,
            estimate: None,
            validated: Vec::new(),
        },
    ));
}
