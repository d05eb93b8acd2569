//! The API's paths, and what holds for all of them. Each path is in the OpenAPI document because both are made from one list.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::limits::{BODY_BYTES_MAX, CONFIGURATION_BYTES_MAX, JOIN_BYTES_MAX};
use crate::problem::Problem;
use crate::server::Client;
use crate::{
    Shared, advice, audit, configurations, dashboard, explain, nodes, page_tests, pops, purges, rollouts,
    sites, statistics, status, tokens,
};

/// Bytes that are read of the body of a request without a good token, and how long they are waited for.
const REFUSED_BODY_BYTES_MAX: usize = 64 * 1024;
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// JSON takes at most six bytes for one.
const CONFIGURATION_JSON_BYTES_MAX: usize = 6 * CONFIGURATION_BYTES_MAX;

/// For operators, by bearer token.
fn operators() -> OpenApiRouter<Arc<Shared>> {
    let configurations = OpenApiRouter::new()
        .routes(routes!(configurations::list, configurations::add))
        .layer(DefaultBodyLimit::max(CONFIGURATION_JSON_BYTES_MAX));
    OpenApiRouter::new()
        .routes(routes!(purges::list, purges::purge))
        .routes(routes!(purges::status))
        .routes(routes!(configurations::one))
        .routes(routes!(configurations::diff))
        .routes(routes!(rollouts::start))
        .routes(routes!(rollouts::current))
        .routes(routes!(rollouts::pause))
        .routes(routes!(rollouts::resume))
        .routes(routes!(rollouts::undo))
        .routes(routes!(rollouts::roll_back))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::retire))
        .routes(routes!(nodes::list_tokens, nodes::make_token))
        .routes(routes!(nodes::revoke_token))
        .routes(routes!(tokens::list, tokens::make))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::whoami))
        .routes(routes!(explain::explain))
        .routes(routes!(pops::list))
        .routes(routes!(sites::list))
        .routes(routes!(advice::get, advice::report))
        .routes(routes!(advice::verify))
        .routes(routes!(page_tests::list, page_tests::keep))
        .routes(routes!(page_tests::results, page_tests::forget))
        .routes(routes!(audit::list))
        .routes(routes!(status::status))
        .routes(routes!(statistics::series))
        .routes(routes!(statistics::export))
        .routes(routes!(statistics::top))
        .routes(routes!(statistics::whys))
        .routes(routes!(statistics::rum))
        .routes(routes!(statistics::markers))
        .merge(configurations)
}

/// For nodes, by enrolment token or certificate.
fn of_nodes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(nodes::enroll))
        .routes(routes!(nodes::renew))
        .routes(routes!(nodes::blob))
        .routes(routes!(nodes::journal))
        .routes(routes!(nodes::feed))
        .layer(DefaultBodyLimit::max(JOIN_BYTES_MAX))
}

/// What is served, and its description.
pub(crate) fn router(shared: Arc<Shared>) -> (Router, OpenApi) {
    let guarded = operators().layer(middleware::from_fn_with_state(Arc::clone(&shared), want_token));
    let (routes, found) = OpenApiRouter::new().merge(guarded).merge(of_nodes()).split_for_parts();
    let document = document(found);
    let text = document.to_json().unwrap_or_default();
    let router = routes
        .merge(dashboard::router())
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(status::metrics))
        .route(
            "/v1/openapi.json",
            get(move || {
                let text = text.clone();
                async move { ([(header::CONTENT_TYPE, "application/json")], text) }
            }),
        )
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(headers))
        .with_state(shared);
    (router, document)
}

/// The description of all paths.
pub(crate) fn openapi() -> OpenApi {
    let (_, found) =
        OpenApiRouter::<Arc<Shared>>::new().merge(operators()).merge(of_nodes()).split_for_parts();
    document(found)
}

fn document(mut found: OpenApi) -> OpenApi {
    let mut info = Info::new("Perigee control", env!("CARGO_PKG_VERSION"));
    info.description =
        Some("Purges with receipts, configurations and their roll-outs, nodes, tokens, statistics.".into());
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of an operator; nodes come with a certificate of the cluster instead."))
        .build();
    let components = found.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(token));
    OpenApiBuilder::from(found)
        .info(info)
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]))
        .build()
}

// --- Before and after any handler ---

async fn want_token(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let from =
        request.extensions().get::<Client>().map_or(IpAddr::from([0, 0, 0, 0]), |client| client.address.ip());
    match tokens::check(&shared, request.headers(), from) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => {
            // A body that is not read is reset over HTTP/2, and clients that still send it (curl, and PHP's) lose the answer.
            let body = to_bytes(request.into_body(), REFUSED_BODY_BYTES_MAX);
            let _read = tokio::time::timeout(REFUSED_BODY_TIMEOUT, body).await;
            problem.into_response()
        }
    }
}

async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // The dashboard's files say themselves how long they may be kept.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn unknown_path(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "control has no such path")
        .found(request.uri().path())
        .wanted("a path of /v1/openapi.json")
}

async fn wrong_method(request: Request) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the path does not take this method")
        .found(format!("{} {}", request.method(), request.uri().path()))
        .wanted("a method of /v1/openapi.json")
}

// --- Bodies ---

/// A request's body.
pub(crate) fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &[u8],
    example: &str,
) -> Result<T, Problem> {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A form of a web page can post text, never `application/json` without being asked first (CORS preflight).
    if !media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not said to be JSON")
            .found(media_type)
            .wanted("Content-Type: application/json"));
    }
    serde_json::from_slice(body).map_err(|error| {
        Problem::bad("the body is not what this path takes")
            .found(error.to_string())
            .wanted(format!("e.g. {example}"))
    })
}

/// An answer's.
pub(crate) fn answer<T: Serialize>(status: StatusCode, body: &T) -> Response {
    (status, Json(body)).into_response()
}
