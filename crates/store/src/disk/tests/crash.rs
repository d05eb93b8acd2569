//! What a loss of power leaves, opened again: any subset of the pages that were not synced is lost, torn or kept, at any
//! write of a workload, also in the middle of opening after another loss of power.
//!
//! `PERIGEE_CRASH_IMAGES` sets how many images are made, `PERIGEE_CRASH_SEED` where the seeds begin.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::memory::{Chance, Faults, Files, Memory, PAGE};
use super::{now_or_never, read, reader_here, versioned};
use crate::disk::admission::Admission;
use crate::disk::buffers::Buffers;
use crate::disk::format::SEGMENTS_AT;
use crate::disk::index::Place;
use crate::disk::log::{Log, Now};
use crate::disk::media::{Media, Shelf};
use crate::disk::recovery::{self, Opened, Wanted};
use crate::disk::volume::{Health, Volume};
use crate::disk::writer::{self, Next, Queue, Writer};
use crate::disk::{Disk, Disks, Set, snapshot};
use crate::slots_test_key as key;

const MINUTES: u32 = 29_700_000;
const KEYS: u64 = 160;

/// Images that are made of each workload, and how often each is written on and loses its power again.
const IMAGES_PER_RUN: u64 = 16;
const GENERATIONS: u64 = 3;

/// What became of one key: each version is a value of some length, or that there is none.
#[derive(Clone)]
struct History {
    versions: Vec<Option<usize>>,
    /// The version that is in force.
    current: usize,
    /// The newest version that was synced.
    synced: usize,
    /// Where it lies, if it must be found again for as long as nothing changes there.
    safe: Option<(Place, u64)>,
}

#[derive(Clone)]
struct Oracle(Vec<History>);

impl Oracle {
    fn new() -> Self {
        Oracle(
            (0..KEYS).map(|_| History { versions: vec![None], current: 0, synced: 0, safe: None }).collect(),
        )
    }

    fn add(&mut self, number: u64, version: Option<usize>) -> usize {
        let history = &mut self.0[number as usize];
        history.versions.push(version);
        history.safe = None;
        history.current = history.versions.len() - 1;
        history.current
    }

    /// All that was asked for is on the disk and synced.
    fn settle(&mut self, volume: &Volume) {
        for (number, history) in self.0.iter_mut().enumerate() {
            history.synced = history.current;
            let place = volume.index.get(key(number as u64));
            history.safe = place.map(|place| (place, volume.sequence(place.segment)));
        }
    }

    /// The same, with only those still safe whose place is as it was and not about to be evicted.
    fn when_power_goes(&self, volume: &Volume) -> Self {
        let used = (0..volume.layout.segments).map(|segment| volume.sequence(segment));
        let oldest = used.filter(|sequence| *sequence > 0).min().unwrap_or(0);
        let mut this = self.clone();
        for (number, history) in this.0.iter_mut().enumerate() {
            history.safe = history.safe.filter(|(place, sequence)| {
                volume.index.get(key(number as u64)).is_some_and(|now| now.is(place))
                    && volume.sequence(place.segment) == *sequence
                    && *sequence > oldest
            });
        }
        this
    }
}

/// Lengths by the dozen: alike, so that records of one life end where those of another begin, or of all kinds.
fn length(chance: &mut Chance, mix: u64) -> usize {
    let lengths: &[usize] = match mix {
        0 => &[40, 40, 40, 40, 40, 40, 40, 1 << 20],
        1 => &[0, 40, 40, 40, 40, 100, 3000, 4096, 5000, 40, 40, 300_000],
        2 => &[70_000, 150_000, 65_536, 300_000, 40, 1 << 20],
        _ => &[40, 70_000, 300, 8000, 65_535, 65_536, 200_000, 20_000],
    };
    lengths[chance.below(lengths.len() as u64) as usize]
}

/// A volume with its writer, driven by hand.
struct Driver {
    shelf: Memory,
    disks: Arc<Disks>,
    volume: Arc<Volume>,
    queue: Arc<Queue>,
    writer: Writer,
    opened: Opened,
    now: Duration,
    chance: Chance,
    mix: u64,
    oracle: Arc<Mutex<Oracle>>,
}

impl Driver {
    fn open(shelf: Memory, oracle: Arc<Mutex<Oracle>>, chance: Chance, segments: u64, mix: u64) -> Self {
        let bytes = SEGMENTS_AT + segments * (2 << 20);
        let mut chance = chance;
        let wanted = Wanted { bytes, owner: 1, chance: u128::from(chance.next()) };
        let admission = Admission::new(bytes, 86_400 * 100, Duration::ZERO);
        let buffers = Buffers::default();
        let looked = recovery::look(&shelf, &wanted, &buffers).unwrap();
        let runs = (looked.run(), looked.run().next());
        let (volume, recovered, opened) =
            recovery::open(&shelf, looked, runs, admission, &Arc::default(), &buffers).unwrap();
        let generation = recovered.snapshot_generation;
        let log = Log::new(volume.clone(), buffers.clone(), recovered).unwrap();
        let queue = Arc::<Queue>::default();
        let minutes = Arc::new(|| MINUTES);
        let shelf_of_writer = Arc::new(shelf.clone());
        let writer = Writer::new(log, queue.clone(), shelf_of_writer, minutes, runs.1, generation);
        let disk = Disk {
            volume: volume.clone(),
            queue: queue.clone(),
            writer: Mutex::new(None),
            reading: Default::default(),
            weight: 1.0,
            seed: 0,
        };
        let disks = Arc::new(Disks {
            set: RwLock::new(Arc::new(Set { disks: vec![disk], fleet: Arc::default() })),
            in_use: Arc::default(),
            buffers,
            in_flight: Default::default(),
            engine: super::EngineKind::Pool,
            pool: None,
            started: std::time::Instant::now(),
            is_on: true.into(),
        });
        Driver { shelf, disks, volume, queue, writer, opened, now: Duration::ZERO, chance, mix, oracle }
    }

    fn now(&self) -> Now {
        Now { minutes: MINUTES, monotonic: self.now }
    }

    /// What is read under every key is what it may be; notes what was found.
    fn check(&self, context: &str) {
        let reader = reader_here(&self.disks);
        let mut oracle = self.oracle.lock();
        for number in 0..KEYS {
            let found = now_or_never(read(&self.disks, &reader, number));
            let history = &mut oracle.0[number as usize];
            let context = || {
                let History { versions, synced, safe, .. } = &*history;
                format!(
                    "{context}: key {number}: {found:?}; synced {synced} of {versions:?}, safe {safe:?}; {}",
                    self.records_of(number)
                )
            };
            match found {
                Ok(Some((version, len))) => {
                    assert!(version >= history.synced, "an old version is back; {}", context());
                    assert_eq!(history.versions.get(version), Some(&Some(len)), "{}", context());
                    (history.synced, history.current) = (version, version);
                }
                Ok(None) | Err(_) => {
                    assert!(
                        history.safe.is_none() || history.versions[history.synced].is_none(),
                        "what was synced is lost; {}",
                        context()
                    );
                    // What was lost is not to come back.
                    history.versions.push(None);
                    history.current = history.versions.len() - 1;
                }
            }
            history.safe = None;
        }
    }

    /// All records of a key that a start would find, for whoever reads a failure.
    fn records_of(&self, number: u64) -> String {
        use std::fmt::Write;
        let mut text = format!("{:?}, in the index {:?}", self.opened, self.volume.index.get(key(number)));
        for segment in 0..self.volume.layout.segments {
            let sequence = self.volume.sequence(segment);
            let entries = recovery::entries(&self.volume, &self.disks.buffers, segment, sequence);
            let entries = entries.unwrap_or_default();
            let _ = write!(text, "\nsegment {segment} use {sequence:x}: {} records", entries.len());
            for entry in entries.iter().filter(|entry| entry.key == key(number)) {
                let _ = write!(text, "\n  {entry:?}");
            }
        }
        text
    }

    fn pump(&mut self) {
        loop {
            let next = self.queue.pop(Duration::ZERO);
            if matches!(next, Next::Nothing) {
                return;
            }
            self.writer.step(next, self.now());
        }
    }

    /// Everything that was asked for is written and synced.
    fn settle(&mut self) {
        self.pump();
        self.now += Duration::from_secs(3);
        self.writer.step(Next::Nothing, self.now());
        self.oracle.lock().settle(&self.volume);
    }

    fn act(&mut self) {
        let number = {
            let many = self.chance.below(KEYS);
            if self.chance.percent(30) { many % 8 } else { many }
        };
        match self.chance.below(100) {
            0..60 => {
                let _ = self.volume.admission.lock().admit(key(number), 1, self.now);
                let len = length(&mut self.chance, self.mix);
                let version = self.oracle.lock().add(number, Some(len));
                assert!(writer::put(&self.volume, &self.queue, versioned(number, version, len), u64::MAX));
            }
            60..70 => {
                self.oracle.lock().add(number, None);
                writer::remove(&self.volume, &self.queue, key(number));
            }
            70..85 => {
                for _ in 0..6 {
                    let number = self.chance.below(KEYS);
                    self.volume.index.warm(key(number));
                    self.volume.index.warm(key(number));
                }
            }
            85..90 => self.now += Duration::from_millis(self.chance.below(300)),
            90..93 => {
                self.pump();
                self.writer.step(Next::Nothing, self.now());
            }
            93..98 => self.settle(),
            _ => {}
        }
        if self.chance.percent(60) {
            self.pump();
        }
        let reader = reader_here(&self.disks);
        if let Ok(Some((version, _))) = now_or_never(read(&self.disks, &reader, number)) {
            assert_eq!(
                version,
                self.oracle.lock().0[number as usize].current,
                "key {number} is not the newest"
            );
        }
    }

    /// Writes the index while other things go on.
    fn snapshot(self) -> Self {
        let mut this = self;
        this.now += Duration::from_secs(61);
        let Some(begun) = this.writer.due_snapshot(this.now()) else { return this };
        let (volume, shelf) = (this.volume.clone(), this.shelf.clone());
        let mut often = this.chance.below(100) + 1;
        let this = Arc::new(Mutex::new(this));
        let driver = Arc::downgrade(&this);
        let act = move || {
            often = often.saturating_sub(1);
            if often == 0
                && let Some(driver) = driver.upgrade()
            {
                let mut driver = driver.lock();
                often = driver.chance.below(200) + 1;
                driver.act();
            }
        };
        let shelf = Busy { shelf, act: Arc::new(Mutex::new(act)) };
        let prepared = snapshot::prepare(&volume, &shelf, begun).unwrap();
        drop(shelf);
        let Ok(this) = Arc::try_unwrap(this) else { panic!("somebody keeps the driver") };
        let mut this = this.into_inner();
        this.writer.take_prepared(prepared);
        this.writer.step(Next::Nothing, this.now());
        (0..20).for_each(|_| this.act());
        this
    }

    /// Ends in order, or at once, and begins anew; without a loss of power.
    fn restart(mut self, orderly: bool) -> Self {
        if orderly {
            self.settle();
            self.writer.end(self.now());
        }
        let Driver { shelf, oracle, chance, volume, mix, .. } = self;
        let segments = u64::from(volume.layout.segments);
        if !orderly {
            let left = oracle.lock().when_power_goes(&volume);
            *oracle.lock() = left;
        }
        let this = Driver::open(shelf, oracle, chance, segments, mix);
        assert!(!this.opened.is_new);
        this.check(if orderly { "after a restart" } else { "after a kill" });
        this
    }

    fn run(self, actions: u64) -> Self {
        let mut this = self;
        for _ in 0..actions {
            match this.chance.below(400) {
                0..3 => this = this.snapshot(),
                3 => this = this.restart(true),
                4 => this = this.restart(false),
                _ => this.act(),
            }
        }
        this
    }
}

/// A shelf on which each write gives something else its turn.
struct Busy {
    shelf: Memory,
    act: Arc<Mutex<dyn FnMut() + Send>>,
}

struct BusyMedia {
    media: Arc<dyn Media>,
    act: Arc<Mutex<dyn FnMut() + Send>>,
}

impl Shelf for Busy {
    fn open(&self, name: &str, direct: bool) -> std::io::Result<Arc<dyn Media>> {
        Ok(Arc::new(BusyMedia { media: self.shelf.open(name, direct)?, act: self.act.clone() }))
    }

    fn name(&self) -> String {
        self.shelf.name()
    }
}

impl Media for BusyMedia {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.media.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.act.lock()();
        self.media.write_at(bytes, offset)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.media.sync()
    }

    fn allocate(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.media.allocate(offset, len)
    }
}

/// An image of the files, and what was known then.
type Image = (Files, Oracle);

/// Takes images of the files before the changes with the given numbers.
fn photograph(driver: &Driver, mut at: Vec<u64>) -> Arc<Mutex<Vec<Image>>> {
    at.sort_unstable();
    let images = Arc::<Mutex<Vec<Image>>>::default();
    let (taken, oracle, volume) = (images.clone(), driver.oracle.clone(), driver.volume.clone());
    let mut changes = 0;
    driver.shelf.before_change(move |files| {
        changes += 1;
        while at.first().is_some_and(|at| *at <= changes) {
            at.remove(0);
            let oracle = oracle.lock().when_power_goes(&volume);
            taken.lock().push((files.clone(), oracle));
        }
    });
    images
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

impl Driver {
    /// Puts a value, and gives the writer longer than a failure keeps it waiting. Whether the value is there then.
    fn store(&mut self, number: u64, version: usize, len: usize) -> bool {
        let _ = self.volume.admission.lock().admit(key(number), 1, self.now);
        assert!(writer::put(&self.volume, &self.queue, versioned(number, version, len), u64::MAX));
        self.pump();
        self.now += Duration::from_millis(1100);
        self.writer.step(Next::Nothing, self.now());
        self.volume.index.get(key(number)).is_some()
    }
}

#[test]
fn what_is_replaced_again_and_again_while_the_disk_is_full_waits_to_be_removed_once() {
    let oracle = Arc::new(Mutex::new(Oracle::new()));
    let mut driver = Driver::open(Memory::default(), oracle, Chance(1), 8, 0);
    assert!(driver.store(1, 1, 500));
    driver.shelf.set_faults(Faults { write: Some(ErrorKind::StorageFull), ..Faults::default() });
    for version in 2..100 {
        assert!(!driver.store(1, version, 500));
    }
    // It takes note of what has failed.
    driver.writer.step(Next::Nothing, driver.now());
    assert_eq!(driver.writer.waiting_removals(), 1);
    driver.shelf.set_faults(Faults::default());
    driver.now += Duration::from_secs(1);
    assert!(driver.store(1, 100, 500));
    assert_eq!(driver.writer.waiting_removals(), 0);
}

/// A file system with room for six segments of eight, and a half of another: it cannot be told from the others before it is written.
fn room(promises_nothing: bool) -> Faults {
    Faults { room: Some((13 << 20) / PAGE), promises_nothing, ..Faults::default() }
}

/// A volume on that file system, after more has been put than there is room for.
fn without_room(promises_nothing: bool) -> Driver {
    let shelf = Memory::default();
    shelf.set_faults(room(promises_nothing));
    let mut driver = Driver::open(shelf, Arc::new(Mutex::new(Oracle::new())), Chance(1), 8, 0);
    assert!(driver.opened.is_sparse);
    let (mut was_full, mut lost) = (false, 0);
    for number in 0..100 {
        lost += u32::from(!driver.store(number, 1, 500_000));
        let is_full = driver.volume.health() == Health::Full;
        assert!(is_full || !was_full, "{number}: there is no more room than before");
        was_full |= is_full;
    }
    assert!(was_full && lost <= 10, "{lost} of 100 are lost");
    driver
}

#[test]
fn a_disk_without_room_for_all_of_it_goes_on_with_the_room_that_it_has() {
    for promises_nothing in [false, true] {
        let mut driver = without_room(promises_nothing);
        driver.shelf.set_faults(Faults { promises_nothing, ..Faults::default() });
        driver.now += Duration::from_secs(1);
        assert!((100..110).all(|number| driver.store(number, 1, 500_000)));
        // Only a promise says that there is room for more than what has just been written.
        let health = if promises_nothing { Health::Full } else { Health::Well };
        assert_eq!(driver.volume.health(), health);
        assert!(driver.writer.end(driver.now()));
        let driver = Driver::open(driver.shelf, driver.oracle, driver.chance, 8, 0);
        assert!((100..110).all(|number| driver.volume.index.get(key(number)).is_some()));
    }
}

/// Nor is there room for the index, which could say it too.
#[test]
fn what_is_removed_on_a_full_disk_is_written_down_at_the_end() {
    let mut driver = without_room(false);
    driver.shelf.set_faults(Faults { write: Some(ErrorKind::StorageFull), ..room(false) });
    assert!(writer::remove(&driver.volume, &driver.queue, key(99)));
    driver.pump();
    driver.writer.step(Next::Nothing, driver.now());
    driver.writer.step(Next::Nothing, driver.now());
    assert_eq!(driver.writer.waiting_removals(), 1);
    driver.shelf.set_faults(room(false));
    assert!(driver.writer.end(driver.now()));
    let driver = Driver::open(driver.shelf, driver.oracle, driver.chance, 8, 0);
    assert!(!driver.opened.had_snapshot && driver.volume.index.get(key(99)).is_none());
    assert!(driver.volume.index.get(key(98)).is_some());
}

#[test]
fn whatever_a_loss_of_power_leaves_is_opened_and_gives_out_nothing_wrong_or_old() {
    let wanted = from_environment("PERIGEE_CRASH_IMAGES", 1000);
    let first = from_environment("PERIGEE_CRASH_SEED", 1);
    let mut images = 0;
    let mut seed = first;
    let (mut found, mut damaged, mut snapshots, mut evicted, mut rewritten) = (0, 0, 0, 0, 0);
    while images < wanted {
        let context = format!("PERIGEE_CRASH_SEED={seed} PERIGEE_CRASH_IMAGES=1");
        eprintln!("{context}");
        let mut chance = Chance(seed);
        let (segments, mix) = (8 + chance.below(5), chance.below(4));
        let oracle = Arc::new(Mutex::new(Oracle::new()));
        let driver = Driver::open(Memory::default(), oracle, chance.clone(), segments, mix);
        let actions = [800, 1500, 600, 1000][mix as usize];
        // Restarts make another volume, so the images are taken from the last life.
        let driver = driver.run(chance.below(actions));
        let at = (0..IMAGES_PER_RUN).map(|_| chance.below(actions / 4) + 1).collect();
        let taken = photograph(&driver, at);
        let mut driver = driver;
        (0..actions).for_each(|_| driver.act());
        let driver = driver.snapshot();
        evicted += driver.volume.stats().evicted;
        rewritten += driver.volume.stats().rewritten;
        driver.shelf.no_hook();
        let taken = std::mem::take(&mut *taken.lock());
        for (number, (files, oracle)) in taken.into_iter().enumerate() {
            let (mut files, mut oracle) = (files, oracle);
            for generation in 0..GENERATIONS {
                let context = format!("{context}: image {number}, generation {generation}");
                let shelf = Memory::new(files.lose_power(&mut chance));
                images += 1;
                let shared = Arc::new(Mutex::new(oracle));
                let driver = Driver::open(shelf, shared, Chance(chance.next()), segments, mix);
                assert!(!driver.opened.is_new, "{context}");
                driver.check(&context);
                found += driver.volume.index.len();
                damaged += driver.volume.stats().damaged;
                snapshots += u64::from(driver.opened.had_snapshot);
                // It goes on working, until the power goes again.
                let at = photograph(&driver, vec![chance.below(40) + 1]);
                let mut driver = driver;
                while at.lock().is_empty() {
                    driver.act();
                }
                driver.shelf.no_hook();
                (files, oracle) = at.lock().remove(0);
                driver.settle();
                driver.check(&format!("{context}, at its end"));
            }
        }
        seed += 1;
    }
    eprintln!(
        "{images} images of {} workloads: {found} records found, {damaged} damaged, {snapshots} index snapshots used; \
         {evicted} evicted and {rewritten} copied forward before",
        seed - first
    );
    assert!(
        found > 0 && snapshots > 0 && evicted > 0 && rewritten > 0,
        "the workload does not do what it should"
    );
}
