//! Leave to take memory for large bodies on their way to visitors: how much is asked for, and how long anybody waits for it.
//! [`store::InFlight`] counts; what is small is counted too, and needs no leave.
//!
//! ```text
//! half of the bound: sips ─► each reader holds 64 KiB of its own, and no slice
//! the bound: a new request ─► 503;  a reader under way ─► has dropped what it had, waits in order, breaks off
//! ```

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use observe::Limit;
use parking_lot::Mutex;
use store::{InFlight, Room};
use tokio::sync::Semaphore;

use crate::flight::Fill;
use crate::object::BLOCK_BYTES;
use crate::worker::Worker;

/// Bodies up to this need no leave.
pub(crate) const SMALL_BYTES: u64 = 256 * 1024;

/// What a reader holds when memory is short: what a disk verifies at a time.
pub(crate) const SIP_BYTES: u64 = store::disk::CHUNK_BYTES as u64;

/// How long a request waits that has been promised nothing yet, and how often it looks. It has no place in the queue: who is
/// under way goes first.
const NEW_PATIENCE: Duration = Duration::from_secs(1);
const NEW_INTERVAL: Duration = Duration::from_millis(20);

/// How long a reader or a fill under way waits: a sip takes somebody with 8 KiB per second as long.
const PATIENCE: Duration = Duration::from_secs(8);

/// How often a fill looks whether it may go on.
const SETTLED_INTERVAL: Duration = Duration::from_millis(5);

/// How long the turn of one fill lasts at most: see [`Worker::settled`].
const TURN: Duration = Duration::from_millis(250);

/// See [`window_bytes`].
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// Whom leave is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// A request that can still be refused.
    New,
    /// An answer that has begun.
    UnderWay,
}

impl Worker {
    /// Leave for so many bytes; `None`, counted, when there is no room in time.
    pub(crate) async fn leave(&self, bytes: u64, whom: For) -> Option<Room> {
        let in_flight = &self.shared.in_flight;
        let room = match whom {
            For::UnderWay => tokio::time::timeout(PATIENCE, in_flight.room(bytes)).await.ok(),
            For::New => {
                let mut waited = Duration::ZERO;
                loop {
                    let room = in_flight.try_room(bytes);
                    if room.is_some() || waited >= NEW_PATIENCE {
                        break room;
                    }
                    tokio::time::sleep(NEW_INTERVAL).await;
                    waited += NEW_INTERVAL;
                }
            }
        };
        if room.is_none() {
            self.count_limit(Limit::BodiesInFlight);
        }
        room
    }

    /// Waits until no more is in flight than may be, before `fill` takes in more than it had leave for; `false`, counted, when
    /// that is not so in time and the fill holds much. Meanwhile one fill at a time goes on, or none would ever come to the end of
    /// a slice and give back what it has.
    pub(crate) async fn settled(&self, fill: &Arc<Fill>) -> bool {
        let AboveBound { turn, whose } = &self.shared.above_bound;
        let may_go_on = || {
            let (bytes, max) = self.shared.in_flight.bytes();
            bytes <= max || whose.lock().as_ptr() == Arc::as_ptr(fill)
        };
        let mut next = pin!(turn.clone().acquire_owned());
        let mut waited = Duration::ZERO;
        while !may_go_on() {
            if waited >= PATIENCE {
                // What others hold must not end what holds little.
                let goes_on = fill.window() <= SMALL_BYTES;
                if !goes_on {
                    self.count_limit(Limit::BodiesInFlight);
                }
                return goes_on;
            }
            if let Ok(turn) = tokio::time::timeout(SETTLED_INTERVAL, next.as_mut()).await {
                *whose.lock() = Arc::downgrade(fill);
                let (shared, fill) = (self.shared.clone(), fill.clone());
                tokio::task::spawn_local(async move {
                    let _late = tokio::time::timeout(TURN, fill.ended()).await;
                    *shared.above_bound.whose.lock() = Weak::new();
                    drop(turn);
                });
                return true;
            }
            waited += SETTLED_INTERVAL;
        }
        true
    }
}

/// Which fill goes on above the bound; the others are in turn, in the order in which they came.
pub(crate) struct AboveBound {
    turn: Arc<Semaphore>,
    whose: Mutex<Weak<Fill>>,
}

impl AboveBound {
    pub(crate) fn new() -> Self {
        AboveBound { turn: Arc::new(Semaphore::new(1)), whose: Mutex::default() }
    }
}

/// Whether readers are to hold little: half of what may be in flight is.
pub(crate) fn is_tight(in_flight: &InFlight) -> bool {
    let (bytes, max) = in_flight.bytes();
    bytes >= max / 2
}

/// How far a fill that is no longer kept may run ahead of its slowest reader.
pub(crate) fn window_bytes(in_flight: &InFlight) -> u64 {
    let most = if is_tight(in_flight) { 0 } else { WINDOW_BYTES.min(in_flight.bytes().1 / 16) };
    most.max(BLOCK_BYTES as u64)
}

/// What a fill of so many bytes needs leave for before anything of it comes: its first bytes as they come, and once more in
/// blocks. What comes then is counted as it comes: see [`Worker::settled`].
pub(crate) fn fill_bytes(length: u64) -> u64 {
    2 * length.min(SMALL_BYTES)
}

/// A piece of a body as it came, which counts for as long as it is held. When memory is short, a copy: the buffer that it was read
/// into may be several times as long.
pub(crate) fn counted(in_flight: &InFlight, piece: Bytes) -> Bytes {
    let room = in_flight.count(piece.len() as u64);
    room.hold(if is_tight(in_flight) { Bytes::copy_from_slice(&piece) } else { piece })
}

/// What of a piece is sent next. When memory is short, not much of it, and a copy if there is room for one: a part would hold
/// all of what it is a part of.
pub(crate) fn sip(in_flight: &InFlight, mut piece: Bytes) -> Bytes {
    if !is_tight(in_flight) {
        return piece;
    }
    piece.truncate(SIP_BYTES as usize);
    match in_flight.try_room(piece.len() as u64) {
        Some(room) => room.hold(Bytes::copy_from_slice(&piece)),
        None => piece,
    }
}
