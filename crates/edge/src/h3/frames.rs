//! Frames out of the bytes of a stream (RFC 9114 §7). Content is passed on as it comes, without a copy but of small frames; what has to be
//! whole to be understood is gathered, and bounded before a byte of it is kept.
//!
//! ```text
//! push(bytes) ─► next() ─► Section, Data, Settings, …
//! ```

use bytes::{Buf, Bytes, BytesMut};

use super::{Code, read_varint};

const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const CANCEL_PUSH: u64 = 0x03;
const SETTINGS: u64 = 0x04;
const PUSH_PROMISE: u64 = 0x05;
const GOAWAY: u64 = 0x07;
const MAX_PUSH_ID: u64 = 0x0d;
/// RFC 9218 §7.2, for requests and for pushes.
const PRIORITY_UPDATE: u64 = 0xf_0700;
const PRIORITY_UPDATE_PUSH: u64 = 0xf_0701;

/// The longest frame of the control stream that is understood: a few settings, a priority.
const CONTROL_BYTES_MAX: u64 = 1024;

/// What a stream may send without saying anything, in bytes, each frame counted with [`FRAME_COST`] more: unknown frames,
/// which RFC 9114 §9 lets pass, empty content, and everything on the control stream. Chromium sends one such frame a
/// connection.
const IDLE_BYTES_MAX: u64 = 64 * 1024;
const FRAME_COST: u64 = 64;

/// Content of frames that come together is put together up to this.
const SMALL_BYTES: usize = 1024;

/// Which stream the frames are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// A request, whose field sections have at most so many bytes.
    Request { section_bytes_max: u64 },
    /// The control stream.
    Control,
}

/// A frame, or a part of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// HEADERS: an encoded field section.
    Section(Bytes),
    /// A part of DATA, never empty.
    Data(Bytes),
    Settings(Bytes),
    /// GOAWAY, MAX_PUSH_ID and CANCEL_PUSH: all about pushes, which we never send.
    AboutPush {
        frame: PushFrame,
        payload: Bytes,
    },
    /// PRIORITY_UPDATE for a request.
    PriorityUpdate(Bytes),
}

/// Which of the frames about pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushFrame {
    GoAway,
    MaxId,
    Cancel,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// A field section is longer than allowed. The stream can still be answered.
    SectionTooLong,
    /// The connection is to be closed with this code.
    Close(Code),
}

/// The frames of one stream.
#[derive(Debug)]
pub(crate) struct Frames {
    on: On,
    /// Bytes that nobody has looked at.
    bytes: Bytes,
    /// The begin of a frame, or of its payload, that came in pieces.
    gathered: BytesMut,
    inside: Inside,
    idle: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// Between two frames, or in the type and length of one.
    Nothing,
    Data {
        left: u64,
    },
    Gathering {
        kind: u64,
        left: u64,
    },
    Skipping {
        left: u64,
    },
}

impl Frames {
    pub(crate) fn new(on: On) -> Self {
        Frames { on, bytes: Bytes::new(), gathered: BytesMut::new(), inside: Inside::Nothing, idle: 0 }
    }

    /// Takes the stream's next bytes. What came before must have been read up to `None`.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.bytes.is_empty(), "frames are read before more is pushed");
        self.bytes = bytes;
    }

    /// The next frame or part of content; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, BadFrame> {
        loop {
            match self.inside {
                Inside::Nothing => {
                    let Some((kind, length)) = self.begin() else { return Ok(None) };
                    self.inside = self.enter(kind, length)?;
                }
                Inside::Data { left: 0 } | Inside::Skipping { left: 0 } => self.inside = Inside::Nothing,
                Inside::Gathering { kind, left } => {
                    let Some(payload) = self.gather(left) else { return Ok(None) };
                    self.inside = Inside::Nothing;
                    if let Some(frame) = whole(kind, payload) {
                        return Ok(Some(frame));
                    }
                }
                _ if self.bytes.is_empty() => return Ok(None),
                Inside::Data { left } => {
                    let part = self.content(left);
                    return Ok(Some(Frame::Data(self.with_what_follows(part))));
                }
                Inside::Skipping { left } => {
                    let part = left.min(self.bytes.len() as u64);
                    self.bytes.advance(part as usize);
                    self.inside = Inside::Skipping { left: left - part };
                }
            }
        }
    }

    /// What is there of a frame's content.
    fn content(&mut self, left: u64) -> Bytes {
        let part = self.bytes.split_to(left.min(self.bytes.len() as u64) as usize);
        self.inside = Inside::Data { left: left - part.len() as u64 };
        part
    }

    /// A small part of content, together with what is there of the frames behind it: whoever sends a byte a frame does not wake
    /// anybody for each.
    fn with_what_follows(&mut self, part: Bytes) -> Bytes {
        let mut small = BytesMut::new();
        while matches!(self.inside, Inside::Data { left: 0 })
            && part.len().max(small.len()) < SMALL_BYTES
            && let Some((DATA, length @ 1.., used)) = type_and_length(&self.bytes)
        {
            if small.is_empty() {
                small.extend_from_slice(&part);
            }
            self.bytes.advance(used);
            let more = self.content(length);
            small.extend_from_slice(&more);
        }
        if small.is_empty() { part } else { small.freeze() }
    }

    /// Whether all that was pushed has been read, and a stream that ends here ends well (RFC 9114 §7.1).
    pub(crate) fn is_between(&self) -> bool {
        let is_between =
            matches!(self.inside, Inside::Nothing | Inside::Data { left: 0 } | Inside::Skipping { left: 0 });
        is_between && self.bytes.is_empty() && self.gathered.is_empty()
    }

    /// A request came: what the control stream has said until now was worth it.
    pub(crate) fn forgive(&mut self) {
        self.idle = 0;
    }

    /// Type and length of the next frame.
    fn begin(&mut self) -> Option<(u64, u64)> {
        if self.gathered.is_empty()
            && let Some((kind, length, used)) = type_and_length(&self.bytes)
        {
            self.bytes.advance(used);
            return Some((kind, length));
        }
        while !self.bytes.is_empty() {
            self.gathered.extend_from_slice(&self.bytes.split_to(1));
            if let Some((kind, length, _)) = type_and_length(&self.gathered) {
                self.gathered.clear();
                return Some((kind, length));
            }
        }
        None
    }

    /// What to do with a frame of this type.
    fn enter(&mut self, kind: u64, length: u64) -> Result<Inside, BadFrame> {
        let unexpected = Err(BadFrame::Close(Code::FrameUnexpected));
        if self.on == On::Control || length == 0 {
            self.count_idle(0)?;
        }
        match (kind, self.on) {
            (DATA, On::Request { .. }) => Ok(Inside::Data { left: length }),
            (HEADERS, On::Request { section_bytes_max }) => {
                if length > section_bytes_max {
                    return Err(BadFrame::SectionTooLong);
                }
                Ok(Inside::Gathering { kind, left: length })
            }
            (
                SETTINGS | GOAWAY | MAX_PUSH_ID | CANCEL_PUSH | PRIORITY_UPDATE | PRIORITY_UPDATE_PUSH,
                On::Control,
            ) => {
                if length > CONTROL_BYTES_MAX {
                    return Err(BadFrame::Close(Code::ExcessiveLoad));
                }
                Ok(Inside::Gathering { kind, left: length })
            }
            // No client promises; the last are HTTP/2's, which must not be used again (RFC 9114 §7.2.8).
            (DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID, _)
            | (PRIORITY_UPDATE | PRIORITY_UPDATE_PUSH, _)
            | (0x02 | 0x06 | 0x08 | 0x09, _) => unexpected,
            _ => {
                self.count_idle(length)?;
                Ok(Inside::Skipping { left: length })
            }
        }
    }

    fn count_idle(&mut self, length: u64) -> Result<(), BadFrame> {
        self.idle = self.idle.saturating_add(length).saturating_add(FRAME_COST);
        if self.idle > IDLE_BYTES_MAX { Err(BadFrame::Close(Code::ExcessiveLoad)) } else { Ok(()) }
    }

    /// The payload of a frame, once it is there.
    fn gather(&mut self, length: u64) -> Option<Bytes> {
        let length = length as usize;
        if self.gathered.is_empty() && self.bytes.len() >= length {
            return Some(self.bytes.split_to(length));
        }
        let missing = length - self.gathered.len();
        self.gathered.extend_from_slice(&self.bytes.split_to(missing.min(self.bytes.len())));
        (self.gathered.len() == length).then(|| self.gathered.split().freeze())
    }
}

fn type_and_length(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, at) = read_varint(bytes)?;
    let (length, used) = read_varint(&bytes[at..])?;
    Some((kind, length, at + used))
}

/// A frame by its type; `None` for those that mean nothing here.
fn whole(kind: u64, payload: Bytes) -> Option<Frame> {
    match kind {
        HEADERS => Some(Frame::Section(payload)),
        SETTINGS => Some(Frame::Settings(payload)),
        PRIORITY_UPDATE => Some(Frame::PriorityUpdate(payload)),
        GOAWAY => Some(Frame::AboutPush { frame: PushFrame::GoAway, payload }),
        MAX_PUSH_ID => Some(Frame::AboutPush { frame: PushFrame::MaxId, payload }),
        CANCEL_PUSH => Some(Frame::AboutPush { frame: PushFrame::Cancel, payload }),
        _ => None,
    }
}

// --- Settings ---

/// Checks the settings of a visitor (RFC 9114 §7.2.4). None of those that exist changes what we send.
pub(crate) fn check_settings(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let (name, used) = read_varint(payload).ok_or(Code::FrameError)?;
        let (_value, more) = read_varint(&payload[used..]).ok_or(Code::FrameError)?;
        payload = &payload[used + more..];
        // §7.2.4.1: those of HTTP/2 must not be used again.
        if seen.contains(&name) || matches!(name, 0x00 | 0x02..=0x05) {
            return Err(Code::SettingsError);
        }
        seen.push(name);
    }
    Ok(())
}

/// Our settings, and the type of the stream that they open: the largest field section that is read (RFC 9114 §7.2.4.1), and
/// that CONNECT may ask for another protocol (RFC 9220 §3).
/// What isn't said has its default: no dynamic table, no stream that waits for one.
pub(crate) fn control_stream(section_bytes_max: u64) -> Vec<u8> {
    const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
    const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
    let mut settings = Vec::with_capacity(16);
    super::write_varint(&mut settings, MAX_FIELD_SECTION_SIZE);
    super::write_varint(&mut settings, section_bytes_max);
    super::write_varint(&mut settings, ENABLE_CONNECT_PROTOCOL);
    super::write_varint(&mut settings, 1);
    let mut out = Vec::with_capacity(32);
    super::write_varint(&mut out, CONTROL_STREAM);
    write_head(&mut out, SETTINGS, settings.len() as u64);
    out.extend_from_slice(&settings);
    out
}

/// GOAWAY (RFC 9114 §5.2): requests from this stream on are not taken.
pub(crate) fn goaway(stream: u64) -> Vec<u8> {
    let (mut id, mut out) = (Vec::with_capacity(8), Vec::with_capacity(16));
    super::write_varint(&mut id, stream);
    write_head(&mut out, GOAWAY, id.len() as u64);
    out.extend_from_slice(&id);
    out
}

/// Appends the begin of a DATA frame.
pub(crate) fn write_data_head(out: &mut Vec<u8>, length: u64) {
    write_head(out, DATA, length);
}

/// Appends a HEADERS frame.
pub(crate) fn write_section(out: &mut Vec<u8>, section: &[u8]) {
    write_head(out, HEADERS, section.len() as u64);
    out.extend_from_slice(section);
}

fn write_head(out: &mut Vec<u8>, kind: u64, length: u64) {
    super::write_varint(out, kind);
    super::write_varint(out, length);
}

// --- Stream types (RFC 9114 §6.2, RFC 9204 §4.2) ---

pub(crate) const CONTROL_STREAM: u64 = 0x00;
pub(crate) const PUSH_STREAM: u64 = 0x01;
pub(crate) const ENCODER_STREAM: u64 = 0x02;
pub(crate) const DECODER_STREAM: u64 = 0x03;

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: On = On::Request { section_bytes_max: 100 };

    /// All frames of `bytes`, which come in pieces of `size`.
    fn read(on: On, bytes: &[u8], size: usize) -> Result<(Vec<Frame>, bool), BadFrame> {
        let mut frames = Frames::new(on);
        let mut all: Vec<Frame> = Vec::new();
        for piece in bytes.chunks(size) {
            frames.push(Bytes::copy_from_slice(piece));
            while let Some(frame) = frames.next()? {
                match (all.last_mut(), &frame) {
                    (Some(Frame::Data(before)), Frame::Data(more)) => {
                        *before = [&before[..], more].concat().into()
                    }
                    _ => all.push(frame),
                }
            }
        }
        Ok((all, frames.is_between()))
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let mut bytes = Vec::new();
        write_section(&mut bytes, b"section");
        bytes.extend_from_slice(&[0x21, 0x03, 1, 2, 3]);
        write_data_head(&mut bytes, 300);
        bytes.extend_from_slice(&[7; 300]);
        write_data_head(&mut bytes, 0);
        write_section(&mut bytes, b"trailers");
        let wanted = vec![
            Frame::Section(Bytes::from_static(b"section")),
            Frame::Data(vec![7; 300].into()),
            Frame::Section(Bytes::from_static(b"trailers")),
        ];
        for size in 1..=bytes.len() {
            assert_eq!(read(REQUEST, &bytes, size), Ok((wanted.clone(), true)), "in pieces of {size}");
        }
        for cut in 1..bytes.len() {
            let ends_well = [9, 14, 317, 319].contains(&cut);
            assert_eq!(read(REQUEST, &bytes[..cut], cut).map(|read| read.1), Ok(ends_well), "cut at {cut}");
        }
    }

    #[test]
    fn content_in_frames_of_a_byte_comes_out_in_pieces_of_many() {
        let mut bytes = b"\x00\x01x".repeat(2 * SMALL_BYTES);
        bytes.extend(b"\x00\x02y");
        let mut frames = Frames::new(On::Request { section_bytes_max: 0 });
        frames.push(bytes.into());
        let x = vec![b'x'; SMALL_BYTES];
        for piece in [x.clone(), x, b"y".to_vec()] {
            assert_eq!(frames.next(), Ok(Some(Frame::Data(piece.into()))));
        }
        assert_eq!(frames.next(), Ok(None));
        frames.push(b"z\x00\x01z".to_vec().into());
        assert_eq!(frames.next(), Ok(Some(Frame::Data(b"zz".to_vec().into()))));
        assert!(frames.is_between());
    }

    #[test]
    fn what_does_not_belong_there_closes_the_connection() {
        let unexpected = Err(BadFrame::Close(Code::FrameUnexpected));
        for kind in [0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0d] {
            assert_eq!(read(REQUEST, &[kind, 0], 8), unexpected, "{kind} on a request");
        }
        for kind in [0x00, 0x01, 0x02, 0x05, 0x06, 0x08, 0x09] {
            assert_eq!(read(On::Control, &[kind, 0], 8), unexpected, "{kind} on the control stream");
        }
    }

    #[test]
    fn a_long_section_is_refused_before_it_comes() {
        let mut frames = Frames::new(REQUEST);
        frames.push(Bytes::from_static(&[0x01, 0x40, 101]));
        assert_eq!(frames.next(), Err(BadFrame::SectionTooLong));
        let mut frames = Frames::new(On::Control);
        frames.push(Bytes::from_static(&[0x04, 0x44, 0x01]));
        assert_eq!(frames.next(), Err(BadFrame::Close(Code::ExcessiveLoad)));
    }

    #[test]
    fn saying_nothing_has_an_end() {
        let excessive = Err(BadFrame::Close(Code::ExcessiveLoad));
        assert_eq!(read(REQUEST, &[0x00, 0x00].repeat(1100), 4096), excessive, "empty content");
        assert_eq!(read(REQUEST, &[0x21, 0x01, 0x00].repeat(1100), 4096), excessive, "unknown frames");
        assert_eq!(read(REQUEST, &[0x21, 0x80, 0x01, 0x00, 0x00], 8), excessive, "a long unknown frame");
        assert_eq!(read(On::Control, &[0x0d, 0x01, 0x00].repeat(1100), 4096), excessive, "control frames");
        assert!(read(REQUEST, &[0x00, 0x01, 0x07].repeat(5000), 4096).is_ok(), "small content is content");
    }

    #[test]
    fn settings_are_checked() {
        assert_eq!(check_settings(&[]), Ok(()));
        assert_eq!(check_settings(&[0x06, 0x44, 0x00, 0x01, 0x00, 0x33, 0x01]), Ok(()));
        assert_eq!(check_settings(&[0x06, 0x01, 0x06, 0x01]), Err(Code::SettingsError));
        assert_eq!(check_settings(&[0x02, 0x01]), Err(Code::SettingsError));
        assert_eq!(check_settings(&[0x06]), Err(Code::FrameError));
        let ours = control_stream(32 * 1024);
        assert_eq!(ours[0], 0);
        let read = read(On::Control, &ours[1..], 64);
        let Ok((frames, true)) = read else { panic!("{read:?}") };
        let [Frame::Settings(settings)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(check_settings(settings), Ok(()));
    }
}
