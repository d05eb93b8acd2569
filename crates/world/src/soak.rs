//! A whole CDN under fire: real processes, on a network of their own, with visitors who browse a shop that changes its prices and
//! purges, while its configuration is rolled out and, one after another, things are done to its processes that happen to machines.
//!
//! ```text
//! etcd ×1–3 ── control ×2 ──┬── fra: edge-1, edge-2      ┐                    ┌ routers ×2 ◄─ DNS ─┐
//!                           ├── ams: edge-3 (the shield) ├─► the shop         └──────────────── visitors
//!                           └── relay ── iad: edge-4     ┘   (origin, budget)                      │ HTTP to where they are told
//! ```
//!
//! What is watched, for each answer and after each step:
//!
//! | name | |
//! |---|---|
//! | `bytes` | every body is that of its page and version, byte for byte |
//! | `purged` | nothing that was purged is served after its receipt |
//! | `private` | nobody gets what is another's |
//! | `refused` | no edge runs a configuration that was refused |
//! | `applied` | control refuses a configuration for the errors that are in it, and takes every other |
//! | `agreement` | 5 s after what was done is over, every node has the same position and configuration |
//! | `budget` | no second has more requests at the origin than its budget says |
//! | `unanswered` | every request is answered while nothing is done to anybody, and from 35 s after a PoP was lost |
//! | `ended` | no process ends by itself |
//!
//! While a PoP is lost, requests may fail, and are counted. It takes 1 to 2 s until that is seen, and what was answered before is kept for 10 to 30 s; so PoPs lie
//! near each other here, and have spares (`spare_within`, see `docs/decisions/0037`). To be expected is an answer to all requests but those that are on their way
//! when a PoP is killed, and one or two of each visitor of a PoP that is frozen, which takes connections and is silent: 99.8 % while one is frozen, and 99.96 % over
//! seven kills, five cuts and four freezes, as seed 4711 has them in an hour. Without spares these were 99.79 %.
//!
//! Not done: wrong clocks, as Linux gives a process no wall clock of its own (plays have one, `edge::Clock`); memory limits
//! (`bench/overload.sh`); damage to etcd's and SQLite's own files; two faults at a time.
//!
//! Ctrl-C and SIGTERM end it after the step that is under way, in order: what it has started is in process groups of their own.
//!
//! What is done and when follows from the seed; what comes of it also from the machine. `perigee-world soak` runs it.

mod faults;
mod rig;
mod visitors;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::shop::{Page, Shop};

/// The host that visitors ask for.
const DOMAIN: &str = "shop.example";
/// Pages that prices stand on, and what the longest has more than 300 bytes; and large files.
const PAGES: usize = 120;
const PAGE_BYTES: usize = 40_000;
const FILES: usize = 6;
/// What the origin may be asked, by all nodes together.
const REQUESTS_PER_SECOND: usize = 80;
const SECOND: Duration = Duration::from_secs(1);
/// The header by which an answer says which configuration it was made by.
const TRIED: &str = "x-tried";
/// From then on nobody is to notice that a PoP is gone: the TTL of answers, and what it takes to see it.
const POP_FORGOTTEN: Duration = Duration::from_secs(35);
/// For how long the machine may have had no time while a request was under way that must be answered, or all had to agree.
const STALLED_MAX: Duration = Duration::from_secs(1);
/// Words that are shown at most of each kind of violation, and of requests without an answer in each step.
const SHOWN_MAX: u64 = 20;
const SAID_MAX: u64 = 4;

/// How it is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub perigee: PathBuf,
    /// What follows from chance follows from this.
    pub seed: u64,
    /// Steps begin for so long.
    pub length: Duration,
    /// And at most so many.
    pub steps_max: usize,
    /// Members of etcd; 0: one control on SQLite.
    pub etcd: usize,
    /// Visitors at a time.
    pub visitors: u64,
    /// How long what is done lasts, at most; a PoP that is lost stays so for longer than [`POP_FORGOTTEN`] unless this is shorter.
    pub hold_max: Duration,
    /// Within which all have to agree again.
    pub agree_within: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Steps that were taken.
    pub steps: usize,
    /// Requests of visitors.
    pub requests: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// What must never be, and was.
    pub violations: u64,
}

/// Does all of it, and prints what comes of it.
pub fn run(options: &Options) -> Outcome {
    // A thread of its own, as it moves to another network, with all that it starts.
    let ran = std::thread::scope(|scope| scope.spawn(|| rig::run(options)).join());
    ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

// --- What is known ---

/// An edge, as visitors know it.
#[derive(Clone, Debug)]
struct Seen {
    name: String,
    address: SocketAddr,
}

/// What is being done, as far as it matters to who wants an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing: every request is to be answered.
    Calm,
    /// Something: requests may fail.
    Disturbed,
    /// A PoP is lost since then, and nothing else is the matter.
    PopLost(Instant),
}

/// A request of a visitor that is under way.
struct Visit {
    began: Instant,
    phase: Phase,
    /// Phases that there have been.
    phases: u64,
    stalled: Duration,
}

/// What visitors, shop and those who watch have in common.
struct Watched {
    seed: u64,
    shop: Arc<Shop>,
    arrivals: Mutex<Arrivals>,
    edges: Vec<Seen>,
    routers: Vec<SocketAddr>,
    service_port: u16,
    hub: IpAddr,
    /// The oldest version that an edge may still serve, by edge and page.
    floors: Vec<Vec<AtomicU64>>,
    /// Versions whose predecessors are proven to be purged.
    proven: Vec<AtomicU64>,
    purges: AtomicU64,
    /// Configurations that nobody may run.
    refused: Mutex<BTreeSet<u64>>,
    /// Phases that there have been, and the current one.
    phase: Mutex<(u64, Phase)>,
    step: Mutex<String>,
    requests: AtomicU64,
    answered: AtomicU64,
    /// Requests while a PoP was lost, and those that were answered; and the same from [`POP_FORGOTTEN`] on.
    lost: [AtomicU64; 4],
    violations: Mutex<BTreeMap<&'static str, u64>>,
    /// Requests without an answer in this step, as far as they were told.
    said: AtomicU64,
    late_ms: AtomicU64,
    stalled_ms: AtomicU64,
    over: AtomicBool,
}

/// When the origin was asked, and by whom.
#[derive(Default)]
struct Arrivals {
    last: VecDeque<(Instant, IpAddr)>,
    /// The most within a second.
    most: usize,
}

impl Arrivals {
    /// Takes note of a request. How many came within the last second, of `SECOND - late`: a machine that is late by so much puts
    /// together what was apart.
    fn note(&mut self, now: Instant, from: IpAddr, late: Duration) -> usize {
        self.last.push_back((now, from));
        while self.last.front().is_some_and(|(first, _)| now - *first >= SECOND.saturating_sub(late)) {
            self.last.pop_front();
        }
        self.most = self.most.max(self.last.len());
        self.last.len()
    }
}

impl Watched {
    /// The origin is asked.
    fn origin_is_asked(&self, from: IpAddr) {
        let mut arrivals = self.arrivals.lock();
        let count = arrivals.note(Instant::now(), from, self.late());
        if count > REQUESTS_PER_SECOND {
            self.violation("budget", || {
                let of =
                    |edge: &Seen| arrivals.last.iter().filter(|(_, from)| *from == edge.address.ip()).count();
                let each: Vec<_> =
                    self.edges.iter().map(|edge| format!("{} {}", edge.name, of(edge))).collect();
                let each = each.join(", ");
                format!("the origin had {count} requests within a second of {REQUESTS_PER_SECOND}: {each}")
            });
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// By how much the machine has been late with what was due, lately.
    fn late(&self) -> Duration {
        Duration::from_millis(self.late_ms.load(Ordering::Relaxed))
    }

    /// For how long the machine has had no time for who watches, all in all. What takes long meanwhile says nothing.
    fn stalled(&self) -> Duration {
        Duration::from_millis(self.stalled_ms.load(Ordering::Relaxed))
    }

    fn edge_at(&self, address: IpAddr) -> Option<usize> {
        self.edges.iter().position(|edge| edge.address.ip() == address)
    }

    fn floor(&self, edge: usize, index: usize) -> u64 {
        self.floors[edge][index].load(Ordering::SeqCst)
    }

    /// From now on this edge serves nothing of a page that is older than this version.
    fn raise_floor(&self, edge: usize, index: usize, version: u64) {
        self.floors[edge][index].fetch_max(version, Ordering::SeqCst);
    }

    fn enter(&self, phase: Phase) {
        let mut now = self.phase.lock();
        *now = (now.0 + 1, phase);
    }

    /// An edge has answered by this configuration.
    fn runs(&self, edge: usize, number: u64) {
        if self.refused.lock().contains(&number) {
            let name = &self.edges[edge].name;
            self.violation("refused", || {
                format!("{name} answers by configuration {number}, which was refused")
            });
        }
    }

    /// Takes note of what must never be.
    fn violation(&self, kind: &'static str, words: impl FnOnce() -> String) {
        let count = {
            let mut violations = self.violations.lock();
            let count = violations.entry(kind).or_default();
            *count += 1;
            *count
        };
        if count <= SHOWN_MAX {
            println!("VIOLATION {kind}: {}; seed {}, {}", words(), self.seed, self.step.lock());
        }
    }

    fn violation_count(&self) -> u64 {
        self.violations.lock().values().sum()
    }

    /// Tells what a visitor complains of, a few times in each step.
    fn say(&self, words: impl FnOnce() -> String) {
        if self.said.fetch_add(1, Ordering::Relaxed) < SAID_MAX {
            println!("    {}", words());
        }
    }

    fn visit_begins(&self) -> Visit {
        let (phases, phase) = *self.phase.lock();
        Visit { began: Instant::now(), phase, phases, stalled: self.stalled() }
    }

    fn visit_ends(&self, visit: &Visit, failed: Option<&str>, page: Page) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answered = u64::from(failed.is_none());
        self.answered.fetch_add(answered, Ordering::Relaxed);
        let is_same = self.phase.lock().0 == visit.phases && self.stalled() - visit.stalled < STALLED_MAX;
        let unanswered = |when: &str| {
            if let Some(why) = failed {
                self.violation("unanswered", || format!("{} {when}: {why}", page.path()));
            }
        };
        match visit.phase {
            Phase::Disturbed => {}
            Phase::Calm if is_same => unanswered("while nothing was done"),
            Phase::Calm => {}
            Phase::PopLost(since) => {
                // What was lost with the PoP counts, whenever that is noticed.
                self.lost[0].fetch_add(1, Ordering::Relaxed);
                self.lost[1].fetch_add(answered, Ordering::Relaxed);
                let after = visit.began - since;
                if after >= POP_FORGOTTEN && is_same {
                    self.lost[2].fetch_add(1, Ordering::Relaxed);
                    self.lost[3].fetch_add(answered, Ordering::Relaxed);
                    unanswered(&format!("{:.1} s after a PoP was lost", after.as_secs_f64()));
                }
            }
        }
    }
}
