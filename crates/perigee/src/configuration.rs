//! Where an edge has its configuration from, and how a changed one gets into force: read, validate, replace, or keep
//! the running one and say why. Called by the main thread (signal, changed file), by the admin API, and on a node of a cluster
//! by whoever has been told of another one; one at a time.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use edge::Handle;
use edge::admin::{CertificateStatus, ClusterStatus, Configuration, ConfigurationStatus, Reload};
use edge::tls::{BadFile, Certificate, ClientAuthorities, read_certificates, read_client_authorities};
use model::change::Version;
use model::config::TEXT_BYTES_MAX;
use model::settings::{EdgeSettings, Limits, Ocsp, StoreSettings, TlsSettings};
use model::{
    ByteSize, ClusterSettings, Diagnostic, DiskSettings, NodeSettings, Parsed, ParsedNode, Snapshot,
};
use parking_lot::Mutex;
use semantics::key::{KeySeed, hash};

use crate::certificates::Certificates;
use crate::failure::Failure;
use crate::member::Member;

/// What to do about one that cannot be used, and what shows everything that is wrong with it.
const CORRECT: &str = "correct it and start again";
const CHECK: &str = "correct it and start again; `perigee check FILE` shows everything at once";
const CHECK_NODE: &str = "correct it and start again; `perigee check --node FILE` shows everything at once";

/// Where the configuration is written.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// `--origin URL`: one site, all choices at their default; with `--disk SIZE`, a disk in the state directory.
    Origin { url: String, disk: Option<ByteSize> },
    /// `--config FILE`.
    File(PathBuf),
    /// A node's own file, and what its cluster has told it.
    Node {
        /// The file.
        file: PathBuf,
        /// The cluster's configuration; `None` before the first.
        told: Option<Told>,
    },
}

/// A configuration of a cluster, as this node was told it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Which.
    pub(crate) version: Version,
    /// Its text, which has the hash of the version.
    pub(crate) text: Arc<str>,
}

impl Told {
    /// What the nodes of the cluster have in common, and what is doubtful about it.
    pub(crate) fn read(&self) -> Result<(Snapshot, Vec<Diagnostic>), Refused> {
        let called = format!("configuration {}", self.version.number);
        usable(Snapshot::parse_cluster(&self.text, &called), &called)
    }
}

/// A configuration that was read.
pub(crate) struct Read {
    pub(crate) snapshot: Snapshot,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) client_authorities: Vec<ClientAuthorities>,
    pub(crate) warnings: Vec<Diagnostic>,
    /// Of a node of a cluster.
    cluster: Option<ClusterSettings>,
    hash: String,
}

/// Why one could not be used.
#[derive(Debug)]
pub(crate) struct Refused {
    message: String,
    diagnostics: Vec<Diagnostic>,
    /// The step to take.
    next: &'static str,
}

impl Source {
    /// Reads, validates and runs the tests in the file: one that fails is an error like any other. Touches nothing that
    /// runs.
    pub(crate) fn read(&self) -> Result<Read, Refused> {
        match self {
            Source::Origin { url, disk } => match Snapshot::for_origin(url) {
                Ok(mut snapshot) => {
                    snapshot.edge.store.disks.extend(disk.map(DiskSettings::of));
                    Ok(Read {
                        snapshot,
                        certificates: Vec::new(),
                        client_authorities: Vec::new(),
                        warnings: Vec::new(),
                        cluster: None,
                        hash: hash_of(&self.name()),
                    })
                }
                Err(diagnostic) => Err(Refused {
                    message: format!("--origin {url:?} cannot be used"),
                    diagnostics: vec![diagnostic],
                    next: CORRECT,
                }),
            },
            Source::File(path) => {
                let text = read_text(path).map_err(Refused::unreadable)?;
                let name = path.display().to_string();
                let (snapshot, warnings) = usable(Snapshot::parse(&text, &name), &name)?;
                with_certificates(snapshot, None, warnings, hash_of(&text), &name)
            }
            Source::Node { file, told } => {
                let settings = read_node(file)?;
                let (name, cluster) = (file.display().to_string(), Some(settings.cluster));
                let Some(told) = told else {
                    let snapshot = Snapshot::without_sites(settings.edge);
                    return with_certificates(snapshot, cluster, Vec::new(), String::new(), &name);
                };
                let (common, warnings) = told.read()?;
                let (snapshot, hash) = (common.for_node(settings.edge), told.version.hash.clone());
                with_certificates(snapshot, cluster, warnings, hash, &name)
            }
        }
    }

    /// In words.
    fn name(&self) -> String {
        match self {
            Source::Origin { url, disk: None } => format!("--origin {url}"),
            Source::Origin { url, disk: Some(size) } => format!("--origin {url} --disk {size}"),
            Source::File(path) => path.display().to_string(),
            Source::Node { file, told: None } => format!("{}, without sites", file.display()),
            Source::Node { file, told: Some(told) } => {
                format!("{} and configuration {}", file.display(), told.version.number)
            }
        }
    }

    /// The file that is looked at for changes.
    fn file(&self) -> Option<&Path> {
        match self {
            Source::Origin { .. } => None,
            Source::File(path) | Source::Node { file: path, .. } => Some(path),
        }
    }
}

/// A node's own file.
pub(crate) fn read_node(file: &Path) -> Result<NodeSettings, Refused> {
    let text = read_text(file).map_err(Refused::unreadable)?;
    let name = file.display().to_string();
    let ParsedNode { settings, diagnostics } = NodeSettings::parse(&text, &name);
    settings.ok_or_else(|| Refused::with(&name, diagnostics, CHECK_NODE))
}

/// What was parsed, if it has no error and its tests hold; and what is doubtful about it.
fn usable(parsed: Parsed, name: &str) -> Result<(Snapshot, Vec<Diagnostic>), Refused> {
    let Parsed { snapshot, diagnostics } = parsed.tested();
    match snapshot {
        Some(snapshot) => Ok((snapshot, diagnostics)),
        None => Err(Refused::with(name, diagnostics, CHECK)),
    }
}

fn with_certificates(
    snapshot: Snapshot,
    cluster: Option<ClusterSettings>,
    warnings: Vec<Diagnostic>,
    hash: String,
    name: &str,
) -> Result<Read, Refused> {
    let unusable = |wrong: Vec<BadFile>| {
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        Refused::of(format!("{name} cannot be used: {}", wrong.join("; ")))
    };
    let certificates = read_certificates(&snapshot.edge.certificates).map_err(unusable)?;
    let client_authorities = read_client_authorities(&snapshot).map_err(unusable)?;
    Ok(Read { snapshot, certificates, client_authorities, warnings, cluster, hash })
}

impl Refused {
    fn of(message: String) -> Self {
        Refused { message, diagnostics: Vec::new(), next: CORRECT }
    }

    fn unreadable(message: String) -> Self {
        Refused { next: "name a file that this user can read: --config FILE", ..Refused::of(message) }
    }

    fn with(name: &str, diagnostics: Vec<Diagnostic>, next: &'static str) -> Self {
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
        let plural = if errors == 1 { "" } else { "s" };
        let message = format!("{name} cannot be used ({errors} error{plural})");
        Refused { message, diagnostics, next }
    }

    /// In one line: the first error with its place.
    pub(crate) fn in_short(&self) -> String {
        let first = self.diagnostics.iter().find(|diagnostic| diagnostic.is_error());
        first.map_or_else(
            || self.message.clone(),
            |first| format!("{}:{}:{}: {}", first.source, first.line, first.column, first.message),
        )
    }

    /// As the message of a start that fails. Prints the diagnostics before.
    pub(crate) fn into_failure(self) -> Failure {
        self.diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
        Failure::new(self.message, self.next)
    }
}

/// The text of a configuration file; the error names it.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let metadata = fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if metadata.len() > TEXT_BYTES_MAX as u64 {
        return Err(wrong(format!("has {} bytes; wanted at most {TEXT_BYTES_MAX}", metadata.len())));
    }
    fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => wrong("cannot be read: it is not text in UTF-8".to_owned()),
        _ => wrong(format!("cannot be read: {error}")),
    })
}

/// Names a text. Not secret and not against forgery: it tells an operator whether two nodes run the same.
fn hash_of(text: &str) -> String {
    format!("{:032x}", hash(&KeySeed([0; 16]), text.as_bytes()))
}

/// Lowers `connections_max` to the connections that fit into the process's file descriptors: what is over them would be
/// accepted and then find no descriptor for its origin. The answer is for the operator who asked for more by name.
pub(crate) fn fit_connections(limits: &mut Limits, fit: Option<u32>) -> Option<String> {
    let wanted = limits.connections_max;
    let fit = fit.filter(|fit| *fit < wanted)?;
    limits.connections_max = fit;
    let is_asked_for = wanted != Limits::default().connections_max;
    is_asked_for.then(|| {
        format!(
            "connections_max = {wanted} is more than this process may open files for; {fit} are served at once. \
             Raise the hard limit (ulimit -Hn, LimitNOFILE=) or lower connections_max"
        )
    })
}

// --- In force ---

/// The configuration of a running edge.
pub(crate) struct Live {
    /// Connections of visitors that the process has file descriptors for.
    connections_fit: Option<u32>,
    handle: OnceLock<Arc<Handle>>,
    certificates: Arc<Certificates>,
    /// Of a node of a cluster.
    member: Option<Arc<Member>>,
    /// Held for a whole reload: two at once could put the older text into force last.
    state: Mutex<State>,
}

struct State {
    source: Source,
    status: ConfigurationStatus,
    /// Settings that the running process began with.
    started_with: (EdgeSettings, Option<ClusterSettings>),
    /// What else was read: certificates and their keys.
    files: Vec<PathBuf>,
    /// The files as they were last read, whatever came of it.
    read: Option<Vec<Signature>>,
    /// The files as they were last seen.
    seen: Option<Vec<Signature>>,
}

/// What changes when somebody writes a file: also when it is replaced within one tick of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl From<Metadata> for Signature {
    fn from(metadata: Metadata) -> Self {
        Signature { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() }
    }
}

impl Live {
    /// For an edge that is about to start with `read`. `connections_fit` bounds every later configuration too.
    pub(crate) fn new(
        source: Source,
        read: &Read,
        connections_fit: Option<u32>,
        certificates: Arc<Certificates>,
        member: Option<Arc<Member>>,
    ) -> Self {
        let status = ConfigurationStatus {
            source: source.name(),
            hash: read.hash.clone(),
            loaded_ms: crate::now_ms(),
            ..ConfigurationStatus::default()
        };
        let started_with = (read.snapshot.edge.clone(), read.cluster.clone());
        let files = certificate_files(&read.snapshot);
        let signatures = signatures(&source, &files);
        let state = State { source, status, started_with, files, read: signatures.clone(), seen: signatures };
        Live { connections_fit, handle: OnceLock::new(), certificates, member, state: Mutex::new(state) }
    }

    /// Says which edge it is that runs.
    pub(crate) fn attach(&self, handle: Arc<Handle>) {
        // It is attached once, when it has started.
        let _ = self.handle.set(handle);
    }

    /// Whether the file, or a certificate that it names, is another than the one last read, and has been so for two
    /// looks: not in the middle of being written. A file that is missing has not changed: editors take it away for a
    /// moment.
    pub(crate) fn has_changed(&self) -> bool {
        let mut state = self.state.lock();
        let Some(now) = signatures(&state.source, &state.files) else { return false };
        let is_settled = state.seen.as_ref() == Some(&now);
        let is_read = state.read.as_ref() == Some(&now);
        state.seen = Some(now);
        is_settled && !is_read
    }

    /// Warns of certificates that end soon; for whoever calls it often.
    pub(crate) fn warn_of_ends(&self) {
        self.certificates.warn();
    }

    /// Reloads and tells the operator on standard error.
    pub(crate) fn reload_loudly(&self) {
        let reload = self.reload();
        reload.diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
        match reload.in_force {
            true => eprintln!("perigee: {}", reload.message),
            false => eprintln!("perigee: {}; the running configuration stays", reload.message),
        }
    }
}

impl Live {
    /// Puts a configuration of the cluster in force that this node has been told of.
    ///
    /// # Errors
    /// It cannot be used here: why, with its place. The running one stays.
    pub(crate) fn take(&self, told: Told) -> Result<(), String> {
        let mut state = self.state.lock();
        let Source::Node { file, .. } = &state.source else {
            return Err("this is no node of a cluster".into());
        };
        let source = Source::Node { file: file.clone(), told: Some(told) };
        match self.replace(&mut state, &source) {
            Ok(reload) => {
                reload.diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
                eprintln!("perigee: {}", reload.message);
                state.status.source = source.name();
                state.source = source;
                Ok(())
            }
            Err(refused) => {
                let why = refused.in_short();
                let reload = state.refuse(self.handle.get(), refused);
                reload.diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
                eprintln!("perigee: {}; the running configuration stays", reload.message);
                Err(why)
            }
        }
    }

    fn replace(&self, state: &mut State, source: &Source) -> Result<Reload, Refused> {
        let Some(handle) = self.handle.get() else {
            return Err(Refused::of("the edge has not started yet".to_owned()));
        };
        state.read = signatures(source, &state.files);
        let mut read = source.read()?;
        let files = certificate_files(&read.snapshot);
        let limits = &mut read.snapshot.edge.limits;
        let lowered = fit_connections(limits, self.connections_fit);
        let mut late = needs_new_start(&state.started_with.0, &read.snapshot.edge);
        if state.started_with.1 != read.cluster {
            late.push("[cluster]");
        }
        let mut troubles = handle
            .replace(read.snapshot, &read.client_authorities)
            .map_err(|error| Refused::of(format!("{} cannot come into force: {error}", source.name())))?;
        state.files = files;
        state.read = signatures(source, &state.files);
        troubles.extend(self.certificates.configure(read.certificates));
        state.status.hash = read.hash;
        state.status.loaded_ms = crate::now_ms();
        state.status.last_error = None;
        let mut message = format!("{} is in force", source.name());
        if !late.is_empty() {
            message.push_str(&format!("; changes of {} need a new start", late.join(", ")));
        }
        troubles.iter().chain(&lowered).for_each(|trouble| message.push_str(&format!("; {trouble}")));
        Ok(Reload { in_force: true, message, diagnostics: read.warnings })
    }
}

impl Configuration for Live {
    fn reload(&self) -> Reload {
        let mut state = self.state.lock();
        let source = state.source.clone();
        self.replace(&mut state, &source).unwrap_or_else(|refused| state.refuse(self.handle.get(), refused))
    }

    fn status(&self) -> ConfigurationStatus {
        self.state.lock().status.clone()
    }

    fn certificates(&self) -> Vec<CertificateStatus> {
        self.certificates.status()
    }

    fn cluster(&self) -> Option<ClusterStatus> {
        self.member.as_ref().map(|member| member.status())
    }
}

impl State {
    fn refuse(&mut self, handle: Option<&Arc<Handle>>, refused: Refused) -> Reload {
        if let Some(handle) = handle {
            handle.registry().count_failed_reload();
        }
        self.status.refused += 1;
        self.status.last_error = Some(refused.in_short());
        Reload { in_force: false, message: refused.message, diagnostics: refused.diagnostics }
    }
}

/// The configuration file as it is now, and the `others`; `None` when one is missing or there is no such file.
fn signatures(source: &Source, others: &[PathBuf]) -> Option<Vec<Signature>> {
    let files = std::iter::once(source.file()?).chain(others.iter().map(PathBuf::as_path));
    files.map(|path| fs::metadata(path).ok().map(Signature::from)).collect()
}

fn certificate_files(snapshot: &Snapshot) -> Vec<PathBuf> {
    let certificates = snapshot.edge.certificates.iter();
    certificates
        .flat_map(|files| {
            let ocsp = match &files.ocsp {
                Some(Ocsp::File(path)) => Some(path.clone()),
                Some(Ocsp::Fetch) | None => None,
            };
            [Some(files.chain.clone()), Some(files.key.clone()), ocsp]
        })
        .chain(snapshot.sites.iter().map(|site| site.client_ca.clone()))
        .flatten()
        .collect()
}

/// Settings that a running process cannot change, and what they are. Whoever adds a setting decides here.
fn fixed(settings: &EdgeSettings) -> [(&'static str, String); 17] {
    let EdgeSettings {
        listen,
        listen_tls,
        listen_tier,
        tier,
        certificates: _,
        tls: TlsSettings { min_version: _, ticket_secret_file, early_data: _ },
        acme: _,
        admin,
        workers,
        store: StoreSettings { memory: _, in_flight: _, eviction, disks },
        node,
        access_log,
        access_log_format,
        traces,
        location,
        statistics,
        server_timing: _,
        trusted_proxies: _,
        proxy_protocol: _,
        origin_source,
        http3,
        limits: _,
    } = settings;
    [
        ("listen", format!("{listen:?}")),
        ("listen_tls", format!("{listen_tls:?}")),
        ("listen_tier", format!("{listen_tier:?}")),
        ("[edge.tier]", format!("{tier:?}")),
        ("http3", format!("{http3:?}")),
        ("ticket_secret_file", format!("{ticket_secret_file:?}")),
        ("admin", format!("{admin:?}")),
        ("workers", format!("{workers:?}")),
        ("eviction", format!("{eviction:?}")),
        ("[[store.disk]]", format!("{disks:?}")),
        ("node", format!("{node:?}")),
        ("location", format!("{location:?}")),
        ("statistics", format!("{statistics:?}")),
        ("origin_source", format!("{origin_source:?}")),
        ("access_log", format!("{access_log:?}")),
        ("access_log_format", format!("{access_log_format:?}")),
        ("[edge.traces]", format!("{traces:?}")),
    ]
}

/// Which of [`fixed`] differ.
fn needs_new_start(running: &EdgeSettings, wanted: &EdgeSettings) -> Vec<&'static str> {
    let pairs = fixed(running).into_iter().zip(fixed(wanted));
    pairs.filter_map(|(running, wanted)| (running != wanted).then_some(running.0)).collect()
}

#[cfg(test)]
mod tests {
    use model::settings::Eviction;

    use super::*;

    fn origin(url: &str, disk: Option<ByteSize>) -> Source {
        Source::Origin { url: url.into(), disk }
    }

    #[test]
    fn a_changed_file_counts_once_it_has_settled() {
        let path = std::env::temp_dir().join(format!("perigee-changed-{}.toml", std::process::id()));
        fs::write(&path, "a").unwrap();
        let source = Source::File(path.clone());
        let read = origin("http://127.0.0.1:1", None).read().unwrap();
        let live = Live::new(source, &read, None, Certificates::new(&std::env::temp_dir()), None);
        let looks = |count: usize| (0..count).map(|_| live.has_changed()).collect::<Vec<_>>();
        assert_eq!(looks(2), [false, false], "as it was read");
        fs::write(&path, "longer").unwrap();
        assert_eq!(looks(2), [false, true], "another, seen twice");
        fs::remove_file(&path).unwrap();
        assert_eq!(looks(2), [false, false], "gone for a moment");
    }

    #[test]
    fn a_refusal_names_the_flag_and_the_value() {
        let refused = origin("no url", None).read().map(drop).unwrap_err();
        assert!(refused.message.contains("--origin \"no url\""), "{}", refused.message);
        assert_eq!(refused.diagnostics.len(), 1);
        let missing = Source::File("/nonexistent/perigee.toml".into()).read().map(drop).unwrap_err();
        assert!(
            missing.message.starts_with("/nonexistent/perigee.toml: cannot be read"),
            "{}",
            missing.message
        );
    }

    #[test]
    fn a_file_may_be_as_long_as_what_is_read_from_standard_input() {
        let path = std::env::temp_dir().join(format!("perigee-long-{}.toml", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        let read = |bytes: usize| {
            file.set_len(bytes as u64).unwrap();
            read_text(&path).map(|text| text.len())
        };
        let (most, more) = (read(TEXT_BYTES_MAX), read(TEXT_BYTES_MAX + 1));
        fs::remove_file(&path).unwrap();
        assert_eq!(most, Ok(TEXT_BYTES_MAX));
        assert!(more.unwrap_err().ends_with("has 16777217 bytes; wanted at most 16777216"));
    }

    #[test]
    fn the_hash_names_the_text() {
        let hash = |url: &str, disk| origin(url, disk).read().map(|read| read.hash).ok().unwrap();
        assert_eq!(hash("http://127.0.0.1:1", None), hash("http://127.0.0.1:1", None));
        assert_ne!(hash("http://127.0.0.1:1", None), hash("http://127.0.0.1:2", None));
        let disk = Some(ByteSize::from_mib(64));
        assert_ne!(hash("http://127.0.0.1:1", None), hash("http://127.0.0.1:1", disk));
    }

    #[test]
    fn a_disk_of_the_command_line_lies_in_the_state_directory() {
        let disks = |disk| origin("http://127.0.0.1:1", disk).read().unwrap().snapshot.edge.store.disks;
        assert_eq!(disks(None), []);
        let size = ByteSize::from_mib(1024);
        assert_eq!(disks(Some(size)), [DiskSettings::of(size)]);
        assert_eq!(DiskSettings::of(size).path, None);
    }

    #[test]
    fn connections_are_lowered_to_what_fits_and_said_when_asked_for() {
        let check = |wanted: u32, fit: Option<u32>, left: u32, is_said: bool| {
            let mut limits = Limits { connections_max: wanted, ..Limits::default() };
            let said = fit_connections(&mut limits, fit);
            assert_eq!((limits.connections_max, said.is_some()), (left, is_said), "{wanted} {fit:?}");
        };
        let default = Limits::default().connections_max;
        check(default, None, default, false);
        check(default, Some(default), default, false);
        check(default, Some(100), 100, false);
        check(500, Some(100), 100, true);
        check(50, Some(100), 50, false);
    }

    #[test]
    fn settings_that_need_a_new_start_are_named() {
        let running = EdgeSettings::default();
        let wanted = EdgeSettings { node: "other".into(), workers: Some(3), ..EdgeSettings::default() };
        assert_eq!(needs_new_start(&running, &wanted), ["workers", "node"]);
        let store = StoreSettings {
            memory: ByteSize::from_mib(1),
            in_flight: Some(ByteSize::from_mib(8)),
            eviction: Eviction::Lru,
            disks: vec![DiskSettings::of(ByteSize::from_mib(64))],
        };
        let wanted = EdgeSettings { store, ..EdgeSettings::default() };
        assert_eq!(needs_new_start(&running, &wanted), ["eviction", "[[store.disk]]"], "memory may change");
        let wanted = EdgeSettings { origin_source: vec![[192, 0, 2, 1].into()], ..EdgeSettings::default() };
        assert_eq!(needs_new_start(&running, &wanted), ["origin_source"]);
        assert!(needs_new_start(&running, &running).is_empty());
        let manual = include_str!("../../../docs/operating.md");
        let told = manual
            .split_once("Changes of")
            .and_then(|(_, rest)| rest.split_once("need a new start"))
            .unwrap()
            .0;
        for (name, _) in fixed(&running) {
            assert!(told.contains(&format!("`{name}`")), "docs/operating.md does not name {name}");
        }
    }
}
