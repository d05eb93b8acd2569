//! Prints the object hit ratio of every policy on a trace of object numbers.
//!
//! `cargo run -p store --release --example hitratio -- FILE…`, each a file of big-endian 32-bit object numbers, one per
//! access; one ending in `.xz` is read through the `xz` command. Every object weighs the same and the tier has room for
//! 1 % and 10 % of the objects that the trace names.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;

use store::{Policy, Tier, TierConfig, Weigh};

#[derive(Clone)]
struct Unit(#[expect(dead_code, reason = "keeps the size of a real value")] Arc<u32>);

impl Weigh for Unit {
    fn bytes(&self) -> usize {
        1000
    }
}

fn main() {
    println!("{:<20} {:<12} {:>6} {:>8} {:>8}", "trace", "policy", "shards", "1 %", "10 %");
    for path in std::env::args().skip(1) {
        let bytes = match path.ends_with(".xz") {
            true => Command::new("xz").args(["-dc", &path]).output().expect("xz runs").stdout,
            false => std::fs::read(&path).expect("the trace is readable"),
        };
        let trace: Vec<u32> =
            bytes.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
        let objects = trace.iter().collect::<HashSet<_>>().len();
        let name = path.rsplit('/').next().unwrap_or_default();
        for shards in [1, 16] {
            for policy in [
                Policy::Lru,
                Policy::Sieve,
                Policy::S3Fifo,
                Policy::Lgdsf { e: 1.0 },
                Policy::Lgdsf { e: 0.5 },
                Policy::Lgdsf { e: 0.0 },
            ] {
                let ratios = [objects / 100, objects / 10].map(|room| ratio(&trace, policy, shards, room));
                println!(
                    "{name:<20} {:<12} {shards:>6} {:>8.3} {:>8.3}",
                    format!("{policy:?}").replace("Lgdsf ", "").replace(' ', ""),
                    ratios[0],
                    ratios[1]
                );
            }
        }
    }
}

fn ratio(trace: &[u32], policy: Policy, shards: usize, room: usize) -> f64 {
    let config = TierConfig { bytes_max: 1 << 40, policy, shards: Some(shards), object_max_fraction: 1.0 };
    let tier = Tier::<Unit>::new(config);
    let fixed = tier.stats().bytes as usize;
    tier.resize(fixed + room * (1000 + Tier::<Unit>::ENTRY_BYTES));
    for &object in trace {
        let key = spread(object);
        if tier.lookup(key).is_none() {
            let _ = tier.insert(key, Unit(Arc::new(object)));
        }
    }
    let stats = tier.stats();
    stats.hits as f64 / trace.len() as f64
}

/// A uniform key per object number.
fn spread(object: u32) -> u128 {
    let mix = |seed: u64| {
        let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    u128::from(mix(u64::from(object) * 2 + 1)) << 64 | u128::from(mix(u64::from(object) * 2 + 2))
}
