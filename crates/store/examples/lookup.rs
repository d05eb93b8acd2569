//! Prints what a lookup costs with 10^3, 10^5 and 10^7 entries: `cargo run -p store --release --example lookup`.
//! Takes about 1.5 GB at the largest. Random keys, so that every step is a cache miss when the tier is large.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use store::{Insertion, Tier, TierConfig, Weigh};

struct Object(u64);

impl Weigh for Object {
    fn bytes(&self) -> usize {
        0
    }
}

fn main() {
    for exponent in [3, 5, 6, 7] {
        let entries = 10u64.pow(exponent);
        let tier = Tier::new(TierConfig { bytes_max: 4 << 30, ..TierConfig::default() });
        let begin = Instant::now();
        let mut slowest = 0;
        for number in 0..entries {
            let insertion = Instant::now();
            assert_eq!(tier.insert(spread(number), Arc::new(Object(number))), Insertion::Inserted);
            slowest = slowest.max(insertion.elapsed().as_micros());
        }
        let filled = begin.elapsed().as_nanos() as f64 / entries as f64;
        let lookups = 2_000_000;
        // Each key depends on the value before, so that lookups don't overlap.
        let (begin, mut number) = (Instant::now(), 1u64);
        for step in 0..lookups {
            number = mix(number + step) % entries;
            number = black_box(tier.lookup(spread(number)).map_or(0, |object| object.0));
        }
        let looked = begin.elapsed().as_nanos() as f64 / lookups as f64;
        println!(
            "10^{exponent} entries: lookup {looked:>4.0} ns, insert {filled:>4.0} ns (slowest {slowest} us), {} bytes of index per entry",
            tier.stats().index_bytes / entries
        );
    }
}

/// A uniform key per number.
fn spread(number: u64) -> u128 {
    u128::from(mix(number * 2 + 1)) << 64 | u128::from(mix(number * 2 + 2))
}

fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
