//! The disk tier as its callers see it, on a directory of its own.

use std::sync::Arc;

mod crash;
mod damage;
mod faults;
mod memory;
mod model;

use super::format::SEGMENTS_AT;
use super::*;
use crate::InFlight;
use crate::slots_test_key as key;

const MIB: u64 = 1 << 20;

struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("perigee-disk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }

    fn open(&self, engine: EngineKind) -> (Arc<Disks>, Opened) {
        let shelf = Arc::new(Directory::create(&self.0).unwrap());
        let (disks, mut reports) = open_all(vec![(shelf, 65 * MIB)], engine);
        (disks, reports.remove(0).unwrap())
    }
}

type Reports = Vec<Result<Opened, OpenError>>;

fn open_all(shelves: Vec<(Arc<dyn Shelf>, u64)>, engine: EngineKind) -> (Arc<Disks>, Reports) {
    let config = |(shelf, bytes)| DiskConfig { shelf, bytes, writes_per_day: 10_000_000 };
    let common = DisksConfig {
        owner: 1,
        chance: 2,
        minutes: Arc::new(|| 29_700_000),
        engine,
        in_flight: InFlight::default(),
    };
    let (disks, reports) = Disks::open(shelves.into_iter().map(config).collect(), &common);
    (Arc::new(disks), reports.into_iter().map(|report| report.1).collect())
}

fn engines() -> Vec<EngineKind> {
    if EngineKind::probe() == EngineKind::Pool {
        eprintln!("io_uring is not allowed here, so only the pool of threads is tested");
        return vec![EngineKind::Pool];
    }
    vec![EngineKind::Pool, EngineKind::Ring]
}

/// A value that says whose it is and which version, in its meta and all over its body.
fn versioned(number: u64, version: usize, len: usize) -> Draft {
    let body = pattern(number, version, len);
    Draft {
        key: key(number),
        meta: format!("{number} {version:06}").into(),
        body: vec![body.into()],
        expiry: 29_700_000 + if version.is_multiple_of(7) { 0 } else { 1000 },
        is_slice: number.is_multiple_of(3),
    }
}

fn pattern(number: u64, version: usize, len: usize) -> Vec<u8> {
    let mut bytes = (number << 40 | version as u64).to_le_bytes().repeat(len / 8 + 1);
    bytes.truncate(len);
    bytes
}

/// The version and length under a key, checked byte by byte.
async fn read(disks: &Arc<Disks>, reader: &Reader, number: u64) -> Result<Option<(usize, usize)>, Unread> {
    let Some(spot) = disks.find(key(number)) else { return Ok(None) };
    let record = reader.read(key(number), &spot, usize::MAX).await?;
    let meta = std::str::from_utf8(&record.meta).unwrap();
    let (whose, version) = meta.split_once(' ').unwrap();
    assert_eq!(whose, number.to_string());
    let version = version.parse().unwrap();
    let body = record.body().unwrap();
    assert!(*body == pattern(number, version, body.len()), "wrong bytes under key {number}");
    Ok(Some((version, body.len())))
}

/// A reader that reads on the spot.
fn reader_here(disks: &Arc<Disks>) -> Reader {
    Reader { disks: disks.clone(), engine: Some(Engine::Now) }
}

/// A future that never waits.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

/// Waits until something is so, at most for some seconds; how long it took.
fn wait_until(seconds: u64, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(seconds), "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(5));
    }
    begin.elapsed()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn body(number: u64, len: usize) -> Bytes {
    let words = (0..len.div_ceil(16) as u64).map(|at| key(number + at).to_le_bytes());
    let mut bytes: Vec<u8> = words.flatten().collect();
    bytes.truncate(len);
    bytes.into()
}

fn draft(number: u64, len: usize) -> Draft {
    let body = body(number, len);
    let cut = body.len() / 3;
    Draft {
        key: key(number),
        meta: format!("meta of {number}").into(),
        body: vec![body.slice(..cut), body.slice(cut..)],
        expiry: 29_800_000,
        is_slice: false,
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

fn length(number: u64) -> usize {
    [0, 1, 100, 5000, 65_536, 70_000, 300_000, 1 << 20][number as usize % 8]
}

async fn check(reader: &Reader, disks: &Disks, number: u64) -> bool {
    let Some(spot) = disks.lookup(key(number)) else { return false };
    let len = length(number);
    let record = reader.read(key(number), &spot, usize::MAX).await.unwrap();
    assert_eq!(record.meta, format!("meta of {number}"));
    assert_eq!(record.body().unwrap(), &body(number, len));
    let start = reader.read(key(number), &spot, 10).await.unwrap();
    for (from, to) in [(0, len), (len / 2, len), (len / 3, len / 2), (len, len)] {
        assert_eq!(reader.part(&start, from..to).await.unwrap(), body(number, len)[from..to]);
    }
    assert!(reader.part(&start, 0..len + 1).await.is_err());
    true
}

fn wait_written(disks: &Disks) {
    wait_until(20, "everything is written", || {
        disks.set.read().disks.iter().all(|disk| {
            let ledger = disk.volume.ledger.lock();
            ledger.waiting.is_empty() && ledger.removed.is_empty()
        })
    });
}

#[test]
fn what_is_put_is_read_back_by_either_engine_and_after_a_restart() {
    for engine in engines() {
        let scratch = Scratch::new(&format!("back-{engine:?}"));
        let (disks, opened) = scratch.open(engine);
        assert!(opened.is_new);
        (0..100).for_each(|number| assert!(disks.put(draft(number, length(number)))));
        wait_written(&disks);
        disks.remove(key(7));
        let check_all = |disks: &Arc<Disks>| {
            run(async {
                let reader = disks.reader();
                for number in 0..100 {
                    assert_eq!(check(&reader, disks, number).await, number != 7, "{number}");
                }
            });
        };
        check_all(&disks);
        disks.close();
        drop(disks);
        let (disks, opened) = scratch.open(engine);
        assert!(opened.had_snapshot && !opened.is_new);
        assert_eq!(opened.records, 99);
        check_all(&disks);
        disks.close();
    }
}

#[test]
fn disks_that_were_closed_are_read_on_and_can_be_opened_again_in_place() {
    let scratch = Scratch::new("reopen");
    let (disks, _) = scratch.open(EngineKind::Pool);
    (0..40).for_each(|number| assert!(disks.put(draft(number, length(number)))));
    disks.close();
    assert!(!disks.put(draft(0, length(0))), "nobody writes it, and what was there is outdated");
    disks.remove(key(1));
    let (other, _) = scratch.open(EngineKind::Pool);
    (40..80).for_each(|number| assert!(other.put(draft(number, length(number)))));
    let is_there = |disks: &Arc<Disks>, number| run(async { check(&disks.reader(), disks, number).await });
    for number in 0..80 {
        assert_eq!(is_there(&disks, number), (2..40).contains(&number), "closed: {number}");
    }
    other.close();
    let shelf = Arc::new(Directory::create(&scratch.0).unwrap());
    let config = DiskConfig { shelf, bytes: 65 * MIB, writes_per_day: 10_000_000 };
    let common = DisksConfig {
        owner: 1,
        chance: 3,
        minutes: Arc::new(|| 29_700_000),
        engine: EngineKind::Pool,
        in_flight: InFlight::default(),
    };
    let reports = disks.reopen(vec![config], &common);
    assert!(!reports[0].1.as_ref().unwrap().is_new);
    for number in 0..80 {
        assert_eq!(is_there(&disks, number), number >= 2, "opened again: {number}");
    }
    assert!(disks.put(draft(100, length(100))));
    wait_written(&disks);
    assert!(is_there(&disks, 100));
    disks.close();
}

#[test]
fn what_memory_answers_for_is_still_on_disk_after_it_was_written_over_twice() {
    let scratch = Scratch::new("keep");
    let (disks, _) = scratch.open(EngineKind::Pool);
    let [in_memory, cold] = [key(1), key(2)];
    disks.keep(move |key| key == in_memory);
    assert!(disks.put(draft(1, 5000)) && disks.put(draft(2, 5000)));
    for number in 10..160 {
        wait_until(20, "the queue to have room", || disks.put(draft(number, 1 << 20)));
        if number % 20 == 0 {
            wait_written(&disks);
        }
    }
    wait_written(&disks);
    let stats = disks.stats();
    assert!(disks.find(in_memory).is_some(), "{stats:?}");
    assert!(disks.find(cold).is_none(), "{stats:?}");
    disks.close();
}

#[test]
fn a_disk_whose_last_user_is_about_to_end_is_waited_for() {
    let scratch = Scratch::new("lock");
    let (disks, _) = scratch.open(EngineKind::Pool);
    let wait = std::thread::spawn({
        let disks = disks.clone();
        move || {
            std::thread::sleep(Duration::from_millis(200));
            disks.close();
        }
    });
    let (again, opened) = scratch.open(EngineKind::Pool);
    assert!(!opened.is_new);
    wait.join().unwrap();
    again.close();
}
