//! Configurations: checked as a node would check them, kept under ascending numbers, never changed.
//!
//! The text lies in cells by its SHA-256, in pieces that fit into one. It is written first; only then does the version exist. Old
//! texts are forgotten ([`sweep`]); what else is known of a version stays.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use journal::{Commit, Error, Journal};
use model::change::Version;
use model::diff::Difference;
use model::{Diagnostic, Snapshot};
use serde::{Deserialize, Serialize};
use trust::text_hash;
use utoipa::{IntoParams, ToSchema};

use crate::Shared;
use crate::api::{answer, read_json};
use crate::audit;
use crate::budgets;
use crate::cells::{self, bounded};
use crate::clock::now_ms;
use crate::idempotency::Keyed;
use crate::limits::{CONFIGURATION_BYTES_MAX, LISTED_MAX, PIECE_BYTES, TEXTS_KEPT_MAX};
use crate::problem::{NONE_YET, Problem};
use crate::purges::check_reason;
use crate::rollouts;
use crate::tokens::{Caller, Role};

/// Where the number of the newest one is.
const LAST_CELL: &str = "versions-last";

/// Attempts of an addition while others add, too.
const ATTEMPTS_MAX: usize = 5;

/// Bytes of the body that adds one: JSON takes at most six for one.
const BODY_BYTES_MAX: usize = 6 * CONFIGURATION_BYTES_MAX;

/// What is wrong or doubtful in a configuration, and where.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Finding {
    /// `error` or `warning`.
    severity: String,
    /// The file.
    source: String,
    /// From 1.
    line: u32,
    /// In characters, from 1.
    column: u32,
    /// The text that is meant.
    found: String,
    message: String,
    /// What to write instead.
    help: String,
    /// The whole line.
    line_text: String,
}

impl From<&Diagnostic> for Finding {
    fn from(diagnostic: &Diagnostic) -> Self {
        Finding {
            severity: diagnostic.severity.as_str().to_owned(),
            source: diagnostic.source.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            found: diagnostic.found.clone(),
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
            line_text: diagnostic.line_text.clone(),
        }
    }
}

/// What is known of a configuration beside its text.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct VersionInfo {
    /// 1, 2, 3 …
    pub(crate) number: u64,
    /// SHA-256 of the text, in hex.
    pub(crate) hash: String,
    /// Bytes of the text.
    pub(crate) bytes: usize,
    /// Name of the token that added it.
    pub(crate) author: String,
    /// Why.
    pub(crate) reason: String,
    /// When, in ms since 1970.
    pub(crate) at_ms: i64,
    /// The cluster's signature over number and hash, base64.
    pub(crate) signature: String,
    /// Whether its text has been forgotten, as old ones are. It may have been added again since, under another number.
    #[serde(default)]
    forgotten: bool,
}

impl VersionInfo {
    fn cell(number: u64) -> String {
        format!("versions/{number:010}")
    }

    /// As the journal names it.
    pub(crate) fn version(&self) -> Version {
        Version { number: self.number, hash: self.hash.clone(), signature: self.signature.clone() }
    }
}

/// A configuration with this number.
pub(crate) async fn load(journal: &dyn Journal, number: u64) -> Result<VersionInfo, Problem> {
    let found = cells::load::<VersionInfo>(journal, &VersionInfo::cell(number)).await?;
    let Some((info, _)) = found else {
        let last = last(journal).await?.0;
        let problem = Problem::new(StatusCode::NOT_FOUND, "there is no configuration of this number")
            .found(number.to_string());
        return Err(match last {
            0 => problem.wanted(NONE_YET).next("add the first: perigee apply"),
            last => problem.wanted(format!("1 to {last}")).next("perigee versions lists them"),
        });
    };
    Ok(info)
}

/// The number of the newest one, and its cell's version; zeros before the first.
pub(crate) async fn last(journal: &dyn Journal) -> Result<(u64, u64), Error> {
    Ok(cells::load::<u64>(journal, LAST_CELL).await?.unwrap_or_default())
}

/// The text with this hash; `None` when it is nowhere.
pub(crate) async fn text_of(journal: &dyn Journal, hash: &str) -> Result<Option<String>, Error> {
    let pieces = bounded(journal.cells(&pieces_prefix(hash))).await?;
    let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.value).collect();
    if text_hash(&bytes) != hash {
        return match bytes.is_empty() {
            true => Ok(None),
            false => Err(Error::Broken(format!(
                "the configuration {hash} in the journal is damaged: its sum is another"
            ))),
        };
    }
    Ok(String::from_utf8(bytes).ok())
}

fn pieces_prefix(hash: &str) -> String {
    format!("blobs/{hash}/")
}

fn piece_cell(hash: &str, index: usize) -> String {
    format!("{}{index:04}", pieces_prefix(hash))
}

/// The cell where the text with this hash begins, with its version: for commits to expect that need the text, as [`sweep`] may be
/// taking it away.
async fn first_piece(journal: &dyn Journal, hash: &str) -> Result<Option<(String, u64)>, Error> {
    let cell = bounded(journal.cell(&piece_cell(hash, 0))).await?;
    Ok(cell.map(|cell| (cell.name, cell.version)))
}

/// As [`first_piece`], of a configuration that cannot do without.
pub(crate) async fn needed_text(journal: &dyn Journal, info: &VersionInfo) -> Result<(String, u64), Problem> {
    first_piece(journal, &info.hash).await?.ok_or_else(|| no_text(info))
}

fn no_text(info: &VersionInfo) -> Problem {
    if !info.forgotten {
        return Error::Broken(format!("the text of configuration {} is not in the journal", info.number))
            .into();
    }
    Problem::new(StatusCode::GONE, "the text of this configuration is not kept any more")
        .found(format!("configuration {}, added by {}", info.number, info.author))
        .next("take the text from where you keep it, and add it again: perigee apply FILE")
}

/// A configuration that has been accepted, as a snapshot.
pub(crate) async fn parsed(journal: &dyn Journal, version: &Version) -> Result<Snapshot, Error> {
    let missing =
        || Error::Broken(format!("the text of configuration {} is not in the journal", version.number));
    let text = text_of(journal, &version.hash).await?.ok_or_else(missing)?;
    let number = version.number;
    let parsed =
        tokio::task::spawn_blocking(move || Snapshot::parse_cluster(&text, &source(number)).snapshot);
    parsed.await.ok().flatten().ok_or_else(|| {
        Error::Broken(format!(
            "configuration {number} is not understood by this version of control; upgrade it"
        ))
    })
}

fn source(number: u64) -> String {
    format!("configuration {number}")
}

// --- Adding ---

/// A configuration to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigurationWanted {
    /// The whole TOML text.
    text: String,
    /// Why; needed unless `dry_run`.
    #[serde(default)]
    reason: String,
    /// What to call it in diagnostics: the file.
    #[serde(default)]
    source: Option<String>,
    /// Whether to check it only.
    #[serde(default)]
    dry_run: bool,
}

/// What has become of a configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigurationAnswer {
    /// Its number; `null` after a dry run.
    version: Option<u64>,
    /// Whether there is a new version; not when it is the newest one already.
    created: bool,
    /// SHA-256 of the text, in hex.
    hash: String,
    /// Warnings.
    diagnostics: Vec<Finding>,
}

/// Check a configuration, and add it as a new version
///
/// It is in force nowhere before it is rolled out. A configuration with errors is answered with 422 and all of them.
#[utoipa::path(post, path = "/v1/configurations", tag = "configurations", request_body = ConfigurationWanted,
    params(("Idempotency-Key" = Option<String>, Header, description = "see POST /v1/purges")),
    responses((status = 200, body = ConfigurationAnswer, description = "checked only, or there already"),
        (status = 201, body = ConfigurationAnswer), (status = "default", body = Problem)))]
pub(crate) async fn add(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Role::Editor)?;
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let keyed = Keyed::of(&caller, "POST /v1/configurations", &headers, &body)?;
    if let Some(replayed) = shared.replay(keyed.as_ref()).await? {
        return Ok(replayed);
    }
    let wanted: ConfigurationWanted =
        read_json(&headers, &body, r#"{"text": "[[site]] …", "reason": "cache images longer"}"#)?;
    let reason = check_reason(&wanted.reason)?.to_owned();
    if reason.is_empty() && !wanted.dry_run {
        return Err(Problem::bad("reason is empty").wanted("why this configuration: \"cache images longer\""));
    }
    if wanted.text.len() > CONFIGURATION_BYTES_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the configuration is too long")
            .found(format!("{} bytes", wanted.text.len()))
            .wanted(format!("at most {CONFIGURATION_BYTES_MAX}")));
    }
    let hash = text_hash(wanted.text.as_bytes());
    let source = wanted.source.unwrap_or_else(|| "configuration".to_owned());
    let (text, diagnostics, good) = check(wanted.text, source).await?;
    let Some(snapshot) = good else {
        let errors = diagnostics.iter().filter(|finding| finding.severity == "error").count();
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the configuration cannot be used")
            .found(format!("{errors} error{}", if errors == 1 { "" } else { "s" }))
            .next("nothing was changed; correct what the diagnostics say and add it again")
            .diagnostics(diagnostics));
    };
    let _noted_and_shown = shared.refresh_view().await;
    if let Some(budget) = budgets::without_floor(&snapshot, budgets::edges(&shared.view.get())) {
        return Err(Problem::new(StatusCode::CONFLICT, "the cluster has more edges than a budget is for")
            .found(budget)
            .next("nothing was changed; say in the budget how many there are: nodes = …"));
    }
    let mut added = ConfigurationAnswer { version: None, created: false, hash: hash.clone(), diagnostics };
    if wanted.dry_run {
        return Ok(answer(StatusCode::OK, &added));
    }
    let mut is_written = false;
    for _ in 0..ATTEMPTS_MAX {
        let (last, last_version) = last(&*shared.journal).await?;
        if last > 0 && load(&*shared.journal, last).await?.hash == hash {
            added.version = Some(last);
            return Ok(answer(StatusCode::OK, &added));
        }
        if !is_written {
            write_text(&*shared.journal, &hash, &text).await?;
            is_written = true;
        }
        let Some(there) = first_piece(&*shared.journal, &hash).await? else {
            is_written = false;
            continue;
        };
        let number = last + 1;
        let info = VersionInfo {
            number,
            hash: hash.clone(),
            bytes: text.len(),
            author: caller.name().to_owned(),
            reason: reason.clone(),
            at_ms: now_ms(),
            signature: shared.authority.sign(&Version::signed(number, &hash)),
            forgotten: false,
        };
        (added.version, added.created) = (Some(number), true);
        let mut commit = Commit {
            expect: vec![(LAST_CELL.to_owned(), last_version), there],
            cells: vec![
                (LAST_CELL.to_owned(), Some(cells::value(&number)?)),
                (VersionInfo::cell(number), Some(cells::value(&info)?)),
            ],
            record: None,
        };
        audit::note(&mut commit, caller.name(), "configuration.add", number.to_string(), Some(&reason))?;
        match shared.commit_keyed(commit, keyed.as_ref(), StatusCode::CREATED, &added).await {
            Ok(_) => return Ok(answer(StatusCode::CREATED, &added)),
            Err(Error::Conflict(cell)) if cell == LAST_CELL || cell == piece_cell(&hash, 0) => {}
            Err(Error::Conflict(_)) => return shared.replay_now(keyed.as_ref()).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(StatusCode::CONFLICT, "others add configurations at the same time")
        .next("nothing was added; look at theirs first, and add yours again"))
}

/// Every finding, and what can be used; on a thread of its own, as a long one takes a while.
async fn check(text: String, source: String) -> Result<(String, Vec<Finding>, Option<Snapshot>), Problem> {
    let checked = tokio::task::spawn_blocking(move || {
        let parsed = Snapshot::parse_cluster(&text, &source).tested();
        (text, parsed.diagnostics.iter().map(Finding::from).collect(), parsed.snapshot)
    });
    checked.await.map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the configuration could not be checked; nothing was changed",
        )
        .next("this is a mistake of perigee: please report it with the configuration")
    })
}

async fn write_text(journal: &dyn Journal, hash: &str, text: &str) -> Result<(), Error> {
    for (index, piece) in text.as_bytes().chunks(PIECE_BYTES).enumerate() {
        let cells = vec![(piece_cell(hash, index), Some(piece.to_vec()))];
        cells::commit(journal, Commit { cells, ..Commit::default() }).await?;
    }
    Ok(())
}

// --- Looking ---

/// All configurations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Versions {
    /// What has proven itself; `null` before the first.
    stable: Option<u64>,
    /// What is being rolled out.
    candidate: Option<u64>,
    /// The newest first, at most 1,000.
    versions: Vec<VersionInfo>,
}

/// The configurations there are
#[utoipa::path(get, path = "/v1/configurations", tag = "configurations",
    responses((status = 200, body = Versions), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Versions>, Problem> {
    caller.may(Role::Viewer)?;
    let found = cells::load_all::<VersionInfo>(&*shared.journal, "versions/").await?;
    let mut versions: Vec<VersionInfo> = found.into_iter().map(|(info, _)| info).collect();
    versions.sort_by_key(|info| std::cmp::Reverse(info.number));
    versions.truncate(LISTED_MAX);
    let plan = &shared.view.get().plan;
    Ok(Json(Versions {
        stable: plan.stable.as_ref().map(|version| version.number),
        candidate: plan.candidate.as_ref().map(|candidate| candidate.version.number),
        versions,
    }))
}

/// A configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Configuration {
    #[serde(flatten)]
    info: VersionInfo,
    /// The whole TOML text.
    text: String,
}

/// A configuration with its text
#[utoipa::path(get, path = "/v1/configurations/{number}", tag = "configurations",
    params(("number" = u64, Path)),
    responses((status = 200, body = Configuration), (status = "default", body = Problem)))]
pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(number): Path<String>,
) -> Result<Json<Configuration>, Problem> {
    caller.may(Role::Viewer)?;
    let number =
        number.parse().map_err(|_| Problem::bad("this is no configuration's number").found(number))?;
    let info = load(&*shared.journal, number).await?;
    let text = whole_text(&*shared.journal, &info).await?;
    Ok(Json(Configuration { info, text }))
}

async fn whole_text(journal: &dyn Journal, info: &VersionInfo) -> Result<String, Problem> {
    text_of(journal, &info.hash).await?.ok_or_else(|| no_text(info))
}

// --- What tells two apart ---

/// Which two to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DiffQuery {
    /// The older one; what is stable without.
    from: Option<u64>,
    /// The newer one; the newest without.
    to: Option<u64>,
}

/// A key that is another.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangeShown {
    /// The site; `null` for what concerns all.
    site: Option<String>,
    /// The rule.
    rule: Option<String>,
    /// The key; empty for a site or rule as a whole.
    key: String,
    /// Its value before, as TOML.
    from: Option<String>,
    /// Its value now.
    to: Option<String>,
    /// All of this in one line.
    line: String,
}

/// Something to think about twice.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WarningShown {
    /// The site; `null` for what concerns all.
    site: Option<String>,
    /// What it does.
    message: String,
}

/// What tells two configurations apart.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffShown {
    /// The older one; `null` when nothing is stable yet.
    from: Option<u64>,
    to: u64,
    changes: Vec<ChangeShown>,
    warnings: Vec<WarningShown>,
    /// Whether sites, or parts of them, begin empty.
    is_cold: bool,
}

/// What tells two configurations apart
#[utoipa::path(get, path = "/v1/diff", tag = "configurations", params(DiffQuery),
    responses((status = 200, body = DiffShown), (status = "default", body = Problem)))]
pub(crate) async fn diff(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<DiffQuery>, QueryRejection>,
) -> Result<Json<DiffShown>, Problem> {
    caller.may(Role::Viewer)?;
    let Query(query) = query.map_err(|error| Problem::bad(error.body_text()).wanted("?from=3&to=4"))?;
    let stable = shared.view.get().plan.stable.as_ref().map(|version| version.number);
    let from = query.from.or(stable);
    let to = match query.to {
        Some(to) => to,
        None => last(&*shared.journal).await?.0,
    };
    let difference = difference(&shared, from, to).await?;
    let changes = difference.changes.into_iter().map(|change| ChangeShown {
        line: change.to_string(),
        site: change.site,
        rule: change.rule,
        key: change.key,
        from: change.from,
        to: change.to,
    });
    let warnings = difference.warnings.into_iter();
    Ok(Json(DiffShown {
        from,
        to,
        changes: changes.collect(),
        warnings: warnings
            .map(|warning| WarningShown { site: warning.site, message: warning.message })
            .collect(),
        is_cold: difference.is_cold,
    }))
}

/// What tells two configurations apart; from nothing, everything does, and there is nothing to say.
pub(crate) async fn difference(shared: &Shared, from: Option<u64>, to: u64) -> Result<Difference, Problem> {
    let new = load(&*shared.journal, to).await?;
    let Some(from) = from else { return Ok(Difference::default()) };
    let old = load(&*shared.journal, from).await?;
    let (old, new) = (whole_text(&*shared.journal, &old).await?, whole_text(&*shared.journal, &new).await?);
    let compared = tokio::task::spawn_blocking(move || model::diff::diff(&old, &new)).await;
    let unread = |found: &[Diagnostic]| {
        Problem::new(StatusCode::CONFLICT, "one of them is not understood by this version of control")
            .next("upgrade this control")
            .diagnostics(found.iter().map(Finding::from).collect())
    };
    compared.map_err(|_| unread(&[]))?.map_err(|found| unread(&found))
}

// --- Forgetting ---

/// Forgets texts that nobody goes back to: what stays is that of the newest, of what is being rolled out and of what has been stable.
pub(crate) async fn sweep(journal: &dyn Journal) -> Result<(), Error> {
    let (_, last_version) = last(journal).await?;
    let (needed, rollout) = rollouts::needed(journal).await?;
    let mut infos = cells::load_all::<VersionInfo>(journal, "versions/").await?;
    infos.sort_by_key(|(info, _)| std::cmp::Reverse(info.number));
    let old = infos.iter().skip(TEXTS_KEPT_MAX).filter(|(info, _)| needed.contains(&info.number));
    let kept = infos.iter().take(TEXTS_KEPT_MAX).chain(old);
    let kept: HashSet<String> = kept.map(|(info, _)| info.hash.clone()).collect();
    for (mut info, version) in infos {
        if info.forgotten || kept.contains(&info.hash) {
            continue;
        }
        let pieces = bounded(journal.cells(&pieces_prefix(&info.hash))).await?;
        let cell = VersionInfo::cell(info.number);
        info.forgotten = true;
        // While these are the same, nobody has begun to need it.
        let mut expect = vec![(LAST_CELL.to_owned(), last_version), rollout.clone(), (cell.clone(), version)];
        expect.extend(pieces.first().map(|piece| (piece.name.clone(), piece.version)));
        let mut cells = vec![(cell, Some(cells::value(&info)?))];
        cells.extend(pieces.into_iter().map(|piece| (piece.name, None)));
        match cells::commit(journal, Commit { expect, cells, record: None }).await {
            Ok(_) => {}
            // It will be looked at again tomorrow.
            Err(Error::Conflict(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
