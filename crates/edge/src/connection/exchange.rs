//! One request and its answer on a stream of its own, as HTTP/2 and HTTP/3 have them: waiting for the flow and sending a
//! body as fast as the visitor takes it, while the request's content is passed on; or a tunnel, when the request asked for
//! one. What a protocol makes of heads, content and ends is its own: [`Incoming`] and [`Outgoing`].

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use observe::Limit;
use semantics::{Fields, Why};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::answer::{Answer, Body};
use crate::deliver::{self, Sent};
use crate::flow::Flow;
use crate::h1::body::Framing;
use crate::loaded::RuleAt;
use crate::origin::{BodyPart, RequestBody};
use crate::pieces::{BrokenOff, Piece, Pieces};
use crate::refusal::Refusal;
use crate::request::Request;
use crate::worker::{Watch, Worker};

use super::{Gone, TUNNEL_IDLE};

/// Bodies in memory up to this size are handed over whole, by reference.
const AT_ONCE_BYTES: u64 = 64 * 1024;

/// Bytes of one stream that are given to the connection at a time: four frames of HTTP/2's usual size.
const SEND_BYTES: usize = 64 * 1024;

/// Pieces of a request body that may wait between visitor and origin.
const UPLOAD_PIECES: usize = 4;

/// Bytes that are read at a time from the origin's end of a tunnel.
const TUNNEL_BYTES: usize = 16 * 1024;

/// How long a visitor may take to end a tunnel that the origin has ended.
const TUNNEL_GOODBYE: Duration = Duration::from_secs(5);

/// The content of a request.
pub(super) trait Incoming {
    /// The next bytes, never none, or the end with its trailers. Loses nothing by being dropped.
    async fn part(&mut self) -> Result<BodyPart, Ended>;

    /// So many bytes have been passed on: the visitor may send more.
    fn passed_on(&mut self, length: usize);
}

/// Why no more of a content comes, before its end.
pub(super) enum Ended {
    /// The visitor is gone, or has broken it off.
    Gone,
    /// It breaks the rules.
    Bad(Refusal),
}

/// The way of an answer.
pub(super) trait Outgoing {
    /// Sends an interim response (RFC 9110 §15.2). What cannot be sent is left out: it is a hint.
    fn send_interim(&mut self, status: u16, fields: &Fields);

    /// Sends the head, or keeps it for what follows. Returns its bytes.
    fn send_head(
        &mut self,
        worker: &Worker,
        request: &Request,
        answer: &Answer,
        follows: Follows,
    ) -> Result<u64, Gone>;

    /// Ready when some of `wanted` bytes may be sent: so many.
    fn poll_room(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Gone>>;

    /// Sends some of `bytes`, and takes away from them what was sent; with the last of them the end, if `ends`.
    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut Bytes,
        ends: bool,
    ) -> Poll<Result<(), Gone>>;

    /// Sends the end, if the head or the last bytes have not told it.
    fn poll_end(&mut self, context: &mut Context<'_>, trailers: &Fields) -> Poll<Result<(), Gone>>;

    /// Ready when the visitor does not want the answer any more.
    fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Breaks off.
    fn reset(&mut self, by: Fault);
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    Nothing,
    /// The whole content, now.
    Now,
    /// Content, as it comes.
    Later,
}

/// Whose fault it is that an answer was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The visitor left or took too long.
    Visitor,
    /// The origin broke off, or gave another number of bytes than it promised; or there was no room for more.
    Origin(Why),
    /// The other end of a tunnel broke off.
    Tunnel,
}

impl From<Gone> for Fault {
    fn from(_: Gone) -> Self {
        Fault::Visitor
    }
}

impl From<Ended> for Fault {
    fn from(_: Ended) -> Self {
        Fault::Visitor
    }
}

/// What an origin gets of a content that is framed so, and where it comes from.
pub(super) fn passing_on(framing: Framing) -> (mpsc::Sender<std::io::Result<BodyPart>>, RequestBody) {
    let (sender, parts) = mpsc::channel(UPLOAD_PIECES);
    let length = match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::None => None,
    };
    (sender, RequestBody::Stream { parts, length })
}

/// Why a tunnel has ended, and counts that it was silent for too long, if it was (`None`).
pub(super) fn why_ended(worker: &Worker, told: &deliver::Told, ended: Option<&Result<(), Fault>>) -> Why {
    match ended {
        Some(Ok(())) => told.note.why,
        Some(Err(Fault::Tunnel | Fault::Origin(_))) => Why::OriginProtocol,
        Some(Err(Fault::Visitor)) => Why::ClientGone,
        None => {
            worker.count_limit(Limit::IdleTime);
            Why::ClientGone
        }
    }
}

/// The whole content of an answer that needs no waiting; `None` when it does.
pub(super) fn whole_body(request: &Request, answer: &Answer) -> Option<Bytes> {
    if deliver::has_no_content(request, answer) {
        return Some(Bytes::new());
    }
    match &answer.body {
        Body::Empty => Some(Bytes::new()),
        Body::Bytes(bytes) => Some(bytes.clone()),
        // The head tells the end: what gRPC calls "trailers only" would not be that with an empty frame behind it.
        Body::Origin(body) if body.is_over() => Some(Bytes::new()),
        Body::Stored(stored, start, end) if end - start <= AT_ONCE_BYTES => {
            crate::pieces::held(stored, *start, *end)
        }
        _ => None,
    }
}

/// The answer to a request whose content is longer than may be by its own word; `None` when it is not.
pub(super) fn too_long(worker: &Worker, request: &Request, framing: Framing) -> Option<Answer> {
    let most = worker.limits().body_bytes_max.0;
    if !matches!(framing, Framing::Length(length) if length > most) {
        return None;
    }
    worker.count_limit(Limit::BodyBytes);
    let rule = RuleAt::of(worker.loaded(), request);
    Some(Answer { rule, ..Refusal::BodyTooLarge(most).answer(request) })
}

/// One request and its answer.
pub(super) struct Exchange {
    pub(super) worker: Rc<Worker>,
    pub(super) request: Rc<Request>,
    /// What is wrong with the content that the visitor sends.
    pub(super) fault: Cell<Option<Refusal>>,
    /// Whether there is an answer, whatever is still to come of the content.
    pub(super) is_answered: Cell<bool>,
    /// When the head was handed over, since the request's begin.
    first_byte: Cell<Option<Duration>>,
}

impl Exchange {
    pub(super) fn new(worker: Rc<Worker>, request: Rc<Request>) -> Self {
        Exchange {
            worker,
            request,
            fault: Cell::new(None),
            is_answered: Cell::new(false),
            first_byte: Cell::new(None),
        }
    }

    /// Waits for the flow's answer and sends it. The request's content is passed on from the beginning to the end of that:
    /// an answer may come, and be over, before all of its request is there.
    pub(super) async fn run(
        &self,
        flow: Box<Flow>,
        content: impl Incoming,
        framing: Framing,
        outgoing: &mut impl Outgoing,
    ) -> Result<(), Gone> {
        if flow.is_upgrade() {
            // Few do: the others needn't have the room for it.
            return Box::pin(self.tunnel(flow, content, outgoing)).await;
        }
        let (body, upload) = match framing {
            Framing::None => (RequestBody::Empty, None),
            Framing::Length(_) | Framing::Chunked => {
                let (sender, body) = passing_on(framing);
                (body, Some(Box::pin(self.upload(content, sender))))
            }
        };
        let mut is_uploading = upload.is_some();
        if is_uploading && self.request.expects_continue {
            outgoing.send_interim(100, &Fields::new());
        }
        let mut uploading = pin!(async {
            if let Some(upload) = upload {
                upload.await;
            }
        });
        let mut answering = pin!(async {
            let answer = self.wait(flow, body, outgoing).await?;
            self.send(answer, outgoing).await
        });
        poll_fn(|context| {
            is_uploading = is_uploading && uploading.as_mut().poll(context).is_pending();
            answering.as_mut().poll(context)
        })
        .await
    }

    /// Waits for the flow's answer, passing interim responses on. Who leaves meanwhile is told of here.
    async fn wait(
        &self,
        flow: Box<Flow>,
        body: RequestBody,
        outgoing: &mut impl Outgoing,
    ) -> Result<Answer, Gone> {
        let (interim, at) = (flow.interim(), flow.at());
        let mut answering = pin!(flow.finish(body));
        loop {
            let next = poll_fn(|context| {
                if outgoing.poll_reset(context).is_ready() {
                    return Poll::Ready(Err(Gone));
                }
                match answering.as_mut().poll(context) {
                    Poll::Ready(answer) => Poll::Ready(Ok(Some(answer))),
                    Poll::Pending => interim.poll_some(context).map(|()| Ok(None)),
                }
            });
            let next = next.await;
            for (status, fields) in interim.take() {
                outgoing.send_interim(status, &fields);
            }
            let Ok(next) = next else {
                deliver::emit_gone(&self.worker, &self.request, at);
                return Err(Gone);
            };
            if let Some(answer) = next {
                self.is_answered.set(true);
                return Ok(match self.broken_upload(&answer) {
                    Some(refusal) => Answer { rule: answer.rule, ..refusal.answer(&self.request) },
                    None => answer,
                });
            }
        }
    }

    /// What is wrong with the content where that is why there is no other answer: an upload that broke off is the visitor's fault,
    /// whatever the origin made of it.
    pub(super) fn broken_upload(&self, answer: &Answer) -> Option<Refusal> {
        if answer.note.why == Why::ClientGone { self.fault.take() } else { None }
    }

    /// Passes the request's content on until it is complete, refused, or nobody wants it any more.
    pub(super) async fn upload(
        &self,
        mut content: impl Incoming,
        sender: mpsc::Sender<std::io::Result<BodyPart>>,
    ) {
        let limits = self.worker.limits();
        let watch = self.worker.watch();
        let mut total = 0;
        loop {
            let part = match self.part_in_time(&mut content, &watch).await {
                Some(Ok(BodyPart::Data(piece))) => {
                    total += piece.len() as u64;
                    self.count_received(piece.len());
                    if total > limits.body_bytes_max.0 {
                        self.worker.count_limit(Limit::BodyBytes);
                        self.fault.set(Some(Refusal::BodyTooLarge(limits.body_bytes_max.0)));
                        Err(std::io::ErrorKind::FileTooLarge.into())
                    } else {
                        Ok(BodyPart::Data(piece))
                    }
                }
                Some(Ok(end)) => Ok(end),
                Some(Err(Ended::Gone)) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                Some(Err(Ended::Bad(refusal))) => {
                    self.fault.set(Some(refusal));
                    Err(std::io::ErrorKind::InvalidData.into())
                }
                None => {
                    self.worker.count_limit(Limit::BodyTime);
                    self.fault.set(Some(Refusal::BodyTimeout));
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
            if sender.send(part).await.is_err() {
                return;
            }
            content.passed_on(length);
        }
    }

    /// The next part of the content; `None` when it stalls. Not once there is an answer: how long the two may be silent then
    /// is the origin's idle time-out.
    async fn part_in_time(
        &self,
        content: &mut impl Incoming,
        watch: &Watch,
    ) -> Option<Result<BodyPart, Ended>> {
        loop {
            match self.is_answered.get() {
                true => watch.clear(),
                false => watch.set(self.worker.tick_after(self.worker.limits().body_stall_timeout)),
            }
            match watch.within(pin!(content.part())).await {
                None if self.is_answered.get() => {}
                part => return part,
            }
        }
    }

    fn count_received(&self, length: usize) {
        self.request.received_bytes.set(self.request.received_bytes.get() + length as u64);
    }

    /// Waits for the flow's answer; if that is a connection to the origin which speaks another protocol, joins the stream to it
    /// until either side has ended it, or nothing has come for [`TUNNEL_IDLE`]. RFC 8441 §5, RFC 9220 §3: ends of the stream
    /// are ends of the connection, and what breaks off is reset.
    async fn tunnel(
        &self,
        flow: Box<Flow>,
        mut content: impl Incoming,
        outgoing: &mut impl Outgoing,
    ) -> Result<(), Gone> {
        let mut answer = self.wait(flow, RequestBody::Empty, outgoing).await?;
        let tunnel = match std::mem::replace(&mut answer.body, Body::Empty) {
            Body::Tunnel(tunnel) => tunnel,
            body => {
                answer.body = body;
                return self.send(answer, outgoing).await;
            }
        };
        let head = outgoing.send_head(&self.worker, &self.request, &answer, Follows::Later);
        self.first_byte.set(Some(self.request.started.elapsed()));
        let (_, told) = answer.split();
        let Ok(head_bytes) = head else {
            self.emit(&told, Why::ClientGone, 0, 0);
            return Err(Gone);
        };
        let (mut from_origin, mut to_origin) = tokio::io::split(tunnel.io);
        let watch = self.worker.watch();
        let stir = || watch.set(self.worker.tick_after(TUNNEL_IDLE));
        stir();
        let mut sender = Sender::new(&self.worker, outgoing);
        let up = async {
            while let BodyPart::Data(piece) = content.part().await? {
                stir();
                self.count_received(piece.len());
                to_origin.write_all(&piece).await.map_err(|_| Fault::Tunnel)?;
                content.passed_on(piece.len());
            }
            // The visitor has said all; the origin may have more to say.
            to_origin.shutdown().await.map_err(|_| Fault::Tunnel)?;
            std::future::pending::<Result<(), Fault>>().await
        };
        let down = async {
            loop {
                let mut buffer = BytesMut::with_capacity(TUNNEL_BYTES);
                let read = sender.unless_reset(pin!(from_origin.read_buf(&mut buffer))).await?;
                if read.map_err(|_| Fault::Tunnel)? == 0 {
                    return sender.end(&Fields::new()).await;
                }
                stir();
                sender.give_all(buffer.freeze()).await?;
            }
        };
        let ended = async {
            // Whichever ends, the other has nothing left to do.
            tokio::select! {
                biased;
                ended = down => ended,
                ended = up => ended,
            }
        };
        let ended = watch.within(pin!(ended)).await;
        let body_bytes = sender.sent;
        let why = why_ended(&self.worker, &told, ended.as_ref());
        self.emit(&told, why, head_bytes, body_bytes);
        if !matches!(ended, Some(Ok(()))) {
            outgoing.reset(Fault::Tunnel);
            return Ok(());
        }
        // The visitor gets to end its side too: a reset could overtake what it has yet to read.
        watch.set(self.worker.tick_after(TUNNEL_GOODBYE));
        let ending = pin!(async {
            while let Ok(BodyPart::Data(piece)) = content.part().await {
                content.passed_on(piece.len());
            }
        });
        let _ = watch.within(ending).await;
        Ok(())
    }

    /// Sends an answer.
    pub(super) async fn send(&self, answer: Answer, outgoing: &mut impl Outgoing) -> Result<(), Gone> {
        let whole = whole_body(&self.request, &answer);
        let follows = match &whole {
            Some(bytes) if bytes.is_empty() => Follows::Nothing,
            Some(_) => Follows::Now,
            None => Follows::Later,
        };
        let head = outgoing.send_head(&self.worker, &self.request, &answer, follows);
        self.first_byte.set(Some(self.request.started.elapsed()));
        let promised = answer.length;
        let (body, mut told) = answer.split();
        let Ok(head_bytes) = head else {
            self.emit(&told, Why::ClientGone, 0, 0);
            return Err(Gone);
        };
        let mut sender = Sender::new(&self.worker, outgoing);
        sender.promised = promised;
        sender.may_trail = self.request.takes_trailers && matches!(body, Body::Origin(_));
        let mut pieces = Pieces::of(body);
        let sent = match whole {
            Some(bytes) if bytes.is_empty() => sender.end(&Fields::new()).await,
            Some(bytes) => {
                sender.promised = Some(bytes.len() as u64);
                sender.give(bytes).await
            }
            None => sender.send_body(&mut pieces).await,
        };
        told.note.take_back(pieces.joined());
        let body_bytes = sender.sent;
        let why = match sent {
            Ok(()) => told.note.why,
            Err(fault) => {
                outgoing.reset(fault);
                match fault {
                    Fault::Visitor | Fault::Tunnel => Why::ClientGone,
                    Fault::Origin(why) => {
                        // What the origin broke off has not been stored, whatever was meant to be, and must not look whole.
                        told.note.stored = false;
                        match self.fault.take() {
                            // It broke off because its request did.
                            Some(_) => Why::ClientGone,
                            None => why,
                        }
                    }
                }
            }
        };
        self.emit(&told, why, head_bytes, body_bytes);
        Ok(())
    }

    fn emit(&self, told: &deliver::Told, why: Why, head_bytes: u64, body_bytes: u64) {
        let sent = Sent {
            head_bytes,
            body_bytes,
            received_bytes: self.request.received_bytes.get(),
            first_byte: self.first_byte.get().unwrap_or_else(|| self.request.started.elapsed()),
        };
        deliver::emit(&self.worker, &self.request, told, why, &sent);
    }
}

/// Sends one body as fast as the visitor's windows let it.
struct Sender<'a, O> {
    worker: &'a Rc<Worker>,
    outgoing: &'a mut O,
    /// Made when it is first needed: most answers never wait.
    watch: Option<Rc<Watch>>,
    sent: u64,
    promised: Option<u64>,
    /// Whether trailers may follow the last bytes, which then cannot tell the end.
    may_trail: bool,
}

impl<'a, O: Outgoing> Sender<'a, O> {
    fn new(worker: &'a Rc<Worker>, outgoing: &'a mut O) -> Self {
        Sender { worker, outgoing, watch: None, sent: 0, promised: None, may_trail: false }
    }

    async fn send_body(&mut self, pieces: &mut Pieces) -> Result<(), Fault> {
        loop {
            match self.next(pieces).await? {
                Some(Piece::Bytes(bytes)) => self.give_all(bytes).await?,
                Some(Piece::Pages(run, start, end)) => {
                    let mut at = start;
                    while at < end {
                        let room = self.room((end - at).min(SEND_BYTES as u64) as usize).await?;
                        let mut bytes = BytesMut::zeroed(room);
                        let read =
                            run.read(at, &mut bytes).map_err(|_| Fault::Origin(Why::OriginProtocol))?;
                        bytes.truncate(read);
                        at += read as u64;
                        self.give(bytes.freeze()).await?;
                    }
                }
                None => break,
            }
        }
        let trailers = pieces.take_trailers();
        match self.promised {
            // Its last bytes have told the end.
            Some(length) if length == self.sent && length > 0 && !self.may_trail => return Ok(()),
            Some(length) if length != self.sent => return Err(Fault::Origin(Why::OriginProtocol)),
            _ => {}
        }
        self.end(&trailers).await
    }

    async fn end(&mut self, trailers: &Fields) -> Result<(), Fault> {
        self.in_time(|outgoing, context| outgoing.poll_end(context, trailers)).await
    }

    /// The next piece, unless the visitor leaves before it is there.
    async fn next(&mut self, pieces: &mut Pieces) -> Result<Option<Piece>, Fault> {
        self.unless_reset(pin!(pieces.next())).await?.map_err(|BrokenOff(why)| Fault::Origin(why))
    }

    /// What `future` comes to, unless the visitor leaves before.
    async fn unless_reset<T>(&mut self, mut future: impl Future<Output = T> + Unpin) -> Result<T, Fault> {
        poll_fn(|context| {
            if let Poll::Ready(done) = Pin::new(&mut future).poll(context) {
                return Poll::Ready(Ok(done));
            }
            self.outgoing.poll_reset(context).map(|()| Err(Fault::Visitor))
        })
        .await
    }

    /// Waits until some of `wanted` bytes may be sent.
    async fn room(&mut self, wanted: usize) -> Result<usize, Fault> {
        self.in_time(|outgoing, context| outgoing.poll_room(context, wanted)).await
    }

    /// Sends bytes of the body as there is room for them.
    async fn give_all(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len().min(SEND_BYTES)).await?;
            self.give(bytes.split_to(room)).await?;
        }
        Ok(())
    }

    /// Sends bytes of the body; the last that were promised end it, unless trailers may.
    async fn give(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        let sent = self.sent + bytes.len() as u64;
        if self.promised.is_some_and(|promised| sent > promised) {
            return Err(Fault::Origin(Why::OriginProtocol));
        }
        let ends = self.promised == Some(sent) && !self.may_trail;
        while !bytes.is_empty() {
            let before = bytes.len();
            self.in_time(|outgoing, context| outgoing.poll_data(context, &mut bytes, ends)).await?;
            self.sent += (before - bytes.len()) as u64;
        }
        Ok(())
    }

    /// Waits for one step. Only a visitor who takes nothing at once arms the stall deadline.
    async fn in_time<T>(
        &mut self,
        mut step: impl FnMut(&mut O, &mut Context<'_>) -> Poll<Result<T, Gone>>,
    ) -> Result<T, Fault> {
        let mut is_waiting = false;
        let done = poll_fn(|context| {
            if is_waiting && self.watch.as_ref().is_some_and(|watch| watch.is_expired()) {
                return Poll::Ready(None);
            }
            let stepped = step(self.outgoing, context);
            if stepped.is_pending() {
                let watch = self.watch.get_or_insert_with(|| self.worker.watch());
                if !is_waiting {
                    watch.set(self.worker.tick_after(self.worker.limits().write_stall_timeout));
                    is_waiting = true;
                }
                watch.register(context);
            }
            stepped.map(Some)
        })
        .await;
        if is_waiting && let Some(watch) = &self.watch {
            watch.clear();
        }
        match done {
            Some(done) => Ok(done?),
            None => {
                self.worker.count_limit(Limit::SendTime);
                Err(Fault::Visitor)
            }
        }
    }
}
