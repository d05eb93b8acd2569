//! Leave to take memory for large bodies on their way to visitors: how much is asked for, and how long anybody waits for it.
//! [`store::InFlight`] counts; what is small is counted too, and needs no leave.
//!
//! ```text
//! half of the bound: sips ─► each reader holds 64 KiB of its own, and no slice
//! the bound: a new request ─► 503;  a reader under way ─► has dropped what it had, waits in order, breaks off
//! ```

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use observe::Limit;
use parking_lot::Mutex;
use store::{InFlight, Room};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::flight::{Fill, SLOWEST_PATIENCE};
use crate::object::BLOCK_BYTES;
use crate::worker::{Shared, Worker};

/// Bodies up to this need no leave.
pub(crate) const SMALL_BYTES: u64 = 256 * 1024;

/// What a reader holds when memory is short: what a disk verifies at a time.
pub(crate) const SIP_BYTES: u64 = store::disk::CHUNK_BYTES as u64;

/// What a reader of a fill holds when there is no room for more.
const SIP_BYTES_MIN: usize = 16 * 1024;

/// How long a request waits that has been promised nothing yet, and how often it looks. It has no place in the queue: who is
/// under way goes first.
const NEW_PATIENCE: Duration = Duration::from_secs(1);
const NEW_INTERVAL: Duration = Duration::from_millis(20);

/// How long a reader or a fill under way waits: a sip takes somebody with 8 KiB per second as long.
const PATIENCE: Duration = Duration::from_secs(8);

/// How often a fill looks whether it may go on.
const SETTLED_INTERVAL: Duration = Duration::from_millis(5);

/// How long the turn of one fill lasts at most: see [`AboveBound`].
const TURN: Duration = Duration::from_millis(250);

/// How long after one fill was broken off the next one is at the earliest: what that gave back may be enough.
const BROKEN_OFF_INTERVAL: Duration = Duration::from_millis(50);

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
    /// that is not so in time and the fill holds much. `left`: bytes that it has yet to take in.
    pub(crate) async fn settled(&self, fill: &Arc<Fill>, left: u64) -> bool {
        let Shared { in_flight, above_bound, .. } = &*self.shared;
        let is_settled = above_bound.settled(in_flight, fill, left).await;
        if !is_settled {
            self.count_limit(Limit::BodiesInFlight);
        }
        is_settled
    }
}

/// How much of a body may be fetched for the disk alone, after all who wanted it have left.
pub(crate) const UNREAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Which fill goes on above the bound: one at a time, or none would ever come to the end of a slice and give back what it has. The
/// others are in turn, in the order in which they came, but those all of whose readers have enough to read for now.
#[derive(Clone)]
pub(crate) struct AboveBound {
    turn: Arc<Semaphore>,
    whose: Arc<Mutex<Option<Turn>>>,
    broken_off: Arc<Mutex<Option<Instant>>>,
}

struct Turn {
    fill: Weak<Fill>,
    /// Ends it in time, and must not end the fill's next one.
    timer: AbortHandle,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

impl Turn {
    fn is_of(&self, fill: &Arc<Fill>) -> bool {
        self.fill.as_ptr() == Arc::as_ptr(fill)
    }
}

impl AboveBound {
    pub(crate) fn new() -> Self {
        AboveBound { turn: Arc::new(Semaphore::new(1)), whose: Arc::default(), broken_off: Arc::default() }
    }

    /// See [`Worker::settled`].
    async fn settled(&self, in_flight: &InFlight, fill: &Arc<Fill>, left: u64) -> bool {
        let mut next = None;
        let begun = Instant::now();
        loop {
            // What comes to its end soon gives back what it has.
            let is_ahead = left > BLOCK_BYTES as u64 && fill.is_ahead();
            if is_ahead {
                self.end_turn(fill);
                if begun.elapsed() >= SLOWEST_PATIENCE && left <= UNREAD_BYTES_MAX {
                    // Else what they have yet to read would be broken off with it, and fetched once more. What is longer would end
                    // with its last reader.
                    fill.leave_behind();
                }
            }
            let (bytes, max) = in_flight.bytes();
            if bytes <= max || self.has_turn(fill) {
                return true;
            }
            if begun.elapsed() >= PATIENCE {
                // What others hold must not end what holds little.
                if fill.window() <= SMALL_BYTES {
                    return true;
                }
                // What is still kept is only let go of now.
                if !fill.is_abandoned() || self.may_break_off() {
                    return false;
                }
            }
            if is_ahead {
                next = None;
                tokio::time::sleep(SETTLED_INTERVAL).await;
            } else {
                let next = next.get_or_insert_with(|| Box::pin(self.turn.clone().acquire_owned()));
                if let Ok(Ok(turn)) = tokio::time::timeout(SETTLED_INTERVAL, next.as_mut()).await {
                    self.begin_turn(fill, turn);
                    return true;
                }
            }
        }
    }

    /// Whether a fill may be broken off, which it then is.
    fn may_break_off(&self) -> bool {
        let mut last = self.broken_off.lock();
        let may = last.is_none_or(|last| last.elapsed() >= BROKEN_OFF_INTERVAL);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    fn begin_turn(&self, fill: &Arc<Fill>, turn: OwnedSemaphorePermit) {
        let (above_bound, ending) = (self.clone(), fill.clone());
        let timer = tokio::task::spawn_local(async move {
            // Here, so that it ends with the thread, too.
            let _turn = turn;
            let _late = tokio::time::timeout(TURN, ending.ended()).await;
            above_bound.end_turn(&ending);
        });
        let turn = Turn { fill: Arc::downgrade(fill), timer: timer.abort_handle() };
        *self.whose.lock() = Some(turn);
    }

    fn has_turn(&self, fill: &Arc<Fill>) -> bool {
        self.whose.lock().as_ref().is_some_and(|turn| turn.is_of(fill))
    }

    fn end_turn(&self, fill: &Arc<Fill>) {
        let over = self.whose.lock().take_if(|turn| turn.is_of(fill));
        drop(over);
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

/// What a fill of so many bytes needs leave for before anything of it comes: all that it comes to hold before it can give any of it
/// back. What comes then is counted as it comes: see [`Worker::settled`].
pub(crate) fn fill_bytes(length: u64) -> u64 {
    length.min(BLOCK_BYTES as u64)
}

/// A piece of a fill as it came, [`counted`], and no longer in `room`, what the fill had leave for.
pub(crate) fn arrived(in_flight: &InFlight, room: &mut Room, piece: Bytes) -> Bytes {
    let piece = counted(in_flight, piece);
    room.shrink(piece.len() as u64);
    piece
}

/// A piece of a body as it came, which counts for as long as it is held. When memory is short, a copy: the buffer that it was read
/// into may be several times as long.
fn counted(in_flight: &InFlight, piece: Bytes) -> Bytes {
    let room = in_flight.count(piece.len() as u64);
    room.hold(if is_tight(in_flight) { Bytes::copy_from_slice(&piece) } else { piece })
}

/// What of a piece is sent next. When memory is short, a copy of not much of it, of less where there is no room: a part would
/// hold all of what it is a part of.
pub(crate) fn sip(in_flight: &InFlight, mut piece: Bytes) -> Bytes {
    if !is_tight(in_flight) {
        return piece;
    }
    piece.truncate(SIP_BYTES as usize);
    let room = in_flight.try_room(piece.len() as u64).unwrap_or_else(|| {
        piece.truncate(SIP_BYTES_MIN);
        in_flight.count(piece.len() as u64)
    });
    room.hold(Bytes::copy_from_slice(&piece))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use semantics::{Facts, Fields, Flags, LifetimeSource, Wall, Why};
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::flight::{Arriving, End, Unread};

    const MUCH: u64 = u64::MAX;

    fn kept_fill(in_flight: &InFlight) -> Fill {
        let facts = Facts {
            response_time: Wall(0),
            initial_age_ms: 0,
            lifetime: 0,
            stale_while_revalidate: 0,
            stale_if_error: 0,
            status: 200,
            source: LifetimeSource::Rule,
            flags: Flags::default(),
        };
        Fill {
            facts,
            head: Fields::new(),
            position: 0,
            tags: Vec::new(),
            length: None,
            content_range: None,
            key: 0,
            is_wider: false,
            sliced: None,
            leads_to_disk: false,
            body: Arriving::new(in_flight),
        }
    }

    /// A fill that is no longer kept.
    fn fill(in_flight: &InFlight) -> Arc<Fill> {
        let fill = kept_fill(in_flight);
        fill.abandon();
        Arc::new(fill)
    }

    /// One whose readers can go on from disk, for which nothing waits.
    fn fill_to_disk(in_flight: &InFlight) -> Arc<Fill> {
        let fill = Fill { leads_to_disk: true, ..kept_fill(in_flight) };
        fill.abandon();
        Arc::new(fill)
    }

    /// Pushes so many bytes, in pieces that end where no block does.
    async fn push(in_flight: &InFlight, fill: &Fill, bytes: usize) {
        for at in (0..bytes).step_by(100_000) {
            fill.push(counted(in_flight, vec![7; (bytes - at).min(100_000)].into()), false).await;
        }
    }

    /// Runs a test with so much in flight that nothing may be added, and nobody whose turn it is.
    fn above_the_bound(test: impl AsyncFnOnce(&InFlight, &AboveBound)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let in_flight = InFlight::new(10_000_000);
        let _all = in_flight.count(10_000_001);
        let test = async { test(&in_flight, &AboveBound::new()).await };
        let test =
            LocalSet::new().block_on(&runtime, async { tokio::time::timeout(2 * PATIENCE, test).await });
        test.expect("in time");
    }

    #[test]
    fn fills_above_the_bound_go_on_one_at_a_time_in_the_order_in_which_they_came() {
        above_the_bound(async |in_flight, above_bound| {
            let order = Rc::new(RefCell::new(Vec::new()));
            let fills: Vec<_> = (0..4).map(|_| fill(in_flight)).collect();
            let mut tasks = Vec::new();
            for (number, fill) in fills.iter().cloned().enumerate() {
                let (in_flight, above_bound, order) = (in_flight.clone(), above_bound.clone(), order.clone());
                tasks.push(spawn_local(async move {
                    // More than once: a turn is not for one piece.
                    for _ in 0..3 {
                        assert!(above_bound.settled(&in_flight, &fill, MUCH).await);
                        order.borrow_mut().push(number);
                    }
                    // Half of them end; the turn of the others is over in time.
                    if number % 2 == 0 {
                        fill.end(End::Complete);
                    }
                }));
                tokio::task::yield_now().await;
            }
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*order.borrow(), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        });
    }

    #[test]
    fn a_fill_whose_readers_have_enough_to_read_waits_until_they_have_read_it() {
        above_the_bound(async |in_flight, above_bound| {
            let (ahead, behind) = (fill(in_flight), fill(in_flight));
            let (_slow, mut fast) = (ahead.read_from(0).unwrap(), ahead.read_from(0).unwrap());
            ahead.push(vec![0; SMALL_BYTES as usize + 1].into(), false).await;
            assert!(above_bound.settled(in_flight, &ahead, BLOCK_BYTES as u64).await, "its end is near");
            let mut waiting = std::pin::pin!(above_bound.settled(in_flight, &ahead, MUCH));
            let moment = tokio::time::timeout(SETTLED_INTERVAL, waiting.as_mut());
            assert!(moment.await.is_err(), "its turn is over");
            assert!(above_bound.settled(in_flight, &behind, MUCH).await);
            // One of them is enough.
            fast.next().await.unwrap();
            assert!(waiting.await);
        });
    }

    #[test]
    fn a_turn_that_is_over_leaves_nothing_that_would_end_the_next_one() {
        above_the_bound(async |in_flight, above_bound| {
            let fill = fill(in_flight);
            let mut reader = fill.read_from(0).unwrap();
            assert!(above_bound.settled(in_flight, &fill, MUCH).await);
            let first = above_bound.whose.lock().as_ref().unwrap().timer.clone();
            fill.push(vec![0; SMALL_BYTES as usize + 1].into(), false).await;
            let mut waiting = std::pin::pin!(above_bound.settled(in_flight, &fill, MUCH));
            assert!(tokio::time::timeout(SETTLED_INTERVAL, waiting.as_mut()).await.is_err());
            reader.next().await.unwrap();
            assert!(waiting.await);
            let second = above_bound.whose.lock().as_ref().unwrap().timer.clone();
            assert!(first.is_finished() && !second.is_finished());
        });
    }

    #[test]
    fn a_reader_of_a_fill_that_finds_no_room_holds_a_little_of_its_own() {
        let in_flight = InFlight::new(100);
        let _all = in_flight.count(101);
        let block = counted(&in_flight, vec![0; BLOCK_BYTES].into());
        let piece = sip(&in_flight, block.slice(5..));
        drop(block);
        assert_eq!((piece.len(), in_flight.bytes().0), (SIP_BYTES_MIN, 101 + SIP_BYTES_MIN as u64));
    }

    #[test]
    fn what_is_broken_off_for_want_of_room_gives_it_back_however_slow_its_readers_are() {
        above_the_bound(async |in_flight, _| {
            let before = in_flight.bytes().0;
            for why in [Why::Limit, Why::OriginProtocol] {
                let fill = fill(in_flight);
                let (mut within, mut at_end) = (fill.read_from(5).unwrap(), fill.read_from(0).unwrap());
                for _ in 0..4 {
                    // A block, and a tail.
                    fill.push(counted(in_flight, vec![7; BLOCK_BYTES / 4 + 1].into()), false).await;
                }
                while at_end.offset() < fill.progress().bytes {
                    at_end.next().await.unwrap();
                }
                fill.end(End::Broken(why));
                assert_eq!(at_end.next().await, Err(Unread::Broken(why)));
                if why == Why::Limit {
                    assert_eq!(in_flight.bytes().0, before);
                    assert_eq!(within.next().await, Err(Unread::Broken(why)));
                    assert!(fill.read_from(5).is_none());
                } else {
                    // There is no haste: it has what came.
                    assert!(in_flight.bytes().0 > before && within.next().await.is_ok());
                }
                drop((fill, within, at_end));
                assert_eq!(in_flight.bytes().0, before, "once");
            }
        });
    }

    #[test]
    fn what_is_kept_is_let_go_of_in_time_and_not_the_one_that_is_broken_off() {
        above_the_bound(async |in_flight, above_bound| {
            // Somebody else's turn, for as long as it takes, and somebody else is broken off at any time.
            let _turn = above_bound.turn.acquire().await.unwrap();
            *above_bound.broken_off.lock() = Some(Instant::now() + 10 * PATIENCE);
            let (kept, passing) = (Arc::new(kept_fill(in_flight)), fill(in_flight));
            push(in_flight, &kept, SMALL_BYTES as usize + 1).await;
            let with_kept = in_flight.bytes().0;
            let _slow = passing.read_from(0).unwrap();
            push(in_flight, &passing, SMALL_BYTES as usize + 1).await;
            let mut waiting = std::pin::pin!(above_bound.settled(in_flight, &passing, MUCH));
            tokio::select! {
                biased;
                _ = waiting.as_mut() => panic!("it is none's turn to be broken off"),
                is_settled = above_bound.settled(in_flight, &kept, MUCH) => assert!(!is_settled),
            }
            *above_bound.broken_off.lock() = None;
            assert!(!waiting.await);
            passing.end(End::Broken(Why::Limit));
            assert_eq!(in_flight.bytes().0, with_kept, "at once");
        });
    }

    #[test]
    fn who_is_left_behind_to_the_disk_has_nothing_held_and_others_get_the_room() {
        above_the_bound(async |in_flight, _| {
            let fill = fill_to_disk(in_flight);
            let mut slow = fill.read_from(0).unwrap();
            push(in_flight, &fill, BLOCK_BYTES + 9).await;
            let before = in_flight.bytes().0;
            in_flight.set_max(before);
            let mut other = std::pin::pin!(in_flight.room(BLOCK_BYTES as u64));
            assert!(tokio::time::timeout(SETTLED_INTERVAL, other.as_mut()).await.is_err());
            fill.leave_behind();
            let _room = other.await;
            assert_eq!((in_flight.bytes().0, fill.window()), (before, 9));
            assert_eq!(slow.next().await, Err(Unread::Behind));
            // It goes on, and whoever is as far may follow.
            assert!(fill.read_from(0).is_none() && fill.read_from(BLOCK_BYTES as u64).is_some());
            assert!(fill.push(Bytes::from_static(b"more"), true).await);
        });
    }

    #[test]
    fn only_what_leads_to_disk_and_has_little_left_goes_on_without_its_readers() {
        above_the_bound(async |in_flight, above_bound| {
            let fills = [fill_to_disk(in_flight), fill_to_disk(in_flight), fill(in_flight)];
            let [mut left_behind, mut of_long, mut of_other] =
                fills.each_ref().map(|fill| fill.read_from(0).unwrap());
            for fill in &fills {
                push(in_flight, fill, SMALL_BYTES as usize + 1).await;
            }
            let [short, long, other] = &fills;
            let mut long = std::pin::pin!(above_bound.settled(in_flight, long, UNREAD_BYTES_MAX + 1));
            let mut other = std::pin::pin!(above_bound.settled(in_flight, other, UNREAD_BYTES_MAX));
            let begun = Instant::now();
            tokio::select! {
                biased;
                _ = long.as_mut() => panic!("its readers have enough to read"),
                _ = other.as_mut() => panic!("its readers have enough to read"),
                is_settled = above_bound.settled(in_flight, short, UNREAD_BYTES_MAX) => assert!(is_settled),
            }
            assert!(begun.elapsed() >= SLOWEST_PATIENCE);
            let both = async { tokio::join!(long, other) };
            assert!(tokio::time::timeout(10 * SETTLED_INTERVAL, both).await.is_err());
            assert_eq!(left_behind.next().await, Err(Unread::Behind));
            assert!(of_long.next().await.is_ok() && of_other.next().await.is_ok());
        });
    }

    #[test]
    fn many_fetches_that_begin_at_once_keep_the_bound() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let max = 8 * BLOCK_BYTES as u64;
        let in_flight = InFlight::new(max);
        LocalSet::new().block_on(&runtime, async {
            let above_bound = AboveBound::new();
            let fetches = (0..100).map(|number| {
                let (in_flight, above_bound) = (in_flight.clone(), above_bound.clone());
                spawn_local(async move {
                    // Some while others have got a part.
                    for _ in 0..number % 16 {
                        tokio::task::yield_now().await;
                    }
                    let mut left = BLOCK_BYTES as u64;
                    let mut room = in_flight.try_room(fill_bytes(left))?;
                    let fill = fill(&in_flight);
                    // Its visitor takes nothing for now.
                    let reader = fill.read_from(0);
                    while left > 0 {
                        // Those of the others come at the same time.
                        tokio::task::yield_now().await;
                        let piece = arrived(&in_flight, &mut room, vec![7; SIP_BYTES as usize].into());
                        left -= SIP_BYTES;
                        fill.push(piece, true).await;
                        assert!(room.bytes() > 0 || above_bound.settled(&in_flight, &fill, left).await);
                    }
                    fill.end(End::Complete);
                    reader
                })
            });
            let mut readers = Vec::new();
            for fetch in fetches.collect::<Vec<_>>() {
                readers.extend(fetch.await.unwrap());
            }
            assert_eq!((readers.len(), in_flight.bytes().0), (8, max));
        });
    }

    #[test]
    fn no_more_fills_are_broken_off_than_room_is_wanted_for() {
        above_the_bound(async |in_flight, above_bound| {
            let mut held = Vec::new();
            for fill in (0..10).map(|_| fill(in_flight)) {
                let reader = fill.read_from(0).unwrap();
                let piece = counted(in_flight, vec![0; SMALL_BYTES as usize + 1].into());
                fill.push(piece, false).await;
                held.push((fill, reader));
            }
            // One of them is too much.
            in_flight.set_max(in_flight.bytes().0 - 1);
            let tasks = held.into_iter().map(|(fill, reader)| {
                let (in_flight, above_bound) = (in_flight.clone(), above_bound.clone());
                spawn_local(async move {
                    let is_settled = above_bound.settled(&in_flight, &fill, MUCH).await;
                    if !is_settled {
                        fill.end(End::Broken(Why::Limit));
                    }
                    // Its visitor takes nothing for now.
                    (is_settled, reader)
                })
            });
            let mut held = Vec::new();
            for task in tasks.collect::<Vec<_>>() {
                held.push(task.await.unwrap());
            }
            assert_eq!(held.iter().filter(|(is_settled, _)| !is_settled).count(), 1);
        });
    }
}
