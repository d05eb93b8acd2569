//! The API's paths, and what holds for all of them. Each path is in the OpenAPI document because both are made from one list.

use std::net::IpAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::limits::{BODY_TIMEOUT, JOIN_BYTES_MAX, JOIN_TIMEOUT};
use crate::problem::Problem;
use crate::server::Client;
use crate::{
    Limit, Shared, advice, audit, configurations, dashboard, explain, nodes, page_tests, pops, purges,
    rollouts, sites, statistics, status, tokens,
};

/// Bytes that are read on of the body of a request that is refused, and how long they are waited for.
const REFUSED_BODY_BYTES_MAX: usize = 64 * 1024;
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// For operators, by bearer token.
fn operators() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(purges::list, purges::purge))
        .routes(routes!(purges::status))
        .routes(routes!(configurations::list, configurations::add))
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
}

/// For nodes, by enrolment token or certificate.
fn of_nodes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(nodes::enroll))
        .routes(routes!(nodes::renew))
        .routes(routes!(nodes::blob))
        .routes(routes!(nodes::journal))
        .routes(routes!(nodes::feed))
}

/// What is served, and its description.
pub(crate) fn router(shared: Arc<Shared>) -> (Router, OpenApi) {
    let guarded = operators().layer(middleware::from_fn_with_state(Arc::clone(&shared), want_token));
    let (routes, found) = OpenApiRouter::new().merge(guarded).merge(of_nodes()).split_for_parts();
    let document = document(found);
    let text = Bytes::from(document.to_json().unwrap_or_default());
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
    let client = request.extensions().get::<Client>().cloned();
    let from = client.as_ref().map_or(IpAddr::from([0, 0, 0, 0]), |client| client.address.ip());
    let mut lent = Lent::default();
    std::mem::swap(&mut *lent.0.lock(), request.body_mut());
    let response = match tokens::check(&shared, request.headers(), from) {
        Ok(caller) => {
            if let Some(client) = client {
                client.place.is_operator();
            }
            request.extensions_mut().insert(caller);
            *request.body_mut() = Body::new(lent.clone());
            next.run(request).await
        }
        Err(problem) => {
            drop(request);
            problem.into_response()
        }
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        lent.read_on().await;
    }
    response
}

/// A body that can be read on when whoever it was lent to wants no more of it. What is not read is reset over HTTP/2, and clients that
/// still send it (curl, and PHP's) lose the answer.
#[derive(Clone, Default)]
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    async fn read_on(&mut self) {
        let mut bytes = 0;
        let reading = async {
            while bytes < REFUSED_BODY_BYTES_MAX
                && let Some(Ok(frame)) = self.frame().await
            {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        let _read = timeout(REFUSED_BODY_TIMEOUT, reading).await;
    }
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
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

/// A request's body, and the room that it takes.
pub(crate) struct Sent {
    bytes: Vec<u8>,
    room: OwnedSemaphorePermit,
}

impl Deref for Sent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Shared {
    /// The body of a request with a token. Whoever asks for it has looked first whether that token may do it.
    pub(crate) async fn sent(&self, request: Request, bytes_max: usize) -> Result<Sent, Problem> {
        self.read(request, bytes_max, BODY_TIMEOUT, &self.bodies).await
    }

    /// The body of a request that needs none.
    pub(crate) async fn sent_by(&self, client: &Client, request: Request) -> Result<Sent, Problem> {
        self.read(request, JOIN_BYTES_MAX, JOIN_TIMEOUT, &client.bodies).await
    }

    async fn read(
        &self,
        request: Request,
        bytes_max: usize,
        within: Duration,
        room: &Arc<Semaphore>,
    ) -> Result<Sent, Problem> {
        let late = || {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "the body has not come in time")
                .wanted(format!("all of it within {} s", within.as_secs()))
        };
        let reading = read_body(request.into_body(), bytes_max, room, || self.counts.reached(Limit::Bodies));
        timeout(within, reading).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Reads all of it, as long as there is room. Waits for none: what has come would lie in the connection's buffers.
async fn read_body(
    mut body: Body,
    bytes_max: usize,
    room: &Arc<Semaphore>,
    no_room: impl Fn(),
) -> Result<Sent, Problem> {
    let full = |_| {
        no_room();
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "there is no room for the body beside others")
            .retry_after(1)
            .next("nothing was changed; send fewer at a time")
    };
    let take = |bytes: usize| {
        Arc::clone(room).try_acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX)).map_err(full)
    };
    let mut sent = Sent { bytes: Vec::new(), room: take(0)? };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::bad("the body broke off").found(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if sent.bytes.len() + data.len() > bytes_max {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long")
                .wanted(format!("at most {bytes_max} bytes")));
        }
        sent.room.merge(take(data.len())?);
        sent.bytes.extend_from_slice(&data);
    }
    Ok(sent)
}

/// What a request's body says.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_takes_its_room_until_it_is_dropped_and_none_when_it_is_refused() {
        let room = Arc::new(Semaphore::new(100));
        let read = async |bytes: usize, bytes_max: usize| {
            let read = read_body(Body::from(vec![b'x'; bytes]), bytes_max, &room, || {}).await;
            read.map_err(|problem| problem.status().as_u16())
        };
        let first = read(60, 60).await.ok().unwrap();
        assert_eq!((first.len(), room.available_permits()), (60, 40));
        assert_eq!(read(41, 60).await.err(), Some(503));
        assert_eq!(read(61, 60).await.err(), Some(413));
        assert_eq!(read(40, 60).await.map(|sent| sent.len()), Ok(40));
        drop(first);
        assert_eq!(room.available_permits(), 100);
    }
}
