//! Why a fetch failed, for those who decide what happens next: whose fault it was, and whether the same request may be
//! sent again. The text is for the log; visitors see the page that belongs to [`FetchError::why`].

use std::fmt;
use std::sync::Arc;

use semantics::Why;

/// A fetch that gave no complete answer. Cannot be built without saying whose fault it is and whether a retry is safe.
#[derive(Clone, Debug)]
pub(crate) struct FetchError {
    kind: FetchErrorKind,
    sent: Sent,
    origin: Option<Arc<str>>,
    detail: Box<str>,
    /// Another request's, who has told the breaker.
    is_anothers: bool,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchErrorKind {
    /// The origin's name does not resolve.
    Resolve,
    /// No address of the origin takes a connection.
    Connect,
    /// The TLS handshake failed, or the certificate is not to be trusted.
    Tls,
    /// One of the time-outs fired.
    Timeout(Phase),
    /// The answer is not HTTP, or over a limit of this edge.
    Protocol,
    /// The body ended before its end: a short Content-Length, an unfinished chunked body, TLS without close_notify.
    Truncated,
    /// The connection or the stream was closed or reset before the head of the answer was complete.
    Reset,
    /// Every origin of the group has its breaker open or is down: nothing was tried.
    BreakerOpen,
    /// The group has no origin.
    NoOrigin,
    /// The origin has its most connections in use, and the queue for the next one is full.
    QueueFull,
    /// The origin's budget is used up: there was no turn in time, or what goes on had to be ended.
    BudgetShort,
    /// The visitor's request body broke off while it was being sent on.
    Upload,
    /// The request cannot be expressed towards an origin, although the visitor's side let it pass.
    Unsendable,
    /// Another edge has answered that it has no answer: why it has none.
    Relayed(Why),
}

/// Which time-out fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Resolving, connecting and the TLS handshake.
    Connect,
    /// Waiting for one of the origin's connections to be free.
    Queue,
    /// From the complete request to the head of the answer.
    FirstByte,
    /// Between two parts of the body.
    Idle,
    /// The whole exchange.
    Total,
}

/// Who must mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The origin, or the network towards it.
    Origin,
    /// The visitor.
    Client,
    /// The edge or its configuration.
    Edge,
}

/// How far the request had got when the fetch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Not one byte of it, or the origin has said that it did not process it: any request may be sent again.
    Nothing,
    /// Some of it, and nothing of an answer came: a safe request may be sent again.
    Request,
    /// A part of the answer came.
    Answer,
}

impl FetchError {
    /// An error of `kind` after `sent`; `detail` is for the log only.
    pub(super) fn new(kind: FetchErrorKind, sent: Sent, detail: impl fmt::Display) -> Self {
        FetchError {
            kind,
            sent,
            origin: None,
            detail: detail.to_string().into_boxed_str(),
            is_anothers: false,
        }
    }

    /// What another edge has answered that has no answer.
    pub(crate) fn relayed(node: &str, why: Why) -> Self {
        let detail = "it has no answer either";
        FetchError::new(FetchErrorKind::Relayed(why), Sent::Answer, detail).at(&format!("tier:{node}").into())
    }

    /// The same error with the name of the origin that it is about.
    pub(super) fn at(mut self, origin: &Arc<str>) -> Self {
        self.origin = Some(origin.clone());
        self
    }

    /// The same error for one who has only waited for what another request tried.
    pub(super) fn of_another(mut self) -> Self {
        self.is_anothers = true;
        self
    }

    /// What failed.
    pub(crate) fn kind(&self) -> FetchErrorKind {
        self.kind
    }

    /// The origin it is about; `None` when none was tried.
    pub(crate) fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Who must mend it.
    pub(crate) fn fault(&self) -> Fault {
        match self.kind {
            FetchErrorKind::NoOrigin => Fault::Edge,
            FetchErrorKind::Upload | FetchErrorKind::Unsendable => Fault::Client,
            _ => Fault::Origin,
        }
    }

    /// Whether the failure is everybody's who wants the same thing. An answer that broke off or broke HTTP's rules is
    /// not: some field of this one visitor's request may have caused it.
    pub(crate) fn is_shared(&self) -> bool {
        use FetchErrorKind::{BreakerOpen, BudgetShort, Connect, NoOrigin, QueueFull, Relayed, Timeout, Tls};
        match self.kind {
            Relayed(why) => {
                matches!(why, Why::OriginConnect | Why::OriginTimeout | Why::OriginDown | Why::OriginBudget)
            }
            kind => {
                matches!(kind, Connect | Tls | Timeout(_) | BreakerOpen | QueueFull | BudgetShort | NoOrigin)
            }
        }
    }

    /// Whether no origin has seen anything of the request.
    pub(super) fn sent_nothing(&self) -> bool {
        self.sent == Sent::Nothing
    }

    /// Whether the same request may be sent again. `retry_safe` says that the request is safe or idempotent and
    /// that its body can be sent again (RFC 9110 §9.2.2).
    pub(crate) fn may_retry(&self, retry_safe: bool) -> bool {
        match self.sent {
            _ if self.fault() != Fault::Origin => false,
            _ if self.kind == FetchErrorKind::Timeout(Phase::Total) => false,
            // What had to be ended would only begin anew.
            _ if self.kind == FetchErrorKind::BudgetShort => self.sent == Sent::Nothing,
            Sent::Nothing => true,
            Sent::Request | Sent::Answer => retry_safe,
        }
    }

    /// Whether the failure says that the origin is in trouble, as opposed to this one request or this edge.
    pub(super) fn blames_origin(&self) -> bool {
        self.fault() == Fault::Origin
            && !self.is_anothers
            && !matches!(
                self.kind,
                FetchErrorKind::BreakerOpen
                    | FetchErrorKind::Relayed(_)
                    | FetchErrorKind::QueueFull
                    | FetchErrorKind::BudgetShort
                    | FetchErrorKind::Timeout(Phase::Queue | Phase::Total)
            )
    }

    /// The reason that the visitor and the statistics get.
    pub(crate) fn why(&self) -> Why {
        match self.kind {
            FetchErrorKind::Resolve | FetchErrorKind::Connect | FetchErrorKind::Tls => Why::OriginConnect,
            FetchErrorKind::Timeout(Phase::Connect) => Why::OriginConnect,
            FetchErrorKind::Timeout(_) => Why::OriginTimeout,
            FetchErrorKind::Protocol | FetchErrorKind::Truncated | FetchErrorKind::Reset => {
                Why::OriginProtocol
            }
            FetchErrorKind::BreakerOpen | FetchErrorKind::QueueFull => Why::OriginDown,
            FetchErrorKind::BudgetShort => Why::OriginBudget,
            FetchErrorKind::NoOrigin => Why::Internal,
            FetchErrorKind::Upload => Why::ClientGone,
            FetchErrorKind::Unsendable => Why::BadRequest,
            FetchErrorKind::Relayed(why) => why,
        }
    }
}

impl FetchErrorKind {
    /// The stable text form, for logs and labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            FetchErrorKind::Resolve => "resolve",
            FetchErrorKind::Connect => "connect",
            FetchErrorKind::Tls => "tls",
            FetchErrorKind::Timeout(Phase::Connect) => "timeout-connect",
            FetchErrorKind::Timeout(Phase::Queue) => "timeout-queue",
            FetchErrorKind::Timeout(Phase::FirstByte) => "timeout-first-byte",
            FetchErrorKind::Timeout(Phase::Idle) => "timeout-idle",
            FetchErrorKind::Timeout(Phase::Total) => "timeout-total",
            FetchErrorKind::Protocol => "protocol",
            FetchErrorKind::Truncated => "truncated",
            FetchErrorKind::Reset => "reset",
            FetchErrorKind::BreakerOpen => "breaker-open",
            FetchErrorKind::NoOrigin => "no-origin",
            FetchErrorKind::QueueFull => "queue-full",
            FetchErrorKind::BudgetShort => "budget",
            FetchErrorKind::Upload => "upload",
            FetchErrorKind::Unsendable => "unsendable",
            FetchErrorKind::Relayed(why) => why.as_str(),
        }
    }
}

/// For the log only: names the origin and what the system said.
impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "origin {origin}: ")?;
        }
        write!(f, "{}: {}", self.kind.as_str(), self.detail)
    }
}

impl std::error::Error for FetchError {}
