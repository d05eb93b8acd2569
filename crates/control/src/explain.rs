//! What the configuration in force decides about a request: site, rule, key, lifetime. It says what control cannot know, because
//! only an edge does: what is stored, how old it is, which origin lives. The same question to an edge (`perigee explain`) answers that.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use model::routing::Pop;
use model::rule::{Cache, RequestView};
use model::{Rule, Site, Ttl, Url};
use semantics::Fields;
use semantics::key::has_dot_segment;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Shared;
use crate::problem::Problem;
use crate::tokens::{Caller, Role};

/// Header lines of a request that is explained: more than browsers send.
const HEADERS_MAX: usize = 100;

/// A place in the configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaceShown {
    name: String,
    /// The line where it begins.
    line: u32,
}

/// How long the origin's answer is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LifetimeShown {
    /// What the rule says for good answers; `null` when the origin's headers decide.
    ttl: Option<String>,
    /// What it says for some statuses: `404: 10s`.
    ttl_by_status: Vec<String>,
    /// What browsers are told; `null` when it is what the origin says.
    browser_ttl: Option<String>,
    /// For how long a stale answer may be sent while a new one is fetched; `null` when the origin's headers decide.
    stale_while_revalidate: Option<String>,
    /// For how long one may be sent because the origin fails; `null` when the origin's headers decide.
    stale_if_error: Option<String>,
}

/// Where a rule sends the visitor.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RedirectShown {
    status: u16,
    location: String,
}

/// What becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Course {
    /// Looked up, and fetched and stored when it is not there.
    Cache,
    /// Neither looked up nor stored: each goes to the origin.
    Pass,
    /// Answered at once with a redirect.
    Redirect,
    /// A CORS preflight, answered at once.
    Preflight,
}

/// What the configuration decides about a request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// The configuration that decides: the stable one.
    configuration: u64,
    method: String,
    url: String,
    site: PlaceShown,
    rule: PlaceShown,
    /// The rule's place among the site's; 0 when none matches and the site's own keys decide.
    rule_number: u32,
    /// How many rules the site has.
    rules: usize,
    course: Course,
    /// Why.
    sentence: String,
    redirect: Option<RedirectShown>,
    /// What the answer is stored under, line by line; `null` when it is not.
    key: Option<Vec<String>>,
    /// `null` when nothing is stored.
    lifetime: Option<LifetimeShown>,
    /// The surrogate keys that the rule adds to the origin's.
    surrogate_keys: Vec<String>,
    /// Where it is fetched: the first, and the others when that is not well.
    origins: Vec<String>,
    /// The PoPs that the site is served from; empty when the configuration names none.
    pops: Vec<String>,
    /// What only an edge knows.
    not_known: Vec<String>,
}

/// What the configuration decides about a request
///
/// By the stable configuration, without asking any edge or origin. What is not known here, it says.
#[utoipa::path(get, path = "/v1/explain", tag = "operators",
    params(("url" = String, Query, description = "as a visitor's browser has it"),
        ("method" = Option<String>, Query, description = "`GET` without"),
        ("header" = Option<Vec<String>>, Query, description = "a header line, `Name: value`; may be repeated")),
    responses((status = 200, body = Explanation), (status = "default", body = Problem)))]
pub(crate) async fn explain(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Explanation>, Problem> {
    const EXAMPLE: &str = "?url=https%3A%2F%2Fwww.shop.example%2Fa.css";
    caller.may(Role::Viewer)?;
    let Query(query) = query.map_err(|error| Problem::bad(error.body_text()).wanted(EXAMPLE))?;
    let (mut url, mut method, mut fields) = (String::new(), "GET".to_owned(), Fields::new());
    for (name, value) in query {
        match &*name {
            "url" => url = value,
            "method" => method = value,
            "header" if fields.len() < HEADERS_MAX => {
                let line = value.split_once(':').map(|(name, text)| fields.append(name.trim(), text.trim()));
                if !matches!(line, Some(Ok(()))) {
                    return Err(Problem::bad("this is not a header line").found(value).wanted("Name: value"));
                }
            }
            "header" => {
                return Err(Problem::bad("too many header lines").wanted(format!("at most {HEADERS_MAX}")));
            }
            _ => return Err(Problem::bad("unknown parameter").found(name).wanted("url, method or header")),
        }
    }
    if method.is_empty() || !method.bytes().all(semantics::fields::is_tchar) {
        return Err(Problem::bad("this is not a method")
            .found(format!("{method:?}"))
            .wanted("a word such as GET"));
    }
    let parsed = Url::parse(&url).map_err(|mistake| Problem::mistake("url", &url, mistake))?;
    let host = parsed.host();
    let view = shared.view.get();
    let (number, snapshot) = view.in_force().ok_or_else(|| {
        Problem::new(StatusCode::CONFLICT, "no configuration is in force, so nothing is decided yet")
            .next("add one and roll it out: perigee apply")
    })?;
    let site = snapshot.site_for(&host).filter(|site| caller.is_for(&site.name)).ok_or_else(|| {
        let sites = snapshot.sites.iter().filter(|site| caller.is_for(&site.name));
        let domains = sites.flat_map(|site| &site.domains);
        Problem::unknown(
            "no site of the configuration serves this host",
            &host,
            domains.map(|domain| &**domain),
            "name a host that one of its sites has",
        )
    })?;
    let pops = match snapshot.routing.pops.is_empty() {
        true => Vec::new(),
        false => snapshot.routing.pops_of(&site.pops),
    };
    let pops = pops.into_iter().map(|index| name_of(&snapshot.routing.pops[index])).collect();
    Ok(Json(decide(
        number,
        site,
        pops,
        &Asked { text: &url, url: parsed, method: &method, host: &host, fields: &fields },
    )))
}

fn name_of(pop: &Pop) -> String {
    pop.name.to_string()
}

/// The request in question.
struct Asked<'a> {
    text: &'a str,
    url: Url<'a>,
    method: &'a str,
    host: &'a str,
    fields: &'a Fields,
}

fn decide(configuration: u64, site: &Site, pops: Vec<String>, asked: &Asked<'_>) -> Explanation {
    let Url { scheme, authority, path, query } = asked.url;
    let request =
        RequestView { method: asked.method, scheme, host: asked.host, path, query, fields: asked.fields };
    let rule = site.match_rule(&request).rule;
    let redirect = rule.location(&request).map(|(status, location)| RedirectShown { status, location });
    let (course, sentence) = course(rule, &request, redirect.is_some());
    let is_cached = course == Course::Cache;
    let key = is_cached.then(|| {
        let mut text = Vec::new();
        rule.write_key(&mut text, &site.name, authority, &request);
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    });
    Explanation {
        configuration,
        method: asked.method.to_owned(),
        url: asked.text.to_owned(),
        site: PlaceShown { name: site.name.to_string(), line: site.line },
        rule: PlaceShown { name: rule.name().into_owned(), line: rule.line },
        rule_number: rule.number,
        rules: site.rules.len(),
        course,
        sentence: sentence.to_owned(),
        redirect,
        key,
        lifetime: is_cached.then(|| lifetime(rule)),
        surrogate_keys: rule.surrogate_keys.iter().map(ToString::to_string).collect(),
        origins: rule.origin.origins.iter().map(|origin| origin.url()).collect(),
        pops,
        not_known: not_known(course, rule),
    }
}

fn course(rule: &Rule, request: &RequestView<'_>, is_redirect: bool) -> (Course, &'static str) {
    if is_redirect {
        return match rule.redirect.is_some() {
            true => {
                (Course::Redirect, "The rule answers with a redirect; neither cache nor origin is asked.")
            }
            false => (Course::Redirect, "The rule wants TLS, and this request comes without."),
        };
    }
    if rule.cors.preflight(request).is_some() {
        return (Course::Preflight, "A CORS preflight, which the rule answers; the origin is not asked.");
    }
    // As the edge has it: only these two may be answered from a cache (RFC 9110 §9.2.3).
    if !matches!(request.method, "GET" | "HEAD") {
        return (
            Course::Pass,
            "Only GET and HEAD are answered from the cache; this method goes to the origin.",
        );
    }
    if rule.cache == Cache::Pass {
        return (Course::Pass, "The rule says cache = false: each request goes to the origin.");
    }
    if has_dot_segment(request.path.as_bytes()) {
        return (
            Course::Pass,
            "A path with dot segments is never stored: what it names is the origin's to say.",
        );
    }
    (
        Course::Cache,
        "Looked up under the key; what is not there is fetched, and stored if HTTP and the rule allow it.",
    )
}

fn lifetime(rule: &Rule) -> LifetimeShown {
    let shown = |secs: Option<u64>| secs.map(|secs| Ttl::from_secs(secs).to_string());
    let by_status = rule.policy.ttl_by_status.iter().map(|(statuses, secs)| {
        let ttl = Ttl::from_secs(*secs);
        match statuses.start() == statuses.end() {
            true => format!("{}: {ttl}", statuses.start()),
            false => format!("{}-{}: {ttl}", statuses.start(), statuses.end()),
        }
    });
    LifetimeShown {
        ttl: shown(rule.policy.ttl),
        ttl_by_status: by_status.collect(),
        browser_ttl: rule.browser_ttl.map(|ttl| ttl.to_string()),
        stale_while_revalidate: shown(rule.policy.stale_while_revalidate),
        stale_if_error: shown(rule.policy.stale_if_error),
    }
}

fn not_known(course: Course, rule: &Rule) -> Vec<String> {
    let mut lines = Vec::new();
    if matches!(course, Course::Redirect | Course::Preflight) {
        return lines;
    }
    if course == Course::Cache {
        lines.push("whether an edge has it stored, and how old that is: perigee explain asks one".to_owned());
        lines.push("whether the origin's answer may be stored: its Cache-Control, Set-Cookie and Vary decide with the rule".to_owned());
        if rule.policy.ttl.is_none() {
            lines.push("how long it is kept: the rule names no ttl, so the origin's headers say".to_owned());
        }
    }
    if rule.origin.origins.len() > 1 {
        lines.push("which origin is asked: each edge takes the first that it finds well".to_owned());
    }
    if rule.rate_limit.is_some() {
        lines.push("whether the visitor has asked too often: each edge counts for itself".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use model::Snapshot;
    use serde_json::{Value, json};

    use super::*;

    const SITES: &str = r#"
[[site]]
name = "shop"
domains = ["www.shop.example"]
origin = ["https://a.example", "https://b.example"]

[[site.rule]]
name = "static"
path = "/static/*"
ttl = "30d"
ttl_by_status = { "404" = "10s", "5xx" = "1s" }
query = { keep = ["w"] }
surrogate_keys = ["static"]

[[site.rule]]
name = "cart"
path = "/cart/*"
cache = false
cors = { origins = ["https://app.example"], methods = ["PUT"] }

[[site.rule]]
path = "/old/*"
redirect = { to = "/new/{1}", status = 301 }
"#;

    fn explained(method: &str, url: &str) -> Value {
        explained_with(method, url, &[])
    }

    fn explained_with(method: &str, url: &str, lines: &[(&str, &str)]) -> Value {
        let snapshot = Snapshot::parse_cluster(SITES, "sites.toml").snapshot.expect("a configuration");
        let (parsed, fields) = (Url::parse(url).expect("a URL"), lines.iter().copied().collect());
        let host = parsed.host();
        let asked = Asked { text: url, url: parsed, method, host: &host, fields: &fields };
        let site = snapshot.site_for(&host).expect("a site");
        serde_json::to_value(decide(7, site, Vec::new(), &asked)).expect("JSON")
    }

    #[test]
    fn a_request_is_explained_from_its_rule_to_its_key() {
        let check = |method: &str, url: &str, wanted: Value| {
            let found = explained(method, url);
            for (name, value) in wanted.as_object().into_iter().flatten() {
                assert_eq!(&found[name], value, "{name} of {method} {url}");
            }
        };
        check(
            "GET",
            "https://WWW.shop.example:8443/static/a.css?w=1&utm_source=x#top",
            json!({
                "configuration": 7, "course": "cache", "rule_number": 1, "rules": 3,
                "site": { "name": "shop", "line": 2 }, "rule": { "name": "static", "line": 7 },
                "key": ["site 4:shop", "host 21:www.shop.example:8443", "path 13:/static/a.css", "query 3:w=1", "scheme https"],
                "lifetime": { "ttl": "30d", "ttl_by_status": ["404: 10s", "500-599: 1s"], "browser_ttl": null,
                    "stale_while_revalidate": null, "stale_if_error": null },
                "surrogate_keys": ["static"], "origins": ["https://a.example", "https://b.example"],
            }),
        );
        check(
            "GET",
            "http://www.shop.example",
            json!({ "course": "cache", "rule_number": 0, "lifetime": {
            "ttl": null, "ttl_by_status": [], "browser_ttl": null, "stale_while_revalidate": null, "stale_if_error": null } }),
        );
        check(
            "GET",
            "http://www.shop.example/cart/1",
            json!({ "course": "pass", "key": null, "lifetime": null }),
        );
        check("POST", "http://www.shop.example/static/a.css", json!({ "course": "pass" }));
        check("GET", "http://www.shop.example/static/../a", json!({ "course": "pass" }));
        check(
            "GET",
            "http://www.shop.example/old/shoes",
            json!({ "course": "redirect", "not_known": [],
            "redirect": { "status": 301, "location": "/new/shoes" } }),
        );
    }

    #[test]
    fn a_preflight_goes_to_the_origin_only_where_no_rule_answers_it() {
        let lines = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "PUT")];
        for (path, course) in [("/cart/1", "preflight"), ("/static/a.css", "pass")] {
            let url = format!("http://www.shop.example{path}");
            assert_eq!(explained_with("OPTIONS", &url, &lines)["course"], course, "{path}");
        }
    }

    #[test]
    fn an_explanation_says_what_only_an_edge_knows() {
        let found = explained("GET", "http://www.shop.example/");
        let lines = found["not_known"].as_array().expect("lines");
        assert!(
            lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains("names no ttl"))),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains("which origin"))),
            "{lines:?}"
        );
    }
}
