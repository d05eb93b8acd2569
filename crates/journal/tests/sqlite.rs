//! What only a file can suffer: kills, a second process, damage, a full disk.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/scratch.rs"]
mod scratch;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use journal::sqlite::Sqlite;
use journal::{Commit, Error, Journal, Mark, Record};
use scratch::{Scratch, chance};

/// Tells a test that it is the child of another one, and where the journal is.
const CHILD: &str = "PERIGEE_JOURNAL_CHILD";

fn record(text: &str) -> Commit {
    Commit { record: Some(text.to_owned()), ..Commit::default() }
}

fn open(path: &Path) -> Result<Sqlite, Error> {
    Sqlite::open(path, &chance())
}

fn why(opened: Result<Sqlite, Error>) -> String {
    match opened {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

/// Another process that runs one test of this file, by itself or by what `before` runs it with.
fn child(before: &[&str], test: &str, journal: &Path) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match before {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.args([test, "--exact", "--nocapture"]).env(CHILD, journal).stdin(Stdio::null());
    command
}

fn of_parent() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

async fn read_all(journal: &dyn Journal) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let page = journal.read(all.last().map_or(0, |last| last.position), 500).await.unwrap();
        all.extend(page.records);
        if !page.has_more {
            return all;
        }
    }
}

// --- Kills ---

/// Child of the next test: commits from sixteen tasks, and says what has been acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn commits_until_it_is_killed() {
    let Some(path) = of_parent() else { return };
    let journal = Arc::new(open(&path).unwrap());
    for task in 0..16 {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            for n in 0.. {
                let text = format!("{task}/{n}");
                let cell = (format!("task/{task}"), Some(n.to_string().into_bytes()));
                let commit = Commit { cells: vec![cell], ..record(&text) };
                let position = journal.commit(commit).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {position} {text}").unwrap();
                out.flush().unwrap();
            }
        });
    }
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_kill_in_the_middle_of_commits() {
    let scratch = Scratch::new();
    let path = scratch.path("journal");
    let mut acknowledged = Vec::new();
    for kill_after in [1, 17, 200, 90, 333] {
        let mut writer: Child =
            child(&[], "commits_until_it_is_killed", &path).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let before = acknowledged.len();
        let mut is_killed = false;
        // What it said before the kill counts, also what has not been read yet.
        while let Some(Ok(line)) = lines.next() {
            if let Some((position, text)) =
                line.strip_prefix("acknowledged ").and_then(|rest| rest.split_once(' '))
            {
                acknowledged.push(Record { position: position.parse().unwrap(), text: text.into() });
            }
            if !is_killed && acknowledged.len() - before >= kill_after {
                writer.kill().unwrap();
                is_killed = true;
            }
        }
        writer.wait().unwrap();
        assert!(is_killed, "it ended by itself");

        let journal = open(&path).unwrap();
        let all = read_all(&journal).await;
        for record in &acknowledged {
            let found =
                all.binary_search_by_key(&record.position, |record| record.position).map(|index| &all[index]);
            assert_eq!(found, Ok(record));
        }
        // A task's cell was written with its last record, or with one that was not acknowledged any more.
        for cell in journal.cells("task/").await.unwrap() {
            let text = format!("{}/{}", &cell.name[5..], String::from_utf8(cell.value).unwrap());
            let last = all.iter().rfind(|record| record.position == cell.version).unwrap();
            assert_eq!(*last.text, *text);
        }
    }
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_which_one_has_it() {
    let scratch = Scratch::new();
    let path = scratch.path("journal");
    let mut first = child(&[], "commits_until_it_is_killed", &path).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("acknowledged ")));
    let refusal = why(open(&path));
    assert!(refusal.contains(&format!("open in another process (id \"{}\")", first.id())), "{refusal}");
    first.kill().unwrap();
    first.wait().unwrap();
    open(&path).unwrap();
}

// --- Damage ---

/// A journal with 2,000 records, closed.
async fn written(path: &Path) -> Vec<Record> {
    let journal = Arc::new(open(path).unwrap());
    let tasks: Vec<_> = (0..2_000)
        .map(|n| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                journal.commit(record(&format!("record {n} {}", "x".repeat(100)))).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    read_all(&*journal).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused_with_what_to_do() {
    type Damage = fn(&fs::File, u64);
    let damages: [Damage; 3] = [
        |file, _| file.write_all_at(b"not a database", 0).unwrap(),
        |file, length| file.set_len(length / 2).unwrap(),
        |file, length| file.write_all_at(&[0; 4096], length / 8192 * 4096).unwrap(),
    ];
    for damage in damages {
        let scratch = Scratch::new();
        let path = scratch.path("journal");
        written(&path).await;
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        damage(&file, length);
        let opened = open(&path);
        assert!(matches!(opened, Err(Error::Broken(_))));
        let refusal = why(opened);
        assert!(refusal.contains("is damaged") && refusal.contains("put a copy in its place"), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_changed_on_disk_is_not_given_out() {
    let scratch = Scratch::new();
    let path = scratch.path("journal");
    let all = written(&path).await;
    let bytes = fs::read(&path).unwrap();
    let (last, rest) = all.split_last().unwrap();
    let at = bytes.windows(last.text.len()).position(|window| window == last.text.as_bytes()).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"R", at as u64).unwrap();
    let journal = open(&path).unwrap();
    let before = rest[rest.len() - 2].position;
    let read = journal.read(before, 1).await.unwrap();
    assert_eq!(read.records, rest[rest.len() - 1..]);
    let Err(Error::Broken(why)) = journal.read(before, 2).await else { panic!("it was given out") };
    assert!(why.contains(&format!("position {}", last.position)), "{why}");
}

#[tokio::test]
async fn a_file_of_another_program_or_of_a_newer_one_is_left_alone() {
    let scratch = Scratch::new();
    let other = scratch.path("other");
    rusqlite::Connection::open(&other)
        .unwrap()
        .execute_batch("PRAGMA user_version = 3; CREATE TABLE t (x)")
        .unwrap();
    let refusal = why(open(&other));
    assert!(refusal.contains("of another program"), "{refusal}");
    let newer = scratch.path("newer");
    open(&newer).unwrap();
    rusqlite::Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    let refusal = why(open(&newer));
    assert!(refusal.contains("version 2, this program knows 1"), "{refusal}");
    let refusal = why(open(&scratch.path("none/journal")));
    assert!(refusal.contains("its directory must exist"), "{refusal}");
}

// --- A full disk ---

/// Child of the next test, in a file system of 4 MiB of its own.
#[tokio::test(flavor = "multi_thread")]
async fn fills_its_disk() {
    let Some(directory) = of_parent() else { return };
    let ballast = directory.join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let path = directory.join("journal");
    let journal = open(&path).unwrap();
    let mut mark = Mark::default();
    let text = "y".repeat(10_000);
    for round in 0..2 {
        let refusal = loop {
            match journal.commit(record(&text)).await {
                Ok(position) => mark = mark.then(&Record { position, text: text.as_str().into() }),
                Err(error) => break error,
            }
        };
        let Error::Unavailable(why) = &refusal else { panic!("{refusal:?}") };
        assert!(why.contains("disk is full"), "{why}");
        let read = read_all(&journal).await.iter().fold(Mark::default(), |mark, record| mark.then(record));
        assert_eq!(read, mark, "what was acknowledged is there, and nothing else");
        if round == 0 {
            fs::remove_file(&ballast).unwrap();
            let position = journal.commit(record("again")).await.unwrap();
            mark = mark.then(&Record { position, text: "again".into() });
        }
    }
    drop(journal);
    let journal = open(&path).unwrap();
    let read = read_all(&journal).await.iter().fold(Mark::default(), |mark, record| mark.then(record));
    assert_eq!(read, mark);
    println!("filled twice");
}

#[test]
fn a_full_disk_costs_what_does_not_fit_and_nothing_else() {
    let scratch = Scratch::new();
    let mount = "mount -t tmpfs -o size=4m none \"$PERIGEE_JOURNAL_CHILD\" && exec \"$0\" \"$@\"";
    let own = ["unshare", "--user", "--map-root-user", "--mount"];
    let may = Command::new(own[0]).args(&own[1..]).args(["sh", "-c", "mount -t tmpfs none /tmp"]).output();
    if !may.is_ok_and(|tried| tried.status.success()) {
        println!("skipped: a file system of its own is not allowed here (unshare, mount)");
        return;
    }
    let before = [&own[..], &["sh", "-c", mount]].concat();
    let output = child(&before, "fills_its_disk", &scratch.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("filled twice"), "{said}\n{errors}");
}
