//! What an edge does with what its cluster tells it.

use std::sync::Arc;

use edge::{Handle, TierIdentity};
use journal::feed::{CERTIFICATES_TOLD_MAX, HeldCertificate, HeldDisk, Holdings, Vitals};
use journal::trust::Identity;
use model::change::Order;
use observe::Registry;
use rustls::pki_types::PrivateKeyDer;
use semantics::{Outcome, Wall};

use super::{Works, resident_bytes};
use crate::configuration::{Live, Told};

/// What a node shows to other edges.
pub(super) fn tier_identity(identity: &Identity) -> Result<TierIdentity, String> {
    let key = PrivateKeyDer::Pkcs8(identity.key().clone_key());
    TierIdentity::new([identity.authority().clone()], identity.chain(), key)
}

/// An edge that runs, and its configuration.
pub(crate) struct EdgeWorks {
    pub(crate) handle: Arc<Handle>,
    pub(crate) live: Arc<Live>,
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
        self.live.take(told)
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
