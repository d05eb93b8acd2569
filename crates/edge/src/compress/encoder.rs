//! Where copies are made. One **keeper** takes what is asked for, looks whether the copy is there already, and puts what has
//! been made into the store; **coders** of low priority do nothing but encode.
//!
//! ```text
//! workers ─ask─► inbox ─► keeper ─► coder, quick      (one lane each, so that no quick copy waits for a thorough one)
//!                           ▲   └─► coder, thorough
//!                           └──made────┘
//! ```
//!
//! Coders take no lock that a worker takes: a thread of low priority that is put aside with one held would make workers
//! wait for it. All queues are bounded; what finds one full is dropped, counted, and asked for again by a later hit.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::{io, thread};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use semantics::coding::Form;
use semantics::key::hash;
use semantics::{Facts, Fields};

use store::Insertion;

use super::{coders, copy_key};
use crate::object::{BLOCK_BYTES, Item, Object, Stored};
use crate::tiering::{self, SLICE_BYTES};
use crate::worker::Shared;

/// What may wait in the inbox, and in each lane: the styles and scripts of some hundred sites. Each takes about 300 bytes.
const WAITING_MAX: usize = 1024;

/// Coders per lane: one in eight cores, which beside workers that are busy get next to nothing anyway.
const CORES_PER_CODER: usize = 8;

/// What the coders' threads ask for on the scale of `nice(1)`: beside a busy worker, 1.5 % of a core.
const NICENESS: i32 = 19;

/// Per cent of the content that a copy may have: for less gain decoding is not worth a visitor's while.
const WORTH_PERCENT: usize = 95;

/// A copy that is asked for.
pub(crate) struct Asked {
    /// What is to be encoded; gone if it has left memory meanwhile.
    pub(crate) object: Weak<Item>,
    pub(crate) form: Form,
    pub(crate) site: Box<str>,
    /// For people who look at a disk.
    pub(crate) url: Box<str>,
}

enum Message {
    Asked(Asked),
    Made(Box<Made>),
    Stop,
}

/// What a coder gives back.
struct Made {
    task: Task,
    encoded: Option<Vec<u8>>,
    cpu_us: u64,
}

/// What a coder gets.
struct Task {
    asked: Asked,
    content: Vec<u8>,
    digest: u128,
}

/// What was done. Totals since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By form: copies made, bytes of their bodies, their own bytes, µs of processor time.
    made: [[AtomicU64; 4]; Form::ALL.len()],
    /// Asked for while a queue was full.
    dropped: AtomicU64,
    /// Not kept because they were hardly smaller.
    hardly_smaller: AtomicU64,
    /// Coders that failed.
    failed: AtomicU64,
}

impl Counts {
    /// Copies made in a form, bytes of their bodies, their own bytes, and µs of processor time.
    pub(crate) fn of_form(&self, form: Form) -> [u64; 4] {
        self.made[form as usize].each_ref().map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Copies that were asked for and not made: a queue was full, it would have been hardly smaller, its coder failed.
    pub(crate) fn not_made(&self) -> [u64; 3] {
        [&self.dropped, &self.hardly_smaller, &self.failed].map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// Takes what is asked for. Without [`Encoder::start`], everything is dropped.
pub(crate) struct Encoder {
    inbox: SyncSender<Message>,
    received: Mutex<Option<Receiver<Message>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    pub(crate) counts: Counts,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        let (inbox, received) = sync_channel(WAITING_MAX);
        Encoder {
            inbox,
            received: Mutex::new(Some(received)),
            keeper: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// Asks for a copy; whether it will be looked at. Never waits.
    pub(super) fn ask(&self, asked: Asked) -> bool {
        let is_taken = self.inbox.try_send(Message::Asked(asked)).is_ok();
        if !is_taken {
            count(&self.counts.dropped, 1);
        }
        is_taken
    }

    /// Starts keeper and coders of an edge.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<()> {
        let encoder = &shared.encoder;
        let Some(received) = encoder.received.lock().take() else { return Ok(()) };
        let coders = thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(CORES_PER_CODER));
        let lanes =
            [Lane::start("quick", coders, &encoder.inbox)?, Lane::start("slow", coders, &encoder.inbox)?];
        let mut keeper = Keeper { shared: shared.clone(), lanes };
        let thread = thread::Builder::new().name("copies".into()).spawn(move || {
            while let Ok(message) = received.recv() {
                match message {
                    Message::Asked(asked) => keeper.take(asked),
                    Message::Made(made) => keeper.keep(*made),
                    Message::Stop => break,
                }
            }
        })?;
        *encoder.keeper.lock() = Some(thread);
        Ok(())
    }

    /// Stops: nothing is stored any more when this returns. A coder ends with what it is at.
    pub(crate) fn stop(&self) {
        if let Some(keeper) = self.keeper.lock().take() {
            let _ = self.inbox.send(Message::Stop);
            let _ = keeper.join();
        }
    }
}

// --- Keeper ---

struct Keeper {
    shared: Arc<Shared>,
    /// The quick one, and the thorough one.
    lanes: [Lane; 2],
}

/// Coders of one kind, and what waits for them.
struct Lane {
    waiting: VecDeque<Asked>,
    idle: usize,
    tasks: SyncSender<Task>,
}

impl Lane {
    fn start(name: &str, coders: usize, inbox: &SyncSender<Message>) -> io::Result<Lane> {
        let (tasks, receiver) = sync_channel(coders);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..coders {
            let (receiver, inbox) = (receiver.clone(), inbox.clone());
            let name = format!("{name}-{number}");
            thread::Builder::new().name(name).spawn(move || code(&receiver, &inbox))?;
        }
        Ok(Lane { waiting: VecDeque::new(), idle: coders, tasks })
    }
}

impl Keeper {
    fn take(&mut self, asked: Asked) {
        let lane = &mut self.lanes[usize::from(asked.form.is_thorough())];
        if lane.idle == 0 && lane.waiting.len() >= WAITING_MAX {
            count(&self.shared.encoder.counts.dropped, 1);
            if let Some(object) = asked.object.upgrade().and_then(Object::of) {
                object.copies.forget(asked.form);
            }
            return;
        }
        let is_thorough = asked.form.is_thorough();
        lane.waiting.push_back(asked);
        self.dispatch(is_thorough);
    }

    /// Gives idle coders of a lane something to do.
    fn dispatch(&mut self, is_thorough: bool) {
        let Keeper { shared, lanes } = self;
        let lane = &mut lanes[usize::from(is_thorough)];
        while lane.idle > 0
            && let Some(asked) = lane.waiting.pop_front()
        {
            // What has left memory needs no copies, and of what is there none is made again.
            if let Some(task) = prepare(shared, asked)
                && lane.tasks.send(task).is_ok()
            {
                lane.idle -= 1;
            }
        }
    }

    /// Puts what a coder has made where it is found.
    fn keep(&mut self, made: Made) {
        let Made { task: Task { asked, content, digest }, encoded, cpu_us } = made;
        self.lanes[usize::from(asked.form.is_thorough())].idle += 1;
        let counts = &self.shared.encoder.counts;
        let object = asked.object.upgrade().and_then(Object::of);
        match encoded {
            None => count(&counts.failed, 1),
            Some(encoded) if encoded.len() * 100 > content.len() * WORTH_PERCENT => {
                count(&counts.hardly_smaller, 1);
            }
            Some(encoded) => {
                let figures = [1, content.len() as u64, encoded.len() as u64, cpu_us];
                let counters = counts.made[asked.form as usize].iter();
                counters.zip(figures).for_each(|(counter, figure)| count(counter, figure));
                if let Some(object) = object {
                    store(&self.shared, &asked, &object, digest, encoded.into());
                }
            }
        }
        self.dispatch(asked.form.is_thorough());
    }
}

/// What a coder needs for a copy; `None` where there is nothing to encode.
fn prepare(shared: &Shared, asked: Asked) -> Option<Task> {
    let object = asked.object.upgrade().and_then(Object::of)?;
    let mut text = format!("copies of {}\n", asked.site).into_bytes();
    let start = text.len();
    object.read_into(&mut text)?;
    let digest = match object.copies.digest() {
        0 => hash(&shared.seed, &text),
        known => known,
    };
    object.copies.set_digest(digest);
    match find(shared, copy_key(digest, asked.form)) {
        Found::InMemory => object.copies.set_ready(asked.form),
        Found::NoRoom => {}
        Found::Nothing => {
            text.drain(..start);
            return Some(Task { asked, content: text, digest });
        }
    }
    None
}

/// Where a copy is that was made before.
enum Found {
    /// In memory; it may have been read from disk.
    InMemory,
    /// On disk, and memory does not take it.
    NoRoom,
    /// Nowhere.
    Nothing,
}

fn find(shared: &Shared, key: u128) -> Found {
    if shared.store.peek(key).is_some() {
        return Found::InMemory;
    }
    let on_disk = shared.disks.find(key).and_then(|spot| tiering::peek(shared, key, &spot));
    match on_disk.and_then(Object::of) {
        Some(copy) if insert(shared, key, &Object::new(copy.compact(shared.pages.as_ref()))) => {
            Found::InMemory
        }
        Some(_) => Found::NoRoom,
        None => Found::Nothing,
    }
}

/// Puts a copy into memory. One that memory refuses stays marked as asked for, so that nobody makes it again.
fn insert(shared: &Shared, key: u128, copy: &Object) -> bool {
    !matches!(shared.store.insert(key, copy.entry()), Insertion::Refused(_))
}

fn store(shared: &Shared, asked: &Asked, object: &Object, digest: u128, encoded: Bytes) {
    let key = copy_key(digest, asked.form);
    let head: Fields = [("Content-Encoding", asked.form.coding().as_str())].into_iter().collect();
    let facts = Facts { status: 200, ..object.facts };
    let body = blocks_of(&encoded);
    let pages = shared.pages.as_ref();
    let copy = Object::new(Stored::whole(facts, object.position(), Vec::new(), &head, &body, pages));
    if !insert(shared, key, &copy) {
        return;
    }
    if encoded.len() as u64 <= SLICE_BYTES {
        shared.put_response(key, &copy, asked.url.to_string(), vec![encoded]);
    }
    object.copies.set_ready(asked.form);
    if asked.form.is_thorough() {
        // In its coding there is a better one now.
        let quick = Form::quick(asked.form.coding());
        object.copies.forget(quick);
        shared.forget(copy_key(digest, quick));
    }
}

fn blocks_of(bytes: &Bytes) -> Vec<Bytes> {
    let starts = (0..bytes.len()).step_by(BLOCK_BYTES);
    starts.map(|start| bytes.slice(start..bytes.len().min(start + BLOCK_BYTES))).collect()
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

// --- Coders ---

/// A coder's life: until the keeper is gone.
fn code(tasks: &Mutex<Receiver<Task>>, inbox: &SyncSender<Message>) {
    // Of this thread alone, on Linux. If it is refused, coders compete with workers: bad, but no reason not to serve.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    loop {
        let Ok(task) = tasks.lock().recv() else { return };
        let before = cpu_us();
        // A coder that fails costs a copy, whatever it fails at.
        let encoded = catch_unwind(AssertUnwindSafe(|| coders::encode(task.asked.form, &task.content).ok()));
        let cpu_us = cpu_us().saturating_sub(before);
        let made = Made { task, encoded: encoded.ok().flatten(), cpu_us };
        if inbox.send(Message::Made(Box::new(made))).is_err() {
            return;
        }
    }
}

/// Processor time of this thread, in µs.
fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}
