//! A visitor's HTTP/3 connection (RFC 9114): here each request stream becomes a request for the flow, and each answer frames.
//! [`crate::h3`] knows the bytes, `quinn` speaks QUIC.
//!
//! Each request is a future of its own. The connection's task begins it, and most end there: a head that came whole, an
//! answer from memory. What has to wait goes on as a task, so that no stream waits for another.
//!
//! ```text
//! accept ─► head ─► intake ─► flow ─┬─► answer at once ─────────────────────► frames
//!                                   └─► task: wait, pump the body, send pieces ─► frames
//! ```

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use observe::Limit;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use semantics::Fields;

use crate::answer::Answer;
use crate::deliver;
use crate::flow::{Begun, Flow};
use crate::h1::body::Framing;
use crate::h3::frames::{self, BadFrame, Frame, Frames, On};
use crate::h3::priority::Priority;
use crate::h3::qpack::{self, BadSection, Section};
use crate::h3::{Code, VARINT_MAX, read_varint, request};
use crate::intake::{self, Intake, Parts};
use crate::origin::BodyPart;
use crate::refusal::Refusal;
use crate::request::{Protocol, Request};
use crate::worker::Worker;

use super::exchange::{Exchange, Fault, Follows, Incoming, Outgoing};
use super::{Gone, Visitor};

/// Bytes that are taken from a stream at a time.
const READ_BYTES: usize = 64 * 1024;

/// Bodies larger than this are not done when they have been handed over: the visitor must have got them.
const ACKNOWLEDGED_BYTES: u64 = 64 * 1024;

/// The least time between telling a visitor that no more requests are taken and taking none: those who are just about to
/// send have heard of it by then.
const NOTICE: Duration = Duration::from_millis(250);

/// How often a busy connection looks whether the node stops.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Streams that mean nothing to us which a connection may open in all. Chromium opens one.
const UNKNOWN_STREAMS_MAX: u32 = 100;

/// Serves one connection until either side has had enough.
pub(super) async fn serve(worker: Rc<Worker>, connection: Connection, visitor: Visitor) {
    let limits = worker.limits();
    let watch = worker.watch();
    watch.set(worker.tick_after(limits.header_timeout));
    let opened = async {
        let mut control = connection.open_uni().await.map_err(|_| Gone)?;
        let settings = frames::control_stream(limits.header_bytes_max.0);
        control.write_all(&settings).await.map_err(|_| Gone)?;
        Ok::<_, Gone>(control)
    };
    let control = match watch.within(opened).await {
        Some(Ok(control)) => control,
        Some(Err(Gone)) => return,
        None => return worker.count_limit(Limit::HeadTime),
    };
    let session = Rc::new(Session {
        worker,
        visitor,
        connection,
        leaving: Cell::new(Leaving::No),
        running: Cell::new(0),
        ended: Cell::new(None),
        seen: Cell::default(),
        unknown_streams: Cell::new(0),
        forgiven: Cell::new(0),
        priorities: RefCell::default(),
    });
    session.run(control).await;
}

/// What the requests of one connection share.
struct Session {
    worker: Rc<Worker>,
    visitor: Visitor,
    connection: Connection,
    leaving: Cell<Leaving>,
    /// How many have a task of their own.
    running: Cell<usize>,
    /// Woken when one of them has ended.
    ended: Cell<Option<Waker>>,
    /// The streams that there must be once.
    seen: Cell<Seen>,
    unknown_streams: Cell<u32>,
    /// Counts requests: each makes up for some frames that say nothing.
    forgiven: Cell<u64>,
    /// What PRIORITY_UPDATE said of streams that have not taken it up yet.
    priorities: RefCell<HashMap<u64, Priority>>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    control: bool,
    encoder: bool,
    decoder: bool,
}

/// How far the connection's end has come (RFC 9114 §5.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The visitor has been told; what comes nevertheless is still answered.
    Told,
    /// What comes is refused; what runs goes on to its end.
    Closing,
}

/// What a connection's task wakes up for.
enum Event {
    Request(Result<(SendStream, RecvStream), ConnectionError>),
    Other(Result<RecvStream, ConnectionError>),
    /// A deadline has passed.
    Late,
    /// The node stops.
    Draining,
    /// The last answer of a connection that closes has been sent.
    Done,
}

impl Session {
    async fn run(self: Rc<Self>, mut control: SendStream) {
        let worker = &self.worker;
        let limits = worker.limits();
        let watch = worker.watch();
        // Whether the deadline that is set is one between two requests.
        let mut waits_idle = None;
        let leaving = &self.leaving;
        let (mut served, mut next_stream) = (0, 0);
        loop {
            let event = {
                let mut requests = pin!(self.connection.accept_bi());
                let mut others = pin!(self.connection.accept_uni());
                poll_fn(|context| {
                    if watch.is_expired() {
                        return Poll::Ready(Event::Late);
                    }
                    if leaving.get() == Leaving::No && worker.is_draining() {
                        return Poll::Ready(Event::Draining);
                    }
                    if leaving.get() == Leaving::Closing && self.running.get() == 0 {
                        return Poll::Ready(Event::Done);
                    }
                    if let Poll::Ready(request) = requests.as_mut().poll(context) {
                        return Poll::Ready(Event::Request(request));
                    }
                    if let Poll::Ready(other) = others.as_mut().poll(context) {
                        return Poll::Ready(Event::Other(other));
                    }
                    let is_idle = self.running.get() == 0;
                    if leaving.get() == Leaving::No && waits_idle.replace(is_idle) != Some(is_idle) {
                        match is_idle {
                            true => watch.set_idle(worker.tick_after(limits.idle_timeout)),
                            false => watch.set(worker.tick_after(LOOK_UP)),
                        }
                    }
                    watch.register(context);
                    self.ended.set(Some(context.waker().clone()));
                    Poll::Pending
                })
                .await
            };
            let mut leave = || {
                leaving.set(Leaving::Told);
                // The last id that there could be, so that nothing on its way is refused.
                say(&mut control, &frames::goaway(VARINT_MAX - 3));
                watch.set(worker.tick_after(NOTICE.max(3 * self.connection.rtt())));
            };
            match event {
                Event::Request(Err(_)) | Event::Other(Err(_)) => return,
                Event::Request(Ok((send, recv))) if leaving.get() == Leaving::Closing => {
                    refuse(send, recv, Code::RequestRejected);
                }
                Event::Request(Ok((send, recv))) => {
                    served += 1;
                    next_stream = next_stream.max(VarInt::from(send.id()).into_inner() + 4);
                    self.forgiven.set(self.forgiven.get() + 1);
                    self.begin(send, recv).await;
                    if served == limits.requests_per_connection_max && leaving.get() == Leaving::No {
                        worker.count_limit(Limit::RequestsPerConnection);
                        leave();
                    }
                }
                Event::Other(Ok(stream)) => {
                    tokio::task::spawn_local(self.clone().listen(stream));
                }
                Event::Draining => leave(),
                Event::Late => match leaving.get() {
                    // Those who run have deadlines of their own.
                    Leaving::No if waits_idle == Some(false) => watch.set(worker.tick_after(LOOK_UP)),
                    Leaving::No => {
                        if !worker.is_draining() {
                            worker.count_limit(Limit::IdleTime);
                        }
                        leave();
                    }
                    Leaving::Told => {
                        leaving.set(Leaving::Closing);
                        say(&mut control, &frames::goaway(next_stream));
                        watch.clear();
                    }
                    Leaving::Closing => watch.clear(),
                },
                Event::Done => return self.close(Code::NoError),
            }
        }
    }

    /// Begins a request, and ends it if it needs no waiting.
    async fn begin(self: &Rc<Self>, send: SendStream, recv: RecvStream) {
        let mut request = Box::pin(self.clone().request(send, recv));
        let is_done = poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_ready())).await;
        if is_done {
            return;
        }
        struct Running(Rc<Session>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.running.set(self.0.running.get() - 1);
                if let Some(waker) = self.0.ended.take() {
                    waker.wake();
                }
            }
        }
        self.running.set(self.running.get() + 1);
        let running = Running(self.clone());
        tokio::task::spawn_local(async move {
            let _ended = running;
            request.await;
        });
    }

    /// One request, from its head to the end of its answer.
    async fn request(self: Rc<Self>, send: SendStream, recv: RecvStream) {
        let started = Instant::now();
        let worker = &self.worker;
        let id = VarInt::from(send.id()).into_inner();
        let mut content = Content::new(self.clone(), recv);
        let mut answering = Answering::new(self.clone(), id, send);
        let _ = self.exchange(&mut content, &mut answering, started).await;
        // Closing the connection would take back what the visitor has not got.
        let is_last = self.leaving.get() != Leaving::No;
        if answering.is_finished && (is_last || answering.body_bytes > ACKNOWLEDGED_BYTES) {
            let watch = worker.watch();
            watch.set(worker.tick_after(worker.limits().write_stall_timeout));
            let _ = watch.within(answering.send.stopped()).await;
        }
        self.priorities.borrow_mut().remove(&id);
    }

    async fn exchange(
        &self,
        content: &mut Content,
        answering: &mut Answering,
        started: Instant,
    ) -> Result<(), Gone> {
        let (worker, visitor) = (&self.worker, &self.visitor);
        let taken = match self.head(content).await {
            Ok(section) => request::pseudo(&section).map_err(Refusal::Syntax).and_then(|(pseudo, count)| {
                let head = Parts {
                    method: pseudo.method,
                    target: pseudo.target,
                    authority: pseudo.authority,
                    ends: content.has_ended(),
                    protocol: Protocol::Http3,
                    connects_to: pseudo.connects_to,
                };
                let lines = || section.lines().skip(count);
                intake::request_of_parts(worker, &head, lines, visitor, started)
            }),
            Err(NoHead::Refused(refusal)) => Err(refusal),
            Err(NoHead::Gone) => return Err(Gone),
        };
        let Intake { request, framing, .. } = match taken {
            Ok(intake) => intake,
            Err(refusal) => {
                let (request, answer) = intake::refused(worker, visitor, Protocol::Http3, &refusal);
                return Exchange::new(worker.clone(), request).send(answer, answering).await;
            }
        };
        if let Some(priority) = request.fields.get("priority") {
            answering.set_priority(Priority::parse(priority));
        }
        let request = Rc::new(request);
        let exchange = Exchange::new(worker.clone(), request.clone());
        let limits = worker.limits();
        if let Framing::Length(length) = framing {
            content.promised = Some(length);
            if length > limits.body_bytes_max.0 {
                let refusal = Refusal::BodyTooLarge(limits.body_bytes_max.0);
                worker.count_limit(Limit::BodyBytes);
                return exchange.send(refusal.answer(&request), answering).await;
            }
        }
        match Flow::begin(worker, &request) {
            Begun::Answer(answer) => exchange.send(answer, answering).await,
            Begun::Waiting(flow) => exchange.run(flow, content, framing, answering).await,
        }
    }

    /// Waits for a head, and for what is behind it where that decides what the request is.
    async fn head(&self, content: &mut Content) -> Result<Section, NoHead> {
        if let Poll::Ready(head) = once(content.head()).await {
            return head;
        }
        let watch = self.worker.watch();
        watch.set(self.worker.tick_after(self.worker.limits().header_timeout));
        match watch.within(content.head()).await {
            Some(head) => head,
            None => {
                self.worker.count_limit(Limit::HeadTime);
                Err(NoHead::Refused(Refusal::HeadTimeout))
            }
        }
    }

    /// Reads one of the streams that go one way, to its end.
    async fn listen(self: Rc<Self>, mut stream: RecvStream) {
        let listened = match self.kind_of(&mut stream).await {
            Err(code) => Err(code),
            Ok(None) => Ok(()),
            Ok(Some((kind, rest))) => match kind {
                frames::CONTROL_STREAM => self.listen_to_control(&mut stream, rest).await,
                frames::ENCODER_STREAM => self.listen_to_qpack(&mut stream, rest, true).await,
                frames::DECODER_STREAM => self.listen_to_qpack(&mut stream, rest, false).await,
                // Only servers push.
                frames::PUSH_STREAM => Err(Code::StreamCreationError),
                _ => {
                    let count = self.unknown_streams.get() + 1;
                    self.unknown_streams.set(count);
                    let _ = stream.stop(code(Code::StreamCreationError));
                    if count > UNKNOWN_STREAMS_MAX { Err(Code::ExcessiveLoad) } else { Ok(()) }
                }
            },
        };
        if let Err(code) = listened {
            self.close(code);
        }
    }

    /// The type of a stream, and what came behind it; `None` if it ended before (RFC 9114 §6.2).
    async fn kind_of(&self, stream: &mut RecvStream) -> Result<Option<(u64, Bytes)>, Code> {
        let mut begin = BytesMut::new();
        loop {
            let Ok(Some(chunk)) = stream.read_chunk(READ_BYTES, true).await else { return Ok(None) };
            begin.extend_from_slice(&chunk.bytes);
            let Some((kind, used)) = read_varint(&begin) else { continue };
            let mut seen = self.seen.get();
            let slot = match kind {
                frames::CONTROL_STREAM => Some(&mut seen.control),
                frames::ENCODER_STREAM => Some(&mut seen.encoder),
                frames::DECODER_STREAM => Some(&mut seen.decoder),
                _ => None,
            };
            if slot.is_some_and(|slot| std::mem::replace(slot, true)) {
                return Err(Code::StreamCreationError);
            }
            self.seen.set(seen);
            return Ok(Some((kind, begin.freeze().split_off(used))));
        }
    }

    async fn listen_to_control(&self, stream: &mut RecvStream, rest: Bytes) -> Result<(), Code> {
        let mut frames = Frames::new(On::Control);
        frames.push(rest);
        let (mut is_first, mut forgiven) = (true, 0);
        loop {
            if forgiven != self.forgiven.get() {
                forgiven = self.forgiven.get();
                frames.forgive();
            }
            let frame = match frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    frames.push(read_critical(stream).await?);
                    continue;
                }
                Err(BadFrame::Close(code)) => return Err(code),
                Err(BadFrame::SectionTooLong) => return Err(Code::FrameUnexpected),
            };
            match frame {
                Frame::Settings(settings) if is_first => frames::check_settings(&settings)?,
                Frame::Settings(_) => return Err(Code::FrameUnexpected),
                _ if is_first => return Err(Code::MissingSettings),
                Frame::PriorityUpdate(payload) => self.update_priority(&payload)?,
                // We push nothing, so there is nothing to cancel or to allow.
                Frame::AboutPush { frame, payload } => match read_varint(&payload) {
                    Some((_, used)) if used == payload.len() => {
                        if frame == frames::PushFrame::Cancel {
                            return Err(Code::IdError);
                        }
                    }
                    _ => return Err(Code::FrameError),
                },
                Frame::Section(_) | Frame::Data(_) => return Err(Code::FrameUnexpected),
            }
            is_first = false;
        }
    }

    async fn listen_to_qpack(
        &self,
        stream: &mut RecvStream,
        rest: Bytes,
        is_encoder: bool,
    ) -> Result<(), Code> {
        let mut instructions = qpack::Instructions::of_encoder(is_encoder);
        let mut bytes = rest;
        loop {
            instructions.read(&bytes).map_err(|_| match is_encoder {
                true => Code::QpackEncoderStreamError,
                false => Code::QpackDecoderStreamError,
            })?;
            bytes = read_critical(stream).await?;
        }
    }

    /// RFC 9218 §7.2.
    fn update_priority(&self, payload: &[u8]) -> Result<(), Code> {
        let (stream, used) = read_varint(payload).ok_or(Code::FrameError)?;
        // Requests come on the streams that visitors open both ways.
        if stream % 4 != 0 {
            return Err(Code::IdError);
        }
        let mut priorities = self.priorities.borrow_mut();
        // What is told of streams that never come, or have been, is forgotten for lack of room.
        if priorities.len() < self.worker.limits().streams_max as usize || priorities.contains_key(&stream) {
            priorities.insert(stream, Priority::parse(&payload[used..]));
        }
        Ok(())
    }

    fn close(&self, why: Code) {
        if why == Code::ExcessiveLoad {
            self.worker.count_limit(Limit::IdleFrames);
        }
        self.connection.close(code(why), b"");
    }
}

fn code(code: Code) -> VarInt {
    VarInt::from_u32(code as u32)
}

/// Polls a future that loses nothing by being dropped, once.
async fn once<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Says something on the control stream, if there is room for it: there is, for a visitor who reads.
fn say(control: &mut SendStream, frame: &[u8]) {
    let mut context = Context::from_waker(Waker::noop());
    let _ = Pin::new(control).poll_write(&mut context, frame);
}

/// Refuses a request that nothing has been done for.
fn refuse(mut send: SendStream, mut recv: RecvStream, why: Code) {
    let _ = recv.stop(code(why));
    let _ = send.reset(code(why));
}

/// The next bytes of a stream that must not end before the connection (RFC 9114 §6.2.1, RFC 9204 §4.2).
async fn read_critical(stream: &mut RecvStream) -> Result<Bytes, Code> {
    match stream.read_chunk(READ_BYTES, true).await {
        Ok(Some(chunk)) => Ok(chunk.bytes),
        _ => Err(Code::ClosedCriticalStream),
    }
}

// --- What comes in ---

/// Why there is no head.
enum NoHead {
    Refused(Refusal),
    /// The stream or the connection is no more.
    Gone,
}

/// A request as it comes: its head, its content and its trailers.
struct Content {
    session: Rc<Session>,
    recv: RecvStream,
    frames: Frames,
    head: Option<Section>,
    /// What was read to find out whether there is anything.
    ahead: Option<BodyPart>,
    /// The trailers, once they have come.
    trailers: Option<Fields>,
    /// The visitor has sent all there is.
    is_ended: bool,
    /// What Content-Length says, and what has come of it.
    promised: Option<u64>,
    received: u64,
}

impl Content {
    fn new(session: Rc<Session>, recv: RecvStream) -> Self {
        let section_bytes_max = session.worker.limits().header_bytes_max.0;
        Content {
            session,
            recv,
            frames: Frames::new(On::Request { section_bytes_max }),
            head: None,
            ahead: None,
            trailers: None,
            is_ended: false,
            promised: None,
            received: 0,
        }
    }

    /// Whether nothing follows the head.
    fn has_ended(&self) -> bool {
        matches!(self.ahead, Some(BodyPart::End(_)))
    }

    /// The head. For methods that have no content as a rule, it is waited for what comes behind it, which is the end:
    /// whether they have decides what may answer them. Dropping the future loses nothing.
    async fn head(&mut self) -> Result<Section, NoHead> {
        if self.head.is_none() {
            let section_bytes_max = self.session.worker.limits().header_bytes_max.0;
            let section = match self.frame().await {
                Ok(Some(Frame::Section(section))) => section,
                Ok(Some(_)) => return Err(self.unexpected(Code::FrameUnexpected).into()),
                // §4.1: a request that is no request.
                Ok(None) => {
                    return Err(NoHead::Refused(Refusal::Syntax("the request ended before its head")));
                }
                Err(BadFrame::SectionTooLong) => {
                    return Err(NoHead::Refused(Refusal::HeadTooLarge(section_bytes_max)));
                }
                Err(BadFrame::Close(_)) => return Err(NoHead::Gone),
            };
            // RFC 9114 §4.2.2 counts 32 bytes for each line, which the limit does not.
            let lines_max = u64::from(self.session.worker.limits().header_count_max) + 8;
            match qpack::decode(&section, section_bytes_max + 32 * lines_max) {
                Ok(section) => self.head = Some(section),
                Err(BadSection::TooLarge) => {
                    return Err(NoHead::Refused(Refusal::HeadTooLarge(section_bytes_max)));
                }
                Err(BadSection::Undecodable) => {
                    return Err(self.unexpected(Code::QpackDecompressionFailed).into());
                }
            }
        }
        let waits = self.head.as_ref().is_some_and(|section| {
            let is =
                |wanted: &[u8]| section.lines().any(|(name, value)| name == b":method" && value == wanted);
            let has_length = section.lines().any(|(name, _)| name == b"content-length");
            (is(b"GET") || is(b"HEAD")) && !has_length
        });
        if self.ahead.is_none() {
            self.ahead = match waits {
                true => Some(self.next_part().await?),
                false => match once(self.next_part()).await {
                    Poll::Ready(part) => Some(part?),
                    Poll::Pending => None,
                },
            };
        }
        self.head.take().ok_or(NoHead::Gone)
    }

    /// The next frame or part of one; `None` at the stream's end. A connection that breaks the rules is closed.
    async fn frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        loop {
            match self.frames.next() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(bad) => {
                    if let BadFrame::Close(code) = bad {
                        self.session.close(code);
                    }
                    return Err(bad);
                }
            }
            match self.recv.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => self.frames.push(chunk.bytes),
                Ok(None) if self.frames.is_between() => {
                    self.is_ended = true;
                    return Ok(None);
                }
                Ok(None) => {
                    self.session.close(Code::FrameError);
                    return Err(BadFrame::Close(Code::FrameError));
                }
                Err(_) => return Err(BadFrame::Close(Code::RequestCancelled)),
            }
        }
    }

    fn unexpected(&self, code: Code) -> Gone {
        self.session.close(code);
        Gone
    }

    /// The next part of the content. Dropping the future loses nothing.
    async fn next_part(&mut self) -> Result<BodyPart, Gone> {
        loop {
            match self.frame().await {
                Ok(Some(Frame::Data(_) | Frame::Section(_))) if self.trailers.is_some() => {
                    return Err(self.unexpected(Code::FrameUnexpected));
                }
                Ok(Some(Frame::Data(piece))) => {
                    self.received += piece.len() as u64;
                    if self.promised.is_some_and(|promised| self.received > promised) {
                        return Err(Gone);
                    }
                    return Ok(BodyPart::Data(piece));
                }
                Ok(Some(Frame::Section(section))) => {
                    let size_max = self.session.worker.limits().header_bytes_max.0;
                    let section = match qpack::decode(&section, size_max) {
                        Ok(section) => section,
                        Err(BadSection::TooLarge) => return Err(Gone),
                        Err(BadSection::Undecodable) => {
                            return Err(self.unexpected(Code::QpackDecompressionFailed));
                        }
                    };
                    self.trailers = Some(request::trailers(&section).map_err(|_| Gone)?);
                }
                Ok(Some(_)) => return Err(self.unexpected(Code::FrameUnexpected)),
                Ok(None) if self.promised.is_some_and(|promised| self.received != promised) => {
                    return Err(Gone);
                }
                Ok(None) => return Ok(BodyPart::End(self.trailers.take().unwrap_or_default())),
                Err(_) => return Err(Gone),
            }
        }
    }
}

impl From<Gone> for NoHead {
    fn from(_: Gone) -> Self {
        NoHead::Gone
    }
}

impl Incoming for &mut Content {
    async fn part(&mut self) -> Result<BodyPart, Gone> {
        match self.ahead.take() {
            Some(BodyPart::Data(piece))
                if self.promised.is_some_and(|promised| piece.len() as u64 > promised) =>
            {
                Err(Gone)
            }
            Some(part) => Ok(part),
            None => self.next_part().await,
        }
    }

    /// QUIC gives the visitor room as soon as bytes are read; what waits behind that is bounded by its own count.
    fn passed_on(&mut self, _: usize) {}
}

impl Drop for Content {
    fn drop(&mut self) {
        if !self.is_ended {
            // RFC 9114 §4.1.1: the rest is not needed, and the answer stands.
            let _ = self.recv.stop(code(Code::NoError));
        }
    }
}

// --- What goes out ---

/// The way of an answer as frames. Dropped before its end, it is reset: what was sent must not look whole.
struct Answering {
    session: Rc<Session>,
    id: u64,
    send: SendStream,
    /// Heads of frames, and what else is sent with the next bytes of the body.
    queued: BytesMut,
    /// Bytes that the last DATA frame has promised.
    frame_left: usize,
    body_bytes: u64,
    is_finished: bool,
    /// Waits for the visitor to stop the stream.
    stopped: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Answering {
    fn new(session: Rc<Session>, id: u64, send: SendStream) -> Self {
        Answering {
            session,
            id,
            send,
            queued: BytesMut::new(),
            frame_left: 0,
            body_bytes: 0,
            is_finished: false,
            stopped: None,
        }
    }

    fn set_priority(&self, priority: Priority) {
        if priority != Priority::default() {
            let _ = self.send.set_priority(priority.order());
        }
    }

    fn queue_section(&mut self, section: &[u8]) {
        let mut frame = Vec::with_capacity(section.len() + 8);
        frames::write_section(&mut frame, section);
        self.queued.extend_from_slice(&frame);
    }

    /// Sends what is queued, and some of `bytes` behind it.
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Gone>> {
        if !self.session.priorities.borrow().is_empty()
            && let Some(priority) = self.session.priorities.borrow_mut().remove(&self.id)
        {
            let _ = self.send.set_priority(priority.order());
        }
        let mut both = [self.queued.split().freeze(), std::mem::take(bytes)];
        let written = pin!(self.send.write_chunks(&mut both)).poll(context);
        let [queued, rest] = both;
        *bytes = rest;
        if !queued.is_empty() {
            self.queued = BytesMut::from(&queued[..]);
        }
        ready!(written).map_err(|_| Gone)?;
        Poll::Ready(Ok(()))
    }

    /// Sends what is queued.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while !self.queued.is_empty() {
            ready!(self.poll_write(context, &mut Bytes::new()))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what there is room for now. What there is none for goes with what is sent next.
    fn flush(&mut self) {
        let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
    }

    fn finish(&mut self) -> Result<(), Gone> {
        self.is_finished = true;
        self.send.finish().map_err(|_| Gone)
    }
}

impl Outgoing for Answering {
    fn send_interim(&mut self, status: u16, fields: &Fields) {
        let mut section = Vec::with_capacity(256);
        qpack::begin(&mut section);
        qpack::write_status(&mut section, status);
        fields.iter().for_each(|(name, value)| qpack::write_line(&mut section, name, value));
        self.queue_section(&section);
        self.flush();
    }

    fn send_head(
        &mut self,
        worker: &Worker,
        request: &Request,
        answer: &Answer,
        follows: Follows,
    ) -> Result<u64, Gone> {
        let mut out = worker.take_buffer();
        let (section, head_bytes) = deliver::response_section(&mut out, worker, request, answer);
        worker.return_buffer(out);
        self.queue_section(&section);
        if follows == Follows::Later {
            self.flush();
        }
        Ok(head_bytes)
    }

    /// How much room there is, QUIC says when it takes the bytes.
    fn poll_room(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        ready!(self.poll_flush(context))?;
        Poll::Ready(Ok(wanted))
    }

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut Bytes,
        ends: bool,
    ) -> Poll<Result<(), Gone>> {
        if self.frame_left == 0 {
            let mut head = Vec::with_capacity(16);
            frames::write_data_head(&mut head, bytes.len() as u64);
            self.queued.extend_from_slice(&head);
            self.frame_left = bytes.len();
        }
        let before = bytes.len();
        ready!(self.poll_write(context, bytes))?;
        let sent = before - bytes.len();
        self.frame_left -= sent;
        self.body_bytes += sent as u64;
        if bytes.is_empty() && ends {
            self.finish()?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, context: &mut Context<'_>, trailers: &Fields) -> Poll<Result<(), Gone>> {
        if self.is_finished {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_flush(context))?;
        if !trailers.is_empty() {
            let mut section = Vec::with_capacity(256);
            qpack::begin(&mut section);
            trailers.iter().for_each(|(name, value)| qpack::write_line(&mut section, name, value));
            self.queue_section(&section);
            ready!(self.poll_flush(context))?;
        }
        Poll::Ready(self.finish())
    }

    fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let stopped = self.stopped.get_or_insert_with(|| {
            let stopped = self.send.stopped();
            Box::pin(async move {
                let _ = stopped.await;
            })
        });
        stopped.as_mut().poll(context)
    }

    fn reset(&mut self, by: Fault) {
        let why = match by {
            Fault::Visitor | Fault::Tunnel => Code::RequestCancelled,
            Fault::Origin => Code::InternalError,
        };
        self.is_finished = true;
        let _ = self.send.reset(code(why));
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.is_finished {
            self.reset(Fault::Visitor);
        }
    }
}
