//! Claims and demands as tables; and many nodes at random.

use super::*;
use crate::purge::Target;

fn subject(url: u128, tags: &[u64]) -> Subject<'_> {
    Subject { site: 1, url, host: "a.example", path: "/x", tags, position: 0 }
}

fn reached(steps: &[(u64, Option<u64>)]) -> Positions {
    let mut positions = Positions::default();
    steps.iter().for_each(|(journal, own)| positions.reached(*journal, *own));
    positions
}

#[test]
fn claims_are_never_newer_and_demands_never_older_than_what_is_known() {
    let alone = Positions::default();
    assert_eq!((alone.claim(9), alone.known_from(9)), (0, NOW), "without a journal");
    let positions = reached(&[(17, Some(5)), (20, Some(6)), (21, None), (22, Some(8)), (19, Some(3))]);
    for (own, claim, from) in [(4, 0, 17), (5, 17, 17), (6, 21, 21), (7, 21, 22), (8, 22, 22), (9, 22, NOW)] {
        assert_eq!((positions.claim(own), positions.known_from(own)), (claim, from), "{own}");
    }
    assert_eq!(positions.newest(), 22);
}

#[test]
fn a_copy_is_taken_if_nothing_that_was_purged_since_matches_it() {
    let positions = reached(&[(17, Some(5)), (20, Some(6)), (22, Some(8))]);
    let mut purges = PurgeClock::default();
    purges.record(Purge { target: Target::Url { site: 1, url: 7 }, kind: Kind::Hard }, 6);
    purges.record(Purge { target: Target::Tag { site: None, tag: 3 }, kind: Kind::Soft }, 8);
    for (url, tags, claim, demand, wanted) in [
        (1, &[][..], 17, 0, Ok(9)),
        (7, &[], 17, 0, Err(20)),
        (7, &[], 19, 0, Err(20)),
        (7, &[], 20, 0, Ok(9)),
        (7, &[], NOW, 0, Ok(9)),
        (1, &[3], 20, 0, Ok(6)),
        (1, &[3], 22, 0, Ok(9)),
        (1, &[], 16, 0, Err(22)),
        (1, &[], 22, 23, Err(23)),
        (1, &[], 23, 23, Ok(9)),
        (1, &[], 22, NOW, Err(NOW)),
    ] {
        let taken = positions.accepts(&purges, &subject(url, tags), claim, demand, 9);
        assert_eq!(taken, wanted, "url {url} {tags:?}, claim {claim}, demand {demand}");
    }
    assert_eq!(positions.demands(&purges, &subject(7, &[])), 20);
    assert_eq!(positions.demands(&purges, &subject(1, &[3])), 0, "what is stale may still be taken");
}

#[test]
fn own_purges_and_changes_are_remembered_whatever_is_claimed() {
    let mut positions = reached(&[(17, Some(5))]);
    let purges = PurgeClock::default();
    assert_eq!(positions.demands(&purges, &subject(7, &[3])), 0);
    positions.changed(7);
    assert_eq!(positions.demands(&purges, &subject(7, &[])), NOW);
    assert_eq!(positions.accepts(&purges, &subject(7, &[]), 99, 0, 5), Err(NOW));
    let tag = Purge { target: Target::Tag { site: Some(1), tag: 3 }, kind: Kind::Hard };
    positions.purged_here(&[tag], 12);
    assert_eq!(positions.demands(&purges, &subject(8, &[3])), NOW);
    (100..100 + 2 * CHANGED_MAX as u128 + 2).for_each(|url| positions.changed(url));
    assert_eq!(positions.demands(&purges, &subject(7, &[])), 0, "forgotten after many others");
}

#[test]
fn what_was_forgotten_is_too_old() {
    let steps: Vec<_> = (1..=STEPS_MAX as u64 + 10).map(|step| (step * 2, Some(step))).collect();
    let positions = reached(&steps);
    let taken = |claim| positions.accepts(&PurgeClock::default(), &subject(1, &[]), claim, 0, 7);
    assert_eq!((taken(20), taken(22)), (Err(positions.newest()), Ok(7)));
}

// --- Many nodes at random ---

/// The nodes: 0 and 1 ask 2 (the owner), which asks 3 (the shield), which asks the origin.
const NEXT: [Option<usize>; 4] = [Some(2), Some(2), Some(3), None];
const URL: u128 = 7;
const TAG: u64 = 3;

/// Steps of one world, and worlds: some 100,000 interleavings of purge, fill, answer, change and restart.
const STEPS: usize = 1_000;
const WORLDS: u64 = 200;

#[derive(Default)]
struct Node {
    positions: Positions,
    purges: PurgeClock,
    own: u64,
    /// How much of the journal it has put in force.
    journal: usize,
    /// Version and own position.
    stored: Option<(u64, u64)>,
    flight: Option<usize>,
    epoch: u64,
    /// No older version may be served to who asks from now on.
    floor: u64,
}

/// Who waits for an answer.
#[derive(Clone, Copy)]
enum Waiting {
    /// A visitor, and the oldest version that may be served.
    Visitor(u64),
    /// Another node's fetch.
    Flight(usize),
}

struct Flight {
    node: usize,
    epoch: u64,
    own: u64,
    raised: u64,
    /// What was asked for, and of whom.
    demand: u64,
    sent: u64,
    to: Option<usize>,
    tries: u32,
    leader: Waiting,
    followers: Vec<(u64, Waiting)>,
}

/// What is on its way.
enum Event {
    Ask { node: usize, demand: u64, from: Waiting },
    AskOrigin { flight: usize },
    Answer { flight: usize, version: u64, claim: u64, from_origin: bool },
}

struct World {
    random: u64,
    version: u64,
    /// The version that was current when each purge was given.
    journal: Vec<u64>,
    nodes: [Node; 4],
    flights: Vec<Flight>,
    events: Vec<Event>,
    served: u64,
    from_hops: u64,
}

impl World {
    fn below(&mut self, bound: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % bound
    }

    fn step(&mut self) {
        match self.below(20) {
            0 => {
                self.version += 1;
                self.journal.push(self.version);
            }
            1..=3 => {
                let node = self.below(4);
                self.hear(node);
            }
            4 => {
                let node = self.below(4);
                self.change(node);
            }
            5 if self.below(4) == 0 => {
                let node = self.below(4);
                self.restart(node);
            }
            6..=10 => {
                let node = self.below(4);
                let from = Waiting::Visitor(self.nodes[node].floor);
                self.events.push(Event::Ask { node, demand: 0, from });
            }
            _ if !self.events.is_empty() => {
                let at = self.below(self.events.len());
                let event = self.events.swap_remove(at);
                self.happen(event);
            }
            _ => {}
        }
    }

    /// A node puts some more of the journal in force, and gives its receipt.
    fn hear(&mut self, at: usize) {
        let left = self.journal.len() - self.nodes[at].journal;
        if left == 0 {
            return;
        }
        let more = 1 + self.below(left);
        // Each record of the journal has one of the two, the same for all nodes.
        let targets = [Target::Url { site: 1, url: URL }, Target::Tag { site: Some(1), tag: TAG }];
        let node = &mut self.nodes[at];
        node.own += 1;
        for position in node.journal..node.journal + more {
            let target = targets[position % 2].clone();
            node.purges.record(Purge { target, kind: Kind::Hard }, node.own);
        }
        node.journal += more;
        node.positions.reached(node.journal as u64, Some(node.own));
        node.floor = node.floor.max(self.journal[node.journal - 1]);
    }

    /// A visitor's unsafe request changes what is there, by way of one node.
    fn change(&mut self, at: usize) {
        self.version += 1;
        let node = &mut self.nodes[at];
        node.positions.changed(URL);
        (node.stored, node.flight) = (None, None);
        node.epoch += 1;
        node.floor = self.version;
    }

    /// A node starts anew: with what was on its disk, or with nothing.
    fn restart(&mut self, at: usize) {
        let keeps = self.below(2) == 0;
        let node = &mut self.nodes[at];
        let before = std::mem::take(node);
        node.journal = before.journal;
        node.epoch = before.epoch + 1;
        node.own = before.own + 1_000;
        if keeps {
            (node.purges, node.stored) = (before.purges, before.stored);
        }
        node.positions.reached(node.journal as u64, Some(node.own));
        // What a visitor has changed is forgotten with the process; what was purged is not.
        node.floor = node.journal.checked_sub(1).map_or(0, |last| self.journal[last]);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ask { node, demand, from } => self.ask(node, demand, from),
            Event::AskOrigin { flight } => {
                let version = self.version;
                self.events.push(Event::Answer { flight, version, claim: 0, from_origin: true });
            }
            Event::Answer { flight, version, claim, from_origin } => {
                self.answer(flight, version, claim, from_origin);
            }
        }
    }

    fn is_current(&self, at: usize, own: u64) -> bool {
        self.nodes[at].purges.check(&Subject { position: own, ..subject(URL, &[TAG]) }).is_none()
    }

    fn ask(&mut self, at: usize, demand: u64, from: Waiting) {
        if let Some((version, own)) = self.nodes[at].stored {
            match self.is_current(at, own) {
                false => self.nodes[at].stored = None,
                true => {
                    let newest = own.max(self.nodes[at].purges.newest());
                    self.nodes[at].stored = Some((version, newest));
                    if !self.nodes[at].positions.lags_behind(demand) {
                        let claim = self.nodes[at].positions.claim(newest);
                        return self.tell(from, version, claim);
                    }
                }
            }
        }
        if let Some(flight) = self.nodes[at].flight {
            let Flight { own, raised, epoch, .. } = self.flights[flight];
            if epoch == self.nodes[at].epoch
                && self.is_current(at, own)
                && self.nodes[at].positions.may_follow(demand, own, raised)
            {
                return self.flights[flight].followers.push((demand, from));
            }
        }
        let node = &mut self.nodes[at];
        // Nothing is stored that would tell by which tags it may have been purged.
        let known = node.positions.demands(&node.purges, &subject(URL, &[]));
        let flight = Flight {
            node: at,
            epoch: node.epoch,
            own: node.purges.newest().max(node.own),
            raised: node.positions.raised(demand),
            demand,
            sent: demand.max(known),
            to: NEXT[at],
            tries: 0,
            leader: from,
            followers: Vec::new(),
        };
        node.flight = Some(self.flights.len());
        self.flights.push(flight);
        self.send(self.flights.len() - 1);
    }

    fn send(&mut self, flight: usize) {
        let Flight { to, sent, .. } = self.flights[flight];
        self.events.push(match to {
            Some(node) => Event::Ask { node, demand: sent, from: Waiting::Flight(flight) },
            None => Event::AskOrigin { flight },
        });
    }

    fn tell(&mut self, to: Waiting, version: u64, claim: u64) {
        match to {
            Waiting::Visitor(floor) => {
                self.served += 1;
                assert!(version >= floor, "version {version} was served after a receipt for {floor}");
            }
            Waiting::Flight(flight) => {
                self.events.push(Event::Answer { flight, version, claim, from_origin: false });
            }
        }
    }

    fn answer(&mut self, at: usize, version: u64, claim: u64, from_origin: bool) {
        let Flight { node, demand, own, raised, sent, tries, leader, epoch, .. } = self.flights[at];
        let taken = match from_origin {
            true => Ok(own),
            false => {
                let asked = &self.nodes[node];
                asked.positions.accepts(&asked.purges, &subject(URL, &[TAG]), claim, demand, own)
            }
        };
        let position = match taken {
            Ok(position) => position,
            Err(wanted) => {
                let flight = &mut self.flights[at];
                flight.tries += 1;
                // Asked again once; then passed over.
                if tries > 0 || wanted <= sent {
                    flight.to = None;
                } else {
                    flight.sent = wanted;
                }
                return self.send(at);
            }
        };
        self.from_hops += u64::from(!from_origin);
        let is_stored = epoch == self.nodes[node].epoch && self.is_current(node, position);
        if is_stored {
            self.nodes[node].stored = Some((version, position));
        }
        if self.nodes[node].flight == Some(at) {
            self.nodes[node].flight = None;
        }
        let known = self.nodes[node].positions.claim(position);
        let followers = std::mem::take(&mut self.flights[at].followers);
        self.tell(leader, version, known.max(raised));
        for (demand, follower) in followers {
            match self.is_current(node, position) {
                true => self.tell(follower, version, known.max(of_others(raised))),
                false => self.events.push(Event::Ask { node, demand, from: follower }),
            }
        }
    }
}

#[test]
fn nobody_is_served_what_was_purged_before_it_asked() {
    let (mut served, mut from_hops) = (0, 0);
    for seed in 0..WORLDS {
        let mut world = World {
            random: seed,
            version: 0,
            journal: Vec::new(),
            nodes: Default::default(),
            flights: Vec::new(),
            events: Vec::new(),
            served: 0,
            from_hops: 0,
        };
        (0..STEPS).for_each(|_| world.step());
        while let Some(event) = world.events.pop() {
            world.happen(event);
        }
        (served, from_hops) = (served + world.served, from_hops + world.from_hops);
    }
    assert!(served > 10_000 && from_hops > 5_000, "{served} visitors, {from_hops} answers of other nodes");
}
