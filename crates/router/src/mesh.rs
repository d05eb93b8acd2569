//! How long the ways between PoPs are, as edges' probes of each other say, and between which PoPs they are shorter than can be.
//!
//! Visitors are sent by where PoPs stand, and nothing else shows that a PoP stands elsewhere than the configuration says: that a probe was
//! faster than light between two places does. It is shown and told, and decides nothing: see `docs/decisions/0036`.
//!
//! Pure: `now_ms` is monotonic. Called by `server`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::routing::{EDGES_MAX, POPS_MAX};
use model::steering::Vote;
use serde_json::{Value, json};

use crate::estimate::light_ms;
use crate::observe::OBSERVERS;
use crate::table::World;

/// Of a pair, the least round trip in so many ms counts, and in as many before.
const WINDOW_MS: u64 = 300_000;
/// Pairs that are kept: as many as there can be of which one probes the other. Some 10 MB; with one edge in each of a hundred PoPs, 20 KB.
const PAIRS_MAX: usize = OBSERVERS * POPS_MAX * EDGES_MAX;
/// A location is an airport or a cloud's region more often than not: the edges of a PoP may be so many km from it.
const PLACE_KM: f64 = 50.0;
/// Ways that one answer shows.
const SHOWN_MAX: usize = 1_000;
/// Ways of which is told at a time that they are too fast.
const TOLD_MAX: usize = 8;

/// The least of two windows.
#[derive(Clone, Copy, Debug)]
struct Least {
    window: u64,
    rtt_us: u32,
    /// Of the window before.
    before_us: Option<u32>,
}

impl Least {
    fn add(&mut self, rtt_us: u32, window: u64) {
        if window == self.window {
            self.rtt_us = self.rtt_us.min(rtt_us);
        } else {
            let before_us = (window == self.window + 1).then_some(self.rtt_us);
            *self = Least { window, rtt_us, before_us };
        }
    }

    fn at(self, window: u64) -> Option<u32> {
        match window - self.window {
            0 => Some(self.before_us.map_or(self.rtt_us, |before_us| before_us.min(self.rtt_us))),
            1 => Some(self.rtt_us),
            _ => None,
        }
    }
}

/// The ways between PoPs of a world.
#[derive(Debug)]
pub(crate) struct Mesh {
    world: Arc<World>,
    /// Of each edge: an address is in one place.
    pop_of: HashMap<IpAddr, u16>,
    pairs: HashMap<[u16; 2], Least>,
    /// Those that are too fast, and were told.
    told: HashSet<[u16; 2]>,
}

/// How long the way between two PoPs is.
#[derive(Clone, Debug, PartialEq)]
struct Way {
    /// The first is the one that comes first in the configuration.
    pops: [u16; 2],
    rtt_ms: f64,
    /// Between their locations; `None` if one has none.
    km: Option<f64>,
}

impl Way {
    /// The least that it can take.
    fn light_ms(&self) -> f64 {
        light_ms(self.km.unwrap_or(0.0), 0.0)
    }

    fn is_too_fast(&self) -> bool {
        self.rtt_ms < light_ms(self.km.unwrap_or(0.0), 2.0 * PLACE_KM)
    }
}

/// The ways at an instant: those that are too fast, then those that take the longest beyond what light does.
#[derive(Debug)]
pub(crate) struct Ways {
    world: Arc<World>,
    ways: Vec<Way>,
}

impl Mesh {
    /// Of which nothing is known yet.
    pub(crate) fn new(world: &Arc<World>) -> Mesh {
        let pops = world.pops.iter().enumerate();
        let pop_of = pops.flat_map(|(index, pop)| pop.edges.iter().map(move |edge| (*edge, index as u16)));
        Mesh {
            world: Arc::clone(world),
            pop_of: pop_of.collect(),
            pairs: HashMap::new(),
            told: HashSet::new(),
        }
    }

    /// Takes what a node of this PoP has seen of an edge.
    pub(crate) fn take(&mut self, pop: u16, vote: &Vote, now_ms: u64) {
        let (Some(rtt_us), Some(other)) = (vote.rtt_us, self.pop_of.get(&vote.edge)) else { return };
        let (pair, window) = ([pop.min(*other), pop.max(*other)], now_ms / WINDOW_MS);
        // More than there is room for are only told by nodes that probe whom they need not.
        let has_room = self.pairs.len() < PAIRS_MAX || self.pairs.contains_key(&pair);
        if pop != *other && has_room {
            let new = Least { window, rtt_us, before_us: None };
            self.pairs.entry(pair).and_modify(|least| least.add(rtt_us, window)).or_insert(new);
        }
    }

    /// Forgets what is old. Returns what is left, and what is to be told of it: sentences.
    pub(crate) fn look(&mut self, now_ms: u64) -> (Ways, Vec<String>) {
        let window = now_ms / WINDOW_MS;
        self.pairs.retain(|_, least| least.at(window).is_some());
        let place = |pop: u16| self.world.pops[usize::from(pop)].location;
        let way = |(pops, least): (&[u16; 2], &Least)| {
            let km = place(pops[0]).zip(place(pops[1])).map(|(one, other)| one.km(other));
            Some(Way { pops: *pops, rtt_ms: f64::from(least.at(window)?) / 1e3, km })
        };
        let mut ways: Vec<Way> = self.pairs.iter().filter_map(way).collect();
        let beyond_ms = |way: &Way| way.rtt_ms - way.light_ms();
        ways.sort_by(|a, b| {
            let slowest = beyond_ms(b).total_cmp(&beyond_ms(a));
            b.is_too_fast().cmp(&a.is_too_fast()).then(slowest).then(a.pops.cmp(&b.pops))
        });
        let ways = Ways { world: Arc::clone(&self.world), ways };
        let too_fast: HashSet<[u16; 2]> = ways.too_fast().map(|way| way.pops).collect();
        let new: Vec<&Way> = ways.too_fast().filter(|way| !self.told.contains(&way.pops)).collect();
        let mut sentences: Vec<String> = new.iter().take(TOLD_MAX).map(|way| ways.fault(way)).collect();
        if new.len() > TOLD_MAX {
            let more = new.len() - TOLD_MAX;
            sentences.push(format!("so it is with {more} more pairs of PoPs: GET /v1/mesh names them"));
        }
        self.told = too_fast;
        (ways, sentences)
    }
}

impl Ways {
    /// None.
    pub(crate) fn none(world: &Arc<World>) -> Ways {
        Ways { world: Arc::clone(world), ways: Vec::new() }
    }

    fn too_fast(&self) -> impl Iterator<Item = &Way> {
        self.ways.iter().filter(|way| way.is_too_fast())
    }

    /// How many are faster than light.
    pub(crate) fn too_fast_count(&self) -> usize {
        self.too_fast().count()
    }

    fn fault(&self, way: &Way) -> String {
        let [one, other] = way.pops.map(|pop| &self.world.pops[usize::from(pop)]);
        format!(
            "PoPs {} and {} cannot both be where their locations say (lines {} and {}): these are {:.0} km apart, for which light in glass takes {:.1} ms \
             there and back, and probes took {:.1} ms; look at both locations, at the pop in the own files of their nodes, and whether something \
             nearer answers for their edges (anycast, a proxy)",
            one.name,
            other.name,
            one.line,
            other.line,
            way.km.unwrap_or_default(),
            way.light_ms(),
            way.rtt_ms
        )
    }

    /// As programs read it: all, or those of one PoP. `None` if there is no such PoP.
    pub(crate) fn as_json(&self, pop: Option<&str>) -> Option<Value> {
        let named = |name: &str| self.world.pops.iter().position(|pop| *pop.name == *name);
        let of = match pop {
            Some(name) => Some(named(name)? as u16),
            None => None,
        };
        let chosen = || self.ways.iter().filter(|way| of.is_none_or(|pop| way.pops.contains(&pop)));
        let ways = chosen().take(SHOWN_MAX).map(|way| {
            let known = way.km.is_some();
            json!({
                "pops": way.pops.map(|pop| &self.world.pops[usize::from(pop)].name),
                "rtt_ms": way.rtt_ms,
                "km": way.km.map(f64::round),
                "light_ms": known.then(|| way.light_ms()),
                "fault": way.is_too_fast().then(|| self.fault(way)),
            })
        });
        Some(json!({ "ways": ways.collect::<Vec<_>>(), "count": chosen().count() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Location;

    /// PoPs at airports of these names, and another CDN.
    fn mesh(places: &[&str]) -> Mesh {
        let pop = |(index, place): (usize, &&str)| {
            format!("[[pop]]\nname = \"{place}\"\nlocation = \"{place}\"\nedges = [\"192.0.2.{index}\"]\n")
        };
        let pops: String = places.iter().enumerate().map(pop).collect();
        let more = "[[pop]]\nname = \"other\"\ncname = \"shop.example\"\nedges = [\"203.0.113.1\"]\n\
             [[site]]\nname = \"s\"\ndomains = \"s.example\"\norigin = \"http://o.example\"\n";
        let parsed = model::Snapshot::parse_cluster(&format!("{pops}{more}"), "c.toml");
        let snapshot = parsed.snapshot.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        Mesh::new(&Arc::new(World::new(snapshot.routing.pops, Arc::new(Location::empty()))))
    }

    fn vote(edge: &str, ms: f64) -> Vote {
        Vote { edge: edge.parse().unwrap(), down: false, rtt_us: Some((ms * 1e3) as u32) }
    }

    fn shown(mesh: &mut Mesh, now_ms: u64) -> Vec<([u16; 2], f64)> {
        mesh.look(now_ms).0.ways.iter().map(|way| (way.pops, way.rtt_ms)).collect()
    }

    #[test]
    fn a_way_is_the_least_of_both_directions_for_one_or_two_windows() {
        let mut mesh = mesh(&["FRA", "JFK"]);
        let look = |mesh: &mut Mesh, window: u64| shown(mesh, window * WINDOW_MS + 1);
        mesh.take(0, &vote("192.0.2.1", 90.0), 0);
        mesh.take(1, &vote("192.0.2.0", 85.0), 10);
        mesh.take(0, &vote("192.0.2.1", 88.0), 20);
        assert_eq!(look(&mut mesh, 0), [([0, 1], 85.0)]);
        mesh.take(0, &vote("192.0.2.1", 95.0), WINDOW_MS);
        assert_eq!(look(&mut mesh, 1), [([0, 1], 85.0)]);
        assert_eq!(look(&mut mesh, 2), [([0, 1], 95.0)], "the way has become longer");
        mesh.take(0, &vote("192.0.2.1", 97.0), 2 * WINDOW_MS);
        mesh.take(0, &vote("192.0.2.1", 99.0), 4 * WINDOW_MS);
        assert_eq!(look(&mut mesh, 4), [([0, 1], 99.0)], "nothing was said in between");
        assert_eq!((look(&mut mesh, 6), mesh.pairs.len()), (vec![], 0));
    }

    #[test]
    fn what_says_nothing_of_two_pops_is_left_out() {
        let mut mesh = mesh(&["FRA", "JFK"]);
        let silent = Vote { rtt_us: None, ..vote("192.0.2.1", 0.0) };
        for (pop, vote) in [(0, silent), (0, vote("192.0.2.0", 1.0)), (0, vote("192.0.2.99", 1.0))] {
            mesh.take(pop, &vote, 0);
            assert_eq!(shown(&mut mesh, 0), [], "{vote:?}");
        }
    }

    #[test]
    fn what_is_faster_than_light_is_told_once_with_both_places() {
        let fra_jfk_km = model::routing::place("FRA").unwrap().km(model::routing::place("JFK").unwrap());
        let least_ms = (fra_jfk_km - 100.0) / 100.0;
        // From FRA: to whom, ms, and whether that can't be.
        for (edge, ms, is_fault) in [
            ("192.0.2.1", least_ms + 0.1, false),
            ("192.0.2.1", least_ms - 0.1, true),
            ("192.0.2.2", 0.1, false),
            ("203.0.113.1", 0.1, false),
        ] {
            let mut mesh = mesh(&["FRA", "JFK", "HHN"]);
            mesh.take(0, &vote(edge, ms), 0);
            let (ways, told) = mesh.look(1);
            assert_eq!(
                (ways.too_fast_count(), told.len()),
                (usize::from(is_fault), usize::from(is_fault)),
                "{edge} {ms}"
            );
            if is_fault {
                let wanted = format!(
                    "PoPs FRA and JFK cannot both be where their locations say (lines 1 and 5): these are {fra_jfk_km:.0} km apart"
                );
                assert!(told[0].starts_with(&wanted), "{told:?}");
                assert_eq!(ways.as_json(None).unwrap()["ways"][0]["fault"], told[0]);
            }
            assert!(mesh.look(2).1.is_empty(), "a second time");
            mesh.look(3 * WINDOW_MS);
            mesh.take(0, &vote(edge, ms), 3 * WINDOW_MS);
            assert_eq!(mesh.look(3 * WINDOW_MS).1.len(), usize::from(is_fault), "it was gone");
        }
    }

    #[test]
    fn all_ways_of_a_pop_are_shown_the_impossible_first_and_then_the_longest_ways_around() {
        let mut mesh = mesh(&["FRA", "JFK", "AMS", "NRT"]);
        for (edge, ms) in
            [("192.0.2.1", 90.0), ("192.0.2.2", 80.0), ("192.0.2.3", 9.0), ("203.0.113.1", 12.0)]
        {
            mesh.take(0, &vote(edge, ms), 0);
        }
        mesh.take(1, &vote("192.0.2.2", 81.0), 0);
        let ways = mesh.look(0).0;
        let names = |json: &Value| -> Vec<String> {
            json["ways"]
                .as_array()
                .unwrap()
                .iter()
                .map(|way| way["pops"][1].as_str().unwrap().to_owned())
                .collect()
        };
        let all = ways.as_json(None).unwrap();
        assert_eq!(names(&all), ["NRT", "AMS", "JFK", "AMS", "other"]);
        assert_eq!(all["count"], 5);
        assert_eq!((&all["ways"][4]["km"], &all["ways"][4]["light_ms"]), (&Value::Null, &Value::Null));
        assert_eq!(names(&ways.as_json(Some("JFK")).unwrap()), ["JFK", "AMS"]);
        assert_eq!(ways.as_json(Some("WAW")), None);
    }

    #[test]
    fn of_many_that_are_too_fast_some_are_named_and_the_rest_are_counted() {
        let places: Vec<&str> =
            model::routing::place_names().filter(|name| name.len() == 3).step_by(50).take(40).collect();
        let mut mesh = mesh(&places);
        for index in 1..places.len() {
            mesh.take(0, &vote(&format!("192.0.2.{index}"), 0.1), 0);
        }
        let (ways, told) = mesh.look(0);
        assert!(ways.too_fast_count() > 30);
        assert_eq!(told.len(), TOLD_MAX + 1);
        let more = format!("so it is with {} more pairs", ways.too_fast_count() - TOLD_MAX);
        assert!(told[TOLD_MAX].starts_with(&more), "{}", told[TOLD_MAX]);
    }
}
