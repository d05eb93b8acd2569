//! The admin API's paths: from a request to JSON and back. Holds no state beside what it is given.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use model::budget::Amount;
use model::change::Order;
use model::diagnostic::{Mistake, shown};
use model::{Diagnostic, Snapshot};
use observe::Totals;
use semantics::{Fields, Outcome};
use serde_json::{Value, json};

use super::explain::{self, Question};
use super::guard::Guard;
use super::purge::{PurgeBody, refused};
use super::{BODY_BYTES_MAX, ClusterStatus, Configuration, ConfigurationStatus, Upgrade, Upgrades};
use crate::{BudgetStatus, Handle, Status};

/// Header lines that `explain` takes.
const EXPLAIN_HEADERS_MAX: usize = 64;

type Shared = Arc<Api>;

struct Api {
    handle: Arc<Handle>,
    configuration: Arc<dyn Configuration>,
    upgrades: Option<Arc<dyn Upgrades>>,
    guard: Guard,
}

pub(super) fn router(
    handle: Arc<Handle>,
    configuration: Arc<dyn Configuration>,
    upgrades: Option<Arc<dyn Upgrades>>,
    guard: Guard,
    further: Router,
) -> Router {
    let api = Arc::new(Api { handle, configuration, upgrades, guard });
    let guarded = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/certificates", get(certificates))
        .route("/v1/purge", post(purge))
        .route("/v1/explain", get(explain))
        .route("/v1/check", post(check))
        .route("/v1/reload", post(reload))
        .route("/v1/upgrade", post(begin_upgrade).get(last_upgrade))
        .route("/v1/config/schema", get(schema))
        .merge(further.with_state(()))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), want_token));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(wrong_method)
        .merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), refuse_pages))
        .with_state(api)
}

// --- Errors ---

/// An error as the API answers it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    error: String,
    found: Option<String>,
    wanted: Option<String>,
    next: Option<String>,
    retry_after_secs: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Problem { status, error: error.into(), found: None, wanted: None, next: None, retry_after_secs: None }
    }

    /// What was given under this name is not what it should be.
    pub(super) fn mistake(name: &str, found: &str, mistake: Mistake) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, format!("{name} {}", mistake.error))
            .found(shown(found))
            .wanted(mistake.wanted)
            .next(mistake.next)
    }

    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(super) fn wanted(mut self, wanted: impl Into<String>) -> Self {
        self.wanted = Some(wanted.into());
        self
    }

    /// Seconds after which it is worth another try.
    pub(super) fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "error": self.error, "found": self.found, "wanted": self.wanted, "next": self.next,
        });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(secs) = self.retry_after_secs {
            response.headers_mut().insert(header::RETRY_AFTER, secs.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer realm=\"perigee admin\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

async fn unknown_path(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "the admin API has no such path").found(request.uri().path()).wanted(
        "/healthz, /readyz, /metrics, /v1/status, /v1/certificates, /v1/purge, /v1/explain, /v1/check, /v1/reload, /v1/upgrade or \
         /v1/config/schema",
    )
}

async fn wrong_method(request: Request) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the path does not take this method")
        .found(format!("{} {}", request.method(), request.uri().path()))
        .wanted("GET to read, POST to purge, check, reload and upgrade")
}

// --- Before any handler ---

async fn refuse_pages(State(api): State<Shared>, request: Request, next: Next) -> Response {
    match api.guard.check_browser(request.headers()) {
        Ok(()) => {
            let mut response = next.run(request).await;
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
            let nosniff = header::HeaderValue::from_static("nosniff");
            response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

async fn want_token(State(api): State<Shared>, request: Request, next: Next) -> Response {
    match api.guard.check_token(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

// --- Paths ---

/// Does what may wait for a disk or another process, for as long as that takes, while the API's one thread answers others.
async fn wait_for<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this failed; standard error says how");
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

/// Without a configuration each visitor gets 503.
async fn ready(State(api): State<Shared>) -> Result<&'static str, Problem> {
    match api.handle.with_snapshot(|snapshot| snapshot.sites.is_empty()) {
        false => Ok("ok\n"),
        true => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this edge has no configuration yet")
            .next("roll one out: perigee apply")),
    }
}

async fn metrics(State(api): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.handle.registry().render())
}

async fn status(State(api): State<Shared>) -> Result<Json<Value>, Problem> {
    // While a configuration is being put in force, what is said of it waits.
    wait_for(move || Json(status_of(&api))).await
}

fn status_of(api: &Api) -> Value {
    let (status, totals) = (api.handle.status(), api.handle.registry().totals());
    let connections_max = api.handle.with_snapshot(|snapshot| snapshot.edge.limits.connections_max);
    let mut json = status_json(&status, &totals, &api.configuration.status(), connections_max);
    if let Some(cluster) = api.configuration.cluster() {
        json["cluster"] = cluster_json(&cluster);
    }
    json
}

fn cluster_json(cluster: &ClusterStatus) -> Value {
    json!({
        "node": cluster.node,
        "pop": cluster.pop,
        "connected": cluster.is_connected,
        "control": cluster.control,
        "trouble": cluster.trouble,
        "journal": cluster.journal,
        "position": cluster.position,
        "current": cluster.is_current,
        "running": cluster.running,
        "refused": cluster.refused.as_ref().map(|(number, why)| json!({ "number": number, "why": why })),
        "certificate_until_ms": cluster.certificate_until_ms,
        "warning": cluster.warning,
    })
}

/// On a node of a cluster, this is the cluster's to say.
fn refuse_on_a_node(api: &Api, next: &str) -> Result<(), Problem> {
    match api.configuration.cluster() {
        None => Ok(()),
        Some(cluster) => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this edge is a node of a cluster, which is told by control alone what to do",
        )
        .found(format!("node {:?}", cluster.node))
        .next(next)),
    }
}

async fn certificates(State(api): State<Shared>) -> Json<Value> {
    let certificates = api.configuration.certificates().into_iter().map(|certificate| {
        json!({
            "names": certificate.names,
            "source": certificate.source,
            "issuer": certificate.issuer,
            "not_after_ms": certificate.not_after_ms,
            "next_order_ms": certificate.next_order_ms,
            "failures": certificate.failures,
            "last_error": certificate.last_error,
        })
    });
    Json(json!({ "certificates": certificates.collect::<Vec<_>>() }))
}

/// What a site may ask of an origin, and asks.
pub(super) fn budget_json(budget: &BudgetStatus) -> Value {
    let pair = |amount: Amount| json!({ "requests_per_second": amount.requests_per_second, "in_flight": amount.in_flight });
    json!({
        "site": budget.site,
        "origin": *budget.origin,
        "total": pair(budget.total),
        "allowed": pair(budget.allowed),
        "used": pair(budget.used),
        "waiting": budget.waiting,
        "askers": budget.askers,
        "refused": budget.refused,
        "ended": budget.ended,
    })
}

fn status_json(
    status: &Status,
    totals: &Totals,
    configuration: &ConfigurationStatus,
    connections_max: u32,
) -> Value {
    let requests = Outcome::ALL.iter().map(|&outcome| (outcome.as_str(), totals.requests_of(outcome)));
    let origins = status.origins.iter().map(|origin| {
        json!({
            "origin": *origin.name,
            "health": origin.health.as_str(),
            "breaker": origin.breaker.as_str(),
            "attempts": origin.counts.attempts,
            "failures": origin.counts.failures,
        })
    });
    let budgets = status.budgets.iter().map(budget_json);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": status.uptime.as_secs(),
        "configuration": {
            "source": configuration.source,
            "hash": configuration.hash,
            "loaded_ms": configuration.loaded_ms,
            "refused": configuration.refused,
            "last_error": configuration.last_error,
        },
        "purge_position": status.purge_position,
        "control_last_heard_s": status.silence.map(|silence| silence.as_secs()),
        "workers": status.workers,
        "connections": status.connections,
        "connections_max": connections_max,
        "fills_in_flight": status.flights,
        "bodies_in_flight_bytes": status.bodies_in_flight.0,
        "bodies_in_flight_bytes_max": status.bodies_in_flight.1,
        "requests": requests.collect::<std::collections::BTreeMap<_, _>>(),
        "requests_total": totals.requests(),
        "body_bytes_sent": totals.body_bytes_sent,
        "duration_p50_us": totals.duration_p50_us,
        "duration_p99_us": totals.duration_p99_us,
        "log_lines_dropped": totals.log_lines_dropped,
        "store": tiers_json(status),
        "origins": origins.collect::<Vec<_>>(),
        "budgets": budgets.collect::<Vec<_>>(),
    })
}

/// The memory tier, and each disk.
fn tiers_json(status: &Status) -> Vec<Value> {
    let memory = json!({
        "tier": "memory",
        "bytes": status.memory.bytes,
        "bytes_max": status.memory.bytes_max,
        "objects": status.memory.entries,
        "found": status.memory.hits,
        "absent": status.memory.misses,
        "evicted": status.memory.evictions,
    });
    let disks = status.disks.iter().map(|disk| {
        json!({
            "tier": "disk",
            "directory": disk.name,
            "health": disk.health.as_str(),
            "bytes": disk.bytes,
            "bytes_max": disk.bytes_max,
            "objects": disk.records,
            "index_bytes": disk.index_bytes,
            "found": disk.found,
            "absent": disk.absent,
            "evicted": disk.evicted,
            "rewritten": disk.rewritten,
            "damaged": disk.damaged,
            "read_errors": disk.read_errors,
            "write_errors": disk.write_errors,
            "queued_bytes": disk.queued_bytes,
            "oldest_segment_s": disk.oldest_segment_secs,
        })
    });
    std::iter::once(memory).chain(disks).collect()
}

async fn purge(State(api): State<Shared>, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, Problem> {
    refuse_on_a_node(&api, "purge through control: perigee purge --control URL, or POST /v1/purges there")?;
    want_json(&headers)?;
    let body: PurgeBody = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "the body is not a purge")
            .found(error.to_string())
            .wanted(r#"e.g. {"url": "https://www.shop.example/a.css"} or {"tags": ["shoes"], "soft": true}"#)
    })?;
    let (orders, sites) = api.handle.with_snapshot(|snapshot| (body.orders(snapshot), snapshot.sites.len()));
    let orders = orders?;
    let form = if orders.iter().all(|order| order.soft) { "soft" } else { "hard" };
    let (orders, applied) = wait_for(move || {
        let applied = api.handle.purge(&orders);
        (orders, applied)
    })
    .await?;
    let position = applied.map_err(|error| refused(&error))?.position;
    let purged: Vec<Value> = orders
        .iter()
        .map(|Order { what, .. }| {
            let sites = what.site().map_or(sites, |_| 1);
            json!({ "matches": what.to_string(), "position": position, "sites": sites })
        })
        .collect();
    Ok(Json(json!({ "position": position, "form": form, "in_force": true, "purged": purged })))
}

/// A form of another site can post text, never `application/json` without being asked first (CORS preflight).
fn want_json(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    match essence.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not said to be JSON")
            .found(media_type)
            .wanted("Content-Type: application/json")),
    }
}

async fn explain(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let question = question(query.as_deref().unwrap_or_default())?;
    wait_for(move || explain::explain(&api.handle, &question)).await?.map(Json)
}

fn question(query: &str) -> Result<Question, Problem> {
    let mut question = Question { url: String::new(), method: "GET".into(), fields: Fields::new() };
    let wrong = |error: &str| Problem::new(StatusCode::BAD_REQUEST, error);
    for (name, value) in query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        let value =
            decode(value).ok_or_else(|| wrong("a parameter is not percent-encoded UTF-8").found(value))?;
        match name {
            "url" => question.url = value,
            "method" => question.method = value,
            "header" if question.fields.len() >= EXPLAIN_HEADERS_MAX => {
                return Err(wrong("too many header lines").wanted(format!("at most {EXPLAIN_HEADERS_MAX}")));
            }
            "header" => {
                let line = value
                    .split_once(':')
                    .map(|(name, text)| question.fields.append(name.trim(), text.trim()));
                if !matches!(line, Some(Ok(()))) {
                    return Err(wrong("this is not a header line").found(value).wanted("Name: value"));
                }
            }
            _ => return Err(wrong("unknown parameter").found(name).wanted("url, method or header")),
        }
    }
    match question.url.is_empty() {
        true => Err(wrong("no URL to explain").wanted("?url=https%3A%2F%2Fwww.shop.example%2Fa.css")),
        false => Ok(question),
    }
}

/// Percent-decodes; `+` is a space, as query builders write it.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| (digit as char).to_digit(16));
                (digit()? << 4 | digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

async fn check(body: Bytes) -> Result<Json<Value>, Problem> {
    let text = std::str::from_utf8(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "the configuration is not UTF-8").found(error.to_string())
    })?;
    let parsed = Snapshot::parse(text, "request").tested();
    Ok(Json(json!({ "ok": parsed.snapshot.is_some(), "diagnostics": diagnostics(&parsed.diagnostics) })))
}

async fn reload(State(api): State<Shared>) -> Response {
    let next = "apply a configuration through control; SIGHUP makes the node read its own file again";
    if let Err(problem) = refuse_on_a_node(&api, next) {
        return problem.into_response();
    }
    let reloaded = wait_for(move || (api.configuration.reload(), api.configuration.status().hash)).await;
    let (reload, hash) = match reloaded {
        Ok(reloaded) => reloaded,
        Err(problem) => return problem.into_response(),
    };
    let status = if reload.in_force { StatusCode::OK } else { StatusCode::CONFLICT };
    let next = "the running configuration stays; correct the file and reload again";
    let body = match reload.in_force {
        true => json!({
            "in_force": true,
            "message": reload.message,
            "hash": hash,
            "diagnostics": diagnostics(&reload.diagnostics),
        }),
        false => json!({
            "in_force": false,
            "error": reload.message,
            "next": next,
            "diagnostics": diagnostics(&reload.diagnostics),
        }),
    };
    (status, Json(body)).into_response()
}

async fn begin_upgrade(State(api): State<Shared>) -> Result<Response, Problem> {
    let upgrades = api.upgrades.as_ref().ok_or_else(no_upgrades)?;
    match upgrades.begin() {
        Ok(upgrade) => Ok((StatusCode::ACCEPTED, Json(upgrade_json(&upgrade))).into_response()),
        Err(why) => {
            Err(Problem::new(StatusCode::CONFLICT, why).next("this process serves on; GET says how it goes"))
        }
    }
}

async fn last_upgrade(State(api): State<Shared>) -> Result<Json<Value>, Problem> {
    let last = api.upgrades.as_ref().ok_or_else(no_upgrades)?.last();
    Ok(Json(last.map_or_else(|| json!({ "state": "none" }), |upgrade| upgrade_json(&upgrade))))
}

fn no_upgrades() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "this process cannot be replaced by another while it runs")
}

fn upgrade_json(upgrade: &Upgrade) -> Value {
    let process = |(version, pid): &(String, u32)| json!({ "version": version, "pid": pid });
    json!({
        "id": upgrade.id,
        "state": upgrade.state.as_str(),
        "from": process(&upgrade.from),
        "to": upgrade.to.as_ref().map(process),
        "took_ms": upgrade.took.as_millis() as u64,
        "within_s": upgrade.within.as_secs(),
        "error": upgrade.error,
        "said": upgrade.said,
    })
}

fn diagnostics(diagnostics: &[Diagnostic]) -> Value {
    let one = |diagnostic: &Diagnostic| {
        json!({
            "severity": diagnostic.severity.as_str(),
            "source": diagnostic.source,
            "line": diagnostic.line,
            "column": diagnostic.column,
            "found": diagnostic.found,
            "message": diagnostic.message,
            "help": diagnostic.help,
        })
    };
    diagnostics.iter().map(one).collect()
}

async fn schema() -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], model::json_schema(model::Document::Whole))
        .into_response()
}
