//! The dashboard: static files in the program, which ask nothing but the API that everybody may ask, with the token of whoever looks.
//!
//! ```text
//! /  ─►  /dashboard/, /dashboard/PAGE      one document for all pages; asked for anew each time
//!        /dashboard/-/BUILD/FILE           what it loads; BUILD is a hash over all files, so that these never change
//! ```
//!
//! Nothing here needs a token, because nothing here says anything of the cluster. The document may run no script and no style but
//! these files, connects with nobody but this control, and is shown in nobody's frame.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use trust::text_hash;

use crate::problem::Problem;

/// What the document may do. `style-src` allows no style attributes: the pages set styles by script, one property at a time.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Where the document names [`BUILD`].
const BUILD_MARK: &str = "@BUILD@";

const DOCUMENT: &str = include_str!("../dashboard/index.html");

macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../dashboard/", $name)))),*] };
}

/// What the document loads.
const FILES: &[(&str, &str)] = files!(
    "style.css" "print.css" "icon.svg" "main.js" "shell.js" "api.js" "view.js" "dom.js" "format.js" "charts.js" "picture.js" "map.js" "world.js"
    "parts.js" "stats.js" "diff.js"
    "pages/overview.js" "pages/places.js" "pages/speed.js" "pages/tests.js" "pages/why.js" "pages/explain.js" "pages/purges.js" "pages/rollouts.js"
    "pages/configuration.js" "pages/nodes.js" "pages/audit.js"
);

/// A hash over all files: another program, other addresses.
static BUILD: LazyLock<String> = LazyLock::new(|| {
    let all: String = FILES.iter().flat_map(|(name, text)| [*name, "\n", *text]).collect();
    let mut hash = text_hash(format!("{DOCUMENT}{all}").as_bytes());
    hash.truncate(16);
    hash
});

static PAGE: LazyLock<String> = LazyLock::new(|| DOCUMENT.replace(BUILD_MARK, &BUILD));

/// The outlines of countries that the map is drawn from, for other maps: code (ISO 3166; empty where there is none), and a path of
/// SVG in tenths of a unit. The projection is Equal Earth, with 180 units per radian.
pub fn outlines() -> impl Iterator<Item = (&'static str, &'static str)> {
    let world = FILES.iter().find(|(name, _)| *name == "world.js").map_or("", |(_, text)| text);
    world.lines().filter_map(|line| {
        let (code, path) = line.trim().strip_prefix("[\"")?.split_once("\",\"")?;
        Some((code, path.strip_suffix("\"],")?))
    })
}

/// The paths of the dashboard.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/dashboard/") }))
        .route("/dashboard", get(|| async { Redirect::temporary("/dashboard/") }))
        .route("/dashboard/", get(page))
        .route("/dashboard/{page}", get(page))
        .route("/dashboard/-/{build}/{*file}", get(file))
}

async fn page(headers: HeaderMap) -> Response {
    let mut response = conditional(&headers, &PAGE, "text/html; charset=utf-8", "no-cache");
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn file(Path((build, name)): Path<(String, String)>, headers: HeaderMap) -> Result<Response, Problem> {
    let found = FILES.iter().find(|(known, _)| *known == name).filter(|_| build == *BUILD);
    let Some((_, text)) = found else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "the dashboard of this version has no such file")
            .found(format!("{build}/{name}"))
            .wanted(format!("one of {}", *BUILD))
            .next("load the page again: this control has been upgraded, or another one has answered"));
    };
    let media_type = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    Ok(conditional(&headers, text, media_type, "public, max-age=31536000, immutable"))
}

/// The file, or that the caller has it already (RFC 9110 §13.1.2).
fn conditional(
    headers: &HeaderMap,
    text: &'static str,
    media_type: &'static str,
    cache_control: &'static str,
) -> Response {
    let tag = format!("\"{}\"", &text_hash(text.as_bytes())[..16]);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known =
        known.flat_map(|list| list.split(',')).any(|one| one.trim().trim_start_matches("W/") == tag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, media_type)], text).into_response(),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
