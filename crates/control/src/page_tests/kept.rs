//! Where results of page tests lie, how many of them there may be, and which go first.
//!
//! ```text
//! tested-pages/NAME                a test: its newest result in short, and how much is kept of which day
//! page-results/NAME/DAY/MS-CHANCE  a result
//! ```
//!
//! A result is a cell of its own, so that keeping one costs what it is long, whatever else was measured that day. Who keeps one, or takes a day
//! away, expects the version of the test's cell: of two who do, one looks again, and there is never a result that no test knows of.
//!
//! What goes is first written down as going, from when on nothing shows or counts it, and only then removed: who is interrupted in between leaves a mark,
//! and whoever keeps the next result of the test, forgets it, or sweeps, finishes. A test that has no day left is going as a whole.
//!
//! Room is made by the oldest days of the test of which a result is kept, never by those of others: whoever may keep results may not therefore
//! destroy what somebody else has measured. Two who keep results of different tests at the same moment may together be above it, by no more than these.
//!
//! What cannot be read, which a newer control may have written, is left alone and counted as a test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::StatusCode;
use journal::{CELLS_MAX, Commit, Error, Journal};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

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

/// Of what is over its budget, so much stands with the test; all of it stands with the result.
const LINES_SHOWN: usize = 3;
const LINE_BYTES_SHOWN: usize = 200;

/// All visits of one kind, as they lie in a cell. What a newer control has added to them is passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) place: String,
    pub(super) emulated_by: Option<String>,
    #[serde(default)]
    pub(super) line: Option<String>,
    pub(super) way: String,
    pub(super) is_edge: bool,
    pub(super) view: String,
    pub(super) values: BTreeMap<String, Vec<f64>>,
}

/// A result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) at_ms: i64,
    pub(super) by: String,
    pub(super) url: String,
    pub(super) browser: String,
    pub(super) series: Vec<Series>,
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
    /// Days of which results may be left that are to be removed.
    #[serde(default)]
    going: BTreeSet<i64>,
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

    /// Whether there is something to finish before anything else is done with it.
    fn is_going(&self) -> bool {
        self.days.is_empty() || !self.going.is_empty()
    }

    /// From now on these days are not there any more.
    fn let_go(&mut self, days: impl IntoIterator<Item = i64>) {
        for day in days {
            self.days.remove(&day);
            self.going.insert(day);
        }
    }

    /// The oldest days before one that together have so many bytes; `None` where they have fewer.
    fn oldest(&self, before: i64, bytes: u64) -> Option<Vec<i64>> {
        let (mut days, mut freed) = (Vec::new(), 0);
        for (day, kept) in self.days.range(..before) {
            if freed >= bytes {
                break;
            }
            days.push(*day);
            freed += kept.bytes;
        }
        (freed >= bytes).then_some(days)
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

/// What could be read, and how much could not.
pub(super) type Read<T> = (Vec<T>, usize);

/// The tests, by name.
pub(super) async fn all(journal: &dyn Journal) -> Result<Read<Test>, Error> {
    let (mut tests, unread) = cells::load_readable::<Test>(journal, TESTS).await?;
    tests.retain(|test| !test.days.is_empty());
    Ok((tests, unread.len()))
}

/// The results of a test between two moments, the oldest first; `None` where there is no such test.
pub(super) async fn results(
    journal: &dyn Journal,
    name: &str,
    from: i64,
    to: i64,
) -> Result<Option<Read<Kept>>, Error> {
    let found = cells::load::<Test>(journal, &test_cell(name)).await?;
    let Some((test, _)) = found.filter(|(test, _)| !test.days.is_empty()) else { return Ok(None) };
    let (mut results, mut unread) = (Vec::new(), 0);
    for day in test.days.keys().filter(|day| (day_of(from)..=day_of(to)).contains(*day)) {
        let (read, bad) = cells::load_readable::<Kept>(journal, &results_of(name, *day)).await?;
        results.extend(read.into_iter().filter(|one| (from..=to).contains(&one.at_ms)));
        unread += bad.len();
    }
    Ok(Some((results, unread)))
}

/// Keeps a result, and makes room for it among those of the same test where there is none.
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
        let (tests, unread) = cells::load_readable::<Test>(journal, TESTS).await?;
        let known = cells::load::<Test>(journal, &test_cell(name)).await?;
        let is_full = known.is_none() && tests.len() + unread.len() >= PAGE_TESTS_MAX;
        let going = match &known {
            Some((test, _)) => test.is_going().then_some(name),
            // Whoever has no day left makes room for a new one.
            None if is_full => tests.iter().find(|test| test.days.is_empty()).map(|test| &*test.name),
            None => None,
        };
        let done = match (going, known) {
            (Some(going), _) => finish(journal, going).await.map(|()| None),
            (None, None) if is_full => return Err(too_many(name)),
            (None, known) => {
                let (mut test, version) = known.unwrap_or_default();
                name.clone_into(&mut test.name);
                let others: u64 = tests.iter().filter(|one| one.name != name).map(Test::bytes).sum();
                let own = test.bytes() + bytes;
                let lacking =
                    own.saturating_sub(room.of_test).max((others + own).saturating_sub(room.of_all));
                let Some(oldest) = test.oldest(today, lacking) else {
                    counts.reached(Limit::PageTestsKept);
                    return Err(no_room(&test, others));
                };
                let is_crowded = !oldest.is_empty();
                test.let_go(oldest);
                test.take(result, bytes);
                let commit = Commit {
                    expect: vec![(test_cell(name), version), (cell.clone(), 0)],
                    cells: vec![
                        (test_cell(name), Some(cells::value(&test)?)),
                        (cell.clone(), Some(value.clone())),
                    ],
                    record: None,
                };
                let done = cells::commit(journal, commit).await.map(|_| Some(test));
                if is_crowded && done.is_ok() {
                    counts.reached(Limit::PageTestsKept);
                    // The result is kept. Where this fails, the next who keeps one does it, or the sweep.
                    let _ = finish(journal, name).await;
                }
                done
            }
        };
        match done {
            Ok(Some(test)) => return Ok(test),
            Ok(None) | Err(Error::Conflict(_)) if Instant::now() < until => sleep(RETRY_PAUSE).await,
            Ok(None) | Err(Error::Conflict(_)) => {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "others keep results of this test, or take some away, all the time",
                )
                .next("nothing was kept; send it again"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn too_many(name: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "there are too many page tests")
        .found(format!("{name:?} would be one more than {PAGE_TESTS_MAX}"))
        .next("forget one that nobody needs any more: perigee measure forget NAME")
}

fn no_room(test: &Test, others: u64) -> Problem {
    let mebibytes = |bytes: u64| bytes >> 20;
    Problem::new(StatusCode::CONFLICT, "there is no room for more results of this page test today")
        .found(format!(
            "{} bytes of {:?}, of which older days have too few to make room, and {others} bytes of others",
            test.bytes(),
            test.name
        ))
        .wanted(format!(
            "{} MiB of a test at most, and {} MiB of all",
            mebibytes(PAGE_TEST_KEPT_BYTES_MAX),
            mebibytes(PAGE_TESTS_KEPT_BYTES_MAX)
        ))
        .next("measure less often, or with fewer rounds, places or edges; or have a test forgotten that nobody needs: perigee measure forget NAME")
}

/// Removes what is going of a test, and the test where that is all of it. Each step expects the test as it was read, so that nothing is taken
/// away that has been kept meanwhile under the same name.
async fn finish(journal: &dyn Journal, name: &str) -> Result<(), Error> {
    let Some((mut test, version)) = cells::load::<Test>(journal, &test_cell(name)).await? else {
        return Ok(());
    };
    if !test.is_going() {
        return Ok(());
    }
    let expect = vec![(test_cell(name), version)];
    for day in std::mem::take(&mut test.going) {
        let found = cells::bounded(journal.cells(&results_of(name, day))).await?;
        for part in found.chunks(CELLS_MAX) {
            let cells = part.iter().map(|cell| (cell.name.clone(), None)).collect();
            cells::commit(journal, Commit { expect: expect.clone(), cells, record: None }).await?;
        }
    }
    let left = if test.days.is_empty() { None } else { Some(cells::value(&test)?) };
    let commit = Commit { expect, cells: vec![(test_cell(name), left)], record: None };
    cells::commit(journal, commit).await.map(drop)
}

/// Forgets a test, and notes by whom; `false` where there is none.
pub(super) async fn forget(journal: &dyn Journal, name: &str, by: &str) -> Result<bool, Error> {
    let until = Instant::now() + COMMIT_PATIENCE;
    let mut is_known = false;
    loop {
        let Some((mut test, version)) = cells::load::<Test>(journal, &test_cell(name)).await? else {
            return Ok(is_known);
        };
        let done = if test.days.is_empty() {
            is_known = true;
            finish(journal, name).await
        } else if is_known {
            // Somebody else has finished, and there is a new one of the name.
            return Ok(true);
        } else {
            test.let_go(test.days.keys().copied().collect::<Vec<_>>());
            let mut commit = Commit::swap(test_cell(name), version, Some(cells::value(&test)?));
            audit::note(&mut commit, by, "page-test.forget", name, None)?;
            cells::commit(journal, commit).await.map(|_| is_known = true)
        };
        match done {
            Ok(()) => {}
            // Somebody has just kept a result of it, or takes it away, too.
            Err(Error::Conflict(_)) if Instant::now() < until => sleep(RETRY_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// Forgets days that are older than they have to be, and tests that have no other, and finishes what was interrupted. Of all else it reads the
/// tests' cells alone.
///
/// # Errors
/// The first thing that went wrong, once all else is done.
pub(super) async fn sweep(journal: &dyn Journal, now_ms: i64) -> Result<(), Error> {
    let oldest = day_of(now_ms) - PAGE_TESTS_KEPT_DAYS;
    let mut done = Ok(());
    let (tests, unread) = cells::load_readable::<Test>(journal, TESTS).await?;
    for test in tests {
        let swept = match sweep_test(journal, &test.name, oldest).await {
            // Somebody has just kept a result; the next sweep looks again.
            Err(Error::Conflict(_)) => Ok(()),
            swept => swept,
        };
        done = done.and(swept);
    }
    unread.into_iter().fold(done, |done, (_, error)| done.and(Err(error)))
}

async fn sweep_test(journal: &dyn Journal, name: &str, oldest: i64) -> Result<(), Error> {
    let Some((mut test, version)) = cells::load::<Test>(journal, &test_cell(name)).await? else {
        return Ok(());
    };
    let old: Vec<i64> = test.days.range(..oldest).map(|(day, _)| *day).collect();
    if !old.is_empty() {
        test.let_go(old);
        let commit = Commit::swap(test_cell(name), version, Some(cells::value(&test)?));
        cells::commit(journal, commit).await?;
    }
    finish(journal, name).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use journal::memory::{Faults, Memory};
    use journal::{Cell, Page, Work};

    use super::*;
    use crate::clock::DAY_MS;

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

    /// A journal that takes some more commits; then all end like `end`.
    struct Ending {
        memory: Memory,
        left: AtomicUsize,
        end: fn() -> Error,
    }

    impl Ending {
        fn after(memory: Memory, commits: usize, end: fn() -> Error) -> Ending {
            Ending { memory, left: AtomicUsize::new(commits), end }
        }
    }

    impl Journal for Ending {
        fn id(&self) -> &str {
            self.memory.id()
        }
        fn commit(&self, commit: Commit) -> Work<'_, u64> {
            let left =
                self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            match left {
                Ok(_) => self.memory.commit(commit),
                Err(_) => Box::pin(async { Err((self.end)()) }),
            }
        }
        fn read(&self, after: u64, limit: usize) -> Work<'_, Page> {
            self.memory.read(after, limit)
        }
        fn changed(&self, after: u64) -> Work<'_, ()> {
            self.memory.changed(after)
        }
        fn cell(&self, name: &str) -> Work<'_, Option<Cell>> {
            self.memory.cell(name)
        }
        fn cells(&self, prefix: &str) -> Work<'_, Vec<Cell>> {
            self.memory.cells(prefix)
        }
        fn trim(&self, through: u64) -> Work<'_, ()> {
            self.memory.trim(through)
        }
    }

    fn lost() -> Error {
        Error::Unknown("simulated".to_owned())
    }

    /// Writes cells as they are.
    async fn write(journal: &Memory, cells: &[(&str, &str)]) {
        let cells = cells.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())));
        journal.commit(Commit { cells: cells.collect(), ..Commit::default() }).await.unwrap();
    }

    /// The tests that are shown, with the results that each says it has.
    async fn shown(journal: &Memory) -> Vec<(String, u64)> {
        let (tests, _) = all(journal).await.unwrap();
        tests.into_iter().map(|test| (test.name, test.days.values().map(|day| day.results).sum())).collect()
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
        let (tests, _) = all(&journal).await.unwrap();
        assert_eq!(tests.iter().map(|test| &test.name).collect::<Vec<_>>(), ["home"]);
        assert_eq!(tests[0].days.keys().copied().collect::<Vec<_>>(), [old + 1, TODAY]);
    }

    #[tokio::test]
    async fn the_oldest_days_of_the_same_test_make_room_and_nothing_else_does() {
        let journal = Memory::new("test", 1);
        let room = Room { of_test: 3 * size(), of_all: 5 * size() };
        let today = format!("home {TODAY}");
        for (name, day) in
            [("list", 19_991), ("list", 19_991), ("home", 19_992), ("home", 19_993), ("home", 19_994)]
        {
            keep(&journal, name, day, &room).await.unwrap();
        }
        let counts = Counts::default();
        let reached = || counts.limits[Limit::PageTestsKept as usize].load(Ordering::Relaxed);
        let add = async |name: &str| add(&journal, &counts, name, &result(TODAY), &room).await;
        add("home").await.unwrap();
        assert_eq!(left(&journal).await, ["home 19993", "home 19994", &*today, "list 19991", "list 19991"]);
        assert_eq!(reached(), 1);
        // All are full: one that has nothing older itself takes nothing from others, and what is not enough stays.
        let refused = add("new").await;
        assert!(format!("{refused:?}").contains("no room for more results"), "{refused:?}");
        let long = Kept { browser: "x".repeat(3 * size() as usize), ..result(TODAY) };
        super::add(&journal, &counts, "home", &long, &room).await.unwrap_err();
        assert_eq!(left(&journal).await, ["home 19993", "home 19994", &*today, "list 19991", "list 19991"]);
        for _ in 0..2 {
            add("home").await.unwrap();
        }
        add("home").await.unwrap_err();
        assert_eq!(left(&journal).await, [&*today, &*today, &*today, "list 19991", "list 19991"]);
        assert_eq!(shown(&journal).await, [("home".to_owned(), 3), ("list".to_owned(), 2)]);
        assert_eq!(reached(), 6);
    }

    #[tokio::test]
    async fn whatever_is_interrupted_counts_nothing_that_is_gone_and_is_finished_later() {
        const RESULTS: usize = 2 * CELLS_MAX + 1;
        let room = Room { of_test: (RESULTS as u64 + 1) * size(), ..Room::default() };
        let stage = async || {
            let memory = Memory::new("test", 1);
            for _ in 0..RESULTS {
                keep(&memory, "home", TODAY - 2, &room).await.unwrap();
            }
            keep(&memory, "home", TODAY - 1, &room).await.unwrap();
            memory
        };
        // Forgetting: a mark with the entry, three and one of the results, the test.
        for commits in 0..6 {
            let journal = Ending::after(stage().await, commits, lost);
            assert!(forget(&journal, "home", "me").await.is_err(), "{commits}");
            let memory = journal.memory;
            let noted = memory.cells("audit/").await.unwrap().len();
            if commits == 0 {
                let all = RESULTS + 1;
                assert_eq!((noted, left(&memory).await.len()), (0, all));
                assert_eq!(shown(&memory).await, [("home".to_owned(), all as u64)]);
                continue;
            }
            assert_eq!((noted, shown(&memory).await), (1, Vec::new()), "{commits}");
            assert!(results(&memory, "home", 0, i64::MAX).await.unwrap().is_none());
            match commits % 3 {
                0 => sweep(&memory, TODAY * DAY_MS).await.unwrap(),
                1 => assert!(forget(&memory, "home", "me").await.unwrap()),
                _ => {
                    keep(&memory, "home", TODAY - 1, &room).await.unwrap();
                    assert_eq!(left(&memory).await, ["home 19999"]);
                    assert_eq!(shown(&memory).await, [("home".to_owned(), 1)]);
                    continue;
                }
            }
            assert_eq!((left(&memory).await, memory.cells(TESTS).await.unwrap().len()), (Vec::new(), 0));
            assert_eq!(memory.cells("audit/").await.unwrap().len(), 1, "{commits}");
        }
        // Making room: the result with the mark, three of the results, the mark.
        for commits in 1..5 {
            let journal = Ending::after(stage().await, commits, lost);
            add(&journal, &Counts::default(), "home", &result(TODAY), &room).await.unwrap();
            let memory = journal.memory;
            assert_eq!(shown(&memory).await, [("home".to_owned(), 2)], "{commits}");
            assert_eq!(results(&memory, "home", 0, i64::MAX).await.unwrap().unwrap().0.len(), 2);
            sweep(&memory, TODAY * DAY_MS).await.unwrap();
            assert_eq!(left(&memory).await, ["home 19999", "home 20000"], "{commits}");
        }
    }

    #[tokio::test]
    async fn who_meets_others_all_the_time_is_told_and_does_not_try_for_ever() {
        let conflict = || Error::Conflict("simulated".to_owned());
        let room = Room::default();
        let memory = Memory::new("test", 1);
        keep(&memory, "home", TODAY - 2, &room).await.unwrap();
        keep(&memory, "home", TODAY - 1, &room).await.unwrap();
        // With a day that is going, which is to be removed first.
        let journal = Ending::after(memory, 0, conflict);
        let tight = Room { of_test: 2 * size(), ..Room::default() };
        let told = add(&journal, &Counts::default(), "home", &result(TODAY), &tight).await;
        assert!(format!("{told:?}").contains("send it again"), "{told:?}");
        journal.left.store(1, Ordering::Relaxed);
        add(&journal, &Counts::default(), "home", &result(TODAY), &tight).await.unwrap();
        let told = add(&journal, &Counts::default(), "home", &result(TODAY), &tight).await;
        assert!(format!("{told:?}").contains("send it again"), "{told:?}");
        assert!(matches!(forget(&journal, "home", "me").await, Err(Error::Conflict(_))));
        assert_eq!(shown(&journal.memory).await, [("home".to_owned(), 2)]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_keeps_nobody_from_the_rest() {
        let journal = Memory::new("test", 1);
        let old = TODAY - PAGE_TESTS_KEPT_DAYS - 1;
        keep(&journal, "gone", old, &Room::default()).await.unwrap();
        keep(&journal, "home", TODAY, &Room::default()).await.unwrap();
        let newer = r#"{"at_ms":1728000000002,"by":"ci","url":"u","browser":"b","over_budget":[],"colour":1,"series":[
            {"place":"here","emulated_by":null,"way":"CDN","is_edge":true,"view":"first view","values":{},"colour":1}]}"#;
        let day = results_of("home", TODAY);
        write(
            &journal,
            &[("tested-pages/future", "[]"), (&format!("{day}1"), "[]"), (&format!("{day}2"), newer)],
        )
        .await;
        keep(&journal, "home", TODAY, &Room::default()).await.unwrap();
        let (found, unread) = results(&journal, "home", 0, i64::MAX).await.unwrap().unwrap();
        assert_eq!((found.len(), unread), (3, 1));
        assert!(found.iter().any(|one| one.series.len() == 1), "{found:?}");
        let (tests, unread) = all(&journal).await.unwrap();
        assert_eq!((tests.len(), unread), (2, 1));
        let told = sweep(&journal, TODAY * DAY_MS).await;
        assert!(matches!(&told, Err(Error::Broken(why)) if why.contains("tested-pages/future")), "{told:?}");
        assert_eq!(shown(&journal).await, [("home".to_owned(), 2)]);
        keep(&journal, "future", TODAY, &Room::default()).await.unwrap_err();
        let future = journal.cell("tested-pages/future").await.unwrap().unwrap();
        assert_eq!(future.value, b"[]");
    }

    #[tokio::test]
    async fn tests_without_results_take_nobodys_place() {
        let journal = Memory::new("test", 1);
        for number in 1..PAGE_TESTS_MAX {
            keep(&journal, &format!("page-{number}"), TODAY, &Room::default()).await.unwrap();
        }
        let empty = Test { name: "empty".to_owned(), at_ms: TODAY * DAY_MS, ..Test::default() };
        let empty = String::from_utf8(cells::value(&empty).unwrap()).unwrap();
        write(&journal, &[("tested-pages/empty", &empty)]).await;
        keep(&journal, "one-more", TODAY, &Room::default()).await.unwrap();
        keep(&journal, "empty", TODAY, &Room::default()).await.unwrap_err();
        assert_eq!(journal.cells(TESTS).await.unwrap().len(), PAGE_TESTS_MAX);
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
        let (all, _) = all(&journal).await.unwrap();
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
        let (found, _) = results(&*journal, "home", 0, i64::MAX).await.unwrap().unwrap();
        assert_eq!((found.len(), left(&journal).await.len()), (WRITERS, WRITERS));

        assert!(forget(&*journal, "home", "me").await.unwrap());
        assert_eq!(left(&journal).await, Vec::<String>::new());
        assert!(!forget(&*journal, "home", "me").await.unwrap());
        assert_eq!(journal.cells("audit/").await.unwrap().len(), 1);
    }
}
