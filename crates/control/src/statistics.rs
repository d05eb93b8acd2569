//! What the cluster serves, over HTTP: series, lists of URLs, reasons, and what was changed when. Read from [`crate::rollup`].

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{FromRef, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use journal::feed::{Confirm, Counting, Statistics};
use semantics::Why;
use serde::Serialize;
use stats::ListKind;
use stats::key::is_hit;
use stats::rum::{Metric, Views};
use trust::Peer;
use utoipa::ToSchema;

use crate::Shared;
use crate::audit;
use crate::clock::{DAY_MS, now_ms};
use crate::limits::LISTED_MAX;
use crate::problem::Problem;
use crate::rollup::{Answer, Ask, CannotSay, Dim, RumAsk, RumBy, STEPS, Series, Store, Sums, TopAsk};
use crate::tokens::{Caller, Role};
use crate::view::{Picture, View};

/// How far an answer goes back, unless asked otherwise.
const SHOWN_MS: i64 = 15 * 60 * 1000;

/// URLs of a list, unless asked otherwise, and at most.
const TOP_SHOWN: usize = 20;
const TOP_MAX: usize = 200;

/// Values of one filter.
const VALUES_MAX: usize = 500;

/// Days of the audit log that markers are read from: what is older is no line on anybody's chart of days.
const MARKER_DAYS_MAX: i64 = 35;

/// The names of [`STEPS`].
const STEP_NAMES: [&str; STEPS.len()] = ["1s", "1m", "1h", "1d"];

// --- From nodes ---

/// Takes statistics from feeds, and passes those of this control's own nodes on to the others.
pub(crate) struct Takes {
    pub(crate) store: Arc<Store>,
    pub(crate) view: Arc<View>,
    pub(crate) hub: std::sync::Weak<journal::feed::Hub>,
}

impl Counting for Takes {
    fn count(&self, peer: &Peer, line: Arc<Statistics>, confirm: Confirm) -> Result<(), String> {
        let picture = self.view.get();
        let Some(node) = picture.nodes.get(&line.node) else {
            return Err(format!("{} is not enrolled", line.node));
        };
        let is_own = peer.name == line.node;
        if !is_own && !matches!(peer.role, trust::Role::Control | trust::Role::Relay) {
            return Err(format!("{} speaks for {}", peer.name, line.node));
        }
        let pop = if node.pop.is_empty() { "-" } else { &node.pop };
        if peer.role != trust::Role::Control
            && let Some(hub) = self.hub.upgrade()
        {
            hub.share(&line);
        }
        self.store.count(line, pop.to_owned(), confirm);
        Ok(())
    }
}

// --- An edge without a control ---

/// What the paths of statistics are served from.
#[derive(Clone)]
pub(crate) struct Served {
    store: Arc<Store>,
    /// The control, if there is one: it knows which sites and PoPs there are.
    control: Option<Arc<Shared>>,
}

impl FromRef<Arc<Shared>> for Served {
    fn from_ref(shared: &Arc<Shared>) -> Self {
        Served { store: Arc::clone(&shared.statistics), control: Some(Arc::clone(shared)) }
    }
}

impl Served {
    /// What is asked; refuses sites and PoPs of which there is nothing. A control alone does: an edge keeps no list of what there was.
    async fn asked(&self, caller: &Caller, query: Option<String>, known: &[&str]) -> Result<Asked, Problem> {
        let asked = Asked::of(query, known)?;
        for dim in [Dim::Site, Dim::Pop] {
            if let (Some(shared), Some(names)) = (&self.control, asked.values.get(dim.as_str())) {
                refuse_unknown(shared, caller, dim, names).await?;
            }
        }
        Ok(asked)
    }
}

/// Refuses the name of a site or PoP of which there is nothing that the caller may see: no statistics, no configuration in force or being
/// rolled out that has it, and no node in such a PoP. What cannot be known refuses nothing.
async fn refuse_unknown(
    shared: &Arc<Shared>,
    caller: &Caller,
    dim: Dim,
    names: &[String],
) -> Result<(), Problem> {
    let unknown = |picture: &Picture, names: &[String]| -> Vec<String> {
        names.iter().filter(|name| !is_known(picture, caller, dim, name)).cloned().collect()
    };
    let mut unsure = unknown(&shared.view.get(), names);
    if unsure.is_empty() {
        return Ok(());
    }
    let (store, mut seen) = (Arc::clone(&shared.statistics), unsure.clone());
    seen.retain(|name| dim == Dim::Pop || caller.is_for(name));
    let counted = off_the_runtime(move || store.counted(dim, seen, now_ms() / 1000)).await?;
    unsure.retain(|name| !counted.contains(name));
    // It may be of a configuration that came into force a moment ago.
    if unsure.is_empty() || shared.refresh_view().await.is_err() {
        return Ok(());
    }
    let picture = shared.view.get();
    let unknown = unknown(&picture, &unsure);
    let Some(name) = unknown.first().filter(|_| picture.is_whole && picture.unreadable_nodes.is_empty())
    else {
        return Ok(());
    };
    Err(match dim {
        Dim::Pop => Problem::unknown(
            "pop: no configuration in force and no node has a PoP of this name, and there are no statistics of one",
            name,
            picture.pop_names(),
            "name another; perigee stats --by pop --last 30d shows which have some",
        ),
        _ => Problem::unknown(
            "site: no configuration in force has a site of this name, and there are no statistics of one that this token may see",
            name,
            picture.site_names().filter(|site| caller.is_for(site)),
            "name another; perigee stats --by site --last 30d shows which have some",
        ),
    })
}

/// Whether there is a site or PoP of this name now. `-` and `(others)` are keys of answers, and always known.
fn is_known(picture: &Picture, caller: &Caller, dim: Dim, name: &str) -> bool {
    let is_there = match dim {
        Dim::Pop => picture.pop_names().any(|pop| pop == name),
        _ => caller.is_for(name) && picture.has_site(name),
    };
    is_there || matches!(name, "-" | "(others)")
}

/// Statistics of one edge that has no control: the same paths, from a file of its own.
pub struct OwnStatistics {
    store: Arc<Store>,
    sequence: AtomicU64,
}

impl OwnStatistics {
    /// Begins anew in a file.
    ///
    /// # Errors
    /// It cannot be made: why.
    pub fn begin(path: &Path) -> Result<Self, String> {
        for ending in ["", "-wal", "-shm"] {
            let mut file = path.as_os_str().to_owned();
            file.push(ending);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("{}: {error}", Path::new(&file).display()));
                }
                _ => {}
            }
        }
        Ok(OwnStatistics { store: Store::open(path)?, sequence: AtomicU64::new(0) })
    }

    /// Counts a report.
    pub fn count(&self, report: &stats::Report) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let report = BASE64_STANDARD.encode(report.encode());
        let line = Statistics { node: "-".to_owned(), epoch: 1, sequence, lost: 0, report };
        // Nobody waits to hear of it.
        let (confirm, _) = tokio::sync::mpsc::channel(1);
        self.store.count(Arc::new(line), "-".to_owned(), confirm);
    }

    /// The paths, for whoever has been let in by other means.
    pub fn router(&self) -> axum::Router {
        axum::Router::new()
            .route("/v1/stats", get(series))
            .route("/v1/stats/export", get(export))
            .route("/v1/stats/top", get(top))
            .route("/v1/stats/why", get(whys))
            .route("/v1/stats/rum", get(rum))
            .layer(Extension(Caller::of_this_machine()))
            .with_state(Served { store: Arc::clone(&self.store), control: None })
    }
}

// --- What is asked ---

/// The parameters of a request: each known, each value of the right form.
struct Asked {
    values: BTreeMap<String, Vec<String>>,
}

impl Asked {
    fn of(query: Option<String>, known: &[&str]) -> Result<Asked, Problem> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(Problem::bad("the path has no such parameter")
                    .found(name)
                    .wanted(known.join(", ")));
            }
            let many = values.entry(name.into_owned()).or_default();
            if many.len() >= VALUES_MAX {
                return Err(
                    Problem::bad("a parameter has too many values").wanted(format!("at most {VALUES_MAX}"))
                );
            }
            many.push(value.into_owned());
        }
        Ok(Asked { values })
    }

    fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.values.get(name).map(Vec::as_slice) {
            None => Ok(None),
            Some([value]) => Ok(Some(value)),
            Some(values) => Err(Problem::bad(format!("{name} is said more than once"))
                .found(values.join(", "))
                .wanted("one value")),
        }
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        let found = choices.iter().find(|(text, _)| *text == value).map(|(_, choice)| Some(*choice));
        found.ok_or_else(|| {
            let texts: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            Problem::bad(format!("{name} has no such value")).found(value).wanted(texts.join(", "))
        })
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        // Until the year 9999.
        let number = value.parse().ok().filter(|number| (0..=253_402_300_799_999).contains(number));
        number.map(Some).ok_or_else(|| {
            Problem::bad(format!("{name} is no number of this kind"))
                .found(value)
                .wanted("e.g. 1800000000000")
        })
    }

    /// From and to in ms.
    fn span(&self) -> Result<(i64, i64), Problem> {
        let to = self.number("to")?.unwrap_or_else(now_ms);
        let from = self.number("from")?.unwrap_or(to - SHOWN_MS);
        match from < to {
            true => Ok((from, to)),
            false => Err(Problem::bad("from is not before to")
                .found(format!("from {from} to {to}"))
                .wanted("ms since 1970, from before to")),
        }
    }

    /// The sites that count: those that are asked for, as far as the token may see them. `None`: all.
    fn sites(&self, caller: &Caller) -> Option<Vec<String>> {
        let asked = self.values.get("site").cloned();
        let Some(allowed) = caller.sites() else { return asked };
        Some(match asked {
            Some(asked) => asked.into_iter().filter(|site| allowed.contains(site)).collect(),
            None => allowed.to_vec(),
        })
    }

    fn ask(&self, caller: &Caller, by: Option<Dim>, with_points: bool) -> Result<Ask, Problem> {
        let (from, to) = self.span()?;
        let steps: Vec<(&str, usize)> = STEP_NAMES.into_iter().zip(0..).collect();
        let mut filters = BTreeMap::new();
        for dim in Dim::ALL {
            let values = match dim {
                Dim::Site => self.sites(caller),
                _ => self.values.get(dim.as_str()).cloned(),
            };
            values.map(|values| filters.insert(dim, values));
        }
        Ok(Ask {
            from: from.div_euclid(1000),
            to: to.div_euclid(1000) + i64::from(to.rem_euclid(1000) > 0),
            step: self.choice("step", &steps)?,
            by,
            filters,
            with_points,
            now: now_ms() / 1000,
        })
    }
}

const SERIES_PARAMETERS: [&str; 11] =
    ["from", "to", "step", "by", "site", "pop", "country", "class", "rule", "status", "why"];

fn by_choices() -> [(&'static str, Dim); 7] {
    Dim::ALL.map(|dim| (dim.as_str(), dim))
}

impl From<CannotSay> for Problem {
    fn from(cannot: CannotSay) -> Self {
        use axum::http::StatusCode;
        match cannot {
            CannotSay::NotKept(dims) => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this combination is not kept: the cluster has too many different ones",
            )
            .found(dims)
            .wanted("site and pop together, or one of them with one of country, class, status, why; rule with site"),
            CannotSay::TooManyPoints(points) => Problem::bad("the answer would have too many points")
                .found(points.to_string())
                .wanted(format!("at most {}", crate::rollup::POINTS_MAX))
                .next("ask for a coarser step, or leave it out"),
            CannotSay::Broken(why) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the statistics cannot be read")
                    .found(why)
                    .next("look after the disk of control's state directory")
            }
        }
    }
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CannotSay> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(CannotSay::Broken(error.to_string()).into()),
    }
}

// --- Series ---

/// Times to the first byte, in µs, at or below which half, 95 % and 99 % of the answers began; each at most 25 % too high.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Quantiles {
    p50: Option<u64>,
    p95: Option<u64>,
    p99: Option<u64>,
}

impl Quantiles {
    fn of(sums: &Sums) -> Self {
        let quantile = |per_mille| sums.first_byte.quantile_us(per_mille);
        Quantiles { p50: quantile(500), p95: quantile(950), p99: quantile(990) }
    }
}

/// The same for each bucket; `null` where there was nothing.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct QuantilePoints {
    p50: Vec<Option<u64>>,
    p95: Vec<Option<u64>>,
    p99: Vec<Option<u64>>,
}

/// One series: each list has a number for each bucket.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct SeriesShown {
    /// The value of what was asked `by`; absent without.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    requests: Vec<u64>,
    /// Answered from the cache: also stale, and revalidated as unchanged.
    hits: Vec<u64>,
    /// Answered with 500 to 599.
    errors: Vec<u64>,
    /// Sent to visitors, heads and bodies.
    bytes: Vec<u64>,
    /// Of these, those of hits.
    hit_bytes: Vec<u64>,
    /// Attempts at origins. They belong to a site, a rule and a PoP; by anything else, they are under `-`.
    origin_requests: Vec<u64>,
    /// What origins sent.
    origin_bytes: Vec<u64>,
    ttfb_us: QuantilePoints,
}

/// The sums of one series.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct TotalsShown {
    /// As that of the series.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    requests: u64,
    hits: u64,
    errors: u64,
    bytes: u64,
    hit_bytes: u64,
    origin_requests: u64,
    origin_bytes: u64,
    ttfb_us: Quantiles,
}

/// What was lost on the way.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Lost {
    /// Reports of a second that nodes could not deliver, of those heard of in the last day.
    reports: u64,
}

/// Series and their sums.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct StatisticsShown {
    /// Begin of the first bucket and end of the last one, in ms since 1970.
    from: i64,
    to: i64,
    /// Length of a bucket, in ms.
    step: i64,
    /// Buckets at or after this may still grow, in ms since 1970.
    complete_to: i64,
    /// Begin of each bucket, in ms since 1970.
    at: Vec<i64>,
    /// The one with the most requests first; what comes after 1,000 is one, `(others)`.
    series: Vec<SeriesShown>,
    totals: Vec<TotalsShown>,
    lost: Lost,
}

impl TotalsShown {
    fn of(key: Option<String>, sums: &Sums) -> Self {
        TotalsShown {
            key,
            requests: sums.requests,
            hits: sums.hits,
            errors: sums.errors,
            bytes: sums.bytes,
            hit_bytes: sums.hit_bytes,
            origin_requests: sums.origin_requests,
            origin_bytes: sums.origin_bytes,
            ttfb_us: Quantiles::of(sums),
        }
    }
}

impl SeriesShown {
    fn of(key: Option<String>, series: &Series, count: usize) -> Self {
        let mut shown = SeriesShown { key, ..SeriesShown::default() };
        let nothing = Sums::default();
        for bucket in 0..count {
            let sums = series.points.get(bucket).and_then(Option::as_deref).unwrap_or(&nothing);
            for (list, number) in [
                (&mut shown.requests, sums.requests),
                (&mut shown.hits, sums.hits),
                (&mut shown.errors, sums.errors),
                (&mut shown.bytes, sums.bytes),
                (&mut shown.hit_bytes, sums.hit_bytes),
                (&mut shown.origin_requests, sums.origin_requests),
                (&mut shown.origin_bytes, sums.origin_bytes),
            ] {
                list.push(number);
            }
            let quantiles = Quantiles::of(sums);
            shown.ttfb_us.p50.push(quantiles.p50);
            shown.ttfb_us.p95.push(quantiles.p95);
            shown.ttfb_us.p99.push(quantiles.p99);
        }
        shown
    }
}

impl StatisticsShown {
    fn of(answer: &Answer, has_keys: bool) -> Self {
        let count = ((answer.to - answer.from) / answer.step) as usize;
        let key = |series: &Series| has_keys.then(|| series.key.clone());
        let nothing = [Series::default()];
        // Without keys there is always the one series, of zeros perhaps.
        let all = if answer.series.is_empty() && !has_keys { &nothing[..] } else { &answer.series };
        StatisticsShown {
            from: answer.from * 1000,
            to: answer.to * 1000,
            step: answer.step * 1000,
            complete_to: answer.complete_to * 1000,
            at: (0..count as i64).map(|bucket| (answer.from + bucket * answer.step) * 1000).collect(),
            series: all.iter().map(|series| SeriesShown::of(key(series), series, count)).collect(),
            totals: all.iter().map(|series| TotalsShown::of(key(series), &series.total)).collect(),
            lost: Lost { reports: answer.lost },
        }
    }
}

/// What the cluster has served, over time
///
/// Unsampled: each finished request is in exactly one bucket. Each filter may be repeated: any of its values counts. Combinations of
/// dimensions are kept for small clusters; for large ones, site and pop together, or one of them with one other. A site or PoP of which
/// there is nothing is refused with 404, here and in all that follows: no configuration in force or being rolled out has it, no node
/// stands in it, and there are no statistics of it, as far as the token's sites go.
#[utoipa::path(get, path = "/v1/stats", tag = "statistics",
    params(("from" = Option<i64>, Query, description = "in ms since 1970; 15 minutes before `to` unless given"),
        ("to" = Option<i64>, Query, description = "in ms since 1970; now unless given"),
        ("step" = Option<String>, Query, description = "1s (kept for an hour), 1m (a week), 1h or 1d (13 months); without, the finest that is kept for `from` and gives at most 1,000 points"),
        ("by" = Option<String>, Query, description = "one of site, pop, country, class, rule, status, why"),
        ("site" = Option<Vec<String>>, Query), ("pop" = Option<Vec<String>>, Query),
        ("country" = Option<Vec<String>>, Query), ("class" = Option<Vec<String>>, Query),
        ("rule" = Option<Vec<String>>, Query), ("status" = Option<Vec<String>>, Query),
        ("why" = Option<Vec<String>>, Query)),
    responses((status = 200, body = StatisticsShown), (status = "default", body = Problem)))]
pub(crate) async fn series(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<StatisticsShown>, Problem> {
    caller.may(Role::Viewer)?;
    let asked = served.asked(&caller, query, &SERIES_PARAMETERS).await?;
    let by = asked.choice("by", &by_choices())?;
    let ask = asked.ask(&caller, by, true)?;
    let answer = off_the_runtime(move || served.store.ask(&ask)).await?;
    Ok(Json(StatisticsShown::of(&answer, by.is_some())))
}

/// A row of an export.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Row {
    /// Begin of the bucket, in ms since 1970.
    at: i64,
    #[serde(flatten)]
    sums: TotalsShown,
}

/// The same as rows, for other programs
///
/// A row for each bucket and key that has anything.
#[utoipa::path(get, path = "/v1/stats/export", tag = "statistics",
    params(("format" = Option<String>, Query, description = "csv, which is also the default, or json"),
        ("from" = Option<i64>, Query, description = "as all that follows, see /v1/stats"),
        ("to" = Option<i64>, Query), ("step" = Option<String>, Query), ("by" = Option<String>, Query),
        ("site" = Option<Vec<String>>, Query), ("pop" = Option<Vec<String>>, Query),
        ("country" = Option<Vec<String>>, Query), ("class" = Option<Vec<String>>, Query),
        ("rule" = Option<Vec<String>>, Query), ("status" = Option<Vec<String>>, Query),
        ("why" = Option<Vec<String>>, Query)),
    responses((status = 200, body = Vec<Row>, content_type = "application/json"),
        (status = "default", body = Problem)))]
pub(crate) async fn export(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    caller.may(Role::Viewer)?;
    let known: Vec<&str> = SERIES_PARAMETERS.into_iter().chain(["format"]).collect();
    let asked = served.asked(&caller, query, &known).await?;
    let by = asked.choice("by", &by_choices())?;
    let is_csv = asked.choice("format", &[("csv", true), ("json", false)])?.unwrap_or(true);
    let ask = asked.ask(&caller, by, true)?;
    let answer = off_the_runtime(move || served.store.ask(&ask)).await?;
    let rows = answer.series.iter().flat_map(|series| {
        let key = by.is_some().then(|| series.key.clone());
        series.points.iter().zip(0..).filter_map(move |(point, bucket)| {
            let sums = TotalsShown::of(key.clone(), point.as_deref()?);
            Some(Row { at: (answer.from + bucket * answer.step) * 1000, sums })
        })
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by_key(|row| row.at);
    if !is_csv {
        return Ok(Json(rows).into_response());
    }
    let name = format!("attachment; filename=\"perigee-{}.csv\"", by.map_or("all", Dim::as_str));
    let fields =
        [(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((fields, csv(&rows)).into_response())
}

/// RFC 4180.
fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "at,key,requests,hits,errors,bytes,hit_bytes,origin_requests,origin_bytes,ttfb_p50_us,ttfb_p95_us,ttfb_p99_us\r\n",
    );
    for Row { at, sums } in rows {
        let key = quoted(sums.key.as_deref().unwrap_or_default());
        // Writing into memory cannot fail.
        let _ = write!(
            text,
            "{at},{key},{},{},{},{},{},{},{}",
            sums.requests,
            sums.hits,
            sums.errors,
            sums.bytes,
            sums.hit_bytes,
            sums.origin_requests,
            sums.origin_bytes
        );
        for quantile in [sums.ttfb_us.p50, sums.ttfb_us.p95, sums.ttfb_us.p99] {
            let _ = write!(text, ",{}", quantile.map(|us| us.to_string()).unwrap_or_default());
        }
        text.push_str("\r\n");
    }
    text
}

/// A field of CSV. What a spreadsheet would take for a formula is quoted as text.
fn quoted(field: &str) -> String {
    let is_formula = field.len() > 1 && field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    match is_formula || field.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}{}\"", if is_formula { "'" } else { "" }, field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

// --- URLs ---

/// One URL of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopItemShown {
    site: String,
    /// Cut at 512 bytes.
    url: String,
    /// Why it was not answered from the cache; in the list of misses.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    requests: u64,
    bytes: u64,
    /// By how much the one of requests and bytes that the list is ordered by may be too high.
    at_most_too_high: u64,
}

/// The URLs that were asked for most.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopShown {
    /// What the list is of, in ms since 1970: whole minutes, hours or days.
    from: i64,
    to: i64,
    /// No URL was counted more often than this beyond what the list says of it; one that is not in it, not more often than this
    /// or the last one in it. 0: exact.
    error_at_most: u64,
    items: Vec<TopItemShown>,
}

/// The URLs that were asked for most
///
/// Heavy hitters (SpaceSaving), with the error of each.
#[utoipa::path(get, path = "/v1/stats/top", tag = "statistics",
    params(("of" = Option<String>, Query, description = "urls, which is also the default, misses or errors"),
        ("by" = Option<String>, Query, description = "requests, which is also the default, or bytes"),
        ("from" = Option<i64>, Query), ("to" = Option<i64>, Query), ("site" = Option<Vec<String>>, Query),
        ("pop" = Option<Vec<String>>, Query), ("limit" = Option<i64>, Query, description = "20 unless given, 200 at most")),
    responses((status = 200, body = TopShown), (status = "default", body = Problem)))]
pub(crate) async fn top(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<TopShown>, Problem> {
    use ListKind::{
        ErrorsByBytes, ErrorsByRequests, MissesByBytes, MissesByRequests, UrlsByBytes, UrlsByRequests,
    };
    caller.may(Role::Viewer)?;
    let asked = served.asked(&caller, query, &["of", "by", "from", "to", "site", "pop", "limit"]).await?;
    let kinds = asked.choice(
        "of",
        &[
            ("urls", [UrlsByRequests, UrlsByBytes]),
            ("misses", [MissesByRequests, MissesByBytes]),
            ("errors", [ErrorsByRequests, ErrorsByBytes]),
        ],
    )?;
    let is_by_bytes = asked.choice("by", &[("requests", false), ("bytes", true)])?.unwrap_or(false);
    let kind = kinds.unwrap_or([UrlsByRequests, UrlsByBytes])[usize::from(is_by_bytes)];
    let limit = asked.number("limit")?.unwrap_or(TOP_SHOWN as i64);
    if !(1..=TOP_MAX as i64).contains(&limit) {
        return Err(Problem::bad("limit is out of range")
            .found(limit.to_string())
            .wanted(format!("1 to {TOP_MAX}")));
    }
    let ask = top_ask(&asked, &caller, Some(kind), limit as usize)?;
    let top = off_the_runtime(move || served.store.top(&ask)).await?;
    let items = top.items.into_iter().map(|item| {
        let entry = item.entry;
        let (requests, bytes) =
            if kind.is_by_bytes() { (entry.other, entry.count) } else { (entry.count, entry.other) };
        TopItemShown {
            site: item.site,
            url: entry.url,
            why: entry.of.why.map(Why::as_str),
            requests,
            bytes,
            at_most_too_high: entry.over,
        }
    });
    Ok(Json(TopShown {
        from: top.from * 1000,
        to: top.to * 1000,
        error_at_most: top.floor,
        items: items.collect(),
    }))
}

fn top_ask(asked: &Asked, caller: &Caller, kind: Option<ListKind>, limit: usize) -> Result<TopAsk, Problem> {
    let (from, to) = asked.span()?;
    Ok(TopAsk {
        from: from.div_euclid(1000),
        to: to.div_euclid(1000) + i64::from(to.rem_euclid(1000) > 0),
        now: now_ms() / 1000,
        kind,
        sites: asked.sites(caller),
        pops: asked.values.get("pop").cloned(),
        limit,
    })
}

// --- Reasons ---

/// A request that ended so.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExampleShown {
    url: String,
    /// When it ended, in ms since 1970.
    at: i64,
    pop: String,
    /// What its Cache-Status said.
    cache_status: String,
}

/// What ended for one reason.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WhyShown {
    /// The reason, as in `detail=` of Cache-Status.
    why: String,
    /// What it means.
    about: String,
    /// What to do about it.
    next: Option<String>,
    /// Whether it was answered from the cache.
    is_hit: bool,
    requests: u64,
    /// Sent to visitors.
    bytes: u64,
    /// The newest one; `null` for hits, and where none is kept for so long.
    example: Option<ExampleShown>,
}

/// All reasons.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Whys {
    /// Those with the most requests first.
    items: Vec<WhyShown>,
}

/// Why requests ended as they did
///
/// Each request has exactly one reason, so these sum up to all requests.
#[utoipa::path(get, path = "/v1/stats/why", tag = "statistics",
    params(("from" = Option<i64>, Query), ("to" = Option<i64>, Query), ("site" = Option<Vec<String>>, Query),
        ("pop" = Option<Vec<String>>, Query)),
    responses((status = 200, body = Whys), (status = "default", body = Problem)))]
pub(crate) async fn whys(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Whys>, Problem> {
    caller.may(Role::Viewer)?;
    let asked = served.asked(&caller, query, &["from", "to", "site", "pop"]).await?;
    let ask = asked.ask(&caller, Some(Dim::Why), false)?;
    let examples = top_ask(&asked, &caller, None, 0)?;
    let (ask_from, ask_to) = (ask.from * 1000, ask.to * 1000);
    let (answer, top) =
        off_the_runtime(move || Ok((served.store.ask(&ask)?, served.store.top(&examples)?))).await?;
    let mut newest: HashMap<Why, ExampleShown> = HashMap::new();
    // The newest first.
    for shown in top.examples.into_iter().filter(|shown| (ask_from..ask_to).contains(&shown.example.at_ms)) {
        if let Some(why) = shown.example.of.why {
            newest.entry(why).or_insert(ExampleShown {
                url: shown.example.url,
                at: shown.example.at_ms,
                pop: shown.pop,
                cache_status: shown.example.cache_status,
            });
        }
    }
    let items = answer.series.iter().filter(|series| series.total.requests > 0).map(|series| {
        let why = Why::ALL.iter().copied().find(|why| why.as_str() == series.key);
        WhyShown {
            why: series.key.clone(),
            about: why.map_or("A reason that this version does not know.", Why::sentence).to_owned(),
            next: why.and_then(next_step).map(str::to_owned),
            is_hit: why.is_some_and(is_hit),
            requests: series.total.requests,
            bytes: series.total.bytes,
            example: why.and_then(|why| newest.remove(&why)),
        }
    });
    Ok(Json(Whys { items: items.collect() }))
}

/// What to do about a reason, if there is something.
pub fn next_step(why: Why) -> Option<&'static str> {
    Some(match why {
        Why::Absent => {
            "Normal for what is new or rare. For much that is asked for often: give the store more memory or a disk, or a longer ttl."
        }
        Why::Variant => {
            "Look at Vary of the answer: vary of a rule makes values alike, and what makes no difference can be left out."
        }
        Why::Expired => {
            "Give it a longer ttl, by Cache-Control of the origin or by rule, and purge it when it changes."
        }
        Why::Revalidated => {
            "Served as a hit, after a question to the origin: stale-while-revalidate spares visitors the wait."
        }
        Why::Purged => "Narrow purges to what has changed, or make them soft.",
        Why::RequestDirective => {
            "Visitors ask for fresh answers (reload). If the site may ignore that, say so by rule."
        }
        Why::Partial => "Ranges of long bodies fill in as they are asked for; a disk keeps them.",
        Why::Uncacheable => {
            "Look at Cache-Control and Set-Cookie of the example: the origin forbids it, or says nothing. A rule may set a ttl."
        }
        Why::TooLarge => "Give the store a disk: bodies of any length are kept there in slices.",
        Why::HitForMiss => "As uncacheable: what the first of these was told stands in its Cache-Status.",
        Why::Rule => "A rule says so: see whether it matches more than it should (perigee explain URL).",
        Why::OriginConnect | Why::OriginTimeout | Why::OriginDown => {
            "Look after the origin; stale-if-error serves what is stored meanwhile."
        }
        Why::OriginBudget => {
            "The origin's budget is used up: raise it if the origin can take more, or have more answered from what is stored."
        }
        Why::OriginProtocol => {
            "The origin breaks off, or breaks HTTP's rules: its error log has the time of the example."
        }
        Why::Limit => "Limits of the edge or a rule were reached: perigee_limits_reached_total says which.",
        Why::UnknownSite => {
            "Somebody asks for a host that no site has: a name that points here, or a scanner."
        }
        Why::Loop => "The origin's name leads back to this network: correct the origin of the site.",
        Why::BadRequest => "Requests that break HTTP's rules: scanners, mostly.",
        Why::Internal => "A fault of the edge: its log has the rest. Please report it.",
        Why::Fresh
        | Why::StaleWhileRevalidate
        | Why::StaleIfError
        | Why::StaleBudget
        | Why::Collapsed
        | Why::Method
        | Why::Upgrade
        | Why::Redirect
        | Why::Challenge
        | Why::Beacon
        | Why::Preflight
        | Why::OnlyIfCached
        | Why::Blocked
        | Why::ClientCertificate
        | Why::Misdirected
        | Why::ClientGone => return None,
    })
}

// --- Page views ---

/// What browsers have told of one metric: in ms, `cls` as it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetricShown {
    /// Page views that told of it.
    views: u64,
    p50: Option<f64>,
    p75: Option<f64>,
    p95: Option<f64>,
    /// Page views where it was good, and poor, as web.dev has it; absent for what is only a part of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    good: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poor: Option<u64>,
    /// How far the values may be off because they were rounded: half of this.
    resolution: f64,
}

/// Page views of one key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ViewsShown {
    /// The value of what was asked `by`; absent for all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    views: u64,
    /// By name: ttfb, fcp, lcp, inp, cls, load; of ttfb, redirect, dns, connect, tls, wait. Those that nobody told of are absent.
    metrics: BTreeMap<&'static str, MetricShown>,
}

/// What visitors' browsers have told of page views.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RumShown {
    /// What it is of, in ms since 1970: whole minutes, hours or days.
    from: i64,
    to: i64,
    /// Length of a bucket, in ms.
    step: i64,
    /// All together.
    total: ViewsShown,
    /// By key, those with the most page views first, 200 at most; empty without `by`.
    items: Vec<ViewsShown>,
    /// Begin of each bucket, in ms since 1970.
    at: Vec<i64>,
    /// Page views of each bucket.
    views: Vec<u64>,
    /// The 75th percentile of each bucket, by metric; `null` where nobody told of it.
    p75: BTreeMap<&'static str, Vec<Option<f64>>>,
}

/// A value in the unit that is shown.
fn shown(metric: Metric, value: u32) -> f64 {
    if metric == Metric::Cls { f64::from(value) / 1_000.0 } else { f64::from(value) }
}

impl ViewsShown {
    fn of(key: Option<String>, views: &Views) -> Self {
        let told = Metric::ALL.iter().filter(|metric| views.of(**metric).count() > 0);
        let metrics = told.map(|metric| {
            let spread = views.of(*metric);
            let quantile = |per_mille| spread.quantile(per_mille).map(|value| shown(*metric, value));
            let all = spread.count();
            let shown = MetricShown {
                views: all,
                p50: quantile(500),
                p75: quantile(750),
                p95: quantile(950),
                good: metric.bounds().map(|(good, _)| spread.count_to(good)),
                poor: metric.bounds().map(|(_, poor)| all - spread.count_to(poor)),
                resolution: shown(*metric, spread.resolution()),
            };
            (metric.as_str(), shown)
        });
        ViewsShown { key, views: views.count, metrics: metrics.collect() }
    }
}

/// What visitors' browsers have told of page views
///
/// Web Vitals, the load event, and the parts of the time to the first byte, of the sites and rules that say `rum`. Two of pop, country
/// and group together are kept for small clusters.
#[utoipa::path(get, path = "/v1/stats/rum", tag = "statistics",
    params(("from" = Option<i64>, Query, description = "in ms since 1970; 15 minutes before `to` unless given"),
        ("to" = Option<i64>, Query, description = "in ms since 1970; now unless given"),
        ("by" = Option<String>, Query, description = "one of site, pop, country, group"),
        ("site" = Option<Vec<String>>, Query), ("pop" = Option<Vec<String>>, Query),
        ("country" = Option<Vec<String>>, Query), ("group" = Option<Vec<String>>, Query, description = "of pages: as a rule names it, or the first part of their paths")),
    responses((status = 200, body = RumShown), (status = "default", body = Problem)))]
pub(crate) async fn rum(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<RumShown>, Problem> {
    caller.may(Role::Viewer)?;
    let asked =
        served.asked(&caller, query, &["from", "to", "by", "site", "pop", "country", "group"]).await?;
    let choices =
        [("site", RumBy::Site), ("pop", RumBy::Pop), ("country", RumBy::Country), ("group", RumBy::Group)];
    let by = asked.choice("by", &choices)?;
    let (from, to) = asked.span()?;
    let values = |name: &str| asked.values.get(name).cloned();
    let ask = RumAsk {
        from: from.div_euclid(1000),
        to: to.div_euclid(1000) + i64::from(to.rem_euclid(1000) > 0),
        now: now_ms() / 1000,
        by,
        filters: [asked.sites(&caller), values("pop"), values("country"), values("group")],
    };
    let answer = off_the_runtime(move || served.store.rum(&ask)).await?;
    let p75 = Metric::ALL.iter().filter(|metric| answer.total.of(**metric).count() > 0).map(|metric| {
        let point = |views: &Views| views.of(*metric).quantile(750).map(|value| shown(*metric, value));
        (metric.as_str(), answer.points.iter().map(point).collect())
    });
    Ok(Json(RumShown {
        from: answer.from * 1000,
        to: answer.to * 1000,
        step: answer.step * 1000,
        total: ViewsShown::of(None, &answer.total),
        items: answer.by_key.iter().map(|(key, views)| ViewsShown::of(Some(key.clone()), views)).collect(),
        at: (0..answer.points.len() as i64).map(|index| (answer.from + index * answer.step) * 1000).collect(),
        views: answer.points.iter().map(|views| views.count).collect(),
        p75: p75.collect(),
    }))
}

// --- What was changed when ---

/// A change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Marker {
    /// When, in ms since 1970.
    at: i64,
    /// `configuration`, `rollout`, `purge` or `node`.
    kind: &'static str,
    /// What, by whom, why.
    text: String,
    /// The position in the journal, of purges.
    position: Option<u64>,
}

/// Changes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Markers {
    /// The newest first; at most 1,000.
    items: Vec<Marker>,
}

/// What was changed when, for lines on charts
///
/// Purges go back as far as the newest 1,000, the rest for 35 days before `to`. A token that is for some sites sees no purges of
/// others.
#[utoipa::path(get, path = "/v1/markers", tag = "statistics",
    params(("from" = Option<i64>, Query), ("to" = Option<i64>, Query)),
    responses((status = 200, body = Markers), (status = "default", body = Problem)))]
pub(crate) async fn markers(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<Markers>, Problem> {
    caller.may(Role::Viewer)?;
    let asked = Asked::of(query, &["from", "to"])?;
    let (from, to) = asked.span()?;
    let with_reason = |by: &str, reason: Option<&str>| match reason {
        Some(reason) => format!("by {by}: {reason}"),
        None => format!("by {by}"),
    };
    let mut items: Vec<Marker> = shared
        .tail
        .recent_purges(&caller)
        .into_iter()
        .filter(|purge| (from..to).contains(&purge.at_ms))
        .map(|purge| Marker {
            at: purge.at_ms,
            kind: "purge",
            text: format!(
                "{} purged ({})",
                purge.matches.join("; "),
                with_reason(&purge.by, purge.reason.as_deref())
            ),
            position: Some(purge.position),
        })
        .collect();
    let from_day = from.max(to - MARKER_DAYS_MAX * DAY_MS).div_euclid(DAY_MS);
    for entry in audit::entries(&*shared.journal, from_day..=to.min(now_ms()).div_euclid(DAY_MS)).await? {
        let Some((kind, what)) = words(&entry.action, &entry.subject) else { continue };
        if (from..to).contains(&entry.at_ms) {
            let text = format!("{what} ({})", with_reason(&entry.by, entry.reason.as_deref()));
            items.push(Marker { at: entry.at_ms, kind, text, position: None });
        }
    }
    items.sort_by_key(|item| std::cmp::Reverse(item.at));
    items.truncate(LISTED_MAX);
    Ok(Json(Markers { items }))
}

/// The kind of a change, and what it was, by the words of the audit log; `None` for what changes nothing that visitors see.
fn words(action: &str, subject: &str) -> Option<(&'static str, String)> {
    Some(match action {
        "configuration.add" => ("configuration", format!("version {subject} added")),
        "rollout.start" => ("rollout", format!("roll-out of version {subject} begins")),
        // What control does by itself, it says in the subject.
        "rollout.widen" => ("rollout", format!("roll-out goes on: version {subject}")),
        "rollout.promote" => ("rollout", format!("version {subject}")),
        "rollout.undo" if subject.contains(' ') => ("rollout", format!("version {subject}")),
        "rollout.undo" => ("rollout", format!("version {subject} is taken back")),
        "rollback" => ("rollout", format!("back to version {subject}")),
        "rollout.pause" => ("rollout", format!("roll-out of version {subject} is paused")),
        "rollout.resume" => ("rollout", format!("roll-out of version {subject} is resumed")),
        "node.enroll" => ("node", format!("node {subject} has joined")),
        "node.retire" => ("node", format!("node {subject} is retired")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_csv_stay_fields() {
        for (field, wanted) in [
            ("shop", "shop"),
            ("-", "-"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=1+1", "\"'=1+1\""),
        ] {
            assert_eq!(quoted(field), wanted);
        }
    }
}
