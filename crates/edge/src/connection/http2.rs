//! A visitor's HTTP/2 connection (RFC 9113). The `h2` crate speaks the protocol; here each request becomes one for the
//! flow, and each answer frames.
//!
//! What can be answered at once is, by the connection's own task; what has to wait or to be sent piece by piece gets a
//! task of its own, so that no stream waits for another.
//!
//! ```text
//! accept ─► intake ─► flow ─┬─► answer at once, small ───────────────► frames
//!                           └─► task: wait, pump the body, send pieces ─► frames
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::StatusCode;
use model::cluster::Switches;
use model::settings::{HEADER_BYTES, Limits};
use observe::Limit;
use semantics::Fields;

use crate::answer::Answer;
use crate::deliver;
use crate::flow::{Begun, Flow};
use crate::h1::body::Framing;
use crate::intake::{self, Intake, Parts};
use crate::origin::{BodyPart, fields_of, header_map};
use crate::request::{Protocol, Request};
use crate::tiers;
use crate::worker::{Turn, Watch, Worker};

use super::exchange::{Ended, Exchange, Fault, Follows, Incoming, Outgoing, too_long, whole_body};
use super::frames::Conduct;
use super::stream::{Gathering, Io, Stream};
use super::{Gone, Visitor};

/// What a visitor may send of request bodies before we have taken it: per stream, RFC 9113's default, and in all.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of one stream that may lie in the connection's buffer on their way out: what a slow visitor can make us hold, and
/// less than what keeps a fast one busy.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How long a connection may take to end once it was told to.
const GOODBYE: Duration = Duration::from_secs(5);

/// What is still taken from a visitor whose connection has ended, so that it gets to read why: closing a socket in which
/// something lies unread cuts off what was sent before.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Streams of one connection that we may have to reset for the visitor's errors. Each costs a request that was begun in
/// vain (the attack called MadeYouReset); a visitor that makes none but opens more than [`Limits::streams_max`] before it has
/// read how many that are needs as many as it opens.
const ERROR_RESETS_MAX: usize = 200;

/// Serves one connection until either side has had enough.
pub(super) async fn serve(worker: Rc<Worker>, io: Io, visitor: Visitor) {
    let limits = limits_for(&worker, &visitor);
    let watch = worker.watch();
    watch.set(worker.tick_after(limits.header_timeout));
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams_max)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits.header_bytes_max.0 as u32)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        // Who leaves a page at once resets all that it has just asked for, in one read. The library's 20 would end that.
        .max_pending_accept_reset_streams(limits.streams_max as usize)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .enable_connect_protocol();
    let stream = Rc::new(Stream::new(io));
    let conduct = Rc::new(Conduct::new(worker.shared.clock.clone()));
    let frames = Gathering { stream: stream.clone(), conduct: conduct.clone() };
    let mut connection = match watch.within(builder.handshake::<_, Bytes>(frames)).await {
        Some(Ok(connection)) => connection,
        Some(Err(_)) => return,
        None => return worker.count_limit(Limit::HeadTime),
    };
    let streams =
        Streams { worker: worker.clone(), visitor, running: Rc::default(), served: 0, turn: worker.turn() };
    let end = streams.run(&mut connection, &stream, &conduct, &watch, &limits).await;
    drop(connection);
    // The last frames may still be with us.
    watch.set(worker.tick_after(GOODBYE));
    let _ = watch.within(poll_fn(|context| stream.poll_shutdown(context))).await;
    if end == End::Refused {
        watch.set(worker.tick_after(LINGER));
        let _ = watch.within(pin!(discard(&stream))).await;
    }
}

/// The limits of a connection: another edge speaks for many visitors, within the limits that are its own.
fn limits_for(worker: &Worker, visitor: &Visitor) -> Limits {
    let limits = worker.limits();
    match visitor.node {
        None => limits,
        Some(_) => Limits {
            streams_max: tiers::STREAMS_MAX,
            header_bytes_max: HEADER_BYTES.max,
            requests_per_connection_max: u32::MAX,
            ..limits
        },
    }
}

/// Drops what still comes, until the visitor ends it or it is too much.
async fn discard(stream: &Stream) {
    let mut dropped = 0;
    while dropped < LINGER_BYTES {
        match poll_fn(|context| stream.poll_discard(context)).await {
            Ok(0) | Err(_) => return,
            Ok(count) => dropped += count,
        }
    }
}

/// The requests of one connection.
struct Streams {
    worker: Rc<Worker>,
    visitor: Visitor,
    /// How many have a task of their own.
    running: Rc<Cell<usize>>,
    served: u32,
    turn: Turn,
}

/// A new stream, trouble, or the connection's end.
type Accepted = Option<Result<(http::Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

/// What a connection is doing, which says how long it may go on doing it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for the next request.
    Idle,
    /// Waiting for the rest of a request's head.
    Heading,
    /// Answering: it must get on.
    Busy,
    /// Waiting for the visitor to see that it is over.
    Leaving,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides had enough, or the visitor has gone.
    Over,
    /// We would have no more of it, and the visitor may still be sending.
    Refused,
}

impl Streams {
    async fn run(
        mut self,
        connection: &mut Connection<Gathering, Bytes>,
        stream: &Stream,
        conduct: &Conduct,
        watch: &Rc<Watch>,
        limits: &Limits,
    ) -> End {
        let (mut is_leaving, mut phase, mut sent) = (false, None, stream.sent());
        let mut idle_until = self.worker.tick_after(limits.idle_timeout);
        loop {
            let accepted: Option<Accepted> = poll_fn(|context| {
                if watch.is_expired() {
                    return Poll::Ready(None);
                }
                let is_edge = self.visitor.node.is_some();
                let is_spoken = |switches: &Switches| switches.http2 || is_edge;
                if !is_leaving && self.worker.says_goodbye(self.turn, self.served, is_spoken) {
                    is_leaving = true;
                    connection.graceful_shutdown();
                }
                let accepted = connection.poll_accept(context);
                if accepted.is_pending() {
                    // All that the requests of one read were answered with leaves together. A socket that is full wakes
                    // this task; one that is broken shows when it is read.
                    let _ = stream.poll_flush(context);
                    // Another edge resets what its visitors no longer want, all of them at once if it has to.
                    if !is_edge && conduct.exceeded().is_some() {
                        return Poll::Ready(None);
                    }
                    let heading_until = self.worker.tick_after(limits.header_timeout);
                    let now = match connection.has_streams() || self.running.get() > 0 {
                        true => Phase::Busy,
                        false if is_leaving => Phase::Leaving,
                        // Beginning one head after the other makes no connection live longer.
                        false if conduct.is_heading() && heading_until < idle_until => Phase::Heading,
                        false => Phase::Idle,
                    };
                    let before = phase.replace(now);
                    if before != Some(now) {
                        if before == Some(Phase::Busy) {
                            idle_until = self.worker.tick_after(limits.idle_timeout);
                        }
                        match now {
                            Phase::Idle => watch.set_idle(idle_until),
                            Phase::Heading => watch.set(heading_until),
                            Phase::Busy => watch.set(self.worker.tick_after(limits.write_stall_timeout)),
                            Phase::Leaving => watch.set(self.worker.tick_after(GOODBYE)),
                        }
                    }
                    watch.register(context);
                }
                accepted.map(Some)
            })
            .await;
            if accepted.is_none()
                && self.visitor.node.is_none()
                && let Some(limit) = conduct.exceeded()
            {
                return self.refuse(connection, limit).await;
            }
            match (accepted, phase) {
                (Some(Some(Ok((request, respond)))), _) => {
                    self.served += 1;
                    if self.served == limits.requests_per_connection_max && !is_leaving {
                        self.worker.count_limit(Limit::RequestsPerConnection);
                        is_leaving = true;
                        connection.graceful_shutdown();
                    }
                    if let Some(Ready { exchange, answer, mut answering }) =
                        self.begin(request, respond, stream.is_early(), watch)
                    {
                        let _ = exchange.send(answer, &mut answering).await;
                    }
                    // What was answered at once leaves no other trace: the connection has been in use.
                    phase = None;
                    idle_until = self.worker.tick_after(limits.idle_timeout);
                }
                (Some(Some(Err(error))), _) => {
                    if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        self.worker.count_limit(Limit::Http2Excess);
                    }
                    return if error.is_io() { End::Over } else { End::Refused };
                }
                (Some(None), _) | (None, Some(Phase::Leaving)) => return End::Over,
                // Those who run have deadlines of their own, and what is only to be sent may be on its way.
                (None, Some(Phase::Busy)) if self.running.get() > 0 || sent != stream.sent() => {
                    sent = stream.sent();
                    watch.set(self.worker.tick_after(limits.write_stall_timeout));
                }
                (None, Some(Phase::Busy)) => return self.refuse(connection, Limit::SendTime).await,
                (None, Some(Phase::Heading)) => return self.refuse(connection, Limit::HeadTime).await,
                (None, Some(Phase::Idle) | None) => {
                    if !self.worker.is_draining() {
                        self.worker.count_limit(Limit::IdleTime);
                    }
                    is_leaving = true;
                    phase = None;
                    connection.graceful_shutdown();
                    watch.clear();
                }
            }
        }
    }

    /// Ends a connection that has gone beyond a limit, and says so.
    async fn refuse(&self, connection: &mut Connection<Gathering, Bytes>, limit: Limit) -> End {
        self.worker.count_limit(limit);
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        // Once more, so that the reason is said.
        poll_fn(|context| Poll::Ready(connection.poll_accept(context).is_ready())).await;
        End::Refused
    }

    /// Has a task answer a request, unless that needs no waiting. Not async: an idle connection would keep the room for it.
    fn begin(
        &self,
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
        is_early: bool,
        watch: &Rc<Watch>,
    ) -> Option<Ready> {
        let answering = Answering { respond, stream: None, is_ended: false };
        let started = Instant::now();
        let (parts, content) = request.into_parts();
        let (worker, visitor) = (&self.worker, &self.visitor);
        let head = Parts {
            method: parts.method.as_str(),
            target: parts.uri.path_and_query().map_or("", |target| target.as_str()),
            authority: parts.uri.authority().map(|authority| authority.as_str()),
            ends: content.is_end_stream(),
            is_early,
            protocol: Protocol::Http2,
            connects_to: parts.extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str),
        };
        let lines = || parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let taken = intake::request_of_parts(worker, &head, lines, visitor, started);
        let Intake { request, framing, .. } = match taken {
            Ok(intake) => intake,
            Err(refusal) => {
                let (request, answer) = intake::refused(worker, visitor, Protocol::Http2, &refusal);
                return self.answer(request, answer, answering, watch);
            }
        };
        let request = Rc::new(request);
        if let Some(answer) = too_long(worker, &request, framing) {
            return self.answer(request, answer, answering, watch);
        }
        match Flow::begin(worker, &request) {
            Begun::Answer(answer) => self.answer(request, answer, answering, watch),
            Begun::Waiting(flow) => {
                let exchange = Exchange::new(worker.clone(), request);
                let running = self.count(watch);
                tokio::task::spawn_local(stream(
                    running,
                    exchange,
                    flow,
                    Content(content),
                    framing,
                    answering,
                ));
                None
            }
        }
    }

    /// Has a task send an answer, unless that needs no waiting.
    fn answer(
        &self,
        request: Rc<Request>,
        answer: Answer,
        mut answering: Answering,
        watch: &Rc<Watch>,
    ) -> Option<Ready> {
        let is_whole = whole_body(&request, &answer).is_some();
        let exchange = Exchange::new(self.worker.clone(), request);
        if is_whole {
            return Some(Ready { exchange, answer, answering });
        }
        let running = self.count(watch);
        tokio::task::spawn_local(async move {
            let _running = running;
            let _ = exchange.send(answer, &mut answering).await;
        });
        None
    }

    /// Counts a task of a stream, while it lives. What spawns it has no function of its own: a future that is given to one by value
    /// takes its room twice.
    fn count(&self, watch: &Rc<Watch>) -> Running {
        self.running.set(self.running.get() + 1);
        Running(self.running.clone(), watch.clone())
    }
}

/// The task of a stream that has to wait.
#[expect(clippy::manual_async_fn, reason = "an async fn has the room for what it is given twice")]
fn stream(
    running: Running,
    exchange: Exchange,
    flow: Box<Flow>,
    content: Content,
    framing: Framing,
    mut answering: Answering,
) -> impl Future<Output = ()> {
    async move {
        let _running = running;
        let _ = exchange.run(flow, content, framing, &mut answering).await;
    }
}

/// What can be sent without waiting.
struct Ready {
    exchange: Exchange,
    answer: Answer,
    answering: Answering,
}

/// One of [`Streams::running`].
struct Running(Rc<Cell<usize>>, Rc<Watch>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        // The connection may be idle now.
        self.1.wake();
    }
}

/// The content of a request as DATA frames.
struct Content(RecvStream);

impl Incoming for Content {
    async fn part(&mut self) -> Result<BodyPart, Ended> {
        match self.0.data().await {
            Some(piece) => piece.map(BodyPart::Data).map_err(|_| Ended::Gone),
            None => {
                let trailers = self.0.trailers().await.map_err(|_| Ended::Gone)?;
                Ok(BodyPart::End(trailers.map_or(Fields::new(), |lines| fields_of(&lines))))
            }
        }
    }

    fn passed_on(&mut self, length: usize) {
        // It fails when the stream has ended, which the next look at it says.
        let _ = self.0.flow_control().release_capacity(length);
    }
}

/// The way of an answer as HEADERS and DATA frames.
struct Answering {
    respond: SendResponse<Bytes>,
    /// From the head on.
    stream: Option<SendStream<Bytes>>,
    /// The head was all.
    is_ended: bool,
}

impl Answering {
    fn stream(&mut self) -> Result<&mut SendStream<Bytes>, Gone> {
        self.stream.as_mut().ok_or(Gone)
    }
}

impl Outgoing for Answering {
    fn send_interim(&mut self, status: u16, fields: &Fields) {
        let mut response = http::Response::new(());
        let Ok(status) = StatusCode::from_u16(status) else { return };
        *response.status_mut() = status;
        *response.headers_mut() = header_map(fields);
        let _ = self.respond.send_informational(response);
    }

    fn send_head(
        &mut self,
        worker: &Worker,
        request: &Request,
        answer: &Answer,
        follows: Follows,
    ) -> Result<u64, Gone> {
        let ends = follows == Follows::Nothing;
        let mut out = worker.take_buffer();
        let (head, head_bytes) = deliver::response_head(&mut out, worker, request, answer);
        worker.return_buffer(out);
        self.stream = Some(self.respond.send_response(head, ends).map_err(|_| Gone)?);
        self.is_ended = ends;
        Ok(head_bytes)
    }

    fn poll_room(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>> {
        let stream = self.stream()?;
        stream.reserve_capacity(wanted);
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                _ => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(stream.capacity().min(wanted)))
    }

    /// What there was no room for waits in the connection's buffer.
    fn poll_data(&mut self, _: &mut Context<'_>, bytes: &mut Bytes, ends: bool) -> Poll<Result<(), Gone>> {
        let bytes = std::mem::take(bytes);
        Poll::Ready(self.stream()?.send_data(bytes, ends).map_err(|_| Gone))
    }

    fn poll_end(&mut self, _: &mut Context<'_>, trailers: &Fields) -> Poll<Result<(), Gone>> {
        if self.is_ended {
            return Poll::Ready(Ok(()));
        }
        let stream = self.stream()?;
        let ended = match trailers.is_empty() {
            true => stream.send_data(Bytes::new(), true),
            false => stream.send_trailers(header_map(trailers)),
        };
        Poll::Ready(ended.map_err(|_| Gone))
    }

    fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(context).map(drop),
            None => self.respond.poll_reset(context).map(drop),
        }
    }

    fn reset(&mut self, by: Fault) {
        let reason = match by {
            Fault::Visitor | Fault::Tunnel => Reason::CANCEL,
            Fault::Origin(_) => Reason::INTERNAL_ERROR,
        };
        match &mut self.stream {
            Some(stream) => stream.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes;

    #[test]
    fn connections_and_their_streams_take_little_room() {
        let connection = sizes::of(|(worker, io, visitor)| serve(worker, io, visitor));
        let stream = sizes::of(|(running, exchange, flow, content, framing, answering)| {
            stream(running, exchange, flow, content, framing, answering)
        });
        sizes::check("each connection of HTTP/2", connection, 5_856);
        sizes::check("the task of each stream of HTTP/2 that waits", stream, 3_312);
    }
}
