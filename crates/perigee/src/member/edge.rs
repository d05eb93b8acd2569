//! What an edge does with what its cluster tells it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use edge::{Handle, TierIdentity};
use journal::feed::{CERTIFICATES_TOLD_MAX, HeldCertificate, HeldDisk, Holdings, Steering, Vitals};
use model::budget::lease::{Ask, Grant};
use model::change::Order;
use model::steering::VOTES_MAX;
use observe::Registry;
use parking_lot::Mutex;
use router::observe::Observing;
use rustls::pki_types::PrivateKeyDer;
use semantics::{Outcome, Wall};
use tokio::sync::Notify;
use trust::Identity;

use super::{Works, resident_bytes};
use crate::configuration::{Live, Told};

/// The shortest time over which it is said what an edge sends.
const LOAD_OVER: Duration = Duration::from_millis(500);

/// What a node shows to other edges.
pub(super) fn tier_identity(identity: &Identity) -> Result<TierIdentity, String> {
    let key = PrivateKeyDer::Pkcs8(identity.key().clone_key());
    TierIdentity::new([identity.authority().clone()], identity.chain(), key)
}

/// An edge that runs, and its configuration.
pub(crate) struct EdgeWorks {
    pop: String,
    handle: Arc<Handle>,
    live: Arc<Live>,
    /// What has been sent in all, and when that was known.
    sent: Mutex<(u64, Instant)>,
    /// It looks at edges of other PoPs; not where no thread could be had.
    observing: OnceLock<Observing>,
}

impl EdgeWorks {
    pub(crate) fn new(pop: &str, handle: Arc<Handle>, live: Arc<Live>) -> EdgeWorks {
        let sent = handle.registry().totals().body_bytes_sent;
        EdgeWorks {
            pop: pop.to_owned(),
            handle,
            live,
            sent: Mutex::new((sent, Instant::now())),
            observing: OnceLock::new(),
        }
    }

    fn look_at_others(&self) {
        if let Some(observing) = self.observing.get() {
            self.handle.with_snapshot(|snapshot| observing.look_at(&snapshot.routing, &self.pop));
        }
    }

    /// Mbit/s since it was asked last; `None` when that was a moment ago.
    fn mbps(&self) -> Option<f64> {
        let (sent, now) = (self.handle.registry().totals().body_bytes_sent, Instant::now());
        let mut last = self.sent.lock();
        let over = now.duration_since(last.1);
        if over < LOAD_OVER {
            return None;
        }
        let bytes = sent.saturating_sub(last.0);
        *last = (sent, now);
        Some(bytes as f64 * 8e-6 / over.as_secs_f64())
    }
}

impl Works for EdgeWorks {
    fn purge(&self, orders: &[Order]) -> Result<u64, String> {
        self.handle.apply(orders).map(|applied| applied.position).map_err(|error| error.to_string())
    }

    fn distrust(&self) -> Result<u64, String> {
        self.handle.distrust().map_err(|error| error.to_string())
    }

    fn begins_at(&self, position: u64) {
        self.handle.registry().follow(position, position, false);
        self.handle.begins_at(position);
    }

    fn reached(&self, position: u64, applied: Option<u64>) {
        self.handle.reached(position, applied);
    }

    fn certify(&self, identity: &Identity) {
        match tier_identity(identity) {
            Ok(identity) => self.handle.certify(identity),
            Err(why) => eprintln!("perigee: the renewed certificate is of no use to other edges: {why}"),
        }
    }

    fn heard(&self, at_ms: i64) {
        self.handle.heard(Wall(at_ms));
    }

    fn follows(&self, position: u64, head: u64, is_connected: bool) {
        self.handle.registry().follow(position, head, is_connected);
    }

    fn lost_control(&self) {
        self.handle.registry().lose_control();
    }

    fn take(&self, told: Told) -> Result<(), String> {
        self.live.take(told)?;
        self.look_at_others();
        Ok(())
    }

    fn begins(&self, news: Arc<Notify>) {
        if self.pop.is_empty() {
            return;
        }
        match Observing::start(move || news.notify_one()) {
            // It begins once.
            Ok(observing) => _ = self.observing.set(observing),
            Err(error) => eprintln!("perigee: edges of other PoPs are not looked at: no thread: {error}"),
        }
        self.look_at_others();
    }

    fn steering(&self) -> Steering {
        if self.pop.is_empty() {
            return Steering::default();
        }
        let mut votes = self.observing.get().map(Observing::take_votes).unwrap_or_default();
        votes.truncate(VOTES_MAX);
        Steering { mbps: self.mbps(), votes, ..self.handle.take_measured() }
    }

    fn vitals(&self, since_ms: i64) -> Vitals {
        let totals = self.handle.registry().totals();
        Vitals {
            since_ms,
            requests: totals.requests(),
            errors: totals.server_errors,
            hits: totals.requests_of(Outcome::Hit),
            personal_hits: totals.personal_hits,
            latency: totals.first_bytes,
            // A cache that fills is no leak.
            memory_bytes: resident_bytes().saturating_sub(self.handle.status().memory.bytes),
        }
    }

    fn ask_for_leases(&self) -> Vec<(String, Ask)> {
        self.handle.ask_for_leases()
    }

    fn grant(&self, budget: &str, grant: Grant) {
        self.handle.grant(budget, grant);
    }

    fn holdings(&self) -> Holdings {
        let disks = self.handle.status().disks.into_iter().map(|disk| HeldDisk {
            name: disk.name,
            health: disk.health.as_str().to_owned(),
            bytes: disk.bytes,
            bytes_max: disk.bytes_max,
            records: disk.records,
        });
        let mut certificates = self.handle.certificates();
        let certificate_count = certificates.len();
        certificates.sort_by_key(|certificate| certificate.not_after);
        certificates.truncate(CERTIFICATES_TOLD_MAX);
        let certificates = certificates.into_iter().map(|certificate| HeldCertificate {
            name: certificate.names.first().map(ToString::to_string).unwrap_or_default(),
            names: certificate.names.len(),
            issuer: certificate.issuer.to_string(),
            until_ms: certificate.not_after.0,
        });
        Holdings { disks: disks.collect(), certificates: certificates.collect(), certificate_count }
    }

    fn registry(&self) -> Option<&Registry> {
        Some(self.handle.registry())
    }
}
