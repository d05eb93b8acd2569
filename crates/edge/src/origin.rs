//! Fetching from origins: one call in, one answer or one [`FetchError`] out. Chooses among a group's origins (health,
//! breaker, fail-over), gets a connection (kept or new), has the exchange, and decides about another try.
//!
//! ```text
//! fetch ─► order of origins ─► breaker ─► budget ─► slot ─► connection ─► exchange ─► OriginResponse { body: OriginBody }
//!             ▲                                                 ▲             │
//!             │                                                 └─ stale kept ┤  once, safe requests or nothing sent
//!             └── next origin: nothing sent, or safe and within the share of retries ┘
//! ```
//!
//! What it doesn't do: it knows nothing of caching, strips no hop-by-hop fields (its callers do, both ways), and never
//! looks at a URL that a visitor sent to find out whom to ask: it connects to what the configuration names and to
//! nothing else. Callers are the flow (for one visitor alone), `tiers` (for fetches that others may follow) and the prober.

mod attempt;
mod body;
mod budget;
mod connect;
mod error;
mod exchange;
mod pool;
mod probe;
mod shared;
mod tls;
mod turns;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use model::OriginGroup;
use model::breaker::Permit;
use observe::{FetchEvent, Registry, Slot};
use semantics::{Fields, Wall};
use tokio::time::{Instant, timeout};

use attempt::{Attempt, Ledger, Sink};
use body::Upload;
use budget::GivenUp;
use connect::Names;
use exchange::{Failed, body_length, exchange, response_fields};
use pool::{Pool, Wanted};
use shared::OriginState;

use crate::tiers::Told;

pub(crate) use body::{BodyPart, OriginBody, RequestBody, Transform};
pub(crate) use budget::Askers;
pub use budget::BudgetStatus;
pub(crate) use error::{FetchError, FetchErrorKind, Phase, Sent};
pub(crate) use exchange::{fields_of, header_map};
pub(crate) use probe::probe_origins;
pub use shared::OriginStatus;
pub(crate) use shared::{Named, OriginsShared};
pub(crate) use turns::{Heard, WORDS_MAX};

/// One worker's way to the origins: its pools and its resolved names, and what it shares with the other workers.
/// Must live on a runtime on which `spawn_local` works.
pub(crate) struct Origins {
    shared: Arc<OriginsShared>,
    pools: RefCell<HashMap<u64, Rc<Pool>>>,
    names: Rc<Names>,
    observer: RefCell<Option<(Arc<Registry>, Sink)>>,
}

/// What to ask an origin.
#[derive(Debug)]
pub(crate) struct OriginRequest {
    /// Any token (RFC 9110 §9.1).
    pub(crate) method: Box<str>,
    /// Path and query, or `*`. The origin's path prefix goes before it.
    pub(crate) target: Box<str>,
    /// The visitor's Host with port, as sent; goes on unless the origin has its own.
    pub(crate) host: Box<str>,
    /// Field lines without hop-by-hop fields. Host and framing fields in here are ignored: both are made new.
    pub(crate) fields: Fields,
    /// The body.
    pub(crate) body: RequestBody,
    /// Whether the request may be sent twice: safe methods. With a body it never is.
    pub(crate) retry_safe: bool,
    /// Whether trailer fields of the answer will be passed on: the origin is told so (TE, RFC 9110 §10.1.4).
    pub(crate) takes_trailers: bool,
    /// For which site and rule an origin is asked, in the statistics; `None` when another edge is.
    pub(crate) on_behalf_of: Option<(Slot, u32)>,
    /// Protocol to upgrade to (`websocket`); the exchange then has a connection of its own (RFC 9110 §7.8).
    pub(crate) upgrade: Option<Box<str>>,
    /// Who waits for it; looked at where the origin has a budget that is short.
    pub(crate) askers: Askers,
    /// How long to wait, where it is not the origin's own settings that say so.
    pub(crate) patience: Option<Patience>,
}

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From the request to the head.
    pub(crate) first_byte: Duration,
    /// Between two parts of the body.
    pub(crate) idle: Duration,
    /// From the beginning to the end of the body, other attempts included; `None` is without limit.
    pub(crate) total: Option<Duration>,
}

/// An origin's answer, as soon as its head is here.
#[derive(Debug)]
pub(crate) struct OriginResponse {
    /// From 200 to 999; 101 only together with `tunnel`.
    pub(crate) status: u16,
    /// The field lines, hop-by-hop fields included. At most one Content-Length, none beside Transfer-Encoding; it is
    /// what the origin said, and for HEAD, 204 and 304 not the length of what follows.
    pub(crate) fields: Fields,
    /// Length of the body to come; `None` until its end is seen.
    pub(crate) length: Option<u64>,
    /// The body.
    pub(crate) body: OriginBody,
    /// The connection, after 101.
    pub(crate) tunnel: Option<Tunnel>,
    /// What another edge has told of it, if one was asked.
    pub(crate) told: Option<Box<Told>>,
    /// How it was got.
    pub(crate) info: FetchInfo,
    /// When the request that got this answer was sent (RFC 9111 §4.2.3).
    pub(crate) request_time: Wall,
    /// When its head was complete.
    pub(crate) response_time: Wall,
}

/// An upgraded connection; reads and writes bytes of the other protocol.
pub(crate) struct Tunnel {
    /// The bytes.
    pub(crate) io: TokioIo<hyper::upgrade::Upgraded>,
    _attempt: Attempt,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tunnel")
    }
}

/// How an answer was got, for the log. The observer hears of each attempt by itself ([`Origins::report_to`]).
#[derive(Clone, Debug)]
pub(crate) struct FetchInfo {
    /// The origin's URL.
    pub(crate) origin: Arc<str>,
    /// Time from the start of the fetch, failed attempts included, to the complete head, in µs.
    pub(crate) first_byte_us: u64,
    /// Origins asked, this one included. A stale kept connection is no attempt.
    pub(crate) attempts: u32,
}

impl Origins {
    /// A worker's own, without connections.
    pub(crate) fn new(shared: Arc<OriginsShared>) -> Self {
        Origins { shared, pools: RefCell::default(), names: Rc::default(), observer: RefCell::default() }
    }

    /// From now on, `emit` gets one event for each attempt at an origin, when the attempt is over, body and all.
    pub(crate) fn report_to(&self, registry: &Arc<Registry>, emit: impl Fn(&FetchEvent) + 'static) {
        *self.observer.borrow_mut() = Some((registry.clone(), Rc::new(emit)));
    }

    /// How many exchanges this worker has with the only origin of `group` now.
    pub(crate) fn in_flight(&self, group: &OriginGroup) -> u32 {
        let states = self.shared.group(group);
        states.first().map_or(0, |state| self.pool(state).in_flight())
    }

    /// Asks the origins of `group`, in order, until one answers.
    ///
    /// - `group`'s header changes are applied here.
    /// - `on_informational` gets status and fields of each interim (1xx) response of HTTP/1.1 origins while it waits.
    ///
    /// Bounded by the origins' time-outs; dropping the future ends the exchange. Errors: see [`FetchErrorKind`]; with
    /// all breakers open it fails at once, without waiting for anything.
    ///
    /// In a box, as it takes 4 KB: who follows another's fetch, or sends, would have the room for it too.
    pub(crate) fn fetch(
        &self,
        group: &OriginGroup,
        request: OriginRequest,
        on_informational: impl Fn(u16, Fields),
    ) -> Pin<Box<impl Future<Output = Result<OriginResponse, FetchError>>>> {
        Box::pin(self.ask(group, request, on_informational))
    }

    async fn ask(
        &self,
        group: &OriginGroup,
        mut request: OriginRequest,
        on_informational: impl Fn(u16, Fields),
    ) -> Result<OriginResponse, FetchError> {
        group.prepare(&mut request.fields);
        let started = Instant::now();
        let states = self.shared.group(group);
        let Some(first) = states.first() else {
            return Err(FetchError::new(FetchErrorKind::NoOrigin, Sent::Nothing, "the group is empty"));
        };
        let total = request.patience.map_or(first.settings.timeouts.total, |patience| patience.total);
        let total = total.map(|total| started + total);
        let now = self.shared.now();
        first.budget_request(now);
        let body = std::mem::replace(&mut request.body, RequestBody::Empty);
        let mut upload = Upload::new(body);
        let retry_safe = request.retry_safe && upload.is_empty();

        let order = shared::order(&states, now);
        let prepared = (!group.request_headers_of.is_empty()).then(|| request.fields.clone());
        let mut attempts = 0;
        let mut answer: Option<OriginResponse> = None;
        let mut error: Option<FetchError> = None;
        for (place, &index) in order.iter().enumerate() {
            let state = &states[index];
            let now = self.shared.now();
            if let Some(prepared) = &prepared {
                request.fields = prepared.clone();
                group.prepare_for(index, &mut request.fields);
            }
            let Some(permit) = state.admit(now) else {
                state.counters.breaker_refusals.add();
                self.ledger(&self.pool(state), request.on_behalf_of, attempts > 0)
                    .fail(FetchErrorKind::BreakerOpen);
                continue;
            };
            if attempts > 0 {
                // Where no origin has seen the request, another try adds no load and needs no budget.
                let unseen = answer.is_none() && error.as_ref().is_some_and(FetchError::sent_nothing);
                if !unseen && !first.budget_take(now) {
                    first.counters.budget_refusals.add();
                    break;
                }
                state.counters.fail_overs.add();
            }
            attempts += 1;
            let tries = Tries { started, total, attempts, on_informational: &on_informational };
            match self.attempt(state, permit, group, &request, upload, tries).await {
                Ok(mut response) => {
                    let more = place + 1 < order.len();
                    if !(more && retry_safe && group.fails_over(response.status)) {
                        if let Some(worse) = &mut answer {
                            worse.body.close();
                        }
                        return Ok(response);
                    }
                    // Kept in case that the others cannot even connect.
                    match &answer {
                        None => answer = Some(response),
                        Some(_) => response.body.close(),
                    }
                    upload = Upload::new(RequestBody::Empty);
                }
                Err(failed) => {
                    let go_on = failed.error.may_retry(retry_safe);
                    error = Some(failed.error.at(&state.name));
                    match failed.upload {
                        Some(unsent) if go_on => upload = unsent,
                        _ => break,
                    }
                }
            }
        }
        match (answer, error) {
            (Some(answer), _) => Ok(answer),
            (None, Some(error)) => Err(error),
            (None, None) => {
                let detail = "every origin is failing and is left alone for a while";
                Err(FetchError::new(FetchErrorKind::BreakerOpen, Sent::Nothing, detail))
            }
        }
    }

    /// One origin: a slot, a connection, an exchange; once more on a new connection when the kept one was stale.
    async fn attempt(
        &self,
        state: &Arc<OriginState>,
        permit: Permit,
        group: &OriginGroup,
        request: &OriginRequest,
        mut upload: Upload,
        tries: Tries<'_>,
    ) -> Result<OriginResponse, Failed> {
        state.counters.attempts.add();
        let pool = self.pool(state);
        let mut ledger = self.ledger(&pool, request.on_behalf_of, tries.attempts > 1);
        let granted = async {
            let turn = match &state.quota {
                Some(budget) => Some(budget.turn(&request.askers).await?),
                None => None,
            };
            Ok((turn, Instant::now(), pool.slot().await?))
        };
        let (turn, asked, slot) = match granted.await {
            Ok(granted) => granted,
            Err(error) => {
                ledger.fail(FetchError::kind(&error));
                return Err(Failed::before(error, upload));
            }
        };
        let mut attempt = Attempt::new(&self.shared, state, permit, ledger, slot, turn);
        let mut wanted = if request.upgrade.is_some() { Wanted::NewHttp1 } else { Wanted::Any };
        let timeouts = &state.settings.timeouts;
        loop {
            let leasing = pool.lease(&self.names, wanted);
            let patience = match tries.total {
                Some(total) => timeouts.connect.min(total.saturating_duration_since(Instant::now())),
                None => timeouts.connect,
            };
            let mut lease = match timeout(patience, leasing).await {
                Ok(Ok(lease)) => lease,
                Ok(Err(error)) => {
                    attempt.failed(&error);
                    return Err(Failed::before(error, upload));
                }
                Err(_) => {
                    let over = tries.total.is_some_and(|total| total <= Instant::now());
                    let phase = if over { Phase::Total } else { Phase::Connect };
                    let detail = format_args!("no connection within {patience:?}");
                    let error = FetchError::new(FetchErrorKind::Timeout(phase), Sent::Nothing, detail);
                    attempt.failed(&error);
                    return Err(Failed::before(error, upload));
                }
            };
            let connect_us = micros_since(asked);
            attempt.connected(&lease, connect_us);
            if let Err(error) = attempt.send(&request.askers).await {
                attempt.failed(&error);
                return Err(Failed::before(error, upload));
            }
            let sent_at = Instant::now();
            let request_time = self.shared.wall();
            let settings = &state.settings;
            let progress = upload.progress();
            let mut given_up = attempt.given_up();
            let exchanged = tokio::select! {
                biased;
                () = GivenUp::wait_for(given_up.as_mut()) => match attempt.why_given_up() {
                    Some(error) => Err(Failed { error, upload: None, stale: false }),
                    None => unreachable!("only what has a turn is given up"),
                },
                done = exchange(settings, request, upload, &mut lease, tries.total, tries.on_informational) => done,
            };
            let mut response = match exchanged {
                Ok(response) => response,
                Err(Failed { stale: true, upload: Some(unsent), error })
                    if wanted == Wanted::Any && error.may_retry(request.retry_safe) =>
                {
                    state.counters.stale.add();
                    upload = unsent;
                    wanted = Wanted::After(Instant::now());
                    continue;
                }
                Err(failed) => {
                    attempt.failed(&failed.error);
                    return Err(failed);
                }
            };
            if lease.is_reused() {
                state.counters.reused.add();
            }
            let info = FetchInfo {
                origin: state.name.clone(),
                first_byte_us: micros_since(tries.started),
                attempts: tries.attempts,
            };
            let status = response.status().as_u16();
            // An origin that answers is not helped by silence, so a status counts against it only where the group
            // has another one to turn to.
            let well = group.origins.len() < 2 || !group.fails_over(status);
            attempt.answered(status, well, micros_since(sent_at));
            if status == 101 {
                return self.upgraded(attempt, request, response, info, request_time).await;
            }
            let (fields, keep) = response_fields(response.headers_mut());
            if !keep {
                lease.forget();
            }
            let incoming = response.into_body();
            let length = body_length(&*request.method == "HEAD", status, &incoming);
            let idle = request.patience.map_or(timeouts.idle, |patience| patience.idle);
            let body = OriginBody::new(incoming, lease, attempt, progress, idle, tries.total);
            return Ok(OriginResponse {
                status,
                fields,
                length,
                body,
                tunnel: None,
                told: None,
                info,
                request_time,
                response_time: self.shared.wall(),
            });
        }
    }

    /// Takes over the connection after 101 (RFC 9110 §15.2.2).
    async fn upgraded(
        &self,
        mut attempt: Attempt,
        request: &OriginRequest,
        mut response: http::Response<hyper::body::Incoming>,
        info: FetchInfo,
        request_time: Wall,
    ) -> Result<OriginResponse, Failed> {
        attempt.is_tunnel();
        let upgraded = match request.upgrade {
            Some(_) => hyper::upgrade::on(&mut response).await.map_err(|error| error.to_string()),
            None => Err("an upgrade that nobody asked for".to_owned()),
        };
        match upgraded {
            Ok(upgraded) => {
                attempt.finished(0);
                Ok(OriginResponse {
                    status: 101,
                    fields: exchange::fields_of(response.headers()),
                    length: Some(0),
                    body: OriginBody::empty(),
                    tunnel: Some(Tunnel { io: TokioIo::new(upgraded), _attempt: attempt }),
                    told: None,
                    info,
                    request_time,
                    response_time: self.shared.wall(),
                })
            }
            Err(detail) => {
                let error = FetchError::new(FetchErrorKind::Protocol, Sent::Answer, detail);
                attempt.failed(&error);
                Err(Failed { error, upload: None, stale: false })
            }
        }
    }

    /// What will be told of an attempt that begins now.
    fn ledger(&self, pool: &Pool, on_behalf_of: Option<(Slot, u32)>, retry: bool) -> Ledger {
        let observer = self.observer.borrow();
        let Some((registry, sink)) = &*observer else {
            return Ledger::new(None, Slot::NONE, on_behalf_of, retry);
        };
        let slot = pool.metric.get().unwrap_or_else(|| registry.origin(&pool.origin.name));
        pool.metric.set(Some(slot));
        Ledger::new(Some(sink.clone()), slot, on_behalf_of, retry)
    }

    fn pool(&self, state: &Arc<OriginState>) -> Rc<Pool> {
        if let Some(pool) = self.pools.borrow().get(&state.id) {
            return pool.clone();
        }
        let mut pools = self.pools.borrow_mut();
        pools.retain(|_, pool| !pool.origin.is_retired());
        pools.entry(state.id).or_insert_with(|| Rc::new(Pool::new(state.clone()))).clone()
    }
}

/// What the attempts of one fetch share.
struct Tries<'a> {
    started: Instant,
    total: Option<Instant>,
    attempts: u32,
    on_informational: &'a dyn Fn(u16, Fields),
}

fn micros_since(start: Instant) -> u64 {
    start.elapsed().as_micros() as u64
}
