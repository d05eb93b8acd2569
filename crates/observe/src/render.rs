//! Reads all counters, sums them over the workers and writes each family of the catalogue. Runs on the admin thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use semantics::coding::Coding;
use semantics::{Outcome, Why};

use crate::catalogue::*;
use crate::cells::{BySlot, CLASS_NAMES, Counter, OriginCells, SiteCells, WorkerCells};
use crate::event::{Handshake, Hop, HopEnd, Limit, OriginFailure, PurgeForm, PurgeScope, Slot};
use crate::exposition::Exposition;
use crate::histogram::{Histogram, Merged};
use crate::readings::{BudgetReading, CopiesReading, DiskReading, Readings};
use crate::registry::{Names, Registry};

pub(crate) fn render(registry: &Registry) -> String {
    let workers = registry.workers();
    let readings = registry.readings.lock().as_ref().map(|read| read());
    let mut out = Exposition::new();
    out.sample(&BUILD_INFO, &[registry.build.version, registry.build.commit], 1);
    // Their place is that of `Slot::NONE`.
    let probes = workers.iter().map(|worker| vec![worker.probes.get().cloned()]);
    let sites: Vec<BySlot<SiteCells>> =
        workers.iter().map(|worker| worker.sites.lock().clone()).chain(probes).collect();
    render_sites(&mut out, &groups(&registry.sites.read(), &sites));
    render_connections(&mut out, &workers);
    render_certificates(&mut out, registry, readings.as_ref());
    let origins: Vec<BySlot<OriginCells>> =
        workers.iter().map(|worker| worker.origins.lock().clone()).collect();
    let names = registry.origins.read();
    render_origins(&mut out, &groups(&names, &origins));
    if let Some(readings) = &readings {
        render_origin_states(&mut out, &names, readings);
        render_budgets(&mut out, readings);
        render_store(&mut out, readings);
    }
    drop(names);
    render_control(&mut out, registry, readings.as_ref());
    render_log(&mut out, registry, &workers);
    out.into_text()
}

/// One site's or origin's cells in all workers that have met it.
struct Group<T> {
    name: String,
    cells: Vec<Arc<T>>,
}

impl<T> Group<T> {
    fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        self.cells.iter().fold(0, |sum, cells| sum.wrapping_add(counter(cells).read()))
    }

    fn merge(&self, histogram: impl Fn(&T) -> &Histogram) -> Merged {
        let mut merged = Merged::default();
        self.cells.iter().for_each(|cells| merged.add(histogram(cells)));
        merged
    }
}

fn groups<T>(names: &Names, workers: &[BySlot<T>]) -> Vec<Group<T>> {
    let cells_of = |slot: Slot| {
        workers
            .iter()
            .filter_map(move |cells| cells.get(slot.0 as usize).cloned().flatten())
            .collect::<Vec<_>>()
    };
    names
        .slots()
        .map(|(slot, name)| Group { name: name.to_owned(), cells: cells_of(slot) })
        .filter(|group| !group.cells.is_empty())
        .collect()
}

fn render_sites(out: &mut Exposition, sites: &[Group<SiteCells>]) {
    for site in sites {
        for &why in Why::ALL {
            let count = site.sum(|cells| &cells.whys.0[why as usize]);
            if count > 0 {
                out.sample(&REQUESTS, &[&site.name, why.outcome().as_str(), why.as_str()], count);
            }
        }
    }
    for site in sites {
        for (index, class) in CLASS_NAMES.iter().enumerate() {
            let count = site.sum(|cells| &cells.classes.0[index]);
            if count > 0 {
                out.sample(&RESPONSES, &[&site.name, class], count);
            }
        }
    }
    for site in sites {
        for &outcome in Outcome::ALL {
            let count = site.sum(|cells| &cells.body_bytes_sent.0[outcome as usize]);
            if count > 0 {
                out.sample(&SENT_BODY_BYTES, &[&site.name, outcome.as_str()], count);
            }
        }
    }
    for_each(out, &SENT_HEAD_BYTES, sites, |cells| &cells.head_bytes_sent);
    for_each(out, &RECEIVED_BYTES, sites, |cells| &cells.bytes_received);
    for_each(out, &COLLAPSED, sites, |cells| &cells.collapsed);
    for_each(out, &STORED, sites, |cells| &cells.stored);
    for_each(out, &PERSONAL_HITS, sites, |cells| &cells.personal);
    for site in sites {
        for coding in Coding::ALL {
            let count = site.sum(|cells| &cells.encoded.0[coding as usize]);
            if count > 0 {
                out.sample(&ENCODED_RESPONSES, &[&site.name, coding.as_str()], count);
            }
        }
    }
    for_each(out, &SAVED_BODY_BYTES, sites, |cells| &cells.body_bytes_saved);
    render_latencies(out, &DURATION, sites, |cells| &cells.durations);
    render_latencies(out, &FIRST_BYTE, sites, |cells| &cells.first_bytes);
}

fn render_latencies(
    out: &mut Exposition,
    family: &'static Family,
    sites: &[Group<SiteCells>],
    histograms: impl Fn(&SiteCells) -> &[Histogram; Outcome::ALL.len()],
) {
    for site in sites {
        for &outcome in Outcome::ALL {
            let merged = site.merge(|cells| &histograms(cells)[outcome as usize]);
            if merged.count() > 0 {
                out.histogram(family, &[&site.name, outcome.as_str()], &merged);
            }
        }
    }
}

fn for_each<T>(
    out: &mut Exposition,
    family: &'static Family,
    groups: &[Group<T>],
    counter: impl Fn(&T) -> &Counter,
) {
    for group in groups {
        out.sample(family, &[&group.name], group.sum(&counter));
    }
}

fn render_connections(out: &mut Exposition, workers: &[Arc<WorkerCells>]) {
    let accepted = sum(workers, |worker| &worker.connections_accepted);
    let closed = sum(workers, |worker| &worker.connections_closed);
    out.sample(&CONNECTIONS_ACCEPTED, &[], accepted);
    out.sample(&CONNECTIONS_OPEN, &[], accepted.saturating_sub(closed));
    for &limit in Limit::ALL {
        out.sample(&LIMITS, &[limit.as_str()], sum(workers, |worker| &worker.limits.0[limit as usize]));
    }
    for &handshake in Handshake::ALL {
        let count = sum(workers, |worker| &worker.handshakes.0[handshake as usize]);
        out.sample(&HANDSHAKES, &[handshake.as_str()], count);
    }
    // Only where there are other edges.
    for hop in Hop::ALL {
        let counts =
            HopEnd::ALL.map(|end| (end, sum(workers, |worker| &worker.hops[hop as usize].0[end as usize])));
        for (end, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            out.sample(&HOP_REQUESTS, &[hop.as_str(), end.as_str()], count);
        }
    }
    for hop in Hop::ALL {
        for &outcome in Outcome::ALL {
            let count = sum(workers, |worker| &worker.asked[hop as usize].0[outcome as usize]);
            if count > 0 {
                out.sample(&HOP_ANSWERS, &[hop.as_str(), outcome.as_str()], count);
            }
        }
    }
}

fn render_certificates(out: &mut Exposition, registry: &Registry, readings: Option<&Readings>) {
    let dropped = readings.map_or([0; 3], |readings| readings.quic_dropped);
    for (queue, count) in ["socket", "worker", "process"].into_iter().zip(dropped) {
        out.sample(&QUIC_DROPPED, &[queue], count);
    }
    for certificate in readings.iter().flat_map(|readings| &readings.certificates) {
        out.seconds(&CERTIFICATE_ENDS, &[&certificate.name], certificate.not_after.0.max(0) as u64);
    }
    out.sample(&CERTIFICATE_ORDERS, &["issued"], load(&registry.shared.orders_issued));
    out.sample(&CERTIFICATE_ORDERS, &["failed"], load(&registry.shared.orders_failed));
    out.sample(&OCSP_FETCHES, &["fetched"], load(&registry.shared.staples_fetched));
    out.sample(&OCSP_FETCHES, &["failed"], load(&registry.shared.staples_failed));
}

fn render_origins(out: &mut Exposition, origins: &[Group<OriginCells>]) {
    for origin in origins {
        for (index, class) in CLASS_NAMES.iter().enumerate().skip(1) {
            let count = origin.sum(|cells| &cells.classes.0[index]);
            if count > 0 {
                out.sample(&ORIGIN_RESPONSES, &[&origin.name, class], count);
            }
        }
    }
    for origin in origins {
        for &failure in OriginFailure::ALL {
            let count = origin.sum(|cells| &cells.failures.0[failure as usize]);
            if count > 0 {
                out.sample(&ORIGIN_FAILURES, &[&origin.name, failure.as_str()], count);
            }
        }
    }
    for_each(out, &ORIGIN_RETRIES, origins, |cells| &cells.retries);
    for_each(out, &ORIGIN_CONNECTIONS_OPENED, origins, |cells| &cells.connections_opened);
    for_each(out, &ORIGIN_CONNECTIONS_REUSED, origins, |cells| &cells.connections_reused);
    for_each(out, &ORIGIN_SENT_BYTES, origins, |cells| &cells.bytes_sent);
    for_each(out, &ORIGIN_RECEIVED_BYTES, origins, |cells| &cells.bytes_received);
    for origin in origins {
        out.histogram(&ORIGIN_CONNECT, &[&origin.name], &origin.merge(|cells| &cells.connects));
    }
    for origin in origins {
        out.histogram(&ORIGIN_FIRST_BYTE, &[&origin.name], &origin.merge(|cells| &cells.first_bytes));
    }
}

fn render_origin_states(out: &mut Exposition, names: &Names, readings: &Readings) {
    // Several sites may name the same origin: a series may be written once only, so the first reading of a slot counts.
    let mut seen = std::collections::HashSet::new();
    let states: Vec<_> = readings.origins.iter().filter(|state| seen.insert(state.origin)).collect();
    for state in &states {
        out.sample(&ORIGIN_HEALTHY, &[names.name(state.origin)], u64::from(state.healthy));
    }
    for state in &states {
        out.sample(&ORIGIN_BREAKER, &[names.name(state.origin)], state.breaker as u64);
    }
    for state in &states {
        let busy = state.connections.saturating_sub(state.idle_connections);
        out.sample(&ORIGIN_CONNECTIONS, &[names.name(state.origin), "busy"], busy);
        out.sample(&ORIGIN_CONNECTIONS, &[names.name(state.origin), "idle"], state.idle_connections);
    }
}

fn render_budgets(out: &mut Exposition, readings: &Readings) {
    let mut pairs = |family, numbers: fn(&BudgetReading) -> [u64; 2]| {
        for budget in &readings.budgets {
            let [rate, in_flight] = numbers(budget);
            out.sample(family, &[&budget.site, &budget.origin, "requests_per_second"], rate);
            out.sample(family, &[&budget.site, &budget.origin, "in_flight"], in_flight);
        }
    };
    pairs(&ORIGIN_BUDGET, |budget| budget.total);
    pairs(&ORIGIN_BUDGET_ALLOWED, |budget| budget.allowed);
    pairs(&ORIGIN_BUDGET_USED, |budget| budget.used);
    let mut counts = |family, count: fn(&BudgetReading) -> u64| {
        for budget in &readings.budgets {
            out.sample(family, &[&budget.site, &budget.origin], count(budget));
        }
    };
    counts(&ORIGIN_BUDGET_WAITING, |budget| budget.waiting);
    counts(&ORIGIN_BUDGET_REFUSED, |budget| budget.refused);
    counts(&ORIGIN_BUDGET_ENDED, |budget| budget.ended);
}

fn render_store(out: &mut Exposition, readings: &Readings) {
    let tiers = &readings.tiers;
    tiers.iter().for_each(|tier| out.sample(&STORE_BYTES, &[tier.tier], tier.bytes));
    tiers.iter().for_each(|tier| out.sample(&STORE_BYTES_MAX, &[tier.tier], tier.bytes_max));
    tiers.iter().for_each(|tier| out.sample(&STORE_OBJECTS, &[tier.tier], tier.objects));
    for tier in tiers {
        out.sample(&STORE_LOOKUPS, &[tier.tier, "found"], tier.found);
        out.sample(&STORE_LOOKUPS, &[tier.tier, "absent"], tier.absent);
    }
    tiers.iter().for_each(|tier| out.sample(&STORE_INSERTED, &[tier.tier], tier.inserted));
    tiers.iter().for_each(|tier| out.sample(&STORE_REFUSED, &[tier.tier], tier.refused));
    tiers.iter().for_each(|tier| out.sample(&STORE_EVICTED, &[tier.tier], tier.evicted));
    tiers.iter().for_each(|tier| out.sample(&STORE_REMOVED, &[tier.tier], tier.removed));
    render_disks(out, readings);
    render_copies(out, readings);
    out.sample(&FILLS, &[], readings.fills_in_flight);
    out.sample(&IN_FLIGHT, &[], readings.bodies_in_flight.0);
    out.sample(&IN_FLIGHT_MAX, &[], readings.bodies_in_flight.1);
}

fn render_disks(out: &mut Exposition, readings: &Readings) {
    let disks = &readings.disks;
    for_each_disk(out, &DISK_HEALTH, disks, |disk| disk.health);
    for disk in disks {
        for (kind, bytes) in ["fill", "rewrite", "overhead"].into_iter().zip(disk.written_bytes) {
            out.sample(&DISK_WRITTEN, &[&disk.disk, kind], bytes);
        }
    }
    for_each_disk(out, &DISK_PAYLOAD, disks, |disk| disk.payload_bytes);
    for_each_disk(out, &DISK_READ, disks, |disk| disk.read_bytes);
    for disk in disks {
        let reasons = ["first-sight", "over-budget", "queue-full", "write-failed"];
        for (reason, count) in reasons.into_iter().zip(disk.refused) {
            out.sample(&DISK_REFUSED, &[&disk.disk, reason], count);
        }
    }
    for_each_disk(out, &DISK_REWRITTEN, disks, |disk| disk.rewritten);
    for_each_disk(out, &DISK_DAMAGED, disks, |disk| disk.damaged);
    for disk in disks {
        for (operation, count) in ["read", "write"].into_iter().zip(disk.errors) {
            out.sample(&DISK_ERRORS, &[&disk.disk, operation], count);
        }
    }
    for_each_disk(out, &DISK_QUEUED, disks, |disk| disk.queued_bytes);
    for_each_disk(out, &DISK_READING, disks, |disk| disk.reading);
    for_each_disk(out, &DISK_OLDEST, disks, |disk| disk.oldest_segment_secs);
    for_each_disk(out, &DISK_INDEX, disks, |disk| disk.index_bytes);
}

fn render_copies(out: &mut Exposition, readings: &Readings) {
    let effort = |copies: &CopiesReading| if copies.is_thorough { "thorough" } else { "quick" };
    let mut for_each = |family: &'static Family, value: fn(&CopiesReading) -> u64| {
        for copies in &readings.copies {
            out.sample(family, &[copies.coding.as_str(), effort(copies)], value(copies));
        }
    };
    for_each(&COPIES, |copies| copies.made);
    for_each(&COPIES_READ, |copies| copies.bytes_in);
    for_each(&COPIES_WRITTEN, |copies| copies.bytes_out);
    for copies in &readings.copies {
        out.seconds(&COPIES_CPU, &[copies.coding.as_str(), effort(copies)], copies.cpu_us / 1000);
    }
    for (reason, count) in
        ["queue-full", "hardly-smaller", "failed"].into_iter().zip(readings.copies_not_made)
    {
        out.sample(&COPIES_NOT_MADE, &[reason], count);
    }
    for (outcome, count) in ["whole", "failed-open", "left"].into_iter().zip(readings.rewrites) {
        out.sample(&REWRITES, &[outcome], count);
    }
    for (outcome, count) in ["counted", "impossible", "forged", "too-many"].into_iter().zip(readings.views) {
        out.sample(&VIEWS, &[outcome], count);
    }
}

fn for_each_disk(
    out: &mut Exposition,
    family: &'static Family,
    disks: &[DiskReading],
    value: fn(&DiskReading) -> u64,
) {
    disks.iter().for_each(|disk| out.sample(family, &[&disk.disk], value(disk)));
}

fn render_control(out: &mut Exposition, registry: &Registry, readings: Option<&Readings>) {
    let shared = &registry.shared;
    for &scope in PurgeScope::ALL {
        for &form in PurgeForm::ALL {
            let count = load(&shared.purges[scope as usize][form as usize]);
            out.sample(&PURGES, &[scope.as_str(), form.as_str()], count);
        }
    }
    out.sample(&PURGES_WIDENED, &[], load(&shared.purges_widened));
    out.sample(&DISTRUSTS, &[], load(&shared.distrusts));
    if let Some(readings) = readings {
        out.sample(&PURGE_POSITION, &[], readings.purge_position);
        out.sample(&PURGES_REMEMBERED, &[], readings.purges_remembered);
        if shared.follows.load(Ordering::Relaxed) {
            out.sample(&JOURNAL_POSITION, &[], load(&shared.journal_position));
            out.sample(&JOURNAL_HEAD, &[], load(&shared.journal_head));
            out.sample(&CONTROL_CONNECTED, &[], u64::from(shared.is_connected.load(Ordering::Relaxed)));
        }
        if let Some(silence) = readings.silence_ms {
            out.seconds(&CONTROL_HEARD, &[], silence);
        }
    }
    out.sample(&RELOADS, &["ok"], load(&shared.reloads_ok));
    out.sample(&RELOADS, &["failed"], load(&shared.reloads_failed));
    out.seconds(&CONFIG_LOADED, &[], load(&shared.config_loaded_ms));
    if let Some(readings) = readings {
        out.sample(&WORKERS, &[], readings.workers);
    }
}

fn render_log(out: &mut Exposition, registry: &Registry, workers: &[Arc<WorkerCells>]) {
    let shared = &registry.shared;
    out.sample(&REPORTS_LOST, &[], registry.lost_reports());
    out.sample(&LOG_LINES, &[], sum(workers, |worker| &worker.log_lines));
    out.sample(&LOG_LINES_DROPPED, &["queue-full"], sum(workers, |worker| &worker.log_lines_dropped));
    out.sample(&LOG_LINES_DROPPED, &["write-failed"], load(&shared.log_lines_lost));
    out.sample(&LOG_WRITE_ERRORS, &[], load(&shared.log_write_errors));
    out.sample(&LOG_REOPENS, &[], load(&shared.log_reopens));
    for (end, count) in
        [("sent", &shared.spans_sent), ("refused", &shared.spans_refused), ("dropped", &shared.spans_dropped)]
    {
        out.sample(&SPANS, &[end], load(count));
    }
}

fn sum(workers: &[Arc<WorkerCells>], counter: impl Fn(&WorkerCells) -> &Counter) -> u64 {
    workers.iter().fold(0, |sum, worker| sum.wrapping_add(counter(worker).read()))
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
