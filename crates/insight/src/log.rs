//! Access logs: what was asked, what was answered, and what is known of why.
//!
//! Four formats, told apart line by line, so that logs that were put together are read as they are:
//!
//! | format | begins with | what it tells beside request and status |
//! |---|---|---|
//! | ours, `access_log_format = "json"` | `{` | outcome and reason, age and TTL, the origin's answer |
//! | Cloudflare Logpush, `http_requests` | `{` | outcome, the origin's status, some response fields |
//! | CloudFront, standard logs | `#` or a date and a tab | outcome, content type and length |
//! | combined, of Apache, nginx and others | anything else | nothing |
//!
//! [`Lines`] streams them, also gzipped, in bounded memory; a line that cannot be read is counted, and the first of them are
//! kept to be shown. Not read: CloudFront's real-time logs, common format without referer.

mod cloudfront;
mod combined;
mod json;
mod lines;
mod time;

use std::fmt;

use semantics::{Fields, Outcome, Wall};

pub use lines::{Lines, Malformed};

/// Longest line that is read: the target and the visitor's words may have 32 KiB each, escaped.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// Longest body. What is said to be longer is taken to be so long: sums of millions of them are numbers still.
pub const BODY_BYTES_MAX: u64 = 1 << 40;

/// One request, as far as its log tells.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// When it ended, or began where the log says only that.
    pub time: Wall,
    /// As sent.
    pub method: String,
    /// Lower-case, without port; empty where the log has none.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Whether it came over TLS; `None` where the log does not tell.
    pub secure: Option<bool>,
    /// Whether it had Authorization. Only our log tells.
    pub authorized: bool,
    /// The request's fields that the log has: Referer, User-Agent.
    pub fields: Fields,
    /// The visitor's address, as text; may be empty.
    pub client: String,
    /// The status that the visitor got; 0 is none.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub body_bytes: u64,
    /// Bytes of the head that were sent, where the log tells.
    pub head_bytes: Option<u64>,
    /// From the request to the first byte of the answer, in µs, where the log tells.
    pub first_byte_us: Option<u64>,
    /// What the cache made of it, where the log tells.
    pub outcome: Option<Outcome>,
    /// Why, in our own words; other logs' words are translated where there is a match.
    pub why: Option<&'static str>,
    /// Seconds of age of the stored response that answered.
    pub age: Option<u32>,
    /// Seconds of freshness that it had left.
    pub ttl: Option<i64>,
    /// Whether it joined another request's fetch.
    pub collapsed: bool,
    /// The coding that the edge itself had made of the body.
    pub encoded: bool,
    /// What chose between variants, and a hash of its value.
    pub selected_by: Vec<(String, u32)>,
    /// The origin's part.
    pub fetch: Option<Fetch>,
    /// Content-Type of the answer, where the log has it by itself.
    pub content_type: Option<String>,
}

/// What an origin did for a request.
#[derive(Clone, Debug, Default)]
pub struct Fetch {
    /// Its status; 0 when it gave no answer.
    pub status: u16,
    /// µs until its head was there.
    pub us: u64,
    /// The fields of its answer that the log has; `None` where logs of this kind have none.
    pub answer: Option<Fields>,
}

/// Which log a line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Ours, as JSON.
    Json,
    /// Cloudflare Logpush.
    Logpush,
    /// CloudFront's standard log.
    CloudFront,
    /// The combined format.
    Combined,
}

impl Format {
    /// All of them.
    pub const ALL: &'static [Format] = &[Format::Json, Format::Logpush, Format::CloudFront, Format::Combined];

    /// What to call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Logpush => "logpush",
            Format::CloudFront => "cloudfront",
            Format::Combined => "combined",
        }
    }
}

/// Why a line could not be read: what was found wanting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

fn unreadable(what: impl Into<String>) -> Unreadable {
    Unreadable(what.into())
}

/// Reads lines of all formats; remembers the columns that a CloudFront log has named.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    columns: cloudfront::Columns,
}

impl Reader {
    /// What a line says. `None` for a line that is no request: empty, or a comment.
    ///
    /// Any bytes; never panics. Cost: a few µs, and an allocation per text that is kept.
    pub fn read(&mut self, line: &[u8]) -> Result<Option<(Format, Record)>, Unreadable> {
        let line = semantics::fields::trim(line);
        let mut read = match line.first() {
            None => return Ok(None),
            Some(b'{') => json::read(line)?,
            Some(b'#') => {
                self.columns.learn(line);
                return Ok(None);
            }
            Some(_) if line.contains(&b'\t') => (Format::CloudFront, self.columns.read(line)?),
            Some(_) => (Format::Combined, combined::read(line)?),
        };
        let record = &mut read.1;
        record.body_bytes = record.body_bytes.min(BODY_BYTES_MAX);
        if !(record.target.starts_with('/') || record.target == "*") {
            return Err(unreadable(format!("the target {:?} is no path", clip(&record.target))));
        }
        Ok(Some(read))
    }
}

impl Record {
    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// What is behind the `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Whether what it fetches is for nobody else to wait for, as far as a log tells: `edge` lets no other request follow it.
    pub fn is_alone(&self) -> bool {
        self.authorized || self.method == "HEAD"
    }

    /// The hash of a selecting header's value, if the log has it.
    pub fn selector(&self, name: &str) -> Option<u32> {
        self.selected_by.iter().find(|(known, _)| known == name).map(|(_, hash)| *hash)
    }

    fn set_host(&mut self, host: &str) {
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        self.host = host.to_ascii_lowercase();
    }

    /// Adds a field of the request; what could not be sent is left out.
    fn add_field(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() && value != b"-" {
            let _ = self.fields.append(name, value);
        }
    }
}

/// The length that an origin's answer says its body has.
pub(crate) fn said_length(answer: &Fields) -> Option<u64> {
    let said: u64 = std::str::from_utf8(answer.get("content-length")?).ok()?.parse().ok()?;
    Some(said.min(BODY_BYTES_MAX))
}

/// The beginning of a text, for messages.
fn clip(text: &str) -> String {
    text.chars().take(60).collect()
}

/// What the reader makes of any bytes, for fuzzing: reads them as lines and checks what it promises.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let mut lines = Lines::new(bytes);
    while let Ok(Some((_, record))) = lines.next() {
        assert!(record.target.starts_with('/') || record.target == "*");
        assert!(record.path().len() <= record.target.len() && record.body_bytes <= BODY_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests;
