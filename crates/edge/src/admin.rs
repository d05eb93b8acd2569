//! The admin API: metrics, status, purge, explain, check and reload, as JSON over HTTP/1.1 on a loopback address and a
//! thread of its own, so that neither a slow scrape nor a big configuration takes time from visitors.
//!
//! | request | answer | token |
//! |---|---|---|
//! | `GET /healthz` | `ok` while the process answers | no |
//! | `GET /readyz` | the same if there is a configuration; else 503, as visitors get | no |
//! | `GET /metrics` | Prometheus text format 0.0.4 | no |
//! | `GET /v1/status` | version, configuration, purge position, store, origins | yes |
//! | `GET /v1/certificates` | each certificate: names, source, issuer, end, next order, last error | yes |
//! | `POST /v1/purge` | the position at which the purge is in force on all workers | yes |
//! | `GET /v1/explain?url=&method=&header=` | site, rule, key, what is stored, freshness, why | yes |
//! | `POST /v1/check` | every diagnostic of the configuration text in the body, and of the tests in it | yes |
//! | `POST /v1/reload` | reads the configuration again and puts it into force | yes |
//! | `POST /v1/upgrade` | begins to start the program anew in this process's place | yes |
//! | `GET /v1/upgrade` | how that goes, or went; the process that took over answers it too | yes |
//! | `GET /v1/config/schema` | JSON Schema of the configuration file | yes |
//! | `GET /v1/stats`, `/v1/stats/…` | what was served, on an edge without a control: as control's API has it | yes |
//!
//! On a node of a cluster, what is purged and which configuration is in force is the cluster's to say: there, `POST /v1/purge` and
//! `POST /v1/reload` are refused.
//!
//! `/metrics` needs no token: it holds numbers and the names of sites and origins, no address, URL or visitor, and
//! scrapers on the same machine should not need the right to purge. Whoever binds the API beyond loopback shows it to
//! those who can reach it.
//!
//! Every error is `{"error", "found", "wanted", "next"}`. Against web pages in an operator's browser: a request with a
//! foreign `Origin` or `Sec-Fetch-Site` is refused, and on loopback a `Host` that is a name other than `localhost` is,
//! which ends DNS rebinding. No CORS field is ever sent.
//!
//! One request per connection, a bounded number of connections, a bounded time for each.

mod api;
mod explain;
mod guard;
mod purge;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::Diagnostic;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::Handle;

/// Connections at once; more wait in the listen queue. A scraper, some commands and a dashboard are a handful.
const CONNECTIONS_MAX: usize = 64;
/// How many of them may wait for a disk or another process at once, each in a thread: purges, reloads and what is looked at. More
/// wait for those; health and metrics never do.
const WAITING_MAX: usize = 8;
/// Time for a whole exchange, from the accepted connection to the last byte of the answer: more than the two minutes for which a command
/// waits for a purge, which waits for a disk and for each process of an upgrade.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(150);
/// Time for a complete request head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of a request body: the largest is a configuration text.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How the admin API is run.
pub struct AdminOptions {
    /// Where to listen. Port 0 chooses one.
    pub address: SocketAddr,
    /// Whether an address that other machines can reach is allowed.
    pub allow_remote: bool,
    /// The bearer token; at least 32 characters.
    pub token: String,
    /// A socket that listens there already.
    pub socket: Option<TcpListener>,
    /// Who replaces this process by another; `None` where it cannot be.
    pub upgrades: Option<Arc<dyn Upgrades>>,
    /// Further paths, which want the token too.
    pub further: Option<axum::Router>,
}

impl AdminOptions {
    /// Whether these may be used.
    ///
    /// # Errors
    /// `InvalidInput` for an address beyond loopback that was not allowed, and for a short token.
    pub fn check(&self) -> io::Result<()> {
        let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let AdminOptions { address, allow_remote, token, socket, .. } = self;
        let bound = socket.as_ref().map(TcpListener::local_addr).transpose()?;
        let is_remote = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
        if let Some(address) = [Some(*address), bound].into_iter().flatten().find(is_remote)
            && !allow_remote
        {
            return invalid(format!(
                "{address} can be reached from other machines; wanted a loopback address such as 127.0.0.1"
            ));
        }
        if token.len() < 32 {
            return invalid("the admin token is shorter than 32 characters".to_owned());
        }
        Ok(())
    }
}

/// Where the configuration comes from: the admin API shows and reloads it, the binary knows the file.
pub trait Configuration: Send + Sync {
    /// Reads the configuration again and puts it into force. On any error the running one stays.
    fn reload(&self) -> Reload;

    /// What is in force, and how the last attempt went.
    fn status(&self) -> ConfigurationStatus;

    /// The certificates for visitors, those included that could not be had yet.
    fn certificates(&self) -> Vec<CertificateStatus>;

    /// How it stands with the cluster that says what is purged and which sites there are; `None` for an edge that is told so
    /// by its own operator.
    fn cluster(&self) -> Option<ClusterStatus> {
        None
    }
}

/// How a node stands with its cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterStatus {
    /// Its name.
    pub node: String,
    /// The place where it stands; empty when it is in none.
    pub pop: String,
    /// Whether a control or relay tells it of the journal now.
    pub is_connected: bool,
    /// Which: its URL.
    pub control: Option<String>,
    /// Why none does.
    pub trouble: Option<String>,
    /// The journal's name; `None` before the first.
    pub journal: Option<String>,
    /// Up to where all of it is in force.
    pub position: u64,
    /// Whether that was all there was when control was last heard.
    pub is_current: bool,
    /// The number of the configuration in force.
    pub running: Option<u64>,
    /// The number of one that was refused, and why.
    pub refused: Option<(u64, String)>,
    /// When its certificate for the cluster ends, in ms since the Unix epoch.
    pub certificate_until_ms: i64,
    /// What is not as its operator wants it, and what to do.
    pub warning: Option<String>,
}

/// What came of a reload.
#[derive(Clone, Debug)]
pub struct Reload {
    /// Whether the new configuration is in force.
    pub in_force: bool,
    /// Why not, in a sentence; what needs a new start, when it is.
    pub message: String,
    /// Everything that is wrong or doubtful in the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// What configuration runs.
#[derive(Clone, Debug, Default)]
pub struct ConfigurationStatus {
    /// The file, or the flags.
    pub source: String,
    /// Names the text in force: 32 hex digits, the same for the same text.
    pub hash: String,
    /// When it was put into force, in ms since the Unix epoch.
    pub loaded_ms: i64,
    /// Configurations refused since.
    pub refused: u64,
    /// What was wrong with the last one refused, if that was after the one in force.
    pub last_error: Option<String>,
}

/// How it stands with one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateStatus {
    /// What it is for.
    pub names: Vec<String>,
    /// The file that it comes from, or `acme`.
    pub source: String,
    /// Who issued it; `None` when there is none yet.
    pub issuer: Option<String>,
    /// When it ends, in ms since the Unix epoch; `None` when there is none yet.
    pub not_after_ms: Option<i64>,
    /// When the next order begins, in ms since the Unix epoch; `None` for files, and when it is under way or due.
    pub next_order_ms: Option<i64>,
    /// Orders that failed since the last that did not.
    pub failures: u32,
    /// Why the last one did.
    pub last_error: Option<String>,
}

/// Starts another process in this one's place: the binary knows how.
pub trait Upgrades: Send + Sync {
    /// Begins it. An error is a sentence that says why not; nothing has happened then.
    fn begin(&self) -> Result<Upgrade, String>;

    /// The last one that this process has begun, or that it owes its place to.
    fn last(&self) -> Option<Upgrade>;
}

/// An upgrade, as far as it has come.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// Names it, in the old process and in the new one.
    pub id: String,
    /// How far it has come.
    pub state: UpgradeState,
    /// Version and process id of the process that served before.
    pub from: (String, u32),
    /// The same of the one in its place, as soon as it has said it.
    pub to: Option<(String, u32)>,
    /// Time that it took, or has taken until now.
    pub took: Duration,
    /// Time after which it is given up.
    pub within: Duration,
    /// Why it failed.
    pub error: Option<String>,
    /// The last lines of what the new process wrote to standard error, when it failed.
    pub said: Vec<String>,
}

/// How far an upgrade has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeState {
    /// The new process starts; the old one serves as ever.
    Starting,
    /// The new process opens disks and purge log; purges wait.
    Opening,
    /// The new process serves.
    Done,
    /// The old process serves on.
    Failed,
}

impl UpgradeState {
    /// In the answers of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            UpgradeState::Starting => "starting",
            UpgradeState::Opening => "opening",
            UpgradeState::Done => "done",
            UpgradeState::Failed => "failed",
        }
    }
}

/// The running admin API. Dropping it ends the thread without waiting for exchanges under way.
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    paused: watch::Sender<bool>,
}

impl Admin {
    /// Binds the address and starts the thread.
    ///
    /// # Errors
    /// As [`AdminOptions::check`]; else what binding or starting the thread said.
    pub fn start(
        handle: Arc<Handle>,
        configuration: Arc<dyn Configuration>,
        options: AdminOptions,
    ) -> io::Result<Self> {
        options.check()?;
        let AdminOptions { address, token, socket, upgrades, further, .. } = options;
        let listener = socket.map_or_else(|| TcpListener::bind(address), Ok)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let guard = guard::Guard::new(token, address.ip().to_canonical().is_loopback());
        let router = api::router(handle, configuration, upgrades, guard, further.unwrap_or_default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WAITING_MAX)
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let (paused, is_paused) = watch::channel(false);
        thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    biased;
                    // The sender is gone or has said so: exchanges under way are cut when the runtime goes.
                    _ = stopped => {}
                    () = serve(listener, router, is_paused) => {}
                }
            });
        })?;
        Ok(Admin { address, stop: Some(stop), paused })
    }

    /// Takes no connection, or takes them again. Meanwhile they wait in the socket's queue: for this process, or for another
    /// that it has been passed on to.
    pub fn pause(&self, is_paused: bool) {
        self.paused.send_replace(is_paused);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the thread has ended already.
            let _ = stop.send(());
        }
    }
}

async fn serve(listener: TcpListener, router: axum::Router, mut is_paused: watch::Receiver<bool>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        if is_paused.wait_for(|is_paused| !is_paused).await.is_err() {
            return;
        }
        // Neither loses anything when it is cancelled.
        let accepted = tokio::select! {
            biased;
            _ = is_paused.changed() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let exchange = exchange(stream, router.clone());
                tokio::spawn(async move {
                    // Late, or broken by the peer: nobody is left to tell.
                    let _ = tokio::time::timeout(EXCHANGE_TIME_MAX, exchange).await;
                    drop(permit);
                });
            }
            // Out of descriptors, mostly: try again when some may have been closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn exchange(stream: TcpStream, router: axum::Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away is its own affair.
    let _ = connection.await;
}

#[cfg(test)]
pub(crate) mod tests;
