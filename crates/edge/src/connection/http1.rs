//! A visitor's HTTP/1.1 connection: read a head, let the flow answer, write the answer, again. It owns the stream, the
//! buffers and the deadlines; it decides nothing about caching.
//!
//! An idle connection holds no buffer, and one whose answer comes piece by piece neither. A hit is written without a timer, a
//! task or a copy of the body: head and body go out in one vectored write, and only a socket that does not take it all arms
//! the stall deadline.
//!
//! ```text
//! idle ─► head ─► flow ─┬─► answer at once ─────────────► write ─► idle
//!                       └─► wait (boxed): pump the body ─► write ─► idle or close
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use model::settings::Limits;
use semantics::{Fields, Why};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::answer::{Answer, Body};
use crate::deliver::{self, Sent};
use crate::flow::{Begun, Flow};
use crate::h1::body::{BodyDecoder, Decoded, Framing};
use crate::h1::{self, HeadScan, Scanned};
use crate::origin::{BodyPart, RequestBody, Tunnel};
use crate::pieces::Pieces;
use crate::refusal::Refusal;
use crate::request::{Method, Protocol, Request};
use crate::worker::Worker;

use super::exchange::{Ended, Exchange, Fault, Incoming, passing_on, too_long, why_ended};
use super::halves::{Reader, Trailers, Unwritten, Writer};
use super::stream::{Io, Stream};
use super::{Gone, TUNNEL_IDLE, Visitor};

/// Most empty lines before a request line.
const EMPTY_LINES_MAX: usize = 8;

/// Largest piece of a request body.
const UPLOAD_PIECE_BYTES: usize = 16 * 1024;

/// After a refusal or an early answer: how much of what the visitor still sends is read and dropped, so that the answer
/// is not lost to a reset (RFC 9112 §9.6), and for how long.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// Serves one connection until either side has had enough. `first` has been read from it already.
pub(super) async fn serve(worker: Rc<Worker>, io: Io, visitor: Visitor, first: Vec<u8>) {
    let (watch, stall) = (worker.watch(), worker.watch());
    let stream = Stream::new(io);
    let mut connection = Connection {
        reader: Reader { stream: &stream, buffer: first, watch },
        writer: Writer { stream: &stream, watch: stall, sent: 0 },
        visitor,
        has_lingered: false,
        worker,
    };
    let ended = connection.run().await;
    if ended.is_ok() && !connection.has_lingered {
        connection.say_goodbye().await;
    }
}

struct Connection<'a> {
    worker: Rc<Worker>,
    /// Our side has ended, and what still came was dropped.
    has_lingered: bool,
    reader: Reader<'a>,
    writer: Writer<'a>,
    visitor: Visitor,
}

/// Whether the connection lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    KeepAlive,
    Close,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<(), Gone> {
        let limits = self.worker.limits();
        let mut served = 0;
        loop {
            if self.reader.buffer.is_empty() {
                self.worker.return_buffer(std::mem::take(&mut self.reader.buffer));
                self.wait_for_request(&limits).await?;
            }
            let Some(end) = self.read_head(&limits).await? else { return Ok(()) };
            served += 1;
            let last = served >= limits.requests_per_connection_max;
            if last {
                self.worker.count_limit(observe::Limit::RequestsPerConnection);
            }
            if self.serve_request(end, last).await? == After::Close {
                if self.reader.has_unread() {
                    self.linger().await;
                }
                return Ok(());
            }
        }
    }

    /// Waits, without a buffer, until there is something to read.
    async fn wait_for_request(&mut self, limits: &Limits) -> Result<(), Gone> {
        self.reader.watch.set_idle(self.worker.tick_after(limits.idle_timeout));
        let (reader, worker) = (&mut self.reader, &self.worker);
        let ready = poll_fn(|context| {
            if reader.watch.is_expired() {
                worker.count_limit(observe::Limit::IdleTime);
                return Poll::Ready(Err(Gone));
            }
            if let Poll::Ready(ready) = reader.stream.poll_readable(context) {
                return Poll::Ready(ready.map_err(Gone::from));
            }
            reader.watch.register(context);
            Poll::Pending
        });
        ready.await
    }

    /// Reads until a head is complete; its length, or `None` after a refusal or a clean end.
    async fn read_head(&mut self, limits: &Limits) -> Result<Option<usize>, Gone> {
        if self.reader.buffer.capacity() == 0 {
            self.reader.buffer = self.worker.take_buffer();
        }
        let mut scan = HeadScan::default();
        let mut first = true;
        let mut empty_lines = 0;
        loop {
            while empty_lines <= EMPTY_LINES_MAX && self.reader.buffer.starts_with(b"\r\n") {
                // RFC 9112 §2.2: at least one empty line before the request line is to be ignored.
                self.reader.buffer.drain(..2);
                scan = HeadScan::default();
                empty_lines += 1;
            }
            if empty_lines > EMPTY_LINES_MAX {
                return self.refuse(Refusal::Syntax("the request begins with too many empty lines")).await;
            }
            match scan.scan(&self.reader.buffer) {
                Scanned::Head { end } if end as u64 > limits.header_bytes_max.0 => {
                    return self.refuse(Refusal::HeadTooLarge(limits.header_bytes_max.0)).await;
                }
                Scanned::Head { end } => return Ok(Some(end)),
                Scanned::Bad(bad) => return self.refuse(Refusal::Syntax(bad.sentence())).await,
                Scanned::More if self.reader.buffer.len() as u64 > limits.header_bytes_max.0 => {
                    let refusal = match memchr::memchr(b'\n', &self.reader.buffer) {
                        Some(_) => Refusal::HeadTooLarge(limits.header_bytes_max.0),
                        None => Refusal::TargetTooLong(limits.request_line_max.0),
                    };
                    return self.refuse(refusal).await;
                }
                Scanned::More => {}
            }
            if std::mem::take(&mut first) {
                self.reader.watch.set(self.worker.tick_after(limits.header_timeout));
            }
            match self.reader.read().await {
                Ok(0) if self.reader.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(Gone),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    self.worker.count_limit(observe::Limit::HeadTime);
                    if self.reader.buffer.is_empty() {
                        return Err(Gone);
                    }
                    return self.refuse(Refusal::HeadTimeout).await;
                }
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Serves the request whose head is the first `end` bytes of the buffer.
    async fn serve_request(&mut self, end: usize, last: bool) -> Result<After, Gone> {
        let started = Instant::now();
        let parsed = match h1::parse_head(&self.reader.buffer[..end]) {
            Ok(head) => {
                let is_early = self.reader.stream.is_early();
                crate::intake::request(&self.worker, head, &self.visitor, is_early, end as u64, started)
            }
            Err(bad) => Err(Refusal::of_head(bad)),
        };
        self.reader.buffer.drain(..end);
        let crate::intake::Intake { request, framing, keep_alive } = match parsed {
            Ok(intake) => intake,
            Err(refusal) => {
                self.refuse(refusal).await?;
                return Ok(After::Close);
            }
        };
        let after = if keep_alive && !last { After::KeepAlive } else { After::Close };
        let request = Rc::new(request);
        if framing == Framing::None {
            if self.reader.buffer.is_empty() {
                // Nobody reads while the answer is sent, which may take long.
                self.worker.return_buffer(std::mem::take(&mut self.reader.buffer));
            }
            return match Flow::begin(&self.worker, &request) {
                Begun::Answer(answer) => self.respond(&request, answer, after).await,
                Begun::Waiting(flow) if request.wants_websocket && flow.is_upgrade() => {
                    self.reader.watch.clear();
                    Box::pin(self.upgrade(&request, flow, after)).await
                }
                Begun::Waiting(flow) => {
                    self.reader.watch.clear();
                    let exchange = Exchange::new(self.worker.clone(), request);
                    Box::pin(answer_later(&mut self.writer, &exchange, flow, RequestBody::Empty, after)).await
                }
            };
        }
        Box::pin(self.respond_with_upload(&request, framing, after)).await
    }

    /// Hands the connection to the origin, if that agrees to change the protocol; else answers with what it said.
    async fn upgrade(&mut self, request: &Rc<Request>, flow: Box<Flow>, after: After) -> Result<After, Gone> {
        let mut answer = flow.finish(RequestBody::Empty).await;
        let tunnel = match std::mem::replace(&mut answer.body, Body::Empty) {
            Body::Tunnel(tunnel) => tunnel,
            body => {
                answer.body = body;
                return self.respond(request, answer, after).await;
            }
        };
        let mut out = self.worker.take_buffer();
        deliver::write_head(&mut out, &self.worker, request, &answer, false);
        let head_bytes = out.len() as u64;
        self.writer.sent = 0;
        let first_byte = request.started.elapsed();
        let written = self.writer.write(&self.worker, &out, &[]).await;
        self.worker.return_buffer(out);
        let (_, told) = answer.split();
        let ended = match written {
            Ok(()) => self.join(*tunnel, request).await,
            Err(_) => Some(Err(Fault::Visitor)),
        };
        let head_bytes = head_bytes.min(self.writer.sent);
        let sent = Sent {
            head_bytes,
            body_bytes: self.writer.sent - head_bytes,
            received_bytes: request.received_bytes.get(),
            first_byte,
        };
        deliver::emit(&self.worker, request, &told, why_ended(&self.worker, &told, ended.as_ref()), &sent);
        match ended {
            Some(Ok(())) => Ok(After::Close),
            _ => Err(Gone),
        }
    }

    /// Carries bytes between visitor and origin until either ends; `None` when neither has said anything for [`TUNNEL_IDLE`].
    async fn join(&mut self, tunnel: Tunnel, request: &Request) -> Option<Result<(), Fault>> {
        let (mut from_origin, mut to_origin) = tokio::io::split(tunnel.io);
        let (reader, writer, worker) = (&mut self.reader, &mut self.writer, &*self.worker);
        let watch = worker.watch();
        let stir = || watch.set(worker.tick_after(TUNNEL_IDLE));
        stir();
        let up = async {
            loop {
                if !reader.buffer.is_empty() {
                    let length = reader.buffer.len() as u64;
                    request.received_bytes.set(request.received_bytes.get() + length);
                    to_origin.write_all(&reader.buffer).await.map_err(|_| Fault::Tunnel)?;
                    to_origin.flush().await.map_err(|_| Fault::Tunnel)?;
                    reader.buffer.clear();
                }
                if reader.read().await.map_err(|_| Fault::Visitor)? == 0 {
                    return Ok(());
                }
                stir();
            }
        };
        let down = async {
            let mut buffer = vec![0; UPLOAD_PIECE_BYTES];
            loop {
                let count = from_origin.read(&mut buffer).await.map_err(|_| Fault::Tunnel)?;
                if count == 0 {
                    return Ok(());
                }
                stir();
                writer.write(worker, &buffer[..count], &[]).await.map_err(|_| Fault::Visitor)?;
            }
        };
        let ended = async {
            // Either side's end is the end of both: protocols that are tunnelled say goodbye in their own words before.
            tokio::select! {
                biased;
                ended = down => ended,
                ended = up => ended,
            }
        };
        watch.within(pin!(ended)).await
    }

    /// Pumps the request's body to the flow while it works, and answers.
    async fn respond_with_upload(
        &mut self,
        request: &Rc<Request>,
        framing: Framing,
        after: After,
    ) -> Result<After, Gone> {
        let begun = match too_long(&self.worker, request, framing) {
            Some(answer) => Begun::Answer(answer),
            None => Flow::begin(&self.worker, request),
        };
        let flow = match begun {
            Begun::Waiting(flow) => flow,
            Begun::Answer(answer) => {
                // Answered without looking at the body: it is not read, so the connection cannot go on.
                self.respond(request, answer, After::Close).await?;
                self.linger().await;
                return Ok(After::Close);
            }
        };
        if request.expects_continue
            && request.protocol == Protocol::Http11
            && self.writer.write(&self.worker, b"HTTP/1.1 100 Continue\r\n\r\n", &[]).await.is_err()
        {
            deliver::emit_gone(&self.worker, request, flow.at());
            return Err(Gone);
        }
        self.reader.watch.clear();
        let exchange = Exchange::new(self.worker.clone(), request.clone());
        let mut content = Content { reader: &mut self.reader, decoder: BodyDecoder::new(framing) };
        let (sender, body) = passing_on(framing);
        let after = {
            let mut uploading = pin!(exchange.upload(&mut content, sender));
            let mut answering = pin!(answer_later(&mut self.writer, &exchange, flow, body, after));
            let mut is_uploading = true;
            let answered = poll_fn(|context| {
                is_uploading = is_uploading && uploading.as_mut().poll(context).is_pending();
                answering.as_mut().poll(context)
            });
            answered.await?
        };
        if !content.decoder.is_done() {
            self.linger().await;
            return Ok(After::Close);
        }
        Ok(after)
    }

    /// Not async, as it would hold the answer once more.
    fn respond(
        &mut self,
        request: &Request,
        answer: Answer,
        after: After,
    ) -> impl Future<Output = Result<After, Gone>> {
        respond(&mut self.writer, &self.worker, request, answer, after, None)
    }

    /// Answers a request that is refused before any flow, and closes.
    async fn refuse(&mut self, refusal: Refusal) -> Result<Option<usize>, Gone> {
        let request = crate::intake::unreadable(&self.worker, &self.visitor);
        let answer = refusal.answer(&request);
        if let Some(limit) = refusal.limit() {
            self.worker.count_limit(limit);
        }
        self.reader.watch.clear();
        Box::pin(self.respond(&request, answer, After::Close)).await?;
        self.linger().await;
        Ok(None)
    }

    /// Ends our side, by TLS's own word where that is spoken: without it, an answer that ends with the connection could be one
    /// that was cut short (RFC 8446 §6.1).
    async fn say_goodbye(&mut self) {
        let watch = self.writer.watch.clone();
        watch.set(self.worker.tick_after(LINGER));
        let _ = watch.within(pin!(self.writer.shutdown())).await;
    }

    /// Ends our side and drops what still comes, within bounds, so that the visitor gets to read our last words.
    async fn linger(&mut self) {
        if std::mem::replace(&mut self.has_lingered, true) {
            return;
        }
        self.say_goodbye().await;
        self.reader.watch.set(self.worker.tick_after(LINGER));
        let mut dropped = 0;
        while dropped < LINGER_BYTES {
            self.reader.buffer.clear();
            match self.reader.read().await {
                Ok(0) | Err(_) => return,
                Ok(count) => dropped += count,
            }
        }
    }
}

/// Waits for the flow's answer and writes it.
async fn answer_later(
    writer: &mut Writer<'_>,
    exchange: &Exchange,
    flow: Box<Flow>,
    body: RequestBody,
    after: After,
) -> Result<After, Gone> {
    let Exchange { worker, request, .. } = exchange;
    let answer = wait(writer, worker, request, flow, body).await?;
    exchange.is_answered.set(true);
    let (answer, after) = match exchange.broken_upload(&answer) {
        Some(refusal) => (Answer { rule: answer.rule, ..refusal.answer(request) }, After::Close),
        None => (answer, after),
    };
    respond(writer, worker, request, answer, after, Some(&exchange.fault)).await
}

/// Waits for the flow's answer, passing interim responses on. Who leaves meanwhile is told of here.
async fn wait(
    writer: &mut Writer<'_>,
    worker: &Worker,
    request: &Rc<Request>,
    flow: Box<Flow>,
    body: RequestBody,
) -> Result<Answer, Gone> {
    let (interim, at) = (flow.interim(), flow.at());
    let mut answering = pin!(flow.finish(body));
    loop {
        let next = poll_fn(|context| match answering.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => interim.poll_some(context).map(|()| None),
        });
        let next = next.await;
        let responses = interim.take();
        if request.protocol == Protocol::Http11 && writer.write_interim(worker, responses).await.is_err() {
            deliver::emit_gone(worker, request, at);
            return Err(Gone);
        }
        if let Some(answer) = next {
            return Ok(answer);
        }
    }
}

/// The content of a request, out of the connection's buffer.
struct Content<'a, 'b> {
    reader: &'a mut Reader<'b>,
    decoder: BodyDecoder,
}

impl Incoming for &mut Content<'_, '_> {
    async fn part(&mut self) -> Result<BodyPart, Ended> {
        loop {
            match self.decoder.decode(&mut self.reader.buffer, UPLOAD_PIECE_BYTES) {
                Ok(Decoded::End) => return Ok(BodyPart::End(Fields::new())),
                Ok(Decoded::Data(piece)) => return Ok(BodyPart::Data(piece)),
                Ok(Decoded::More) => {}
                Err(bad) => return Err(Ended::Bad(Refusal::Syntax(bad.0))),
            }
            match self.reader.read().await {
                Ok(count) if count > 0 => {}
                _ => return Err(Ended::Gone),
            }
        }
    }

    /// No more is read than there is room for: TCP holds the visitor back.
    fn passed_on(&mut self, _: usize) {}
}

/// Writes an answer and tells the observer. `fault`: what turns out to be wrong with the request's content meanwhile.
async fn respond(
    writer: &mut Writer<'_>,
    worker: &Worker,
    request: &Request,
    answer: Answer,
    after: After,
    fault: Option<&Cell<Option<Refusal>>>,
) -> Result<After, Gone> {
    let mut out = worker.take_buffer();
    // A node that stops says so with each answer, also to requests that came before.
    let after = if worker.is_draining() && answer.status != 101 { After::Close } else { after };
    let framing = deliver::write_head(&mut out, worker, request, &answer, after == After::Close);
    let head_bytes = out.len() as u64;
    writer.sent = 0;
    let first_byte = request.started.elapsed();
    let written = match &answer.body {
        _ if framing == deliver::Framing::NoBody => writer.write(worker, &out, &[]).await,
        Body::Empty => writer.write(worker, &out, &[]).await,
        Body::Bytes(bytes) => writer.write(worker, &out, &[bytes]).await,
        Body::Stored(stored, start, end) => writer.write_stored(worker, &out, stored, *start, *end).await,
        _ => Ok(()),
    };
    let promised = answer.length.filter(|_| framing == deliver::Framing::Length);
    let (body, mut told) = answer.split();
    let streams = matches!(body, Body::Fill(..) | Body::Origin(_) | Body::Multipart(..) | Body::Sliced(_));
    let mut pieces = Pieces::of(body);
    let written = match written {
        Ok(()) if streams && framing != deliver::Framing::NoBody => {
            let trailers = if request.takes_trailers { Trailers::Wanted } else { Trailers::Dropped };
            let chunked = (framing == deliver::Framing::Chunked).then_some(trailers);
            Box::pin(writer.write_streamed(worker, &mut out, &mut pieces, chunked)).await
        }
        written => written,
    };
    worker.return_buffer(out);
    told.note.take_back(pieces.joined());
    // The last guard of what was promised: whatever went wrong below, a short body never ends cleanly.
    let written = match (written, promised) {
        (Ok(()), Some(length)) if writer.sent != head_bytes + length => {
            Err(Unwritten::Origin(Why::OriginProtocol))
        }
        (written, _) => written,
    };
    // What the origin broke off has not been stored, whatever was meant to be.
    told.note.stored &= !matches!(written, Err(Unwritten::Origin(_)));
    let why = match &written {
        Ok(()) => told.note.why,
        Err(Unwritten::Visitor) => Why::ClientGone,
        // The origin broke off because its request did.
        Err(Unwritten::Origin(_)) if fault.is_some_and(|fault| fault.take().is_some()) => Why::ClientGone,
        Err(Unwritten::Origin(why)) => *why,
    };
    let head_bytes = head_bytes.min(writer.sent);
    let sent = Sent {
        head_bytes,
        body_bytes: writer.sent - head_bytes,
        received_bytes: request.received_bytes.get(),
        first_byte,
    };
    deliver::emit(worker, request, &told, why, &sent);
    match written {
        Ok(()) if framing == deliver::Framing::Close => Ok(After::Close),
        Ok(()) if request.method == Method::Connect => Ok(After::Close),
        Ok(()) => Ok(after),
        Err(Unwritten::Visitor) => Err(Gone),
        Err(Unwritten::Origin(_)) => {
            // The visitor must not take what came for the whole: a reset says so even where the body ends with the
            // connection.
            writer.reset();
            Err(Gone)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes;

    #[test]
    fn who_waits_for_an_answer_takes_little_room() {
        let bytes = sizes::of(|(writer, exchange, flow, body, after)| {
            answer_later(writer, exchange, flow, body, after)
        });
        sizes::check("what each request of HTTP/1.1 waits in", bytes, 3_248);
    }
}
