//! How long the links between PoPs are, as edges' probes of each other say, and between which PoPs they are shorter than can be.
//!
//! Visitors are sent by where PoPs stand, and nothing else shows that a PoP stands elsewhere than the configuration says: that a probe was
//! faster than light between two places does. It is shown and told, and decides nothing: see `docs/decisions/0036`.
//!
//! Pure: `now_ms` is monotonic. Called by `server`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::Pop;
use model::routing::{EDGES_MAX, POPS_MAX};
use model::steering::Vote;
use serde_json::{Value, json};

use crate::estimate::light_ms;
use crate::observe::OBSERVERS;
use crate::table::World;

/// Of a pair, the round trips in so many ms count, and in as many before.
const WINDOW_MS: u64 = 300_000;
/// Reports that are so many ms apart tell of different moments. What stops a machine's clock while its packets travel, as a hypervisor may, makes all probes
/// of that moment too short.
const MOMENT_MS: u64 = 10_000;
/// Pairs that are kept: as many as there can be of which one probes the other. Some 30 MB; with one edge in each of a hundred PoPs, 50 KB.
const PAIRS_MAX: usize = OBSERVERS * POPS_MAX * EDGES_MAX;
/// A location is an airport or a cloud's region more often than not: the edges of a PoP may be so many km from it.
const PLACE_KM: f64 = 50.0;
/// Links that one answer shows.
const SHOWN_MAX: usize = 1_000;
/// Links of which is told at a time that they are too fast.
const TOLD_MAX: usize = 8;

/// The least of a window, and the least of its other moments.
#[derive(Clone, Copy, Debug)]
struct Least {
    rtt_us: u32,
    at_ms: u64,
    next_us: Option<u32>,
}

impl Least {
    /// The least of both.
    fn and(self, other: Least) -> Least {
        let (least, more) = if other.rtt_us < self.rtt_us { (other, self) } else { (self, other) };
        let is_apart = least.at_ms.abs_diff(more.at_ms) >= MOMENT_MS;
        let of_more = if is_apart { Some(more.rtt_us) } else { more.next_us };
        Least { next_us: least.next_us.into_iter().chain(of_more).min(), ..least }
    }
}

/// What is known of a pair: of two windows.
#[derive(Clone, Copy, Debug)]
struct Windows {
    number: u64,
    now: Least,
    before: Option<Least>,
}

impl Windows {
    fn add(&mut self, new: Least, number: u64) {
        if number == self.number {
            self.now = self.now.and(new);
        } else {
            let before = (number == self.number + 1).then_some(self.now);
            *self = Windows { number, now: new, before };
        }
    }

    fn at(self, number: u64) -> Option<Least> {
        match number - self.number {
            0 => Some(self.before.map_or(self.now, |before| self.now.and(before))),
            1 => Some(self.now),
            _ => None,
        }
    }
}

/// The links between PoPs of a world.
#[derive(Debug)]
pub(crate) struct Mesh {
    world: Arc<World>,
    /// Of each edge: an address is in one place.
    pop_of: HashMap<IpAddr, u16>,
    pairs: HashMap<[u16; 2], Windows>,
    /// Those that were too fast when they were heard last, and were told.
    told: HashSet<[u16; 2]>,
}

/// How long the link between two PoPs is.
#[derive(Clone, Debug, PartialEq)]
struct Link {
    /// The first is the one that comes first in the configuration.
    pops: [u16; 2],
    /// Of all moments but the best, so that none stands alone for it; the only one's, if there is no other.
    rtt_ms: f64,
    /// Between their locations; `None` if one has none, or a loopback address.
    km: Option<f64>,
    /// Light would be slower, by the word of two moments.
    is_too_fast: bool,
}

impl Link {
    /// Whether light would be slower, however their edges stand around their locations.
    fn beats_light(&self) -> bool {
        self.km.is_some_and(|km| self.rtt_ms < light_ms(km - 2.0 * PLACE_KM))
    }

    /// What it takes beyond what light does.
    fn beyond_ms(&self) -> f64 {
        self.rtt_ms - self.km.map_or(0.0, light_ms)
    }
}

/// The links at an instant: those that are too fast, by the most first; then those that take the longest beyond what light does.
#[derive(Debug)]
pub(crate) struct Links {
    world: Arc<World>,
    links: Vec<Link>,
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

    /// Goes on with a world in which PoPs may be others, or have other numbers: of links to another PoP nothing is known.
    pub(crate) fn move_to(&mut self, world: &Arc<World>) {
        let old = std::mem::replace(self, Mesh::new(world));
        let number = |before: &Pop| {
            let is_it = |pop: &u16| {
                let now = &world.pops[usize::from(*pop)];
                (now.location, &now.edges) == (before.location, &before.edges)
            };
            world.pop_named(&before.name).filter(is_it)
        };
        let numbers: Vec<Option<u16>> = old.world.pops.iter().map(number).collect();
        let pair = |pops: [u16; 2]| {
            let [one, other] = pops.map(|pop| numbers[usize::from(pop)]);
            let (one, other) = one.zip(other)?;
            Some([one.min(other), one.max(other)])
        };
        self.pairs =
            old.pairs.into_iter().filter_map(|(pops, windows)| Some((pair(pops)?, windows))).collect();
        self.told = old.told.into_iter().filter_map(pair).collect();
    }

    /// Takes what a node of this PoP has seen of an edge.
    pub(crate) fn take(&mut self, pop: u16, vote: &Vote, now_ms: u64) {
        let (Some(rtt_us), Some(other)) = (vote.rtt_us, self.pop_of.get(&vote.edge)) else { return };
        let (pair, number) = ([pop.min(*other), pop.max(*other)], now_ms / WINDOW_MS);
        // More than there is room for are only told by nodes that probe whom they need not.
        let has_room = self.pairs.len() < PAIRS_MAX || self.pairs.contains_key(&pair);
        if pop != *other && has_room {
            let now = Least { rtt_us, at_ms: now_ms, next_us: None };
            let new = Windows { number, now, before: None };
            self.pairs.entry(pair).and_modify(|windows| windows.add(now, number)).or_insert(new);
        }
    }

    /// Forgets what is old. Returns what is left, and what is to be told of it: sentences.
    pub(crate) fn look(&mut self, now_ms: u64) -> (Links, Vec<String>) {
        let number = now_ms / WINDOW_MS;
        self.pairs.retain(|_, windows| windows.at(number).is_some());
        // To a loopback address nothing travels: there is no distance to judge.
        let place = |pop: u16| {
            let pop = &self.world.pops[usize::from(pop)];
            pop.location.filter(|_| !pop.edges.iter().any(|edge| edge.to_canonical().is_loopback()))
        };
        let link = |(pops, windows): (&[u16; 2], &Windows)| {
            let Least { rtt_us, next_us, .. } = windows.at(number)?;
            let km = place(pops[0]).zip(place(pops[1])).map(|(one, other)| one.km(other));
            let rtt_ms = f64::from(next_us.unwrap_or(rtt_us)) / 1e3;
            let link = Link { pops: *pops, rtt_ms, km, is_too_fast: false };
            Some(Link { is_too_fast: next_us.is_some() && link.beats_light(), ..link })
        };
        let mut links: Vec<Link> = self.pairs.iter().filter_map(link).collect();
        links.sort_by(|a, b| {
            let fastest = a.beyond_ms().total_cmp(&b.beyond_ms());
            let worst = if a.is_too_fast { fastest } else { fastest.reverse() };
            b.is_too_fast.cmp(&a.is_too_fast).then(worst).then(a.pops.cmp(&b.pops))
        });
        let links = Links { world: Arc::clone(&self.world), links };
        // One that is silent for a while is told of once all the same.
        links
            .links
            .iter()
            .filter(|link| !link.beats_light())
            .for_each(|link| _ = self.told.remove(&link.pops));
        let new: Vec<&Link> = links.too_fast().filter(|link| self.told.insert(link.pops)).collect();
        let mut sentences: Vec<String> = new.iter().take(TOLD_MAX).map(|link| links.fault(link)).collect();
        if new.len() > TOLD_MAX {
            let more = new.len() - TOLD_MAX;
            sentences.push(format!("so it is with {more} more pairs of PoPs: GET /v1/mesh names them"));
        }
        (links, sentences)
    }
}

impl Links {
    /// None.
    pub(crate) fn none(world: &Arc<World>) -> Links {
        Links { world: Arc::clone(world), links: Vec::new() }
    }

    fn too_fast(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| link.is_too_fast)
    }

    /// How many are faster than light.
    pub(crate) fn too_fast_count(&self) -> usize {
        self.too_fast().count()
    }

    fn fault(&self, link: &Link) -> String {
        let [one, other] = link.pops.map(|pop| &self.world.pops[usize::from(pop)]);
        let km = link.km.unwrap_or_default();
        format!(
            "PoPs {} and {} cannot both be where their locations say (lines {} and {}): these are {:.0} km apart, for which light in glass takes {:.1} ms \
             there and back, and probes took {:.1} ms; look at both locations, at the PoPs that their nodes are enrolled in (perigee nodes) and that \
             their own files say, and whether something nearer answers for their edges (anycast, a proxy)",
            one.name,
            other.name,
            one.line,
            other.line,
            km,
            light_ms(km),
            link.rtt_ms
        )
    }

    /// As programs read it: all, or those of one PoP. `None` if there is no such PoP.
    pub(crate) fn as_json(&self, pop: Option<&str>) -> Option<Value> {
        let of = match pop {
            Some(name) => Some(self.world.pop_named(name)?),
            None => None,
        };
        let chosen = || self.links.iter().filter(|link| of.is_none_or(|pop| link.pops.contains(&pop)));
        let links = chosen().take(SHOWN_MAX).map(|link| {
            json!({
                "pops": link.pops.map(|pop| &self.world.pops[usize::from(pop)].name),
                "rtt_ms": link.rtt_ms,
                "km": link.km.map(f64::round),
                "light_ms": link.km.map(light_ms),
                "fault": link.is_too_fast.then(|| self.fault(link)),
            })
        });
        Some(json!({ "links": links.collect::<Vec<_>>(), "count": chosen().count() }))
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
        mesh.look(now_ms).0.links.iter().map(|link| (link.pops, link.rtt_ms)).collect()
    }

    /// What is seen at two moments, the latter at `now_ms`.
    fn take_twice(mesh: &mut Mesh, pop: u16, vote: &Vote, now_ms: u64) {
        [now_ms - MOMENT_MS, now_ms].iter().for_each(|at_ms| mesh.take(pop, vote, *at_ms));
    }

    #[test]
    fn a_link_is_the_least_of_both_directions_but_one_for_one_or_two_windows() {
        let mut mesh = mesh(&["FRA", "JFK"]);
        let look = |mesh: &mut Mesh, window: u64| shown(mesh, window * WINDOW_MS + 1);
        mesh.take(0, &vote("192.0.2.1", 90.0), 0);
        assert_eq!(look(&mut mesh, 0), [([0, 1], 90.0)], "there is no other");
        take_twice(&mut mesh, 1, &vote("192.0.2.0", 85.0), 20_000);
        mesh.take(0, &vote("192.0.2.1", 88.0), 30_000);
        assert_eq!(look(&mut mesh, 0), [([0, 1], 85.0)]);
        mesh.take(0, &vote("192.0.2.1", 95.0), WINDOW_MS);
        assert_eq!(look(&mut mesh, 1), [([0, 1], 85.0)]);
        assert_eq!(look(&mut mesh, 2), [([0, 1], 95.0)], "the link has become longer");
        mesh.take(0, &vote("192.0.2.1", 97.0), 2 * WINDOW_MS);
        mesh.take(0, &vote("192.0.2.1", 99.0), 4 * WINDOW_MS);
        assert_eq!(look(&mut mesh, 4), [([0, 1], 99.0)], "nothing was said in between");
        assert_eq!((look(&mut mesh, 6), mesh.pairs.len()), (vec![], 0));
    }

    #[test]
    fn what_was_seen_at_one_moment_alone_is_never_faster_than_light() {
        // A machine stood still while its probes travelled, all of them; at the border of two windows, it is one moment still.
        for began in [50_000, WINDOW_MS - 1_000] {
            let mut mesh = mesh(&["FRA", "JFK"]);
            for at_ms in (0..began).step_by(1_000) {
                mesh.take(0, &vote("192.0.2.1", 90.0), at_ms);
            }
            for (ms, later_ms) in
                [(0.3, 0), (0.1, 0), (0.2, 1_500), (90.0, 2_000), (0.2, 3_000), (90.0, 4_000)]
            {
                mesh.take(0, &vote("192.0.2.1", ms), began + later_ms);
                let (links, told) = mesh.look(began + later_ms);
                assert_eq!((links.links[0].rtt_ms, links.too_fast_count(), told.len()), (90.0, 0, 0), "{ms}");
            }
            mesh.take(0, &vote("192.0.2.1", 0.2), began + 2 * MOMENT_MS);
            assert_eq!(mesh.look(began + 2 * MOMENT_MS).1.len(), 1, "a second time is no accident");
        }
    }

    #[test]
    fn what_is_known_stays_while_pops_are_where_they_were() {
        let mut mesh = mesh(&["FRA", "JFK"]);
        take_twice(&mut mesh, 0, &vote("192.0.2.1", 0.1), MOMENT_MS);
        assert_eq!(mesh.look(MOMENT_MS).1.len(), 1);
        let moved = |mesh: &mut Mesh, change: &dyn Fn(&mut Pop)| {
            let mut pops = mesh.world.pops.clone();
            change(&mut pops[1]);
            mesh.move_to(&Arc::new(World::new(pops, Arc::new(Location::empty()))));
            let (links, told) = mesh.look(MOMENT_MS);
            assert!(told.is_empty(), "{told:?}");
            links
        };
        let links = moved(&mut mesh, &|pop| (pop.line, pop.bias_ms) = (77, 5.0));
        assert!(links.fault(&links.links[0]).contains("(lines 1 and 77)"), "{links:?}");
        for change in [
            (|pop| pop.name = "EWR".into()) as fn(&mut Pop),
            |pop| pop.location = model::routing::place("HHN"),
            |pop| pop.edges.push("192.0.2.9".parse().unwrap()),
        ] {
            let mut mesh = self::mesh(&["FRA", "JFK"]);
            take_twice(&mut mesh, 0, &vote("192.0.2.1", 90.0), MOMENT_MS);
            assert_eq!(moved(&mut mesh, &change).links, []);
        }
    }

    #[test]
    fn links_stay_when_other_pops_change_and_all_have_other_numbers() {
        for change in [
            (|pops| pops[2].edges.push("192.0.2.9".parse().unwrap())) as fn(&mut Vec<Pop>),
            |pops| pops[2].location = model::routing::place("NRT"),
            |pops| _ = pops.remove(2),
        ] {
            let mut mesh = mesh(&["FRA", "JFK", "AMS"]);
            take_twice(&mut mesh, 0, &vote("192.0.2.1", 0.1), MOMENT_MS);
            take_twice(&mut mesh, 0, &vote("192.0.2.2", 0.1), MOMENT_MS);
            assert_eq!(mesh.look(MOMENT_MS).1.len(), 2);
            let mut pops = mesh.world.pops.clone();
            change(&mut pops);
            pops.reverse();
            let jfk = pops.len() as u16 - 2;
            mesh.move_to(&Arc::new(World::new(pops, Arc::new(Location::empty()))));
            let (links, told) = mesh.look(MOMENT_MS);
            assert!(told.is_empty(), "{told:?}");
            assert_eq!(links.links.iter().map(|link| link.pops).collect::<Vec<_>>(), [[jfk, jfk + 1]]);
            assert!(links.fault(&links.links[0]).starts_with("PoPs JFK and FRA "), "{links:?}");
        }
    }

    #[test]
    fn of_loopback_addresses_nothing_is_faster_than_light() {
        let loopback: [IpAddr; 3] =
            ["127.0.0.2", "::1", "::ffff:127.0.0.2"].map(|edge| edge.parse().unwrap());
        for edge in loopback {
            let mut pops = mesh(&["FRA", "JFK"]).world.pops.clone();
            pops[1].edges = vec![edge];
            let mut mesh = Mesh::new(&Arc::new(World::new(pops, Arc::new(Location::empty()))));
            take_twice(&mut mesh, 0, &vote(&edge.to_string(), 0.1), MOMENT_MS);
            let (links, told) = mesh.look(MOMENT_MS);
            assert_eq!((links.too_fast_count(), told), (0, vec![]), "{edge}");
            assert_eq!((links.links[0].rtt_ms, links.links[0].km), (0.1, None), "{edge}");
        }
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
            take_twice(&mut mesh, 0, &vote(edge, ms), MOMENT_MS);
            let (links, told) = mesh.look(MOMENT_MS);
            assert_eq!(
                (links.too_fast_count(), told.len()),
                (usize::from(is_fault), usize::from(is_fault)),
                "{edge} {ms}"
            );
            if is_fault {
                let wanted = format!(
                    "PoPs FRA and JFK cannot both be where their locations say (lines 1 and 5): these are {fra_jfk_km:.0} km apart"
                );
                assert!(told[0].starts_with(&wanted), "{told:?}");
                assert_eq!(links.as_json(None).unwrap()["links"][0]["fault"], told[0]);
            }
            assert!(mesh.look(MOMENT_MS + 1).1.is_empty(), "a second time");
            mesh.look(3 * WINDOW_MS);
            let mut again = |ms: f64, at_ms: u64| {
                mesh.take(0, &vote(edge, ms), at_ms - MOMENT_MS);
                mesh.look(at_ms - MOMENT_MS);
                mesh.take(0, &vote(edge, ms), at_ms);
                mesh.look(at_ms).1.len()
            };
            assert_eq!(again(ms, 4 * WINDOW_MS - 1), 0, "it was silent, and is what it was");
            assert_eq!(again(200.0, 7 * WINDOW_MS - 1), 0);
            assert_eq!(again(ms, 9 * WINDOW_MS - 1), usize::from(is_fault), "it was well in between");
        }
    }

    #[test]
    fn all_links_of_a_pop_are_shown_the_impossible_first_and_then_the_longest_detours() {
        let mut mesh = mesh(&["FRA", "JFK", "AMS", "NRT"]);
        for (edge, ms) in
            [("192.0.2.1", 90.0), ("192.0.2.2", 80.0), ("192.0.2.3", 9.0), ("203.0.113.1", 12.0)]
        {
            take_twice(&mut mesh, 0, &vote(edge, ms), MOMENT_MS);
        }
        // Both cannot be, and this one by 57 ms instead of 84.
        take_twice(&mut mesh, 1, &vote("192.0.2.2", 2.0), MOMENT_MS);
        let links = mesh.look(MOMENT_MS).0;
        let names = |json: &Value| -> Vec<String> {
            json["links"]
                .as_array()
                .unwrap()
                .iter()
                .map(|link| link["pops"][1].as_str().unwrap().to_owned())
                .collect()
        };
        let all = links.as_json(None).unwrap();
        assert_eq!(names(&all), ["NRT", "AMS", "AMS", "JFK", "other"]);
        assert_eq!(all["count"], 5);
        assert_eq!((&all["links"][4]["km"], &all["links"][4]["light_ms"]), (&Value::Null, &Value::Null));
        assert_eq!(names(&links.as_json(Some("JFK")).unwrap()), ["AMS", "JFK"]);
        assert_eq!(links.as_json(Some("WAW")), None);
    }

    #[test]
    fn of_many_that_are_too_fast_some_are_named_and_the_rest_are_counted() {
        let places: Vec<&str> =
            model::routing::place_names().filter(|name| name.len() == 3).step_by(50).take(40).collect();
        let mut mesh = mesh(&places);
        for index in 1..places.len() {
            take_twice(&mut mesh, 0, &vote(&format!("192.0.2.{index}"), 0.1), MOMENT_MS);
        }
        let (links, told) = mesh.look(MOMENT_MS);
        assert!(links.too_fast_count() > 30);
        assert_eq!(told.len(), TOLD_MAX + 1);
        let more = format!("so it is with {} more pairs", links.too_fast_count() - TOLD_MAX);
        assert!(told[TOLD_MAX].starts_with(&more), "{}", told[TOLD_MAX]);
    }
}
