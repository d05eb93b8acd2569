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
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::StatusCode;
use model::settings::Limits;
use observe::Limit;
use semantics::{Fields, Why};
use tokio::sync::mpsc;

use crate::answer::{Answer, Body};
use crate::deliver::{self, Sent};
use crate::flow::{Begun, Flow};
use crate::h1::body::Framing;
use crate::intake::{self, Intake};
use crate::origin::{BodyPart, RequestBody, fields_of, header_map};
use crate::pieces::{Piece, Pieces};
use crate::refusal::Refusal;
use crate::request::{Protocol, Request};
use crate::worker::{Watch, Worker};

use super::frames::Conduct;
use super::stream::{Gathering, Io, Stream};
use super::{Gone, Visitor};

/// What a visitor may send of request bodies before we have taken it: per stream, RFC 9113's default, and in all.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of one stream that may lie in the connection's buffer on their way out: what a slow visitor can make us hold, and
/// less than what keeps a fast one busy.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Bodies in memory up to this size are handed over whole, by reference.
const AT_ONCE_BYTES: u64 = 64 * 1024;

/// Bytes of one stream that are given to the connection at a time: four frames.
const SEND_BYTES: usize = 64 * 1024;

/// Pieces of a request body that may wait between visitor and origin.
const UPLOAD_PIECES: usize = 4;

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
    let limits = worker.limits();
    let watch = worker.watch();
    watch.set(worker.tick_after(limits.header_timeout));
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams_max)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits.header_bytes_max.0 as u32)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    let stream = Rc::new(Stream::new(io));
    let conduct = Rc::new(Conduct::new(worker.shared.clock.clone()));
    let frames = Gathering { stream: stream.clone(), conduct: conduct.clone() };
    let connection = match watch.within(builder.handshake::<_, Bytes>(frames)).await {
        Some(Ok(connection)) => connection,
        Some(Err(_)) => return,
        None => return worker.count_limit(Limit::HeadTime),
    };
    let streams = Streams { worker: worker.clone(), visitor, running: Rc::default(), served: 0 };
    let end = streams.run(connection, &stream, &conduct, &watch, &limits).await;
    // The last frames may still be with us.
    watch.set(worker.tick_after(GOODBYE));
    let _ = watch.within(poll_fn(|context| stream.poll_shutdown(context))).await;
    if end == End::Refused {
        watch.set(worker.tick_after(LINGER));
        let _ = watch.within(discard(&stream)).await;
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
        mut connection: Connection<Gathering, Bytes>,
        stream: &Stream,
        conduct: &Conduct,
        watch: &Rc<Watch>,
        limits: &Limits,
    ) -> End {
        let (mut is_leaving, mut phase) = (false, None);
        let mut idle_until = self.worker.tick_after(limits.idle_timeout);
        loop {
            let accepted: Option<Accepted> = poll_fn(|context| {
                if watch.is_expired() {
                    return Poll::Ready(None);
                }
                if !is_leaving && self.worker.is_draining() {
                    is_leaving = true;
                    connection.graceful_shutdown();
                }
                let accepted = connection.poll_accept(context);
                if accepted.is_pending() {
                    // All that the requests of one read were answered with leaves together. A socket that is full wakes
                    // this task; one that is broken shows when it is read.
                    let _ = stream.poll_flush(context);
                    if conduct.exceeded().is_some() {
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
                    self.begin(request, respond);
                }
                (Some(Some(Err(error))), _) => {
                    if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        self.worker.count_limit(Limit::Http2Excess);
                    }
                    return if error.is_io() { End::Over } else { End::Refused };
                }
                (Some(None), _) | (None, Some(Phase::Leaving)) => return End::Over,
                // Those who run have deadlines of their own.
                (None, Some(Phase::Busy)) if self.running.get() > 0 => {
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
    async fn refuse(&self, mut connection: Connection<Gathering, Bytes>, limit: Limit) -> End {
        self.worker.count_limit(limit);
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        // Once more, so that the reason is said.
        poll_fn(|context| Poll::Ready(connection.poll_accept(context).is_ready())).await;
        End::Refused
    }

    /// Answers a request at once or has a task do it.
    fn begin(&self, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let started = Instant::now();
        let (parts, content) = request.into_parts();
        let (worker, visitor) = (&self.worker, &self.visitor);
        let taken = intake::request_of_parts(
            worker,
            &parts,
            content.is_end_stream(),
            Protocol::Http2,
            visitor,
            started,
        );
        let Intake { request, framing, .. } = match taken {
            Ok(intake) => intake,
            Err(refusal) => {
                if let Some(limit) = refusal.limit() {
                    worker.count_limit(limit);
                }
                let mut request = intake::unreadable(worker, visitor.client);
                request.protocol = Protocol::Http2;
                let answer = refusal.answer(&request);
                return self.answer(Rc::new(request), answer, respond);
            }
        };
        let request = Rc::new(request);
        let limits = worker.limits();
        if matches!(framing, Framing::Length(length) if length > limits.body_bytes_max.0) {
            let refusal = Refusal::BodyTooLarge(limits.body_bytes_max.0);
            worker.count_limit(Limit::BodyBytes);
            return self.answer(request.clone(), refusal.answer(&request), respond);
        }
        match Flow::begin(worker, &request) {
            Begun::Answer(answer) => self.answer(request, answer, respond),
            Begun::Waiting(flow) => {
                let exchange = Exchange::new(worker.clone(), request);
                self.spawn(async move {
                    let answer = exchange.wait(flow, content, framing, &mut respond).await?;
                    exchange.send(answer, &mut respond).await
                });
            }
        }
    }

    /// Sends an answer: from here if it needs no waiting.
    fn answer(&self, request: Rc<Request>, answer: Answer, mut respond: SendResponse<Bytes>) {
        let exchange = Exchange::new(self.worker.clone(), request);
        if let Some(body) = whole_body(&exchange.request, &answer) {
            return exchange.send_whole(answer, body, &mut respond);
        }
        self.spawn(async move { exchange.send(answer, &mut respond).await });
    }

    fn spawn(&self, exchange: impl Future<Output = Result<(), Gone>> + 'static) {
        struct Running(Rc<Cell<usize>>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.running.set(self.running.get() + 1);
        let running = Running(self.running.clone());
        tokio::task::spawn_local(async move {
            let _ended = running;
            let _ = exchange.await;
        });
    }
}

/// The whole content of an answer that needs no waiting; `None` when it does.
fn whole_body(request: &Request, answer: &Answer) -> Option<Bytes> {
    if deliver::has_no_content(request, answer) {
        return Some(Bytes::new());
    }
    match &answer.body {
        Body::Empty => Some(Bytes::new()),
        Body::Bytes(bytes) => Some(bytes.clone()),
        Body::Stored(stored, start, end) if end - start <= AT_ONCE_BYTES => {
            crate::pieces::held(stored, *start, *end)
        }
        _ => None,
    }
}

/// One request and its answer.
struct Exchange {
    worker: Rc<Worker>,
    request: Rc<Request>,
}

impl Exchange {
    fn new(worker: Rc<Worker>, request: Rc<Request>) -> Self {
        Exchange { worker, request }
    }

    /// Waits for the flow's answer, pumping the request's body to it and interim responses to the visitor.
    async fn wait(
        &self,
        flow: Box<Flow>,
        content: RecvStream,
        framing: Framing,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Answer, Gone> {
        let interim = flow.interim();
        let fault = Cell::new(None);
        let (body, upload) = match framing {
            Framing::None => (RequestBody::Empty, None),
            Framing::Length(_) | Framing::Chunked => {
                let (sender, parts) = mpsc::channel(UPLOAD_PIECES);
                let length = match framing {
                    Framing::Length(length) => Some(length),
                    Framing::Chunked | Framing::None => None,
                };
                (RequestBody::Stream { parts, length }, Some(self.upload(content, sender, &fault)))
            }
        };
        let mut uploading = pin!(async {
            if let Some(upload) = upload {
                upload.await;
            }
            std::future::pending::<()>().await
        });
        let mut answering = pin!(flow.finish(body));
        loop {
            let next = poll_fn(|context| {
                if let Poll::Ready(_gone) = respond.poll_reset(context) {
                    return Poll::Ready(Err(Gone));
                }
                let _ = uploading.as_mut().poll(context);
                match answering.as_mut().poll(context) {
                    Poll::Ready(answer) => Poll::Ready(Ok(Some(answer))),
                    Poll::Pending => interim.poll_some(context).map(|()| Ok(None)),
                }
            });
            let next = next.await;
            for (status, fields) in interim.take() {
                send_interim(respond, status, &fields);
            }
            if let Some(answer) = next? {
                return Ok(match (answer.note.why, fault.take()) {
                    // An upload that broke off is the visitor's fault, whatever the origin made of it.
                    (Why::ClientGone, Some(refusal)) => refusal.answer(&self.request),
                    _ => answer,
                });
            }
        }
    }

    /// Passes the request's content on until it is complete, refused, or nobody wants it any more.
    async fn upload(
        &self,
        mut content: RecvStream,
        sender: mpsc::Sender<std::io::Result<BodyPart>>,
        fault: &Cell<Option<Refusal>>,
    ) {
        let limits = self.worker.limits();
        let watch = self.worker.watch();
        let mut total = 0;
        loop {
            watch.set(self.worker.tick_after(limits.body_stall_timeout));
            let part = match watch.within(content.data()).await {
                Some(Some(Ok(piece))) => {
                    total += piece.len() as u64;
                    self.request.received_bytes.set(self.request.received_bytes.get() + piece.len() as u64);
                    if total > limits.body_bytes_max.0 {
                        self.worker.count_limit(Limit::BodyBytes);
                        fault.set(Some(Refusal::BodyTooLarge(limits.body_bytes_max.0)));
                        Err(std::io::ErrorKind::FileTooLarge.into())
                    } else {
                        Ok(BodyPart::Data(piece))
                    }
                }
                Some(None) => {
                    watch.set(self.worker.tick_after(limits.body_stall_timeout));
                    match watch.within(content.trailers()).await {
                        Some(Ok(trailers)) => {
                            let trailers = trailers.map_or(Fields::new(), |lines| fields_of(&lines));
                            Ok(BodyPart::End(trailers))
                        }
                        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
                    }
                }
                Some(Some(Err(_))) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                None => {
                    self.worker.count_limit(Limit::BodyTime);
                    fault.set(Some(Refusal::BodyTimeout));
                    Err(std::io::ErrorKind::TimedOut.into())
                }
            };
            let length = match &part {
                Ok(BodyPart::Data(piece)) => piece.len(),
                _ => {
                    let _ = sender.send(part).await;
                    return;
                }
            };
            watch.clear();
            if sender.send(part).await.is_err() || content.flow_control().release_capacity(length).is_err() {
                return;
            }
        }
    }

    /// Sends an answer whose content is at hand.
    fn send_whole(&self, answer: Answer, body: Bytes, respond: &mut SendResponse<Bytes>) {
        let (head, head_bytes) = self.head(&answer);
        let (_, told) = answer.split();
        let body_bytes = body.len() as u64;
        let sent = match respond.send_response(head, body.is_empty()) {
            Ok(_) if body.is_empty() => Ok(()),
            Ok(mut stream) => stream.send_data(body, true),
            Err(error) => Err(error),
        };
        let why = if sent.is_ok() { told.note.why } else { Why::ClientGone };
        self.emit(&told, why, head_bytes, if sent.is_ok() { body_bytes } else { 0 });
    }

    /// Sends an answer piece by piece.
    async fn send(&self, answer: Answer, respond: &mut SendResponse<Bytes>) -> Result<(), Gone> {
        if let Some(body) = whole_body(&self.request, &answer) {
            self.send_whole(answer, body, respond);
            return Ok(());
        }
        let (head, head_bytes) = self.head(&answer);
        let promised = answer.length;
        let (body, mut told) = answer.split();
        let Ok(mut stream) = respond.send_response(head, false) else {
            self.emit(&told, Why::ClientGone, 0, 0);
            return Err(Gone);
        };
        let mut sender = Sender {
            worker: &self.worker,
            stream: &mut stream,
            watch: self.worker.watch(),
            sent: 0,
            promised,
        };
        let sent = sender.send_body(body).await;
        let body_bytes = sender.sent;
        let why = match sent {
            Ok(()) => told.note.why,
            Err(Unsent::Visitor) => {
                stream.send_reset(Reason::CANCEL);
                Why::ClientGone
            }
            Err(Unsent::Origin) => {
                // What the origin broke off has not been stored, whatever was meant to be, and must not look whole.
                told.note.stored = false;
                stream.send_reset(Reason::INTERNAL_ERROR);
                Why::OriginProtocol
            }
        };
        self.emit(&told, why, head_bytes, body_bytes);
        Ok(())
    }

    fn head(&self, answer: &Answer) -> (http::Response<()>, u64) {
        let mut out = self.worker.take_buffer();
        let head = deliver::response_head(&mut out, &self.worker, &self.request, answer);
        self.worker.return_buffer(out);
        head
    }

    fn emit(&self, told: &deliver::Told, why: Why, head_bytes: u64, body_bytes: u64) {
        let sent = Sent {
            head_bytes,
            body_bytes,
            received_bytes: self.request.received_bytes.get(),
            first_byte: self.request.started.elapsed(),
        };
        deliver::emit(&self.worker, &self.request, told, why, &sent);
    }
}

/// Passes an interim response on (RFC 9110 §15.2). What the library cannot send is left out: it is a hint.
fn send_interim(respond: &mut SendResponse<Bytes>, status: u16, fields: &Fields) {
    let mut response = http::Response::new(());
    let Ok(status) = StatusCode::from_u16(status) else { return };
    *response.status_mut() = status;
    *response.headers_mut() = header_map(fields);
    let _ = respond.send_informational(response);
}

/// Why an answer was not sent to its end.
enum Unsent {
    /// The visitor left or took too long.
    Visitor,
    /// The origin broke off, or gave another number of bytes than it promised.
    Origin,
}

/// Sends one body as DATA frames, as fast as the visitor's windows let it.
struct Sender<'a> {
    worker: &'a Worker,
    stream: &'a mut SendStream<Bytes>,
    watch: Rc<Watch>,
    sent: u64,
    promised: Option<u64>,
}

impl Sender<'_> {
    async fn send_body(&mut self, body: Body) -> Result<(), Unsent> {
        let mut pieces = Pieces::of(body);
        loop {
            match self.next(&mut pieces).await? {
                Some(Piece::Bytes(bytes)) => self.send_bytes(bytes).await?,
                Some(Piece::Pages(run, start, end)) => {
                    let mut at = start;
                    while at < end {
                        let room = self.room((end - at).min(SEND_BYTES as u64) as usize).await?;
                        let mut bytes = BytesMut::zeroed(room);
                        let read = run.read(at, &mut bytes).map_err(|_| Unsent::Origin)?;
                        bytes.truncate(read);
                        at += read as u64;
                        self.give(bytes.freeze())?;
                    }
                }
                None => break,
            }
        }
        let trailers = pieces.take_trailers();
        match self.promised {
            // Its last frame has ended the stream.
            Some(length) if length == self.sent && length > 0 => return Ok(()),
            Some(length) if length != self.sent => return Err(Unsent::Origin),
            _ => {}
        }
        let ended = match trailers.is_empty() {
            true => self.stream.send_data(Bytes::new(), true),
            false => self.stream.send_trailers(header_map(&trailers)),
        };
        ended.map_err(|_| Unsent::Visitor)
    }

    /// The next piece, unless the visitor leaves before it is there.
    async fn next(&mut self, pieces: &mut Pieces) -> Result<Option<Piece>, Unsent> {
        let mut next = pin!(pieces.next());
        poll_fn(|context| {
            if let Poll::Ready(piece) = next.as_mut().poll(context) {
                return Poll::Ready(piece.map_err(|_| Unsent::Origin));
            }
            self.stream.poll_reset(context).map(|_| Err(Unsent::Visitor))
        })
        .await
    }

    async fn send_bytes(&mut self, mut bytes: Bytes) -> Result<(), Unsent> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len().min(SEND_BYTES)).await?;
            self.give(bytes.split_to(room))?;
        }
        Ok(())
    }

    /// Waits until some of `wanted` bytes may be sent.
    async fn room(&mut self, wanted: usize) -> Result<usize, Unsent> {
        self.stream.reserve_capacity(wanted);
        if self.stream.capacity() == 0 {
            self.watch.set(self.worker.tick_after(self.worker.limits().write_stall_timeout));
        }
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                self.watch.clear();
                return Ok(capacity.min(wanted));
            }
            match self.watch.within(poll_fn(|context| self.stream.poll_capacity(context))).await {
                Some(Some(Ok(_))) => {}
                Some(_) => return Err(Unsent::Visitor),
                None => {
                    self.worker.count_limit(Limit::SendTime);
                    return Err(Unsent::Visitor);
                }
            }
        }
    }

    fn give(&mut self, bytes: Bytes) -> Result<(), Unsent> {
        self.sent += bytes.len() as u64;
        if self.promised.is_some_and(|promised| self.sent > promised) {
            return Err(Unsent::Origin);
        }
        let is_last = self.promised == Some(self.sent);
        self.stream.send_data(bytes, is_last).map_err(|_| Unsent::Visitor)
    }
}
