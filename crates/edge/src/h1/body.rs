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
    Counted { left: u64 },
    ChunkSize,
    ChunkData { left: u64 },
    ChunkEnd,
    Trailers,
    Done,
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

    /// Takes the next piece from the front of `buffer`, copying content of at most `data_max` bytes.
    pub(crate) fn decode(&mut self, buffer: &mut Vec<u8>, data_max: usize) -> Result<Decoded, BadBody> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                State::Counted { left } => {
                    let Some(data) = take(buffer, left.min(data_max as u64)) else {
                        return Ok(Decoded::More);
                    };
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Counted { left } };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkSize => match take_line(buffer, CHUNK_LINE_MAX)? {
                    None => return Ok(Decoded::More),
                    Some(line) => match chunk_size(&line)? {
                        0 => self.state = State::Trailers,
                        left => self.state = State::ChunkData { left },
                    },
                },
                State::ChunkData { left } => {
                    let Some(data) = take(buffer, left.min(data_max as u64)) else {
                        return Ok(Decoded::More);
                    };
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData { left } };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkEnd => match buffer.as_slice() {
                    [b'\r', b'\n', ..] => {
                        buffer.drain(..2);
                        self.state = State::ChunkSize;
                    }
                    [] | [b'\r'] => return Ok(Decoded::More),
                    _ => return Err(BadBody("a chunk is not followed by CRLF")),
                },
                State::Trailers => match take_line(buffer, TRAILERS_MAX)? {
                    None => return Ok(Decoded::More),
                    Some(line) if line.is_empty() => self.state = State::Done,
                    Some(line) => {
                        self.trailer_bytes += line.len() + 2;
                        if self.trailer_bytes > TRAILERS_MAX {
                            return Err(BadBody("the trailer section is too long"));
                        }
                        let colon = memchr::memchr(b':', &line).unwrap_or(0);
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

/// Up to `max` bytes from the front of `buffer`; `None` when it is empty.
fn take(buffer: &mut Vec<u8>, max: u64) -> Option<Bytes> {
    if buffer.is_empty() {
        return None;
    }
    let count = buffer.len().min(max as usize);
    let data = Bytes::copy_from_slice(&buffer[..count]);
    buffer.drain(..count);
    Some(data)
}

/// The next line without its CRLF.
fn take_line(buffer: &mut Vec<u8>, max: usize) -> Result<Option<Vec<u8>>, BadBody> {
    match memchr::memchr(b'\n', buffer) {
        None if buffer.len() > max => Err(BadBody("a line of the chunked coding is too long")),
        None => Ok(None),
        Some(lf) if lf > max => Err(BadBody("a line of the chunked coding is too long")),
        Some(lf) => {
            if lf == 0 || buffer[lf - 1] != b'\r' {
                return Err(BadBody("a line of the chunked coding ends with LF without CR"));
            }
            let line = buffer[..lf - 1].to_vec();
            buffer.drain(..=lf);
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
