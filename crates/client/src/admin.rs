//! The admin API of one running edge: HTTP on loopback, with the token of its state directory.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Error, Purge, http};

/// Time for a whole exchange: a purge waits for each process of an upgrade.
const TIME_MAX: Duration = Duration::from_secs(120);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the admin API is and how to be let in.
#[derive(Clone, Debug)]
pub struct Admin {
    address: SocketAddr,
    token: String,
}

impl Admin {
    /// At this address; `token` is what the edge's state directory has as `admin-token`.
    pub fn new(address: SocketAddr, token: impl Into<String>) -> Self {
        Admin { address, token: token.into() }
    }

    /// Purges, and returns when all workers of the edge have it in force.
    ///
    /// # Errors
    /// As [`Admin::post`].
    pub fn purge(&self, purge: &Purge) -> Result<Value, Error> {
        self.post("/v1/purge", &json!(Purge { reason: None, ..purge.clone() }))
    }

    /// GET of `target`, which starts with `/` and is percent-encoded.
    ///
    /// # Errors
    /// Nothing answers, what answers is no edge, or the edge refuses.
    pub fn fetch(&self, target: &str) -> Result<Value, Error> {
        self.exchange("GET", target, None)
    }

    /// POST of a JSON body.
    ///
    /// # Errors
    /// As [`Admin::fetch`].
    pub fn post(&self, target: &str, body: &Value) -> Result<Value, Error> {
        self.exchange("POST", target, Some(body.to_string()))
    }

    fn exchange(&self, method: &str, target: &str, body: Option<String>) -> Result<Value, Error> {
        let body = body.unwrap_or_default();
        let request = format!(
            "{method} {target} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        let answer = http::send(self.address, request.as_bytes(), ANSWER_BYTES_MAX, TIME_MAX);
        let answer = answer.map_err(|error| {
            let next = match error.kind() {
                ErrorKind::ConnectionRefused => {
                    "is `perigee serve` running? If its admin API is elsewhere, say --admin HOST:PORT"
                }
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    "it did not answer in time; look at its log and load"
                }
                _ => "check --admin HOST:PORT",
            };
            Error::new(format!("admin API at {}: {error}", self.address), next)
        })?;
        crate::read(&answer, |what| {
            Error::new(
                format!("admin API at {}: the answer {what}", self.address),
                "is it perigee's admin API that listens there? Check --admin HOST:PORT",
            )
        })
    }
}
