//! How many commits per second the engines take, and how soon a reader has them.
//!
//! `cargo run -p journal --release --example commits -- --seconds 5 --dir DIR --etcd URL,URL,URL`, called by `bench/journal.sh`.
//! The SQLite file is made in DIR and left there; etcd must be empty. Each record has 300 bytes, as a small purge has.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use journal::etcd::{Etcd, Settings};
use journal::sqlite::Sqlite;
use journal::{Chance, Commit, Journal};

const RECORD_BYTES: usize = 300;

/// Commits under way at once where many gather.
const MANY: usize = 64;

type Failure = Box<dyn Error + Send + Sync>;

struct Arguments {
    seconds: u64,
    dir: PathBuf,
    etcd: Vec<String>,
}

fn arguments() -> Result<Arguments, Failure> {
    let (mut seconds, mut dir, mut etcd) = (5, None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--seconds" => seconds = value()?.parse()?,
            "--dir" => dir = Some(PathBuf::from(value()?)),
            "--etcd" => etcd = value()?.split(',').map(str::to_owned).collect(),
            other => return Err(format!("{other} is no argument of this").into()),
        }
    }
    Ok(Arguments { seconds, dir: dir.ok_or("--dir is missing")?, etcd })
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Arguments { seconds, dir, etcd } = arguments()?;
    let time = Duration::from_secs(seconds);
    let chance: Chance = {
        let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let drawn = std::sync::atomic::AtomicU64::new(0);
        Arc::new(move || begun.wrapping_mul(u128::from(drawn.fetch_add(1, Ordering::Relaxed)) * 2 + 1))
    };
    println!(
        "{:<12} {:>14} {:>14} {:>14} {:>24} {:>24}",
        "", "1 writer /s", "64 at once /s", "3 handles /s", "acknowledged p50 p99 ms", "read p50 p99 ms"
    );
    let sqlite: Arc<dyn Journal> = Arc::new(Sqlite::open(&dir.join("journal"), &chance)?);
    let mut results = measure("sqlite", &[sqlite], time).await?;
    if !etcd.is_empty() {
        let mut handles: Vec<Arc<dyn Journal>> = Vec::new();
        for first in 0..3 {
            let mut endpoints = etcd.clone();
            endpoints.rotate_left(first % etcd.len());
            let settings =
                Settings { endpoints, prefix: "bench".into(), ca_file: None, certificate: None, user: None };
            handles.push(Arc::new(Etcd::open(&settings, &chance).await?));
        }
        results += &measure("etcd", &handles, time).await?;
    }
    println!("RESULT{results}");
    Ok(())
}

async fn measure(name: &str, handles: &[Arc<dyn Journal>], time: Duration) -> Result<String, Failure> {
    let first = &handles[..1];
    commit_for(first, 4, time / 4).await?;
    let (alone, _) = commit_for(first, 1, time).await?;
    let (many, _) = commit_for(first, MANY, time).await?;
    let three = if handles.len() > 1 { Some(commit_for(handles, MANY, time).await?.0) } else { None };
    let (mut acknowledged, mut read) =
        follow(&handles[0], handles.last().unwrap_or(&handles[0]), time).await?;
    let (acknowledged, read) = (percentiles(&mut acknowledged), percentiles(&mut read));
    println!(
        "{name:<12} {alone:>14.0} {many:>14.0} {:>14} {:>24} {:>24}",
        three.map_or("-".into(), |three| format!("{three:.0}")),
        format!("{:.2} {:.2}", acknowledged.0, acknowledged.1),
        format!("{:.2} {:.2}", read.0, read.1),
    );
    let three =
        three.map_or(String::new(), |three| format!(" {name}_three_handles_commits_per_s={three:.0}"));
    Ok(format!(
        " {name}_commits_per_s={many:.0} {name}_alone_commits_per_s={alone:.0}{three} {name}_acknowledged_p99_ms={:.2} \
         {name}_read_p50_ms={:.2} {name}_read_p99_ms={:.2}",
        acknowledged.1, read.0, read.1
    ))
}

fn commit() -> Commit {
    Commit { record: Some("x".repeat(RECORD_BYTES)), ..Commit::default() }
}

/// Commits per second, and how many.
async fn commit_for(
    handles: &[Arc<dyn Journal>],
    at_once: usize,
    time: Duration,
) -> Result<(f64, u64), Failure> {
    let is_over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..at_once)
        .map(|task| {
            let (journal, is_over) = (Arc::clone(&handles[task % handles.len()]), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut count = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    journal.commit(commit()).await?;
                    count += 1;
                }
                Ok::<_, journal::Error>(count)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    is_over.store(true, Ordering::Relaxed);
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok((count as f64 / begun.elapsed().as_secs_f64(), count))
}

/// Milliseconds from a commit's begin to its acknowledgement, and until a reader that waits for it has it: one each 10 ms.
async fn follow(
    writes: &Arc<dyn Journal>,
    reads: &Arc<dyn Journal>,
    time: Duration,
) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let mut at = writes.commit(commit()).await?;
    let (mut acknowledged, mut read) = (Vec::new(), Vec::new());
    let end = Instant::now() + time;
    while Instant::now() < end {
        let (journal, after) = (Arc::clone(reads), at);
        let reading = tokio::spawn(async move {
            loop {
                journal.changed(after).await?;
                if let Some(last) = journal.read(after, 10).await?.records.last() {
                    return Ok::<_, journal::Error>((last.position, Instant::now()));
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        let begun = Instant::now();
        writes.commit(commit()).await?;
        acknowledged.push(begun.elapsed().as_secs_f64() * 1e3);
        let (position, seen) = reading.await??;
        read.push((seen - begun).as_secs_f64() * 1e3);
        at = position;
    }
    Ok((acknowledged, read))
}

fn percentiles(times: &mut [f64]) -> (f64, f64) {
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    (at(0.5), at(0.99))
}
