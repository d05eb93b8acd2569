//! Purges, fills, answers of shields and owners, and edges that go and come back, all at once, over real sockets: nothing that was purged
//! is served after the receipt of the edge that is asked.
//!
//! What is done is drawn from a seed, by each actor for itself, so that a run can be had again; how what is done falls together is the
//! machine's to say. `PERIGEE_RACES=REQUESTS` asks for more than the few thousand of an ordinary run, `PERIGEE_RACES_SEED=N` begins with
//! another seed. The same orders without sockets are in `model::positions`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use model::change::What;
use parking_lot::{Mutex, RwLock};
use world::draw::Draw;
use world::edges::{CountingOrigin, Edges, Place, get, reply};

const PLACES: [Place; 5] =
    [("ams", "ams-1"), ("ams", "ams-2"), ("fra", "fra-1"), ("fra", "fra-2"), ("fra", "fra-3")];
const OBJECTS: usize = 12;
const VISITORS: usize = 6;
/// Requests of all visitors together, in an ordinary run.
const REQUESTS: usize = 4_000;

/// What is true.
#[derive(Default)]
struct Truth {
    /// What the origin gives out, by object.
    versions: [AtomicU64; OBJECTS],
    /// The oldest version that an edge may serve to who asks from now on, by edge and object.
    floors: [[AtomicU64; OBJECTS]; PLACES.len()],
    /// Where each edge is reached; absent while it is away.
    addresses: RwLock<HashMap<&'static str, SocketAddr>>,
    left: AtomicUsize,
    served: AtomicUsize,
    from_hops: AtomicUsize,
    unanswered: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

/// A purge in the journal: what it is of, and the versions that it leaves.
struct Record {
    what: What,
    floors: Vec<(usize, u64)>,
}

/// Who purges, tells edges of it, and has them go and come back.
struct Operator {
    draw: Draw,
    journal: Vec<Record>,
    /// How much of the journal each edge has put in force.
    known: [usize; PLACES.len()],
    purges: usize,
    returns: usize,
}

impl Operator {
    fn act(&mut self, edges: &mut Edges, truth: &Truth) {
        match self.draw.below(40) {
            0..=9 => self.purge(truth),
            10 => self.go_and_come_back(edges, truth),
            _ => self.tell(edges, truth),
        }
        std::thread::sleep(Duration::from_micros(self.draw.next() % 4_000));
    }

    /// The content changes, then its purge stands in the journal.
    fn purge(&mut self, truth: &Truth) {
        let object = self.draw.below(OBJECTS);
        let (what, objects) = match self.draw.below(8) {
            0 => (What::Everything, (0..OBJECTS).collect()),
            1..=3 => (What::Tag { site: Some("site".into()), tag: format!("t{}", object % 3) }, {
                (0..OBJECTS).filter(|other| other % 3 == object % 3).collect::<Vec<_>>()
            }),
            _ => {
                let url = format!("http://site.example/o/{object}");
                (What::Url { site: "site".into(), url }, vec![object])
            }
        };
        let change = |object: usize| (object, truth.versions[object].fetch_add(1, Ordering::SeqCst) + 1);
        let floors = objects.into_iter().map(change).collect();
        self.journal.push(Record { what, floors });
        self.purges += 1;
    }

    /// An edge puts some more of the journal in force, and gives its receipt.
    fn tell(&mut self, edges: &Edges, truth: &Truth) {
        let at = self.draw.below(PLACES.len());
        let left = self.journal.len() - self.known[at];
        if left == 0 {
            return;
        }
        let until = self.known[at] + 1 + self.draw.below(left);
        for record in self.known[at]..until {
            edges.purge(PLACES[at].1, record as u64 + 1, self.journal[record].what.clone(), false);
        }
        for (object, version) in self.journal[self.known[at]..until].iter().flat_map(|record| &record.floors)
        {
            truth.floors[at][*object].fetch_max(*version, Ordering::SeqCst);
        }
        self.known[at] = until;
    }

    /// An edge is killed, with all connections that it has, and begins anew with nothing stored. It knows how far it had come.
    fn go_and_come_back(&mut self, edges: &mut Edges, truth: &Truth) {
        let at = self.draw.below(PLACES.len());
        let node = PLACES[at].1;
        truth.addresses.write().remove(node);
        edges.kill(node);
        edges.begin(node);
        edges.edge(node).begins_at(self.known[at] as u64);
        truth.addresses.write().insert(node, edges.address(node));
        self.returns += 1;
    }
}

fn visit(truth: &Truth, mut draw: Draw) {
    while truth.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        let (at, object) = (draw.below(PLACES.len()), draw.below(OBJECTS));
        let node = PLACES[at].1;
        let Some(address) = truth.addresses.read().get(node).copied() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let floor = truth.floors[at][object].load(Ordering::SeqCst);
        let got = get(address, &format!("/o/{object}"), "");
        let body = String::from_utf8_lossy(&got.body);
        let version = body.split(' ').nth(1).and_then(|version| version.parse::<u64>().ok());
        match version.filter(|_| got.status == 200 && got.is_whole) {
            Some(version) => {
                truth.served.fetch_add(1, Ordering::Relaxed);
                let is_of_hop = got.cache_status().matches("; fwd=").count() > 1;
                truth.from_hops.fetch_add(usize::from(is_of_hop), Ordering::Relaxed);
                if version < floor {
                    let words =
                        format!("{node} served {object} at {version}, purged up to {floor}: {}", got.head);
                    truth.wrong.lock().push(words);
                }
            }
            // It was killed meanwhile.
            None if got.status == 0 || !got.is_whole => {
                truth.unanswered.fetch_add(1, Ordering::Relaxed);
            }
            None => truth.wrong.lock().push(format!("{node}: {} {}: {body}", got.status, got.head)),
        }
    }
}

#[test]
fn nothing_purged_is_served_after_a_receipt_however_fills_answers_and_reconnects_fall_together() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("PERIGEE_RACES_SEED").unwrap_or(7_u64);
    let requests = number("PERIGEE_RACES").map_or(REQUESTS, |requests| requests as usize);
    println!("PERIGEE_RACES_SEED={seed}");
    let truth = Arc::new(Truth { left: requests.into(), ..Truth::default() });
    let (known, answers) = (truth.clone(), AtomicU64::new(seed));
    let origin = CountingOrigin::start(move |asked, stream| {
        let object = asked.target.strip_prefix("/o/").and_then(|object| object.parse::<usize>().ok());
        let object = object.expect("only objects are asked for");
        let mut draw = Draw(answers.fetch_add(1, Ordering::Relaxed));
        // Read first and sent last: what lies between is the time in which a purge may come.
        let version = known.versions[object].load(Ordering::SeqCst);
        if draw.below(3) > 0 {
            std::thread::sleep(Duration::from_micros(draw.next() % 20_000));
        }
        let head = format!(
            "Cache-Control: max-age=3600\r\nETag: \"{version}\"\r\nSurrogate-Key: t{}\r\n",
            object % 3
        );
        reply(stream, &head, format!("{object} {version} {}", "x".repeat(2_000)).as_bytes())
    });
    let mut edges = Edges::start(&PLACES, &format!("origin = \"{}\"\nshield = \"ams\"", origin.url()));
    for (_, node) in PLACES {
        edges.edge(node).begins_at(0);
        truth.addresses.write().insert(node, edges.address(node));
    }
    let mut operator =
        Operator { draw: Draw(seed), journal: Vec::new(), known: [0; PLACES.len()], purges: 0, returns: 0 };
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..VISITORS as u64)
            .map(|visitor| {
                let draw = Draw(seed ^ (visitor + 1).wrapping_mul(0x1234_5678_9abc_def1));
                let truth = &truth;
                scope.spawn(move || visit(truth, draw))
            })
            .collect();
        while visitors.iter().any(|visitor| !visitor.is_finished()) {
            operator.act(&mut edges, &truth);
        }
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    let (served, from_hops) = (count(&truth.served), count(&truth.from_hops));
    println!(
        "{served} answers, {from_hops} by way of other edges, {} purges, {} returns, {} cut",
        operator.purges,
        operator.returns,
        count(&truth.unanswered),
    );
    let wrong = truth.wrong.lock();
    assert!(wrong.is_empty(), "seed {seed}: {} wrong, first {}", wrong.len(), wrong[0]);
    assert!(served > requests / 2 && from_hops > requests / 50, "{served} answers, {from_hops} by others");
    assert!(
        operator.purges > 10 && operator.returns > 2,
        "{} purges, {} returns",
        operator.purges,
        operator.returns
    );
}
