//! What an edge does with what its cluster tells it.

use std::sync::Arc;

use edge::Handle;
use journal::feed::{CERTIFICATES_TOLD_MAX, HeldCertificate, HeldDisk, Holdings, Steering, Vitals};
use model::change::Order;
use observe::Registry;
use semantics::{Outcome, Wall};

use super::{Works, resident_bytes};
use crate::configuration::{Live, Told};

/// An edge that runs, and its configuration.
pub(crate) struct EdgeWorks {
    pub(crate) handle: Arc<Handle>,
    pub(crate) live: Arc<Live>,
}

impl Works for EdgeWorks {
    fn purge(&self, orders: &[Order]) -> Result<(), String> {
        self.handle.apply(orders).map(drop).map_err(|error| error.to_string())
    }

    fn distrust(&self) -> Result<(), String> {
        self.handle.distrust().map(drop).map_err(|error| error.to_string())
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

    fn steering(&self) -> Steering {
        self.handle.take_measured()
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
