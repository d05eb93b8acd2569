//! One attempt at one origin, from the breaker's leave to its end: holds its place among the origin's connections,
//! tells breaker and health how it ended, and tells the observer everything in one event when it is dropped.

use std::rc::Rc;
use std::sync::Arc;

use model::breaker::Permit;
use observe::{ConnectionUse, FetchEnd, FetchEvent, OriginFailure, Slot};
use tokio::sync::OwnedSemaphorePermit;

use super::budget::{Askers, GivenUp, Turn};
use super::connect::Meter;
use super::error::{FetchError, FetchErrorKind, Phase};
use super::pool::Lease;
use super::shared::{OriginState, OriginsShared};

/// Where events of attempts go.
pub(super) type Sink = Rc<dyn Fn(&FetchEvent)>;

/// See the module's text. Dropped before its end (the visitor left), it tells breaker and health nothing.
pub(super) struct Attempt {
    shared: Arc<OriginsShared>,
    state: Arc<OriginState>,
    permit: Permit,
    ledger: Ledger,
    _slot: OwnedSemaphorePermit,
    /// Where the origin has a budget.
    turn: Option<Turn>,
}

impl Attempt {
    pub(super) fn new(
        shared: &Arc<OriginsShared>,
        state: &Arc<OriginState>,
        permit: Permit,
        ledger: Ledger,
        slot: OwnedSemaphorePermit,
        turn: Option<Turn>,
    ) -> Self {
        Attempt { shared: shared.clone(), state: state.clone(), permit, ledger, _slot: slot, turn }
    }

    /// The request is about to be sent, for the first time or again: waits where the budget has less for it by now, or has been
    /// drawn on for it already.
    pub(super) async fn send(&mut self, askers: &Askers) -> Result<(), FetchError> {
        while let Some(turn) = &mut self.turn
            && !turn.send(askers).await?
        {
            let budget = turn.budget();
            self.turn = None;
            self.turn = Some(budget.turn(askers).await?);
        }
        Ok(())
    }

    /// What tells when the budget wants it ended; `None` without one.
    pub(super) fn given_up(&self) -> Option<GivenUp> {
        self.turn.as_ref().map(Turn::given_up)
    }

    /// Why it is ended then.
    pub(super) fn why_given_up(&self) -> Option<FetchError> {
        self.turn.as_ref().map(Turn::error)
    }

    /// What goes on is no request any more.
    pub(super) fn is_tunnel(&mut self) {
        self.turn = None;
    }

    pub(super) fn origin(&self) -> &Arc<str> {
        &self.state.name
    }

    /// There is a connection for it.
    pub(super) fn connected(&mut self, lease: &Lease, connect_us: u64) {
        self.ledger.event.connection = match lease.is_reused() {
            true => ConnectionUse::Reused,
            false => ConnectionUse::Opened { connect_us },
        };
        // HTTP/2 connections carry others' bytes as well: there, bodies alone are counted.
        self.ledger.wire = (!lease.is_http2()).then(|| {
            let meter = lease.meter();
            (meter.clone(), meter.read(), meter.written())
        });
    }

    /// A head came; `well` is false when its status is one that the group calls a failure.
    pub(super) fn answered(&mut self, status: u16, well: bool, first_byte_us: u64) {
        self.state.step(well, self.permit, self.shared.now());
        self.ledger.event.first_byte_us = Some(first_byte_us);
        self.ledger.status = status;
    }

    /// A part of the answer's body came.
    pub(super) fn received(&mut self, bytes: usize) {
        self.ledger.event.bytes_received += bytes as u64;
    }

    /// The answer is whole, or as much of it as anybody wants.
    pub(super) fn finished(&mut self, bytes_sent: u64) {
        self.ledger.event.bytes_sent = bytes_sent;
        self.ledger.event.end = FetchEnd::Answered(self.ledger.status);
    }

    /// No head came, or the body broke off.
    pub(super) fn failed(&mut self, error: &FetchError) {
        self.state.counters.failures.add();
        self.ledger.fail(error.kind());
        if error.blames_origin() {
            self.state.step(false, self.permit, self.shared.now());
        }
    }
}

/// What the observer will be told of an attempt; told when dropped.
pub(super) struct Ledger {
    sink: Option<Sink>,
    event: FetchEvent,
    status: u16,
    wire: Option<(Arc<Meter>, u64, u64)>,
}

impl Ledger {
    /// An attempt that has just begun; without a word about its end it counts as abandoned.
    pub(super) fn new(
        sink: Option<Sink>,
        origin: Slot,
        on_behalf_of: Option<(Slot, u32)>,
        retry: bool,
    ) -> Self {
        let event = FetchEvent {
            origin,
            on_behalf_of,
            connection: ConnectionUse::Missing,
            first_byte_us: None,
            end: FetchEnd::Failed(OriginFailure::Abandoned),
            bytes_sent: 0,
            bytes_received: 0,
            retry,
        };
        Ledger { sink, event, status: 0, wire: None }
    }

    pub(super) fn fail(&mut self, kind: FetchErrorKind) {
        self.event.end = FetchEnd::Failed(match kind {
            FetchErrorKind::Resolve => OriginFailure::Resolve,
            FetchErrorKind::Connect => OriginFailure::Connect,
            FetchErrorKind::Tls => OriginFailure::Tls,
            FetchErrorKind::Timeout(Phase::Connect) => OriginFailure::ConnectTimeout,
            FetchErrorKind::Timeout(Phase::FirstByte) => OriginFailure::FirstByteTimeout,
            FetchErrorKind::Timeout(Phase::Idle) => OriginFailure::IdleTimeout,
            FetchErrorKind::Timeout(Phase::Total) => OriginFailure::TotalTimeout,
            FetchErrorKind::Timeout(Phase::Queue) | FetchErrorKind::QueueFull => OriginFailure::Busy,
            FetchErrorKind::Protocol => OriginFailure::Protocol,
            FetchErrorKind::Truncated | FetchErrorKind::Reset => OriginFailure::Cut,
            FetchErrorKind::BreakerOpen => OriginFailure::Breaker,
            FetchErrorKind::BudgetShort => OriginFailure::Budget,
            FetchErrorKind::NoOrigin
            | FetchErrorKind::Upload
            | FetchErrorKind::Unsendable
            | FetchErrorKind::Relayed(_) => OriginFailure::Abandoned,
        });
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let Some(sink) = &self.sink else { return };
        if let Some((meter, read, written)) = &self.wire {
            self.event.bytes_received = meter.read().saturating_sub(*read);
            self.event.bytes_sent = meter.written().saturating_sub(*written);
        }
        sink(&self.event);
    }
}
