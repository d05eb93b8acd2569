//! Hit ratios of the policies: on real traces against published figures, and on synthetic traffic in which small
//! objects are asked for more often.
//!
//! The traces are not part of the repository: 32-bit big-endian object numbers, one per access, in
//! `$PERIGEE_TRACES/web07.trace.xz` and `web12.trace.xz`, by default in `../shared/traces` beside the repository.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Command;

use store::{Policy, Tier, TierConfig, Weigh};

/// An object that is nothing but its weight.
#[derive(Clone)]
struct Object(usize);

impl Weigh for Object {
    fn bytes(&self) -> usize {
        self.0
    }
}

const ENTRY: usize = Tier::<Object>::ENTRY_BYTES;

/// Object and byte hit ratio of `requests` (object number, size) in a tier with `room` bytes beside its fixed part.
fn play(requests: &[(u32, usize)], policy: Policy, shards: usize, room: usize, fraction: f64) -> (f64, f64) {
    let config = TierConfig { bytes_max: 0, policy, shards: Some(shards), object_max_fraction: fraction };
    let tier = Tier::new(config);
    tier.resize(tier.stats().bytes as usize + room);
    let (mut hits, mut hit_bytes, mut bytes) = (0, 0, 0);
    for (object, size) in requests {
        let key = spread(*object);
        bytes += size;
        if tier.lookup(key).is_some() {
            hits += 1;
            hit_bytes += size;
        } else {
            let _ = tier.insert(key, Object(*size));
        }
    }
    (f64::from(hits) / requests.len() as f64, hit_bytes as f64 / bytes as f64)
}

/// A uniform key per object number.
fn spread(object: u32) -> u128 {
    u128::from(mix(u64::from(object) * 2 + 1)) << 64 | u128::from(mix(u64::from(object) * 2 + 2))
}

fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

// --- Real traces ---

/// The trace, or `None` with a message that says what is missing.
fn load(name: &str) -> Option<Vec<(u32, usize)>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces");
    let path = std::env::var_os("PERIGEE_TRACES").map_or_else(beside, PathBuf::from).join(name);
    if !path.exists() {
        eprintln!("skipped: no trace at {} (set PERIGEE_TRACES)", path.display());
        return None;
    }
    let Ok(output) = Command::new("xz").arg("-dc").arg(&path).output() else {
        eprintln!("skipped: the command xz is not installed");
        return None;
    };
    assert!(output.status.success(), "xz cannot read {}", path.display());
    let numbers = output.stdout.chunks_exact(4);
    Some(numbers.map(|b| (u32::from_be_bytes([b[0], b[1], b[2], b[3]]), 1000)).collect())
}

/// Checks the object hit ratio with room for 1 % and 10 % of the objects, with one shard and with sixteen.
fn check_trace(name: &str, expected: [(Policy, [f64; 2]); 4]) {
    let Some(requests) = load(name) else { return };
    let objects = requests.iter().map(|(object, _)| object).collect::<HashSet<_>>().len();
    for (policy, ratios) in expected {
        for (share, wanted) in [100, 10].into_iter().zip(ratios) {
            for shards in [1, 16] {
                let (ratio, _) = play(&requests, policy, shards, objects / share * (1000 + ENTRY), 1.0);
                assert!(
                    (ratio - wanted).abs() < 0.012,
                    "{name}, {policy:?}, 1/{share} of the objects, {shards} shards: {ratio:.3}, published {wanted}"
                );
            }
        }
    }
}

#[test]
fn hit_ratios_on_web07_are_the_published_ones() {
    check_trace(
        "web07.trace.xz",
        [
            (Policy::Lru, [0.392, 0.557]),
            (Policy::Sieve, [0.423, 0.579]),
            (Policy::S3Fifo, [0.432, 0.584]),
            (Policy::Lgdsf { e: 1.0 }, [0.439, 0.583]),
        ],
    );
}

#[test]
fn hit_ratios_on_web12_are_the_published_ones() {
    check_trace(
        "web12.trace.xz",
        [
            (Policy::Lru, [0.397, 0.685]),
            (Policy::Sieve, [0.409, 0.717]),
            (Policy::S3Fifo, [0.413, 0.719]),
            (Policy::Lgdsf { e: 1.0 }, [0.441, 0.726]),
        ],
    );
}

// --- Synthetic traffic ---

/// Requests whose popularity falls like 1 / rank^0.9, but for a quarter of the requests whose objects are asked for
/// once; sizes log-normal
/// with a median that grows from 4 KiB for the popular to `growth` times as much for the rare, up to 16 MB.
fn synthetic(count: u32, growth: f64) -> Vec<(u32, usize)> {
    const OBJECTS: u32 = 40_000;
    let unit = |seed: u64| (mix(seed) >> 11) as f64 / (1u64 << 53) as f64;
    let weights = (1..=OBJECTS).scan(0.0, |sum, rank| {
        *sum += f64::from(rank).powf(-0.9);
        Some(*sum)
    });
    let cumulated: Vec<f64> = weights.collect();
    let mut sizes = HashMap::new();
    let mut size_of = |object: u32| {
        *sizes.entry(object).or_insert_with(|| {
            let rareness = f64::from(object.min(OBJECTS) + 1).ln() / f64::from(OBJECTS).ln();
            // The sum of twelve uniform numbers is close to normal.
            let normal: f64 = (0..12).map(|i| unit(u64::from(object) << 8 | i)).sum::<f64>() - 6.0;
            (4096.0 * growth.powf(rareness) * (1.6 * normal).exp()).clamp(100.0, 16e6) as usize
        })
    };
    (0..count)
        .map(|step| {
            let random = unit(u64::from(step) << 32 | 7);
            let object = if step % 4 == 0 {
                OBJECTS + step
            } else {
                cumulated.partition_point(|sum| *sum < random * cumulated[OBJECTS as usize - 1]) as u32
            };
            (object, size_of(object))
        })
        .collect()
}

/// Object and byte hit ratios with room for a thirtieth of all bytes, in the order of `POLICIES`.
fn compare(growth: f64) -> [(f64, f64); 6] {
    const POLICIES: [Policy; 6] = [
        Policy::Lru,
        Policy::Sieve,
        Policy::S3Fifo,
        Policy::Lgdsf { e: 1.0 },
        Policy::Lgdsf { e: 0.5 },
        Policy::Lgdsf { e: 0.0 },
    ];
    let requests = synthetic(150_000, growth);
    let footprint: usize = requests.iter().copied().collect::<HashMap<_, _>>().values().sum();
    POLICIES.map(|policy| {
        let (objects, bytes) = play(&requests, policy, 16, footprint / 30, 0.02);
        println!("{policy:?}: {objects:.3} of the requests, {bytes:.3} of the bytes");
        (objects, bytes)
    })
}

#[test]
fn lgdsf_serves_more_requests_than_the_others_when_small_objects_are_popular() {
    let [lru, sieve, s3fifo, e1, e05, e0] = compare(16.0);
    assert!(e1.0 > lru.0 + 0.1 && e1.0 > sieve.0 + 0.05 && e1.0 > s3fifo.0 + 0.05);
    assert!(e1.0 > e05.0 && e05.0 > e0.0 && e0.0 > lru.0, "e orders the share of requests");
    assert!(e1.1 > lru.1 && e05.1 > lru.1 && e0.1 > lru.1, "no bytes are given up against LRU");
}

#[test]
fn a_smaller_e_serves_more_bytes_when_size_says_nothing_about_popularity() {
    let [lru, _, _, e1, e05, e0] = compare(1.0);
    assert!(e0.1 > e05.1 && e05.1 > e1.1 && e1.1 > lru.1);
    assert!(e1.0 > e05.0 && e05.0 > e0.0 && e0.0 > lru.0);
}
