//! A request body as it comes from the wire: a counted run of bytes, or chunks (RFC 9112 §6, §7.1).
//!
//! Chunked coding is read strictly: a size of 1 to 16 hex digits, CRLF exactly where it belongs, extensions without
//! control bytes and bounded, trailers bounded and dropped (no rule of ours uses them and RFC 9110 §6.5.1 lets us).

use bytes::Bytes;

/// Most bytes that one chunk's size line (with extensions) may take.
const CHUNK_LINE_MAX: usize = 256;

/// Most bytes that the trailer section may take.
const TRAILERS_MAX: usize = 8 * 1024;

/// How a request body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body.
    None,
    /// Content-Length bytes; never 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Takes a body out of a connection's read buffer, piece by piece.
#[derive(Debug)]
pub(crate) struct BodyDecoder {
    state: State,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Counted {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    ChunkEnd,
    Trailers,
    Done,
    /// What is wrong.
    Bad(&'static str),
}

/// What [`BodyDecoder::decode`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// These bytes of content; the buffer was advanced past them.
    Data(Bytes),
    /// Not enough bytes for a decision; read more.
    More,
    /// The body is complete; what is left in the buffer belongs to the next request.
    End,
}

/// The body breaks the chunked coding; the connection cannot be used any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadBody(pub(crate) &'static str);

impl BodyDecoder {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(left) => State::Counted { left },
            Framing::Chunked => State::ChunkSize,
        };
        BodyDecoder { state, trailer_bytes: 0 }
    }

    /// Whether the whole body has been taken.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next piece from the front of `buffer`: content of at most `data_max` bytes, of as many chunks as are there. Whoever sends a
    /// byte a chunk does not wake anybody for each.
    pub(crate) fn decode(&mut self, buffer: &mut Vec<u8>, data_max: usize) -> Result<Decoded, BadBody> {
        let (mut rest, mut content) = (buffer.as_slice(), Vec::new());
        if let Err(BadBody(what)) = self.gather(&mut rest, &mut content, data_max) {
            self.state = State::Bad(what);
        }
        let taken = buffer.len() - rest.len();
        buffer.drain(..taken);
        match self.state {
            _ if !content.is_empty() => Ok(Decoded::Data(content.into())),
            State::Bad(what) => Err(BadBody(what)),
            State::Done => Ok(Decoded::End),
            _ => Ok(Decoded::More),
        }
    }

    /// Advances `rest` and adds to `content` until that is full, the body is over, or more bytes are needed.
    fn gather(&mut self, rest: &mut &[u8], content: &mut Vec<u8>, data_max: usize) -> Result<(), BadBody> {
        loop {
            match self.state {
                State::Done | State::Bad(_) => return Ok(()),
                State::Counted { left: 0 } => self.state = State::Done,
                State::ChunkData { left: 0 } => self.state = State::ChunkEnd,
                State::Counted { left } | State::ChunkData { left } => {
                    let count = left.min(rest.len().min(data_max - content.len()) as u64);
                    if count == 0 {
                        return Ok(());
                    }
                    let (data, behind) = rest.split_at(count as usize);
                    content.extend_from_slice(data);
                    *rest = behind;
                    match &mut self.state {
                        State::Counted { left } | State::ChunkData { left } => *left -= count,
                        _ => {}
                    }
                }
                State::ChunkSize => match take_line(rest, CHUNK_LINE_MAX)? {
                    None => return Ok(()),
                    Some(line) => match chunk_size(line)? {
                        0 => self.state = State::Trailers,
                        left => self.state = State::ChunkData { left },
                    },
                },
                State::ChunkEnd => match *rest {
                    [b'\r', b'\n', behind @ ..] => {
                        *rest = behind;
                        self.state = State::ChunkSize;
                    }
                    [] | [b'\r'] => return Ok(()),
                    _ => return Err(BadBody("a chunk is not followed by CRLF")),
                },
                State::Trailers => match take_line(rest, TRAILERS_MAX)? {
                    None => return Ok(()),
                    Some([]) => self.state = State::Done,
                    Some(line) => {
                        self.trailer_bytes += line.len() + 2;
                        if self.trailer_bytes > TRAILERS_MAX {
                            return Err(BadBody("the trailer section is too long"));
                        }
                        let colon = memchr::memchr(b':', line).unwrap_or(0);
                        if colon == 0 || !line[..colon].iter().all(|&byte| semantics::fields::is_tchar(byte))
                        {
                            return Err(BadBody("a trailer line is not a field line"));
                        }
                    }
                },
            }
        }
    }
}

/// The next line without its CRLF.
fn take_line<'a>(rest: &mut &'a [u8], max: usize) -> Result<Option<&'a [u8]>, BadBody> {
    match memchr::memchr(b'\n', rest) {
        None if rest.len() > max => Err(BadBody("a line of the chunked coding is too long")),
        None => Ok(None),
        Some(lf) if lf > max => Err(BadBody("a line of the chunked coding is too long")),
        Some(lf) => {
            let Some((line, b"\r\n")) = rest[..=lf].split_at_checked(lf.wrapping_sub(1)) else {
                return Err(BadBody("a line of the chunked coding ends with LF without CR"));
            };
            *rest = &rest[lf + 1..];
            if line.iter().any(|&byte| semantics::fields::is_control(byte)) {
                return Err(BadBody("a line of the chunked coding has a control byte"));
            }
            Ok(Some(line))
        }
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, BadBody> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // Fifteen digits hold 2^60 bytes: more is an attempt to overflow somebody's counter.
    if digits == 0 || digits > 15 {
        return Err(BadBody("a chunk size is not 1 to 15 hex digits"));
    }
    match semantics::fields::trim(&line[digits..]) {
        [] if line.len() == digits => {}
        [b';', ..] => {}
        _ => return Err(BadBody("a chunk size is followed by something that is no extension")),
    }
    Ok(line[..digits]
        .iter()
        .fold(0, |size, &byte| size << 4 | u64::from((byte as char).to_digit(16).unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content and what is left over.
    type Taken = (Vec<u8>, Vec<u8>);

    /// Decodes `bytes` fed in pieces of `step`.
    fn decode(framing: Framing, bytes: &[u8], step: usize) -> Result<Option<Taken>, BadBody> {
        let mut decoder = BodyDecoder::new(framing);
        let (mut buffer, mut content, mut fed) = (Vec::new(), Vec::new(), 0);
        loop {
            match decoder.decode(&mut buffer, 3)? {
                Decoded::Data(data) => content.extend_from_slice(&data),
                Decoded::End => {
                    buffer.extend_from_slice(&bytes[fed..]);
                    return Ok(Some((content, buffer)));
                }
                Decoded::More if fed == bytes.len() => return Ok(None),
                Decoded::More => {
                    let end = (fed + step).min(bytes.len());
                    buffer.extend_from_slice(&bytes[fed..end]);
                    fed = end;
                }
            }
        }
    }

    #[test]
    fn bodies_come_out_whole_however_they_are_cut() {
        for step in [1, 2, 5, 100] {
            for (framing, bytes, content, rest) in [
                (Framing::Length(5), &b"helloGET"[..], &b"hello"[..], &b"GET"[..]),
                (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET"),
                (Framing::Chunked, b"2;a=b\r\nhe\r\n0003 ;x\r\nllo\r\n0\r\nX: y\r\n\r\n", b"hello", b""),
                (Framing::None, b"GET", b"", b"GET"),
            ] {
                let decoded = decode(framing, bytes, step).unwrap().unwrap();
                assert_eq!(decoded, (content.to_vec(), rest.to_vec()), "{framing:?} by {step}");
            }
        }
    }

    #[test]
    fn chunks_of_a_byte_come_out_as_one_piece() {
        let mut buffer = b"1\r\nx\r\n".repeat(4_000);
        buffer.extend(b"0\r\n\r\nGET");
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        for piece in [3_000, 1_000] {
            assert_eq!(decoder.decode(&mut buffer, 3_000), Ok(Decoded::Data(vec![b'x'; piece].into())));
        }
        assert_eq!((decoder.decode(&mut buffer, 3_000), &buffer[..]), (Ok(Decoded::End), &b"GET"[..]));
    }

    #[test]
    fn bad_chunks_are_refused() {
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
        for bytes in [
            "x\r\n",
            "-1\r\n",
            "0x5\r\nhello",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "\r\n",
            " 5\r\nhello\r\n",
            "5 5\r\nhello",
            "1234567890123456\r\n",
            "5;\0\r\nhello",
            "5;a\rb\r\nhello",
            "0\r\nbad line\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
            &long,
        ] {
            assert!(decode(Framing::Chunked, bytes.as_bytes(), 1).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_cut_body_is_not_complete() {
        assert_eq!(decode(Framing::Length(5), b"hell", 2), Ok(None));
        assert_eq!(decode(Framing::Chunked, b"5\r\nhello\r\n0\r\n", 2), Ok(None));
    }
}
