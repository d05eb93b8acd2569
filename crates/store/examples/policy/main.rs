//! Prints the object and byte hit ratio of every policy, at several sizes, beside what clairvoyance could reach.
//!
//! Called by `bench/policy.sh [--quick]`. It replays generated traffic of each class (see [`traffic`]) and, where they
//! are, two real traces without sizes, through the store's own [`Tier`]; it prints a table for each, says where LGDSF
//! does not gain and what was measured there (what sort of objects is held, and what becomes of it all when objects
//! asked for once are left out of the trace), and ends with a line `RESULT key=value …`.
//!
//! A tier begins empty and everything is counted, first requests too. Its capacity is a share of the footprint: all
//! objects that the trace names with what the tier takes for each beside its bytes. The bounds are charged the same.

mod bound;
mod report;
mod traffic;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use bound::{Access, Belady, Bounds};
use report::{Column, Figures, Ratios, Report};
use store::{Policy, Tier, TierConfig, Weigh};
use traffic::Class;

const USAGE: &str = "\
Usage: bench/policy.sh [--quick]
Object and byte hit ratios of the eviction policies on generated traffic and on real traces.
  --quick   a smoke run: a tenth of the requests
The real traces web07.trace.xz and web12.trace.xz are looked for in $PERIGEE_TRACES or ../shared/traces.
";

/// Requests of the generated day, in a full and in a quick run.
const REQUESTS: u64 = 2_000_000;
const REQUESTS_QUICK: u64 = 200_000;

const SEED: u64 = 1;

/// The policies, in the order in which [`report`] names them.
const POLICIES: [Policy; 6] = [
    Policy::Lru,
    Policy::Sieve,
    Policy::S3Fifo,
    Policy::Lgdsf { e: 1.0 },
    Policy::Lgdsf { e: 0.5 },
    Policy::Lgdsf { e: 0.0 },
];

/// Bytes of every object of a trace that says nothing of sizes.
const UNIT_BYTES: u64 = 1000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let requests = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => REQUESTS,
        ["--quick"] => REQUESTS_QUICK,
        ["--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::default();
    for class in Class::ALL {
        let day =
            traffic::traffic(class, requests, SEED).take_while(|request| request.time_ms < traffic::DAY_MS);
        let accesses = day.map(|request| access(request.object, request.bytes)).collect();
        let trace = Trace { name: class.name(), accesses, is_sized: true };
        report.print(&trace.measure(&[0.001, 0.01, 0.1]), &trace.without_once().measure(&[0.01]));
    }
    for name in ["web07", "web12"] {
        match real(name) {
            Ok(accesses) => {
                let trace = Trace { name, accesses, is_sized: false };
                report.print(&trace.measure(&[0.01, 0.1]), &trace.without_once().measure(&[0.01]));
            }
            Err(reason) => println!("\nskipped: {name}: {reason}"),
        }
    }
    report.end();
    ExitCode::SUCCESS
}

// --- Traces ---

/// An object that is nothing but its size and its place in the list of objects; as large as the pointer that the edge
/// stores.
#[derive(Clone)]
struct Object {
    bytes: u32,
    place: u32,
}

impl Weigh for Object {
    fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

fn access(object: u64, bytes: u64) -> Access {
    Access { object, bytes, weight: bytes + Tier::<Object>::ENTRY_BYTES as u64 }
}

/// A real trace, or why there is none: 32-bit big-endian object numbers, one per access, compressed by xz.
fn real(name: &str) -> Result<Vec<Access>, String> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces");
    let directory = std::env::var_os("PERIGEE_TRACES").map_or_else(beside, PathBuf::from);
    let path = directory.join(format!("{name}.trace.xz"));
    if !path.exists() {
        return Err(format!("no trace at {}; PERIGEE_TRACES may name the directory", path.display()));
    }
    let output = Command::new("xz").arg("-dc").arg(&path).output().map_err(|error| format!("xz: {error}"))?;
    if !output.status.success() || output.stdout.len() < 4 {
        return Err(format!("xz cannot read {}", path.display()));
    }
    let numbers = output.stdout.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    Ok(numbers.map(|number| access(u64::from(number), UNIT_BYTES)).collect())
}

struct Trace {
    name: &'static str,
    accesses: Vec<Access>,
    is_sized: bool,
}

impl Trace {
    /// The same without the objects that are asked for once: what they cost shows in the difference.
    fn without_once(&self) -> Trace {
        let objects = Objects::of(&self.accesses);
        let kept = self.accesses.iter().zip(&objects.places);
        let kept = kept.filter(|(_, place)| objects.requests[**place as usize] > 1);
        Trace { accesses: kept.map(|(access, _)| *access).collect(), ..*self }
    }

    /// Plays the trace through every policy at every share of its footprint.
    fn measure(&self, shares: &[f64]) -> Figures {
        let objects = Objects::of(&self.accesses);
        let sum = |of: fn(&Access) -> u64| objects.firsts.iter().map(of).sum::<u64>();
        let footprint = sum(|access| access.weight);
        let bounds = Bounds::new(&self.accesses);
        let columns = shares.iter().map(|share| {
            let capacity = (footprint as f64 * share) as u64;
            let objects_max = (objects.firsts.len() as f64 * share) as usize;
            Column {
                share: *share,
                policies: POLICIES.map(|policy| play(&self.accesses, &objects, policy, capacity as usize)),
                bound: (bounds.objects(capacity), bounds.bytes(capacity)),
                belady: (!self.is_sized).then(|| Belady::objects(&self.accesses, objects_max)),
            }
        });
        let columns = columns.collect();
        Figures {
            name: self.name,
            requests: self.accesses.len() as u64,
            request_bytes: self.accesses.iter().map(|access| access.bytes).sum(),
            objects: objects.firsts.len() as u64,
            object_bytes: sum(|access| access.bytes),
            once: objects.requests.iter().filter(|count| **count == 1).count() as u64,
            is_sized: self.is_sized,
            columns,
        }
    }
}

/// The objects of a trace, listed in the order in which they are first asked for.
struct Objects {
    firsts: Vec<Access>,
    /// How often each is asked for, and when for the last time.
    requests: Vec<u32>,
    last: Vec<usize>,
    /// The place of each request's object in the lists.
    places: Vec<u32>,
}

impl Objects {
    fn of(accesses: &[Access]) -> Self {
        let (mut firsts, mut requests, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut known = HashMap::new();
        let places = accesses.iter().enumerate().map(|(now, access)| {
            let place = *known.entry(access.object).or_insert_with(|| {
                firsts.push(*access);
                requests.push(0);
                last.push(0);
                firsts.len() - 1
            });
            requests[place] += 1;
            last[place] = now;
            place as u32
        });
        let places = places.collect();
        Objects { firsts, requests, last, places }
    }
}

/// Plays requests through a tier that has `capacity` bytes beside its fixed part, and all else as by default.
fn play(accesses: &[Access], objects: &Objects, policy: Policy, capacity: usize) -> Ratios {
    let tier = Tier::new(TierConfig { bytes_max: capacity, policy, ..TierConfig::default() });
    tier.resize(capacity + tier.stats().bytes as usize);
    let (mut hits, mut hit_bytes, mut bytes) = (0u64, 0, 0);
    let (mut held, mut dead) = (Held::default(), Held::default());
    for (now, access) in accesses.iter().enumerate() {
        bytes += access.bytes;
        let key = u128::from(traffic::mix(access.object)) << 64 | u128::from(traffic::mix(!access.object));
        if tier.lookup(key).is_some() {
            hits += 1;
            hit_bytes += access.bytes;
        } else {
            let _ = tier.insert(key, Object { bytes: access.bytes as u32, place: objects.places[now] });
        }
        if is_time_to_look(now, accesses.len()) {
            tier.for_each(|_, object| {
                held.add(&object);
                if objects.last[object.place as usize] <= now {
                    dead.add(&object);
                }
            });
        }
    }
    Ratios {
        objects: hits as f64 / accesses.len() as f64,
        bytes: hit_bytes as f64 / bytes as f64,
        held_bytes_mean: held.bytes as f64 / held.objects.max(1) as f64,
        dead: dead.bytes as f64 / held.bytes.max(1) as f64,
        refused: tier.stats().refused_too_large as f64 / accesses.len() as f64,
    }
}

/// What is held is looked at five times from a quarter of the trace to its half: later, little is asked for again
/// because the trace ends.
fn is_time_to_look(now: usize, requests: usize) -> bool {
    (4..=8).any(|part| now == requests * part / 16)
}

#[derive(Default)]
struct Held {
    objects: u64,
    bytes: u64,
}

impl Held {
    fn add(&mut self, object: &Object) {
        self.objects += 1;
        self.bytes += u64::from(object.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_one_weight_the_bound_is_above_belady_and_belady_above_every_policy() {
        let requests = traffic::traffic(Class::Web, 40_000, SEED).take(40_000);
        let accesses: Vec<Access> = requests.map(|request| access(request.object, UNIT_BYTES)).collect();
        let (bounds, objects) = (Bounds::new(&accesses), Objects::of(&accesses));
        for objects_max in [60, 600, 6000] {
            let capacity = objects_max * access(0, UNIT_BYTES).weight as usize;
            let belady = Belady::objects(&accesses, objects_max);
            let bound = bounds.objects(capacity as u64);
            assert!(bound >= belady && bound < belady + 0.1, "{bound} {belady}");
            for policy in POLICIES {
                let ratios = play(&accesses, &objects, policy, capacity);
                assert!(belady >= ratios.objects && ratios.objects > 0.0, "{policy:?} {}", ratios.objects);
            }
        }
    }

    #[test]
    fn with_sizes_the_bounds_are_above_every_policy() {
        for class in [Class::Web, Class::Mix] {
            let day = traffic::traffic(class, 30_000, SEED).take(30_000);
            let accesses: Vec<Access> = day.map(|request| access(request.object, request.bytes)).collect();
            let trace = Trace { name: class.name(), accesses, is_sized: true };
            for column in trace.measure(&[0.01, 0.1]).columns {
                for ratios in column.policies {
                    assert!(column.bound.0 >= ratios.objects && column.bound.1 >= ratios.bytes, "{ratios:?}");
                }
            }
        }
    }
}
