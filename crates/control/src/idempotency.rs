//! Idempotency keys: a POST that carries one is done once, however often it is sent.
//!
//! What was answered lies in a cell that is written in the same commit as what was done, so there is never the one without the
//! other. Of two requests with one key that come at the same time, at whichever control, one finds the cell absent and the
//! other gets a conflict, reads it, and gives the same answer. Cells are sealed: an answer may hold a secret.
//!
//! A purge's answer is its position, which is known only once it is written. Its cell says instead how to find it: the record
//! with this hash, above this position.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use journal::{Commit, Error, Journal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Shared;
use crate::cells;
use crate::clock::{day_of, ms, now_ms};
use crate::limits::{IDEMPOTENCY_KEPT, IDEMPOTENCY_KEY_BYTES_MAX};
use crate::problem::Problem;
use crate::tokens::Caller;
use crate::vault::Vault;
use trust::hex;

/// A request that is to be done once.
#[derive(Clone, Debug)]
pub(crate) struct Keyed {
    /// SHA-256 of whose key it is, and the key, in hex.
    name: String,
    /// SHA-256 of the request, in hex.
    request: String,
}

/// What a cell holds.
#[derive(Debug, Serialize, Deserialize)]
struct Answered {
    request: String,
    status: u16,
    answer: Kept,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Whole(Value),
    Purge(PurgeAt),
}

/// Where a purge's record is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PurgeAt {
    /// Above this position.
    pub(crate) after: u64,
    /// SHA-256 of its text, in hex.
    pub(crate) record: String,
    /// How many purges of it were asked for.
    pub(crate) purges: usize,
}

/// What was answered before.
pub(crate) enum Before {
    Whole(StatusCode, Value),
    Purge(PurgeAt),
}

impl Keyed {
    /// The key of a request, if it has one.
    pub(crate) fn of(
        caller: &Caller,
        what: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Keyed>, Problem> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        let key = key.as_bytes();
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(Problem::bad("this is no idempotency key")
                .found(format!("{} bytes", key.len()))
                .wanted(format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, e.g. a UUID")));
        }
        let sum = |parts: [&[u8]; 3]| hex(digest(&SHA256, &parts.join(&0)).as_ref());
        Ok(Some(Keyed {
            name: sum([caller.name().as_bytes(), key, b""]),
            request: sum([what.as_bytes(), body, b""]),
        }))
    }

    /// Whether both are one key of one caller.
    pub(crate) fn is_same(&self, other: &Keyed) -> bool {
        self.name == other.name
    }

    /// The cell that is written today.
    pub(crate) fn cell(&self) -> String {
        self.cell_of(day_of(now_ms()))
    }

    fn cell_of(&self, day: i64) -> String {
        format!("{}{}", prefix(day), self.name)
    }

    /// That this has been answered, as a part of the commit that does it.
    fn add(
        &self,
        commit: &mut Commit,
        vault: &Vault,
        day: i64,
        status: u16,
        answer: Kept,
    ) -> Result<(), Error> {
        let cell = self.cell_of(day);
        let answered = Answered { request: self.request.clone(), status, answer };
        let sealed = vault.seal(&self.name, &cells::value(&answered)?).map_err(Error::Unavailable)?;
        commit.expect.push((cell.clone(), 0));
        commit.cells.push((cell, Some(sealed)));
        Ok(())
    }

    /// As [`Keyed::add`], for an answer that is known beforehand.
    pub(crate) fn add_answer<T: Serialize>(
        &self,
        commit: &mut Commit,
        vault: &Vault,
        status: StatusCode,
        answer: &T,
    ) -> Result<(), Error> {
        let answer = serde_json::to_value(answer).map_err(|error| Error::Broken(error.to_string()))?;
        let today = day_of(now_ms());
        // It may have been answered yesterday, a moment ago, or tomorrow, by another control's clock.
        commit.expect.extend([today - 1, today + 1].map(|day| (self.cell_of(day), 0)));
        self.add(commit, vault, today, status.as_u16(), Kept::Whole(answer))
    }

    /// As [`Keyed::add`], for a purge: there is room in a commit for one day of each, and a purge may be done twice.
    pub(crate) fn add_purge(&self, commit: &mut Commit, vault: &Vault, at: PurgeAt) -> Result<(), Error> {
        self.add(commit, vault, day_of(now_ms()), StatusCode::ACCEPTED.as_u16(), Kept::Purge(at))
    }

    /// What was answered under this key, today or yesterday; or tomorrow, by the clock of another control.
    pub(crate) async fn before(&self, shared: &Shared) -> Result<Option<Before>, Problem> {
        let today = day_of(now_ms());
        for day in [today, today - 1, today + 1] {
            let Some(cell) = cells::bounded(shared.journal.cell(&self.cell_of(day))).await? else { continue };
            let text = shared.vault.open(&self.name, &cell.value);
            let answered = text.and_then(|text| serde_json::from_slice::<Answered>(&text).ok());
            let answered = answered.ok_or_else(|| {
                Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "what was answered under this key cannot be read",
                )
                .next("use another Idempotency-Key, after a look whether it has been done")
            })?;
            if answered.request != self.request {
                return Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "the Idempotency-Key has been used for another request",
                )
                .next("use a new key for each request, and an old one to repeat the very same"));
            }
            return Ok(Some(match answered.answer {
                Kept::Whole(answer) => {
                    Before::Whole(StatusCode::from_u16(answered.status).unwrap_or(StatusCode::OK), answer)
                }
                Kept::Purge(at) => Before::Purge(at),
            }));
        }
        Ok(None)
    }
}

impl Shared {
    /// The answer that was given under this key before, if there was one.
    pub(crate) async fn replay(&self, keyed: Option<&Keyed>) -> Result<Option<Response>, Problem> {
        let Some(keyed) = keyed else { return Ok(None) };
        Ok(match keyed.before(self).await? {
            Some(Before::Whole(status, answer)) => Some((status, Json(answer)).into_response()),
            _ => None,
        })
    }

    /// As [`Shared::replay`], after a conflict: somebody has just been answered, or the conflict was about something else.
    pub(crate) async fn replay_now(&self, keyed: Option<&Keyed>) -> Result<Response, Problem> {
        let replayed = self.replay(keyed).await?;
        replayed.ok_or_else(|| {
            Problem::new(StatusCode::CONFLICT, "somebody else has changed it at the same time")
                .next("nothing was written; look again, and repeat it")
        })
    }

    /// Writes, with what is answered under a key.
    pub(crate) async fn commit_keyed<T: Serialize>(
        &self,
        mut commit: Commit,
        keyed: Option<&Keyed>,
        status: StatusCode,
        answer: &T,
    ) -> Result<u64, Error> {
        if let Some(keyed) = keyed {
            keyed.add_answer(&mut commit, &self.vault, status, answer)?;
        }
        cells::commit(&*self.journal, commit).await
    }
}

fn prefix(day: i64) -> String {
    format!("idempotency/{day}/")
}

/// The first day whose keys have not been forgotten.
const KEPT_FROM_CELL: &str = "idempotency-kept-from";

/// Days whose keys are looked for when it is not known which ones have any: a control that was off for a month catches up.
const DAYS_BACK: i64 = 31;

fn oldest_day() -> i64 {
    day_of(now_ms() - ms(IDEMPOTENCY_KEPT))
}

/// What a cluster is begun with: that no day before has keys to be forgotten.
pub(crate) fn first_cell() -> Result<(String, Option<Vec<u8>>), Error> {
    Ok((KEPT_FROM_CELL.to_owned(), Some(cells::value(&oldest_day())?)))
}

/// Forgets keys of the days before yesterday, in parts, because there may be many.
pub(crate) async fn sweep(journal: &Arc<dyn Journal>) -> Result<(), Error> {
    let oldest = oldest_day();
    let (kept_from, version) = cells::load::<i64>(&**journal, KEPT_FROM_CELL).await?.unwrap_or((0, 0));
    // By another control's clock it may be tomorrow already.
    if kept_from == oldest || kept_from == oldest + 1 {
        return Ok(());
    }
    // What is later still was noted by a clock that was wrong.
    let first = if kept_from > oldest { 0 } else { kept_from };
    for day in first.max(oldest - DAYS_BACK)..oldest {
        for part in 0..=255 {
            cells::remove_all(&**journal, &format!("{}{part:02x}", prefix(day))).await?;
        }
    }
    let commit = Commit::swap(KEPT_FROM_CELL, version, Some(cells::value(&oldest)?));
    match cells::commit(&**journal, commit).await {
        // Another control has done the same.
        Ok(_) | Err(Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use journal::memory::Memory;

    use super::*;

    #[tokio::test]
    async fn keys_are_forgotten_of_days_that_are_over_and_not_looked_for_twice() {
        let journal: Arc<dyn Journal> = Arc::new(Memory::new("j", 1));
        let oldest = oldest_day();
        let write = async |name: String, value: &[u8]| {
            let cells = vec![(name, Some(value.to_vec()))];
            journal.commit(Commit { cells, ..Commit::default() }).await.unwrap();
        };
        let keep = async |days: &[i64]| {
            for day in days {
                write(format!("{}ab12", prefix(*day)), b"x").await;
            }
        };
        let kept = async || -> Vec<i64> {
            let cells = journal.cells("idempotency/").await.unwrap();
            cells.iter().map(|cell| cell.name.split('/').nth(1).unwrap().parse().unwrap()).collect()
        };
        write(KEPT_FROM_CELL.to_owned(), (oldest - 3).to_string().as_bytes()).await;
        keep(&[oldest - 3, oldest - 1, oldest, oldest + 1]).await;
        sweep(&journal).await.unwrap();
        assert_eq!(kept().await, [oldest, oldest + 1]);
        let (from, _) = cells::load::<i64>(&*journal, KEPT_FROM_CELL).await.unwrap().unwrap();
        assert_eq!(from, oldest);

        keep(&[oldest - 2]).await;
        sweep(&journal).await.unwrap();
        assert_eq!(kept().await, [oldest - 2, oldest, oldest + 1], "the day was looked at already");
        // A clock that was ahead has noted what is not so.
        write(KEPT_FROM_CELL.to_owned(), (oldest + 40).to_string().as_bytes()).await;
        sweep(&journal).await.unwrap();
        assert_eq!(kept().await, [oldest, oldest + 1]);
    }

    #[tokio::test]
    async fn an_answer_is_written_once_though_midnight_is_between_the_look_and_the_commit() {
        let state = std::env::temp_dir().join(format!("perigee-midnight-{}", std::process::id()));
        trust::make_private_directory(&state).unwrap();
        let vault = Vault::open_in(&state, true).unwrap();
        std::fs::remove_dir_all(&state).unwrap();
        let keyed = Keyed { name: "ab12".to_owned(), request: "cd34".to_owned() };
        for (day, is_written) in [(-2, true), (-1, false), (0, false), (1, false), (2, true)] {
            let journal = Memory::new("j", 1);
            let cells = vec![(keyed.cell_of(day_of(now_ms()) + day), Some(b"x".to_vec()))];
            journal.commit(Commit { cells, ..Commit::default() }).await.unwrap();
            let mut commit = Commit::default();
            keyed.add_answer(&mut commit, &vault, StatusCode::CREATED, &"made").unwrap();
            assert_eq!(journal.commit(commit).await.is_ok(), is_written, "{day}");
        }
    }

    #[tokio::test]
    async fn a_cluster_that_has_just_begun_looks_for_nothing() {
        let journal: Arc<dyn Journal> = Arc::new(Memory::new("j", 1));
        let before = oldest_day() - 1;
        let state = std::env::temp_dir().join(format!("perigee-idempotency-{}", std::process::id()));
        trust::make_private_directory(&state).unwrap();
        let begun = crate::authority::open(&*journal, &state).await;
        std::fs::remove_dir_all(&state).unwrap();
        assert!(begun.is_ok());
        let name = format!("{}ab12", prefix(before));
        let cells = vec![(name.clone(), Some(b"x".to_vec()))];
        journal.commit(Commit { cells, ..Commit::default() }).await.unwrap();
        sweep(&journal).await.unwrap();
        assert!(journal.cell(&name).await.unwrap().is_some(), "it was looked for");
    }
}
