//! Values in the journal's cells, as JSON, and writing with patience.
//!
//! ```text
//! authority                    the cluster's certificate, and its keys, sealed
//! tokens/NAME                  an operator's token
//! enrolments/NAME              an enrolment token
//! nodes/NAME                   a node that has been enrolled
//! controls/NAME                a control that runs, and where
//! plan                         which configuration each node is to run: as in the newest record with a plan
//! rollout                      how far the roll-out has come, and why
//! versions/NUMBER              a configuration's author, reason, hash and signature; NUMBER has ten digits
//! versions-last                the number of the newest one
//! blobs/HASH/INDEX             a piece of its text
//! idempotency/DAY/HASH         what was answered under an idempotency key, sealed
//! idempotency-kept-from        the first day of which they are kept
//! audit/DAY/MS-CHANCE          who did what
//! budgets/HASH                 what nodes may use of an origin's budget, by the hash of the budget's name
//! stables                      the numbers of the configurations that have been stable, and that no rollback has left
//! advice                       the newest report of what to change, and what came of it
//! tested-pages/NAME            a page test: its newest result in short, and how much is kept of which day
//! page-results/NAME/DAY/MS-CHANCE  what it has measured once
//! trimmed                      up to where records have been taken away
//! ```

use std::future::Future;
use std::time::Duration;

use journal::{CELLS_MAX, Commit, Error, Journal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::limits::COMMIT_PATIENCE;

/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long an engine may take for one answer. It has its own limits, which are shorter; this is so that no caller waits for
/// ever on an engine's mistake.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);

/// A cell's value and version.
pub(crate) async fn load<T: DeserializeOwned>(
    journal: &dyn Journal,
    name: &str,
) -> Result<Option<(T, u64)>, Error> {
    let Some(cell) = bounded(journal.cell(name)).await? else { return Ok(None) };
    Ok(Some((parse(name, &cell.value)?, cell.version)))
}

/// All cells whose names start so, with their versions.
pub(crate) async fn load_all<T: DeserializeOwned>(
    journal: &dyn Journal,
    prefix: &str,
) -> Result<Vec<(T, u64)>, Error> {
    let cells = bounded(journal.cells(prefix)).await?;
    cells.iter().map(|cell| Ok((parse(&cell.name, &cell.value)?, cell.version))).collect()
}

/// All cells whose names start so. Those that cannot be read, which a newer control may have written, are named with an error
/// each: one of them must not keep the others from being seen.
pub(crate) async fn load_readable<T: DeserializeOwned>(
    journal: &dyn Journal,
    prefix: &str,
) -> Result<(Vec<T>, Vec<(String, Error)>), Error> {
    let (mut read, mut unread) = (Vec::new(), Vec::new());
    for cell in bounded(journal.cells(prefix)).await? {
        match parse(&cell.name, &cell.value) {
            Ok(value) => read.push(value),
            Err(error) => unread.push((cell.name, error)),
        }
    }
    Ok((read, unread))
}

fn parse<T: DeserializeOwned>(name: &str, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|error| {
        Error::Broken(format!(
            "the cell {name:?} of the journal is not what this version of perigee writes: {error}; has a newer \
             control written it? Then upgrade this one"
        ))
    })
}

/// As a cell's value.
pub(crate) fn value<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Broken(error.to_string()))
}

/// Writes; where the journal cannot be reached, tries again for [`COMMIT_PATIENCE`].
pub(crate) async fn commit(journal: &dyn Journal, commit: Commit) -> Result<u64, Error> {
    let until = Instant::now() + COMMIT_PATIENCE;
    loop {
        match bounded(journal.commit(commit.clone())).await {
            Err(Error::Unavailable(_)) if Instant::now() < until => tokio::time::sleep(RETRY_PAUSE).await,
            done => return done,
        }
    }
}

/// An engine's answer, or that there was none in time.
pub(crate) async fn bounded<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = || Error::Unknown(format!("the engine has not answered for {} s", ENGINE_TIMEOUT.as_secs()));
    tokio::time::timeout(ENGINE_TIMEOUT, work).await.unwrap_or_else(|_| Err(late()))
}

/// Removes all cells whose names start so.
pub(crate) async fn remove_all(journal: &dyn Journal, prefix: &str) -> Result<(), Error> {
    let found = bounded(journal.cells(prefix)).await?;
    for part in found.chunks(CELLS_MAX) {
        let cells = part.iter().map(|cell| (cell.name.clone(), None)).collect();
        commit(journal, Commit { cells, ..Commit::default() }).await?;
    }
    Ok(())
}
