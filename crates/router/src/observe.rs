//! What an edge sees of the edges of other PoPs, for the cluster's routers: a router alone sees them from one place, and can't tell a dead
//! edge from its own bad line.
//!
//! Each address is looked at from three other PoPs, always the same ones, by every node there. What an observer says is *down* or *up*,
//! after as many probes as in `health`. One that sees most of what it looks at down says nothing: it is cut off itself.
//! With it goes the least round trip of the probes, which says how long the link between two PoPs is.

use std::collections::HashMap;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use model::Routing;
use model::routing::ProbeKind;
use model::steering::Vote;
use parking_lot::Mutex;
use siphasher::sip::SipHasher24;
use tokio::sync::{mpsc, watch};

use crate::health::Sight;
use crate::probe::{Seen, Targets, probe_all};

/// PoPs that look at an address.
pub(crate) const OBSERVERS: usize = 3;
/// How long a round trip may wait to be told: whoever hears of it takes it for one of now.
const RTT_MS_MAX: u64 = 5_000;
/// What probes may have seen and nobody has looked at yet.
const SEEN_MAX: usize = 256;

/// An observer that runs; dropping it ends it.
pub struct Observing {
    targets: watch::Sender<Targets>,
    looked: Arc<Mutex<HashMap<IpAddr, Looked>>>,
    started: Instant,
}

/// What was seen of an address.
#[derive(Debug, Default)]
struct Looked {
    sight: Sight,
    /// The least that was not told yet, and when it was seen.
    rtt: Option<(u32, u64)>,
}

impl Looked {
    /// Returns whether it is down or up now, and was not.
    fn step(&mut self, seen: Seen, now_ms: u64) -> bool {
        let new = seen.rtt_us.map(|rtt_us| (rtt_us, now_ms));
        self.rtt = self.rtt_at(now_ms).into_iter().chain(new).min();
        self.sight.step(seen.good, now_ms)
    }

    /// What is not too old to be told.
    fn rtt_at(&self, now_ms: u64) -> Option<(u32, u64)> {
        self.rtt.filter(|(_, at_ms)| now_ms.saturating_sub(*at_ms) <= RTT_MS_MAX)
    }
}

impl Observing {
    /// Starts, with nothing to look at. `changed` is called when a vote has changed.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(changed: impl Fn() + Send + 'static) -> std::io::Result<Observing> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (targets, looked_at) = watch::channel(Targets::default());
        let looked: Arc<Mutex<HashMap<IpAddr, Looked>>> = Arc::default();
        let (noted, started) = (Arc::clone(&looked), Instant::now());
        std::thread::Builder::new().name("observe".into()).spawn(move || {
            runtime.block_on(async {
                let (seen_in, mut seen_out) = mpsc::channel::<Seen>(SEEN_MAX);
                let note = async {
                    while let Some(seen) = seen_out.recv().await {
                        let now_ms = started.elapsed().as_millis() as u64;
                        // It is looked at no longer, if it isn't there.
                        let step = |looked: &mut Looked| looked.step(seen, now_ms);
                        if noted.lock().get_mut(&seen.edge).is_some_and(step) {
                            changed();
                        }
                    }
                };
                tokio::select! {
                    () = probe_all(looked_at, seen_in) => {}
                    () = note => {}
                }
            });
        })?;
        Ok(Observing { targets, looked, started })
    }

    /// Looks at what a node of this PoP is to look at from now on. Nothing more is said of what it isn't.
    pub fn look_at(&self, routing: &Routing, pop: &str) {
        let edges = match routing.probe.kind {
            ProbeKind::Off => Vec::new(),
            _ => targets_of(routing, pop),
        };
        {
            let mut looked = self.looked.lock();
            looked.retain(|edge, _| edges.contains(edge));
            edges.iter().for_each(|edge| _ = looked.entry(*edge).or_default());
        }
        let new = Targets { edges, settings: routing.probe };
        self.targets.send_if_modified(|now| {
            let is_other = *now != new;
            *now = new;
            is_other
        });
    }

    /// What is to be said of each address; nothing by who is cut off. Round trips are said once.
    pub fn take_votes(&self) -> Vec<Vote> {
        self.take_votes_at(self.started.elapsed().as_millis() as u64)
    }

    fn take_votes_at(&self, now_ms: u64) -> Vec<Vote> {
        let mut looked = self.looked.lock();
        let down = looked.values().filter(|one| one.sight.is_down()).count();
        let is_cut_off = looked.len() > 1 && down * 2 > looked.len();
        let vote = |(edge, one): (&IpAddr, &mut Looked)| {
            let rtt_us = one.rtt_at(now_ms).map(|(rtt_us, _)| rtt_us);
            one.rtt = None;
            Vote { edge: *edge, down: one.sight.is_down(), rtt_us }
        };
        let votes = looked.iter_mut().map(vote).collect();
        if is_cut_off { Vec::new() } else { votes }
    }
}

/// The addresses that nodes of a PoP look at: of each address's other PoPs, the three that come first by a hash of both.
fn targets_of(routing: &Routing, pop: &str) -> Vec<IpAddr> {
    let weight = |edge: &IpAddr, observer: &str| {
        let mut hasher = SipHasher24::new();
        hasher.write(edge.to_string().as_bytes());
        hasher.write(observer.as_bytes());
        hasher.finish()
    };
    let Some(own) = routing.pops.iter().position(|known| *known.name == *pop) else { return Vec::new() };
    let others = routing.pops.iter().enumerate().filter(|(index, _)| *index != own);
    let edges = others.flat_map(|(index, other)| other.edges.iter().map(move |edge| (index, edge)));
    edges
        .filter(|(index, edge)| {
            let mine = weight(edge, pop);
            let before = routing.pops.iter().enumerate().filter(|(observer, other)| {
                observer != index && *observer != own && weight(edge, &other.name) < mine
            });
            before.count() < OBSERVERS
        })
        .map(|(_, edge)| *edge)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing(pops: usize) -> Routing {
        let text: String = (0..pops)
            .map(|pop| {
                format!("[[pop]]\nname = \"p{pop}\"\nlocation = [{pop}, {pop}]\nedges = [\"192.0.2.{pop}\", \"2001:db8::{pop}\"]\n")
            })
            .collect();
        let site = "[[site]]\nname = \"s\"\ndomains = \"s.example\"\norigin = \"http://o.example\"\n";
        model::Snapshot::parse_cluster(&format!("{text}{site}"), "c.toml").snapshot.unwrap().routing
    }

    /// One that probes nobody, whatever it is to look at.
    fn idle() -> Observing {
        let targets = watch::channel(Targets::default()).0;
        Observing { targets, looked: Arc::default(), started: Instant::now() }
    }

    #[test]
    fn each_address_is_looked_at_from_three_other_pops_as_far_as_there_are_any() {
        for (pops, wanted) in [(1, 0), (2, 1), (3, 2), (4, 3), (20, 3)] {
            let routing = routing(pops);
            let mut looked_at: HashMap<IpAddr, usize> = HashMap::new();
            for pop in &routing.pops {
                let targets = targets_of(&routing, &pop.name);
                assert!(targets.iter().all(|target| !pop.edges.contains(target)));
                targets.into_iter().for_each(|target| *looked_at.entry(target).or_default() += 1);
            }
            let all = routing.pops.iter().flat_map(|pop| &pop.edges);
            all.for_each(|edge| assert_eq!(looked_at.get(edge).copied().unwrap_or(0), wanted, "{pops}"));
        }
        assert!(targets_of(&routing(4), "elsewhere").is_empty());
    }

    #[test]
    fn who_is_not_to_look_any_more_says_nothing_of_what_it_saw() {
        let (observing, mut routing) = (idle(), routing(4));
        observing.look_at(&routing, "p0");
        let see = |down: bool| {
            let votes = observing.take_votes();
            assert!(!votes.is_empty() && votes.iter().any(|vote| vote.down) == down, "{votes:?}");
        };
        see(false);
        let first = |looked: &mut Looked| (0..2).for_each(|_| _ = looked.sight.step(false, 0));
        observing.looked.lock().values_mut().take(1).for_each(first);
        see(true);
        let kind = std::mem::replace(&mut routing.probe.kind, ProbeKind::Off);
        observing.look_at(&routing, "p0");
        assert!(observing.take_votes().is_empty());
        routing.probe.kind = kind;
        observing.look_at(&routing, "p0");
        see(false);
    }

    #[test]
    fn who_sees_most_down_says_nothing() {
        let observing = idle();
        observing.look_at(&routing(4), "p0");
        let all = observing.take_votes().len();
        assert!(all > 0 && observing.take_votes().iter().all(|vote| !vote.down));
        for (index, looked) in observing.looked.lock().values_mut().enumerate() {
            if index * 2 <= all {
                (0..2).for_each(|_| _ = looked.sight.step(false, 0));
            }
        }
        assert!(observing.take_votes().is_empty());
    }

    #[test]
    fn the_least_round_trip_is_said_once_and_none_that_is_old() {
        let observing = idle();
        observing.look_at(&routing(2), "p0");
        let edge: IpAddr = "192.0.2.1".parse().unwrap();
        let said = |now_ms: u64| {
            let votes = observing.take_votes_at(now_ms);
            votes.iter().find(|vote| vote.edge == edge).and_then(|vote| vote.rtt_us)
        };
        let see = |rtt_us: Option<u32>, now_ms: u64| {
            let seen = Seen { edge, good: rtt_us.is_some(), rtt_us };
            observing.looked.lock().get_mut(&edge).unwrap().step(seen, now_ms);
        };
        assert_eq!(said(0), None);
        [Some(900), None, Some(700), Some(800)].iter().for_each(|rtt_us| see(*rtt_us, 0));
        assert_eq!([said(0), said(0)], [Some(700), None]);
        see(Some(600), 0);
        assert_eq!(said(RTT_MS_MAX + 1), None, "nobody has asked for so long");
        see(Some(600), 10_000);
        see(Some(900), 10_000 + RTT_MS_MAX + 1);
        assert_eq!(said(10_000 + RTT_MS_MAX + 1), Some(900), "what is new counts");
        // What was seen before it was cut off is not said after.
        see(Some(700), 20_000);
        let all_down = |now_ms: u64| {
            let down = Seen { edge, good: false, rtt_us: None };
            for looked in observing.looked.lock().values_mut() {
                (0..2).for_each(|_| _ = looked.step(down, now_ms));
            }
        };
        all_down(20_000);
        assert!(observing.take_votes_at(20_000).is_empty());
        for at in [21_000, 22_000, 23_000, 24_000, 25_000] {
            for looked in observing.looked.lock().values_mut() {
                looked.step(Seen { edge, good: true, rtt_us: None }, at);
            }
        }
        assert!(observing.take_votes_at(25_000).iter().all(|vote| vote.rtt_us.is_none()));
    }
}
