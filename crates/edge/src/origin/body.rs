//! The two bodies of a fetch: what the visitor sends on its way to the origin ([`RequestBody`], [`Upload`]) and what
//! the origin sends back ([`OriginBody`]). Both end in one of two ways that cannot be confused: at their end, or with
//! an error. A sender that goes away in the middle is an error too.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use semantics::Fields;
use semantics::hop::strip_trailers;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::attempt::Attempt;
use super::budget::GivenUp;
use super::error::{FetchError, FetchErrorKind, Phase, Sent};
use super::exchange::{body_failure, fields_of, header_map};
use super::pool::Lease;
use crate::tracing::Asking;

// --- Towards the origin ---

/// The body of a request.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None. POST, PUT and PATCH say so with `Content-Length: 0`.
    Empty,
    /// Parts as the visitor sends them.
    Stream {
        /// The visitor's Content-Length. Without it the origin gets chunked coding (HTTP/1.1) or DATA frames.
        length: Option<u64>,
        /// The parts, the last one [`BodyPart::End`]. Dropping the sender before it, or sending `Err`, resets the
        /// exchange with the origin, so that a body cut short never looks whole there. The receiver is dropped when
        /// the origin wants no more of the body: then the sender's `send` fails and the rest is to be discarded.
        parts: mpsc::Receiver<io::Result<BodyPart>>,
    },
}

/// A part of a request's body.
#[derive(Debug)]
pub(crate) enum BodyPart {
    /// Bytes; an empty one is skipped.
    Data(Bytes),
    /// The body is whole; with its trailer fields, mostly none.
    End(Fields),
}

/// [`RequestBody`] in the shape that hyper polls.
pub(super) struct Upload {
    parts: Option<mpsc::Receiver<io::Result<BodyPart>>>,
    left: Option<u64>,
    progress: Rc<UploadProgress>,
}

/// How far an upload is; read by the exchange for its time-outs and for who is to blame.
pub(super) struct UploadProgress {
    flow: Cell<Flow>,
    touched: Cell<Instant>,
    started: Cell<bool>,
    /// Bytes handed to the connection.
    sent: Cell<u64>,
    /// Whom to wake when the upload is to stop.
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// The origin is to take what it was given, or to answer.
    Origin,
    /// The visitor is to send more: the origin cannot be late.
    Visitor,
    /// All was sent.
    Done,
    /// The visitor's side broke off.
    Broken,
    /// The answer is over, and nobody wants the rest.
    Stopped,
}

impl Upload {
    pub(super) fn new(body: RequestBody) -> Self {
        let (parts, left) = match body {
            RequestBody::Empty => (None, Some(0)),
            RequestBody::Stream { length: Some(0), .. } => (None, Some(0)),
            RequestBody::Stream { length, parts } => (Some(parts), length),
        };
        let flow = if parts.is_some() { Flow::Origin } else { Flow::Done };
        let progress = UploadProgress {
            flow: Cell::new(flow),
            touched: Cell::new(Instant::now()),
            started: Cell::new(false),
            sent: Cell::new(0),
            waker: RefCell::default(),
        };
        Upload { parts, left, progress: Rc::new(progress) }
    }

    /// Whether there is nothing to send, so that the request can be sent any number of times.
    pub(super) fn is_empty(&self) -> bool {
        self.left == Some(0) && self.parts.is_none() && !self.progress.started.get()
    }

    /// Length to announce; `None` is chunked.
    pub(super) fn length(&self) -> Option<u64> {
        self.left
    }

    pub(super) fn progress(&self) -> Rc<UploadProgress> {
        self.progress.clone()
    }

    fn end(&mut self, flow: Flow) {
        self.parts = None;
        self.progress.set(flow);
    }

    fn broken(&mut self, error: io::Error) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.end(Flow::Broken);
        Poll::Ready(Some(Err(error.into())))
    }
}

/// Why a body ends before its end. The HTTP/2 library looks for the code of the reset among the causes, and would take this
/// for a fault of ours: the visitor wants no more, or has left (CANCEL, RFC 9113 §7).
#[derive(Debug)]
pub(super) struct Broken {
    why: io::Error,
    reset: h2::Error,
}

impl From<io::Error> for Broken {
    fn from(why: io::Error) -> Self {
        Broken { why, reset: h2::Reason::CANCEL.into() }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.why.fmt(f)
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reset)
    }
}

impl UploadProgress {
    fn set(&self, flow: Flow) {
        self.flow.set(flow);
        self.touched.set(Instant::now());
    }

    /// Starts the origin's time anew: the request is about to be sent, or the origin has shown a sign of life.
    pub(super) fn touch(&self) {
        self.touched.set(Instant::now());
    }

    /// When the origin is late, if nothing happens until then. While the visitor is to send, it cannot be.
    pub(super) fn late_at(&self, patience: Duration) -> Instant {
        let since = if self.flow.get() == Flow::Visitor { Instant::now() } else { self.touched.get() };
        since + patience
    }

    pub(super) fn is_late(&self, patience: Duration) -> bool {
        self.flow.get() != Flow::Visitor && self.touched.get().elapsed() >= patience
    }

    /// Whether the visitor's side broke off.
    pub(super) fn is_broken(&self) -> bool {
        self.flow.get() == Flow::Broken
    }

    /// Whether all of the body was handed to the connection.
    fn is_done(&self) -> bool {
        self.flow.get() == Flow::Done
    }

    /// Ends an upload that is still going on: the connection would carry it to its end for nobody.
    fn stop(&self) {
        if matches!(self.flow.get(), Flow::Origin | Flow::Visitor) {
            self.set(Flow::Stopped);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Stops an upload when the answer is over or dropped.
struct StopsUpload(Rc<UploadProgress>);

impl Drop for StopsUpload {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        loop {
            let Some(parts) = &mut this.parts else { return Poll::Ready(None) };
            this.progress.started.set(true);
            if this.progress.flow.get() == Flow::Stopped {
                this.parts = None;
                let why = io::Error::other("the answer came before the end of the body");
                return Poll::Ready(Some(Err(why.into())));
            }
            let Poll::Ready(part) = parts.poll_recv(context) else {
                this.progress.set(Flow::Visitor);
                this.progress.waker.replace(Some(context.waker().clone()));
                return Poll::Pending;
            };
            this.progress.set(Flow::Origin);
            match part {
                Some(Ok(BodyPart::Data(data))) if data.is_empty() => continue,
                Some(Ok(BodyPart::Data(data))) => {
                    if let Some(left) = &mut this.left {
                        let Some(rest) = left.checked_sub(data.len() as u64) else {
                            return this
                                .broken(io::Error::other("the body is longer than its Content-Length"));
                        };
                        *left = rest;
                        if rest == 0 {
                            this.end(Flow::Done);
                        }
                    }
                    this.progress.sent.set(this.progress.sent.get() + data.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Ok(BodyPart::End(mut trailers))) => {
                    if this.left.is_some_and(|left| left > 0) {
                        return this.broken(io::Error::other("the body is shorter than its Content-Length"));
                    }
                    this.end(Flow::Done);
                    strip_trailers(&mut trailers);
                    if trailers.is_empty() {
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(Some(Ok(Frame::trailers(header_map(&trailers)))));
                }
                Some(Err(error)) => return this.broken(error),
                None => return this.broken(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_none() && matches!(self.progress.flow.get(), Flow::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

// --- From the origin ---

/// The body of a response, read as it comes. Dropping it before its end closes the connection (HTTP/1.1) or resets
/// the stream (HTTP/2). So does the origin's budget when it wants it ended, also while nobody reads.
pub(crate) struct OriginBody {
    exchange: Rc<RefCell<Exchange>>,
    given_up: Option<GivenUp>,
    trailers: Fields,
    transform: Option<Box<dyn Transform>>,
}

/// Where the exchange is whose answer is read.
enum Exchange {
    Live(Box<Live>),
    /// Given up while nobody read: whoever reads on is to be told why.
    GivenUp(FetchError),
    Over,
}

/// What changes a body while it is read.
pub(crate) trait Transform {
    /// What has become of the next bytes, as far as that is known.
    fn push(&mut self, piece: &[u8]) -> Bytes;

    /// What is left at the body's clean end.
    fn finish(self: Box<Self>) -> Bytes;
}

struct Live {
    incoming: Incoming,
    lease: Lease,
    attempt: Attempt,
    upload: StopsUpload,
    idle: Duration,
    total: Option<Instant>,
    /// The span of it, which ends with it.
    asking: Option<Asking>,
}

impl OriginBody {
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        attempt: Attempt,
        upload: Rc<UploadProgress>,
        idle: Duration,
        total: Option<Instant>,
    ) -> Self {
        let given_up = attempt.given_up();
        let is_over = incoming.is_end_stream();
        let live = Live { incoming, lease, attempt, upload: StopsUpload(upload), idle, total, asking: None };
        let exchange = Rc::new(RefCell::new(Exchange::Live(Box::new(live))));
        if is_over {
            finish(&exchange);
        } else if let Some(given_up) = given_up.clone() {
            // It ends with the exchange.
            tokio::task::spawn_local(end_unread(Rc::downgrade(&exchange), given_up));
        }
        OriginBody { exchange, given_up, trailers: Fields::new(), transform: None }
    }

    /// A body without bytes.
    pub(super) fn empty() -> Self {
        OriginBody {
            exchange: Rc::new(RefCell::new(Exchange::Over)),
            given_up: None,
            trailers: Fields::new(),
            transform: None,
        }
    }

    /// Its end ends this span.
    pub(crate) fn trace(&mut self, asking: Asking) {
        if let Exchange::Live(live) = &mut *self.exchange.borrow_mut() {
            live.asking = Some(asking);
        }
    }

    /// The next bytes, never empty; `None` at the clean end and ever after; `Some(Err)` once when the body broke off,
    /// then `None`. A caller that has seen the error must not treat the `None` after it as the end.
    ///
    /// The idle time-out counts from the call, or from the last that the origin has taken of a request that is still being
    /// sent; the total one from the start of the fetch. Dropping the future loses nothing.
    pub(crate) async fn chunk(&mut self) -> Option<Result<Bytes, FetchError>> {
        loop {
            let piece = self.read().await;
            let Some(transform) = &mut self.transform else { return piece };
            let changed = match piece {
                Some(Ok(piece)) => transform.push(&piece),
                Some(Err(error)) => {
                    self.transform = None;
                    return Some(Err(error));
                }
                None => {
                    let rest = self.transform.take().map(|transform| transform.finish());
                    return rest.filter(|rest| !rest.is_empty()).map(Ok);
                }
            };
            if !changed.is_empty() {
                return Some(Ok(changed));
            }
        }
    }

    /// Has all that is still to be read changed on its way.
    pub(crate) fn transform(&mut self, transform: Box<dyn Transform>) {
        self.transform = Some(transform);
    }

    /// The next bytes as the origin has sent them.
    async fn read(&mut self) -> Option<Result<Bytes, FetchError>> {
        let asked = Instant::now();
        loop {
            let (deadline, phase, patience) = match &*self.exchange.borrow() {
                Exchange::Live(live) => live.deadline(asked),
                Exchange::Over => return None,
                Exchange::GivenUp(_) => break,
            };
            let frame = tokio::select! {
                biased;
                () = GivenUp::wait_for(self.given_up.as_mut()) => break,
                // Dropped before it is ready, a frame stays where it is.
                frame = timeout_at(deadline, std::future::poll_fn(|context| poll_frame(&self.exchange, context))) => frame,
            };
            match frame {
                Ok(None) => {
                    finish(&self.exchange);
                    return None;
                }
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        if let Exchange::Live(live) = &mut *self.exchange.borrow_mut() {
                            live.attempt.received(data.len());
                        }
                        return Some(Ok(data));
                    }
                    Ok(_) => {}
                    Err(frame) => {
                        self.trailers =
                            frame.into_trailers().map_or(Fields::new(), |lines| fields_of(&lines));
                        strip_trailers(&mut self.trailers);
                    }
                },
                Ok(Some(Err(error))) => return self.fail(body_failure(&error)),
                // The origin has taken more of the request meanwhile.
                Err(_) if self.deadline(asked) > Some(Instant::now()) => {}
                Err(_) => {
                    let detail = format_args!("no more of the body within {patience:?}");
                    return self.fail(FetchError::new(FetchErrorKind::Timeout(phase), Sent::Answer, detail));
                }
            }
        }
        give_up(&self.exchange);
        match self.exchange.replace(Exchange::Over) {
            Exchange::GivenUp(error) => Some(Err(error)),
            Exchange::Live(_) | Exchange::Over => None,
        }
    }

    fn deadline(&self, asked: Instant) -> Option<Instant> {
        match &*self.exchange.borrow() {
            Exchange::Live(live) => Some(live.deadline(asked).0),
            Exchange::GivenUp(_) | Exchange::Over => None,
        }
    }

    /// Whether all of it has been read, and no trailers came.
    pub(crate) fn is_over(&self) -> bool {
        matches!(&*self.exchange.borrow(), Exchange::Over)
            && self.trailers.is_empty()
            && self.transform.is_none()
    }

    /// The trailer fields (RFC 9110 §6.5), after the end. Whoever cannot pass them on may drop them.
    pub(crate) fn take_trailers(&mut self) -> Fields {
        std::mem::take(&mut self.trailers)
    }

    /// Closes the connection; the head was all that was wanted.
    pub(crate) fn close(&mut self) {
        if let Exchange::Live(mut live) = self.exchange.replace(Exchange::Over) {
            live.attempt.finished(live.upload.0.sent.get());
        }
    }

    fn fail(&mut self, error: FetchError) -> Option<Result<Bytes, FetchError>> {
        let Exchange::Live(live) = self.exchange.replace(Exchange::Over) else { return None };
        Some(Err(live.fail(error)))
    }
}

impl Live {
    /// Until when more of the body is to come to who asked at that time, which time-out that is, and how long.
    fn deadline(&self, asked: Instant) -> (Instant, Phase, Duration) {
        let idle = asked.max(self.upload.0.touched.get()) + self.idle;
        match self.total {
            Some(total) if total < idle => (total, Phase::Total, self.idle),
            _ => (idle, Phase::Idle, self.idle),
        }
    }

    /// Ends it; what is told of it.
    fn fail(mut self: Box<Self>, error: FetchError) -> FetchError {
        let error = error.at(self.attempt.origin());
        self.attempt.failed(&error);
        error
    }
}

fn poll_frame(
    exchange: &RefCell<Exchange>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    match &mut *exchange.borrow_mut() {
        Exchange::Live(live) => Pin::new(&mut live.incoming).poll_frame(context),
        // Whoever gave it up has told the one who reads.
        Exchange::GivenUp(_) | Exchange::Over => Poll::Pending,
    }
}

fn finish(exchange: &RefCell<Exchange>) {
    // A connection that answered before it had taken the whole request cannot carry another one yet.
    if let Exchange::Live(mut live) = exchange.replace(Exchange::Over) {
        live.attempt.finished(live.upload.0.sent.get());
        if live.upload.0.is_done() {
            live.lease.give_back();
        }
    }
}

/// Ends an exchange because the budget wants it.
fn give_up(exchange: &RefCell<Exchange>) {
    let ended = match exchange.replace(Exchange::Over) {
        Exchange::Live(live) => match live.attempt.why_given_up() {
            Some(error) => Exchange::GivenUp(live.fail(error)),
            None => Exchange::Over,
        },
        ended => ended,
    };
    exchange.replace(ended);
}

/// Ends an exchange that is to be given up, whether somebody reads its answer or not.
async fn end_unread(exchange: Weak<RefCell<Exchange>>, mut given_up: GivenUp) {
    GivenUp::wait_for(Some(&mut given_up)).await;
    if let Some(exchange) = exchange.upgrade() {
        give_up(&exchange);
    }
}

impl std::fmt::Debug for OriginBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_live = matches!(&*self.exchange.borrow(), Exchange::Live(_));
        f.debug_struct("OriginBody").field("is_live", &is_live).finish()
    }
}
