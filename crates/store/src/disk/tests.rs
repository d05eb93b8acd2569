//! The disk tier as its callers see it, on a directory of its own.

use std::sync::Arc;

mod crash;
mod memory;

use super::*;
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
        let config = DiskConfig { shelf, bytes: 65 * MIB, writes_per_day: 1000 };
        let common = DisksConfig { owner: 1, chance: 2, minutes: Arc::new(|| 29_700_000), engine };
        let (disks, mut reports) = Disks::open(vec![config], &common);
        (Arc::new(disks), reports.remove(0).1.unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn body(number: u64, len: usize) -> Bytes {
    (0..len).map(|at| (key(number + at as u64 / 16) >> (at % 16 * 8)) as u8).collect::<Vec<u8>>().into()
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
    let begin = Instant::now();
    while disks.disks.iter().any(|disk| !disk.volume.ledger.lock().waiting.is_empty()) {
        assert!(begin.elapsed() < Duration::from_secs(20), "the writer does not come to an end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_put_is_read_back_by_either_engine_and_after_a_restart() {
    for engine in [EngineKind::Pool, EngineKind::Ring] {
        if engine == EngineKind::Ring && EngineKind::probe() != engine {
            eprintln!("skipped: io_uring is not allowed here");
            continue;
        }
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
