//! A body as the pieces that a protocol sends one after the other, wherever it lies or comes from.

use std::sync::Arc;

use bytes::Bytes;
use semantics::{Fields, Why};
use store::Run;

use crate::answer::{Body, Part};
use crate::flight::{FillReader, Unread};
use crate::object::Object;
use crate::origin::OriginBody;
use crate::slices::{IsNew, SliceReader, Trouble};

/// Bytes to be sent next.
pub(crate) enum Piece {
    Bytes(Bytes),
    /// Bytes `.1..(.2)` of pages that a socket takes without a copy.
    Pages(Arc<Run>, u64, u64),
}

impl Piece {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Pages(_, start, end) => end - start,
        }
    }
}

/// The body ends here, before its end, and why: what was sent must not look whole.
pub(crate) struct BrokenOff(pub(crate) Why);

impl From<Trouble> for BrokenOff {
    fn from(trouble: Trouble) -> Self {
        BrokenOff(if trouble == Trouble::Crowded { Why::Limit } else { Why::OriginProtocol })
    }
}

impl From<Unread> for BrokenOff {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Broken(why) => BrokenOff(why),
            Unread::Behind => BrokenOff(Why::OriginProtocol),
        }
    }
}

/// What is left of a body.
pub(crate) struct Pieces {
    left: Left,
    trailers: Fields,
}

enum Left {
    Nothing,
    Bytes(Bytes),
    Stored(Object, u64, u64),
    Sliced(Box<SliceReader>),
    Multipart {
        stored: Object,
        slices: Option<Box<SliceReader>>,
        parts: std::vec::IntoIter<Part>,
        at: Option<Span>,
        closing: Bytes,
    },
    Fill(FillReader, Option<u64>),
    Origin(Box<OriginBody>),
}

/// Bytes `.0..(.1)` of the part that is being sent.
type Span = (u64, u64);

impl Pieces {
    pub(crate) fn of(body: Body) -> Self {
        let left = match body {
            Body::Empty | Body::Tunnel(_) => Left::Nothing,
            Body::Bytes(bytes) => Left::Bytes(bytes),
            Body::Stored(stored, start, end) => Left::Stored(stored, start, end),
            Body::Sliced(reader) => Left::Sliced(reader),
            Body::Multipart(stored, slices, parts, closing) => {
                Left::Multipart { stored, slices, parts: parts.into_iter(), at: None, closing }
            }
            Body::Fill(reader, end) => {
                let left = end.map(|end| end.saturating_sub(reader.offset()));
                Left::Fill(reader, left)
            }
            Body::Origin(body) => Left::Origin(body),
        };
        Pieces { left, trailers: Fields::new() }
    }

    /// The next bytes, never none; `None` after the last. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, BrokenOff> {
        match &mut self.left {
            Left::Nothing => Ok(None),
            Left::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.left = Left::Nothing;
                Ok((!bytes.is_empty()).then_some(Piece::Bytes(bytes)))
            }
            Left::Stored(stored, at, end) => stored_piece(stored, at, *end),
            Left::Sliced(reader) => Ok(reader.next().await?),
            Left::Multipart { stored, slices, parts, at, closing } => loop {
                let Some((start, end)) = at else {
                    let head = match parts.next() {
                        Some(part) => {
                            slices.iter_mut().for_each(|slices| slices.seek(part.start, part.end));
                            *at = Some((part.start, part.end));
                            part.head
                        }
                        None => std::mem::take(closing),
                    };
                    return Ok((!head.is_empty()).then_some(Piece::Bytes(head)));
                };
                let next = match slices {
                    Some(slices) => slices.next().await?,
                    None => stored_piece(stored, start, *end)?,
                };
                match next {
                    Some(piece) => return Ok(Some(piece)),
                    None => *at = None,
                }
            },
            Left::Fill(_, Some(0)) => Ok(None),
            Left::Fill(reader, left) => {
                let Some(mut piece) = reader.next().await? else { return Ok(None) };
                if let Some(left) = left {
                    piece.truncate((*left).min(piece.len() as u64) as usize);
                    *left -= piece.len() as u64;
                }
                Ok(Some(Piece::Bytes(piece)))
            }
            Left::Origin(body) => match body.chunk().await {
                Some(Ok(piece)) => Ok(Some(Piece::Bytes(piece))),
                Some(Err(_)) => Err(BrokenOff(Why::OriginProtocol)),
                None => {
                    self.trailers = body.take_trailers();
                    Ok(None)
                }
            },
        }
    }

    /// How what was missing of a stored body has come.
    pub(crate) fn joined(&self) -> Option<IsNew> {
        match &self.left {
            Left::Sliced(reader) | Left::Multipart { slices: Some(reader), .. } => reader.joined(),
            _ => None,
        }
    }

    /// The trailer fields, once the last piece has been given.
    pub(crate) fn take_trailers(&mut self) -> Fields {
        std::mem::take(&mut self.trailers)
    }
}

/// The longest piece of a stored body in `at..end`, without a copy; `at` moves behind it.
fn stored_piece(stored: &Object, at: &mut u64, end: u64) -> Result<Option<Piece>, BrokenOff> {
    if *at >= end {
        return Ok(None);
    }
    if let Some(run) = stored.pages() {
        let piece = Piece::Pages(run.clone(), *at, end);
        *at = end;
        return Ok(Some(piece));
    }
    let piece =
        Held { start: *at, len: stored.body_at(*at).len().min((end - *at) as usize), stored: stored.clone() };
    if piece.len == 0 {
        return Err(BrokenOff(Why::OriginProtocol));
    }
    *at += piece.len as u64;
    Ok(Some(Piece::Bytes(Bytes::from_owner(piece))))
}

/// A piece of a stored body, which lives as long as it is being sent.
struct Held {
    stored: Object,
    start: u64,
    len: usize,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.stored.body_at(self.start)[..self.len]
    }
}

/// Bytes `start..end` of a stored body that lies in one piece, without a copy; `None` when it doesn't.
pub(crate) fn held(stored: &Object, start: u64, end: u64) -> Option<Bytes> {
    let len = (end - start) as usize;
    if len == 0 {
        return Some(Bytes::new());
    }
    (stored.body_at(start).len() >= len)
        .then(|| Bytes::from_owner(Held { stored: stored.clone(), start, len }))
}
