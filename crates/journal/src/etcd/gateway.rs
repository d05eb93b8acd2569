//! Requests to etcd's members: connections, TLS, tokens, time-outs, and going on with the next member when one fails.
//!
//! A request is sent again after an answer got lost, to whichever member: what is asked here has the same effect once or often, see
//! the parent module. Members are asked in a circle, beginning with the one that answered last.

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::Settings;
use super::wire::{self, Answer, Authenticated, Range, Refused, Watched};
use crate::{Chance, Error};

/// How long a member may take to be connected to: more than a lost packet costs.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// How long a member may take to answer: more than an election takes (1 s by default), less than etcd's own patience of 7 s.
const ATTEMPT_TIME: Duration = Duration::from_secs(3);
/// How long all attempts together may take.
pub(super) const CALL_TIME: Duration = Duration::from_secs(10);
/// The longest wait between two rounds over all members; the first is a twentieth of it.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Bytes of an answer, or of a line of a watch, that are read. The largest record has 1.4 MiB in base64.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Idle connections kept to a member.
const IDLE_MAX: usize = 8;
/// Times that one call renews the token.
const RENEWALS_MAX: usize = 3;

pub(super) struct Gateway {
    endpoints: Vec<Endpoint>,
    /// Index of the one that answered last.
    current: AtomicUsize,
    tls: TlsConnector,
    user: Option<(String, String)>,
    token: Mutex<Option<Arc<str>>>,
    /// Which cluster this is: the one that answered first.
    cluster: OnceLock<String>,
    chance: Chance,
}

struct Endpoint {
    /// As it was written.
    url: String,
    host: String,
    port: u16,
    /// `None` when it is asked without TLS.
    tls_name: Option<ServerName<'static>>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// What an answer is worth.
pub(super) struct Answered<A> {
    pub(super) answer: A,
    /// Whether an earlier attempt of the same call may have been done too, unseen.
    pub(super) is_uncertain: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nobody did it, as far as we know.
    Error {
        error: Error,
        /// Whether it may have been done all the same.
        is_uncertain: bool,
    },
    /// The answer is larger than we read.
    TooLong,
    /// The revision is not kept any more.
    Compacted,
}

impl Failed {
    /// For what only reads.
    pub(super) fn into_error(self) -> Error {
        match self {
            Failed::Error { error, .. } => error,
            Failed::TooLong => Error::Broken(format!(
                "etcd's answer has more than {ANSWER_BYTES_MAX} bytes: a value is not ours"
            )),
            Failed::Compacted => Error::Unavailable("etcd was compacted while it was read".into()),
        }
    }
}

impl Failed {
    /// For what may have been written all the same.
    pub(super) fn into_unknown(self) -> Error {
        match self.into_error() {
            Error::Unavailable(why) | Error::Broken(why) => Error::Unknown(why),
            other => other,
        }
    }
}

impl From<Refused> for Attempt {
    fn from(refused: Refused) -> Self {
        Attempt::Refused(refused)
    }
}

/// What becomes of one attempt that gives no answer.
enum Attempt {
    Refused(Refused),
    TooLong,
}

/// Nothing was sent.
fn untouched(why: String) -> Attempt {
    Attempt::Refused(Refused::Retry { why, is_untouched: true })
}

/// Something was sent.
fn lost(why: String) -> Attempt {
    Attempt::Refused(Refused::Retry { why, is_untouched: false })
}

impl Gateway {
    pub(super) fn new(settings: &Settings, chance: Chance) -> Result<Self, Error> {
        let endpoints =
            settings.endpoints.iter().map(|url| Endpoint::parse(url)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::Broken(
                "no endpoint of etcd is named; wanted is e.g. \"https://etcd-1:2379\"".into(),
            ));
        }
        let tls = TlsConnector::from(Arc::new(tls(settings)?));
        Ok(Gateway {
            // Not all controls begin with the same member.
            current: AtomicUsize::new(usize::try_from(chance() % endpoints.len() as u128).unwrap_or(0)),
            endpoints,
            tls,
            user: settings.user.clone(),
            token: Mutex::default(),
            cluster: OnceLock::new(),
            chance,
        })
    }

    /// Asks one member after another until one answers, for [`CALL_TIME`] at most.
    pub(super) async fn call<A: Answer>(&self, path: &str, content: Vec<u8>) -> Result<Answered<A>, Failed> {
        let content = Bytes::from(content);
        let deadline = Instant::now() + CALL_TIME;
        let first = self.current.load(Ordering::Relaxed);
        let mut reasons: Vec<Option<String>> = vec![None; self.endpoints.len()];
        let (mut is_uncertain, mut renewals, mut tried) = (false, 0, 0_usize);
        loop {
            let index = (first + tried) % self.endpoints.len();
            let endpoint = &self.endpoints[index];
            let end = deadline.min(Instant::now() + ATTEMPT_TIME);
            let outcome = timeout_at(end, self.attempt::<A>(endpoint, path, content.clone())).await;
            let why = match outcome {
                Ok(Ok(answer)) => match self.belongs(endpoint, &answer) {
                    Ok(()) => {
                        self.current.store(index, Ordering::Relaxed);
                        return Ok(Answered { answer, is_uncertain });
                    }
                    Err(why) => why,
                },
                Ok(Err(Attempt::TooLong)) => return Err(Failed::TooLong),
                Ok(Err(Attempt::Refused(Refused::Compacted))) => return Err(Failed::Compacted),
                Ok(Err(Attempt::Refused(Refused::Final(error)))) => {
                    return Err(Failed::Error { error, is_uncertain });
                }
                Ok(Err(Attempt::Refused(Refused::Token(_)))) if renewals < RENEWALS_MAX => {
                    renewals += 1;
                    continue;
                }
                Ok(Err(Attempt::Refused(Refused::Token(why)))) => {
                    format!("{} refuses each new token: {why}", endpoint.url)
                }
                Ok(Err(Attempt::Refused(Refused::Retry { why, is_untouched }))) => {
                    is_uncertain |= !is_untouched;
                    why
                }
                Err(_) => {
                    is_uncertain = true;
                    format!("{} did not answer in {} s", endpoint.url, ATTEMPT_TIME.as_secs())
                }
            };
            reasons[index] = Some(why);
            tried += 1;
            if tried % self.endpoints.len() == 0 {
                let round = u32::try_from(tried / self.endpoints.len()).unwrap_or(u32::MAX);
                let _ = timeout_at(deadline, self.pause(round)).await;
            }
            if Instant::now() >= deadline {
                let why = reasons.into_iter().flatten().collect::<Vec<_>>().join("; ");
                let error = Error::Unavailable(format!(
                    "no member of etcd did it in {} s: {why}",
                    CALL_TIME.as_secs()
                ));
                return Err(Failed::Error { error, is_uncertain });
            }
        }
    }

    /// Makes sure that all members that answer are of one cluster, before something is begun in it.
    ///
    /// # Errors
    /// [`Error::Broken`] with two that are not.
    pub(super) async fn is_one(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        for endpoint in &self.endpoints {
            let content = Bytes::copy_from_slice(content);
            let attempt = timeout(ATTEMPT_TIME, self.attempt::<Range>(endpoint, path, content)).await;
            if let Ok(Ok(answer)) = attempt {
                self.belongs(endpoint, &answer).map_err(Error::Broken)?;
            }
        }
        Ok(())
    }

    /// Waits a random time, up to twice as long with each round ("full jitter"), so that not all come back at once.
    pub(super) async fn pause(&self, round: u32) {
        let most = PAUSE_MAX.min(PAUSE_MAX / 20 * 2_u32.saturating_pow(round.min(10)));
        let micros = (self.chance)() % (most.as_micros() + 1);
        tokio::time::sleep(Duration::from_micros(u64::try_from(micros).unwrap_or(0))).await;
    }

    /// A watch at the member that answered last, or, when that is `but`, at the next one. Gives its index too.
    pub(super) async fn watch(
        &self,
        content: Vec<u8>,
        but: Option<usize>,
    ) -> (usize, Result<Watch<'_>, String>) {
        let mut index = self.current.load(Ordering::Relaxed);
        if but == Some(index) {
            index = (index + 1) % self.endpoints.len();
        }
        let endpoint = &self.endpoints[index];
        let open = async {
            let (sender, answer) = self.send(endpoint, None, "watch", content.into()).await?;
            if answer.status() != 200 {
                return Err(self.refusal(endpoint, answer).await);
            }
            let body = answer.into_body();
            Ok(Watch { gateway: self, endpoint, _sender: sender, body, read: BytesMut::new(), searched: 0 })
        };
        let watch = match timeout(ATTEMPT_TIME, open).await {
            Ok(Ok(watch)) => Ok(watch),
            Ok(Err(Attempt::Refused(Refused::Retry { why, .. } | Refused::Token(why)))) => Err(why),
            Ok(Err(Attempt::Refused(Refused::Final(error)))) => Err(error.to_string()),
            Ok(Err(Attempt::Refused(Refused::Compacted) | Attempt::TooLong)) => {
                Err("its answer is none".into())
            }
            Err(_) => Err(format!("{} did not answer in {} s", endpoint.url, ATTEMPT_TIME.as_secs())),
        };
        (index, watch)
    }

    /// Members that were set up anew by mistake answer, from an empty cluster of their own.
    fn belongs(&self, endpoint: &Endpoint, answer: &impl Answer) -> Result<(), String> {
        let found = &answer.header().cluster_id;
        let known = self.cluster.get_or_init(|| found.clone());
        if found == known {
            return Ok(());
        }
        Err(format!(
            "{} belongs to cluster {found}, the others to {known}; add it as a member of theirs, or name it no more",
            endpoint.url
        ))
    }

    async fn attempt<A: Answer>(
        &self,
        endpoint: &Endpoint,
        path: &str,
        content: Bytes,
    ) -> Result<A, Attempt> {
        let idle = endpoint.idle.lock().pop();
        let (mut sender, answer) = self.send(endpoint, idle, path, content).await?;
        if answer.status() != 200 {
            return Err(self.refusal(endpoint, answer).await);
        }
        let content = collect(endpoint, answer).await?;
        let read = serde_json::from_slice(&content).map_err(|error| {
            lost(format!("{} answered what is none of etcd's answers: {error}", endpoint.url))
        })?;
        if sender.ready().await.is_ok() {
            let mut idle = endpoint.idle.lock();
            if idle.len() < IDLE_MAX {
                idle.push(sender);
            }
        }
        Ok(read)
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        idle: Option<SendRequest<Full<Bytes>>>,
        path: &str,
        content: Bytes,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), Attempt> {
        let mut sender = match idle.filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => endpoint.dial(&self.tls).await?,
        };
        let mut token = self.token.lock().clone();
        if let (None, Some((name, password))) = (&token, &self.user) {
            let content = serde_json::json!({ "name": name, "password": password }).to_string();
            let answer = endpoint.post(&mut sender, "auth/authenticate", None, content.into()).await?;
            if answer.status() != 200 {
                return Err(self.refusal(endpoint, answer).await);
            }
            let read = serde_json::from_slice::<Authenticated>(&collect(endpoint, answer).await?);
            let given =
                read.map_err(|error| untouched(format!("{} gave no token: {error}", endpoint.url)))?.token;
            token = Some(Arc::from(given));
            self.token.lock().clone_from(&token);
            let ended = |error| untouched(format!("{}: {error}", endpoint.url));
            sender.ready().await.map_err(ended)?;
        }
        match endpoint.post(&mut sender, path, token.as_deref(), content).await {
            Ok(answer) => Ok((sender, answer)),
            Err(attempt) => Err(attempt),
        }
    }

    /// Why an answer is none. A token that is not valid is forgotten.
    async fn refusal(&self, endpoint: &Endpoint, answer: Response<Incoming>) -> Attempt {
        let status = answer.status().as_u16();
        let content = match collect(endpoint, answer).await {
            Ok(content) => content,
            Err(attempt) => return attempt,
        };
        let refused = wire::refused(&endpoint.url, status, &content);
        if matches!(refused, Refused::Token(_)) {
            *self.token.lock() = None;
        }
        refused.into()
    }
}

impl Endpoint {
    fn parse(url: &str) -> Result<Endpoint, Error> {
        let wrong = |found: &str| {
            Error::Broken(format!("endpoint {url:?} of etcd {found}; wanted is e.g. \"https://etcd-1:2379\""))
        };
        let uri: http::Uri = url.parse().map_err(|error| wrong(&format!("is no URL ({error})")))?;
        let host = uri.host().ok_or_else(|| wrong("has no host"))?.trim_matches(['[', ']']).to_owned();
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("has a path"));
        }
        let tls_name = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(
                ServerName::try_from(host.clone())
                    .map_err(|_| wrong("has a host that no certificate can name"))?,
            ),
            _ => return Err(wrong("is neither http nor https")),
        };
        let port = uri.port_u16().unwrap_or(2379);
        Ok(Endpoint {
            url: url.trim_end_matches('/').to_owned(),
            host,
            port,
            tls_name,
            idle: Mutex::default(),
        })
    }

    async fn dial(&self, tls: &TlsConnector) -> Result<SendRequest<Full<Bytes>>, Attempt> {
        let dial = async {
            let socket = TcpStream::connect((&*self.host, self.port)).await?;
            socket.set_nodelay(true)?;
            let (sender, driver) = match &self.tls_name {
                None => {
                    let (sender, connection) =
                        http1::handshake(TokioIo::new(socket)).await.map_err(std::io::Error::other)?;
                    (sender, tokio::spawn(async move { drop(connection.await) }))
                }
                Some(name) => {
                    let stream = tls.connect(name.clone(), socket).await?;
                    let (sender, connection) =
                        http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
                    (sender, tokio::spawn(async move { drop(connection.await) }))
                }
            };
            // It ends when the sender is dropped or the member closes; what went wrong is what sending says.
            drop(driver);
            Ok::<_, std::io::Error>(sender)
        };
        match timeout(CONNECT_TIME, dial).await {
            Ok(Ok(sender)) => Ok(sender),
            Ok(Err(error)) => Err(untouched(format!("{} cannot be reached: {error}", self.url))),
            Err(_) => {
                Err(untouched(format!("{} cannot be reached in {} s", self.url, CONNECT_TIME.as_secs())))
            }
        }
    }

    async fn post(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        path: &str,
        token: Option<&str>,
        content: Bytes,
    ) -> Result<Response<Incoming>, Attempt> {
        let host = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        let mut request =
            Request::post(format!("/v3/{path}")).header(HOST, host).header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Full::new(content))
            .map_err(|error| untouched(format!("{}: no request can be made: {error}", self.url)))?;
        sender.send_request(request).await.map_err(|error| {
            let why = format!("{} gave no answer: {error}", self.url);
            if error.is_canceled() { untouched(why) } else { lost(why) }
        })
    }
}

async fn collect(endpoint: &Endpoint, answer: Response<Incoming>) -> Result<Bytes, Attempt> {
    match Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await {
        Ok(content) => Ok(content.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Attempt::TooLong),
        Err(error) => Err(lost(format!("{} broke its answer off: {error}", endpoint.url))),
    }
}

/// A watch that has been opened.
pub(super) struct Watch<'a> {
    gateway: &'a Gateway,
    endpoint: &'a Endpoint,
    /// The connection lives as long as its sender.
    _sender: SendRequest<Full<Bytes>>,
    body: Incoming,
    read: BytesMut,
    /// Bytes of it that hold no end of a line.
    searched: usize,
}

impl Watch<'_> {
    /// The next thing that it has seen. Nothing is lost when this is dropped and asked again.
    pub(super) async fn next(&mut self) -> Result<Watched, String> {
        loop {
            if let Some(end) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(self.searched + end + 1);
                self.searched = 0;
                let watched = wire::Line::read(&line)?;
                return self.gateway.belongs(self.endpoint, &watched).map(|()| watched);
            }
            self.searched = self.read.len();
            if self.searched > ANSWER_BYTES_MAX {
                return Err(format!("a watch said more than {ANSWER_BYTES_MAX} bytes at once"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(error)) => return Err(format!("the watch broke off: {error}")),
                None => return Err("the watch ended".into()),
            }
        }
    }
}

fn tls(settings: &Settings) -> Result<ClientConfig, Error> {
    let wrong = |what: &str, path: &Path, why: &dyn std::fmt::Display| {
        Error::Broken(format!("{what} {} for etcd: {why}; wanted is PEM", path.display()))
    };
    let roots = match &settings.ca_file {
        // Without TLS, nobody needs them.
        None if settings.endpoints.iter().all(|url| url.starts_with("http:")) => RootCertStore::empty(),
        file => trust::public_roots(file.as_deref())
            .map_err(|why| Error::Broken(format!("CA file for etcd {why}; wanted is PEM")))?,
    };
    let config = trust::public_client(roots).map_err(Error::Broken)?;
    let Some((chain, key)) = &settings.certificate else { return Ok(config.with_no_client_auth()) };
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| wrong("client certificate", chain, &error))?;
    if certificates.is_empty() {
        return Err(wrong("client certificate", chain, &"there is no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("client key", key, &error))?;
    config
        .with_client_auth_cert(certificates, private)
        .map_err(|error| wrong("client certificate", chain, &error))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What etcd 3.4 says of a watch that was created, and of a key that was written then.
    const LINES: &str = r#"{"result":{"header":{"cluster_id":"15875391935852295136","member_id":"7383792418829112008","revision":"1","raft_term":"2"},"created":true}}
{"result":{"header":{"cluster_id":"15875391935852295136","member_id":"7383792418829112008","revision":"2","raft_term":"2"},"events":[{"kv":{"key":"cC9oZWFk","create_revision":"2","mod_revision":"2","version":"1","value":"eA=="}}]}}
"#;
    const CLUSTER: &str = "15875391935852295136";

    #[tokio::test]
    async fn a_watch_at_a_member_of_another_etcd_is_not_believed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            endpoints: vec![format!("http://{}", listener.local_addr().unwrap())],
            prefix: "p".into(),
            ca_file: None,
            certificate: None,
            user: None,
        };
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let _asked = socket.read(&mut [0; 4_096]).await.unwrap();
                socket.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{LINES}").as_bytes()).await.unwrap();
                open.push(socket);
            }
        });
        for (ours, is_believed) in [(CLUSTER, true), ("1", false)] {
            let gateway = Gateway::new(&settings, Arc::new(|| 0)).unwrap();
            gateway.cluster.set(ours.to_owned()).unwrap();
            let mut watch = gateway.watch(b"{}".to_vec(), None).await.1.unwrap();
            match watch.next().await {
                Ok(created) => assert!(is_believed && created.events.is_empty()),
                Err(why) => assert!(!is_believed && why.contains(&format!("cluster {CLUSTER}")), "{why}"),
            }
            if is_believed {
                assert_eq!(watch.next().await.unwrap().events.len(), 1);
            }
        }
    }
}
