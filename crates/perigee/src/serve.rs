//! `perigee serve`: starts an edge and its admin API, then waits for signals.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGTERM, SIGINT | stops: no new connections, running requests end within the drain time; a second one ends at once |
//! | SIGHUP | reads the configuration again and reopens the access log |
//! | SIGUSR1 | reopens the access log |

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use edge::admin::{Admin, AdminOptions};
use edge::{Clock, Handle, Options, StartError};
use model::settings::{AccessLog, AccessLogFormat, DISK_SIZE_MAX, DISK_SIZE_MIN};
use model::{ByteSize, EdgeSettings};
use observe::{BuildInfo, LogOptions, Registry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::address::{AdminAt, parse_address, parse_admin};
use crate::certificates::Certificates;
use crate::configuration::{Live, Read, Source, fit_connections};
use crate::failure::Failure;
use crate::state::StateDir;

/// How often the configuration file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// File descriptors that are not visitors' connections: origins, log, admin.
const OTHER_DESCRIPTORS: u64 = 1024;

const EXAMPLES: &str = "\
Examples:
  perigee serve --origin http://127.0.0.1:8000
  perigee serve --origin https://www.shop.example --listen 0.0.0.0:8080
  perigee serve --origin https://www.shop.example --disk 20GiB
  perigee serve --config /etc/perigee.toml --state /var/lib/perigee

A changed configuration file comes into force by itself within two seconds, or at once on SIGHUP. If it has
errors, they are printed and the running configuration stays.";

/// `perigee serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// The website to cache: one site that answers every host, all choices at their default
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    origin: Option<String>,
    /// Keep the cache on disk too: so many bytes in the state directory (in a file: [[store.disk]])
    #[arg(long, value_name = "SIZE", conflicts_with = "config", value_parser = parse_disk_size)]
    disk: Option<ByteSize>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for visitors; may be given several times [default: the configuration's, else 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    listen: Vec<SocketAddr>,
    /// Address for visitors who speak TLS; may be given several times [default: the configuration's]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, requires = "config")]
    listen_tls: Vec<SocketAddr>,
    /// Address of the admin API and of /metrics, or off [default: the configuration's, else 127.0.0.1:9090]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_admin)]
    admin: Option<AdminAt>,
    /// Allow an admin address that other machines can reach; they see /metrics without a token
    #[arg(long)]
    admin_remote: bool,
    /// Where the token, the key seed and the purge log are kept, and the disk that names no directory
    /// [default: $XDG_STATE_HOME/perigee or ~/.local/state/perigee]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Serve {
    /// Serves until a signal says stop.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let source = match (&self.config, &self.origin) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(url)) => Source::Origin { url: url.clone(), disk: self.disk },
            (None, None) => crate::refuse_serve("give --origin URL or --config FILE"),
        };
        let state = StateDir::find_here(self.state.clone())?;
        let mut read = source.read().map_err(|refused| refused.into_failure())?;
        read.warnings.iter().for_each(|warning| eprintln!("{warning}"));
        state.create()?;
        let _until_the_end = state.lock()?;
        let connections_fit = raise_descriptor_limit();
        if let Some(lowered) = fit_connections(&mut read.snapshot.edge.limits, connections_fit) {
            eprintln!("perigee: {lowered}");
        }
        let settings = read.snapshot.edge.clone();
        let certificates = Certificates::new(state.path());
        let live = Arc::new(Live::new(source, &read, connections_fit, Arc::clone(&certificates)));
        read.certificates = certificates.at_start(&read.snapshot, &read.certificates);
        let handle = Arc::new(self.start_edge(read, &state, &settings)?);
        live.attach(Arc::clone(&handle));
        certificates.attach(Arc::clone(&handle));
        let admin = match self.start_admin(&handle, &live, &state, &settings) {
            Ok(admin) => admin,
            Err(failure) => {
                handle.stop(Duration::ZERO);
                return Err(failure);
            }
        };
        self.greet(&handle, admin.as_ref(), &state);
        let waited = wait_for_stop(&handle, &live);
        certificates.stop();
        drop(admin);
        waited
    }

    fn start_edge(&self, read: Read, state: &StateDir, settings: &EdgeSettings) -> Result<Handle, Failure> {
        let commit = option_env!("PERIGEE_COMMIT").unwrap_or("");
        let registry = Registry::new(BuildInfo { version: env!("CARGO_PKG_VERSION"), commit });
        let options = Options {
            listen: (!self.listen.is_empty()).then(|| self.listen.clone()),
            listen_tls: (!self.listen_tls.is_empty()).then(|| self.listen_tls.clone()),
            certificates: read.certificates,
            clock: Clock::system(),
            key_seed: state.key_seed()?,
            state: Some(state.path().to_owned()),
            disk_engine: None,
            access_log: start_access_log(settings, &registry)?,
            registry,
        };
        edge::Edge::start(read.snapshot, options).map_err(|error| match &error {
            StartError::Listen(_, cause) => Failure::new(
                format!("{error}: {cause}"),
                "is it in use? Choose another address with --listen HOST:PORT",
            ),
            StartError::Tls(cause) => Failure::new(format!("{error}: {cause}"), "report it: it should not happen"),
            StartError::Thread(cause) => {
                Failure::new(format!("{error}: {cause}"), "look at the limits of this user")
            }
            StartError::PurgeLog(_, cause) => Failure::new(
                format!("{error}: {cause}"),
                "it must be readable and writable by this user; without it, what is on disk could not be trusted",
            ),
            StartError::Disks(_) => Failure::new(
                error.to_string(),
                "correct path and size of [[store.disk]], or take it out to run from memory alone",
            ),
        })
    }

    fn start_admin(
        &self,
        handle: &Arc<Handle>,
        live: &Arc<Live>,
        state: &StateDir,
        settings: &EdgeSettings,
    ) -> Result<Option<Admin>, Failure> {
        let address = match self.admin {
            Some(AdminAt::Off) => None,
            Some(AdminAt::Address(address)) => Some(address),
            None => settings.admin,
        };
        let Some(address) = address else { return Ok(None) };
        let options = AdminOptions { address, allow_remote: self.admin_remote, token: state.token()? };
        let admin = Admin::start(Arc::clone(handle), Arc::<Live>::clone(live), options).map_err(|error| {
            let next = match error.kind() {
                std::io::ErrorKind::InvalidInput => "say --admin-remote if that is what you want",
                _ => "is it in use? Choose another address with --admin HOST:PORT",
            };
            Failure::new(format!("the admin API cannot listen on {address}: {error}"), next)
        })?;
        state.note_admin_address(admin.address())?;
        Ok(Some(admin))
    }

    /// To standard error: standard output may be the access log.
    fn greet(&self, handle: &Handle, admin: Option<&Admin>, state: &StateDir) {
        let before = match (&self.config, &self.origin) {
            (None, Some(url)) => format!("in front of {url}"),
            (Some(path), _) => format!("as {} says", path.display()),
            (None, None) => String::new(),
        };
        eprintln!("perigee {} is serving, {before}", env!("CARGO_PKG_VERSION"));
        for address in handle.addresses() {
            eprintln!("  visitors  http://{}/", reachable(*address));
        }
        for address in handle.addresses_tls() {
            eprintln!("  visitors  https://{}/", reachable(*address));
        }
        if let Some(admin) = admin {
            let address = admin.address();
            eprintln!("  metrics   http://{}/metrics", reachable(address));
            eprintln!(
                "  admin     http://{}/v1/status  (token: {})",
                reachable(address),
                state.token_path().display()
            );
        }
        if let Some(address) = handle.addresses().first() {
            eprintln!("  try       curl -sI http://{}/ | grep -i cache-status", reachable(*address));
        }
        eprintln!("  stop      Ctrl-C");
    }
}

/// Reads the size of a disk, within the bounds of the configuration. The error says what to write instead.
fn parse_disk_size(text: &str) -> Result<ByteSize, String> {
    let size =
        ByteSize::parse(text).map_err(|bad| format!("{}; write e.g. {}", bad.reason, bad.suggestion))?;
    if size < DISK_SIZE_MIN || size > DISK_SIZE_MAX {
        return Err(format!("it may be {DISK_SIZE_MIN} to {DISK_SIZE_MAX}"));
    }
    Ok(size)
}

/// An address that a browser on this machine can open.
fn reachable(address: SocketAddr) -> SocketAddr {
    match (address.ip().is_unspecified(), address) {
        (true, SocketAddr::V4(_)) => SocketAddr::from(([127, 0, 0, 1], address.port())),
        (true, SocketAddr::V6(_)) => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
        (false, _) => address,
    }
}

fn start_access_log(
    settings: &EdgeSettings,
    registry: &Arc<Registry>,
) -> Result<Option<observe::AccessLog>, Failure> {
    let sink = match &settings.access_log {
        AccessLog::Off => return Ok(None),
        AccessLog::Stdout => observe::Sink::Stdout,
        AccessLog::File(path) => observe::Sink::File(path.clone()),
    };
    let format = match settings.access_log_format {
        AccessLogFormat::Json => observe::Format::Json,
        AccessLogFormat::Combined => observe::Format::Combined,
    };
    let started = observe::AccessLog::start(LogOptions { sink, format }, registry);
    started.map(Some).map_err(|error| {
        let place = match &settings.access_log {
            AccessLog::File(path) => path.display().to_string(),
            _ => "standard output".into(),
        };
        Failure::new(format!("the access log cannot be written to {place}: {error}"), "correct access_log")
    })
}

/// As many file descriptors as the system lets this process have: each visitor is one. Says how many visitors that is;
/// `None` when there is no limit.
fn raise_descriptor_limit() -> Option<u32> {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current }?;
    let visitors = allowed - OTHER_DESCRIPTORS.min(allowed / 2);
    Some(u32::try_from(visitors).unwrap_or(u32::MAX).max(1))
}

// --- Signals ---

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    reopen: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn wait_for_stop(handle: &Arc<Handle>, live: &Arc<Live>) -> Result<(), Failure> {
    let no_signals = |error| Failure::new(format!("signals cannot be received: {error}"), "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_signals)?;
    let finished = runtime.block_on(async {
        let mut signals = Signals::new().map_err(no_signals)?;
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Each branch only waits: cancelling one loses nothing.
            tokio::select! {
                biased;
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.reload.recv() => {
                    live.reload_loudly();
                    reopen_log(handle);
                }
                _ = signals.reopen.recv() => reopen_log(handle),
                _ = look.tick() => {
                    if live.has_changed() {
                        live.reload_loudly();
                    }
                    live.warn_of_ends();
                }
            }
        }
        Ok(drain(handle, &mut signals).await)
    });
    // The thread that waits for the drain may still wait; the process is about to end.
    runtime.shutdown_background();
    if !finished? {
        eprintln!("perigee: some requests did not end in time and were cut");
    }
    Ok(())
}

async fn drain(handle: &Arc<Handle>, signals: &mut Signals) -> bool {
    let within = handle.with_snapshot(|snapshot| snapshot.edge.limits.drain_timeout);
    eprintln!("perigee: stopping; running requests have {} s to end (again: at once)", within.as_secs());
    let handle = Arc::clone(handle);
    let draining = tokio::task::spawn_blocking(move || handle.stop(within));
    tokio::select! {
        biased;
        ended = draining => ended.unwrap_or(false),
        () = signals.stop() => false,
    }
}

fn reopen_log(handle: &Handle) {
    match handle.reopen_log() {
        Ok(()) => {}
        Err(error) => {
            eprintln!("perigee: the access log cannot be reopened: {error}; the old file is used on")
        }
    }
}
