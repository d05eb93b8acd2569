//! Memory of bodies on their way: counted where it is taken and given back, and bounded for whoever asks for leave first.
//!
//! ```text
//! leave ─► Room ─► read, fetched ─► Room of the very bytes ─► sent, dropped
//!            └──── the sum of all is what is in flight ────┘
//! ```
//!
//! What is there already is counted without asking ([`InFlight::count`]), and may lead above the bound; what is yet to be taken asks
//! for leave, and has none above it. A body that the memory tier accounts for is not in flight: see [`crate::Run`].

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Up to this, who waits overtakes those for whom there is no room: what reading the least from a disk takes.
const OVERTAKING_BYTES_MAX: u64 = 128 * 1024;

/// Bytes in flight, and who waits for room. Cheap to clone; all clones are one. Unbounded by default.
#[derive(Clone, Debug)]
pub struct InFlight(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    counted: Counted,
    /// Who waits for at most [`OVERTAKING_BYTES_MAX`], and who for more; each in order.
    little: VecDeque<Waiting>,
    much: VecDeque<Waiting>,
    /// How many have waited until now.
    asked: u64,
}

#[derive(Debug, Default)]
struct Counted {
    /// Signed, as a run that leaves the tier and comes back at once may be taken off before it is added.
    bytes: i64,
    max: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Its place among all who wait.
    number: u64,
    bytes: u64,
    granted: oneshot::Sender<Room>,
}

/// So many bytes that are in flight, or may be, for as long as it lives.
#[derive(Debug)]
pub struct Room {
    of: InFlight,
    bytes: u64,
}

impl Default for InFlight {
    fn default() -> Self {
        InFlight::new(u64::MAX)
    }
}

impl InFlight {
    /// None yet, bounded to `max` bytes.
    pub fn new(max: u64) -> Self {
        InFlight(Arc::new(Mutex::new(State { counted: Counted { bytes: 0, max }, ..State::default() })))
    }

    /// Changes the bound. What is in flight stays.
    pub fn set_max(&self, max: u64) {
        self.0.lock().counted.max = max;
        self.add(0);
    }

    /// Bytes in flight and reserved, and the bound.
    pub fn bytes(&self) -> (u64, u64) {
        let Counted { bytes, max } = self.0.lock().counted;
        (bytes.max(0) as u64, max)
    }

    /// Counts bytes that are there, whatever the bound.
    pub fn count(&self, bytes: u64) -> Room {
        self.add(bytes as i64);
        Room { of: self.clone(), bytes }
    }

    /// Leave for as many bytes more, if they are within the bound and nobody waits.
    pub fn try_room(&self, bytes: u64) -> Option<Room> {
        let mut state = self.0.lock();
        let is_free = state.little.is_empty() && state.much.is_empty() && state.counted.take(bytes);
        drop(state);
        is_free.then(|| Room { of: self.clone(), bytes })
    }

    /// Leave for as many bytes more, in the order in which they were asked for, but that little (128 KiB) need not wait behind much.
    /// Waits for as long as it takes; dropping the future gives the place in the queue up.
    pub async fn room(&self, bytes: u64) -> Room {
        if let Some(room) = self.try_room(bytes) {
            return room;
        }
        // Dropped after the receiver: whoever is behind may go on.
        let _leaving = self.count(0);
        let (granted, receiver) = oneshot::channel();
        self.0.lock().wait(bytes, granted);
        // It may have been given back just before.
        self.add(0);
        match receiver.await {
            Ok(room) => room,
            Err(_) => self.count(bytes),
        }
    }

    /// Adds to what is counted, and lets in whom there is room for then.
    pub(crate) fn add(&self, bytes: i64) {
        let mut state = self.0.lock();
        state.counted.bytes += bytes;
        let mut granted = Vec::new();
        // More makes no room.
        if bytes <= 0 {
            granted.extend(std::iter::from_fn(|| state.next()));
        }
        drop(state);
        for Waiting { bytes, granted, .. } in granted {
            // Who has left in this moment gives it back.
            drop(granted.send(Room { of: self.clone(), bytes }));
        }
    }
}

impl State {
    fn wait(&mut self, bytes: u64, granted: oneshot::Sender<Room>) {
        let queue = if bytes <= OVERTAKING_BYTES_MAX { &mut self.little } else { &mut self.much };
        queue.push_back(Waiting { number: self.asked, bytes, granted });
        self.asked += 1;
    }

    /// Who is let in next: of the first who needs little and the first who needs much, the one who came first, if there is room
    /// for it, else the other. However many wait, only these are looked at.
    fn next(&mut self) -> Option<Waiting> {
        let State { counted, little, much, .. } = self;
        let mut queues = [little, much];
        for queue in &mut queues {
            while queue.pop_front_if(|first| first.granted.is_closed()).is_some() {}
        }
        queues.sort_by_key(|queue| queue.front().map(|first| first.number));
        queues.into_iter().find_map(|queue| queue.pop_front_if(|first| counted.take(first.bytes)))
    }
}

impl Counted {
    /// What alone is larger than the bound goes when there is nothing else.
    fn take(&mut self, bytes: u64) -> bool {
        let is_free = self.bytes <= 0 || self.bytes as u64 + bytes <= self.max;
        self.bytes += if is_free { bytes as i64 } else { 0 };
        is_free
    }
}

impl Room {
    /// How many they are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives bytes back, at most all: they are counted elsewhere by now, or not needed.
    pub fn shrink(&mut self, by: u64) {
        let by = by.min(self.bytes);
        if by > 0 {
            self.bytes -= by;
            self.of.add(-(by as i64));
        }
    }

    /// These bytes, which count for as long as any part of them is held: as many as they are, whatever was asked for.
    pub fn hold(mut self, bytes: Bytes) -> Bytes {
        let more = bytes.len() as i64 - self.bytes as i64;
        self.bytes = bytes.len() as u64;
        self.of.add(more);
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.add(-(self.bytes as i64));
    }
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// More than one of it overtakes nobody.
    const MUCH: u64 = OVERTAKING_BYTES_MAX;

    fn poll(waiting: &mut (impl Future<Output = Room> + Unpin)) -> Option<Room> {
        match std::pin::Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(room) => Some(room),
            Poll::Pending => None,
        }
    }

    #[test]
    fn bytes_count_once_and_for_as_long_as_a_part_of_them_is_held() {
        let in_flight = InFlight::new(100);
        let room = in_flight.try_room(60).unwrap();
        assert!(in_flight.try_room(41).is_none());
        let bytes = room.hold(Bytes::from_static(b"0123456789"));
        let part = bytes.slice(3..5);
        assert_eq!(in_flight.bytes(), (10, 100));
        drop(bytes);
        assert_eq!((in_flight.bytes().0, &part[..]), (10, &b"34"[..]));
        drop(part);
        assert_eq!(in_flight.bytes().0, 0);
    }

    #[test]
    fn what_is_there_counts_above_the_bound_and_keeps_others_out() {
        let in_flight = InFlight::new(100);
        let mut there = in_flight.count(150);
        assert!(in_flight.try_room(1).is_none());
        there.shrink(60);
        assert!(in_flight.try_room(11).is_none() && in_flight.try_room(10).is_some());
        there.shrink(500);
        assert_eq!(in_flight.bytes().0, 0);
        assert!(in_flight.try_room(500).is_some(), "alone, anything goes");
    }

    #[test]
    fn little_is_let_in_before_much_for_which_there_is_no_room() {
        let in_flight = InFlight::new(10 * OVERTAKING_BYTES_MAX);
        let most = in_flight.try_room(8 * OVERTAKING_BYTES_MAX).unwrap();
        let mut much = Box::pin(in_flight.room(3 * OVERTAKING_BYTES_MAX));
        let mut more = Box::pin(in_flight.room(OVERTAKING_BYTES_MAX + 1));
        let mut little: Vec<_> = (0..3).map(|_| Box::pin(in_flight.room(OVERTAKING_BYTES_MAX))).collect();
        assert!(poll(&mut much).is_none() && poll(&mut more).is_none());
        let granted: Vec<_> = little.iter_mut().map(poll).collect();
        assert_eq!(granted.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        drop(most);
        assert!(poll(&mut much).is_some() && poll(&mut more).is_some() && poll(&mut little[2]).is_some());
    }

    #[test]
    fn who_waits_for_much_is_let_in_in_order() {
        let in_flight = InFlight::new(100 * MUCH);
        let all = in_flight.try_room(100 * MUCH).unwrap();
        let mut first = Box::pin(in_flight.room(80 * MUCH));
        let mut second = Box::pin(in_flight.room(10 * MUCH));
        let mut third = Box::pin(in_flight.room(30 * MUCH));
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none() && poll(&mut third).is_none());
        drop(all);
        assert!(in_flight.try_room(5 * MUCH).is_none(), "the third waits for 30");
        let (first, second) = (poll(&mut first).unwrap(), poll(&mut second).unwrap());
        assert!(poll(&mut third).is_none());
        drop(first);
        assert!(poll(&mut third).is_some());
        drop(second);
        assert_eq!(in_flight.bytes().0, 0);
    }

    #[test]
    fn little_and_much_for_which_there_is_room_are_let_in_in_order() {
        let in_flight = InFlight::new(10 * MUCH);
        let mut all = in_flight.try_room(10 * MUCH).unwrap();
        let asked = [MUCH, 5 * MUCH, MUCH, 4 * MUCH];
        let mut waiting: Vec<_> = asked.map(|bytes| Box::pin(in_flight.room(bytes))).into();
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_none()));
        all.shrink(6 * MUCH);
        let granted: Vec<_> = waiting.iter_mut().map(poll).collect();
        assert_eq!(granted.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, false]);
    }

    #[test]
    fn bytes_that_come_free_while_thousands_wait_cost_no_look_at_each_of_them() {
        let in_flight = InFlight::new(MUCH);
        let all = in_flight.try_room(MUCH).unwrap();
        let mut waiting: Vec<_> = (0..100_000).map(|_| Box::pin(in_flight.room(2 * MUCH))).collect();
        let begun = std::time::Instant::now();
        assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_none()));
        // A look at each would be ten thousand million of them.
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
        // Most leave from the middle of the queue; the last one has its turn.
        let mut last = waiting.pop().unwrap();
        drop((waiting, all));
        assert!(poll(&mut last).is_some());
    }

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind_and_lets_the_next_one_in() {
        let in_flight = InFlight::new(100 * MUCH);
        let most = in_flight.try_room(60 * MUCH).unwrap();
        let mut large = Box::pin(in_flight.room(80 * MUCH));
        let mut small = Box::pin(in_flight.room(20 * MUCH));
        assert!(poll(&mut large).is_none() && poll(&mut small).is_none());
        drop(large);
        let small = poll(&mut small).unwrap();
        assert_eq!(in_flight.bytes().0, 80 * MUCH);
        let mut granted = Box::pin(in_flight.room(50 * MUCH));
        assert!(poll(&mut granted).is_none());
        drop(most);
        // Let in, and gone before it could know.
        drop(granted);
        assert_eq!(in_flight.bytes().0, 20 * MUCH);
        drop(small);
        assert_eq!(in_flight.bytes().0, 0);
    }

    #[test]
    fn a_higher_bound_lets_in_who_waits() {
        let in_flight = InFlight::new(100);
        let _all = in_flight.try_room(100).unwrap();
        let mut waiting = Box::pin(in_flight.room(50));
        assert!(poll(&mut waiting).is_none());
        in_flight.set_max(150);
        assert!(poll(&mut waiting).is_some());
    }

    #[test]
    fn many_threads_leave_nothing_and_are_never_above_the_bound() {
        let in_flight = InFlight::new(1000);
        std::thread::scope(|scope| {
            for seed in 0..8u64 {
                let in_flight = &in_flight;
                scope.spawn(move || {
                    for number in 0..2000u64 {
                        let bytes = 1 + (seed * 7919 + number * 104_729) % 400;
                        let room = in_flight.try_room(bytes);
                        assert!(in_flight.bytes().0 <= 1000);
                        drop(room);
                    }
                });
            }
        });
        assert_eq!(in_flight.bytes().0, 0);
    }
}
