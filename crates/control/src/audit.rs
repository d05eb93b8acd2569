//! Who did what: an entry in the same commit as what was done. Purges have none, because their records say it; so the log of purges
//! goes back as far as records are kept, and the rest as far as [`AUDIT_KEPT_DAYS`](crate::limits::AUDIT_KEPT_DAYS).

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::{Query, State};
use journal::{Commit, Error, Journal};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Shared;
use crate::cells;
use crate::clock::{DAY_MS, day_of, now_ms};
use crate::limits::{AUDIT_KEPT_DAYS, LISTED_MAX};
use crate::problem::Problem;
use crate::tokens::{Caller, Role};
use crate::vault::random_hex;

/// Days that an answer goes back unless asked otherwise.
const DAYS_SHOWN: i64 = 7;

/// One thing that was done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// When, in ms since 1970.
    pub(crate) at_ms: i64,
    /// Name of the token, or `control` for what roll-outs do by themselves.
    pub(crate) by: String,
    /// What was done: `configuration.add`, `rollout.start`, `token.revoke`, …
    pub(crate) action: String,
    /// To what: a version, node or token.
    pub(crate) subject: String,
    /// Why, as they said it.
    pub(crate) reason: Option<String>,
}

/// Adds an entry to what is about to be written.
pub(crate) fn note(
    commit: &mut Commit,
    by: &str,
    action: &str,
    subject: impl Into<String>,
    reason: Option<&str>,
) -> Result<(), Error> {
    let at_ms = now_ms();
    let entry = AuditEntry {
        at_ms,
        by: by.into(),
        action: action.into(),
        subject: subject.into(),
        reason: reason.map(str::to_owned),
    };
    let chance = random_hex::<4>().map_err(Error::Unavailable)?;
    let name = format!("{}{at_ms:015}-{chance}", prefix(day_of(at_ms)));
    commit.cells.push((name, Some(cells::value(&entry)?)));
    Ok(())
}

fn prefix(day: i64) -> String {
    format!("audit/{day}/")
}

/// What `GET /v1/audit` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Days to go back, today included; 7 unless given.
    days: Option<i64>,
    /// Whether purges are left out.
    #[serde(default)]
    without_purges: bool,
}

/// What was done, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditLog {
    /// At most 1,000 entries.
    entries: Vec<AuditEntry>,
    /// Whether there are more in these days.
    has_more: bool,
}

/// Who did what
#[utoipa::path(get, path = "/v1/audit", tag = "operators", params(AuditQuery),
    responses((status = 200, body = AuditLog), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<AuditLog>, Problem> {
    caller.may(Role::Admin)?;
    let Query(query) = query.map_err(|error| Problem::bad(error.body_text()).wanted("?days=7"))?;
    let days = query.days.unwrap_or(DAYS_SHOWN);
    if !(1..=AUDIT_KEPT_DAYS).contains(&days) {
        return Err(Problem::bad("days is out of range")
            .found(days.to_string())
            .wanted(format!("1 to {AUDIT_KEPT_DAYS}")));
    }
    let today = day_of(now_ms());
    let mut entries = match query.without_purges {
        true => Vec::new(),
        false => shared.tail.purges_since((today - days + 1) * DAY_MS),
    };
    entries.extend(self::entries(&*shared.journal, today - days + 1..=today).await?);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at_ms));
    let has_more = entries.len() > LISTED_MAX;
    entries.truncate(LISTED_MAX);
    Ok(Json(AuditLog { entries, has_more }))
}

/// The entries of some days, purges left out.
pub(crate) async fn entries(
    journal: &dyn Journal,
    days: std::ops::RangeInclusive<i64>,
) -> Result<Vec<AuditEntry>, Error> {
    let mut entries = Vec::new();
    for day in days {
        let found = cells::load_all::<AuditEntry>(journal, &prefix(day)).await?;
        entries.extend(found.into_iter().map(|(entry, _)| entry));
    }
    Ok(entries)
}

/// Forgets what is older than it has to be.
pub(crate) async fn sweep(journal: &dyn Journal) -> Result<(), Error> {
    /// A control that was off for a month catches up.
    const DAYS_BACK: i64 = 31;
    let oldest = day_of(now_ms()) - AUDIT_KEPT_DAYS;
    for day in oldest - DAYS_BACK..oldest {
        cells::remove_all(journal, &prefix(day)).await?;
    }
    Ok(())
}
