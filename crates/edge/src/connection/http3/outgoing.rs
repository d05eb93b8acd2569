//! What goes out on a request stream: the way of an answer as frames.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use quinn::SendStream;
use semantics::Fields;

use crate::answer::Answer;
use crate::deliver;
use crate::h3::priority::Priority;
use crate::h3::{Code, frames, qpack};
use crate::request::Request;
use crate::worker::Worker;

use super::super::Gone;
use super::super::exchange::{Fault, Follows, Outgoing};
use super::{Session, code};

/// The way of an answer as frames. Dropped before its end, it is reset: what was sent must not look whole.
pub(super) struct Answering {
    session: Rc<Session>,
    id: u64,
    pub(super) send: SendStream,
    /// Heads of frames, and what else is sent with the next bytes of the body.
    queued: BytesMut,
    /// Bytes that the last DATA frame has promised.
    frame_left: usize,
    pub(super) body_bytes: u64,
    pub(super) is_finished: bool,
    /// Whether the trailers have been queued.
    has_trailers: bool,
    /// Waits for the visitor to stop the stream.
    stopped: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Answering {
    pub(super) fn new(session: Rc<Session>, id: u64, send: SendStream) -> Self {
        Answering {
            session,
            id,
            send,
            queued: BytesMut::new(),
            frame_left: 0,
            body_bytes: 0,
            is_finished: false,
            has_trailers: false,
            stopped: None,
        }
    }

    pub(super) fn set_priority(&self, priority: Priority) {
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
        if !trailers.is_empty() && !std::mem::replace(&mut self.has_trailers, true) {
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
            Fault::Origin(_) => Code::InternalError,
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
