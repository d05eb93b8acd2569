//! What the router answers by HTTP: visitors, who are redirected to the closest PoP, and whoever asks its admin address.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use model::steering::{RoundTrips, Steering};

use super::plan::spare_of;
use super::{News, Shared, metrics, tell};
use crate::explain;
use crate::http::{Answer, Request};
use crate::table::{V4_BITS, V6_BITS};
use crate::wire::name_of;
use crate::zone::Lookup;

pub(super) fn answer_admin(shared: &Shared, news: &mpsc::SyncSender<News>, request: &Request) -> Answer {
    match (&*request.method, &*request.path) {
        ("GET" | "HEAD", "/healthz") => Answer::text(200, "ok\n"),
        ("GET" | "HEAD", "/metrics") => Answer::text(200, metrics::render(shared)),
        ("GET" | "HEAD", "/v1/route") => answer_route(shared, request, None),
        ("GET" | "HEAD", "/v1/mesh") => answer_mesh(shared, request),
        ("POST", "/v1/samples") => answer_samples(shared, news, request),
        (_, "/healthz" | "/metrics" | "/v1/route" | "/v1/mesh" | "/v1/samples") => {
            Answer::text(405, "wanted GET, and POST for /v1/samples\n")
        }
        _ => Answer::text(404, "here are /healthz, /metrics, /v1/route, /v1/mesh and /v1/samples\n"),
    }
}

/// A visitor's request: to the closest PoP, for `SITE.ZONE/PATH` of the site that it asks for, or that the path names: `/r/SITE/PATH`.
pub(super) fn answer_visitor(shared: &Shared, peer: IpAddr, request: &Request) -> Answer {
    let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
    if request.path == "/v1/route" {
        return answer_route(shared, request, Some(peer));
    }
    let state = Arc::clone(&shared.state.lock());
    let Some(dns) = &state.snapshot.routing.dns else {
        return Answer::text(503, "this router has no zone: there is no name to redirect to\n");
    };
    let host = request.host.as_deref().unwrap_or_default().to_ascii_lowercase();
    let host = host.rsplit_once(':').map_or(&*host, |(name, _)| name);
    // A PoP's own name that leads here would lead here again.
    let is_pop = name_of(host)
        .is_some_and(|name| matches!(state.zone.find(&name), Lookup::Node(node) if node.pop.is_some()));
    if is_pop {
        count(&shared.plan.redirects_refused);
        return Answer::text(421, "this is a PoP's name, and not the PoP\n");
    }
    let named = request.path.strip_prefix("/r/").and_then(|rest| rest.split_once('/'));
    let (site, path) = match named {
        Some((site, path)) => (state.snapshot.site_named(site), path),
        None => (state.snapshot.site_for(host), request.path.trim_start_matches('/')),
    };
    let group = site.and_then(|site| Some((site, *state.zone.sites.get(&site.name)?)));
    let Some((site, group)) = group.filter(|_| request.path.starts_with('/')) else {
        count(&shared.plan.redirects_refused);
        return Answer::text(404, "no site has this domain, or this name after /r/\n");
    };
    let bits = if peer.is_ipv4() { V4_BITS } else { V6_BITS };
    let pop = state.tables[group].find(&state.world, peer, bits).pop;
    let pop = &state.world.pops[usize::from(pop)];
    // HTTPS records are given where every edge speaks TLS.
    let scheme = if dns.https { "https" } else { "http" };
    let query = request.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
    let host = match &pop.cname {
        // The name that the other CDN knows itself by.
        Some(cname) => cname.to_string(),
        None => format!("{}.{}.{}", pop.name.to_ascii_lowercase(), site.name.to_ascii_lowercase(), dns.zone),
    };
    let location = format!("{scheme}://{host}/{path}{query}");
    count(&shared.plan.redirects);
    Answer {
        status: if matches!(&*request.method, "GET" | "HEAD") { 302 } else { 307 },
        media: "text/plain",
        fields: format!("Location: {location}\r\nCache-Control: private, max-age={}\r\n", state.ttl),
        body: format!("{location}\n"),
    }
}

/// Where a client is sent now: `?ip=ADDRESS` (without, `asker`), and `&site=NAME` unless all PoPs may be chosen.
fn answer_route(shared: &Shared, request: &Request, asker: Option<IpAddr>) -> Answer {
    let wrong = |error: String, wanted: &str| {
        Answer::json(400, &serde_json::json!({ "error": error, "wanted": wanted }))
    };
    let ip = match request.parameter("ip") {
        Some(ip) => ip.parse().ok(),
        None => asker,
    };
    let Some(ip) = ip else {
        return wrong("the client's address is missing, or is none".to_owned(), "?ip=203.0.113.7&site=shop");
    };
    let state = Arc::clone(&shared.state.lock());
    let group: Vec<u16> = match request.parameter("site") {
        None => (0..state.world.pops.len() as u16).collect(),
        Some(site) => match state.snapshot.site_named(&site) {
            Some(site) => {
                let group = state.zone.sites.get(&site.name);
                group.map_or_else(Vec::new, |group| state.zone.groups[*group].clone())
            }
            None => return wrong(format!("no site is called {site:?}"), "the name of a [[site]]"),
        },
    };
    if group.is_empty() {
        return Answer::json(503, &serde_json::json!({ "error": "there is no PoP to send anybody to" }));
    }
    let ranking = state.world.rank_client(ip, &group, &state.view);
    let spare = spare_of(&state.snapshot, &state.world, &ranking, &group, &state.view);
    Answer::json(200, &explain::ranking(&state.world, ip, &ranking, spare))
}

/// How long the links between PoPs are: `?pop=NAME` of one of them alone.
fn answer_mesh(shared: &Shared, request: &Request) -> Answer {
    let (links, pop) = (Arc::clone(&shared.mesh.lock()), request.parameter("pop"));
    match links.as_json(pop.as_deref()) {
        Some(body) => Answer::json(200, &body),
        None => {
            let error = format!("no PoP is called {:?}", pop.unwrap_or_default());
            Answer::json(404, &serde_json::json!({ "error": error, "wanted": "the name of a [[pop]]" }))
        }
    }
}

/// What `POST /v1/samples` takes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Samples {
    samples: Vec<RoundTrips>,
}

fn answer_samples(shared: &Shared, news: &mpsc::SyncSender<News>, request: &Request) -> Answer {
    let shown = request.authorization.as_deref().and_then(|text| text.strip_prefix("Bearer "));
    let is_known = shared.token.as_deref().zip(shown).is_some_and(|(token, shown)| {
        aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), shown.as_bytes()).is_ok()
    });
    if !is_known {
        let error = "wanted Authorization: Bearer, with the token of the state directory (admin-token)";
        return Answer::json(401, &serde_json::json!({ "error": error }));
    }
    match serde_json::from_slice::<Samples>(&request.body) {
        Ok(Samples { samples }) => {
            let count = samples.len();
            let steering = Steering { trips: samples, ..Steering::default() };
            match tell(shared, news, ("", ""), steering) {
                true => Answer::json(202, &serde_json::json!({ "received": count })),
                false => {
                    Answer::json(503, &serde_json::json!({ "error": "too many at a time; none was taken" }))
                }
            }
        }
        Err(error) => {
            let wanted =
                r#"{"samples": [{"network": "203.0.113.0", "pop": "fra", "count": 1, "sum_ms": 23.4}]}"#;
            Answer::json(400, &serde_json::json!({ "error": error.to_string(), "wanted": wanted }))
        }
    }
}
