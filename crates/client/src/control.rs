//! A control of a cluster: one request per connection, over TLS that believes one authority and nothing else.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::ControlAddress;
use model::origin::BadUrl;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use trust::pinned_client_config;

use crate::{Error, Purge, http, push_query};

/// Time between two bytes: longer than control lets anybody wait.
const PATIENCE: Duration = Duration::from_secs(70);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// For how long control lets anybody wait for a purge.
const WAIT_MAX: Duration = Duration::from_secs(55);
/// Between two looks at a purge's receipts.
const LOOK: Duration = Duration::from_secs(2);

/// A cluster's control.
#[derive(Clone)]
pub struct Control {
    url: String,
    host: String,
    port: u16,
    token: String,
    tls: Arc<ClientConfig>,
}

impl Control {
    /// At `url` (`https://host[:port]`). `authority`: the fingerprint of the cluster's authority, 64 hex digits; nothing else is believed. `token`: an
    /// operator's or a program's.
    ///
    /// # Errors
    /// The URL is none of a control, the token not one word. Nothing is asked yet.
    pub fn new(url: &str, authority: &str, token: &str) -> Result<Self, Error> {
        let ControlAddress { host, port } =
            url.parse().map_err(|bad: BadUrl| Error::new(format!("{url:?} {}", bad.reason), bad.help))?;
        // It becomes a header line.
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::new(
                "the token is not one word",
                "give the token alone, as `perigee token add` has printed it",
            ));
        }
        let tls = pinned_client_config(authority, &[b"http/1.1"])
            .map_err(|error| Error::new(format!("TLS: {error}"), ""))?;
        Ok(Control { url: url.to_owned(), host, port, token: token.to_owned(), tls })
    }

    // --- What operators and programs do ---

    /// Purges: accepted once it is safe in the journal. The answer has the purge's `position`; see [`crate::position`].
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn purge(&self, purge: &Purge) -> Result<Value, Error> {
        self.post("/v1/purges", &json!(purge))
    }

    /// How far a purge has come: `state` (`done` when each edge in service has signed for it), `receipts`, `laggards`, `out_of_contact`. `wait`: for how
    /// long to wait for the end of it; 55 s at most.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn purge_status(&self, position: u64, wait: Duration) -> Result<Value, Error> {
        let mut target = format!("/v1/purges/{position}");
        // Control takes no wait of nothing.
        if wait.as_millis() > 0 {
            push_query(&mut target, "wait", &format!("{}ms", wait.min(WAIT_MAX).as_millis()));
        }
        self.fetch(&target)
    }

    /// Waits for the last receipt of a purge, for `timeout` at most, and returns the last status; `state` says whether it is done. Every
    /// two seconds `look` sees how far it is.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn await_purge(
        &self,
        position: u64,
        timeout: Duration,
        look: &mut dyn FnMut(&Value),
    ) -> Result<Value, Error> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let status = self.purge_status(position, left.min(LOOK))?;
            if status["state"] == "done" || left.is_zero() {
                return Ok(status);
            }
            look(&status);
        }
    }

    /// The nodes of the cluster: `nodes`.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn nodes(&self) -> Result<Value, Error> {
        self.fetch("/v1/nodes")
    }

    /// Statistics; `query` as `/v1/stats` takes it, e.g. `[("by", "pop"), ("from", "-1h")]`.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn statistics(&self, query: &[(&str, &str)]) -> Result<Value, Error> {
        let mut target = "/v1/stats".to_owned();
        query.iter().for_each(|(name, value)| push_query(&mut target, name, value));
        self.fetch(&target)
    }

    /// Adds a configuration as a version, or, with `dry_run`, only checks it. Status and answer: its `version`, and its `diagnostics`
    /// also when it is refused (422).
    ///
    /// # Errors
    /// There is no answer.
    pub fn add_configuration(
        &self,
        text: &str,
        source: &str,
        reason: &str,
        dry_run: bool,
    ) -> Result<(u16, Value), Error> {
        let wanted = json!({ "text": text, "source": source, "reason": reason, "dry_run": dry_run });
        self.ask("POST", "/v1/configurations", Some(&wanted))
    }

    /// What tells two versions apart: `changes`, `warnings`. `None` is what is stable, and the newest.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn diff(&self, from: Option<u64>, to: Option<u64>) -> Result<Value, Error> {
        let mut target = "/v1/diff".to_owned();
        for (name, number) in [("from", from), ("to", to)] {
            if let Some(number) = number {
                push_query(&mut target, name, &number.to_string());
            }
        }
        self.fetch(&target)
    }

    /// Begins to roll a version out: `wanted` as `/v1/rollouts` takes it, e.g. `{"version": 3, "stage": "edge", "reason": "…"}`.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn roll_out(&self, wanted: &Value) -> Result<Value, Error> {
        self.post("/v1/rollouts", wanted)
    }

    /// How the roll-out stands; its `state` is `running`, `paused`, `promoted` or `undone`.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn rollout(&self) -> Result<Value, Error> {
        self.fetch("/v1/rollouts/current")
    }

    /// Goes back to a version, or to what was stable before, at all edges at once.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn roll_back(&self, version: Option<u64>, reason: Option<&str>) -> Result<Value, Error> {
        self.post("/v1/rollback", &json!({ "version": version, "reason": reason }))
    }

    // --- Requests ---

    /// GET of `target`, which starts with `/` and is percent-encoded.
    ///
    /// # Errors
    /// Nothing answers, what answers is no control of the cluster, or it refuses; [`Error::status`] tells which.
    pub fn fetch(&self, target: &str) -> Result<Value, Error> {
        self.exchange("GET", target, None)
    }

    /// POST of a JSON body.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn post(&self, target: &str, body: &Value) -> Result<Value, Error> {
        self.exchange("POST", target, Some(body))
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn delete(&self, target: &str) -> Result<Value, Error> {
        self.exchange("DELETE", target, None)
    }

    fn exchange(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Value, Error> {
        let (status, value) = self.ask(method, target, body)?;
        crate::accepted(status, value)
    }

    /// GET of what is no JSON: text.
    ///
    /// # Errors
    /// As [`Control::fetch`].
    pub fn fetch_text(&self, target: &str) -> Result<String, Error> {
        let (status, body) = self.ask_bytes("GET", target, None)?;
        match (200..300).contains(&status) {
            true => Ok(String::from_utf8_lossy(&body).into_owned()),
            false => Err(Error::refused(status, &serde_json::from_slice(&body).unwrap_or_default())),
        }
    }

    /// Status and JSON of an answer, whatever the status.
    ///
    /// # Errors
    /// There is no answer, or it is not JSON.
    pub fn ask(&self, method: &str, target: &str, body: Option<&Value>) -> Result<(u16, Value), Error> {
        let (status, body) = self.ask_bytes(method, target, body)?;
        let value = serde_json::from_slice(&body)
            .map_err(|_| Error { status: Some(status), ..self.strange("is not JSON") })?;
        Ok((status, value))
    }

    fn strange(&self, what: &str) -> Error {
        Error::new(
            format!("control at {}: the answer {what}", self.url),
            "is it perigee's control that listens there?",
        )
    }

    fn ask_bytes(&self, method: &str, target: &str, body: Option<&Value>) -> Result<(u16, Vec<u8>), Error> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {target} HTTP/1.0\r\nHost: {}:{}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.host,
            self.port,
            self.token,
            body.len()
        );
        let answer = self.send(request.as_bytes()).map_err(|error| {
            let next = trust::untimely(&error).unwrap_or(match error.kind() {
                ErrorKind::ConnectionRefused => {
                    "is `perigee control` running there? Name another one with --control URL"
                }
                ErrorKind::InvalidData if is_no_tls(&error) => {
                    "what listens there speaks no TLS: name the port of `perigee control`, 7700 unless its file says another"
                }
                ErrorKind::InvalidData => {
                    "is it a control of the cluster that was meant? Its fingerprint is printed at its start; \
                     compare it with --authority"
                }
                _ => "check --control URL",
            });
            Error::new(format!("control at {}: {error}", self.url), next)
        })?;
        let (status, body) = http::parse_answer(&answer).map_err(|what| self.strange(what))?;
        Ok((status, body.to_vec()))
    }

    /// Whether it has something for browsers at `target`.
    pub fn serves(&self, target: &str) -> bool {
        let request = format!(
            "GET {target} HTTP/1.0\r\nHost: {}:{}\r\nConnection: close\r\n\r\n",
            self.host, self.port
        );
        let answer = self.send(request.as_bytes());
        answer.is_ok_and(|answer| matches!(http::parse_answer(&answer), Ok((200, _))))
    }

    fn send(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let stream = http::connect((self.host.as_str(), self.port), PATIENCE)?;
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, stream);
        stream.write_all(request)?;
        stream.flush()?;
        let mut answer = Vec::new();
        match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
            // Without a close_notify: whether it is whole, Content-Length says.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && !answer.is_empty() => {}
            read => _ = read?,
        }
        Ok(answer)
    }
}

/// Whether the other end has answered with something that is no TLS.
fn is_no_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}
