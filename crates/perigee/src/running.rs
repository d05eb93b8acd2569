//! The life of a process that serves: from the sockets to the last request. `serve` and `edge` say where its configuration comes
//! from.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGTERM, SIGINT | stops: no new connections, running requests end within the drain time; a second one ends at once |
//! | SIGHUP | reads the configuration again and reopens the access log |
//! | SIGUSR1 | reopens the access log |
//! | SIGUSR2 | starts the program anew in this process's place: see `upgrader` |

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::OwnStatistics;
use edge::admin::{Admin, AdminOptions, Upgrades};
use edge::sockets::{Bound, Kind, Sockets};
use edge::{Clock, Handle, Options, StartError, TierIdentity, Tracing};
use model::EdgeSettings;
use model::settings::{AccessLog, AccessLogFormat, SyslogBy, TierFiles};
use observe::{BuildInfo, LogOptions, Registry, SyslogTo};
use router::location::Location;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats::Country;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::address::{AdminAt, listen_elsewhere};
use crate::batches::{Batches, Content};
use crate::certificates::Certificates;
use crate::configuration::{Live, Read, Source, fit_connections};
use crate::failure::Failure;
use crate::manager;
use crate::member::{EdgeWorks, Member};
use crate::state::{Lock, StateDir};
use crate::takeover::Takeover;
use crate::upgrader::{Begins, Upgrader};

/// How often the configuration file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether a second of statistics is there: workers hand one over when it is over.
pub(crate) const STATISTICS_EVERY: Duration = Duration::from_millis(250);
/// File descriptors that are not visitors' connections: origins, log, admin.
const OTHER_DESCRIPTORS: u64 = 1024;

/// A process that is about to serve, and what it was given by the one before it.
pub(crate) struct Beginning {
    takeover: Option<Takeover>,
    passed: Vec<Bound>,
    lock: Option<Lock>,
    state: StateDir,
}

/// What the command line says of where it listens; what it doesn't say, the configuration does.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) listen_tls: Vec<SocketAddr>,
    pub(crate) admin: Option<AdminAt>,
    /// Whether other machines may reach the admin API.
    pub(crate) admin_remote: bool,
}

impl Beginning {
    /// Takes what another process passes on, if there is one. `state` is the state directory that was asked for.
    pub(crate) fn new(state: Option<PathBuf>) -> Result<Self, Failure> {
        let (takeover, passed, lock) = match Takeover::receive()? {
            Some((takeover, passed, lock)) => (Some(takeover), passed, Some(lock)),
            None => (None, manager::take_sockets()?, None),
        };
        Ok(Beginning { takeover, passed, lock, state: StateDir::find_here(state)? })
    }

    /// Makes the state directory, and it this process's own.
    pub(crate) fn take_state(&mut self) -> Result<&StateDir, Failure> {
        self.state.create()?;
        if self.lock.is_none() {
            self.lock = Some(self.state.lock()?);
        }
        Ok(&self.state)
    }

    /// Whether it takes the place of a process that runs.
    pub(crate) fn is_takeover(&self) -> bool {
        self.takeover.is_some()
    }

    /// Serves until a signal says stop, or another process has taken this one's place. `member` makes it a node of a cluster;
    /// `before` says in whose name it serves, for the greeting.
    pub(crate) fn serve(
        mut self,
        source: Source,
        mut read: Read,
        at: &Addresses,
        member: Option<Arc<Member>>,
        before: &str,
    ) -> Result<(), Failure> {
        read.warnings.iter().for_each(|warning| eprintln!("{warning}"));
        self.take_state()?;
        let Beginning { mut takeover, passed, lock, state } = self;
        let lock = lock.map_or_else(|| state.lock(), Ok)?;
        let connections_fit = raise_descriptor_limit();
        if let Some(lowered) = fit_connections(&mut read.snapshot.edge.limits, connections_fit) {
            eprintln!("perigee: {lowered}");
        }
        let settings = read.snapshot.edge.clone();
        let certificates = Certificates::new(state.path());
        let live = Live::new(source, &read, connections_fit, Arc::clone(&certificates), member.clone());
        let live = Arc::new(live);
        let sockets = at.open_sockets(passed, &settings)?;
        let mut admin = at.admin_options(&sockets, &state, &settings)?;
        let last = takeover.as_ref().map(Takeover::upgrade);
        let draining = takeover.as_ref().map_or(0, Takeover::draining);
        let upgrader = Upgrader::new(draining, last).map_err(|error| {
            Failure::new(format!("the path of this program cannot be found: {error}"), "mount /proc")
        })?;
        let mut options = options(sockets, &state, &settings)?;
        options.budgets_are_leased = member.is_some();
        let is_alone = settings.statistics && member.is_none();
        let own = is_alone.then(|| own_statistics(&state)).flatten();
        // Not without anybody who takes them: they would wait in memory.
        if settings.statistics && (own.is_some() || member.is_some()) {
            options.registry.keep_statistics();
            options.locate = settings.location.as_deref().map(locate).transpose()?;
        }
        options.client_authorities.clone_from(&read.client_authorities);
        options.tier = match &member {
            Some(member) => Some(member.tier_identity()?),
            None => settings.tier.as_ref().map(|files| read_tier(files, &settings.node)).transpose()?,
        };
        options.certificates = certificates.at_start(&read.snapshot, &read.certificates);
        if let Some(takeover) = &mut takeover {
            options.predecessor = Some(takeover.predecessor()?);
            takeover.prepared()?;
        }
        let secret = options.ticket_secret.clone();
        let host = host_to_try(&read.snapshot);
        let handle = Arc::new(start_edge(read, options)?);
        if let Some(pop) = member.as_ref().map(|member| member.pop()).filter(|pop| !pop.is_empty()) {
            handle.measure(pop, &secret);
        }
        if let Some(own) = own {
            if let Some(admin) = &mut admin {
                admin.further = Some(own.router());
            }
            count_own(own, &handle).map_err(|error| {
                Failure::new(format!("no thread for statistics: {error}"), "look at the limits of this user")
            })?;
        }
        live.attach(Arc::clone(&handle));
        certificates.attach(Arc::clone(&handle));
        let no_signals = |error| Failure::new(format!("signals cannot be received: {error}"), "");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_signals)?;
        // Before anybody is told that it serves: each of these signals ends a process that doesn't expect it.
        let signals = {
            let _in_it = runtime.enter();
            Signals::new().map_err(no_signals)?
        };
        let started =
            serve_all(&handle, &live, &upgrader, takeover, admin, lock, &state).and_then(|address| {
                let followed = member.as_ref().map_or(Ok(()), |member| {
                    member.start(Arc::new(EdgeWorks::new(member.pop(), handle.clone(), live.clone())))
                });
                followed.map(|()| address).map_err(|error| {
                    Failure::new(
                        format!("no thread to follow the cluster: {error}"),
                        "look at the limits of this user",
                    )
                })
            });
        let address = match started {
            Ok(address) => address,
            Err(failure) => {
                handle.stop(Duration::ZERO);
                return Err(failure);
            }
        };
        greet(&handle, address, &state, before, host.as_deref());
        wait_for_end(&runtime, signals, &handle, &live, &upgrader, &certificates, member.as_deref());
        // The thread that waits for the drain may still wait; the process is about to end.
        runtime.shutdown_background();
        Ok(())
    }
}

impl Addresses {
    /// What is listened on: passed on, or opened.
    fn open_sockets(&self, passed: Vec<Bound>, settings: &EdgeSettings) -> Result<Sockets, Failure> {
        let listen = if self.listen.is_empty() { &settings.listen } else { &self.listen };
        let tls = if self.listen_tls.is_empty() { &settings.listen_tls } else { &self.listen_tls };
        let tier = settings.listen_tier.clone();
        let mut wanted = edge::wanted(listen.clone(), tls.clone(), tier, settings.http3);
        wanted.extend(self.admin_address(settings).map(|address| (Kind::Admin, address)));
        Sockets::open(&wanted, passed, edge::workers(settings)).map_err(|(kind, address, error)| match kind {
            Kind::Admin => Failure::new(
                format!("the admin API cannot listen on {address}: {error}"),
                listen_elsewhere(&error, "--admin HOST:PORT"),
            ),
            Kind::Tier => Failure::new(
                format!("cannot listen on {address} for other edges: {error}"),
                listen_elsewhere(&error, "listen_tier in [edge]"),
            ),
            _ => Failure::new(
                format!("cannot listen on {address}: {error}"),
                listen_elsewhere(&error, "--listen HOST:PORT"),
            ),
        })
    }

    fn admin_address(&self, settings: &EdgeSettings) -> Option<SocketAddr> {
        match self.admin {
            Some(AdminAt::Off) => None,
            Some(AdminAt::Address(address)) => Some(address),
            None => settings.admin,
        }
    }

    /// How the admin API is run; `None` when it is off. Checked, so that it starts.
    fn admin_options(
        &self,
        sockets: &Sockets,
        state: &StateDir,
        settings: &EdgeSettings,
    ) -> Result<Option<AdminOptions>, Failure> {
        let Some(address) = self.admin_address(settings) else { return Ok(None) };
        let cannot = |error: io::Error| Failure::new(format!("the admin API cannot start: {error}"), "");
        let socket = sockets.deal(Kind::Admin, 1).map_err(cannot)?.into_iter().flatten().next();
        let Some(socket) = socket else { return Ok(None) };
        let options = AdminOptions {
            address,
            allow_remote: self.admin_remote,
            token: state.token()?,
            socket: Some(socket),
            upgrades: None,
            further: None,
        };
        options.check().map_err(|error| {
            Failure::new(
                format!("the admin API cannot listen there: {error}"),
                "say --admin-remote if that is what you want",
            )
        })?;
        Ok(Some(options))
    }
}

/// What an edge by itself shows to others.
fn read_tier(files: &TierFiles, node: &str) -> Result<TierIdentity, Failure> {
    let wrong =
        |what: String| Failure::new(what, "correct [edge.tier], or leave it out to ask no other edge");
    let identity = TierIdentity::read(files).map_err(wrong)?;
    match identity.is_of(node) {
        true => Ok(identity),
        false => Err(wrong(format!(
            "{}: the certificate names another than this node, {node:?}",
            files.certificate.display()
        ))),
    }
}

fn options(sockets: Sockets, state: &StateDir, settings: &EdgeSettings) -> Result<Options, Failure> {
    let commit = option_env!("PERIGEE_COMMIT").unwrap_or("");
    let registry = Registry::new(BuildInfo { version: env!("CARGO_PKG_VERSION"), commit });
    Ok(Options {
        listen: None,
        listen_tier: None,
        tier: None,
        listen_tls: None,
        sockets: Some(sockets),
        certificates: Vec::new(),
        client_authorities: Vec::new(),
        clock: Clock::system(),
        key_seed: state.key_seed()?,
        ticket_secret: state.ticket_secret(settings.tls.ticket_secret_file.as_deref())?,
        state: Some(state.path().to_owned()),
        disk_engine: None,
        access_log: start_access_log(settings, &registry)?,
        tracing: start_traces(settings, &registry)?,
        locate: None,
        registry,
        predecessor: None,
        budgets_are_leased: false,
    })
}

/// The statistics of an edge without a control; without room for their file there are none, and it serves.
fn own_statistics(state: &StateDir) -> Option<OwnStatistics> {
    OwnStatistics::begin(&state.path().join("own-statistics.sqlite"))
        .inspect_err(|why| eprintln!("perigee: there will be no statistics: {why}"))
        .ok()
}

/// Writes down what workers count, for as long as the edge lives.
fn count_own(own: OwnStatistics, handle: &Arc<Handle>) -> io::Result<()> {
    let handle = Arc::downgrade(handle);
    std::thread::Builder::new().name("statistics-own".into()).spawn(move || {
        while let Some(handle) = handle.upgrade() {
            handle.registry().take_reports().iter().for_each(|report| own.count(report));
            drop(handle);
            std::thread::sleep(STATISTICS_EVERY);
        }
    })?;
    Ok(())
}

/// Where visitors are, as a file of location data says.
fn locate(path: &Path) -> Result<edge::Locate, Failure> {
    let unusable = |why: String| {
        Failure::new(
            format!("location {}: {why}", path.display()),
            "have one made by `perigee geo build`, or take the line out",
        )
    };
    let file = std::fs::File::open(path).map_err(|error| unusable(error.to_string()))?;
    let location = Location::read(file).map_err(|damaged| unusable(damaged.to_string()))?;
    Ok(Arc::new(move |client| {
        let cell = location.cells().get(usize::from(location.cell(client)));
        cell.map_or(Country::UNKNOWN, |cell| Country::of(cell.country))
    }))
}

/// The host to ask for, where no site answers whatever host is asked.
fn host_to_try(snapshot: &model::Snapshot) -> Option<Box<str>> {
    let mut domains = snapshot.sites.iter().flat_map(|site| &site.domains);
    match domains.clone().any(|domain| &**domain == "*") {
        true => None,
        false => domains.find(|domain| !domain.contains('*')).cloned(),
    }
}

/// To standard error: standard output may be the access log.
fn greet(handle: &Handle, admin: Option<SocketAddr>, state: &StateDir, before: &str, host: Option<&str>) {
    eprintln!("perigee {} is serving, {before}", env!("CARGO_PKG_VERSION"));
    for address in handle.addresses() {
        eprintln!("  visitors  http://{}/", reachable(*address));
    }
    for address in handle.addresses_tls() {
        eprintln!("  visitors  https://{}/", reachable(*address));
    }
    for address in handle.addresses_tier() {
        eprintln!("  edges     {address}");
    }
    if let Some(address) = admin {
        eprintln!("  metrics   http://{}/metrics", reachable(address));
        eprintln!(
            "  admin     http://{}/v1/status  (token: {})",
            reachable(address),
            state.token_path().display()
        );
    }
    if let Some(address) = handle.addresses().first() {
        let host = host.map_or(String::new(), |host| format!(" -H 'Host: {host}'"));
        eprintln!("  try       curl -sI{host} http://{}/ | grep -i cache-status", reachable(*address));
    }
    eprintln!("  stop      Ctrl-C");
}

fn start_edge(read: Read, options: Options) -> Result<Handle, Failure> {
    edge::Edge::start(read.snapshot, options).map_err(|error| match &error {
        StartError::Listen(_, cause) => Failure::new(format!("{error}: {cause}"), ""),
        StartError::Tls(cause) => {
            Failure::new(format!("{error}: {cause}"), "report it: it should not happen")
        }
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

/// What follows once visitors are served: the admin API, and the word to whoever waits for it. Where the admin API listens.
fn serve_all(
    handle: &Arc<Handle>,
    live: &Arc<Live>,
    upgrader: &Arc<Upgrader>,
    takeover: Option<Takeover>,
    admin: Option<AdminOptions>,
    lock: Lock,
    state: &StateDir,
) -> Result<Option<SocketAddr>, Failure> {
    let admin = admin.map(|mut options| {
        options.upgrades = Some(Arc::new(Begins(Arc::clone(upgrader))));
        Admin::start(Arc::clone(handle), Arc::<Live>::clone(live), options)
            .map_err(|error| Failure::new(format!("the admin API cannot start: {error}"), ""))
    });
    let admin = admin.transpose()?;
    let address = admin.as_ref().map(Admin::address);
    if let Some(address) = address {
        state.note_admin_address(address)?;
    }
    upgrader.attach(Arc::clone(handle), admin, lock);
    if let Some(takeover) = takeover {
        takeover.serving()?;
    }
    manager::ready();
    Ok(address)
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
    let format = match settings.access_log_format {
        AccessLogFormat::Json => observe::Format::Json,
        AccessLogFormat::Combined => observe::Format::Combined,
        AccessLogFormat::Cloudfront => observe::Format::Cloudfront,
        AccessLogFormat::Logpush => observe::Format::Logpush,
    };
    let start = |sink| observe::AccessLog::start(LogOptions { sink, format }, registry);
    let started = match &settings.access_log {
        AccessLog::Off => return Ok(None),
        AccessLog::Stdout => start(observe::Sink::Stdout),
        AccessLog::File(path) => start(observe::Sink::File(path.clone())),
        AccessLog::Syslog(by, place) => {
            let to = match by {
                SyslogBy::Udp => SyslogTo::Udp(place.clone()),
                SyslogBy::Tcp => SyslogTo::Tcp(place.clone()),
                SyslogBy::Unix => SyslogTo::Unix(place.into()),
            };
            start(observe::Sink::Syslog(to, settings.node.clone()))
        }
        AccessLog::Http(url) => Batches::to(url, Content::Lines)
            .map_err(io::Error::other)
            .and_then(|batches| observe::AccessLog::start_to(Box::new(batches), format, registry)),
    };
    started.map(Some).map_err(|error| {
        let place = match &settings.access_log {
            AccessLog::File(path) => path.display().to_string(),
            AccessLog::Syslog(_, place) | AccessLog::Http(place) => place.clone(),
            AccessLog::Stdout | AccessLog::Off => "standard output".into(),
        };
        Failure::new(format!("the access log cannot be written to {place}: {error}"), "correct access_log")
    })
}

fn start_traces(settings: &EdgeSettings, registry: &Arc<Registry>) -> Result<Option<Tracing>, Failure> {
    let Some(traces) = &settings.traces else { return Ok(None) };
    let begin = || {
        let mut to = Batches::to(&traces.to, Content::Otlp)?;
        if let Some(path) = &traces.authorization_file {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            to = to.authorized(text.trim_end())?;
        }
        observe::Traces::start(&settings.node, Box::new(to), registry).map_err(|error| error.to_string())
    };
    let sent = begin().map_err(|why: String| {
        Failure::new(format!("traces cannot be sent: {why}"), "correct [edge.traces]")
    })?;
    Ok(Some(Tracing { traces: sent, one_in: traces.one_in, believes_visitors: traces.believe_visitors }))
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
    upgrade: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// How an edge ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    HandedOver,
}

fn wait_for_end(
    runtime: &Runtime,
    mut signals: Signals,
    handle: &Arc<Handle>,
    live: &Arc<Live>,
    upgrader: &Arc<Upgrader>,
    certificates: &Certificates,
    member: Option<&Member>,
) {
    let finished = runtime.block_on(async {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = loop {
            // Each branch only waits: cancelling one loses nothing.
            tokio::select! {
                biased;
                () = upgrader.handed_over() => break End::HandedOver,
                _ = signals.terminate.recv() => break End::Stop,
                _ = signals.interrupt.recv() => break End::Stop,
                _ = signals.reload.recv() => {
                    manager::reloading();
                    live.reload_loudly();
                    reopen_log(handle);
                    manager::ready();
                }
                _ = signals.reopen.recv() => reopen_log(handle),
                _ = signals.upgrade.recv() => {
                    if let Err(why) = Begins(Arc::clone(upgrader)).begin() {
                        eprintln!("perigee: no upgrade: {why}");
                    }
                }
                _ = look.tick() => {
                    if live.has_changed() {
                        live.reload_loudly();
                    }
                    live.warn_of_ends();
                }
            }
        };
        // What drains orders no certificates and follows nobody: the process in its place does.
        certificates.stop();
        if let Some(member) = member {
            member.stop();
        }
        if end == End::Stop {
            manager::stopping();
            upgrader.end_admin();
        }
        drain(handle, &mut signals, end).await
    });
    if !finished {
        eprintln!("perigee: some requests did not end in time and were cut");
    }
}

/// Lets running requests end. A signal to stop makes it shorter, and then ends it.
async fn drain(handle: &Arc<Handle>, signals: &mut Signals, end: End) -> bool {
    let limits = handle.with_snapshot(|snapshot| snapshot.edge.limits);
    let within = if end == End::Stop { limits.drain_timeout } else { limits.upgrade_drain_timeout };
    match end {
        End::Stop => {
            eprintln!(
                "perigee: stopping; running requests have {} s to end (again: at once)",
                within.as_secs()
            );
        }
        End::HandedOver => eprintln!(
            "perigee: process {} ends with its last connection, in {} s at most",
            std::process::id(),
            within.as_secs()
        ),
    }
    let draining = {
        let handle = Arc::clone(handle);
        tokio::task::spawn_blocking(move || match end {
            End::Stop => handle.stop(within),
            End::HandedOver => handle.drain(within),
        })
    };
    tokio::pin!(draining);
    let mut is_stopping = end == End::Stop;
    loop {
        let is_told = tokio::select! {
            biased;
            ended = &mut draining => return ended.unwrap_or(false),
            _ = signals.terminate.recv() => true,
            _ = signals.interrupt.recv() => true,
            _ = signals.reload.recv() => false,
            _ = signals.reopen.recv() => false,
        };
        match (is_told, is_stopping) {
            (true, true) => return false,
            (true, false) => {
                is_stopping = true;
                handle.hurry(limits.drain_timeout);
            }
            (false, _) => reopen_log(handle),
        }
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
