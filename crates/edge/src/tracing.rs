//! Traces: which requests are in one, what is said of it to whoever is asked next, and the spans of those that are sampled.
//!
//! ```text
//! traceparent of the visitor (if it is believed) or of another edge ─► Trace ─┬─► spans: request, lookup
//!   none: begun here, one of so many sampled                                  └─► Asking: a span for each hop and fetch,
//!                                                                                 whose id goes out as traceparent
//! ```
//!
//! A request that is not sampled has ids all the same, so that whoever is asked next does not sample it either, and the log has
//! something to find it by; its cost is a few hashes. While traces are off, no request has any of this.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use observe::{Slot, Traces};
use semantics::trace::{TRACEPARENT, TRACESTATE, TraceParent};
use semantics::{Fields, Why};
use stats::otlp::{KIND_CLIENT, KIND_INTERNAL, KIND_SERVER, KeyValue, STATUS_ERROR, Span, Status};

use crate::origin::{FetchError, OriginResponse};
use crate::request::Request;
use crate::worker::Worker;

/// How traces are begun, continued and told.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Who is told.
    pub traces: Traces,
    /// One request of so many begins a trace that is recorded.
    pub one_in: u32,
    /// Whether a visitor's `traceparent` is continued, with its word whether it is recorded.
    pub believes_visitors: bool,
}

/// A worker's own.
pub(crate) struct Tracer {
    tracing: Tracing,
    /// Keyed by chance, so that no id can be guessed from others.
    ids: RandomState,
    next: Cell<u64>,
}

/// Where a request stands in its trace.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) id: u128,
    /// The span of this edge's answer.
    span: u64,
    /// The caller's span; 0 for none.
    parent: u64,
    is_sampled: bool,
    /// How long the cache was looked at, in ns.
    looked_ns: Cell<u64>,
}

impl Tracer {
    pub(crate) fn new(tracing: Tracing) -> Self {
        Tracer { tracing, ids: RandomState::new(), next: Cell::new(0) }
    }

    /// 64 bits that are not 0.
    fn chance(&self) -> u64 {
        self.next.set(self.next.get().wrapping_add(1));
        self.ids.hash_one(self.next.get()).max(1)
    }

    /// Where a request stands that has just come. Takes from its fields what is said anew to whoever is asked next.
    pub(crate) fn begin(&self, fields: &mut Fields, is_of_edge: bool) -> Trace {
        let mut said = fields.get_all(TRACEPARENT);
        // Said twice, it is said by nobody in particular.
        let parent = match (said.next(), said.next()) {
            (Some(value), None) if is_of_edge || self.tracing.believes_visitors => TraceParent::parse(value),
            _ => None,
        };
        drop(said);
        fields.remove(TRACEPARENT);
        if parent.is_none() {
            fields.remove(TRACESTATE);
        }
        let (id, parent, is_sampled) = match parent {
            Some(parent) => (parent.trace_id, parent.parent_id, parent.is_sampled),
            None => {
                let id = u128::from(self.chance()) << 64 | u128::from(self.chance());
                (id, 0, self.chance().is_multiple_of(u64::from(self.tracing.one_in.max(1))))
            }
        };
        Trace { id, span: self.chance(), parent, is_sampled, looked_ns: Cell::new(0) }
    }
}

impl Trace {
    /// The cache has been looked at; the first time counts.
    pub(crate) fn looked(&self, started: Instant) {
        if self.is_sampled && self.looked_ns.get() == 0 {
            self.looked_ns.set((started.elapsed().as_nanos() as u64).max(1));
        }
    }
}

/// In ns since 1970: wall time as it was when the request came, and what has gone by since.
fn begun_ns(request: &Request) -> u64 {
    u64::try_from(request.now.0).unwrap_or_default().saturating_mul(1_000_000)
}

fn now_ns(request: &Request) -> u64 {
    begun_ns(request).saturating_add(request.started.elapsed().as_nanos() as u64)
}

/// Bytes of a visitor's text in a span: many wait while nobody takes them. The access log has the whole, by the trace's id.
const TEXT_BYTES_MAX: usize = 512;

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

fn span_of(trace: &Trace, id: u64, parent: u64, name: &str, kind: i32) -> Span {
    Span {
        trace_id: trace.id.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        name: name.to_owned(),
        kind,
        ..Span::default()
    }
}

/// What is told of a finished request.
pub(crate) struct Finished {
    pub(crate) status: u16,
    pub(crate) why: Why,
    pub(crate) site: Slot,
    pub(crate) rule: Option<u32>,
    pub(crate) is_collapsed: bool,
    pub(crate) sent_bytes: u64,
}

/// Tells the spans of a request that has ended: of the whole, and of looking it up.
pub(crate) fn finish(worker: &Worker, request: &Request, finished: impl FnOnce() -> Finished) {
    let (Some(tracer), Some(trace)) = (&worker.tracer, &request.trace) else { return };
    if !trace.is_sampled {
        return;
    }
    let finished = finished();
    let outcome = finished.why.outcome().as_str();
    let begun = begun_ns(request);
    if trace.looked_ns.get() > 0 {
        let mut lookup = span_of(trace, tracer.chance(), trace.span, "lookup", KIND_INTERNAL);
        (lookup.start_ns, lookup.end_ns) = (begun, begun.saturating_add(trace.looked_ns.get()));
        tracer.tracing.traces.tell(lookup);
    }
    let method = cut(request.method.as_str());
    let mut span = span_of(trace, trace.span, trace.parent, method, KIND_SERVER);
    (span.start_ns, span.end_ns) = (begun, now_ns(request));
    span.attributes = vec![
        KeyValue::text("http.request.method", method),
        KeyValue::text("server.address", cut(&request.host)),
        KeyValue::text("url.path", cut(request.path())),
        KeyValue::text("url.scheme", if request.secure { "https" } else { "http" }),
        KeyValue::text("network.protocol.version", request.protocol.version()),
        KeyValue::number("http.response.status_code", finished.status.into()),
        KeyValue::number("http.response.size", finished.sent_bytes),
        KeyValue::text("perigee.site", worker.shared.registry.site_name(finished.site)),
        KeyValue::text("perigee.outcome", outcome),
        KeyValue::text("perigee.why", finished.why.as_str()),
        KeyValue::text("perigee.request_id", String::from_utf8_lossy(&request.id.text())),
    ];
    if let Some(rule) = finished.rule {
        span.attributes.push(KeyValue::number("perigee.rule", rule.into()));
    }
    if let Some(asked) = &request.asked {
        span.attributes.push(KeyValue::text("perigee.asked_as", asked.hop.as_str()));
    }
    if finished.is_collapsed {
        span.attributes.push(KeyValue::bool("perigee.collapsed", true));
    }
    if finished.status >= 500 {
        span.status = Some(Status { message: finished.why.as_str().to_owned(), code: STATUS_ERROR });
    }
    tracer.tracing.traces.tell(span);
}

/// The name of the span of an origin's part; those of other edges are `peer` and `shield`.
pub(crate) const FETCH: &str = "origin fetch";

/// Somebody is asked on behalf of a request; told when it is dropped.
pub(crate) struct Asking {
    traces: Traces,
    span: Span,
    /// From the request's begin, as [`begun_ns`] has it.
    begun_ns: u64,
    started: Instant,
}

impl Asking {
    /// Begins to ask, and says so in the fields of what is sent. `None` where nothing is recorded.
    pub(crate) fn begin(
        worker: &Worker,
        request: &Request,
        name: &'static str,
        why: Option<Why>,
        fields: &mut Fields,
    ) -> Option<Asking> {
        let (tracer, trace) = (worker.tracer.as_ref()?, request.trace.as_ref()?);
        let id = if trace.is_sampled { tracer.chance() } else { trace.span };
        let said = TraceParent { trace_id: trace.id, parent_id: id, is_sampled: trace.is_sampled };
        fields.append_unchecked(TRACEPARENT.as_bytes(), &said.text());
        if !trace.is_sampled {
            return None;
        }
        let mut span = span_of(trace, id, trace.span, name, KIND_CLIENT);
        span.start_ns = now_ns(request);
        span.attributes = vec![KeyValue::text("http.request.method", request.method.as_str())];
        span.attributes.extend(why.map(|why| KeyValue::text("perigee.why", why.as_str())));
        Some(Asking {
            traces: tracer.tracing.traces.clone(),
            span,
            begun_ns: begun_ns(request),
            started: request.started,
        })
    }

    /// It is another edge, of this name.
    pub(crate) fn of_node(mut self, node: &str) -> Self {
        self.span.attributes.push(KeyValue::text("perigee.node", node));
        self
    }

    /// A head or a failure has come. An answer's body ends the span.
    pub(crate) fn ended(asking: Option<Asking>, fetched: &mut Result<OriginResponse, FetchError>) {
        let Some(mut asking) = asking else { return };
        match fetched {
            Ok(response) => {
                asking.span.attributes.extend([
                    KeyValue::text("server.address", &*response.info.origin),
                    KeyValue::number("http.response.status_code", response.status.into()),
                    KeyValue::number("perigee.attempts", response.info.attempts.into()),
                ]);
                if response.status >= 500 {
                    asking.span.status = Some(Status { message: String::new(), code: STATUS_ERROR });
                }
                response.body.trace(asking);
            }
            Err(error) => {
                if let Some(origin) = error.origin() {
                    asking.span.attributes.push(KeyValue::text("server.address", origin));
                }
                asking.span.attributes.push(KeyValue::text("error.type", error.why().as_str()));
                asking.span.status = Some(Status { message: error.to_string(), code: STATUS_ERROR });
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut span = std::mem::take(&mut self.span);
        span.end_ns = self.begun_ns.saturating_add(self.started.elapsed().as_nanos() as u64);
        self.traces.tell(span);
    }
}
