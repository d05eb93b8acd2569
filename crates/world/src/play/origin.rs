//! The scripted origin of a play: replies byte for byte as scripted, each once, and remembers every byte it received.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use semantics::range;

use super::gate::Gate;
use crate::dates;
use crate::wire::{Body, Framing, Head, Wire};

/// The origin's wall time, moved along with the edge's.
#[derive(Clone)]
pub(super) struct OriginClock(Arc<AtomicI64>);

impl OriginClock {
    pub(super) fn new(secs: i64) -> Self {
        OriginClock(Arc::new(AtomicI64::new(secs * 1000)))
    }

    pub(super) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    fn secs(&self) -> i64 {
        self.0.load(Ordering::SeqCst).div_euclid(1000)
    }
}

/// A request as the origin received it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Body,
}

impl Seen {
    /// Checks that a field line has this value.
    #[track_caller]
    pub fn header(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.head.field(name).as_deref(), Some(value), "{name} at the origin:\n{}", self.text());
        self
    }

    /// Checks that there is no such field.
    #[track_caller]
    pub fn no_header(&self, name: &str) -> &Self {
        assert_eq!(self.head.field(name), None, "{name} at the origin:\n{}", self.text());
        self
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.head.raw).into_owned()
    }
}

/// A scripted origin. Clones are the same origin.
#[derive(Clone)]
pub struct Origin {
    name: &'static str,
    address: String,
    clock: OriginClock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    script: Vec<Entry>,
    seen: Vec<Seen>,
    received: Vec<u8>,
    complaints: Vec<String>,
    connections: usize,
}

struct Entry {
    method: String,
    target: String,
    fields: Vec<(String, Option<String>)>,
    acts: Vec<Act>,
    always: bool,
    used: bool,
}

#[derive(Clone)]
enum Act {
    /// Written as it is.
    Bytes(Vec<u8>),
    /// The head of the final response, with the fields that framing and time add.
    Head {
        status: u16,
        lines: Vec<(String, String)>,
        framing: Frame,
    },
    /// A piece of content, as a chunk when the body is chunked.
    Piece(Vec<u8>),
    Hold(Gate),
    Close,
    Reset,
    File(Arc<Served>),
}

/// What a file server answers from.
struct Served {
    lines: Vec<(String, String)>,
    content: Vec<u8>,
    /// Where it stops in the content, and until when.
    holds: Vec<(usize, Gate)>,
    /// Where it closes the connection.
    breaks_at: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Nothing is added: the script's own lines say it, or there is no body.
    AsScripted,
    Length(usize),
    Chunked,
}

impl Origin {
    pub(super) fn start(runtime: &tokio::runtime::Runtime, name: &'static str, clock: OriginClock) -> Origin {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port to listen on");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let origin = Origin { name, address, clock, state: Arc::default() };
        let serving = origin.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.state().connections += 1;
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        origin
    }

    /// Scripts the answer to one GET of `target` (path and query).
    pub fn get(&self, target: &str) -> Reply {
        self.on("GET", target)
    }

    /// Scripts the answer to one HEAD of `target`.
    pub fn head(&self, target: &str) -> Reply {
        self.on("HEAD", target)
    }

    /// Scripts the answer to one POST to `target`.
    pub fn post(&self, target: &str) -> Reply {
        self.on("POST", target)
    }

    /// Scripts the answer to one request; `*` as method or target matches any.
    pub fn on(&self, method: &str, target: &str) -> Reply {
        Reply {
            origin: self.clone(),
            entry: Entry {
                method: method.to_owned(),
                target: target.to_owned(),
                fields: Vec::new(),
                acts: Vec::new(),
                always: false,
                used: false,
            },
            status: 200,
            lines: Vec::new(),
            framing: None,
            open_ended: false,
            holds: Vec::new(),
            breaks_at: None,
        }
    }

    /// Every request so far, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Every byte so far.
    pub fn received(&self) -> Vec<u8> {
        self.state().received.clone()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn clock(&self) -> &OriginClock {
        &self.clock
    }

    /// What did not go by the script.
    pub(super) fn complaints(&self) -> Vec<String> {
        let state = self.state();
        let unused = state.script.iter().filter(|entry| !entry.used && !entry.always);
        let unused = unused
            .map(|entry| format!("nobody asked the {} for {} {}", self.name, entry.method, entry.target));
        state.complaints.iter().cloned().chain(unused).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, stream: TcpStream) {
        let mut wire = Wire::new(stream);
        loop {
            let head = match wire.read_head().await {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(_) => {
                    self.state().received.extend_from_slice(wire.unread());
                    return;
                }
            };
            let mut acts = self.take_reply(&head);
            // Early answers come before the request's body, as a real origin may do.
            let early = acts
                .first()
                .is_some_and(|act| matches!(act, Act::Bytes(bytes) if bytes.starts_with(b"HTTP/1.1 100")));
            if early && let Act::Bytes(bytes) = acts.remove(0) {
                let _ = wire.write(&bytes).await;
            }
            let body = wire.read_body(Framing::of_request(&head)).await;
            self.remember(Seen { head: head.clone(), body });
            match self.act(&mut wire, &head, acts).await {
                After::KeepAlive => {}
                After::Close => return,
                After::Reset => return wire.reset(),
            }
        }
    }

    fn remember(&self, seen: Seen) {
        let mut state = self.state();
        state.received.extend_from_slice(&seen.head.raw);
        state.received.extend_from_slice(&seen.body.bytes);
        state.seen.push(seen);
    }

    fn take_reply(&self, head: &Head) -> Vec<Act> {
        let (method, target) = head.method_and_target();
        let mut state = self.state();
        let found = state.script.iter_mut().find(|entry| {
            !entry.used
                && (entry.method == "*" || entry.method == method)
                && (entry.target == "*" || entry.target == target)
        });
        let Some(entry) = found else {
            let complaint = format!("nobody foresaw that the {} is asked for {}", self.name, head.line);
            state.complaints.push(complaint);
            let sorry = "HTTP/1.1 500 Unforeseen\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n";
            return vec![Act::Bytes(sorry.into())];
        };
        entry.used = !entry.always;
        let acts = entry.acts.clone();
        let wrong: Vec<String> = entry
            .fields
            .iter()
            .filter(|(name, value)| &head.field(name) != value)
            .map(|(name, value)| format!("{}: {name} is {:?}, not {value:?}", head.line, head.field(name)))
            .collect();
        state.complaints.extend(wrong);
        acts
    }

    async fn act(&self, wire: &mut Wire, request: &Head, acts: Vec<Act>) -> After {
        let mut framing = Frame::AsScripted;
        let bodiless = request.line.starts_with("HEAD ");
        for act in acts {
            let written = match act {
                Act::Bytes(bytes) => wire.write(&bytes).await,
                Act::Head { status, lines, framing: wanted } => {
                    framing = wanted;
                    wire.write(&self.head_bytes(status, &lines, wanted)).await
                }
                Act::Piece(_) if bodiless => Ok(()),
                Act::Piece(piece) if framing == Frame::Chunked => wire.write(&chunk(&piece)).await,
                Act::Piece(piece) => wire.write(&piece).await,
                Act::Hold(gate) => {
                    gate.pass().await;
                    Ok(())
                }
                Act::File(file) => match self.send_file(wire, request, &file).await {
                    After::KeepAlive => Ok(()),
                    after => return after,
                },
                Act::Close => return After::Close,
                Act::Reset => return After::Reset,
            };
            if written.is_err() {
                return After::Close;
            }
        }
        After::KeepAlive
    }

    /// Answers as RFC 9110 §13 and §14 say: the whole, a part, or that nothing has changed.
    async fn send_file(&self, wire: &mut Wire, request: &Head, file: &Served) -> After {
        let mut lines = file.lines.clone();
        let etag =
            lines.iter().find(|(name, _)| name.eq_ignore_ascii_case("etag")).map(|(_, etag)| etag.clone());
        let len = file.content.len();
        let is_part = request.field("if-range").is_none_or(|wanted| Some(wanted) == etag);
        let spec = request.fields.get("range").filter(|_| is_part).and_then(range::single_spec);
        let (status, (from, to)) = match spec.map(|spec| spec.resolve(len as u64)) {
            _ if etag.is_some() && request.field("if-none-match") == etag => (304, (0, 0)),
            None => (200, (0, len)),
            Some(Some(span)) => (206, (span.start() as usize, span.end() as usize + 1)),
            Some(None) => (416, (0, 0)),
        };
        match status {
            206 => lines.push(("Content-Range".to_owned(), format!("bytes {from}-{}/{len}", to - 1))),
            416 => lines.push(("Content-Range".to_owned(), format!("bytes */{len}"))),
            _ => {}
        }
        let framing = if status == 304 { Frame::AsScripted } else { Frame::Length(to - from) };
        if wire.write(&self.head_bytes(status, &lines, framing)).await.is_err() {
            return After::Close;
        }
        let mut at = from;
        let mut stops: Vec<(usize, Option<&Gate>)> =
            file.holds.iter().map(|(at, gate)| (*at, Some(gate))).collect();
        stops.extend(file.breaks_at.map(|at| (at, None)));
        stops.sort_by_key(|(at, _)| *at);
        for (stop, gate) in stops.into_iter().filter(|(stop, _)| (from..to).contains(stop)) {
            if wire.write(&file.content[at..stop]).await.is_err() {
                return After::Close;
            }
            at = stop;
            match gate {
                Some(gate) => gate.pass().await,
                None => return After::Close,
            }
        }
        match wire.write(&file.content[at..to]).await {
            Ok(()) => After::KeepAlive,
            Err(_) => After::Close,
        }
    }

    fn head_bytes(&self, status: u16, lines: &[(String, String)], framing: Frame) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {status} Status\r\n");
        let has = |name: &str| lines.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        if !has("date") {
            head.push_str(&format!("Date: {}\r\n", dates::imf_fixdate(self.clock.secs())));
        }
        for (name, value) in lines {
            head.push_str(&format!("{name}: {}\r\n", self.with_dates(value)));
        }
        match framing {
            Frame::Length(length) if !has("content-length") => {
                head.push_str(&format!("Content-Length: {length}\r\n"))
            }
            Frame::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            _ => {}
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// `{now}`, `{now+60}` and `{now-60}` stand for dates.
    fn with_dates(&self, value: &str) -> String {
        let Some((before, rest)) = value.split_once("{now") else { return value.to_owned() };
        let Some((offset, after)) = rest.split_once('}') else { return value.to_owned() };
        let offset: i64 = offset.parse().unwrap_or(0);
        format!("{before}{}{after}", dates::imf_fixdate(self.clock.secs() + offset))
    }
}

enum After {
    KeepAlive,
    Close,
    Reset,
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

/// One scripted answer; it joins the script when it is dropped.
pub struct Reply {
    origin: Origin,
    entry: Entry,
    status: u16,
    lines: Vec<(String, String)>,
    framing: Option<Frame>,
    open_ended: bool,
    holds: Vec<(usize, Gate)>,
    breaks_at: Option<usize>,
}

impl Reply {
    /// The request must have this field value; else the play fails at its end.
    pub fn expecting(mut self, name: &str, value: &str) -> Self {
        self.entry.fields.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    /// The request must not have this field.
    pub fn expecting_no(mut self, name: &str) -> Self {
        self.entry.fields.push((name.to_owned(), None));
        self
    }

    /// Answers any number of times, also never.
    pub fn always(mut self) -> Self {
        self.entry.always = true;
        self
    }

    /// The status; 200 when not said.
    pub fn reply(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// A response header. `{now}`, `{now+60}`, `{now-60}` stand for dates. `Date` is added when not said.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A 1xx response with these header lines, sent before everything that follows in the script.
    pub fn interim(mut self, status: u16, lines: &str) -> Self {
        self.entry.acts.push(Act::Bytes(format!("HTTP/1.1 {status} Interim\r\n{lines}\r\n").into_bytes()));
        self
    }

    /// The whole body, with Content-Length.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        self.begin(Frame::Length(body.len()));
        self.entry.acts.push(Act::Piece(body.to_vec()));
        self
    }

    /// Answers as a file server does whose file is `content`: with the whole, with what Range and If-Range ask for, with 304
    /// or with 416, under the headers that were said before.
    pub fn file(mut self, content: impl AsRef<[u8]>) -> Self {
        self.framing = Some(Frame::AsScripted);
        self.open_ended = true;
        let (content, lines) = (content.as_ref().to_vec(), self.lines.clone());
        let (holds, breaks_at) = (std::mem::take(&mut self.holds), self.breaks_at);
        self.entry.acts.push(Act::File(Arc::new(Served { lines, content, holds, breaks_at })));
        self
    }

    /// Said before [`Reply::file`]: before it sends this byte of the file, the origin waits until the test opens the gate.
    pub fn hold_at(mut self, byte: usize, gate: &Gate) -> Self {
        self.holds.push((byte, gate.clone()));
        self
    }

    /// Said before [`Reply::file`]: instead of sending this byte of the file, the origin closes the connection.
    pub fn break_at(mut self, byte: usize) -> Self {
        self.breaks_at = Some(byte);
        self
    }

    /// A piece of the body: a chunk, or bare bytes when a `Content-Length` was scripted or `bare` was said.
    pub fn part(mut self, part: impl AsRef<[u8]>) -> Self {
        let own_length = self.lines.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        self.begin(if own_length { Frame::AsScripted } else { Frame::Chunked });
        self.entry.acts.push(Act::Piece(part.as_ref().to_vec()));
        self
    }

    /// The head now, and a body that only closing the connection ends; parts follow as bare bytes.
    pub fn until_close(mut self) -> Self {
        self.begin(Frame::AsScripted);
        self
    }

    /// The head now, before a gate or a close: with chunked framing unless a length was scripted.
    pub fn head_now(self) -> Self {
        let mut reply = self.part("");
        reply.entry.acts.pop();
        reply
    }

    /// Waits here until the test opens the gate.
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.entry.acts.push(Act::Hold(gate.clone()));
        self
    }

    /// Writes `bytes` as they are; a script of these alone is the whole answer.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.framing.get_or_insert(Frame::AsScripted);
        self.open_ended = true;
        self.entry.acts.push(Act::Bytes(bytes.as_ref().to_vec()));
        self
    }

    /// Closes the connection here: with no body before it, instead of answering.
    pub fn close(mut self) -> Self {
        self.framing.get_or_insert(Frame::AsScripted);
        self.open_ended = true;
        self.entry.acts.push(Act::Close);
        self
    }

    /// Closes the connection here with RST.
    pub fn reset(mut self) -> Self {
        self.framing.get_or_insert(Frame::AsScripted);
        self.open_ended = true;
        self.entry.acts.push(Act::Reset);
        self
    }

    /// Puts the head into the acts, once.
    fn begin(&mut self, framing: Frame) {
        if self.framing.is_none() {
            self.framing = Some(framing);
            let lines = self.lines.clone();
            self.entry.acts.push(Act::Head { status: self.status, lines, framing });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let bodiless = matches!(self.status, 204 | 304);
        self.begin(if bodiless { Frame::AsScripted } else { Frame::Length(0) });
        if self.framing == Some(Frame::Chunked) && !self.open_ended {
            self.entry.acts.push(Act::Bytes(b"0\r\n\r\n".to_vec()));
        }
        let empty = Entry {
            method: String::new(),
            target: String::new(),
            fields: Vec::new(),
            acts: Vec::new(),
            always: false,
            used: false,
        };
        self.origin.state().script.push(std::mem::replace(&mut self.entry, empty));
    }
}
