//! A configuration in force: the snapshot and what the edge knows beside it, such as the numbers under which purges and
//! metrics know a site. Those outlive a reload, whatever the order of sites in the file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use model::rule::RequestView;
use model::{OriginGroup, Rule, Scheme, Site, Snapshot};
use observe::{Registry, Slot};
use parking_lot::Mutex;

use crate::origin::Named;
use crate::published::Held;
use crate::request::Request;
use crate::tiers::Tiers;
use crate::tls::{self, ClientAuthorities};

/// A snapshot in force.
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    /// Tells it from those before it; begins anew at some time.
    pub(crate) version: u16,
    /// By site index.
    sites: Vec<OfSite>,
    /// Other edges to ask; `None` on an edge that stands alone.
    tiers: Option<Tiers>,
    asks_for_certificates: bool,
    /// Kept for the requests that go by it.
    pub(crate) origins: Option<Named>,
}

/// What is known of a site beside its configuration.
struct OfSite {
    /// For purges.
    number: u32,
    /// In the metrics.
    slot: Slot,
    /// Whose certificates its visitors are asked for.
    client_authorities: Option<ClientAuthorities>,
}

/// Gives each site name one number for the life of the edge.
#[derive(Default)]
pub(crate) struct SiteNumbers {
    names: Mutex<SiteNames>,
    loads: AtomicU16,
}

#[derive(Default)]
struct SiteNames {
    numbers: HashMap<Arc<str>, u32>,
    by_number: Vec<Arc<str>>,
}

impl SiteNumbers {
    /// The number of a site that some configuration or purge has named.
    pub(crate) fn of(&self, name: &str) -> u32 {
        let mut names = self.names.lock();
        if let Some(number) = names.numbers.get(name) {
            return *number;
        }
        let (name, number): (Arc<str>, u32) = (name.into(), names.by_number.len() as u32);
        names.by_number.push(name.clone());
        names.numbers.insert(name, number);
        number
    }

    /// The name that a number was given to.
    pub(crate) fn name(&self, number: u32) -> String {
        let names = self.names.lock();
        names.by_number.get(number as usize).map(ToString::to_string).unwrap_or_default()
    }
}

impl Loaded {
    /// `is_certified`: whether it can show other edges who it is. Of the `authorities`, a site has those that it names. Without them it asks nobody, and answers nobody who would have
    /// to show a certificate.
    pub(crate) fn new(
        snapshot: Snapshot,
        authorities: &[ClientAuthorities],
        numbers: &SiteNumbers,
        registry: &Registry,
        is_certified: bool,
    ) -> Self {
        let of_site = |site: &Site| OfSite {
            number: numbers.of(&site.name),
            slot: registry.site(&site.name),
            client_authorities: site.client_ca.as_ref().filter(|_| tls::asks(site)).and_then(|wanted| {
                authorities.iter().find(|authorities| authorities.source() == wanted).cloned()
            }),
        };
        let sites: Vec<OfSite> = snapshot.sites.iter().map(of_site).collect();
        let asks_for_certificates = sites.iter().any(|site| site.client_authorities.is_some());
        let version = numbers.loads.fetch_add(1, Ordering::Relaxed);
        let tiers = if is_certified { Tiers::of(&snapshot) } else { None };
        Loaded { snapshot, version, sites, tiers, asks_for_certificates, origins: None }
    }

    /// A site's slot in the metrics.
    pub(crate) fn slot(&self, site: &Site) -> Slot {
        self.sites[site.index].slot
    }

    /// Whose certificates visitors of a site are asked for, by its index.
    pub(crate) fn client_authorities(&self, site: usize) -> Option<&ClientAuthorities> {
        self.sites[site].client_authorities.as_ref()
    }

    /// Whether any site asks its visitors for certificates.
    pub(crate) fn asks_for_certificates(&self) -> bool {
        self.asks_for_certificates
    }

    /// The other edges to ask.
    pub(crate) fn tiers(&self) -> Option<&Tiers> {
        self.tiers.as_ref()
    }

    /// Every origin group that the configuration names, those of other edges among them.
    pub(crate) fn origin_groups(&self) -> impl Iterator<Item = &OriginGroup> {
        let tiers = self.tiers.iter().flat_map(Tiers::groups);
        let origins = self.snapshot.sites.iter().flat_map(|site| {
            site.rules.iter().map(|rule| &*rule.origin).chain(std::iter::once(&*site.defaults.origin))
        });
        origins.chain(tiers)
    }
}

/// Which rule of which site decides about a request, in the configuration that the request holds to its end.
#[derive(Clone)]
pub(crate) struct RuleAt {
    pub(crate) loaded: Held<Loaded>,
    site: usize,
    /// The rule's index in the site's list; one past its end for the defaults.
    pub(crate) rule: usize,
}

impl RuleAt {
    /// The rule for `request`; `None` when no site has its host.
    pub(crate) fn of(loaded: Held<Loaded>, request: &Request) -> Option<Self> {
        let site = loaded.snapshot.site_for(&request.host)?;
        let (site, rule) = (site.index, site.match_rule(&view(request)).index);
        Some(RuleAt { loaded, site, rule })
    }

    pub(crate) fn site(&self) -> &Site {
        &self.loaded.snapshot.sites[self.site]
    }

    /// The rule that decides; the site's defaults when no rule matched.
    pub(crate) fn rule(&self) -> &Rule {
        let site = self.site();
        site.rules.get(self.rule).unwrap_or(&site.defaults)
    }

    /// The site's number for purges.
    pub(crate) fn site_number(&self) -> u32 {
        self.loaded.sites[self.site].number
    }

    /// Site and rule in the metrics.
    pub(crate) fn counted_for(&self) -> (Slot, u32) {
        (self.slot(), self.rule().number)
    }

    /// The site's slot in the metrics.
    pub(crate) fn slot(&self) -> Slot {
        self.loaded.sites[self.site].slot
    }
}

/// A request as rules see it.
pub(crate) fn view(request: &Request) -> RequestView<'_> {
    RequestView {
        method: request.method.as_str(),
        scheme: if request.secure { Scheme::Https } else { Scheme::Http },
        host: &request.host,
        path: request.path(),
        query: request.query(),
        fields: &request.fields,
    }
}
