//! What the registry reads of a running edge whenever metrics are asked for: what others keep, in numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use model::budget::Amount;
use model::{breaker, health};
use observe::{
    BreakerReading, BudgetReading, CertificateReading, CopiesReading, DiskReading, OriginReading, Readings,
    TierReading,
};
use semantics::coding::Form;
use store::disk::{DiskStats, Health};

use super::Handle;
use crate::compress::encoder::Counts;
use crate::listen;
use crate::origin::BudgetStatus;
use crate::sockets::Kind;
use crate::tls::Certificate;

impl Handle {
    /// Tells the registry where to read what others keep.
    pub(super) fn feed_readings(&self) {
        let (shared, origins, tls) = (self.shared.clone(), self.origins.clone(), self.tls.clone());
        let workers = self.workers.lock().len() as u64;
        let quic_ports: Vec<u16> =
            self.sockets.lock().addresses(Kind::Quic).iter().map(SocketAddr::port).collect();
        self.shared.registry.read_from(move || {
            let stats = shared.store.stats();
            let disks = shared.disks.stats();
            Readings {
                disks: disks.iter().map(disk_reading).collect(),
                tiers: std::iter::once(TierReading {
                    tier: "memory",
                    bytes: stats.bytes,
                    bytes_max: stats.bytes_max,
                    objects: stats.entries,
                    found: stats.hits,
                    absent: stats.misses,
                    inserted: stats.insertions,
                    refused: stats.refused_too_large + stats.refused_no_room,
                    evicted: stats.evictions,
                    removed: stats.removals + stats.replacements,
                })
                .chain(disk_tier(&disks))
                .collect(),
                copies: copies_readings(&shared.encoder.counts),
                copies_not_made: shared.encoder.counts.not_made(),
                rewrites: shared.rewrites.all(),
                views: shared.rum.outcomes(),
                origins: origins
                    .report()
                    .iter()
                    .map(|report| OriginReading {
                        origin: shared.registry.origin(&report.name),
                        healthy: report.health == health::State::Up,
                        breaker: match report.breaker {
                            breaker::State::Closed => BreakerReading::Closed,
                            breaker::State::Open => BreakerReading::Open,
                            breaker::State::HalfOpen => BreakerReading::HalfOpen,
                        },
                        connections: report.open,
                        idle_connections: report.idle,
                    })
                    .collect(),
                budgets: origins.budgets().into_iter().map(budget_reading).collect(),
                certificates: ends(&tls.lock().certificates),
                quic_dropped: {
                    let [worker, process] = shared.quic.dropped();
                    [listen::dropped_packets(&quic_ports), worker, process]
                },
                purge_position: shared.purge_position.load(Ordering::Acquire),
                silence_ms: shared.heard.silence(&shared.clock).map(|silence| silence.as_millis() as u64),
                purges_remembered: {
                    let purges = shared.purges.read().stats();
                    (purges.urls + purges.tags + purges.prefixes + purges.sites) as u64
                },
                fills_in_flight: shared.flights.len() as u64,
                bodies_in_flight: shared.in_flight.bytes(),
                workers,
            }
        });
    }
}

fn budget_reading(report: BudgetStatus) -> BudgetReading {
    let pair = |amount: Amount| [amount.requests_per_second, amount.in_flight].map(u64::from);
    BudgetReading {
        site: report.site.into(),
        origin: report.origin.to_string(),
        total: pair(report.total),
        allowed: pair(report.allowed),
        used: pair(report.used),
        waiting: report.waiting,
        refused: report.refused,
        ended: report.ended,
    }
}

fn copies_readings(counts: &Counts) -> Vec<CopiesReading> {
    let reading = |form: Form| {
        let [made, bytes_in, bytes_out, cpu_us] = counts.of_form(form);
        CopiesReading {
            coding: form.coding(),
            is_thorough: form.is_thorough(),
            made,
            bytes_in,
            bytes_out,
            cpu_us,
        }
    };
    Form::ALL.into_iter().map(reading).collect()
}

/// All disks together, as one tier; `None` without any.
fn disk_tier(disks: &[DiskStats]) -> Option<TierReading> {
    let sum = |value: fn(&DiskStats) -> u64| disks.iter().map(value).sum();
    let tier = TierReading {
        tier: "disk",
        bytes: sum(|disk| disk.bytes),
        bytes_max: sum(|disk| disk.bytes_max),
        objects: sum(|disk| disk.records),
        found: sum(|disk| disk.found),
        absent: sum(|disk| disk.absent),
        inserted: sum(|disk| disk.filled),
        refused: sum(|disk| refused(disk).iter().sum()),
        evicted: sum(|disk| disk.evicted),
        removed: sum(|disk| disk.removed),
    };
    (!disks.is_empty()).then_some(tier)
}

/// When the certificate for each name ends, of those whose end is nearest.
fn ends(certificates: &[Certificate]) -> Vec<CertificateReading> {
    let mut by_name = BTreeMap::new();
    for certificate in certificates {
        // Of several for a name, the first is shown to almost all.
        certificate.names.iter().for_each(|name| _ = by_name.entry(name).or_insert(certificate.not_after));
    }
    let mut ends: Vec<_> = by_name
        .into_iter()
        .map(|(name, not_after)| CertificateReading { name: name.to_string(), not_after })
        .collect();
    ends.sort_by_key(|end| end.not_after);
    ends.truncate(observe::CERTIFICATES_MAX);
    ends
}

fn refused(disk: &DiskStats) -> [u64; 4] {
    [disk.refused_first_sight, disk.refused_over_budget, disk.refused_queue_full, disk.refused_write_failed]
}

fn disk_reading(disk: &DiskStats) -> DiskReading {
    DiskReading {
        disk: disk.name.clone(),
        health: match disk.health {
            Health::Well => 0,
            Health::Full => 1,
            Health::Failed => 2,
        },
        written_bytes: [disk.filled_bytes, disk.rewritten_bytes, disk.overhead_bytes],
        payload_bytes: disk.payload_bytes,
        read_bytes: disk.read_bytes,
        refused: refused(disk),
        rewritten: disk.rewritten,
        damaged: disk.damaged,
        errors: [disk.read_errors, disk.write_errors],
        queued_bytes: disk.queued_bytes,
        reading: disk.reading,
        oldest_segment_secs: disk.oldest_segment_secs,
        index_bytes: disk.index_bytes,
    }
}
