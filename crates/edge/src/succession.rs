//! What an edge and the process before or after it owe each other: no purge that one has acknowledged is broken by the other,
//! and no invalidation is lost.
//!
//! ```text
//!          release                 hand_over
//! Serving ────────► Releasing ─────────────► HandedOver ─► its connections end, then the process
//!    ▲                  │ resume
//!    └──────────────────┘ (the new process did not start)
//! ```
//!
//! While **releasing**, an edge has closed its disks and its purge log for somebody else to open them. It answers from memory,
//! reads the disks on, and asks its origins. It takes no purge; what visitors' requests invalidate is kept, for whoever serves
//! next, be it this process again.
//!
//! An edge that has **handed over** answers on the connections that it still has. Who serves now tells it of each purge and
//! waits until it says that this is in force here too, before the purge is acknowledged; invalidations go both ways. When the
//! other process is gone, nobody tells of purges any more: then nothing of this cache is used for another request.
//!
//! Several processes may drain at once, each a link in a chain. Messages are passed along it, away from where they came from.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use std::{io, thread};

use model::purge::{Kind as PurgeKind, Purge as ClockPurge, Target};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::handle::Predecessor;
use crate::handover::{Channel, Message, PACKET_BYTES_MAX, Purge};
use crate::origin::Heard;
use crate::purge_log::{Logged, LoggedKind};
use crate::purging;
use crate::worker::Shared;

/// Invalidations that are kept one by one while the edge is releasing; more become one of everything.
const KEPT_MAX: usize = 10_000;

/// How long a process that drains has to say that a purge is in force there, for each that drains before it, itself included.
/// Then it is ended: what it still sends is cut, but nothing that was purged is served.
const DONE_PATIENCE: Duration = Duration::from_secs(5);

/// How long one message waits for the other side to read. A process that does not read for this long while its buffer is full is
/// given up as one that is gone.
const SEND_PATIENCE: Duration = Duration::from_millis(200);

/// Where an edge stands between the process before it and the one after it.
pub(crate) struct Succession {
    kin: Mutex<Kin>,
    /// Handed over to a process that is gone: nothing stored may be used.
    is_orphan: AtomicBool,
    /// The process before this one has said that it drains.
    is_settled: AtomicBool,
    /// What the process after this one may ask of it.
    obey: Mutex<Option<Obey>>,
    /// Where goes what both say of origins' budgets.
    words: mpsc::Sender<Heard>,
}

type Obey = Box<dyn Fn(Ask) + Send>;

/// What a process that drains may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To end within the ordinary drain time: the node stops, or nobody is left who would ask.
    Stop,
    /// To open the access log anew.
    Reopen,
}

struct Kin {
    stage: Stage,
    before: Option<Arc<Link>>,
}

enum Stage {
    Serving,
    Releasing(Vec<Invalidation>),
    HandedOver(Arc<Link>),
}

/// Something that is no more, whoever made it so.
#[derive(Clone, Debug)]
pub(crate) enum Invalidation {
    Key(u128),
    Targets(PurgeKind, Vec<Target>),
}

/// Which neighbour something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// The way to another process.
pub(crate) struct Link {
    channel: Channel,
    /// Purges that wait for their `Done`.
    waiting: Mutex<HashMap<u64, SyncSender<()>>>,
    next_ticket: AtomicU64,
    is_gone: AtomicBool,
    /// The process, where this side may have to end it.
    process: Option<OwnedFd>,
    done_patience: Duration,
}

impl Succession {
    pub(crate) fn new(words: mpsc::Sender<Heard>) -> Self {
        Succession {
            kin: Mutex::new(Kin { stage: Stage::Serving, before: None }),
            is_orphan: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            obey: Mutex::new(None),
            words,
        }
    }

    /// Whether purges can be acknowledged here.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.kin.lock().stage, Stage::Serving)
    }

    /// Whether nobody tells this edge of purges any more.
    pub(crate) fn is_orphan(&self) -> bool {
        self.is_orphan.load(Ordering::Acquire)
    }

    /// Whether the process before this one has said that it leaves everything new to this one.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }

    /// Whether a process before this one is still there.
    pub(crate) fn has_predecessor(&self) -> bool {
        self.kin.lock().before.as_ref().is_some_and(|link| !link.is_gone())
    }

    /// From here on what is invalidated is kept.
    pub(crate) fn release(&self) {
        self.kin.lock().stage = Stage::Releasing(Vec::new());
    }

    /// Ends the release: what was kept, to be put in force again.
    pub(crate) fn resume(&self) -> Vec<Invalidation> {
        match std::mem::replace(&mut self.kin.lock().stage, Stage::Serving) {
            Stage::Releasing(kept) => kept,
            _ => Vec::new(),
        }
    }

    /// Says that this edge reads no socket of QUIC any more.
    pub(crate) fn leave_quic(&self) {
        self.tell_after(&Message::QuicLeft);
    }

    /// Says that this edge takes no connection any more.
    pub(crate) fn settle(&self) {
        self.tell_after(&Message::Draining);
    }

    /// Says something to the process that serves now.
    pub(crate) fn tell_after(&self, message: &Message) {
        let after = match &self.kin.lock().stage {
            Stage::HandedOver(after) => Some(after.clone()),
            Stage::Serving | Stage::Releasing(_) => None,
        };
        if let Some(after) = after {
            after.tell(message);
        }
    }

    /// Asks something of the processes before this one.
    pub(crate) fn ask_before(&self, what: Ask) {
        self.tell_before(match what {
            Ask::Stop => &Message::Stop,
            Ask::Reopen => &Message::Reopen,
        });
    }

    /// Says something to the process that drains.
    pub(crate) fn tell_before(&self, message: &Message) {
        let before = self.kin.lock().before.clone();
        if let Some(before) = before {
            before.tell(message);
        }
    }

    /// Passes on what is said of origins' budgets. Whoever hears it may have ended: then nothing more is asked either.
    fn heard(&self, heard: Heard) {
        let _ended = self.words.blocking_send(heard);
    }

    /// What is done when the process after this one asks for it.
    pub(crate) fn obey(&self, obey: impl Fn(Ask) + Send + 'static) {
        *self.obey.lock() = Some(Box::new(obey));
    }

    /// Tells the others of something that has been invalidated here by a visitor's request; nobody waits for it.
    pub(crate) fn tell(&self, shared: &Shared, what: &Invalidation) {
        self.pass_on(shared, what, None);
    }

    fn pass_on(&self, shared: &Shared, what: &Invalidation, from: Option<Side>) {
        let mut kin = self.kin.lock();
        if let Some(before) = kin.before.as_ref().filter(|_| from != Some(Side::Before)) {
            before.invalidate(shared, what);
        }
        match &mut kin.stage {
            _ if from == Some(Side::After) => {}
            Stage::Serving => {}
            Stage::Releasing(kept) if kept.len() < KEPT_MAX => kept.push(what.clone()),
            Stage::Releasing(kept) => {
                *kept = vec![Invalidation::Targets(PurgeKind::Hard, vec![Target::Everything])]
            }
            Stage::HandedOver(after) => after.invalidate(shared, what),
        }
    }

    /// Makes the processes before this one put purges in force, and waits until they have.
    pub(crate) fn purge_before(&self, shared: &Shared, purges: &[ClockPurge]) {
        let before = self.kin.lock().before.clone();
        let Some(before) = before else { return };
        for kind in [PurgeKind::Hard, PurgeKind::Doubt, PurgeKind::Soft] {
            let of_kind = purges.iter().filter(|purge| purge.kind == kind);
            let targets: Vec<Target> = of_kind.map(|purge| purge.target.clone()).collect();
            before.purge(shared, kind, &targets);
        }
    }
}

/// The process that served before, which drains now.
pub(crate) fn follow(shared: &Arc<Shared>, predecessor: Predecessor) -> io::Result<()> {
    let Predecessor { channel, process, draining } = predecessor;
    let link = Link::new(channel, process, draining)?;
    shared.succession.kin.lock().before = Some(link.clone());
    listen(shared, link, Side::Before)
}

/// The process that serves from now on. What was kept for it is sent; `heard` is what it has said already.
pub(crate) fn hand_over(shared: &Arc<Shared>, channel: Channel, heard: Vec<Message>) -> io::Result<()> {
    let link = Link::new(channel, None, 1)?;
    {
        let mut kin = shared.succession.kin.lock();
        let stage = std::mem::replace(&mut kin.stage, Stage::HandedOver(link.clone()));
        if let Stage::Releasing(kept) = stage {
            kept.iter().for_each(|what| link.invalidate(shared, what));
        }
    }
    heard.into_iter().for_each(|message| hear(shared, &link, Side::After, message));
    listen(shared, link, Side::After).inspect_err(|_| {
        shared.succession.is_orphan.store(true, Ordering::Release);
        shared.succession.heard(Heard::AfterGone);
    })
}

/// Reads what a neighbour says, in a thread, until it is gone.
fn listen(shared: &Arc<Shared>, link: Arc<Link>, side: Side) -> io::Result<()> {
    let (weak, held) = (Arc::downgrade(shared), link.clone());
    let thread = thread::Builder::new().name("succession".into()).spawn(move || {
        // It ends with the channel, at the latest when this process does.
        while let Ok((message, _)) = held.channel.receive() {
            let Some(shared) = weak.upgrade() else { return };
            hear(&shared, &held, side, message);
        }
        held.end();
        let Some(shared) = weak.upgrade() else { return };
        // Telling of it comes last: it may have to wait.
        match side {
            Side::After => {
                shared.succession.is_orphan.store(true, Ordering::Release);
                shared.succession.ask(Ask::Stop);
                shared.succession.heard(Heard::AfterGone);
            }
            Side::Before => {
                shared.quic.start_reading();
                shared.succession.heard(Heard::BeforeGone);
            }
        }
    });
    if thread.is_err() {
        link.end();
    }
    thread.map(drop)
}

fn hear(shared: &Arc<Shared>, link: &Link, side: Side, message: Message) {
    let succession = &shared.succession;
    match message {
        Message::Purge(Purge { ticket, kind, targets }) => {
            let kind = kind.to_kind();
            let targets: Vec<Target> =
                targets.iter().map(|target| target.to_target(&shared.site_numbers)).collect();
            purging::record_told(shared, targets.clone(), kind);
            match (ticket, side) {
                (0, _) | (_, Side::Before) => {
                    succession.pass_on(shared, &Invalidation::Targets(kind, targets), Some(side));
                }
                (_, Side::After) => {
                    let purges: Vec<ClockPurge> =
                        targets.into_iter().map(|target| ClockPurge { target, kind }).collect();
                    succession.purge_before(shared, &purges);
                    link.tell(&Message::Done { ticket });
                }
            }
        }
        Message::Forget { key } => {
            let Ok(key) = u128::from_str_radix(&key, 16) else { return };
            shared.epochs.advance(key);
            shared.forget(key);
            succession.pass_on(shared, &Invalidation::Key(key), Some(side));
        }
        Message::Done { ticket } => {
            if let Some(waiting) = link.waiting.lock().remove(&ticket) {
                // Whoever waited may have given up.
                let _ = waiting.try_send(());
            }
        }
        Message::Turns(word) => succession.heard(match side {
            Side::Before => Heard::Before(word),
            Side::After => Heard::After(word),
        }),
        Message::QuicLeft if side == Side::Before => shared.quic.start_reading(),
        Message::Draining if side == Side::Before => succession.is_settled.store(true, Ordering::Release),
        Message::Stop if side == Side::After => succession.ask(Ask::Stop),
        Message::Reopen if side == Side::After => succession.ask(Ask::Reopen),
        _ => link.end(),
    }
}

impl Succession {
    fn ask(&self, what: Ask) {
        if let Some(obey) = self.obey.lock().as_ref() {
            obey(what);
        }
    }
}

impl Link {
    fn new(channel: Channel, process: Option<OwnedFd>, draining: u32) -> io::Result<Arc<Self>> {
        channel.set_patience(None)?;
        channel.set_send_patience(SEND_PATIENCE)?;
        Ok(Arc::new(Link {
            channel,
            waiting: Mutex::default(),
            next_ticket: AtomicU64::new(1),
            is_gone: AtomicBool::new(false),
            process,
            done_patience: DONE_PATIENCE * draining.max(1),
        }))
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.channel.shut();
        self.waiting.lock().clear();
    }

    /// Says something; whoever doesn't hear it is given up.
    fn tell(&self, message: &Message) {
        if self.is_gone() {
            return;
        }
        match self.channel.send(message, &[]) {
            Ok(()) => {}
            // It doesn't read, and wouldn't read either that this is the end.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.kill("does not read what it is told")
            }
            Err(_) => self.end(),
        }
    }

    fn invalidate(&self, shared: &Shared, what: &Invalidation) {
        match what {
            Invalidation::Key(key) => self.tell(&Message::Forget { key: format!("{key:032x}") }),
            Invalidation::Targets(kind, targets) => {
                packets(shared, *kind, targets)
                    .into_iter()
                    .for_each(|purge| self.tell(&Message::Purge(purge)));
            }
        }
    }

    /// Returns when the purge is in force on the other side, or that side is no more.
    fn purge(&self, shared: &Shared, kind: PurgeKind, targets: &[Target]) {
        for mut purge in packets(shared, kind, targets) {
            purge.ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
            let (sender, done) = sync_channel(1);
            self.waiting.lock().insert(purge.ticket, sender);
            self.tell(&Message::Purge(purge));
            if self.is_gone() {
                // It has ended, or knows by the end of the channel that nothing it has stored may be used any more.
                return;
            }
            if done.recv_timeout(self.done_patience) == Err(RecvTimeoutError::Timeout) {
                return self.kill("did not confirm a purge");
            }
        }
    }

    fn kill(&self, why: &str) {
        self.end();
        if self.process.is_some() {
            eprintln!(
                "perigee: the process that drains {why} and is ended; what it was still sending is cut"
            );
        }
        if let Some(process) = &self.process {
            // It may have ended by itself.
            let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
        }
    }
}

/// A purge in packets that are not too long. One target that is too long becomes its site: more is purged, never less.
fn packets(shared: &Shared, kind: PurgeKind, targets: &[Target]) -> Vec<Purge> {
    const ROOM: usize = PACKET_BYTES_MAX - 1024;
    let kind = LoggedKind::of(kind);
    let mut packets: Vec<Purge> = Vec::new();
    let mut bytes = ROOM;
    for target in targets {
        let mut logged = Logged::of(target, &shared.site_numbers);
        let mut len = serde_json::to_vec(&logged).map_or(0, |bytes| bytes.len()) + 1;
        if len > ROOM {
            logged = Logged::Everything;
            len = 16;
        }
        if bytes + len > ROOM {
            packets.push(Purge { ticket: 0, kind, targets: Vec::new() });
            bytes = 0;
        }
        bytes += len;
        if let Some(last) = packets.last_mut() {
            last.targets.push(logged);
        }
    }
    packets
}
