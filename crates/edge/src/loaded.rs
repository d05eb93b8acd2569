//! A configuration in force: the snapshot and what the edge knows beside it, such as the numbers under which purges and
//! metrics know a site. Those outlive a reload, whatever the order of sites in the file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use model::rule::RequestView;
use model::{OriginGroup, Rule, Scheme, Site, Snapshot};
use observe::{Registry, Slot};
use parking_lot::Mutex;

use crate::published::Held;
use crate::request::Request;

/// A snapshot in force.
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    /// Tells it from those before it; begins anew at some time.
    pub(crate) version: u16,
    /// By site index: its number for purges, its slot in the metrics.
    sites: Vec<(u32, Slot)>,
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
    pub(crate) fn new(snapshot: Snapshot, numbers: &SiteNumbers, registry: &Registry) -> Self {
        let sites =
            snapshot.sites.iter().map(|site| (numbers.of(&site.name), registry.site(&site.name))).collect();
        let version = numbers.loads.fetch_add(1, Ordering::Relaxed);
        Loaded { snapshot, version, sites }
    }

    /// Every origin group that the configuration names.
    pub(crate) fn origin_groups(&self) -> impl Iterator<Item = &OriginGroup> {
        self.snapshot.sites.iter().flat_map(|site| {
            site.rules.iter().map(|rule| &*rule.origin).chain(std::iter::once(&*site.defaults.origin))
        })
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
        self.loaded.sites[self.site].0
    }

    /// The site's slot in the metrics.
    pub(crate) fn slot(&self) -> Slot {
        self.loaded.sites[self.site].1
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
