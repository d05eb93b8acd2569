//! A volume's file is damaged while it is in use: flipped bits, zeroed pages, a cut file.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::memory::Chance;
use super::*;

const KEYS: u64 = 300;

fn length(chance: &mut Chance) -> usize {
    [40, 1000, 5000, 20_000, 65_536, 150_000][chance.below(6) as usize]
}

#[test]
fn a_store_whose_file_is_damaged_gives_out_no_wrong_byte_and_goes_on_storing() {
    let scratch = Scratch::new("damage");
    let engine = EngineKind::probe();
    let (disks, _) = scratch.open(engine);
    let file = OpenOptions::new().read(true).write(true).open(scratch.0.join("volume")).unwrap();
    let len = file.metadata().unwrap().len();
    let mut chance = Chance(7);
    let mut versions = vec![0; KEYS as usize];
    let put = |disks: &Disks, versions: &mut [usize], chance: &mut Chance, number: u64| {
        versions[number as usize] += 1;
        assert!(disks.put(versioned(number, versions[number as usize], length(chance))));
    };
    (0..KEYS).for_each(|number| put(&disks, &mut versions, &mut chance, number));
    wait_written(&disks);
    let used = SEGMENTS_AT + (8 << 20);
    run(async {
        let reader = disks.reader();
        for round in 0..1000 {
            match chance.below(100) {
                0..60 => {
                    let at = chance.below(used);
                    let mut byte = [0];
                    // Beyond the end of a file that was cut there is nothing to flip.
                    if file.read_at(&mut byte, at).unwrap() == 1 {
                        file.write_all_at(&[byte[0] ^ 1 << chance.below(8)], at).unwrap();
                    }
                }
                60..98 => file.write_all_at(&[0; 4096], chance.below(used / BLOCK) * BLOCK).unwrap(),
                _ => {
                    file.set_len(chance.below(used)).unwrap();
                    if chance.percent(50) {
                        file.set_len(len).unwrap();
                    }
                }
            }
            for _ in 0..5 {
                let number = chance.below(KEYS);
                if let Ok(Some((version, _))) = read(&disks, &reader, number).await {
                    assert_eq!(version, versions[number as usize], "key {number}");
                }
            }
            if round % 4 == 0 {
                let number = chance.below(KEYS);
                put(&disks, &mut versions, &mut chance, number);
            }
        }
        let stats = &disks.stats()[0];
        assert!(stats.damaged + stats.read_errors > 0);
        eprintln!("{} damaged, {} read errors", stats.damaged, stats.read_errors);
        assert_eq!(stats.health, Health::Well);
        wait_written(&disks);
        (0..KEYS).for_each(|number| put(&disks, &mut versions, &mut chance, number));
        wait_written(&disks);
        for number in 0..KEYS {
            let found = read(&disks, &reader, number).await.unwrap();
            assert_eq!(found.map(|found| found.0), Some(versions[number as usize]));
        }
    });
    disks.close();
    drop(disks);
    // Whatever a start makes of it, nothing wrong comes out.
    let (disks, _) = scratch.open(engine);
    run(async {
        let reader = disks.reader();
        for number in 0..KEYS {
            let _miss = read(&disks, &reader, number).await;
        }
    });
    disks.close();
}
