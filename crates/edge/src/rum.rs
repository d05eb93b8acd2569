//! What visitors' browsers tell of page views (real user monitoring): who may, what is believed, and as what it is counted. The script
//! is the beacon's ([`crate::beacon`]); what counts goes with the other statistics ([`observe::Registry::count_view`]).
//!
//! Whoever can load a page can tell of it what he likes, so what is told is bounded, and not trusted:
//!
//! - A token is for one page view, on the host and from the network that it was given to, at the PoP that gave it.
//! - Nothing is taken from pages of other sites, as far as browsers say where they come from.
//! - One network tells of [`VIEWS_PER_NETWORK`] page views in [`STRETCH_SECS`], whatever it sends: it moves no percentile of many.
//! - Times that cannot be (longer than the script has been there, or in an order in which nothing loads) are refused as a whole.
//! - Groups of pages are named by rules, or are the first part of a path, of [`GROUPS_MAX`] different ones.
//!
//! Memory is fixed: two tables, made at the first page view.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;
use model::rule::RequestView;
use model::rum::Rum;
use model::steering::network_of;
use model::{Scheme, Site};
use observe::{Registry, Slot};
use parking_lot::{Mutex, RwLock};
use stats::rum::{GROUP_BYTES_MAX, METRICS, Metric, View};

use crate::beacon::{Token, key_for};
use crate::request::Request;
use crate::storage::chance;

/// How long a page may be looked at before it is told of.
const TOKEN_SECS: u64 = 12 * 3_600;
/// How far clocks of a PoP's edges may be apart.
const SKEW_SECS: u64 = 60;
/// For how long page views of a network are counted together.
const STRETCH_SECS: u64 = 120;
/// Page views of one network in [`STRETCH_SECS`]: those beyond tell nothing new of how far it is.
const VIEWS_PER_NETWORK: u8 = 64;
/// Places for networks. Those that share one share its count.
const NETWORKS: usize = 1 << 18;
/// Places for numbers of tokens that were used; a new one takes the place of an old one.
const NONCES: usize = 1 << 18;
/// Groups of pages of a site in an hour, but for those that rules name.
const GROUPS_MAX: usize = 64;
/// Groups of all sites.
const GROUPS_IN_ALL_MAX: usize = 4_096;
/// Of those, how many may be first told of by one network: who invents names does not fill all places.
const GROUPS_OF_NETWORK_MAX: usize = 8;
/// The group of those beyond.
const OTHERS: &str = "(others)";
/// How long after its navigation began a page may load the script, in ms.
const LATE_MS_MAX: u64 = 30_000;
/// What times may be off, in ms: browsers round them.
const ROUNDED_MS: u32 = 2;
/// Bytes of a page's path.
const PATH_BYTES_MAX: usize = 1_024;

/// Page views, as they are told of.
pub(crate) struct PageViews {
    signing: RwLock<Signing>,
    seen: Mutex<Option<Seen>>,
    groups: Mutex<Groups>,
    hashing: RandomState,
    outcomes: [AtomicU64; 4],
}

/// What tokens are signed with.
struct Signing {
    pop: Box<str>,
    key: hmac::Key,
}

/// Who has told how often, and which tokens were used.
struct Seen {
    stretch: u64,
    networks: Box<[u8]>,
    nonces: Box<[u64]>,
}

#[derive(Default)]
struct Groups {
    hour: u64,
    by_site: HashMap<usize, HashSet<Box<str>>>,
    /// How many each network was the first to tell of.
    by_network: HashMap<IpAddr, usize>,
    count: usize,
}

/// What has become of a page view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Counted,
    Impossible,
    Forged,
    TooMany,
}

/// Whether any page of a site is told of.
pub(crate) fn concerns(site: &Site) -> bool {
    of_all(site).next().is_some()
}

/// Whether the script waits for the visitor's consent on all pages, because it must on some: it cannot know on which it is.
pub(crate) fn waits_for_consent(site: &Site) -> bool {
    of_all(site).any(|rum| rum.consent)
}

fn of_all(site: &Site) -> impl Iterator<Item = &Rum> {
    std::iter::once(&site.defaults).chain(&site.rules).filter_map(|rule| rule.rum.as_ref())
}

impl PageViews {
    pub(crate) fn new() -> Self {
        let mut secret = [0; 32];
        // Without chance from the system the hasher's has to do: what can be forged then is a page view.
        if aws_lc_rs::rand::fill(&mut secret).is_err() {
            secret[..16].copy_from_slice(&chance().to_ne_bytes());
        }
        PageViews {
            signing: RwLock::new(Signing::new("-", &secret)),
            seen: Mutex::default(),
            groups: Mutex::default(),
            hashing: RandomState::new(),
            outcomes: Default::default(),
        }
    }

    /// From now on, as an edge of this PoP. `secret`: from which tokens are made; edges with the same one take each other's.
    pub(crate) fn start(&self, pop: &str, secret: &[u8]) {
        *self.signing.write() = Signing::new(pop, secret);
    }

    /// What has become of page views, in the order of [`observe::Readings`].
    pub(crate) fn outcomes(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|index: usize| self.outcomes[index].load(Ordering::Relaxed))
    }

    /// The token for the script's part; `None` where this page view is not to be told of.
    pub(crate) fn part(&self, site: &Site, request: &Request, now_secs: u64) -> Option<String> {
        if is_of_another_site(request) {
            return None;
        }
        let rum = match page_of(request) {
            Some(page) => rum_of(site, request, page)?,
            // It does not say which page it is for: then that decides when it is told of.
            None => site.defaults.rum.as_ref().or_else(|| of_all(site).next())?,
        };
        if !chance().is_multiple_of(u128::from(rum.one_in)) {
            return None;
        }
        let signing = self.signing.read();
        Some(Token::make(&signing.key, now_secs, &signing.purpose(request)).to_string())
    }

    /// Takes what is told: `told` is what stands behind `v=`.
    ///
    /// # Errors
    /// It does not count: with which status it is refused.
    pub(crate) fn take(
        &self,
        registry: &Registry,
        site: &Site,
        slot: Slot,
        request: &Request,
        told: &str,
        now_secs: u64,
    ) -> Result<(), u16> {
        let outcome = self.judge(registry, site, slot, request, told, now_secs);
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Counted => Ok(()),
            Outcome::Impossible => Err(400),
            Outcome::Forged => Err(403),
            Outcome::TooMany => Err(429),
        }
    }

    fn judge(
        &self,
        registry: &Registry,
        site: &Site,
        slot: Slot,
        request: &Request,
        told: &str,
        now_secs: u64,
    ) -> Outcome {
        let Some(Told { token, view, path }) = read_view(told) else { return Outcome::Impossible };
        if is_of_another_site(request) {
            return Outcome::Forged;
        }
        {
            let signing = self.signing.read();
            let is_ours = token.is_for(&signing.key, &signing.purpose(request));
            if !is_ours || token.at > now_secs + SKEW_SECS || token.at + TOKEN_SECS < now_secs {
                return Outcome::Forged;
            }
        }
        let known_ms = now_secs.saturating_sub(token.at) * 1_000 + LATE_MS_MAX;
        let Some(rum) = rum_of(site, request, path).filter(|_| is_possible(&view, known_ms)) else {
            return Outcome::Impossible;
        };
        if let Err(refused) = self.admit(request.client, token.nonce, now_secs) {
            return refused;
        }
        let group = match &rum.group {
            Some(named) => named,
            None => self.groups.lock().of(site.index, path, network_of(request.client), now_secs),
        };
        match registry.count_view(slot, request.country, group, &view) {
            true => Outcome::Counted,
            false => Outcome::TooMany,
        }
    }

    /// Notes a page view, unless it has come before or is too much.
    fn admit(&self, client: IpAddr, nonce: u64, now_secs: u64) -> Result<(), Outcome> {
        let network = self.hashing.hash_one(network_of(client)) as usize % NETWORKS;
        let mut seen = self.seen.lock();
        let seen = seen.get_or_insert_with(Seen::new);
        let stretch = now_secs / STRETCH_SECS;
        if seen.stretch != stretch {
            seen.stretch = stretch;
            seen.networks.fill(0);
        }
        // Numbers are drawn here and signed: nobody chooses whose place one takes.
        let place = &mut seen.nonces[nonce as usize % NONCES];
        if *place == nonce {
            return Err(Outcome::Forged);
        }
        let count = &mut seen.networks[network];
        if *count >= VIEWS_PER_NETWORK {
            return Err(Outcome::TooMany);
        }
        *count += 1;
        *place = nonce;
        Ok(())
    }
}

impl Signing {
    fn new(pop: &str, secret: &[u8]) -> Self {
        Signing { pop: pop.into(), key: key_for(secret, "perigee page view") }
    }

    fn purpose(&self, request: &Request) -> String {
        format!("{} {} {}", self.pop, network_of(request.client), request.host)
    }
}

impl Seen {
    fn new() -> Self {
        Seen { stretch: 0, networks: vec![0; NETWORKS].into(), nonces: vec![0; NONCES].into() }
    }
}

impl Groups {
    /// The group of a page: the first part of its path, or `/` for what lies at the root.
    fn of<'p>(&mut self, site: usize, path: &'p str, network: IpAddr, now_secs: u64) -> &'p str {
        let rest = path.strip_prefix('/').unwrap_or(path);
        let group = rest.find('/').map_or("/", |end| &path[..end + 1 + path.len() - rest.len()]);
        let hour = now_secs / 3_600;
        if self.hour != hour {
            *self = Groups { hour, ..Groups::default() };
        }
        let known = self.by_site.entry(site).or_default();
        if known.contains(group) {
            return group;
        }
        if known.len() >= GROUPS_MAX || self.count >= GROUPS_IN_ALL_MAX || group.len() > GROUP_BYTES_MAX {
            return OTHERS;
        }
        let of_network = self.by_network.entry(network).or_default();
        if *of_network >= GROUPS_OF_NETWORK_MAX {
            return OTHERS;
        }
        *of_network += 1;
        known.insert(group.into());
        self.count += 1;
        group
    }
}

/// Whether a page of somebody else's site has its visitors' browsers load the script, or tell (Fetch Metadata, `Sec-Fetch-Site`).
fn is_of_another_site(request: &Request) -> bool {
    request.fields.get("sec-fetch-site").is_some_and(|site| site == b"cross-site")
}

/// The path of the page that loads the script, as far as it says so.
fn page_of(request: &Request) -> Option<&str> {
    let referer = std::str::from_utf8(request.fields.get("referer")?).ok()?;
    let (_, rest) = referer.split_once("://")?;
    let (authority, _) = rest.split_once('/')?;
    let path = &rest[authority.len()..];
    let end = path.find(['?', '#']).unwrap_or(path.len());
    authority.eq_ignore_ascii_case(&request.authority).then_some(&path[..end])
}

/// What the rule of a page says.
fn rum_of<'s>(site: &'s Site, request: &Request, path: &str) -> Option<&'s Rum> {
    let page = RequestView {
        method: "GET",
        scheme: if request.secure { Scheme::Https } else { Scheme::Http },
        host: &request.host,
        path,
        query: None,
        fields: &request.fields,
    };
    site.match_rule(&page).rule.rum.as_ref()
}

/// What is told of a page view.
#[derive(Debug)]
pub(crate) struct Told<'q> {
    token: Token,
    pub(crate) view: View,
    pub(crate) path: &'q str,
}

/// Reads `TOKEN&ttfb=48.1&cls=0.02&…&p=/path`: each metric once at most, whole or with decimals, within its bounds; the path to the
/// end.
pub(crate) fn read_view(told: &str) -> Option<Told<'_>> {
    let (metrics, path) = told.split_once("&p=")?;
    let is_path = path.starts_with('/') && path.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    if !is_path || path.len() > PATH_BYTES_MAX {
        return None;
    }
    let mut parts = metrics.split('&');
    let token = Token::read(parts.next()?)?;
    let mut view = [None; METRICS];
    for part in parts {
        let (name, value) = part.split_once('=')?;
        let metric = Metric::ALL.iter().copied().find(|metric| metric.as_str() == name)?;
        let place = &mut view[metric as usize];
        if place.is_some() {
            return None;
        }
        *place = Some(read_value(metric, value)?);
    }
    Some(Told { token, view, path })
}

fn read_value(metric: Metric, text: &str) -> Option<u32> {
    let is_number = text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = text.parse().ok().filter(|_| is_number)?;
    let value = if metric == Metric::Cls { value * 1_000.0 } else { value };
    (value <= f64::from(metric.max())).then_some(value.round() as u32)
}

/// Whether these times can be of one page, which has been there for `known_ms` at most.
fn is_possible(view: &View, known_ms: u64) -> bool {
    let of = |metric: Metric| view[metric as usize];
    let Some(ttfb) = of(Metric::Ttfb) else { return false };
    let parts = [Metric::Redirect, Metric::Dns, Metric::Connect, Metric::Tls, Metric::Wait];
    let parts: u32 = parts.into_iter().filter_map(of).sum();
    let ends = [Metric::Fcp, Metric::Lcp, Metric::Load].into_iter().filter_map(of);
    let is_in_order = ends.clone().all(|end| end + ROUNDED_MS >= ttfb);
    let has_been = ends.chain(of(Metric::Inp)).chain([ttfb]).all(|time| u64::from(time) <= known_ms);
    is_in_order && has_been && parts <= ttfb + 5 * ROUNDED_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0000000000000000000000000000000000000000000000000000000000";

    fn read(told: &str) -> Option<View> {
        read_view(&format!("{TOKEN}{told}")).map(|told| told.view)
    }

    #[test]
    fn a_view_is_read_whole_or_not_at_all() {
        let view = read("&ttfb=48.4&lcp=612.5&cls=0.0214&p=/tea/x&y=1").unwrap();
        let of = |metric: Metric| view[metric as usize];
        assert_eq!(
            [Metric::Ttfb, Metric::Lcp, Metric::Cls, Metric::Inp].map(of),
            [Some(48), Some(613), Some(21), None]
        );
        for told in [
            "",
            "&ttfb=48",
            "&ttfb=48&p=",
            "&ttfb=48&p=tea",
            "&ttfb=48&p=/a b",
            "&ttfb=-1&p=/",
            "&ttfb=NaN&p=/",
            "&ttfb=inf&p=/",
            "&ttfb=1e3&p=/",
            "&ttfb=60001&p=/",
            "&ttfb=48&cls=10.1&p=/",
            "&ttfb=48&ttfb=48&p=/",
            "&other=1&p=/",
            "&ttfb&p=/",
        ] {
            assert_eq!(read(told), None, "{told}");
        }
        assert_eq!(read(&format!("&ttfb=1&p=/{}", "a".repeat(PATH_BYTES_MAX))), None);
        assert!(read_view("zz&ttfb=1&p=/").is_none());
    }

    #[test]
    fn times_that_cannot_be_are_not_believed() {
        for (told, known_ms, is_so) in [
            ("&ttfb=100&fcp=200&lcp=900&load=950&wait=60&dns=40&p=/", 31_000, true),
            ("&ttfb=100&p=/", 100, true),
            ("&fcp=200&p=/", 31_000, false),
            ("&ttfb=300&fcp=200&p=/", 31_000, false),
            ("&ttfb=300&lcp=200&p=/", 31_000, false),
            ("&ttfb=100&wait=60&dns=60&p=/", 31_000, false),
            ("&ttfb=100&lcp=40000&p=/", 31_000, false),
            ("&ttfb=100&inp=40000&p=/", 31_000, false),
            ("&ttfb=100&lcp=40000&p=/", 71_000, true),
        ] {
            assert_eq!(is_possible(&read(told).unwrap(), known_ms), is_so, "{told}");
        }
    }

    #[test]
    fn a_page_view_counts_once_and_a_network_so_often() {
        let views = PageViews::new();
        let client = |last: u8| IpAddr::from([203, 0, 113, last]);
        assert_eq!(views.admit(client(1), 7, 0), Ok(()));
        assert_eq!(views.admit(client(1), 7, 5), Err(Outcome::Forged));
        for nonce in 1..u64::from(VIEWS_PER_NETWORK) {
            assert_eq!(views.admit(client(nonce as u8), 100 + nonce, 5), Ok(()));
        }
        assert_eq!(views.admit(client(9), 1_000, 5), Err(Outcome::TooMany));
        assert_eq!(views.admit(client(9), 1_000, STRETCH_SECS), Ok(()));
        assert_eq!(views.admit(client(9), 7, STRETCH_SECS), Err(Outcome::Forged), "and later");
    }

    fn network(number: usize) -> IpAddr {
        IpAddr::from([10, (number >> 8) as u8, number as u8, 0])
    }

    #[test]
    fn one_network_takes_few_places_of_groups() {
        let mut groups = Groups::default();
        let named =
            (0..GROUPS_MAX).filter(|name| groups.of(0, &format!("/{name}/"), network(1), 0) != OTHERS);
        assert_eq!(named.count(), GROUPS_OF_NETWORK_MAX);
        assert_eq!(groups.of(0, "/tea/", network(2), 0), "/tea/");
        assert_eq!(groups.of(0, "/tea/", network(1), 0), "/tea/", "what others have named is named for all");
    }

    #[test]
    fn groups_are_the_first_parts_of_paths_and_of_a_bounded_number() {
        let mut groups = Groups::default();
        for (path, group) in
            [("/", "/"), ("/about", "/"), ("/tea/green/1", "/tea/"), ("/tea/", "/tea/"), ("//x", "//")]
        {
            assert_eq!(groups.of(0, path, network(0), 0), group);
        }
        for number in 0..2 * GROUPS_MAX {
            groups.of(0, &format!("/{number}/a"), network(number), 0);
        }
        assert_eq!(groups.of(0, "/new/", network(900), 0), OTHERS);
        assert_eq!(groups.of(0, "/tea/", network(900), 0), "/tea/");
        assert_eq!(groups.of(1, "/new/", network(900), 0), "/new/");
        assert_eq!(groups.of(1, &format!("/{}/", "a".repeat(GROUP_BYTES_MAX)), network(900), 0), OTHERS);
        assert_eq!(groups.of(0, "/new/", network(900), 3_600), "/new/");
    }
}
