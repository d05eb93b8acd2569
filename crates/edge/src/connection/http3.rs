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

mod incoming;
mod oneway;
mod outgoing;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use observe::Limit;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};

use crate::flow::{Begun, Flow};
use crate::h3::priority::Priority;
use crate::h3::qpack::Section;
use crate::h3::{Code, VARINT_MAX, frames, request};
use crate::intake::{self, Intake, Parts};
use crate::refusal::Refusal;
use crate::request::Protocol;
use crate::worker::Worker;

use super::exchange::{Exchange, too_long};
use super::{Gone, Visitor};

use incoming::{Content, NoHead};
use oneway::Seen;
use outgoing::Answering;

/// Bytes that are taken from a stream at a time.
const READ_BYTES: usize = 64 * 1024;

/// The least time between telling a visitor that no more requests are taken and taking none: those who are just about to
/// send have heard of it by then.
const NOTICE: Duration = Duration::from_millis(250);

/// How often a busy connection looks whether the node stops.
const LOOK_UP: Duration = Duration::from_secs(1);

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
    let control = match watch.within(pin!(opened)).await {
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
        let (watch, turn) = (worker.watch(), worker.turn());
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
                    if leaving.get() == Leaving::No
                        && worker.says_goodbye(turn, served, |switches| switches.http3)
                    {
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
                    waits_idle = None;
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
        // Closing the connection, which may come at any time, would take back what the visitor has not got.
        if answering.is_finished {
            let watch = worker.watch();
            watch.set(worker.tick_after(worker.limits().write_stall_timeout));
            let _ = watch.within(pin!(answering.send.stopped())).await;
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
                    is_early: content.is_early(),
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
        if let Some(answer) = too_long(worker, &request, framing) {
            return exchange.send(answer, answering).await;
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
        match watch.within(pin!(content.head())).await {
            Some(head) => head,
            None => {
                self.worker.count_limit(Limit::HeadTime);
                Err(NoHead::Refused(Refusal::HeadTimeout))
            }
        }
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
