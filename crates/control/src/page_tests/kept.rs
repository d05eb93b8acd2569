//! Where results of page tests lie, how many of them there may be, and which go first.
//!
//! ```text
//! tested-pages/NAME                a test: its newest result in short, and how much is kept of which day
//! page-results/NAME/DAY/MS-CHANCE  a result
//! ```
//!
//! A result is a cell of its own, so that keeping one costs what it is long, whatever else was measured that day. Who keeps one, or takes a day
//! away, expects the version of the test's cell: of two who do, one looks again, and there is never a result that no test knows of. Results are taken away
//! before the test's cell says so: who is interrupted in between leaves a day that is named and gone, which is taken away once more.
//!
//! Room is made by days, of the oldest ones first. Two who keep results of different tests at the same moment may together be above it, by no more than these.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use journal::{Commit, Error, Journal};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::PageSeries;
use crate::clock::day_of;
use crate::limits::{
    COMMIT_PATIENCE, PAGE_TEST_KEPT_BYTES_MAX, PAGE_TESTS_KEPT_BYTES_MAX, PAGE_TESTS_KEPT_DAYS,
    PAGE_TESTS_MAX,
};
use crate::problem::Problem;
use crate::vault::random_hex;
use crate::{Counts, Limit, audit, cells};

const TESTS: &str = "tested-pages/";

/// Between two attempts while others write, too. Of those who try at once, one always gets through.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Attempts to forget a test of which somebody keeps results.
const ATTEMPTS_MAX: usize = 5;

/// Of what is over its budget, so much stands with the test; all of it stands with the result.
const LINES_SHOWN: usize = 3;
const LINE_BYTES_SHOWN: usize = 200;

/// A result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) at_ms: i64,
    pub(super) by: String,
    pub(super) url: String,
    pub(super) browser: String,
    pub(super) series: Vec<PageSeries>,
    pub(super) over_budget: Vec<String>,
}

/// A test, of which the newest result is known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) at_ms: i64,
    pub(super) by: String,
    pub(super) over_budget_count: usize,
    pub(super) over_budget: Vec<String>,
    /// What is kept, by day from 1970.
    pub(super) days: BTreeMap<i64, Day>,
}

/// What is kept of a day.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Day {
    pub(super) results: u64,
    bytes: u64,
}

/// Bytes that may be kept.
pub(super) struct Room {
    of_test: u64,
    of_all: u64,
}

impl Default for Room {
    fn default() -> Room {
        Room { of_test: PAGE_TEST_KEPT_BYTES_MAX, of_all: PAGE_TESTS_KEPT_BYTES_MAX }
    }
}

impl Test {
    pub(super) fn bytes(&self) -> u64 {
        self.days.values().map(|day| day.bytes).sum()
    }

    /// Adds a result of so many bytes.
    fn take(&mut self, result: &Kept, bytes: u64) {
        let day = self.days.entry(day_of(result.at_ms)).or_default();
        day.results += 1;
        day.bytes += bytes;
        if result.at_ms >= self.at_ms {
            self.at_ms = result.at_ms;
            self.url.clone_from(&result.url);
            self.by.clone_from(&result.by);
            self.over_budget_count = result.over_budget.len();
            self.over_budget = result.over_budget.iter().take(LINES_SHOWN).map(|line| shown(line)).collect();
        }
    }
}

/// The beginning of a line.
fn shown(line: &str) -> String {
    if line.len() <= LINE_BYTES_SHOWN {
        return line.to_owned();
    }
    format!("{}…", &line[..line.floor_char_boundary(LINE_BYTES_SHOWN)])
}

fn test_cell(name: &str) -> String {
    format!("{TESTS}{name}")
}

fn results_of(name: &str, day: i64) -> String {
    format!("page-results/{name}/{day}/")
}

/// The tests, by name.
pub(super) async fn all(journal: &dyn Journal) -> Result<Vec<Test>, Error> {
    let found = cells::load_all::<Test>(journal, TESTS).await?;
    Ok(found.into_iter().map(|(test, _)| test).collect())
}

/// The results of a test between two moments, the oldest first; `None` where there is no such test.
pub(super) async fn results(
    journal: &dyn Journal,
    name: &str,
    from: i64,
    to: i64,
) -> Result<Option<Vec<Kept>>, Error> {
    let Some((test, _)) = cells::load::<Test>(journal, &test_cell(name)).await? else { return Ok(None) };
    let mut results = Vec::new();
    for day in test.days.keys().filter(|day| (day_of(from)..=day_of(to)).contains(*day)) {
        let found = cells::load_all::<Kept>(journal, &results_of(name, *day)).await?;
        results.extend(found.into_iter().map(|(one, _)| one).filter(|one| (from..=to).contains(&one.at_ms)));
    }
    Ok(Some(results))
}

/// Keeps a result, and makes room for it where there is none.
pub(super) async fn add(
    journal: &dyn Journal,
    counts: &Counts,
    name: &str,
    result: &Kept,
    room: &Room,
) -> Result<Test, Problem> {
    let value = cells::value(result)?;
    let bytes = value.len() as u64;
    let today = day_of(result.at_ms);
    let chance = random_hex::<4>().map_err(Error::Unavailable)?;
    let cell = format!("{}{:015}-{chance}", results_of(name, today), result.at_ms);
    let until = Instant::now() + COMMIT_PATIENCE;
    loop {
        let tests = cells::load_all::<Test>(journal, TESTS).await?;
        let known = tests.iter().find(|(test, _)| test.name == name).cloned();
        if known.is_none() && tests.len() >= PAGE_TESTS_MAX {
            return Err(Problem::new(StatusCode::CONFLICT, "there are too many page tests")
                .found(format!("{name:?} would be one more than {PAGE_TESTS_MAX}"))
                .next("forget one that nobody needs any more: perigee measure forget NAME"));
        }
        if let Some((test, version)) = crowded(&tests, name, bytes, room) {
            counts.reached(Limit::PageTestsKept);
            let oldest = test.days.keys().next().filter(|day| **day < today);
            let day = *oldest.ok_or_else(|| full(test))?;
            match forget_day(journal, test, *version, day).await {
                // Somebody else has changed the test, and perhaps made room.
                Ok(()) | Err(Error::Conflict(_)) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        let (mut test, version) = known.unwrap_or_default();
        name.clone_into(&mut test.name);
        test.take(result, bytes);
        let commit = Commit {
            expect: vec![(test_cell(name), version), (cell.clone(), 0)],
            cells: vec![(test_cell(name), Some(cells::value(&test)?)), (cell.clone(), Some(value.clone()))],
            record: None,
        };
        match cells::commit(journal, commit).await {
            Ok(_) => return Ok(test),
            Err(Error::Conflict(_)) if Instant::now() < until => sleep(RETRY_PAUSE).await,
            Err(Error::Conflict(_)) => {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "others keep results of this test all the time",
                )
                .next("nothing was kept; send it again"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The test that has to lose its oldest day before so many bytes more are kept of one: that one, where it has too much itself; else the one
/// whose oldest day is the oldest of all, and of several the fullest.
fn crowded<'a>(tests: &'a [(Test, u64)], name: &str, bytes: u64, room: &Room) -> Option<&'a (Test, u64)> {
    let own = tests.iter().find(|(test, _)| test.name == name);
    if let Some(own) = own.filter(|(test, _)| test.bytes() + bytes > room.of_test) {
        return Some(own);
    }
    let sum: u64 = tests.iter().map(|(test, _)| test.bytes()).sum();
    if sum + bytes <= room.of_all {
        return None;
    }
    let oldest =
        |(test, _): &&(Test, u64)| test.days.first_key_value().map(|(day, kept)| (*day, Reverse(kept.bytes)));
    tests.iter().filter(|(test, _)| !test.days.is_empty()).min_by_key(oldest)
}

fn full(test: &Test) -> Problem {
    let mebibytes = |bytes: u64| bytes >> 20;
    Problem::new(StatusCode::CONFLICT, "there is no room for more results of page tests today")
        .found(format!("{} bytes of {:?} alone, all of today", test.bytes(), test.name))
        .wanted(format!(
            "{} MiB of a test at most, and {} MiB of all",
            mebibytes(PAGE_TEST_KEPT_BYTES_MAX),
            mebibytes(PAGE_TESTS_KEPT_BYTES_MAX)
        ))
        .next("measure less often, or with fewer rounds, places or edges; or forget a test: perigee measure forget NAME")
}

/// Takes a day of a test away.
async fn forget_day(journal: &dyn Journal, test: &Test, version: u64, day: i64) -> Result<(), Error> {
    cells::remove_all(journal, &results_of(&test.name, day)).await?;
    let mut left = test.clone();
    left.days.remove(&day);
    let commit = Commit {
        expect: vec![(test_cell(&test.name), version)],
        cells: vec![(test_cell(&test.name), Some(cells::value(&left)?))],
        record: None,
    };
    cells::commit(journal, commit).await.map(drop)
}

/// Forgets a test, and notes by whom; `false` where there is none.
pub(super) async fn forget(journal: &dyn Journal, name: &str, by: &str) -> Result<bool, Error> {
    let mut attempt = 0;
    loop {
        let Some((test, version)) = cells::load::<Test>(journal, &test_cell(name)).await? else {
            return Ok(false);
        };
        for day in test.days.keys() {
            cells::remove_all(journal, &results_of(name, *day)).await?;
        }
        let mut commit = Commit {
            expect: vec![(test_cell(name), version)],
            cells: vec![(test_cell(name), None)],
            record: None,
        };
        audit::note(&mut commit, by, "page-test.forget", name, None)?;
        attempt += 1;
        match cells::commit(journal, commit).await {
            Ok(_) => return Ok(true),
            // Somebody has just kept a result of it.
            Err(Error::Conflict(_)) if attempt < ATTEMPTS_MAX => sleep(RETRY_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// Forgets days that are older than they have to be, and tests that have no other. Of all else it reads the tests' cells alone.
pub(super) async fn sweep(journal: &dyn Journal, now_ms: i64) -> Result<(), Error> {
    let oldest = day_of(now_ms) - PAGE_TESTS_KEPT_DAYS;
    for (mut test, version) in cells::load_all::<Test>(journal, TESTS).await? {
        let old: Vec<i64> = test.days.range(..oldest).map(|(day, _)| *day).collect();
        let is_over = day_of(test.at_ms) < oldest;
        if old.is_empty() && !is_over {
            continue;
        }
        for day in old {
            cells::remove_all(journal, &results_of(&test.name, day)).await?;
            test.days.remove(&day);
        }
        let left = if is_over { None } else { Some(cells::value(&test)?) };
        let name = test_cell(&test.name);
        let commit =
            Commit { expect: vec![(name.clone(), version)], cells: vec![(name, left)], record: None };
        match cells::commit(journal, commit).await {
            // Somebody has just kept a result; the next sweep looks again.
            Ok(_) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use journal::memory::{Faults, Memory};

    use super::*;

    const DAY_MS: i64 = 24 * 3600 * 1000;
    const TODAY: i64 = 20_000;

    fn result(day: i64) -> Kept {
        Kept {
            at_ms: day * DAY_MS + 1,
            by: "ci".to_owned(),
            url: "https://www.shop.example/".to_owned(),
            browser: "Chrome/126".to_owned(),
            series: Vec::new(),
            over_budget: Vec::new(),
        }
    }

    /// Bytes of a result.
    fn size() -> u64 {
        cells::value(&result(TODAY)).unwrap().len() as u64
    }

    async fn keep(journal: &Memory, name: &str, day: i64, room: &Room) -> Result<Test, Problem> {
        add(journal, &Counts::default(), name, &result(day), room).await
    }

    /// The results that there are, each by test and day, as cells: with any that no test knows of.
    async fn left(journal: &Memory) -> Vec<String> {
        let found = journal.cells("page-results/").await.unwrap();
        let short = |name: &str| name.split('/').skip(1).take(2).collect::<Vec<_>>().join(" ");
        found.iter().map(|cell| short(&cell.name)).collect()
    }

    #[tokio::test]
    async fn what_is_old_is_forgotten_and_what_is_not_is_left() {
        let journal = Memory::new("test", 1);
        let old = TODAY - PAGE_TESTS_KEPT_DAYS - 1;
        for (name, day) in [("gone", old), ("home", old), ("home", old + 1), ("home", TODAY)] {
            keep(&journal, name, day, &Room::default()).await.unwrap();
        }
        sweep(&journal, TODAY * DAY_MS).await.unwrap();
        assert_eq!(left(&journal).await, [format!("home {}", old + 1), format!("home {TODAY}")]);
        let tests = all(&journal).await.unwrap();
        assert_eq!(tests.iter().map(|test| &test.name).collect::<Vec<_>>(), ["home"]);
        assert_eq!(tests[0].days.keys().copied().collect::<Vec<_>>(), [old + 1, TODAY]);
    }

    #[tokio::test]
    async fn the_oldest_days_make_room_and_today_is_never_one_of_them() {
        let journal = Memory::new("test", 1);
        let room = Room { of_test: 3 * size(), of_all: 4 * size() };
        let today = format!("home {TODAY}");
        for (name, day) in [("home", 1), ("home", 2), ("list", 1), ("list", 1)] {
            keep(&journal, name, day, &room).await.unwrap();
        }
        // Of all there are four: of two tests with an oldest day, the one goes that has more of it.
        keep(&journal, "home", TODAY, &room).await.unwrap();
        assert_eq!(left(&journal).await, ["home 1", "home 2", &*today]);
        // Of this one there are three.
        keep(&journal, "home", TODAY, &room).await.unwrap();
        assert_eq!(left(&journal).await, ["home 2", &*today, &*today]);
        keep(&journal, "home", TODAY, &room).await.unwrap();
        let counts = Counts::default();
        let refused = add(&journal, &counts, "home", &result(TODAY), &room).await;
        assert!(format!("{refused:?}").contains("no room for more results"), "{refused:?}");
        let reached = &counts.limits[Limit::PageTestsKept as usize];
        assert_eq!(reached.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(left(&journal).await.len(), 3);
        let tests = all(&journal).await.unwrap();
        assert_eq!(
            tests.iter().map(|test| (&*test.name, test.bytes())).collect::<Vec<_>>(),
            [("home", 3 * size()), ("list", 0)]
        );
    }

    #[tokio::test]
    async fn the_cells_of_full_tests_stay_small() {
        let journal = Memory::new("test", 1);
        let long = "ü".repeat(250);
        for number in 0..PAGE_TESTS_MAX {
            let kept = Kept { over_budget: vec![long.clone(); 100], ..result(TODAY) };
            let name = format!("page-{number}");
            add(&journal, &Counts::default(), &name, &kept, &Room::default()).await.unwrap();
        }
        let refused = keep(&journal, "one-more", TODAY, &Room::default()).await;
        assert!(format!("{refused:?}").contains("measure forget"), "{refused:?}");
        let all = all(&journal).await.unwrap();
        assert_eq!((all.len(), all[0].over_budget_count, all[0].over_budget.len()), (PAGE_TESTS_MAX, 100, 3));
        let found = journal.cells(TESTS).await.unwrap();
        assert!(found.iter().all(|cell| cell.value.len() < 1_200), "{}", found[0].value.len());
    }

    #[tokio::test]
    async fn nobody_loses_a_result_while_others_keep_some_and_none_is_left_behind() {
        const WRITERS: usize = 20;
        let journal = std::sync::Arc::new(Memory::new("test", 1));
        // So that all are between reading and writing at once.
        journal.set_faults(Faults { delay_max: Duration::from_millis(1), ..Faults::default() });
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..WRITERS {
            let journal = journal.clone();
            all.spawn(async move { keep(&journal, "home", TODAY, &Room::default()).await.is_ok() });
        }
        assert!(all.join_all().await.into_iter().all(|is_kept| is_kept));
        let found = results(&*journal, "home", 0, i64::MAX).await.unwrap().unwrap();
        assert_eq!((found.len(), left(&journal).await.len()), (WRITERS, WRITERS));

        assert!(forget(&*journal, "home", "me").await.unwrap());
        assert_eq!(left(&journal).await, Vec::<String>::new());
        assert!(!forget(&*journal, "home", "me").await.unwrap());
        assert_eq!(journal.cells("audit/").await.unwrap().len(), 1);
    }
}
