//! Several edges as one cache: which node of a PoP answers for a key, which keys are asked for so often that one node should
//! not have to, and through which PoPs a site's origin is asked. Values and functions; the edge's `tiers` asks by them.
//!
//! ```text
//! key ── weighted rendezvous ──► order of the PoP's nodes: the owner, who stands in for it, …
//!   └─── sketch of misses ─────► hot: either of the first two, whoever has less to do, and a copy with whoever asked
//! ```
//!
//! All nodes of a PoP come to the same order from the same configuration, without a word between them. When a node goes, its
//! keys go to as many others as there are, and nobody else's move.

use std::net::SocketAddr;

use crate::mix64;

/// Nodes of one PoP that share their caches. More than this find each other by connections that cost more than they bring:
/// each worker has one to each node.
pub const NODES_MAX: usize = 64;

/// What a node's share of its PoP's keys may be, in relation to the others'.
pub const WEIGHT: crate::settings::Bound<u32> = crate::settings::bound(1, 1, 100);

/// PoPs that a site may name as its shield, one after the other. What none of three answers, the origin does.
pub const SHIELDS_MAX: usize = 3;

/// One edge of a PoP, as the others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, which its certificate shows: that of `node` in its own file.
    pub name: Box<str>,
    /// Where the others reach it.
    pub address: SocketAddr,
    /// [`WEIGHT`].
    pub weight: u32,
}

/// Through which PoPs a site's origin is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shield {
    /// Names of the PoPs that ask so, and of regions; every one when empty.
    pub from: Vec<Box<str>>,
    /// PoPs to ask, the first that answers: at most [`SHIELDS_MAX`].
    pub pops: Vec<Box<str>>,
}

// --- Owners ---

/// The nodes of a PoP in the order in which they answer for a key, as indices: the owner first. Weighted rendezvous hashing
/// (the score `-weight / ln(h)`, with `h` drawn evenly from key and name): a node's share of all keys is its share of all weights.
///
/// `key`: a hash that all nodes compute alike. Allocates the order; [`NODES_MAX`] nodes cost about a µs.
pub fn rank(key: u64, nodes: &[Node]) -> Vec<usize> {
    let score = |node: &Node| -f64::from(node.weight) / drawn(key, &node.name).ln();
    let mut scored: Vec<(f64, usize)> =
        nodes.iter().enumerate().map(|(index, node)| (score(node), index)).collect();
    scored.sort_by(|one, other| other.0.total_cmp(&one.0));
    scored.into_iter().map(|(_, index)| index).collect()
}

/// A number between 0 and 1, drawn from a key and a name.
fn drawn(key: u64, name: &str) -> f64 {
    // FNV-1a tells names apart; the mixer of SplitMix64 makes each bit depend on all.
    let name = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = mix64(key ^ mix64(name));
    ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// How much more than the mean a node may have to do before a hot key goes to the next: the bound of consistent hashing with
/// bounded loads, where 1.25 costs hardly any hits.
const LOAD_BOUND: f64 = 1.25;

/// Changes the order for a hot key: of the first two, whoever has less to do (two choices); and behind them whoever has more
/// than [`LOAD_BOUND`] times the mean, and one more. `load`: what this one has asked each node for that is not answered yet.
pub fn spread(order: &mut [usize], load: impl Fn(usize) -> u32) {
    let [first, second, ..] = *order else { return };
    if load(second) < load(first) {
        order.swap(0, 1);
    }
    let sum: u32 = order.iter().map(|index| load(*index)).sum();
    let bound = LOAD_BOUND * f64::from(sum) / order.len() as f64 + 1.0;
    if let Some(free) = order.iter().position(|index| f64::from(load(*index)) <= bound) {
        order[..=free].rotate_right(1);
    }
}

// --- Hot keys ---

/// Rows and columns of the sketch: 8 KiB. With [`WINDOW`] touches, a key is overrated by more than 6 in 1 of 100 cases.
const ROWS: usize = 4;
const COLUMNS: usize = 1024;

/// Touches after which all that came before counts half.
const WINDOW: u32 = 8192;

/// A key is hot that has at least this share of the touches that count: at most so many keys are hot at a time, so that
/// copies of them take little of what a PoP's memory holds together.
const HOT_SHARE: u32 = 256;

/// And that was touched so often at least.
const HOT_TOUCHES: u16 = 8;

/// Which keys are asked for much more often than others: a count-min sketch with conservative updates, whose counts fade.
#[derive(Clone, Debug)]
pub struct HotKeys {
    rows: Box<[[u16; COLUMNS]; ROWS]>,
    touches: u32,
}

impl Default for HotKeys {
    fn default() -> Self {
        HotKeys { rows: Box::new([[0; COLUMNS]; ROWS]), touches: 0 }
    }
}

impl HotKeys {
    /// Counts a request for a key. Constant time, but for one in [`WINDOW`] that halves all counts.
    pub fn touch(&mut self, key: u64) {
        if self.touches >= WINDOW {
            self.rows.iter_mut().flatten().for_each(|count| *count /= 2);
            self.touches /= 2;
        }
        self.touches += 1;
        let raised = self.count(key).saturating_add(1);
        for (row, column) in self.rows.iter_mut().zip(columns(key)) {
            row[column] = row[column].max(raised);
        }
    }

    /// Whether a key is hot by now.
    pub fn is_hot(&self, key: u64) -> bool {
        let count = self.count(key);
        count >= HOT_TOUCHES && u32::from(count) * HOT_SHARE >= self.touches
    }

    fn count(&self, key: u64) -> u16 {
        self.rows.iter().zip(columns(key)).map(|(row, column)| row[column]).min().unwrap_or(0)
    }
}

fn columns(key: u64) -> [usize; ROWS] {
    let mixed = mix64(key);
    std::array::from_fn(|row| (mixed >> (16 * row)) as usize % COLUMNS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(weights: &[u32]) -> Vec<Node> {
        let node = |(number, weight): (usize, &u32)| Node {
            name: format!("fra-{number}").into(),
            address: SocketAddr::from(([10, 0, 0, number as u8], 7443)),
            weight: *weight,
        };
        weights.iter().enumerate().map(node).collect()
    }

    fn shares(weights: &[u32]) -> Vec<f64> {
        let nodes = nodes(weights);
        let mut counts = vec![0.0; nodes.len()];
        (0..40_000).for_each(|key| counts[rank(key, &nodes)[0]] += 1.0 / 40_000.0);
        counts
    }

    #[test]
    fn each_node_owns_its_weights_share_of_the_keys() {
        for (weights, wanted) in [
            (&[1, 1, 1, 1][..], vec![0.25; 4]),
            (&[1, 3], vec![0.25, 0.75]),
            (&[5, 10, 5], vec![0.25, 0.5, 0.25]),
        ] {
            for (share, wanted) in shares(weights).iter().zip(&wanted) {
                assert!((share - wanted).abs() < 0.01, "{weights:?}: {:?}", shares(weights));
            }
        }
    }

    #[test]
    fn a_node_that_goes_leaves_its_keys_to_all_others_and_moves_nobody_elses() {
        let all = nodes(&[1, 1, 1, 1]);
        let mut heirs = [0; 4];
        for key in 0..10_000 {
            let order = rank(key, &all);
            let rest: Vec<Node> = all.iter().filter(|node| *node.name != *"fra-2").cloned().collect();
            let owner = &rest[rank(key, &rest)[0]].name;
            let heir = order.iter().find(|index| **index != 2).copied().unwrap();
            assert_eq!(*owner, all[heir].name, "who is asked next is who owns it without the first");
            heirs[heir] += usize::from(order[0] == 2);
        }
        assert!(heirs.iter().enumerate().all(|(node, count)| (node == 2) == (*count < 700)), "{heirs:?}");
    }

    #[test]
    fn a_hot_key_goes_to_who_has_less_to_do_and_past_who_has_too_much() {
        for (loads, wanted) in [
            ([0, 0, 0, 0], [0, 1, 2, 3]),
            ([3, 2, 2, 2], [1, 0, 2, 3]),
            ([2, 3, 2, 2], [0, 1, 2, 3]),
            ([9, 9, 1, 1], [2, 0, 1, 3]),
        ] {
            let mut order = [0, 1, 2, 3];
            spread(&mut order, |node| loads[node]);
            assert_eq!(order, wanted, "{loads:?}");
        }
        let mut alone = [0];
        spread(&mut alone, |_| 7);
        assert_eq!(alone, [0]);
    }

    #[test]
    fn what_is_asked_for_often_is_hot_and_cools_down() {
        let mut keys = HotKeys::default();
        (0..7).for_each(|_| keys.touch(1));
        assert!(!keys.is_hot(1), "seven requests are no crowd");
        keys.touch(1);
        assert!(keys.is_hot(1));
        (0..40_000).for_each(|key| keys.touch(key + 10));
        assert!(!keys.is_hot(1), "nobody has asked for it since");
        (0..20_000).for_each(|turn| keys.touch(if turn % 100 == 0 { 1 } else { turn + 100_000 }));
        assert!(keys.is_hot(1), "one request in a hundred");
        assert!(!keys.is_hot(119_999));
    }

    proptest! {
        #[test]
        fn an_order_names_each_node_once(key: u64, weights in prop::collection::vec(1_u32..=100, 0..=8)) {
            let mut order = rank(key, &nodes(&weights));
            let loads = weights.clone();
            spread(&mut order, |node| loads[node]);
            order.sort_unstable();
            prop_assert_eq!(order, (0..weights.len()).collect::<Vec<_>>());
        }
    }
}
