//! What comes in on a request stream: a head, content and trailers, out of the frames.

use std::rc::Rc;
use std::task::Poll;

use quinn::RecvStream;
use semantics::Fields;

use crate::h3::frames::{BadFrame, Frame, Frames, On};
use crate::h3::qpack::{self, BadSection, Section};
use crate::h3::{Code, request};
use crate::origin::BodyPart;
use crate::refusal::Refusal;

use super::super::Gone;
use super::super::exchange::{Ended, Incoming};
use super::{READ_BYTES, Session, code, once};

/// Why there is no head.
pub(super) enum NoHead {
    Refused(Refusal),
    /// The stream or the connection is no more.
    Gone,
}

/// A request as it comes: its head, its content and its trailers.
pub(super) struct Content {
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
    pub(super) fn new(session: Rc<Session>, recv: RecvStream) -> Self {
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

    /// Whether its stream was opened before the visitor's handshake was over.
    pub(super) fn is_early(&self) -> bool {
        self.recv.is_0rtt()
    }

    /// Whether nothing follows the head.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.ahead, Some(BodyPart::End(_)))
    }

    /// The head. For methods that have no content as a rule, it is waited for what comes behind it, which is the end:
    /// whether they have decides what may answer them. Dropping the future loses nothing.
    pub(super) async fn head(&mut self) -> Result<Section, NoHead> {
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
        let head = self.head.take().ok_or(NoHead::Gone)?;
        let length = head.lines().find(|(name, _)| *name == b"content-length");
        self.promised = length.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
        Ok(head)
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
    async fn part(&mut self) -> Result<BodyPart, Ended> {
        match self.ahead.take() {
            Some(BodyPart::Data(piece))
                if self.promised.is_some_and(|promised| piece.len() as u64 > promised) =>
            {
                Err(Ended::Gone)
            }
            Some(part) => Ok(part),
            None => self.next_part().await.map_err(|Gone| Ended::Gone),
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
