//! One visitor's HTTP/1.1 connection: read a head, let the flow answer, write the answer, again. It owns the socket,
//! the buffers and the deadlines; it decides nothing about caching.
//!
//! An idle connection holds no buffer. A hit is written without a timer, a task or a copy of the body: head and body
//! go out in one vectored write, and only a socket that does not take it all arms the stall deadline.
//!
//! ```text
//! idle ─► head ─► flow ─┬─► answer at once ─────────────► write ─► idle
//!                       └─► wait (boxed): pump the body ─► write ─► idle or close
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use model::settings::Limits;
use rustix::net::{SendFlags, send};
use semantics::{Fields, Why};
use store::Run;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::answer::{Answer, Body};
use crate::deliver::{self, Sent};
use crate::flow::{Begun, Flow};
use crate::h1::body::{BodyDecoder, Decoded, Framing};
use crate::h1::{self, HeadScan, Scanned};
use crate::origin::{BodyPart, RequestBody};
use crate::refusal::Refusal;
use crate::request::{Method, Protocol, Request};
use crate::worker::{Watch, Worker};
use crate::{forwarded, proxy_protocol};

/// Pieces of a request body that may wait between visitor and origin.
const UPLOAD_PIECES: usize = 4;

/// Most empty lines before a request line.
const EMPTY_LINES_MAX: usize = 8;

/// Largest piece of a request body.
const UPLOAD_PIECE_BYTES: usize = 16 * 1024;

/// Most slices of a stored body that one write names.
const WRITE_SLICES: usize = 16;

/// How long an upgraded connection may be silent in both directions.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

/// After a refusal or an early answer: how much of what the visitor still sends is read and dropped, so that the answer
/// is not lost to a reset (RFC 9112 §9.6), and for how long.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// Serves one connection until either side has had enough.
pub(crate) async fn serve(worker: Rc<Worker>, mut stream: TcpStream, peer: SocketAddr) {
    let (watch, stall) = (worker.watch(), worker.watch());
    let (read, write) = stream.split();
    let mut connection = Connection {
        reader: Reader { half: read, buffer: Vec::new(), watch },
        writer: Writer { half: write, watch: stall, sent: 0 },
        visitor: Visitor { client: peer.ip(), peer: peer.ip(), secure: false },
        worker,
    };
    let _ = connection.run().await;
}

struct Connection<'a> {
    worker: Rc<Worker>,
    reader: Reader<'a>,
    writer: Writer<'a>,
    visitor: Visitor,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor {
    /// The visitor's address, by PROXY protocol if it is on.
    pub(crate) client: IpAddr,
    /// The socket's peer.
    pub(crate) peer: IpAddr,
    pub(crate) secure: bool,
}

/// Whether the connection lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    KeepAlive,
    Close,
}

/// The visitor is gone, too slow, or the answer could not be completed: close without another word.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Gone
    }
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<(), Gone> {
        let limits = self.worker.limits();
        if self.worker.loaded().snapshot.edge.proxy_protocol {
            self.read_proxy_header(&limits).await?;
        }
        let mut served = 0;
        loop {
            if self.reader.buffer.is_empty() {
                self.worker.return_buffer(std::mem::take(&mut self.reader.buffer));
                self.wait_for_request(&limits).await?;
            }
            let Some(end) = self.read_head(&limits).await? else { return Ok(()) };
            served += 1;
            let last = served >= limits.requests_per_connection_max;
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
        let reader = &mut self.reader;
        let ready = poll_fn(|context| {
            if reader.watch.is_expired() {
                return Poll::Ready(Err(Gone));
            }
            if let Poll::Ready(ready) = reader.half.as_ref().poll_read_ready(context) {
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
            while self.reader.buffer.starts_with(b"\r\n") {
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
            Ok(head) => crate::intake::request(&self.worker, head, &self.visitor, end as u64, started),
            Err(bad) => Err(Refusal::of_head(bad)),
        };
        self.reader.buffer.drain(..end);
        let crate::intake::Intake { request, framing, keep_alive, expects_continue } = match parsed {
            Ok(intake) => intake,
            Err(refusal) => {
                self.refuse(refusal).await?;
                return Ok(After::Close);
            }
        };
        let after = if keep_alive && !last { After::KeepAlive } else { After::Close };
        let request = Rc::new(request);
        if framing == Framing::None {
            return match Flow::begin(&self.worker, &request) {
                Begun::Answer(answer) => self.respond(&request, answer, after).await,
                Begun::Waiting(flow) if request.wants_websocket && flow.is_upgrade() => {
                    self.reader.watch.clear();
                    Box::pin(self.upgrade(&request, flow, after)).await
                }
                Begun::Waiting(flow) => {
                    self.reader.watch.clear();
                    let (writer, worker) = (&mut self.writer, &*self.worker);
                    let fault = Cell::new(None);
                    Box::pin(answer_later(writer, worker, &request, flow, RequestBody::Empty, &fault, after))
                        .await
                }
            };
        }
        Box::pin(self.respond_with_upload(&request, framing, expects_continue, after)).await
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
        self.respond(request, answer, After::KeepAlive).await?;
        let (mut from_origin, mut to_origin) = tokio::io::split(tunnel.io);
        let (reader, writer, worker) = (&mut self.reader, &mut self.writer, &*self.worker);
        let watch = reader.watch.clone();
        let up = async {
            loop {
                if !reader.buffer.is_empty() {
                    to_origin.write_all(&reader.buffer).await?;
                    reader.buffer.clear();
                }
                watch.set(worker.tick_after(TUNNEL_IDLE));
                if reader.read().await? == 0 {
                    return Ok::<_, Gone>(());
                }
            }
        };
        let down = async {
            let mut buffer = vec![0; UPLOAD_PIECE_BYTES];
            loop {
                let count = from_origin.read(&mut buffer).await?;
                if count == 0 {
                    return Ok::<_, Gone>(());
                }
                writer.write(worker, &buffer[..count], &[]).await?;
                watch.set(worker.tick_after(TUNNEL_IDLE));
            }
        };
        // Either side's end is the end of both: protocols that are tunnelled say goodbye in their own words before.
        tokio::select! {
            biased;
            ended = down => ended?,
            ended = up => ended?,
        }
        Ok(After::Close)
    }

    /// Pumps the request's body to the flow while it works, and answers.
    async fn respond_with_upload(
        &mut self,
        request: &Rc<Request>,
        framing: Framing,
        expects_continue: bool,
        after: After,
    ) -> Result<After, Gone> {
        let limits = self.worker.limits();
        let length = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::None => None,
        };
        if length.is_some_and(|length| length > limits.body_bytes_max.0) {
            self.refuse(Refusal::BodyTooLarge(limits.body_bytes_max.0)).await?;
            return Ok(After::Close);
        }
        let flow = match Flow::begin(&self.worker, request) {
            Begun::Waiting(flow) => flow,
            Begun::Answer(answer) => {
                // Answered without looking at the body: it is not read, so the connection cannot go on.
                self.respond(request, answer, After::Close).await?;
                self.linger().await;
                return Ok(After::Close);
            }
        };
        if expects_continue && request.protocol == Protocol::Http11 {
            self.writer.write(&self.worker, b"HTTP/1.1 100 Continue\r\n\r\n", &[]).await?;
        }
        let fault = Cell::new(None);
        let (sender, parts) = mpsc::channel(UPLOAD_PIECES);
        let (reader, writer, worker) = (&mut self.reader, &mut self.writer, &*self.worker);
        let uploaded = {
            let mut uploading = pin!(upload(reader, framing, sender, worker, request, &fault));
            let body = RequestBody::Stream { parts, length };
            let mut answering = pin!(answer_later(writer, worker, request, flow, body, &fault, after));
            let mut uploaded = None;
            let answered = poll_fn(|context| {
                if uploaded.is_none()
                    && let Poll::Ready(result) = uploading.as_mut().poll(context)
                {
                    uploaded = Some(result);
                }
                answering.as_mut().poll(context)
            });
            (answered.await?, uploaded)
        };
        match uploaded {
            (after, Some(Ok(()))) => Ok(after),
            _ => {
                self.linger().await;
                Ok(After::Close)
            }
        }
    }

    async fn respond(&mut self, request: &Request, answer: Answer, after: After) -> Result<After, Gone> {
        respond(&mut self.writer, &self.worker, request, answer, after).await
    }

    /// Answers a request that is refused before any flow, and closes.
    async fn refuse(&mut self, refusal: Refusal) -> Result<Option<usize>, Gone> {
        let request = crate::intake::unreadable(&self.worker, self.visitor.client);
        let answer = refusal.answer(&request);
        if let Some(limit) = refusal.limit() {
            self.worker.count_limit(limit);
        }
        self.reader.watch.clear();
        Box::pin(self.respond(&request, answer, After::Close)).await?;
        self.linger().await;
        Ok(None)
    }

    /// Ends our side and drops what still comes, within bounds, so that the visitor gets to read our last words.
    async fn linger(&mut self) {
        let _ = self.writer.shutdown().await;
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

    async fn read_proxy_header(&mut self, limits: &Limits) -> Result<(), Gone> {
        self.reader.watch.set(self.worker.tick_after(limits.header_timeout));
        self.reader.buffer = self.worker.take_buffer();
        loop {
            match proxy_protocol::parse(&self.reader.buffer) {
                Ok(proxy_protocol::Parsed::Header { length, client }) => {
                    self.reader.buffer.drain(..length);
                    if let Some(client) = client
                        && forwarded::is_trusted(
                            &self.worker.loaded().snapshot.edge.trusted_proxies,
                            self.visitor.peer,
                        )
                    {
                        self.visitor.client = client;
                    }
                    return Ok(());
                }
                Ok(proxy_protocol::Parsed::More) => {}
                Err(proxy_protocol::BadHeader) => {
                    return Err(Gone);
                }
            }
            if self.reader.read().await? == 0 {
                return Err(Gone);
            }
        }
    }
}

/// Waits for the flow's answer, passing interim responses on, and writes it.
async fn answer_later(
    writer: &mut Writer<'_>,
    worker: &Worker,
    request: &Rc<Request>,
    flow: Box<Flow>,
    body: RequestBody,
    fault: &Cell<Option<Refusal>>,
    after: After,
) -> Result<After, Gone> {
    let interim = flow.interim();
    let mut answering = pin!(flow.finish(body));
    loop {
        let next = poll_fn(|context| match answering.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => interim.poll_some(context).map(|()| None),
        });
        let next = next.await;
        let responses = interim.take();
        if request.protocol == Protocol::Http11 {
            writer.write_interim(worker, responses).await?;
        }
        if let Some(answer) = next {
            // An upload that broke off is the visitor's fault, whatever the origin made of it.
            if let (Why::ClientGone, Some(refusal)) = (answer.note.why, fault.take()) {
                return respond(writer, worker, request, refusal.answer(request), After::Close).await;
            }
            return respond(writer, worker, request, answer, after).await;
        }
    }
}

/// Reads the body and passes it on; ends when it is complete, refused, or nobody wants it any more.
async fn upload(
    reader: &mut Reader<'_>,
    framing: Framing,
    sender: mpsc::Sender<io::Result<BodyPart>>,
    worker: &Worker,
    request: &Request,
    fault: &Cell<Option<Refusal>>,
) -> Result<(), Gone> {
    let limits = worker.limits();
    let body_bytes_max = limits.body_bytes_max.0;
    let mut decoder = BodyDecoder::new(framing);
    let mut total = 0;
    loop {
        match decoder.decode(&mut reader.buffer, UPLOAD_PIECE_BYTES) {
            Ok(Decoded::End) => {
                reader.watch.clear();
                let _ = sender.send(Ok(BodyPart::End(Fields::new()))).await;
                return Ok(());
            }
            Ok(Decoded::Data(piece)) => {
                total += piece.len() as u64;
                request.received_bytes.set(request.received_bytes.get() + piece.len() as u64);
                if total > body_bytes_max {
                    worker.count_limit(observe::Limit::BodyBytes);
                    fault.set(Some(Refusal::BodyTooLarge(body_bytes_max)));
                    let _ = sender.send(Err(io::ErrorKind::FileTooLarge.into())).await;
                    return Err(Gone);
                }
                reader.watch.clear();
                if sender.send(Ok(BodyPart::Data(piece))).await.is_err() {
                    return if decoder.is_done() { Ok(()) } else { Err(Gone) };
                }
                continue;
            }
            Ok(Decoded::More) => {}
            Err(bad) => {
                fault.set(Some(Refusal::Syntax(bad.0)));
                let _ = sender.send(Err(io::Error::new(io::ErrorKind::InvalidData, bad.0))).await;
                return Err(Gone);
            }
        }
        reader.watch.set(worker.tick_after(limits.body_stall_timeout));
        match reader.read().await {
            Ok(count) if count > 0 => {}
            ended => {
                if ended.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                    worker.count_limit(observe::Limit::BodyTime);
                    fault.set(Some(Refusal::BodyTimeout));
                }
                let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
                return Err(Gone);
            }
        }
    }
}

/// Writes an answer and tells the observer.
async fn respond(
    writer: &mut Writer<'_>,
    worker: &Worker,
    request: &Request,
    answer: Answer,
    after: After,
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
    let (body, told) = answer.split();
    let streams = matches!(body, Body::Fill(..) | Body::Origin(_) | Body::Multipart(..));
    let written = match written {
        Ok(()) if streams && framing != deliver::Framing::NoBody => {
            let chunked = framing == deliver::Framing::Chunked;
            Box::pin(writer.write_streamed(worker, &mut out, body, chunked)).await
        }
        written => written,
    };
    worker.return_buffer(out);
    // The last guard of what was promised: whatever went wrong below, a short body never ends cleanly.
    let written = match (written, promised) {
        (Ok(()), Some(length)) if writer.sent != head_bytes + length => Err(Unwritten::Origin),
        (written, _) => written,
    };
    let why = match &written {
        Ok(()) => told.note.why,
        Err(Unwritten::Visitor) => Why::ClientGone,
        Err(Unwritten::Origin) => Why::OriginProtocol,
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
        Err(Unwritten::Origin) => {
            // The visitor must not take what came for the whole: a reset says so even where the body ends with the
            // connection.
            writer.reset();
            Err(Gone)
        }
    }
}

/// Why an answer was not written to its end.
enum Unwritten {
    /// The visitor left or took too long.
    Visitor,
    /// The origin broke off.
    Origin,
}

struct Reader<'a> {
    half: ReadHalf<'a>,
    buffer: Vec<u8>,
    watch: Rc<Watch>,
}

impl Reader<'_> {
    /// Whether the visitor has sent more than was read: closing now would reset what it has yet to receive.
    fn has_unread(&self) -> bool {
        !self.buffer.is_empty() || matches!(self.half.try_read(&mut [0]), Ok(1))
    }

    /// Reads what there is behind what the buffer holds; 0 at the end. `TimedOut` when the watch expires.
    async fn read(&mut self) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < 1024 {
            self.buffer.reserve(16 * 1024);
        }
        poll_fn(|context| {
            if self.watch.is_expired() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let read = pin!(self.half.read_buf(&mut self.buffer)).poll(context);
            if read.is_pending() {
                self.watch.register(context);
            }
            read
        })
        .await
    }
}

struct Writer<'a> {
    half: WriteHalf<'a>,
    watch: Rc<Watch>,
    /// Bytes of the current answer that the socket has taken.
    sent: u64,
}

impl Writer<'_> {
    async fn write_interim(&mut self, worker: &Worker, responses: Vec<(u16, Fields)>) -> Result<(), Gone> {
        for (status, fields) in responses {
            let mut out = worker.take_buffer();
            h1::write_status_line(&mut out, status);
            out.extend_from_slice(fields.as_block());
            out.extend_from_slice(b"\r\n");
            let written = self.write(worker, &out, &[]).await;
            worker.return_buffer(out);
            written.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Writes `first` and then `rest`, all of it.
    async fn write(&mut self, worker: &Worker, first: &[u8], rest: &[&[u8]]) -> Result<(), Unwritten> {
        let total = first.len() + rest.iter().map(|slice| slice.len()).sum::<usize>();
        let mut done = 0;
        while done < total {
            let mut slices = [IoSlice::new(&[]); 4];
            let mut count = 0;
            let mut skip = done;
            for slice in std::iter::once(&first).chain(rest) {
                if skip >= slice.len() {
                    skip -= slice.len();
                    continue;
                }
                slices[count] = IoSlice::new(&slice[skip..]);
                skip = 0;
                count += 1;
            }
            done += self.write_some(worker, &slices[..count]).await?;
        }
        Ok(())
    }

    /// Writes `head` and bytes `start..end` of a stored body.
    async fn write_stored(
        &mut self,
        worker: &Worker,
        head: &[u8],
        stored: &crate::object::Stored,
        start: u64,
        end: u64,
    ) -> Result<(), Unwritten> {
        if let Some(run) = stored.pages() {
            return self.write_pages(worker, head, run, start, end).await;
        }
        let (mut head_done, mut offset) = (0, start);
        while head_done < head.len() || offset < end {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let mut count = 0;
            if head_done < head.len() {
                slices[0] = IoSlice::new(&head[head_done..]);
                count = 1;
            }
            let mut at = offset;
            while at < end && count < WRITE_SLICES {
                let slice = stored.body_at(at);
                let slice = &slice[..slice.len().min((end - at) as usize)];
                if slice.is_empty() {
                    return Err(Unwritten::Origin);
                }
                slices[count] = IoSlice::new(slice);
                at += slice.len() as u64;
                count += 1;
            }
            let written = self.write_some(worker, &slices[..count]).await?;
            let of_head = written.min(head.len() - head_done);
            head_done += of_head;
            offset += (written - of_head) as u64;
        }
        Ok(())
    }

    /// Writes `head` and then bytes `start..end` of a body that the kernel sends from where it lies.
    async fn write_pages(
        &mut self,
        worker: &Worker,
        head: &[u8],
        run: &Run,
        start: u64,
        end: u64,
    ) -> Result<(), Unwritten> {
        let mut head_done = 0;
        while head_done < head.len() {
            // MSG_MORE: the head waits for the body, so that both share packets.
            let more = if start < end { SendFlags::MORE } else { SendFlags::empty() };
            head_done += self.write_by(worker, |socket| Ok(send(socket, &head[head_done..], more)?)).await?;
        }
        let mut at = start;
        while at < end {
            at += self.write_by(worker, |socket| run.send(socket, at, end)).await? as u64;
        }
        Ok(())
    }

    /// Writes the head in `out` and then a body that comes piece by piece.
    async fn write_streamed(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        body: Body,
        chunked: bool,
    ) -> Result<(), Unwritten> {
        match body {
            Body::Multipart(stored, parts, closing) => {
                for part in parts {
                    out.extend_from_slice(&part.head);
                    self.write_stored(worker, out, &stored, part.start, part.end).await?;
                    out.clear();
                }
                self.write(worker, &closing, &[]).await
            }
            Body::Fill(mut reader, end) => {
                let mut left = end.map(|end| end.saturating_sub(reader.offset()));
                while left != Some(0) {
                    // The head goes out with the first piece, or alone if that is not there yet.
                    let next = self.next_piece(worker, out, reader.next()).await?;
                    let Some(mut piece) = next.map_err(|_| Unwritten::Origin)? else { break };
                    if let Some(left) = &mut left {
                        piece.truncate((*left).min(piece.len() as u64) as usize);
                        *left -= piece.len() as u64;
                    }
                    self.write_piece(worker, out, &piece, chunked).await?;
                }
                self.finish(worker, out, chunked).await
            }
            Body::Origin(mut body) => {
                loop {
                    let next = self.next_piece(worker, out, body.chunk()).await?;
                    match next {
                        Some(Ok(piece)) => self.write_piece(worker, out, &piece, chunked).await?,
                        Some(Err(_)) => return Err(Unwritten::Origin),
                        None => break,
                    }
                }
                self.finish(worker, out, chunked).await
            }
            Body::Empty | Body::Bytes(_) | Body::Stored(..) | Body::Tunnel(_) => Ok(()),
        }
    }

    /// Waits for a piece; if it takes a moment, what `out` holds is sent before.
    async fn next_piece<T>(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        next: impl Future<Output = T>,
    ) -> Result<T, Unwritten> {
        let mut next = pin!(next);
        let ready = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await;
        match ready {
            Poll::Ready(piece) => Ok(piece),
            Poll::Pending => {
                if !out.is_empty() {
                    self.write(worker, out, &[]).await?;
                    out.clear();
                }
                Ok(next.await)
            }
        }
    }

    async fn write_piece(
        &mut self,
        worker: &Worker,
        out: &mut Vec<u8>,
        piece: &[u8],
        chunked: bool,
    ) -> Result<(), Unwritten> {
        if piece.is_empty() {
            return Ok(());
        }
        let result = if chunked {
            h1::write_chunk_size(out, piece.len());
            self.write(worker, out, &[piece, b"\r\n"]).await
        } else {
            self.write(worker, out, &[piece]).await
        };
        out.clear();
        result
    }

    async fn finish(&mut self, worker: &Worker, out: &mut Vec<u8>, chunked: bool) -> Result<(), Unwritten> {
        if chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        let result = self.write(worker, out, &[]).await;
        out.clear();
        result
    }

    /// One vectored write of at least a byte.
    async fn write_some(&mut self, worker: &Worker, slices: &[IoSlice<'_>]) -> Result<usize, Unwritten> {
        self.wait_to_write(worker, |half, context| Pin::new(half).poll_write_vectored(context, slices)).await
    }

    /// One system call of ours that writes at least a byte.
    async fn write_by(
        &mut self,
        worker: &Worker,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Result<usize, Unwritten> {
        let attempt = |half: &mut WriteHalf<'_>, context: &mut Context<'_>| {
            let socket: &TcpStream = (*half).as_ref();
            loop {
                ready!(socket.poll_write_ready(context))?;
                match socket.try_io(Interest::WRITABLE, || call(socket)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => return Poll::Ready(done),
                }
            }
        };
        self.wait_to_write(worker, attempt).await
    }

    /// Waits for a write. Only a socket that does not take anything at once arms the stall deadline.
    async fn wait_to_write(
        &mut self,
        worker: &Worker,
        mut attempt: impl FnMut(&mut WriteHalf<'_>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Result<usize, Unwritten> {
        let mut waited = false;
        let written = poll_fn(|context| {
            if waited && self.watch.is_expired() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let written = attempt(&mut self.half, context);
            if written.is_pending() {
                if !waited {
                    self.watch.set(worker.tick_after(worker.limits().write_stall_timeout));
                    waited = true;
                }
                self.watch.register(context);
            }
            written
        })
        .await;
        if waited {
            self.watch.clear();
        }
        match written {
            Ok(count) if count > 0 => {
                self.sent += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                worker.count_limit(observe::Limit::SendTime);
                Err(Unwritten::Visitor)
            }
            _ => Err(Unwritten::Visitor),
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|context| Pin::new(&mut self.half).poll_shutdown(context)).await
    }

    /// Makes the close that follows a reset.
    fn reset(&self) {
        let _ = socket2::SockRef::from(self.half.as_ref()).set_linger(Some(Duration::ZERO));
    }
}

impl From<Unwritten> for Gone {
    fn from(_: Unwritten) -> Self {
        Gone
    }
}
