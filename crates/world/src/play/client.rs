//! The clients of a play: requests as a browser would send them, or bytes as nobody should.

use std::future::Future;

use tokio::runtime::Handle;

use super::PATIENCE;
use super::answer::Answer;
use crate::wire::{Framing, Head, Response, Wire};

/// Somebody who asks the edge. Each request goes over a connection of its own.
#[derive(Clone)]
pub struct Client {
    runtime: Handle,
    /// Where requests go.
    address: String,
    /// Where bytes go that are said as they are.
    plain_address: String,
}

impl Client {
    pub(super) fn new(runtime: Handle, address: String, plain_address: String) -> Client {
        Client { runtime, address, plain_address }
    }

    /// A GET of `target` (path and query).
    pub fn get(&self, target: &str) -> Asking {
        self.ask("GET", target)
    }

    /// A HEAD of `target`.
    pub fn head(&self, target: &str) -> Asking {
        self.ask("HEAD", target)
    }

    /// A POST to `target`.
    pub fn post(&self, target: &str) -> Asking {
        self.ask("POST", target)
    }

    /// A request with any method. Sends `Host: site.example` unless told otherwise.
    pub fn ask(&self, method: &str, target: &str) -> Asking {
        Asking {
            client: self.clone(),
            method: method.to_owned(),
            target: target.to_owned(),
            host: "site.example".to_owned(),
            lines: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A connection to say anything on.
    #[track_caller]
    pub fn connect(&self) -> Talk {
        self.connect_to(&self.plain_address)
    }

    #[track_caller]
    fn connect_to(&self, address: &str) -> Talk {
        let wire = block(&self.runtime, "a connection", Wire::connect(address)).expect("the edge accepts");
        Talk { runtime: self.runtime.clone(), wire, method: "GET".to_owned(), said: Vec::new(), parted: 0 }
    }

    /// Sends `bytes` on a fresh connection and reads one response.
    #[track_caller]
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut talk = self.connect();
        talk.say(bytes);
        talk.answer()
    }
}

/// A request in the making.
pub struct Asking {
    client: Client,
    method: String,
    target: String,
    host: String,
    lines: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asking {
    /// Another Host.
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// A header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A body, with Content-Length.
    pub fn with_body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self.header("Content-Length", &body.as_ref().len().to_string())
    }

    /// Sends the request and leaves the answer for later.
    #[track_caller]
    pub fn begin(self) -> Talk {
        let mut talk = self.client.connect_to(&self.client.address);
        talk.method.clone_from(&self.method);
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.lines {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        talk.say([bytes.as_bytes(), &self.body].concat());
        talk
    }

    /// Sends the request and reads the answer, whatever its status.
    #[track_caller]
    pub fn expect_any(self) -> Answer {
        self.begin().answer()
    }

    /// Sends the request, reads the answer and checks its status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        self.begin().expect(status)
    }
}

/// An open connection to the edge.
pub struct Talk {
    runtime: Handle,
    wire: Wire,
    method: String,
    said: Vec<u8>,
    /// Bytes of the body under way that have been read.
    parted: u64,
}

impl Talk {
    /// Sends `bytes` as they are. A write error is no failure: the edge may have answered and closed already.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.said.extend_from_slice(bytes.as_ref());
        let _ = block(&self.runtime, "the edge to read", self.wire.write(bytes.as_ref()));
        self
    }

    /// Reads one final response with its body.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let response = block(&self.runtime, "a response", self.wire.read_response(&self.method));
        Answer::new(&self.said, response.unwrap_or_else(|error| self.no_response(&error.to_string())))
    }

    /// [`Talk::answer`] with a check of its status.
    #[track_caller]
    pub fn expect(&mut self, status: u16) -> Answer {
        self.answer().status(status)
    }

    /// Reads the next head, interim or final, and checks its status.
    #[track_caller]
    pub fn expect_head(&mut self, status: u16) -> Head {
        let head = block(&self.runtime, "a response head", self.wire.read_head());
        let head = head.ok().flatten().unwrap_or_else(|| self.no_response("closed"));
        assert_eq!(head.status(), status, "{}", String::from_utf8_lossy(&head.raw));
        self.parted = 0;
        head
    }

    /// Reads exactly these bytes of content, as they come on the wire: after [`Talk::expect_head`].
    /// For a chunked body the framing of one chunk around them is read too.
    #[track_caller]
    pub fn expect_part(&mut self, head: &Head, part: impl AsRef<[u8]>) -> &mut Self {
        let mut missing = part.as_ref();
        let chunked = Framing::of_response(&self.method, head) == Framing::Chunked;
        while !missing.is_empty() {
            let got = match chunked {
                true => block(&self.runtime, "a part of the body", self.wire.read_chunk()),
                false => {
                    let mut got = Vec::new();
                    let taken = self.wire.take(missing.len(), &mut got);
                    block(&self.runtime, "a part of the body", taken).map(|()| got)
                }
            };
            let got = got.expect("a part of the body");
            assert!(missing.starts_with(&got), "{:?} is not in its place", String::from_utf8_lossy(&got));
            missing = &missing[got.len()..];
            self.parted += got.len() as u64;
        }
        self
    }

    /// Reads the rest of a body whose head came by [`Talk::expect_head`].
    #[track_caller]
    pub fn finish(&mut self, head: &Head) -> Answer {
        let framing = match Framing::of_response(&self.method, head) {
            Framing::Length(length) => Framing::Length(length - self.parted),
            framing => framing,
        };
        let body =
            block(&self.runtime, "the rest of a body", async { Ok(self.wire.read_body(framing).await) });
        let body = body.expect("reading a body does not fail");
        Answer::new(&self.said, Response { interim: Vec::new(), head: head.clone(), body })
    }

    /// Checks that the edge closes the connection without another byte. A reset counts as closed.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = block(&self.runtime, "the connection to close", async { Ok(self.wire.read_rest().await) });
        let rest = rest.expect("reading does not fail");
        assert!(rest.is_empty(), "more came before the close: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Reads everything until the edge closes.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        block(&self.runtime, "the connection to close", async { Ok(self.wire.read_rest().await) })
            .unwrap_or_default()
    }

    /// Reads one response, or `None` when the edge closed instead of giving one.
    #[track_caller]
    pub fn rest_or_response(&mut self) -> Option<Answer> {
        let response = block(&self.runtime, "a response or a close", self.wire.read_response(&self.method));
        response.ok().map(|response| Answer::new(&self.said, response))
    }

    /// Sends FIN and keeps reading.
    pub fn finish_saying(&mut self) -> &mut Self {
        let _ = block(&self.runtime, "a shutdown", self.wire.finish_writing());
        self
    }

    /// Goes away with RST.
    pub fn reset(self) {
        let _entered = self.runtime.enter();
        self.wire.reset();
    }

    #[track_caller]
    fn no_response(&self, why: &str) -> ! {
        panic!("no response ({why}) to\n{}", String::from_utf8_lossy(&self.said))
    }
}

#[track_caller]
fn block<T>(
    runtime: &Handle,
    what: &str,
    work: impl Future<Output = std::io::Result<T>>,
) -> std::io::Result<T> {
    match runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await }) {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}
