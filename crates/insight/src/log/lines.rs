//! Streams a log: plain or gzipped, line by line, whatever its length.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::{Format, LINE_BYTES_MAX, Reader, Record, clip};

/// Malformed lines that are kept to be shown.
const SHOWN_MAX: usize = 5;

const BUFFER_BYTES: usize = 128 * 1024;

/// A line that could not be read.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Malformed {
    /// Its number, from 1.
    pub line: u64,
    /// What was wrong.
    pub why: String,
    /// Its beginning.
    pub text: String,
}

/// A log that is being read.
pub struct Lines<R: Read> {
    source: Source<R>,
    reader: Reader,
    buffer: Vec<u8>,
    /// Lines that have been read, comments and malformed ones included.
    pub count: u64,
    /// How many were malformed.
    pub malformed: u64,
    /// The first of those.
    pub shown: Vec<Malformed>,
}

/// What it comes from: known when the first bytes are there.
enum Source<R: Read> {
    New(BufReader<R>),
    Plain(BufReader<R>),
    Gzip(Box<BufReader<MultiGzDecoder<BufReader<R>>>>),
    Over,
}

impl<R: Read> Lines<R> {
    /// Reads from `input` when asked to.
    pub fn new(input: R) -> Self {
        Lines {
            source: Source::New(BufReader::with_capacity(BUFFER_BYTES, input)),
            reader: Reader::default(),
            buffer: Vec::new(),
            count: 0,
            malformed: 0,
            shown: Vec::new(),
        }
    }

    /// The next request; `None` at the end. Malformed lines are counted and passed over.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and what it counts is read beside it")]
    pub fn next(&mut self) -> io::Result<Option<(Format, Record)>> {
        loop {
            let Some(is_whole) = self.take_line()? else { return Ok(None) };
            self.count += 1;
            let read = match is_whole {
                true => self.reader.read(&self.buffer),
                false => Err(super::unreadable(format!("it is longer than {LINE_BYTES_MAX} bytes"))),
            };
            match read {
                Ok(Some(read)) => return Ok(Some(read)),
                Ok(None) => {}
                Err(why) => {
                    self.malformed += 1;
                    if self.shown.len() < SHOWN_MAX {
                        let text = clip(&String::from_utf8_lossy(&self.buffer));
                        self.shown.push(Malformed { line: self.count, why: why.0, text });
                    }
                }
            }
        }
    }

    /// Puts the next line into the buffer, as much as it may have; whether it is whole. `None` at the end.
    fn take_line(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        if let Source::New(_) = self.source {
            self.open()?;
        }
        let input: &mut dyn BufRead = match &mut self.source {
            Source::Plain(plain) => plain,
            Source::Gzip(packed) => packed,
            Source::New(_) | Source::Over => return Ok(None),
        };
        let mut is_whole = true;
        let mut has_begun = false;
        loop {
            let part = match input.fill_buf() {
                Ok(part) => part,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if part.is_empty() {
                return Ok(has_begun.then_some(is_whole));
            }
            has_begun = true;
            let end = part.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(part.len());
            let room = LINE_BYTES_MAX.saturating_sub(self.buffer.len()).min(taken);
            self.buffer.extend_from_slice(&part[..room]);
            is_whole &= room == taken;
            input.consume(end.map_or(taken, |end| end + 1));
            if end.is_some() {
                return Ok(Some(is_whole));
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let Source::New(mut input) = std::mem::replace(&mut self.source, Source::Over) else { return Ok(()) };
        let is_gzip = input.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        self.source = match is_gzip {
            true => {
                Source::Gzip(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input))))
            }
            false => Source::Plain(input),
        };
        Ok(())
    }
}
