//! Three members of etcd, each killed, wiped and damaged in turn, and all compacted, under writers and readers that go on.
//!
//! `PERIGEE_SOAK=N` goes through all of it N times.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/members.rs"]
mod members;
#[path = "support/scratch.rs"]
mod scratch;

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use journal::etcd::{Etcd, Settings};
use journal::{Commit, Error, Journal, Mark, Record};
use members::{Members, PATIENCE};
use scratch::chance;
use tokio::task::JoinHandle;

/// How often a state is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Commits that must go through while something is wrong.
const MEANWHILE: u64 = 20;

/// Waits until something has become so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Settings that begin with another member.
fn beginning_at(members: &Members, index: usize) -> Settings {
    let mut settings = members.settings.clone();
    settings.endpoints.rotate_left(index);
    settings
}

async fn open(settings: &Settings) -> Etcd {
    let started = Instant::now();
    loop {
        match Etcd::open(settings, &chance()).await {
            Ok(journal) => return journal,
            Err(Error::Unavailable(why)) => assert!(started.elapsed() < PATIENCE, "{why}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the writers have been told.
#[derive(Default)]
struct Told {
    acknowledged: AtomicU64,
    /// Writers are to stop.
    is_enough: AtomicBool,
    /// They have.
    is_over: AtomicBool,
}

/// Writes until it is enough; gives what has been acknowledged. Each text is sent once.
fn write(journal: Etcd, name: usize, told: Arc<Told>) -> JoinHandle<Vec<Record>> {
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for n in 0_u64.. {
            if told.is_enough.load(Ordering::Relaxed) {
                break;
            }
            let text = format!("writer {name}: {n}");
            let cells = vec![(format!("writer/{name}"), Some(n.to_string().into_bytes()))];
            match journal.commit(Commit { cells, record: Some(text.clone()), ..Commit::default() }).await {
                Ok(position) => {
                    acknowledged.push(Record { position, text: text.into() });
                    told.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(Error::Unavailable(_) | Error::Unknown(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        acknowledged
    })
}

/// Reads on from what has been read until it is over and nothing is left.
async fn follow(journal: &Etcd, mut read: Vec<Record>, told: &Told) -> Vec<Record> {
    loop {
        let after = read.last().map_or(0, |last| last.position);
        // Looked at before reading: what was acknowledged by then is in what is read.
        let is_over = told.is_over.load(Ordering::Relaxed);
        match journal.read(after, 100).await {
            Ok(page) if !page.records.is_empty() => read.extend(page.records),
            Ok(_) if is_over => return read,
            Ok(_) => _ = tokio::time::timeout(LOOK_EVERY * 10, journal.changed(after)).await,
            Err(Error::Unavailable(_)) => {}
            Err(error) => panic!("after {after}: {error}"),
        }
    }
}

/// Commits go through, from now on.
async fn goes_on(told: &Told, while_: &str) {
    let from = told.acknowledged.load(Ordering::Relaxed);
    until(while_, || told.acknowledged.load(Ordering::Relaxed) >= from + MEANWHILE).await;
}

/// A member takes part: it answers from what the others know too.
async fn is_well(members: &mut Members, index: usize) {
    let started = Instant::now();
    while let Err(why) = members.control(&[index], &["endpoint", "health"]) {
        assert!(members.is_running(index), "member {index} ended: {}", members.log(index));
        assert!(started.elapsed() < PATIENCE, "member {index} is not well: {why}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes a member out, with all it has, and a new one in at its place.
async fn replace(members: &mut Members, index: usize, told: &Told) {
    members.kill(index);
    fs::remove_dir_all(members.data(index)).unwrap();
    let others: Vec<_> = (0..members.all.len()).filter(|other| *other != index).collect();
    let name = members.all[index].name.clone();
    let peer = format!("--peer-urls=http://127.0.0.1:{}", members.all[index].peer);
    // Both are refused while etcd thinks that too few are there.
    let started = Instant::now();
    let id = loop {
        let list = members.control(&others, &["member", "list"]).unwrap_or_default();
        let line = list.lines().find(|line| line.contains(&format!(", {name}, "))).map(str::to_owned);
        if let Some(id) = line.and_then(|line| Some(line.split_once(',')?.0.to_owned())) {
            break id;
        }
        assert!(started.elapsed() < PATIENCE, "{name} is in no list of members");
    };
    for arguments in [&["member", "remove", &*id][..], &["member", "add", &*name, &*peer]] {
        while let Err(why) = members.control(&others, arguments) {
            assert!(started.elapsed() < PATIENCE, "{arguments:?}: {why}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    goes_on(told, "with a member that has not come yet").await;
    members.launch(index, "existing");
    is_well(members, index).await;
}

/// Cuts a file in the middle of what has been written to it: WAL files are as long as they may become.
fn cut(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let bytes = fs::read(path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    file.set_len(written as u64 / 2).unwrap();
    // What follows a cut of a WAL is zeros, as in one that was never written further.
    file.write_all_at(&[0], written as u64).unwrap();
}

fn newest(directory: &Path, ending: &str) -> Option<PathBuf> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_string_lossy().ends_with(ending)).max()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_record_is_missing_whatever_befalls_a_member() {
    let Some(mut members) = Members::start(3, &[]).await else { return };
    let rounds = std::env::var("PERIGEE_SOAK").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let told = Arc::new(Told::default());
    let mut writers = Vec::new();
    for name in 0..2 {
        writers.push(write(open(&beginning_at(&members, name)).await, name, Arc::clone(&told)));
    }
    let following = open(&beginning_at(&members, 2)).await;
    let follower = {
        let told = Arc::clone(&told);
        tokio::spawn(async move { follow(&following, Vec::new(), &told).await })
    };
    // This one reads a little now, and the rest when etcd has been compacted past it.
    let away = open(&beginning_at(&members, 1)).await;
    goes_on(&told, "at first").await;
    let little = away.read(0, 10).await.unwrap().records;
    assert_eq!(little.len(), 10);

    for round in 0..rounds {
        for index in 0..3 {
            members.kill(index);
            goes_on(&told, "without a member that was killed").await;
            members.launch(index, "existing");
            is_well(&mut members, index).await;

            replace(&mut members, index, &told).await;

            members.kill(index);
            let member = members.data(index).join("member");
            // Snapshots come after some hundred commits.
            let file = match (index + round) % 3 {
                0 => newest(&member.join("snap"), ".snap"),
                1 => newest(&member.join("snap"), "db"),
                _ => None,
            };
            let file = file.or_else(|| newest(&member.join("wal"), ".wal")).unwrap();
            cut(&file);
            goes_on(&told, "without a member that was damaged").await;
            members.launch(index, "existing");
            goes_on(&told, "with a damaged member that starts").await;
            // It ends by itself, or has got the rest from the others. Its disk is not to be trusted either way.
            replace(&mut members, index, &told).await;
            goes_on(&told, "with all members").await;
        }
        let status = members.control(&[0], &["endpoint", "status", "--write-out=json"]).unwrap();
        let revision = status.split("\"revision\":").nth(1).unwrap();
        let revision: String = revision.chars().take_while(char::is_ascii_digit).collect();
        members.control(&[0], &["compact", &revision]).unwrap();
        for index in 0..3 {
            members.control(&[index], &["defrag"]).unwrap();
        }
        goes_on(&told, "after compaction").await;
    }

    told.is_enough.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    told.is_over.store(true, Ordering::Relaxed);
    let followed = tokio::time::timeout(PATIENCE, follower).await.unwrap().unwrap();
    let resumed = tokio::time::timeout(PATIENCE, follow(&away, little, &told)).await.unwrap();
    let fresh = open(&beginning_at(&members, 0)).await;
    let anew = tokio::time::timeout(PATIENCE, follow(&fresh, Vec::new(), &told)).await.unwrap();

    assert!(followed.windows(2).all(|pair| pair[0].position < pair[1].position));
    let digest = |read: &[Record]| read.iter().fold(Mark::default(), |mark, record| mark.then(record));
    assert_eq!(digest(&followed), digest(&anew));
    assert_eq!(digest(&resumed), digest(&anew));
    let texts: HashSet<_> = anew.iter().map(|record| &record.text).collect();
    assert_eq!(texts.len(), anew.len(), "a record was written twice");
    for record in &acknowledged {
        let found =
            anew.binary_search_by_key(&record.position, |record| record.position).map(|index| &anew[index]);
        assert_eq!(found, Ok(record));
    }
    println!("{} acknowledged, {} read", acknowledged.len(), anew.len());
}
