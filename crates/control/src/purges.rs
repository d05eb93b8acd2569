//! Purges: from what somebody asks for to a record in the journal, and from there to the proof that every node has applied it.
//!
//! ```text
//! POST ─ orders ─► queue ─► writer: what has come in 2 ms, by token ─ one commit ─► position ─► 202
//! GET /v1/purges/{position} ─► receipts of the nodes that are at or past it, and the laggards
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use journal::{Commit, Error, TEXT_BYTES_MAX};
use model::Url;
use model::change::{Change, ORDER_BYTES_MAX, ORDERS_MAX, Order, What, Written, check_tag, parse_prefix};
use model::diagnostic::Mistake;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use trust::text_hash;
use utoipa::{IntoParams, ToSchema};

use crate::api::{answer, read_json};
use crate::cells;
use crate::clock::now_ms;
use crate::idempotency::{Before, Keyed, PurgeAt};
use crate::limits::{
    BODY_BYTES_MAX, COMMIT_PATIENCE, KEYED_PER_COMMIT_MAX, PURGE_LINGER, REASON_BYTES_MAX, WAIT_MAX,
};
use crate::nodes::Proof;
use crate::problem::Problem;
use crate::tail::RecentPurge;
use crate::tokens::{Caller, Role, duration};
use crate::view::Picture;
use crate::{Limit, Shared};

// --- What is asked for ---

/// What to purge. At least one of `url`, `urls`, `prefix`, `prefixes`, `tag`, `tags`, `site` and `everything`, and together at most
/// 500. Beside tags, URLs or prefixes, `site` narrows: tags to this site, and URLs and prefixes must be of it.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PurgeWanted {
    /// A URL with all its variants: `https://www.shop.example/a.css?v=2`.
    url: Option<String>,
    /// Several.
    urls: Vec<String>,
    /// All URLs that start so, without a query: `https://www.shop.example/media/`.
    prefix: Option<String>,
    /// Several.
    prefixes: Vec<String>,
    /// All that carries a surrogate key (Surrogate-Key, Cache-Tag, xkey).
    tag: Option<String>,
    /// Several.
    tags: Vec<String>,
    /// Everything of a site; beside others, what they are narrowed to.
    site: Option<String>,
    /// Everything of every site.
    everything: bool,
    /// Whether what it matches may be served while it is validated. Otherwise it is gone.
    soft: bool,
    /// Why, for those who read the list of purges.
    reason: Option<String>,
}

impl PurgeWanted {
    /// The orders, each checked against the configurations in force and the caller's scope. Never none.
    fn orders(self, caller: &Caller, picture: &Picture) -> Result<Vec<Order>, Problem> {
        let PurgeWanted { url, urls, prefix, prefixes, tag, tags, site, everything, soft, reason: _ } = self;
        let named = |one: Option<String>, many: Vec<String>, name: &'static str, names: &'static str| {
            let one = one.map(|text| (name.to_owned(), text));
            one.into_iter().chain(
                many.into_iter().enumerate().map(move |(index, text)| (format!("{names}[{index}]"), text)),
            )
        };
        let urls: Vec<_> = named(url, urls, "url", "urls").collect();
        let prefixes: Vec<_> = named(prefix, prefixes, "prefix", "prefixes").collect();
        let tags: Vec<_> = named(tag, tags, "tag", "tags").collect();
        let count = urls.len() + prefixes.len() + tags.len();
        if count > ORDERS_MAX {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too many purges in one request")
                .found(count.to_string())
                .wanted(format!("at most {ORDERS_MAX}"))
                .next("nothing was purged; purge in parts"));
        }
        if everything && (count > 0 || site.is_some()) {
            return Err(Problem::bad("everything is all there is, and stands alone")
                .found("everything beside something else")
                .next("nothing was purged; leave one of them out"));
        }
        if let Some(site) = &site
            && !picture.has_site(site)
        {
            return Err(unknown_site("site", site, picture));
        }
        let mut whats = Vec::with_capacity(count.max(1));
        for (path, url) in urls {
            let site = site_of(&path, &url, Url::parse(&url), site.as_deref(), caller, picture)?;
            whats.push(What::Url { site, url });
        }
        for (path, prefix) in prefixes {
            let site = site_of(&path, &prefix, parse_prefix(&prefix), site.as_deref(), caller, picture)?;
            whats.push(What::Prefix { site, prefix });
        }
        for (path, tag) in tags {
            check_tag(&tag).map_err(|mistake| nothing_purged(&path, &tag, mistake))?;
            caller.may_purge(&path, site.as_deref())?;
            whats.push(What::Tag { site: site.clone(), tag });
        }
        match site {
            Some(site) if whats.is_empty() => {
                caller.may_purge("site", Some(&site))?;
                whats.push(What::Site { site });
            }
            None if everything => {
                caller.may_purge("everything", None)?;
                whats.push(What::Everything);
            }
            _ if whats.is_empty() => {
                return Err(Problem::bad("the body names nothing to purge")
                    .wanted("one or more of url, urls, prefix, prefixes, tag, tags, site, everything"));
            }
            _ => {}
        }
        Ok(whats.into_iter().map(|what| Order { what, soft }).collect())
    }
}

/// The site that a URL is of, in whichever of the configurations in force knows its host; what is stable first.
fn site_of(
    path: &str,
    text: &str,
    url: Result<Url<'_>, Mistake>,
    within: Option<&str>,
    caller: &Caller,
    picture: &Picture,
) -> Result<String, Problem> {
    let host = url.map_err(|mistake| nothing_purged(path, text, mistake))?.host();
    if text.len() > ORDER_BYTES_MAX {
        return Err(Problem::bad(format!("{path} is too long"))
            .found(format!("{} bytes", text.len()))
            .wanted(format!("at most {ORDER_BYTES_MAX} bytes"))
            .next("nothing was purged; purge a prefix of it, or by a surrogate key"));
    }
    let mut sites = picture.snapshots().filter_map(|snapshot| snapshot.site_for(&host)).peekable();
    let Some(first) = sites.peek().map(|site| site.name.to_string()) else {
        if !picture.is_whole {
            return Err(unread());
        }
        let domains = picture.snapshots().flat_map(|snapshot| &snapshot.sites).flat_map(|site| &site.domains);
        let error = format!("{path}: no site of the configuration serves this host");
        let next = "nothing was purged; correct it and purge again";
        return Err(Problem::unknown(&error, &host, domains.map(|domain| &**domain), next));
    };
    for site in sites {
        caller.may_purge(path, Some(&site.name))?;
    }
    match within {
        Some(within) if within != first => {
            Err(Problem::bad(format!("{path} is of another site than the one named"))
                .found(format!("{text:?} is of site {first:?}"))
                .wanted(format!("site {within:?}"))
                .next("nothing was purged; leave site out, or purge in two requests"))
        }
        _ => Ok(first),
    }
}

fn nothing_purged(path: &str, found: &str, mistake: Mistake) -> Problem {
    Problem::mistake(path, found, mistake).next(format!("nothing was purged; {}", mistake.next))
}

/// What is said of a site that no configuration in force has; where not all of them have been read, it may be in the others.
pub(crate) fn unknown_site(path: &str, site: &str, picture: &Picture) -> Problem {
    if !picture.is_whole {
        return unread();
    }
    Problem::unknown(
        &format!("{path}: no site of the configuration is called so"),
        site,
        picture.site_names(),
        "nothing was done; name a site that there is",
    )
}

fn unread() -> Problem {
    let error = "the configurations in force have not been read yet";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error)
        .next("nothing was done; try again, or ask another control")
}

/// What an order matches and how, for people.
pub(crate) fn describe(order: &Order) -> String {
    format!("{}{}", order.what, if order.soft { " (soft)" } else { "" })
}

/// A hard purge of a surrogate key on all sites.
pub(crate) fn tag_order(tag: &str) -> Order {
    Order { what: What::Tag { site: None, tag: tag.to_owned() }, soft: false }
}

// --- Writing ---

/// Purges on their way into the journal.
pub(crate) struct Call {
    pub(crate) orders: Vec<Order>,
    /// As in [`Written::by`].
    pub(crate) by: String,
    pub(crate) keyed: Option<Keyed>,
    pub(crate) written: oneshot::Sender<Result<Done, Error>>,
}

/// What became of a call.
pub(crate) enum Done {
    /// It is written.
    At(u64),
    /// Its idempotency key has been used meanwhile.
    Before,
}

/// Writes what comes, until nobody can call any more. Takes what has come in [`PURGE_LINGER`], and puts what is by the same
/// token into one record.
pub(crate) async fn write(shared: Arc<Shared>, mut calls: mpsc::Receiver<Call>) {
    let mut groups: Vec<Vec<Call>> = Vec::new();
    let mut kept = None;
    loop {
        let Some(first) = (match kept.take() {
            Some(call) => Some(call),
            None => calls.recv().await,
        }) else {
            return;
        };
        groups.push(vec![first]);
        let until = Instant::now() + PURGE_LINGER;
        while let Ok(Some(call)) = tokio::time::timeout_at(until, calls.recv()).await {
            let group = groups.iter_mut().find(|group| group[0].by == call.by);
            match group {
                Some(group) if fits(group, &call) => group.push(call),
                Some(_) => {
                    kept = Some(call);
                    break;
                }
                None => groups.push(vec![call]),
            }
        }
        let mut writing = JoinSet::new();
        for group in groups.drain(..) {
            writing.spawn(write_group(Arc::clone(&shared), group));
        }
        while writing.join_next().await.is_some() {}
    }
}

/// Whether a call still has room in the record of others.
fn fits(group: &[Call], call: &Call) -> bool {
    let orders: usize = group.iter().map(|other| other.orders.len()).sum();
    let bytes: usize = group.iter().chain([call]).flat_map(|call| &call.orders).map(bytes_of).sum();
    let keyed = group.iter().filter(|other| other.keyed.is_some()).count();
    orders + call.orders.len() <= ORDERS_MAX
        && bytes <= TEXT_BYTES_MAX / 2
        && call.keyed.as_ref().is_none_or(|key| {
            let is_there =
                group.iter().filter_map(|other| other.keyed.as_ref()).any(|other| other.is_same(key));
            keyed < KEYED_PER_COMMIT_MAX && !is_there
        })
}

fn bytes_of(order: &Order) -> usize {
    const FRAME: usize = 64;
    FRAME
        + match &order.what {
            What::Url { site, url } => site.len() + url.len(),
            What::Prefix { site, prefix } => site.len() + prefix.len(),
            What::Tag { site, tag } => site.as_ref().map_or(0, String::len) + tag.len(),
            What::Site { site } => site.len(),
            What::Everything => 0,
        }
}

/// One record. A purge that may have been written is written again: twice does no harm, and once too few does.
async fn write_group(shared: Arc<Shared>, mut group: Vec<Call>) {
    let until = Instant::now() + COMMIT_PATIENCE;
    let mut unknown = None;
    while !group.is_empty() {
        let done = match record_of(&shared, &group) {
            Ok(commit) => cells::bounded(shared.journal.commit(commit)).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(position) => {
                shared.tail.advance(position);
                let orders: usize = group.iter().map(|call| call.orders.len()).sum();
                shared.counts.purges.fetch_add(orders as u64, Ordering::Relaxed);
                shared.counts.records.fetch_add(1, Ordering::Relaxed);
                for call in group {
                    // Who asked may be gone by now.
                    let _gone = call.written.send(Ok(Done::At(position)));
                }
                return;
            }
            Err(Error::Conflict(cell)) => {
                let index = group
                    .iter()
                    .position(|call| call.keyed.as_ref().is_some_and(|keyed| keyed.cell() == cell));
                // Midnight has given the cells other names since; the next attempt has the new ones.
                let Some(index) = index else { continue };
                let _gone = group.swap_remove(index).written.send(Ok(Done::Before));
            }
            Err(error @ (Error::Unavailable(_) | Error::Unknown(_))) if Instant::now() < until => {
                unknown = Some(error).filter(|error| matches!(error, Error::Unknown(_))).or(unknown);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => {
                // An attempt whose answer was lost may have been written, whatever a later one says of itself.
                let error = unknown.unwrap_or(error);
                for call in group {
                    let _gone = call.written.send(Err(error.clone()));
                }
                return;
            }
        }
    }
}

fn record_of(shared: &Shared, group: &[Call]) -> Result<Commit, Error> {
    let mut seen = HashSet::new();
    let orders = group.iter().flat_map(|call| &call.orders).filter(|order| seen.insert(*order)).cloned();
    let written =
        Written { by: group[0].by.clone(), at_ms: now_ms(), change: Change::Purge(orders.collect()) };
    let text = serde_json::to_string(&written).map_err(|error| Error::Broken(error.to_string()))?;
    let mut commit = Commit::default();
    let at = PurgeAt { after: shared.tail.head(), record: text_hash(text.as_bytes()), purges: 0 };
    for call in group {
        if let Some(keyed) = &call.keyed {
            let at = PurgeAt { purges: call.orders.len(), ..at.clone() };
            keyed.add_purge(&mut commit, &shared.vault, at)?;
        }
    }
    commit.record = Some(text);
    Ok(commit)
}

impl Shared {
    /// Writes purges, and says at which position.
    pub(crate) async fn purge(
        &self,
        orders: Vec<Order>,
        by: String,
        keyed: Option<Keyed>,
    ) -> Result<Done, Problem> {
        let (written, done) = oneshot::channel();
        self.calls.try_send(Call { orders, by, keyed, written }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.counts.reached(Limit::PurgesQueued);
                let error = "too many purges wait to be written; nothing was purged";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, error)
                    .retry_after(1)
                    .next("purge again in a moment; put more into one request")
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        done.await.map_err(|_| stopping())?.map_err(Problem::from)
    }

    /// Where the record is that a purge was written in.
    async fn find(&self, at: &PurgeAt) -> Result<u64, Problem> {
        const PAGE: usize = 500;
        let mut after = at.after;
        loop {
            let page = cells::bounded(self.journal.read(after, PAGE)).await?;
            let is_it = |text: &str| text_hash(text.as_bytes()) == at.record;
            if let Some(record) = page.records.iter().find(|record| is_it(&record.text)) {
                return Ok(record.position);
            }
            match page.records.last() {
                Some(last) if page.has_more => after = last.position,
                _ => {
                    return Err(Problem::new(
                        StatusCode::GONE,
                        "the purge was written, and its record is not kept any more",
                    ));
                }
            }
        }
    }
}

fn stopping() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "this control is stopping; whether it was purged is not known",
    )
    .retry_after(1)
    .next("purge again, at another control")
}

// --- API ---

/// How far a purge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PurgeState {
    /// In the journal, and not proven at every node in service.
    Waiting,
    /// Every node in service has signed that it serves nothing of it any more.
    Done,
}

/// A purge that is safe in the journal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PurgeAccepted {
    /// Its place in the order of changes.
    position: u64,
    /// How far it has come.
    state: PurgeState,
    /// How many purges were asked for.
    purges: usize,
    /// Nodes in service.
    nodes: usize,
    /// Where its receipts are.
    receipts: String,
}

/// Purge by URL, prefix, surrogate key, site, or everything
///
/// Answers once it is safe in the journal. With an `Idempotency-Key`, the same request within 24 hours is answered with the same
/// position, or with 410 once its record is not kept any more, and not done again.
#[utoipa::path(post, path = "/v1/purges", tag = "purges", request_body = PurgeWanted,
    params(("Idempotency-Key" = Option<String>, Header, description = "at most 200 bytes; known for 24 hours at least")),
    responses((status = 202, body = PurgeAccepted), (status = "default", body = Problem)))]
pub(crate) async fn purge(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Role::Purger)?;
    let body = shared.sent(request, BODY_BYTES_MAX).await?;
    let keyed = Keyed::of(&caller, "POST /v1/purges", &headers, &body)?;
    if let Some(keyed) = &keyed
        && let Some(Before::Purge(at)) = keyed.before(&shared).await?
    {
        return accepted_before(&shared, &at).await;
    }
    let wanted: PurgeWanted = read_json(
        &headers,
        &body,
        r#"{"url": "https://www.shop.example/a.css"} or {"tags": ["shoes"], "soft": true}"#,
    )?;
    let by = match wanted.reason.as_deref().filter(|reason| !reason.trim().is_empty()) {
        Some(reason) => format!("{}: {}", caller.name(), check_reason(reason)?),
        None => caller.name().to_owned(),
    };
    let orders = match wanted.clone().orders(&caller, &shared.view.get()) {
        // It may be of a configuration that came into force a moment ago.
        Err(unknown) if unknown.status() == StatusCode::NOT_FOUND => match shared.refresh_view().await {
            Ok(()) => wanted.orders(&caller, &shared.view.get())?,
            Err(error) => return Err(Problem::from(error).next("nothing was purged; try again")),
        },
        orders => orders?,
    };
    let purges = orders.len();
    match shared.purge(orders, by, keyed.clone()).await? {
        Done::At(position) => Ok(accepted(&shared, position, purges)),
        Done::Before => match keyed {
            Some(keyed) => match keyed.before(&shared).await? {
                Some(Before::Purge(at)) => accepted_before(&shared, &at).await,
                _ => Err(Problem::from(Error::Conflict(keyed.cell()))),
            },
            None => Err(stopping()),
        },
    }
}

async fn accepted_before(shared: &Shared, at: &PurgeAt) -> Result<Response, Problem> {
    Ok(accepted(shared, shared.find(at).await?, at.purges))
}

fn accepted(shared: &Shared, position: u64, purges: usize) -> Response {
    let proof = shared.proof(position);
    let accepted = PurgeAccepted {
        position,
        state: proof.state(),
        purges,
        nodes: proof.in_service(),
        receipts: format!("/v1/purges/{position}"),
    };
    answer(StatusCode::ACCEPTED, &accepted)
}

/// A reason: one line, so that it can stand beside a name.
pub(crate) fn check_reason(reason: &str) -> Result<&str, Problem> {
    let reason = reason.trim();
    match reason.len() <= REASON_BYTES_MAX && !reason.chars().any(char::is_control) {
        true => Ok(reason),
        false => Err(Problem::bad("the reason is not one line")
            .found(format!("{} bytes", reason.len()))
            .wanted(format!("one line of at most {REASON_BYTES_MAX} bytes"))),
    }
}

/// What `GET /v1/purges/{position}` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// How long to wait for the last receipt, e.g. `10s`; at most 55 s. Without, the answer comes at once.
    wait: Option<String>,
}

/// How far a purge has come, and the proof.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PurgeStatus {
    /// Its position.
    position: u64,
    /// `done` only when every node in service has a receipt at or past the position, and there is one at least.
    state: PurgeState,
    #[serde(flatten)]
    proof: Proof,
}

/// A purge's receipts and laggards
#[utoipa::path(get, path = "/v1/purges/{position}", tag = "purges",
    params(("position" = u64, Path), WaitQuery),
    responses((status = 200, body = PurgeStatus), (status = "default", body = Problem)))]
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(position): Path<String>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<Json<PurgeStatus>, Problem> {
    caller.may(Role::Viewer)?;
    let position: u64 = position.parse().map_err(|_| {
        Problem::bad("the position is not a number")
            .found(position)
            .wanted("what POST /v1/purges has answered")
    })?;
    let Query(query) = query.map_err(|error| Problem::bad(error.body_text()).wanted("?wait=10s"))?;
    let wait = query.wait.as_deref().map_or(Ok(Duration::ZERO), |text| duration("wait", text))?;
    if wait > WAIT_MAX {
        return Err(Problem::bad("this is too long to wait in one request")
            .found(format!("{} s", wait.as_secs()))
            .wanted(format!("at most {} s", WAIT_MAX.as_secs()))
            .next("ask again when it is over"));
    }
    let until = Instant::now() + wait;
    loop {
        let changed = shared.receipts_changed();
        let head = shared.tail.head();
        if position == 0 || position > head {
            // Another control may have written it a moment ago.
            if Instant::now() < until {
                let _timeout = tokio::time::timeout_at(until.min(Instant::now() + PAUSE), changed).await;
                continue;
            }
            return Err(Problem::new(StatusCode::NOT_FOUND, "the journal has no such position yet")
                .found(position.to_string())
                .wanted(format!("1 to {head}"))
                .next("use the position that POST /v1/purges has answered"));
        }
        let proof = shared.proof(position);
        let state = proof.state();
        if state == PurgeState::Done || Instant::now() >= until {
            return Ok(Json(PurgeStatus { position, state, proof }));
        }
        // Who falls silent changes no report: look from time to time.
        let _timeout = tokio::time::timeout_at(until.min(Instant::now() + PAUSE), changed).await;
    }
}

/// How often a wait looks without being told that anything has changed.
const PAUSE: Duration = Duration::from_millis(500);

/// The newest purges.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Purges {
    /// The newest first; at most 1,000, without the canaries, and those of the token's sites, where it is for some only.
    purges: Vec<RecentPurge>,
    /// The newest position of the journal.
    head: u64,
}

/// The newest purges
#[utoipa::path(get, path = "/v1/purges", tag = "purges",
    responses((status = 200, body = Purges), (status = "default", body = Problem)))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Purges>, Problem> {
    caller.may(Role::Viewer)?;
    Ok(Json(Purges { purges: shared.tail.recent_purges(&caller), head: shared.tail.head() }))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_site_is_unknown_only_when_all_configurations_have_been_read() {
        let mut picture = Picture::default();
        for (is_whole, status) in [(false, StatusCode::SERVICE_UNAVAILABLE), (true, StatusCode::NOT_FOUND)] {
            picture.is_whole = is_whole;
            for wanted in [
                PurgeWanted { site: Some("shop".to_owned()), ..PurgeWanted::default() },
                PurgeWanted { url: Some("https://www.shop.example/".to_owned()), ..PurgeWanted::default() },
            ] {
                let refused = wanted.orders(&Caller::of_this_machine(), &picture).unwrap_err();
                assert_eq!(refused.into_response().status(), status);
            }
        }
    }
}
