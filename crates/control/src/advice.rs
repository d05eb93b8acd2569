//! What `perigee advise` has found in recorded requests, kept for whoever looks at the dashboard. Control has no log of single
//! requests, so it works nothing out: it keeps the newest report, for which configuration it was made, and what came of it afterwards.
//!
//! Applying a proposal is adding a configuration like any other, by who applies it; undoing it is a roll-back.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use journal::Commit;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Shared;
use crate::api::read_json;
use crate::audit;
use crate::cells;
use crate::clock::now_ms;
use crate::configurations;
use crate::limits::{BODY_BYTES_MAX, PIECE_BYTES};
use crate::problem::Problem;
use crate::tokens::{Caller, Role};

const CELL: &str = "advice";

/// Proposals of a report: `perigee advise` makes fewer.
const PROPOSALS_MAX: usize = 100;

/// Attempts of a write while others write, too.
const ATTEMPTS_MAX: usize = 5;

/// What a proposal changes in the configuration's text: lines at one place.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinesChanged {
    /// The first line that goes, or before which lines come; from 1.
    line: usize,
    /// Lines that go, as they stand there.
    remove: Vec<String>,
    /// Lines that come.
    insert: Vec<String>,
}

/// A change, and what it will bring.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proposal {
    /// From 1, the best first.
    number: usize,
    /// What is wrong: `missing-ttl`, …
    faults: Vec<String>,
    /// What the log has shown.
    evidence: String,
    site: String,
    /// Classes of URLs that it is about; all of the site where empty.
    scope: Vec<String>,
    /// The lines, or what to do at the origin.
    change: String,
    apply: String,
    undo: String,
    /// What is measured: `hit_ratio`, `error_ratio`, `origin_requests_per_request`, `origin_bytes_per_request`, `bytes_per_request` or
    /// `repeat_ratio`.
    metric: String,
    /// Of the log, as the configuration is.
    before: f64,
    /// What is predicted.
    after: f64,
    /// Whether that is an estimate that no replay has made.
    is_estimate: bool,
    /// Hits more per request of the whole log, from 0 to 1.
    hits_gained: f64,
    /// Share of the origin's requests that it is spared.
    origin_spared: f64,
    /// `null` where the origin has to change.
    edit: Option<LinesChanged>,
}

/// What a later log says of a proposal.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    /// Of which proposal.
    number: usize,
    /// What was measured.
    measured: f64,
    /// `kept`, `partly`, `failed` or `unknown`.
    verdict: String,
}

/// A report to keep.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdviceWanted {
    /// The number of the configuration that it was made for.
    configuration: u64,
    /// Requests of the log.
    requests: u64,
    /// At most 100.
    proposals: Vec<Proposal>,
}

/// What came of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerdictsWanted {
    /// Each takes the place of an earlier one of the same number.
    verdicts: Vec<Verdict>,
}

/// The newest report.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Advice {
    /// The number of the configuration that it was made for.
    configuration: u64,
    /// Requests of the log.
    requests: u64,
    /// Name of the token that reported it.
    by: String,
    /// When, in ms since 1970.
    at_ms: i64,
    proposals: Vec<Proposal>,
    /// What later logs said.
    verdicts: Vec<Verdict>,
    /// When the newest of these came, in ms since 1970.
    verified_ms: Option<i64>,
}

fn none() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "nobody has reported any advice yet")
        .next("where an edge's access log is: perigee advise --log access.log --report")
}

/// Whoever keeps advice may change the configuration, of all sites.
fn may_report(caller: &Caller) -> Result<(), Problem> {
    caller.may(Role::Editor)?;
    match caller.sites() {
        None => Ok(()),
        Some(sites) => Err(Problem::new(StatusCode::FORBIDDEN, "the token is for some sites")
            .found(sites.join(", "))
            .wanted("one for all: a report is of a whole configuration")),
    }
}

/// What has been advised
///
/// `null` while nobody has reported any.
#[utoipa::path(get, path = "/v1/advice", tag = "configurations",
    responses((status = 200, body = Option<Advice>), (status = "default", body = Problem)))]
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Option<Advice>>, Problem> {
    caller.may(Role::Viewer)?;
    let Some((mut advice, _)) = cells::load::<Advice>(&*shared.journal, CELL).await? else {
        return Ok(Json(None));
    };
    if let Some(sites) = caller.sites() {
        advice.proposals.retain(|proposal| sites.contains(&proposal.site));
        let is_shown = |number: usize| advice.proposals.iter().any(|proposal| proposal.number == number);
        advice.verdicts.retain(|verdict| is_shown(verdict.number));
    }
    Ok(Json(Some(advice)))
}

/// Keep a report of `perigee advise`
///
/// It takes the place of the one before.
#[utoipa::path(post, path = "/v1/advice", tag = "configurations", request_body = AdviceWanted,
    responses((status = 200, body = Advice), (status = "default", body = Problem)))]
pub(crate) async fn report(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Advice>, Problem> {
    may_report(&caller)?;
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let wanted: AdviceWanted =
        read_json(&headers, &body, r#"{"configuration": 7, "requests": 90000, "proposals": []}"#)?;
    if wanted.proposals.len() > PROPOSALS_MAX {
        return Err(Problem::bad("there are too many proposals")
            .found(wanted.proposals.len().to_string())
            .wanted(format!("at most {PROPOSALS_MAX}")));
    }
    // A number that there is not is refused there.
    configurations::load(&*shared.journal, wanted.configuration).await?;
    let advice = Advice {
        configuration: wanted.configuration,
        requests: wanted.requests,
        by: caller.name().to_owned(),
        at_ms: now_ms(),
        proposals: wanted.proposals,
        verdicts: Vec::new(),
        verified_ms: None,
    };
    keep(&shared, &caller, "advice.report", |_| Ok(advice.clone())).await.map(Json)
}

/// Keep what a later log says of proposals
#[utoipa::path(post, path = "/v1/advice/verdicts", tag = "configurations", request_body = VerdictsWanted,
    responses((status = 200, body = Advice), (status = "default", body = Problem)))]
pub(crate) async fn verify(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Advice>, Problem> {
    may_report(&caller)?;
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let wanted: VerdictsWanted =
        read_json(&headers, &body, r#"{"verdicts": [{"number": 1, "measured": 0.82, "verdict": "kept"}]}"#)?;
    let advice = keep(&shared, &caller, "advice.verify", |known| {
        let mut advice = known.ok_or_else(none)?;
        for verdict in &wanted.verdicts {
            if !advice.proposals.iter().any(|proposal| proposal.number == verdict.number) {
                return Err(Problem::bad("the report has no such proposal")
                    .found(verdict.number.to_string())
                    .next("somebody has reported anew: perigee advise --verify --report takes that one"));
            }
            advice.verdicts.retain(|known| known.number != verdict.number);
            advice.verdicts.push(verdict.clone());
        }
        advice.verified_ms = Some(now_ms());
        Ok(advice)
    });
    advice.await.map(Json)
}

async fn keep(
    shared: &Shared,
    caller: &Caller,
    action: &str,
    change: impl Fn(Option<Advice>) -> Result<Advice, Problem>,
) -> Result<Advice, Problem> {
    for _ in 0..ATTEMPTS_MAX {
        let (known, version) = cells::load::<Advice>(&*shared.journal, CELL).await?.unzip();
        let advice = change(known)?;
        let value = cells::value(&advice)?;
        if value.len() > PIECE_BYTES {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the report is too long")
                .found(format!("{} bytes", value.len()))
                .wanted(format!("at most {PIECE_BYTES}")));
        }
        let mut commit = Commit::swap(CELL, version.unwrap_or_default(), Some(value));
        audit::note(&mut commit, caller.name(), action, advice.configuration.to_string(), None)?;
        match cells::commit(&*shared.journal, commit).await {
            Ok(_) => return Ok(advice),
            Err(journal::Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(StatusCode::CONFLICT, "others report at the same time")
        .next("nothing was changed; report it again"))
}
