//! Watches the frames of an HTTP/2 connection (RFC 9113 §4.1, §6) as their bytes pass, and says when a visitor sends too
//! many of a kind that costs it little and us more (§10.5). It reads the nine bytes of each frame's head, copies nothing,
//! and doesn't judge whether a frame is right: the `h2` crate does.
//!
//! That crate has limits of its own, which aren't repeated here: CONTINUATION frames of one header block, headers far over
//! their limit, DATA frames that are empty or tiny and lie unread, streams that are reset before anybody has taken
//! them, and streams that we had to reset for a visitor's errors.
//!
//! ```text
//! 24 bytes of preface │ length ×3 │ kind │ flags │ stream ×4 │ payload … │ length ×3 …
//! ```

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::time::Duration;

use model::rate::{Bucket, Rate};
use observe::Limit;

use crate::clock::Clock;

/// The client's connection preface (RFC 9113 §3.4), which comes before the first frame.
const PREFACE_BYTES: u32 = 24;

const HEAD_BYTES: usize = 9;

// Kinds of frames (RFC 9113 §6, RFC 9218 §7.1).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PRIORITY: u8 = 0x2;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const PRIORITY_UPDATE: u8 = 0x10;

/// The flag of HEADERS and CONTINUATION that says that no CONTINUATION follows.
const END_HEADERS: u8 = 0x4;

/// Finds the heads of frames in a stream of bytes that comes in any pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameScan {
    head: [u8; HEAD_BYTES],
    /// How much of `head` is there.
    held: usize,
    /// Bytes until the next head begins.
    skip: u32,
}

impl FrameScan {
    /// At the beginning of what a client sends.
    pub(crate) fn of_client() -> Self {
        FrameScan { head: [0; HEAD_BYTES], held: 0, skip: PREFACE_BYTES }
    }

    /// At the beginning of what a server sends.
    pub(crate) fn of_server() -> Self {
        FrameScan { skip: 0, ..FrameScan::of_client() }
    }

    /// Calls `see` with kind and flags of each frame whose head is complete by now. Cost: one step per frame, whatever its
    /// size.
    pub(crate) fn scan(&mut self, mut bytes: &[u8], mut see: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            bytes = &bytes[skipped..];
            self.skip -= skipped as u32;
            let taken = bytes.len().min(HEAD_BYTES - self.held);
            self.head[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            bytes = &bytes[taken..];
            if self.held == HEAD_BYTES {
                let [a, b, c, kind, flags, ..] = self.head;
                (self.held, self.skip) = (0, u32::from_be_bytes([0, a, b, c]));
                see(kind, flags);
            }
        }
    }

    /// Whether the last frame that has begun is complete.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.held == 0 && self.skip == 0
    }
}

/// How many frames of a kind a connection may receive.
struct Budget {
    limit: Limit,
    rate: Rate,
    /// What a request adds to it.
    per_request: u32,
    /// What a DATA frame that we sent adds to it.
    per_data: u32,
}

const fn budget(limit: Limit, per_second: u32, burst: u32) -> Budget {
    Budget { limit, rate: Rate::new(per_second, Duration::from_secs(1), burst), per_request: 0, per_data: 0 }
}

const BUDGETS: usize = 6;

/// The budgets, by [`budget_of`]. A burst is what an honest visitor can have reason to send at once, and costs us some
/// milliseconds at most; what adds to a budget is what gives such a reason.
static BUDGET: [Budget; BUDGETS] = [
    // Leaving a page resets all that it has under way, 100 streams by default. nghttp2 allows 1,000 and 33 per second,
    // Envoy half of 500 streams.
    budget(Limit::Http2Resets, 33, 500),
    // gRPC measures its bandwidth by a PING for what it receives; keep-alives are one in ten seconds.
    Budget { per_data: 1, ..budget(Limit::Http2Pings, 10, 200) },
    // One at the beginning, and some as windows grow. Each may change the window of every stream.
    budget(Limit::Http2Settings, 1, 50),
    // Browsers say a few for each request; of a visitor without requests there is nothing to order.
    Budget { per_request: 8, ..budget(Limit::Http2Priorities, 10, 500) },
    // Two for each DATA frame, where each is acknowledged for itself; the burst is what a window of 64 MiB has under way.
    Budget { per_data: 4, ..budget(Limit::Http2WindowUpdates, 1000, 8192) },
    // Kinds that we don't know must be ignored (§4.1, §5.5): browsers send one now and then so that this stays so.
    Budget { per_request: 2, ..budget(Limit::Http2OtherFrames, 10, 100) },
];

/// Which budget pays for a frame of a kind; `None` for those that others bound: DATA and CONTINUATION by the library,
/// HEADERS as requests.
fn budget_of(kind: u8) -> Option<usize> {
    match kind {
        DATA | HEADERS | CONTINUATION => None,
        RST_STREAM => Some(0),
        PING => Some(1),
        SETTINGS => Some(2),
        PRIORITY | PRIORITY_UPDATE => Some(3),
        WINDOW_UPDATE => Some(4),
        _ => Some(5),
    }
}

/// What a visitor has sent of late on one connection.
pub(crate) struct Conduct {
    clock: Clock,
    received: RefCell<FrameScan>,
    sent: RefCell<FrameScan>,
    buckets: RefCell<[Bucket; BUDGETS]>,
    exceeded: Cell<Option<Limit>>,
    /// Whether a header block has begun and its last frame has not.
    in_block: Cell<bool>,
}

impl Conduct {
    pub(crate) fn new(clock: Clock) -> Self {
        Conduct {
            clock,
            received: RefCell::new(FrameScan::of_client()),
            sent: RefCell::new(FrameScan::of_server()),
            buckets: RefCell::default(),
            exceeded: Cell::new(None),
            in_block: Cell::new(false),
        }
    }

    /// Takes note of bytes that came. The first limit that they go beyond stays [`Conduct::exceeded`].
    pub(crate) fn receive(&self, bytes: &[u8]) {
        let buckets = &mut *self.buckets.borrow_mut();
        let mut now_ns = None;
        self.received.borrow_mut().scan(bytes, |kind, flags| {
            if kind == HEADERS || kind == CONTINUATION {
                self.in_block.set(flags & END_HEADERS == 0);
            }
            if kind == HEADERS {
                give_back(buckets, |budget| budget.per_request);
            }
            let Some(index) = budget_of(kind) else { return };
            let now_ns = *now_ns.get_or_insert_with(|| self.clock.monotonic_ms() * 1_000_000);
            if buckets[index].take(&BUDGET[index].rate, now_ns).is_err() && self.exceeded.get().is_none() {
                self.exceeded.set(Some(BUDGET[index].limit));
            }
        });
    }

    /// Takes note of the first `length` bytes of `slices`, which were sent.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>], mut length: usize) {
        let buckets = &mut *self.buckets.borrow_mut();
        let mut sent = self.sent.borrow_mut();
        for slice in slices {
            let part = &slice[..slice.len().min(length)];
            length -= part.len();
            sent.scan(part, |kind, _| {
                if kind == DATA {
                    give_back(buckets, |budget| budget.per_data);
                }
            });
        }
    }

    /// Whether what came last is a part of a frame or of a header block, and the rest is still to come.
    pub(crate) fn is_heading(&self) -> bool {
        self.in_block.get() || !self.received.borrow().is_between_frames()
    }

    /// The limit that the visitor went beyond.
    pub(crate) fn exceeded(&self) -> Option<Limit> {
        self.exceeded.get()
    }
}

fn give_back(buckets: &mut [Bucket; BUDGETS], count: impl Fn(&Budget) -> u32) {
    for (bucket, budget) in buckets.iter_mut().zip(&BUDGET) {
        bucket.give_back(&budget.rate, count(budget));
    }
}

#[cfg(test)]
mod tests;
