//! Disks that are full, that fail, that are missing, and that differ in size.

use std::io::ErrorKind;

use super::memory::{Faults, Memory};
use super::*;

const BYTES: u64 = 21 * MIB;

fn open(shelves: &[&Memory]) -> (Arc<Disks>, Vec<Opened>) {
    let shelves = shelves.iter().map(|shelf| (Arc::new((*shelf).clone()) as Arc<dyn Shelf>, BYTES)).collect();
    let (disks, reports) = open_all(shelves, EngineKind::Pool);
    (disks, reports.into_iter().map(Result::unwrap).collect())
}

fn found(disks: &Arc<Disks>, number: u64) -> Option<usize> {
    now_or_never(read(disks, &reader_here(disks), number)).unwrap_or_default().map(|found| found.0)
}

fn put(disks: &Disks, numbers: std::ops::Range<u64>, version: usize) {
    numbers.for_each(|number| assert!(disks.put(versioned(number, version, 500))));
}

#[test]
fn a_full_disk_is_read_and_stores_again_by_itself_when_there_is_room() {
    for tears in [false, true] {
        let shelf = Memory::default();
        let (disks, _) = open(&[&shelf]);
        put(&disks, 0..50, 1);
        wait_written(&disks);

        shelf.set_faults(Faults { write: Some(ErrorKind::StorageFull), tears, ..Faults::default() });
        (0..10).for_each(|number| disks.remove(key(number)));
        put(&disks, 10..20, 2);
        let is_gone = |disks: &Arc<Disks>| (0..20).all(|number| found(disks, number).is_none());
        assert!(is_gone(&disks));
        let health = |disks: &Disks| disks.stats()[0].health;
        wait_until(5, "the disk counts as full", || health(&disks) == Health::Full);
        wait_until(5, "values are given up", || disks.stats()[0].refused_write_failed >= 10);
        assert!(is_gone(&disks) && disks.stats()[0].write_errors > 0);
        assert!((20..50).all(|number| found(&disks, number) == Some(1)));

        shelf.set_faults(Faults::default());
        let took = wait_until(5, "it stores again", || {
            disks.put(versioned(100, 3, 500));
            std::thread::sleep(Duration::from_millis(150));
            found(&disks, 100) == Some(3)
        });
        eprintln!("stored again after {took:?}");
        assert_eq!(health(&disks), Health::Well);
        assert!(is_gone(&disks));
        wait_written(&disks);
        disks.close();
        drop(disks);

        let (disks, opened) = open(&[&shelf]);
        assert!(!opened[0].is_new);
        assert!(is_gone(&disks), "what was removed while the disk was full is back");
        assert!((20..50).all(|number| found(&disks, number) == Some(1)));
        assert_eq!(found(&disks, 100), Some(3));
        disks.close();
    }
}

#[test]
fn what_a_full_disk_could_not_be_told_is_in_the_index_after_an_orderly_stop() {
    for only in [Some("volume"), None] {
        let shelf = Memory::default();
        let (disks, _) = open(&[&shelf]);
        put(&disks, 0..50, 1);
        wait_written(&disks);
        shelf.set_faults(Faults { write: Some(ErrorKind::StorageFull), only, ..Faults::default() });
        put(&disks, 0..10, 2);
        (10..20).for_each(|number| disks.remove(key(number)));
        wait_until(5, "values are given up", || disks.stats()[0].refused_write_failed >= 10);
        assert!(disks.stats()[0].unwritten_removals > 0);
        // Where the index cannot be written either, whoever closes it must know.
        assert_eq!(disks.close(), only.is_some());
        drop(disks);
        shelf.set_faults(Faults::default());
        let (disks, opened) = open(&[&shelf]);
        assert!(!opened[0].is_new);
        if only.is_some() {
            for number in 0..50 {
                assert_eq!(found(&disks, number), Some(1).filter(|_| number >= 20), "{number}");
            }
        }
        assert!(disks.close());
    }
}

/// Visitors are answered while a process makes room for another, and what they ask for may be stored anew.
#[test]
fn what_is_put_while_the_index_is_written_does_not_cost_the_disk() {
    let shelf = Memory::default();
    let (disks, _) = open(&[&shelf]);
    put(&disks, 0..50, 1);
    wait_written(&disks);
    let (open_gate, gate) = std::sync::mpsc::channel::<()>();
    shelf.before_change(move |_| _ = gate.recv());
    let closing = std::thread::spawn({
        let disks = disks.clone();
        move || disks.close()
    });
    wait_until(5, "nothing is taken any more", || !disks.put(versioned(1, 2, 500)));
    drop(open_gate);
    assert!(closing.join().unwrap());
    assert!(found(&disks, 1).is_none(), "what was there is outdated");
}

#[test]
fn a_disk_that_fails_is_dropped_and_the_others_take_its_keys() {
    let (one, other) = (Memory::named("one"), Memory::named("other"));
    let (disks, _) = open(&[&one, &other]);
    put(&disks, 0..200, 1);
    wait_written(&disks);
    let on_one = |disks: &Disks| -> Vec<u64> {
        (0..200).filter(|number| disks.set.read().disks[0].volume.index.get(key(*number)).is_some()).collect()
    };
    let at_home = on_one(&disks);
    assert!((50..150).contains(&at_home.len()), "{}", at_home.len());

    one.set_faults(Faults {
        write: Some(ErrorKind::Other),
        read: Some(ErrorKind::Other),
        ..Faults::default()
    });
    wait_until(20, "the disk is dropped", || {
        assert!(at_home.iter().all(|number| found(&disks, *number).is_none_or(|version| version == 1)));
        disks.stats()[0].health == Health::Failed
    });
    let stats = disks.stats();
    assert!(stats[0].read_errors >= u64::from(volume::ERRORS_MAX) && stats[1].health == Health::Well);
    assert!((0..200).all(|number| at_home.contains(&number) == found(&disks, number).is_none()));
    put(&disks, 0..150, 2);
    (150..200).for_each(|number| disks.remove(key(number)));
    wait_written_on(&disks, 1);
    assert!((0..150).all(|number| found(&disks, number) == Some(2)));
    disks.close();
    drop(disks);

    // The dropped disk is well again, but was told of nothing.
    one.set_faults(Faults::default());
    let (disks, opened) = open(&[&one, &other]);
    assert!(opened[0].is_new && !opened[1].is_new);
    for number in 0..200 {
        assert_eq!(found(&disks, number), Some(2).filter(|_| number < 150), "{number}");
    }
    disks.close();
}

fn wait_written_on(disks: &Disks, number: usize) {
    wait_until(20, "the disk has written everything", || {
        let set = disks.set.read();
        let ledger = set.disks[number].volume.ledger.lock();
        ledger.waiting.is_empty() && ledger.removed.is_empty()
    });
}

#[test]
fn a_disk_that_was_missing_for_a_run_is_begun_anew() {
    let (one, other) = (Memory::named("one"), Memory::named("other"));
    let (disks, _) = open(&[&one, &other]);
    put(&disks, 0..100, 1);
    disks.close();
    let (disks, opened) = open(&[&one, &other]);
    assert!(opened.iter().all(|opened| !opened.is_new));
    assert!((0..100).all(|number| found(&disks, number) == Some(1)));
    disks.close();
    let (disks, opened) = open(&[&other]);
    assert!(!opened[0].is_new);
    (0..50).for_each(|number| disks.remove(key(number)));
    put(&disks, 50..100, 2);
    disks.close();
    let (disks, opened) = open(&[&one, &other]);
    assert!(opened[0].is_new && !opened[1].is_new);
    for number in 0..100 {
        assert_eq!(found(&disks, number), Some(2).filter(|_| number >= 50), "{number}");
    }
    disks.close();
}

#[test]
fn an_only_disk_that_is_dropped_is_begun_anew_if_it_can_still_be_written() {
    let shelf = Memory::default();
    let (disks, _) = open(&[&shelf]);
    put(&disks, 0..50, 1);
    wait_written(&disks);
    shelf.set_faults(Faults { read: Some(ErrorKind::Other), ..Faults::default() });
    wait_until(5, "the disk is dropped", || {
        found(&disks, 1);
        disks.stats()[0].health == Health::Failed
    });
    assert!(!disks.put(versioned(1, 2, 500)) && disks.find(key(1)).is_none());
    disks.close();
    shelf.set_faults(Faults::default());
    let (disks, opened) = open(&[&shelf]);
    assert!(opened[0].is_new && (0..50).all(|number| found(&disks, number).is_none()));
    disks.close();
}

#[test]
fn disks_share_the_keys_in_proportion_to_their_sizes() {
    let shelves = [(Memory::named("a"), 20), (Memory::named("b"), 40), (Memory::named("c"), 60)];
    let shelves = shelves.map(|(shelf, mib)| (Arc::new(shelf) as Arc<dyn Shelf>, mib * MIB)).to_vec();
    let (disks, _) = open_all(shelves, EngineKind::Pool);
    let mut shares = [0; 3];
    (0..60_000).for_each(|number| shares[disks.set.read().home(key(number)).unwrap()] += 1);
    for (share, wanted) in shares.into_iter().zip([10_000, 20_000, 30_000]) {
        assert!((wanted - 500..wanted + 500).contains(&share), "{shares:?}");
    }
    disks.close();
}
