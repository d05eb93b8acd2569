//! A PoP of four edges against one edge with the memory of all, with the code that decides in the edges: owners by
//! [`model::tiers::rank`], hot keys, and the memory tier. No sockets and no time: a seeded stream of requests.

use std::sync::Arc;

use model::tiers::{HotKeys, Node, rank};
use store::{Tier, TierConfig, Weigh};

/// Objects of 10 KiB, as many as are in four times the memory of one edge.
const OBJECT_BYTES: usize = 10 * 1024;
const MEMORY_BYTES: usize = 32 << 20;
const OBJECTS: usize = 4 * MEMORY_BYTES / OBJECT_BYTES;

/// How often is asked, to fill the caches and to count.
const WARM_UP: usize = 300_000;
const COUNTED: usize = 150_000;

struct Content;

impl Weigh for Content {
    fn bytes(&self) -> usize {
        OBJECT_BYTES
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks by Zipf's law with the exponent 0.9, by the inverse of its sums.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new() -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=OBJECTS).map(|rank| {
            sum += (rank as f64).powf(-0.9);
            sum
        });
        Zipf(sums.collect())
    }

    fn draw(&self, random: &mut Random) -> usize {
        let drawn = random.unit() * self.0[OBJECTS - 1];
        self.0.partition_point(|sum| *sum < drawn)
    }
}

struct Edge {
    memory: Tier<Arc<Content>>,
    hot: HotKeys,
    /// Requests of visitors and of other edges.
    requests: u64,
    asked: u64,
}

impl Edge {
    fn new(bytes_max: usize) -> Edge {
        let memory = Tier::new(TierConfig { bytes_max, ..TierConfig::default() });
        Edge { memory, hot: HotKeys::default(), requests: 0, asked: 0 }
    }

    fn holds(&mut self, key: u128) -> bool {
        self.requests += 1;
        self.memory.lookup(key).is_some()
    }

    fn keep(&self, key: u128) {
        let _counted = self.memory.insert(key, Arc::new(Content));
    }
}

struct Pop {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    is_up: Vec<bool>,
    misses: u64,
}

impl Pop {
    fn new() -> Pop {
        let node = |number: usize| Node {
            name: format!("fra-{number}").into(),
            address: ([10, 0, 0, number as u8], 7443).into(),
            weight: 1,
        };
        Pop {
            nodes: (0..4).map(node).collect(),
            edges: (0..4).map(|_| Edge::new(MEMORY_BYTES)).collect(),
            is_up: vec![true; 4],
            misses: 0,
        }
    }

    /// What the edges do, one request at a time.
    fn ask(&mut self, random: &mut Random, object: usize) {
        let at = loop {
            let at = random.next() as usize % 4;
            if self.is_up[at] {
                break at;
            }
        };
        // Hashed, as keys are.
        let key = Random(object as u64).next();
        if self.edges[at].holds(u128::from(key)) {
            return;
        }
        self.edges[at].hot.touch(key);
        let owner = rank(key, &self.nodes).into_iter().find(|node| self.is_up[*node]).unwrap_or(at);
        if owner != at {
            self.edges[owner].asked += 1;
        }
        if owner == at || !self.edges[owner].holds(u128::from(key)) {
            self.misses += 1;
            self.edges[owner].keep(u128::from(key));
        }
        if owner != at && self.edges[at].hot.is_hot(key) {
            self.edges[at].keep(u128::from(key));
        }
    }

    fn imbalance(&self, count: impl Fn(&Edge) -> u64) -> f64 {
        let counts: Vec<u64> = self.edges.iter().map(count).collect();
        let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        *counts.iter().max().unwrap_or(&0) as f64 / mean
    }
}

#[test]
fn four_edges_hit_as_often_as_one_with_their_memory_and_share_the_load() {
    let (zipf, mut random) = (Zipf::new(), Random(1));
    let (mut pop, mut one) = (Pop::new(), Edge::new(4 * MEMORY_BYTES));
    let mut misses_of_one = 0;
    for turn in 0..WARM_UP + COUNTED {
        if turn == WARM_UP {
            (pop.misses, misses_of_one) = (0, 0);
            pop.edges.iter_mut().for_each(|edge| (edge.requests, edge.asked) = (0, 0));
        }
        let object = zipf.draw(&mut random);
        pop.ask(&mut random, object);
        if !one.holds(object as u128) {
            misses_of_one += 1;
            one.keep(object as u128);
        }
    }
    let ratio = |misses: u64| 1.0 - misses as f64 / COUNTED as f64;
    let (of_pop, of_one) = (ratio(pop.misses), ratio(misses_of_one));
    let (load, peers) = (pop.imbalance(|edge| edge.requests), pop.imbalance(|edge| edge.asked));
    println!(
        "hit ratio {of_pop:.4} of {of_one:.4} ({:.4}); max/mean {load:.3}, of peers {peers:.3}",
        of_pop / of_one
    );
    assert!(of_pop / of_one >= 0.99, "{of_pop} of {of_one}");
    assert!(load <= 1.25 && peers <= 1.25, "max/mean {load}, of what peers ask {peers}");

    // One goes: its share of the keys is fetched again, by all others, and no more.
    pop.is_up[3] = false;
    pop.misses = 0;
    for _ in 0..COUNTED {
        let object = zipf.draw(&mut random);
        pop.ask(&mut random, object);
    }
    let lost = OBJECTS as u64 / 4;
    let more = pop.misses;
    println!("{more} misses after one of four has gone, which owned about {lost} objects");
    let steady = COUNTED as f64 * (1.0 - of_pop);
    assert!(
        (more as f64) < steady + 1.3 * lost as f64 + 0.1 * COUNTED as f64,
        "{more} misses, {lost} objects lost"
    );
}
