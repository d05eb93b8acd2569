//! The disk tier against a map, with its threads: whatever is read is what was put last, and what was put is there as long
//! as the disk has room.

use std::collections::HashMap;

use super::memory::Chance;
use super::*;

const KEYS: u64 = 120;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    /// Put, and nothing after it.
    Value(usize, usize),
    Removed,
}

fn open(scratch: &[Scratch], engine: EngineKind) -> Arc<Disks> {
    let shelves = scratch
        .iter()
        .map(|scratch| (Arc::new(Directory::create(&scratch.0).unwrap()) as Arc<dyn Shelf>, 65 * MIB));
    let (disks, reports) = open_all(shelves.collect(), engine);
    assert!(reports.into_iter().all(|report| report.is_ok()));
    disks
}

/// Reads everything. What is not there may still wait to be written, unless `is_settled`.
async fn compare(disks: &Arc<Disks>, model: &HashMap<u64, Entry>, is_settled: bool) {
    let reader = disks.reader();
    for number in 0..KEYS {
        let found = read(disks, &reader, number).await;
        match (model.get(&number), found) {
            (Some(Entry::Value(version, len)), Ok(Some(found))) => assert_eq!(found, (*version, *len)),
            (Some(Entry::Value(..)), Ok(None)) => assert!(!is_settled, "key {number} is lost"),
            (None | Some(Entry::Removed), Ok(None)) => {}
            (wanted, found) => panic!("key {number}: {found:?} instead of {wanted:?}"),
        }
    }
}

fn check(seed: u64, disk_count: usize, engine: EngineKind) {
    eprintln!("seed {seed}, {disk_count} disks, {}", engine.as_str());
    let mut chance = Chance(seed);
    let scratch: Vec<_> =
        (0..disk_count).map(|number| Scratch::new(&format!("model-{seed}-{number}-{engine:?}"))).collect();
    let mut disks = open(&scratch, engine);
    let mut model = HashMap::new();
    // All that is put fits, so that nothing is evicted.
    let (mut put_bytes, put_bytes_max) = (0, 40 << 20);
    for version in 1..=1200 {
        let number = chance.below(KEYS);
        match chance.below(100) {
            0..50 => {
                let len = [0, 40, 500, 5000, 65_535, 65_536, 100_000, 200_000][chance.below(8) as usize];
                if put_bytes < put_bytes_max {
                    put_bytes += len + 8192;
                    assert!(disks.put(versioned(number, version, len)));
                    model.insert(number, Entry::Value(version, len));
                }
            }
            50..65 => {
                disks.remove(key(number));
                model.insert(number, Entry::Removed);
            }
            65..94 => {
                let found = run(async { read(&disks, &disks.reader(), number).await });
                match (model.get(&number), found) {
                    (_, Ok(None)) => {}
                    (Some(Entry::Value(version, len)), Ok(Some(found))) => {
                        assert_eq!(found, (*version, *len))
                    }
                    (wanted, found) => panic!("key {number}: {found:?} instead of {wanted:?}"),
                }
            }
            94..96 => std::thread::sleep(Duration::from_millis(chance.below(150))),
            96..98 => {
                wait_written(&disks);
                run(compare(&disks, &model, true));
            }
            98 => {
                disks.close();
                drop(disks);
                disks = open(&scratch, engine);
                run(compare(&disks, &model, true));
            }
            _ => run(compare(&disks, &model, false)),
        }
    }
    disks.close();
}

#[test]
fn the_store_agrees_with_a_map_across_restarts() {
    for engine in engines() {
        check(1, 1, engine);
        check(2, 3, engine);
    }
}
