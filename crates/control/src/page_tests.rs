//! Page tests that are made again and again: what `perigee measure --keep` has measured, kept and shown over time. A browser runs where there
//! is one, which is not here, so control measures nothing: it keeps what it is told.
//!
//! How they lie in cells, and how much of them, is the affair of [`kept`].

mod kept;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use journal::{Error, Journal};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Shared;
use crate::api::{answer, read_json};
use crate::clock::{DAY_MS, now_ms};
use crate::limits::{
    BODY_BYTES_MAX, PAGE_TEST_BYTES_MAX, PAGE_TEST_NAME_BYTES_MAX, PAGE_TEST_SERIES_MAX,
    PAGE_TEST_URL_BYTES_MAX,
};
use crate::problem::Problem;
use crate::tokens::{Caller, Gone, Role};
use kept::{Kept, Room, Series, Test};

/// What is measured, and what of a result is bounded one by one. `perigee measure` has 200 rounds.
const METRICS: [&str; 7] = ["ttfb", "fcp", "lcp", "load", "cls", "bytes", "requests"];
const VALUES_MAX: usize = 200;
const WORD_BYTES_MAX: usize = 100;
/// Each metric of each series may be over its budget.
const LINES_MAX: usize = PAGE_TEST_SERIES_MAX * METRICS.len();
const LINE_BYTES_MAX: usize = 500;

/// All visits of one kind.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageSeries {
    /// From where: a name, `here` where nothing is emulated.
    place: String,
    /// How that is emulated: `packets` or `relay`; `null` where nothing is.
    emulated_by: Option<String>,
    /// How far that is, in words, and what the line does otherwise; `null` where nothing is emulated.
    #[serde(default)]
    line: Option<String>,
    /// By way of what: `origin`, `CDN`, `CDN 2`, …
    way: String,
    /// Whether that is an edge.
    is_edge: bool,
    /// `first view`, `first view, cold edge` or `repeat view`.
    view: String,
    /// Of each visit that has one, by what is measured: `ttfb`, `fcp`, `lcp` and `load` in ms, `cls`, `bytes`, `requests`.
    values: BTreeMap<String, Vec<f64>>,
}

impl From<PageSeries> for Series {
    fn from(told: PageSeries) -> Series {
        Series {
            place: told.place,
            emulated_by: told.emulated_by,
            line: told.line,
            way: told.way,
            is_edge: told.is_edge,
            view: told.view,
            values: told.values,
        }
    }
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

/// A page that is tested, and its newest result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageTest {
    name: String,
    url: String,
    /// When it was last measured, in ms since 1970.
    at_ms: i64,
    /// Name of the token that told it.
    by: String,
    /// How much was over its budget then.
    over_budget_count: usize,
    /// The first of it, in words: three lines of 200 bytes at most.
    over_budget: Vec<String>,
    /// Results that are kept.
    results: u64,
    /// What they have, in bytes.
    bytes: u64,
}

impl From<Test> for PageTest {
    fn from(test: Test) -> PageTest {
        PageTest {
            results: test.days.values().map(|day| day.results).sum(),
            bytes: test.bytes(),
            name: test.name,
            url: test.url,
            at_ms: test.at_ms,
            by: test.by,
            over_budget_count: test.over_budget_count,
            over_budget: test.over_budget,
        }
    }
}

/// All pages that are tested.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageTests {
    /// By name; none for a token that is for some sites.
    items: Vec<PageTest>,
    /// How many there are besides that this control cannot read: a newer one may have written them.
    unread: usize,
}

/// Visits of one kind, in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageSeriesShown {
    place: String,
    /// `packets`, `relay`, or `null` where nothing is emulated.
    emulated_by: Option<String>,
    /// How far that is, in words.
    line: Option<String>,
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
    /// How many there are besides of these days that this control cannot read: a newer one may have written them.
    unread: usize,
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

// --- Keeping ---

/// Keep a result of a page test
///
/// For whoever may purge (`--cold` does); not with a token that is for some sites. Of a test 32 MiB are kept, and 256 MiB of all: above either, the
/// oldest days of the same test go, never those of others nor of today; where they are not enough, the result is refused and nothing goes.
#[utoipa::path(post, path = "/v1/page-tests", tag = "statistics", request_body = PageTestWanted,
    responses((status = 201, body = PageTest), (status = "default", body = Problem)))]
pub(crate) async fn keep(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Role::Purger)?;
    if let Some(sites) = caller.sites() {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the token is for some sites")
            .found(sites.join(", "))
            .wanted("one for all: a page test is not of one site"));
    }
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
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
    let kept = Kept {
        at_ms: now_ms(),
        by: caller.name().to_owned(),
        url: wanted.url,
        browser: wanted.browser,
        series: wanted.series.into_iter().map(Series::from).collect(),
        over_budget: wanted.over_budget,
    };
    let test = kept::add(&*shared.journal, &shared.counts, &wanted.name, &kept, &Room::default()).await?;
    Ok(answer(StatusCode::CREATED, &PageTest::from(test)))
}

/// That nothing in it is longer than it may be.
fn check(wanted: &PageTestWanted) -> Result<(), Problem> {
    check_name(&wanted.name)?;
    let too_long = |what: &str, most: usize| {
        Problem::bad(format!("{what} is too long, or there are too many")).wanted(format!("at most {most}"))
    };
    if wanted.url.len() > PAGE_TEST_URL_BYTES_MAX {
        return Err(too_long("the URL", PAGE_TEST_URL_BYTES_MAX));
    }
    if wanted.over_budget.len() > LINES_MAX
        || wanted.over_budget.iter().any(|line| line.len() > LINE_BYTES_MAX)
    {
        return Err(too_long("what is over its budget", LINES_MAX));
    }
    if wanted.series.len() > PAGE_TEST_SERIES_MAX {
        return Err(too_long("the series", PAGE_TEST_SERIES_MAX));
    }
    for series in &wanted.series {
        let words = [&series.place, &series.way, &series.view, &wanted.browser];
        if words.into_iter().chain(&series.emulated_by).any(|word| word.len() > WORD_BYTES_MAX) {
            return Err(too_long("a name", WORD_BYTES_MAX));
        }
        if series.line.as_ref().is_some_and(|line| line.len() > LINE_BYTES_MAX) {
            return Err(too_long("a line", LINE_BYTES_MAX));
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

fn check_name(name: &str) -> Result<(), Problem> {
    if is_page_test_name(name) {
        return Ok(());
    }
    Err(Problem::bad("this is no name of a page test")
        .found(name)
        .wanted(format!("1 to {PAGE_TEST_NAME_BYTES_MAX} letters, digits, dots, _ and -")))
}

/// Whether control keeps page tests under such a name: 1 to 60 letters and digits of ASCII, dots, `_` and `-`, and not dots alone. Names are parts of
/// cells' names and of paths.
pub fn is_page_test_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=PAGE_TEST_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_good)
        && name.bytes().any(|byte| byte != b'.')
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
    let (tests, unread) = match caller.sites() {
        Some(_) => (Vec::new(), 0),
        None => kept::all(&*shared.journal).await?,
    };
    Ok(Json(PageTests { items: tests.into_iter().map(PageTest::from).collect(), unread }))
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
    let to = query.to.unwrap_or_else(now_ms);
    let from = query.from.unwrap_or(to.saturating_sub(7 * DAY_MS));
    let found = match caller.sites() {
        Some(_) => None,
        None => kept::results(&*shared.journal, &name, from, to).await?,
    };
    let (found, unread) = found.ok_or_else(|| unknown(&name))?;
    let items = found.into_iter().map(|one| PageResult::of(one, query.values)).collect();
    Ok(Json(PageResults { from, to, items, unread }))
}

fn unknown(name: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "nobody has kept such a page test")
        .found(name)
        .next("perigee measure list shows those that there are")
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
            line: series.line,
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

/// Forget a page test
///
/// With all that was measured, for good. For whoever may change the configuration.
#[utoipa::path(delete, path = "/v1/page-tests/{name}", tag = "statistics", params(("name" = String, Path)),
    responses((status = 200, body = Gone), (status = "default", body = Problem)))]
pub(crate) async fn forget(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Gone>, Problem> {
    caller.may(Role::Editor)?;
    check_name(&name)?;
    if !kept::forget(&*shared.journal, &name, caller.name()).await? {
        return Err(unknown(&name));
    }
    Ok(Json(Gone { name, gone: true }))
}

/// Forgets what is older than it has to be.
pub(crate) async fn sweep(journal: &dyn Journal) -> Result<(), Error> {
    kept::sweep(journal, now_ms()).await
}
