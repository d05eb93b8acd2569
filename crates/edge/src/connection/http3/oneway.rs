//! The streams that a visitor opens one way: control, and the two of QPACK (RFC 9114 §6.2, RFC 9204 §4.2).

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quinn::RecvStream;

use crate::h3::frames::{self, BadFrame, Frame, Frames, On};
use crate::h3::priority::Priority;
use crate::h3::{Code, qpack, read_varint};

use super::{READ_BYTES, Session, code};

/// Streams that mean nothing to us which a connection may open in all. Chromium opens one.
const UNKNOWN_STREAMS_MAX: u32 = 100;

/// The streams that there must be once, as far as they have come.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    control: bool,
    encoder: bool,
    decoder: bool,
}

impl Session {
    /// Reads one of the streams that go one way, to its end.
    pub(super) async fn listen(self: Rc<Self>, mut stream: RecvStream) {
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
}

/// The next bytes of a stream that must not end before the connection (RFC 9114 §6.2.1, RFC 9204 §4.2).
async fn read_critical(stream: &mut RecvStream) -> Result<Bytes, Code> {
    match stream.read_chunk(READ_BYTES, true).await {
        Ok(Some(chunk)) => Ok(chunk.bytes),
        _ => Err(Code::ClosedCriticalStream),
    }
}
