//! Page tests that are made again and again: what `perigee measure --keep` has measured, kept and shown over time. A browser runs where there
//! is one, which is not here, so control measures nothing: it keeps what it is told.
//!
//! A day of a test is one cell, so that a look at a week reads eight of them; what tests there are, and the newest of each, is another.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use journal::{Commit, Error, Journal};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Shared;
use crate::api::{answer, read_json};
use crate::cells;
use crate::clock::{day_of, now_ms};
use crate::limits::{PAGE_TEST_BYTES_MAX, PAGE_TESTS_KEPT_DAYS, PAGE_TESTS_MAX, PIECE_BYTES};
use crate::problem::Problem;
use crate::tokens::{Caller, Role};

const CELL: &str = "page-tests";

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Attempts of a write while others write, too.
const ATTEMPTS_MAX: usize = 5;

/// What is measured, and what of a result is bounded one by one. `perigee measure` has eight edges, three views of each, and 200 rounds.
const METRICS: [&str; 7] = ["ttfb", "fcp", "lcp", "load", "cls", "bytes", "requests"];
const SERIES_MAX: usize = 64;
const VALUES_MAX: usize = 200;
const NAME_BYTES_MAX: usize = 60;
const WORD_BYTES_MAX: usize = 100;
const URL_BYTES_MAX: usize = 2_000;
const LINES_MAX: usize = 100;
const LINE_BYTES_MAX: usize = 500;

/// All visits of one kind.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageSeries {
    /// From where: a name, `here` where nothing is emulated.
    place: String,
    /// How that is emulated: `packets` or `relay`; `null` where nothing is.
    emulated_by: Option<String>,
    /// By way of what: `origin`, `CDN`, `CDN 2`, …
    way: String,
    /// Whether that is an edge.
    is_edge: bool,
    /// `first view`, `first view, cold edge` or `repeat view`.
    view: String,
    /// Of each visit that has one, by what is measured: `ttfb`, `fcp`, `lcp` and `load` in ms, `cls`, `bytes`, `requests`.
    values: BTreeMap<String, Vec<f64>>,
}

/// What was measured at one time.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageTestWanted {
    /// Under which name it is kept: letters, digits, `.`, `_` and `-`; at most 60.
    name: String,
    /// The page.
    url: String,
    /// Name and version of the browser.
    browser: String,
    /// At most 64.
    series: Vec<PageSeries>,
    /// What was over its budget, in words.
    over_budget: Vec<String>,
}

/// The same, as it lies in a cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    at_ms: i64,
    by: String,
    url: String,
    browser: String,
    series: Vec<PageSeries>,
    over_budget: Vec<String>,
}

/// A page that is tested, and its newest result.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PageTest {
    name: String,
    url: String,
    /// When it was last measured, in ms since 1970.
    at_ms: i64,
    /// Name of the token that told it.
    by: String,
    /// What was over its budget then.
    over_budget: Vec<String>,
}

/// All pages that are tested.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageTests {
    /// By name; none for a token that is for some sites.
    items: Vec<PageTest>,
}

/// Visits of one kind, in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageSeriesShown {
    place: String,
    /// `packets`, `relay`, or `null` where nothing is emulated.
    emulated_by: Option<String>,
    way: String,
    is_edge: bool,
    view: String,
    /// By what is measured; times in ms.
    medians: BTreeMap<String, f64>,
    /// Of each visit, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<BTreeMap<String, Vec<f64>>>,
}

/// A result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageResult {
    /// When it came, in ms since 1970.
    at_ms: i64,
    by: String,
    url: String,
    browser: String,
    series: Vec<PageSeriesShown>,
    over_budget: Vec<String>,
}

/// Results of a test.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageResults {
    /// What was asked for, in ms since 1970.
    from: i64,
    to: i64,
    /// The oldest first.
    items: Vec<PageResult>,
}

/// What `GET /v1/page-tests/{name}` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageTestQuery {
    /// In ms since 1970; a week before `to` unless given.
    from: Option<i64>,
    /// In ms since 1970; now unless given.
    to: Option<i64>,
    /// Whether the values of each visit are wanted.
    #[serde(default)]
    values: bool,
}

fn day_cell(name: &str, day: i64) -> String {
    format!("{CELL}/{name}/{day}")
}

type Index = BTreeMap<String, PageTest>;

// --- Keeping ---

/// Keep a result of a page test
///
/// For whoever may purge (`--cold` does); not with a token that is for some sites.
#[utoipa::path(post, path = "/v1/page-tests", tag = "statistics", request_body = PageTestWanted,
    responses((status = 201, body = PageTest), (status = "default", body = Problem)))]
pub(crate) async fn keep(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    caller.may(Role::Purger)?;
    if let Some(sites) = caller.sites() {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the token is for some sites")
            .found(sites.join(", "))
            .wanted("one for all: a page test is not of one site"));
    }
    if body.len() > PAGE_TEST_BYTES_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the result is too long")
            .found(format!("{} bytes", body.len()))
            .wanted(format!("at most {PAGE_TEST_BYTES_MAX}: fewer rounds, places or edges")));
    }
    let wanted: PageTestWanted = read_json(
        &headers,
        &body,
        r#"{"name": "home", "url": "https://www.shop.example/", "browser": "Chrome/126", "series": [], "over_budget": []}"#,
    )?;
    check(&wanted)?;
    let test = PageTest {
        name: wanted.name,
        url: wanted.url.clone(),
        at_ms: now_ms(),
        by: caller.name().to_owned(),
        over_budget: wanted.over_budget.clone(),
    };
    let kept = Kept {
        at_ms: test.at_ms,
        by: test.by.clone(),
        url: wanted.url,
        browser: wanted.browser,
        series: wanted.series,
        over_budget: wanted.over_budget,
    };
    for _ in 0..ATTEMPTS_MAX {
        match cells::commit(&*shared.journal, commit(&shared, &test, &kept).await?).await {
            Ok(_) => return Ok(answer(StatusCode::CREATED, &test)),
            Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(StatusCode::CONFLICT, "others keep results at the same time")
        .next("nothing was kept; send it again"))
}

/// What writes a result behind the others of its day.
async fn commit(shared: &Shared, test: &PageTest, kept: &Kept) -> Result<Commit, Problem> {
    let (mut index, index_version) = cells::load::<Index>(&*shared.journal, CELL).await?.unwrap_or_default();
    index.insert(test.name.clone(), test.clone());
    if index.len() > PAGE_TESTS_MAX {
        return Err(Problem::new(StatusCode::CONFLICT, "there are too many page tests")
            .found(format!("{:?} would be one more than {PAGE_TESTS_MAX}", test.name))
            .next(format!(
                "those that nobody makes any more are forgotten after {PAGE_TESTS_KEPT_DAYS} days"
            )));
    }
    let name = day_cell(&test.name, day_of(test.at_ms));
    let (mut day, day_version) = cells::load::<Vec<Kept>>(&*shared.journal, &name).await?.unwrap_or_default();
    day.push(kept.clone());
    let value = cells::value(&day)?;
    if value.len() > PIECE_BYTES {
        return Err(Problem::new(StatusCode::CONFLICT, "there are too many results of this test today")
            .found(format!("{} before this one", day.len() - 1))
            .wanted(format!("{PIECE_BYTES} bytes at most: measure less often, or with fewer rounds")));
    }
    Ok(Commit {
        expect: vec![(CELL.to_owned(), index_version), (name.clone(), day_version)],
        cells: vec![(CELL.to_owned(), Some(cells::value(&index)?)), (name, Some(value))],
        record: None,
    })
}

/// That nothing in it is longer than it may be.
fn check(wanted: &PageTestWanted) -> Result<(), Problem> {
    check_name(&wanted.name)?;
    let too_long = |what: &str, most: usize| {
        Problem::bad(format!("{what} is too long, or there are too many")).wanted(format!("at most {most}"))
    };
    if wanted.url.len() > URL_BYTES_MAX {
        return Err(too_long("the URL", URL_BYTES_MAX));
    }
    if wanted.over_budget.len() > LINES_MAX
        || wanted.over_budget.iter().any(|line| line.len() > LINE_BYTES_MAX)
    {
        return Err(too_long("what is over its budget", LINES_MAX));
    }
    if wanted.series.len() > SERIES_MAX {
        return Err(too_long("the series", SERIES_MAX));
    }
    for series in &wanted.series {
        let words = [&series.place, &series.way, &series.view, &wanted.browser];
        if words.into_iter().chain(&series.emulated_by).any(|word| word.len() > WORD_BYTES_MAX) {
            return Err(too_long("a name", WORD_BYTES_MAX));
        }
        for (metric, values) in &series.values {
            if !METRICS.contains(&metric.as_str()) {
                return Err(Problem::bad("this is not measured").found(metric).wanted(METRICS.join(", ")));
            }
            if values.len() > VALUES_MAX {
                return Err(too_long("a list of values", VALUES_MAX));
            }
            if values.iter().any(|value| *value < 0.0) {
                return Err(Problem::bad("a value is below zero").found(metric));
            }
        }
    }
    Ok(())
}

/// Names are parts of cells' names.
fn check_name(name: &str) -> Result<(), Problem> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_good) {
        true => Err(Problem::bad("this is no name of a page test")
            .found(name)
            .wanted(format!("1 to {NAME_BYTES_MAX} letters, digits, dots, _ and -"))),
        false => Ok(()),
    }
}

// --- Showing ---

/// The pages that are tested
#[utoipa::path(get, path = "/v1/page-tests", tag = "statistics",
    responses((status = 200, body = PageTests), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<PageTests>, Problem> {
    caller.may(Role::Viewer)?;
    let items = match caller.sites() {
        Some(_) => Vec::new(),
        None => cells::load::<Index>(&*shared.journal, CELL)
            .await?
            .map(|(index, _)| index.into_values().collect())
            .unwrap_or_default(),
    };
    Ok(Json(PageTests { items }))
}

/// How fast a page was when
///
/// Results are kept for 90 days.
#[utoipa::path(get, path = "/v1/page-tests/{name}", tag = "statistics", params(("name" = String, Path), PageTestQuery),
    responses((status = 200, body = PageResults), (status = "default", body = Problem)))]
pub(crate) async fn results(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    query: Result<Query<PageTestQuery>, QueryRejection>,
) -> Result<Json<PageResults>, Problem> {
    caller.may(Role::Viewer)?;
    check_name(&name)?;
    let Query(query) =
        query.map_err(|error| Problem::bad(error.body_text()).wanted("?from=1764000000000"))?;
    let index = cells::load::<Index>(&*shared.journal, CELL).await?.map(|(index, _)| index);
    if caller.sites().is_some() || !index.is_some_and(|index| index.contains_key(&name)) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "nobody has kept such a page test")
            .found(name)
            .next("perigee measure list shows those that there are"));
    }
    let now = now_ms();
    let to = query.to.unwrap_or(now);
    let from = query.from.unwrap_or(to.saturating_sub(7 * DAY_MS));
    // What is older or yet to come is not there, and asked for as if it were.
    let days = day_of(from).max(day_of(now) - PAGE_TESTS_KEPT_DAYS)..=day_of(to).min(day_of(now));
    let mut items = Vec::new();
    for day in days {
        let found = cells::load::<Vec<Kept>>(&*shared.journal, &day_cell(&name, day)).await?;
        let kept = found.map(|(kept, _)| kept).unwrap_or_default();
        let meant = kept.into_iter().filter(|one| (from..=to).contains(&one.at_ms));
        items.extend(meant.map(|one| PageResult::of(one, query.values)));
    }
    Ok(Json(PageResults { from, to, items }))
}

impl PageResult {
    fn of(kept: Kept, with_values: bool) -> PageResult {
        let series = kept.series.into_iter().map(|series| PageSeriesShown {
            medians: series
                .values
                .iter()
                .filter_map(|(name, all)| Some((name.clone(), median(all)?)))
                .collect(),
            place: series.place,
            emulated_by: series.emulated_by,
            way: series.way,
            is_edge: series.is_edge,
            view: series.view,
            values: with_values.then_some(series.values),
        });
        PageResult {
            series: series.collect(),
            at_ms: kept.at_ms,
            by: kept.by,
            url: kept.url,
            browser: kept.browser,
            over_budget: kept.over_budget,
        }
    }
}

/// Of an even number, the mean of the two in the middle, as `perigee measure` has it.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    Some(if sorted.len().is_multiple_of(2) { (sorted[half - 1] + upper) / 2.0 } else { upper })
}

// --- Forgetting ---

/// Forgets what is older than it has to be.
pub(crate) async fn sweep(journal: &dyn Journal) -> Result<(), Error> {
    let Some((mut index, version)) = cells::load::<Index>(journal, CELL).await? else { return Ok(()) };
    let oldest = day_of(now_ms()) - PAGE_TESTS_KEPT_DAYS;
    for name in index.keys() {
        let prefix = format!("{CELL}/{name}/");
        let days = cells::bounded(journal.cells(&prefix)).await?;
        let old =
            days.iter().filter(|cell| cell.name[prefix.len()..].parse().is_ok_and(|day: i64| day < oldest));
        for cell in old {
            cells::commit(journal, Commit { cells: vec![(cell.name.clone(), None)], ..Commit::default() })
                .await?;
        }
    }
    let all = index.len();
    index.retain(|_, test| day_of(test.at_ms) >= oldest);
    if index.len() == all {
        return Ok(());
    }
    let commit = Commit {
        expect: vec![(CELL.to_owned(), version)],
        cells: vec![(CELL.to_owned(), Some(cells::value(&index)?))],
        record: None,
    };
    match cells::commit(journal, commit).await {
        // Somebody has just kept a result; the next sweep looks again.
        Ok(_) | Err(Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use journal::memory::Memory;

    use super::*;

    #[tokio::test]
    async fn what_is_old_is_forgotten_and_what_is_not_is_left() {
        let journal = Memory::new("test", 1);
        let today = day_of(now_ms());
        let test = |name: &str, day: i64| PageTest {
            name: name.to_owned(),
            url: String::new(),
            at_ms: day * DAY_MS,
            by: String::new(),
            over_budget: Vec::new(),
        };
        let old = today - PAGE_TESTS_KEPT_DAYS - 1;
        let index: Index =
            [("gone", old), ("home", today)].map(|(name, day)| (name.to_owned(), test(name, day))).into();
        let mut written = vec![(CELL.to_owned(), Some(cells::value(&index).unwrap()))];
        for (name, day) in [("gone", old), ("home", old), ("home", old + 1), ("home", today)] {
            written.push((day_cell(name, day), Some(b"[]".to_vec())));
        }
        cells::commit(&journal, Commit { cells: written, ..Commit::default() }).await.unwrap();
        sweep(&journal).await.unwrap();
        let left = journal.cells(&format!("{CELL}/")).await.unwrap();
        let mut left: Vec<String> = left.into_iter().map(|cell| cell.name).collect();
        left.sort();
        let mut wanted = vec![day_cell("home", old + 1), day_cell("home", today)];
        wanted.sort();
        assert_eq!(left, wanted);
        let (index, _) = cells::load::<Index>(&journal, CELL).await.unwrap().unwrap();
        assert_eq!(index.keys().collect::<Vec<_>>(), ["home"]);
    }
}
