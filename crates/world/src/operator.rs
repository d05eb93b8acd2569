//! An operator who uses control's API, over one HTTP/2 connection that is made anew when it has ended.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use trust::pinned_client_config;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// For how long control is asked to wait for receipts.
const WAIT: Duration = Duration::from_secs(10);

/// Somebody with a token, at one control.
pub struct Operator {
    /// Control's URL: `https://127.0.0.1:7700`.
    pub control: String,
    authority: String,
    token: String,
    connection: Option<http2::SendRequest<Full<Bytes>>>,
}

/// A purge that each edge in service has signed for.
pub struct Proven {
    /// When it was written.
    pub written: Instant,
    /// Those edges.
    pub by: Vec<String>,
}

/// What the API says of a purge that is written.
#[derive(Deserialize)]
struct Accepted {
    position: u64,
}

/// And of who has proven it.
#[derive(Deserialize)]
struct Proof {
    state: String,
    receipts: Vec<Receipt>,
}

#[derive(Deserialize)]
struct Receipt {
    node: String,
}

impl Operator {
    /// Not connected yet. `authority`: the fingerprint of the cluster's.
    pub fn new(control: &str, authority: &str, token: &str) -> Operator {
        Operator {
            control: control.to_owned(),
            authority: authority.to_owned(),
            token: token.to_owned(),
            connection: None,
        }
    }

    /// What the API answers, which must be good and of this form.
    ///
    /// # Errors
    /// In words: there was no connection, no answer in 30 s, or not this one.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, String> {
        let called = timeout(PATIENCE, self.ask(method, path, body)).await;
        let called = called.unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())));
        if called.is_err() {
            self.connection = None;
        }
        called
    }

    /// Orders a purge: `{"tags": ["p1"]}`. Its position.
    ///
    /// # Errors
    /// As [`Operator::call`].
    pub async fn order_purge(&mut self, body: &Value) -> Result<u64, String> {
        let text = Bytes::from(body.to_string());
        let written: Accepted = self.call(Method::POST, "/v1/purges", text).await?;
        Ok(written.position)
    }

    /// Purges, and waits for about `patience` until that is proven.
    ///
    /// # Errors
    /// As [`Operator::call`]; or it was not proven.
    pub async fn purge(&mut self, body: &Value, patience: Duration) -> Result<Proven, String> {
        let position = self.order_purge(body).await?;
        let written = Instant::now();
        let path = format!("/v1/purges/{position}?wait={}s", WAIT.as_secs());
        while written.elapsed() < patience {
            let proof: Proof = self.call(Method::GET, &path, Bytes::new()).await?;
            if proof.state == "done" {
                let by = proof.receipts.into_iter().map(|receipt| receipt.node).collect();
                return Ok(Proven { written, by });
            }
        }
        Err(format!("position {position} was not done within {} s", patience.as_secs()))
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.control))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let mut sender = match self.connection.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answered = sender.send_request(request).await;
        self.connection = Some(sender);
        let response = answered.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        match status.is_success() {
            true => serde_json::from_slice(&body)
                .map_err(|error| format!("{path}: {error}: {}", String::from_utf8_lossy(&body))),
            false => Err(format!("{path}: answered {status}: {}", String::from_utf8_lossy(&body))),
        }
    }

    async fn connect(&self) -> Result<http2::SendRequest<Full<Bytes>>, String> {
        let address = self.control.strip_prefix("https://").ok_or("a control's URL begins with https://")?;
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let tls = pinned_client_config(&self.authority, &[b"h2"]).map_err(|error| error.to_string())?;
        let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let stream =
            TlsConnector::from(tls).connect(name, stream).await.map_err(|error| error.to_string())?;
        let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, driver) = made.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        Ok(sender)
    }
}
