//! Speaks to the admin API of a running edge. Used by `purge`, `explain` and the like.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;
use crate::http::{self, parse_answer};
use crate::state::StateDir;

/// Time for a whole exchange: a purge waits for each process of an upgrade.
const TIME_MAX: Duration = Duration::from_secs(120);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where `serve` puts the admin API when nothing else is said.
const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

/// Where the admin API is and how to be let in.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    token: String,
}

impl Client {
    /// `admin`, else where the last edge with this state directory listens, else `127.0.0.1:9090`.
    pub(crate) fn new(admin: Option<SocketAddr>, state: &StateDir) -> Result<Self, Failure> {
        let address = admin.or_else(|| state.admin_address()).unwrap_or(DEFAULT_ADDRESS);
        Ok(Client { address, token: state.existing_token()? })
    }

    /// GET of `target`, which starts with `/` and is percent-encoded.
    pub(crate) fn fetch(&self, target: &str) -> Result<Value, Failure> {
        self.exchange("GET", target, None)
    }

    /// POST of a JSON body.
    pub(crate) fn post(&self, target: &str, body: &Value) -> Result<Value, Failure> {
        self.exchange("POST", target, Some(body.to_string()))
    }

    fn exchange(&self, method: &str, target: &str, body: Option<String>) -> Result<Value, Failure> {
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
                    "it did not answer in 10 s; look at its log and load"
                }
                _ => "check --admin HOST:PORT",
            };
            Failure::new(format!("admin API at {}: {error}", self.address), next)
        })?;
        self.read(&answer)
    }

    fn read(&self, answer: &[u8]) -> Result<Value, Failure> {
        let strange = |what: &str| {
            Failure::new(
                format!("admin API at {}: the answer {what}", self.address),
                "is it perigee's admin API that listens there? Check --admin HOST:PORT",
            )
        };
        let (status, body) = parse_answer(answer).map_err(strange)?;
        let value: Value = serde_json::from_slice(body).map_err(|_| strange("is not JSON"))?;
        if (200..300).contains(&status) { Ok(value) } else { Err(refusal(status, &value)) }
    }
}

/// What an API of ours has refused, in its words.
pub(crate) fn refusal(status: u16, value: &Value) -> Failure {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let mut message = text("error").unwrap_or_else(|| format!("status {status}"));
    for (label, key) in [("found", "found"), ("wanted", "wanted")] {
        if let Some(said) = text(key) {
            message.push_str(&format!("; {label} {said}"));
        }
    }
    Failure::new(message, text("next").unwrap_or_default())
}

/// Appends `name=value` to a query, percent-encoding everything but letters, digits and `-._~`.
pub(crate) fn push_query(query: &mut String, name: &str, value: &str) {
    query.push(if query.contains('?') { '&' } else { '?' });
    query.push_str(name);
    query.push('=');
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => query.push(byte as char),
            _ => query.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_encoded() {
        let mut target = "/v1/explain".to_owned();
        push_query(&mut target, "url", "http://a/?x=1&y=é");
        push_query(&mut target, "header", "K: V");
        assert_eq!(target, "/v1/explain?url=http%3A%2F%2Fa%2F%3Fx%3D1%26y%3D%C3%A9&header=K%3A%20V");
    }

    #[test]
    fn errors_of_the_api_keep_their_parts() {
        let client = Client { address: DEFAULT_ADDRESS, token: String::new() };
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n\
            {\"error\":\"no site has the host\",\"found\":\"x.example\",\"wanted\":\"a host\",\"next\":\"add it\"}";
        assert_eq!(
            client.read(answer).unwrap_err(),
            Failure::new("no site has the host; found x.example; wanted a host", "add it")
        );
    }
}
