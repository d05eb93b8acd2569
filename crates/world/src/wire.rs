//! HTTP/1.1 as bytes on a socket: reads heads and bodies and says how each ended, writes whatever it is given.
//!
//! It parses leniently and judges nothing: a test must be able to see exactly what came. It follows no redirects,
//! retries nothing, decodes no content coding, and adds no header. Used by the conformance runner and by scenarios.

use std::io;

use semantics::Fields;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most bytes of one head before reading gives up: far above what a test sends.
const HEAD_BYTES_MAX: usize = 4 << 20;

/// A message head: the first line as text, the fields, and the bytes as they came (with the empty line).
#[derive(Clone, Debug)]
pub struct Head {
    /// Request line or status line, without CRLF. Bytes that are not UTF-8 are replaced.
    pub line: String,
    /// Every line with a colon, in order.
    pub fields: Fields,
    /// The head byte for byte.
    pub raw: Vec<u8>,
}

impl Head {
    /// Method and target of a request head; empty where the line has too few words.
    pub fn method_and_target(&self) -> (&str, &str) {
        let mut words = self.line.split(' ');
        (words.next().unwrap_or(""), words.next().unwrap_or(""))
    }

    /// The three digits of a status line; 0 when there are none.
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// All lines of `name` joined by `", "`, as text.
    pub fn field(&self, name: &str) -> Option<String> {
        self.fields.combined(name).map(|value| String::from_utf8_lossy(&value).into_owned())
    }

    fn parse(raw: Vec<u8>) -> Head {
        let text = raw.strip_suffix(b"\r\n\r\n").unwrap_or(&raw);
        let mut lines =
            text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let line = String::from_utf8_lossy(lines.next().unwrap_or(b"")).into_owned();
        let mut fields = Fields::new();
        for line in lines {
            if let Some(colon) = line.iter().position(|&byte| byte == b':') {
                fields.append_unchecked(&line[..colon], semantics::fields::trim(&line[colon + 1..]));
            }
        }
        Head { line, fields, raw }
    }
}

/// How the length of a body is told (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
    /// All until the connection closes.
    UntilClose,
}

impl Framing {
    /// For a request head.
    pub fn of_request(head: &Head) -> Framing {
        match (is_chunked(&head.fields), length(&head.fields)) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Empty,
        }
    }

    /// For the head of a final response to `method`.
    pub fn of_response(method: &str, head: &Head) -> Framing {
        let status = head.status();
        if method == "HEAD" || status == 204 || status == 304 || (100..200).contains(&status) {
            Framing::Empty
        } else if is_chunked(&head.fields) {
            Framing::Chunked
        } else if head.fields.contains("transfer-encoding") {
            Framing::UntilClose
        } else {
            length(&head.fields).map_or(Framing::UntilClose, Framing::Length)
        }
    }
}

fn is_chunked(fields: &Fields) -> bool {
    fields.combined("transfer-encoding").is_some_and(|value| {
        String::from_utf8_lossy(&value)
            .rsplit(',')
            .next()
            .is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"))
    })
}

fn length(fields: &Fields) -> Option<u64> {
    String::from_utf8_lossy(fields.get("content-length")?).trim().parse().ok()
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its framing says that it is whole. A body that is delimited by close is whole when the peer closed cleanly.
    Whole,
    /// The connection closed or broke, or the framing was wrong, before the end.
    Cut,
}

/// A body with its end.
#[derive(Clone, Debug)]
pub struct Body {
    /// The content without framing.
    pub bytes: Vec<u8>,
    /// Whether that was all.
    pub end: End,
}

/// A response as a client saw it.
#[derive(Clone, Debug)]
pub struct Response {
    /// Heads with a 1xx status that came first.
    pub interim: Vec<Head>,
    /// The final head.
    pub head: Head,
    /// The body.
    pub body: Body,
}

/// One end of a connection, with what was read and not yet used.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Takes over a connected socket.
    pub fn new(stream: TcpStream) -> Wire {
        let _ = stream.set_nodelay(true);
        Wire { stream, buffer: Vec::new() }
    }

    /// Connects to `address` (`host:port`).
    pub async fn connect(address: &str) -> io::Result<Wire> {
        Ok(Wire::new(TcpStream::connect(address).await?))
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends `bytes` as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends FIN and keeps reading.
    pub async fn finish_writing(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes with RST, so that the peer sees an error and no end of stream.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    /// Reads up to an empty line. `None`: the peer closed before the first byte. An error: it closed inside the head.
    /// Empty lines before the head are skipped (RFC 9112 §2.2).
    pub async fn read_head(&mut self) -> io::Result<Option<Head>> {
        loop {
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.drain(..2);
            }
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                return Ok(Some(Head::parse(std::mem::replace(&mut self.buffer, rest))));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("a head without end"));
            }
            if self.fill().await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Reads a body. Never fails: what goes wrong is told by [`Body::end`].
    pub async fn read_body(&mut self, framing: Framing) -> Body {
        let mut bytes = Vec::new();
        let end = match framing {
            Framing::Empty => Ok(()),
            Framing::Length(length) => self.take(length as usize, &mut bytes).await,
            Framing::Chunked => self.read_chunks(&mut bytes).await,
            Framing::UntilClose => self.read_to_close(&mut bytes).await,
        };
        Body { bytes, end: if end.is_ok() { End::Whole } else { End::Cut } }
    }

    /// Reads interim heads, the final head and the body of a response to `method`.
    pub async fn read_response(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.read_head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if (100..200).contains(&head.status()) && head.status() != 101 {
                interim.push(head);
                continue;
            }
            let body = self.read_body(Framing::of_response(method, &head)).await;
            return Ok(Response { interim, head, body });
        }
    }

    /// Reads whatever comes until the peer closes; for checks that nothing more comes.
    pub async fn read_rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.read_to_close(&mut rest).await;
        rest
    }

    /// Reads exactly `length` bytes onto `into`; what came of them is kept on an error.
    pub async fn take(&mut self, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let mut missing = length;
        loop {
            let ready = missing.min(self.buffer.len());
            into.extend(self.buffer.drain(..ready));
            missing -= ready;
            if missing == 0 {
                return Ok(());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn read_to_close(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            into.append(&mut self.buffer);
            if self.fill().await? == 0 {
                return Ok(());
            }
        }
    }

    /// What was received and not yet used.
    pub fn unread(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads one chunk; an empty one is the last, after which its trailer section has been read too.
    pub async fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::new();
        self.chunk_onto(&mut chunk).await?;
        Ok(chunk)
    }

    async fn read_chunks(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        while self.chunk_onto(into).await? {}
        Ok(())
    }

    /// Says whether more chunks follow. What came of a chunk is kept on an error.
    async fn chunk_onto(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        let line = self.read_line().await?;
        let digits = line.split(|&byte| byte == b';').next().unwrap_or(b"");
        let size =
            std::str::from_utf8(digits).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let size = size.ok_or_else(|| io::Error::other("a chunk size that is no number"))?;
        if size == 0 {
            while !self.read_line().await?.is_empty() {}
            return Ok(false);
        }
        self.take(size, into).await?;
        match self.read_line().await?.is_empty() {
            true => Ok(true),
            false => Err(io::Error::other("a chunk longer than its size")),
        }
    }

    async fn read_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(16 << 10);
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
