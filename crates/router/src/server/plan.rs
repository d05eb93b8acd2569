//! What plans answers: health, measurements, load and files, put together to a [`State`] whenever one of them changes.
//!
//! One thread does it all, beside those that answer, which go on with the state before until there is a new one.

use std::collections::HashMap;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use model::routing::{DNS_RATE, DNS_TTL, ProbeKind};
use model::steering::{Steering, Vote, network_of};
use model::{Pop, Routing, Snapshot};

use super::files::{make_signer, modified, read_config, read_location};
use super::metrics::PlanCounters;
use super::{Config, News, STOP_LOOK, Settings, Shared};
use crate::demand::{self, Demand, Relief};
use crate::grey::Greys;
use crate::health::EdgeHealth;
use crate::location::{Location, UNKNOWN};
use crate::measure::{MeasureCounters, Measurements};
use crate::mesh::{Links, Mesh};
use crate::probe::{Seen, Targets};
use crate::respond::{FLAPPING_TTL, PopAnswers, State};
use crate::sign::Signer;
use crate::table::{Ranking, Table, View, World};
use crate::zone::Zone;

/// How often files are looked at, and states of PoPs that come back are advanced.
const LOOK: Duration = Duration::from_secs(1);
/// How often what was measured comes into force.
const MEASURED_EVERY: Duration = Duration::from_secs(2);

/// Makes states from files and from what is seen of the edges.
pub(super) struct Planner {
    settings: Settings,
    report: Box<dyn Fn(&str) + Send>,
    snapshot: Arc<Snapshot>,
    pub(super) world: Arc<World>,
    signer: Option<Arc<Signer>>,
    pub(super) serial: u32,
    health: HashMap<IpAddr, EdgeHealth>,
    measurements: Measurements,
    mesh: Mesh,
    demand: Demand,
    greys: Greys,
    config_seen: Option<SystemTime>,
    location_seen: Option<SystemTime>,
    made: (Vec<f64>, bool),
    started: Instant,
}

impl Planner {
    pub(super) fn new(settings: &Settings, report: Box<dyn Fn(&str) + Send>) -> Result<Planner, Vec<String>> {
        let (snapshot, serial, config_seen) = match &settings.config {
            Config::File(file) => (file.snapshot.clone(), serial_now(), file.seen),
            Config::Told(snapshot, serial) => ((**snapshot).clone(), *serial, None),
        };
        let (location, location_seen) = match &settings.location {
            None => (Arc::new(Location::empty()), None),
            Some(path) => (Arc::new(read_location(path)?), modified(path)),
        };
        let world = Arc::new(World::new(snapshot.routing.pops.clone(), location));
        let mut planner = Planner {
            settings: settings.clone(),
            report,
            mesh: Mesh::new(&world),
            world,
            signer: None,
            serial,
            health: HashMap::new(),
            measurements: Measurements::default(),
            demand: Demand::default(),
            greys: Greys::default(),
            config_seen,
            location_seen,
            snapshot: Arc::new(snapshot),
            made: (Vec::new(), false),
            started: Instant::now(),
        };
        planner.signer = make_signer(&planner.snapshot, settings.key.as_deref())?;
        planner.zone(&planner.snapshot, planner.serial, planner.signer.as_deref())?;
        Ok(planner)
    }

    fn zone(&self, snapshot: &Snapshot, serial: u32, signer: Option<&Signer>) -> Result<Zone, Vec<String>> {
        match (&self.settings.config, &snapshot.routing.dns) {
            (Config::Told(..), None) => Ok(Zone::nothing(snapshot)),
            _ => Zone::build(snapshot, serial, signer),
        }
    }

    fn routing(&self) -> &Routing {
        &self.snapshot.routing
    }

    pub(super) fn targets(&self) -> Targets {
        let edges = self.routing().pops.iter().flat_map(|pop| pop.edges.iter().copied()).collect();
        Targets { edges, settings: self.routing().probe }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn is_down(&self, edge: &IpAddr) -> bool {
        self.health.get(edge).is_some_and(EdgeHealth::is_down)
    }

    /// Whether anything that is seen of an edge counts.
    fn is_looked_at(&self, edge: &IpAddr) -> bool {
        self.routing().probe.kind != ProbeKind::Off
            && (self.health.contains_key(edge)
                || self.routing().pops.iter().any(|pop| pop.edges.contains(edge)))
    }

    /// The share of its visitors that each PoP gets, by its best edge, and whether anything has changed lately.
    fn standing(&self) -> (Vec<f64>, bool) {
        let now = self.now_ms();
        let of = |edge: &IpAddr| self.health.get(edge).map_or(1.0, |health| health.share(now));
        // What cannot be probed, as it has no addresses, counts as well.
        let best = |pop: &Pop| pop.edges.iter().map(of).reduce(f64::max).unwrap_or(1.0);
        let shares = self.routing().pops.iter().map(best).collect();
        (shares, self.health.values().any(|health| health.is_flapping(now)))
    }

    /// What is known of the PoPs, of which each gets such a share of its visitors.
    fn view(&self, shares: &[f64]) -> View {
        let Relief { prices, splits } = self.demand.relief();
        let is_down = |(pop, share): (usize, &f64)| *share == 0.0 || self.greys.is_grey(pop);
        View {
            down: shares.iter().enumerate().map(is_down).collect(),
            // Down PoPs are chosen when nothing is believed any more; then their edges are answered as if they were up.
            share: shares.iter().map(|share| if *share == 0.0 { 1.0 } else { *share }).collect(),
            prices,
            splits,
            full: self.demand.full().to_vec(),
            estimates: Arc::clone(&self.measurements.estimates),
        }
    }

    /// Looks whether PoPs can take what they get, and whether visitors reach them; whether that has changed anything.
    fn look(&mut self) -> bool {
        let (shares, now) = (self.standing().0, self.now_ms());
        let view = self.view(&shares);
        let living = |pop: &Pop| {
            let up = pop.edges.iter().filter(|edge| !self.is_down(edge));
            if pop.edges.is_empty() { 1.0 } else { up.count() as f64 / pop.edges.len() as f64 }
        };
        let up: Vec<f64> = self.routing().pops.iter().map(living).collect();
        let moved = self.demand.look(&self.world, &view, &up, now);
        let is_fuller = self.demand.look_at_spares(&self.world, &up, spare_within_ms(&self.snapshot));
        if moved {
            let cells = self.demand.relief().splits.len();
            (self.report)(&match cells {
                0 => "all PoPs can take what they get: everybody goes where it is best".to_owned(),
                cells => format!("PoPs are full: visitors of {cells} places do not all go where it is best"),
            });
        }
        let changed = self.greys.look(now);
        for pop in &changed {
            let name = &self.routing().pops[usize::from(*pop)].name;
            let verdict = match self.greys.is_grey(usize::from(*pop)) {
                true => "is not reached by visitors, though it answers probes: it counts as down",
                false => "is reached by visitors again",
            };
            (self.report)(&format!("PoP {name} {verdict}"));
        }
        moved || is_fuller || !changed.is_empty()
    }

    /// Looks at the links between PoPs.
    fn look_at_mesh(&mut self) -> Links {
        let (links, sentences) = self.mesh.look(self.now_ms());
        sentences.iter().for_each(|sentence| (self.report)(sentence));
        links
    }

    /// Takes what a node says; returns how many edges went or came by it.
    fn steered(&mut self, node: &str, pop: &str, steering: &Steering, counters: &MeasureCounters) -> u64 {
        let (world, now) = (Arc::clone(&self.world), self.now_ms());
        let own = world.pop_named(pop).filter(|_| !node.is_empty());
        for trips in &steering.trips {
            self.measurements.take(trips, &world, now, counters);
            let Some(at) = world.pop_named(&trips.pop) else { continue };
            match own == Some(at) {
                // Its own visitors' connections, and beacons of pages that it has served: the latter say nothing of who is cut off.
                true => {
                    let cell = world.location.cell(trips.network);
                    if cell != UNKNOWN {
                        self.demand.seen(cell, at, trips.count);
                    }
                }
                false => {
                    let network = network_of(trips.network);
                    self.greys.seen(at, network, trips.count, trips.failed, now);
                }
            }
        }
        if let (Some(own), Some(mbps)) = (own, steering.mbps) {
            self.demand.load(node, own, mbps, now);
        }
        let mut changes = 0;
        for vote @ Vote { edge, down, .. } in &steering.votes {
            if let Some(own) = own {
                self.mesh.take(own, vote, now);
            }
            if self.is_looked_at(edge)
                && self.health.entry(*edge).or_default().vote(observer_id(node), *down, now)
            {
                self.tell_change(*edge);
                changes += 1;
            }
        }
        changes
    }

    fn tell_change(&self, edge: IpAddr) {
        let pop = self.routing().pops.iter().find(|pop| pop.edges.contains(&edge));
        let pop = pop.map_or("?", |pop| &*pop.name);
        let verdict = if self.is_down(&edge) { "is down: it does not answer probes" } else { "is up again" };
        (self.report)(&format!("edge {edge} of PoP {pop} {verdict}"));
    }

    /// A state from everything that is known.
    pub(super) fn state(&mut self) -> Arc<State> {
        let (shares, flapping) = self.standing();
        let view = self.view(&shares);
        self.measurements.is_new = false;
        let Ok(zone) = self.zone(&self.snapshot, self.serial, self.signer.as_deref()) else {
            unreachable!("a configuration is taken over only when its zone could be built")
        };
        let dns = self.routing().dns.as_ref();
        let ttl = dns.map_or(DNS_TTL.default, |dns| dns.ttl).as_secs() as u32;
        let ttl = if flapping { ttl.min(FLAPPING_TTL) } else { ttl };
        let pops = self.routing().pops.iter().map(|pop| {
            let living: Vec<IpAddr> = pop.edges.iter().copied().filter(|edge| !self.is_down(edge)).collect();
            let edges = if living.is_empty() { &pop.edges } else { &living };
            PopAnswers::new(pop, edges, ttl, dns.is_some_and(|dns| dns.https))
        });
        let up = self.targets().edges.into_iter().map(|edge| (edge, !self.is_down(&edge)));
        let state = State {
            up: up.collect(),
            tables: zone.groups.iter().map(|group| Table::build(&self.world, group, &view)).collect(),
            spares: zone
                .groups
                .iter()
                .map(|group| spares_of(&self.snapshot, &self.world, group, &view))
                .collect(),
            snapshot: Arc::clone(&self.snapshot),
            view,
            pops: pops.collect(),
            zone,
            world: Arc::clone(&self.world),
            ttl,
            signer: self.signer.clone(),
            client_subnet: dns.is_some_and(|dns| dns.client_subnet),
            rate: dns.map_or(DNS_RATE.default, |dns| dns.rate),
            node: self.settings.node.as_str().into(),
            cookie_secret: self.settings.cookie_secret,
        };
        self.made = (shares, flapping);
        Arc::new(state)
    }

    /// Takes what a probe saw; returns whether the edge went or came.
    fn take(&mut self, seen: Seen) -> bool {
        let now = self.now_ms();
        let changed = self.is_looked_at(&seen.edge)
            && self.health.entry(seen.edge).or_default().step(0, seen.good, now);
        if changed {
            self.tell_change(seen.edge);
        }
        changed
    }

    /// Looks at the files. Returns what was taken over: `Some(Ok)` something, `Some(Err)` it could not be used.
    fn reload(&mut self) -> Option<Result<(), ()>> {
        let config_path = match &self.settings.config {
            Config::File(file) => Some(file.path.clone()),
            Config::Told(..) => None,
        };
        let config_seen = config_path.as_ref().and_then(|path| modified(path));
        let location_path = self.settings.location.clone();
        let location_seen = location_path.as_ref().and_then(|path| modified(path));
        if (config_seen, location_seen) == (self.config_seen, self.location_seen) {
            return None;
        }
        let location_path = location_path.filter(|_| location_seen != self.location_seen);
        (self.config_seen, self.location_seen) = (config_seen, location_seen);
        let reread = || -> Result<_, Vec<String>> {
            let snapshot = match &config_path {
                Some(path) => read_config(path, &*self.report)?,
                None => (*self.snapshot).clone(),
            };
            let location = location_path.map(|path| read_location(&path).map(Arc::new)).transpose()?;
            Ok((snapshot, location))
        };
        let serial = match config_path {
            Some(_) => serial_now().max(self.serial.wrapping_add(1)),
            None => self.serial,
        };
        let taken = reread().and_then(|(snapshot, location)| self.adopt(snapshot, serial, location));
        Some(match taken {
            Ok(()) => {
                (self.report)("the changed configuration or location data is in force");
                Ok(())
            }
            Err(errors) => {
                errors.iter().for_each(|error| (self.report)(error));
                (self.report)("the changed file is not used; what was in force before stays");
                Err(())
            }
        })
    }

    /// Takes a configuration over, and location data if there is a new one. Nothing is changed if it can't be used.
    fn adopt(
        &mut self,
        snapshot: Snapshot,
        serial: u32,
        location: Option<Arc<Location>>,
    ) -> Result<(), Vec<String>> {
        let signer = make_signer(&snapshot, self.settings.key.as_deref())?;
        self.zone(&snapshot, serial, signer.as_deref())?;
        let (old, new) = (&self.snapshot.routing.pops, &snapshot.routing.pops);
        if old != new || location.is_some() {
            // A line that is written above them makes no others of them.
            let is_same = |(old, new): (&Pop, &Pop)| Pop { line: new.line, ..old.clone() } == *new;
            let are_same = old.len() == new.len() && old.iter().zip(new).all(is_same) && location.is_none();
            let location = location.unwrap_or_else(|| Arc::clone(&self.world.location));
            let world = World::new(snapshot.routing.pops.clone(), location);
            self.measurements.renumber(&self.world, &world);
            if !are_same {
                self.demand.forget();
                self.greys.forget();
            }
            self.world = Arc::new(world);
            self.mesh.move_to(&self.world);
        }
        let edges: Vec<IpAddr> = snapshot.routing.pops.iter().flat_map(|pop| pop.edges.clone()).collect();
        // What nobody looks at any more would stay for ever as it was seen last.
        let is_probed = snapshot.routing.probe.kind != ProbeKind::Off;
        self.health.retain(|edge, _| is_probed && edges.contains(edge));
        (self.snapshot, self.signer, self.serial) = (Arc::new(snapshot), signer, serial);
        Ok(())
    }
}

/// An observer's number; the router's own is 0.
fn observer_id(node: &str) -> u32 {
    let mut hasher = siphasher::sip::SipHasher24::new();
    hasher.write(node.as_bytes());
    hasher.finish() as u32 | 1
}

fn spare_within_ms(snapshot: &Snapshot) -> Option<f64> {
    snapshot.routing.dns.as_ref()?.spare_within.map(|within| within.as_secs_f64() * 1e3)
}

/// The spare of the first PoP of a ranking within `group`, if its answers have one.
pub fn spare_of(
    snapshot: &Snapshot,
    world: &World,
    ranking: &Ranking,
    group: &[u16],
    view: &View,
) -> Option<u16> {
    world.spare(ranking.order.first()?.pop, group, view, spare_within_ms(snapshot)?)
}

fn spares_of(snapshot: &Snapshot, world: &World, group: &[u16], view: &View) -> Vec<Option<u16>> {
    spare_within_ms(snapshot).map_or_else(|| vec![None; world.pops.len()], |ms| world.spares(group, view, ms))
}

fn serial_now() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs() as u32)
}

/// Hands on what probes see to a thread that may block, with a bound on how long.
pub(super) fn forward_seen(mut seen: tokio::sync::mpsc::Receiver<Seen>, news: &mpsc::SyncSender<News>) {
    while let Some(one) = seen.blocking_recv() {
        if news.send(News::Seen(one)).is_err() {
            return;
        }
    }
}

/// Plans until the router stops.
pub(super) fn run(
    planner: &mut Planner,
    shared: &Shared,
    news: &mpsc::Receiver<News>,
    targets: &tokio::sync::watch::Sender<Targets>,
) {
    let mut looked = Instant::now();
    let mut measured = Instant::now();
    let mut balanced = Instant::now();
    let mut answers = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let (mut dirty, mut reloaded, mut looks_at_mesh) = (false, false, false);
        let mut next = news.recv_timeout(STOP_LOOK).ok();
        while let Some(one) = next {
            match one {
                News::Seen(seen) => {
                    shared.plan.probes.fetch_add(1, Ordering::Relaxed);
                    shared.plan.probes_failed.fetch_add(u64::from(!seen.good), Ordering::Relaxed);
                    if planner.take(seen) {
                        shared.plan.changes.fetch_add(1, Ordering::Relaxed);
                        dirty = true;
                    }
                }
                News::Steered(node, pop, steering) => {
                    let changes = planner.steered(&node, &pop, &steering, &shared.measured);
                    shared.plan.changes.fetch_add(changes, Ordering::Relaxed);
                    shared.plan.votes.fetch_add(steering.votes.len() as u64, Ordering::Relaxed);
                    dirty |= changes > 0;
                }
                News::Told(snapshot, serial, answer) => {
                    let taken = planner.adopt(*snapshot, serial, None);
                    count_reload(&shared.plan, taken.is_ok());
                    reloaded |= taken.is_ok();
                    answers.push((answer, taken));
                }
            }
            next = news.try_recv().ok();
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if let Some(taken) = planner.reload() {
                count_reload(&shared.plan, taken.is_ok());
                reloaded |= taken.is_ok();
            }
            dirty |= planner.standing() != planner.made;
            if balanced.elapsed().as_millis() as u64 >= demand::LOOK_MS {
                balanced = Instant::now();
                dirty |= planner.look();
                looks_at_mesh = true;
            }
            if planner.measurements.is_new && measured.elapsed() >= MEASURED_EVERY {
                measured = Instant::now();
                dirty = true;
            }
        }
        if reloaded {
            targets.send_if_modified(|now| {
                let new = planner.targets();
                let changed = *now != new;
                *now = new;
                changed
            });
        }
        if looks_at_mesh || reloaded {
            let links = planner.look_at_mesh();
            shared.plan.too_fast.store(links.too_fast_count() as u64, Ordering::Relaxed);
            *shared.mesh.lock() = Arc::new(links);
        }
        if dirty || reloaded {
            let state = planner.state();
            *shared.state.lock() = state;
            shared.generation.fetch_add(1, Ordering::Release);
            shared.plan.states.fetch_add(1, Ordering::Relaxed);
            shared.plan.serial.store(u64::from(planner.serial), Ordering::Relaxed);
            let down = planner.health.values().filter(|health| health.is_down()).count();
            shared.plan.down.store(down as u64, Ordering::Relaxed);
            let grey = (0..planner.world.pops.len()).filter(|pop| planner.greys.is_grey(*pop)).count();
            shared.plan.grey.store(grey as u64, Ordering::Relaxed);
            let moved = planner.demand.relief().splits.len();
            shared.plan.relieved.store(moved as u64, Ordering::Relaxed);
        }
        for (answer, taken) in answers.drain(..) {
            // Whoever has asked may be gone.
            _ = answer.send(taken);
        }
    }
}

fn count_reload(plan: &PlanCounters, is_good: bool) {
    let counter = if is_good { &plan.reloads } else { &plan.reload_errors };
    counter.fetch_add(1, Ordering::Relaxed);
}
