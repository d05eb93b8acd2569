//! `perigee router`: starts the DNS server that sends visitors to PoPs, then waits for SIGTERM or SIGINT. By a file it answers for what
//! stands in it; as a node of a cluster for what its cluster tells it, and it begins with what it was told last.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use journal::feed::{Holdings, Steered, Vitals};
use model::change::Order;
use model::{ControlAddress, EdgeSettings, Snapshot};
use observe::Registry;
use router::server::{Config, FileConfig, Router, Settings, StartError};
use router::sign::Signer;
use router::wire::name_of;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use trust::{Role, is_name};

use crate::address::{AdminAt, ListenAt, one_or_many, parse_address, parse_admin};
use crate::configuration::Told;
use crate::edge::read_token;
use crate::failure::Failure;
use crate::member::{Member, Who, Works, resident_bytes};
use crate::state::StateDir;

const EXAMPLES: &str = "\
Examples:
  perigee router --config cluster.toml --listen 203.0.113.53:53 --location location.geo
  perigee router --config cluster.toml --listen 127.0.0.1:5353     try it without the right to port 53
  perigee router --config cluster.toml --ds                        the DS record for the parent zone, and stop
  perigee router --config node.toml --token join.token             join a cluster, and answer for what it says

A changed configuration or location file comes into force by itself within two seconds. If it has errors, they are
printed and what was in force stays.

node.toml, which makes it a node of a cluster:
  node     = \"ns1\"
  listen   = [\"203.0.113.53:53\"]
  location = \"/var/lib/perigee/location.geo\"

  [cluster]
  control = [\"https://control-1.example:7700\", \"https://control-2.example:7700\"]";

/// Where it listens unless something else is said.
const LISTEN: &str = "127.0.0.1:5353";
pub(crate) const ADMIN: &str = "127.0.0.1:9053";

/// `perigee router`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RouterArgs {
    /// The cluster's configuration, with [[pop]] and [dns]; or this node's own file, with [cluster]
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// File with the enrolment token, or - for standard input; needed once, until the node has joined its cluster
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Address for queries by UDP and TCP; may be given several times. Name each address: answers leave from where was asked
    /// [default: the node's own file's, else 127.0.0.1:5353]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    listen: Vec<SocketAddr>,
    /// Address of /healthz, /metrics, /v1/route, /v1/mesh and /v1/samples, or off
    /// [default: the node's own file's, else 127.0.0.1:9053]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_admin)]
    admin: Option<AdminAt>,
    /// Address where HTTP requests are redirected to the closest PoP, and /v1/route is answered; may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    http: Vec<SocketAddr>,
    /// Location data, made by `perigee geo build`; without, visitors are spread over all PoPs
    #[arg(long, value_name = "FILE")]
    location: Option<PathBuf>,
    /// Directory for the zone's key, the cookies' secret, and what the cluster has said
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Name of this server, told to who asks (NSID) [default: the node's own file's, else router]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Threads per address [default: the node's own file's, else one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Print the DS record that the parent zone needs for a signed zone, and stop
    #[arg(long)]
    ds: bool,
}

/// A node's own file. What the command line says goes before.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    node: String,
    #[serde(default, deserialize_with = "one_or_many")]
    listen: Vec<ListenAt>,
    #[serde(default, deserialize_with = "one_or_many")]
    http: Vec<ListenAt>,
    admin: Option<String>,
    location: Option<PathBuf>,
    state: Option<PathBuf>,
    workers: Option<u16>,
    cluster: OwnCluster,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnCluster {
    #[serde(deserialize_with = "one_or_many")]
    control: Vec<ControlAddress>,
    #[serde(default)]
    pop: String,
}

impl Own {
    /// `None` for a file that is none of a cluster's node.
    fn read(path: &Path) -> Result<Option<Own>, Failure> {
        let place = path.display();
        let help = "perigee router --help shows an example";
        let Ok(text) = fs::read_to_string(path) else { return Ok(None) };
        // What is no TOML is told where a configuration is read.
        let is_node = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("cluster"));
        if !is_node {
            return Ok(None);
        }
        let wrong = |what: String| Failure::new(format!("{place}: {what}"), help);
        let own: Own = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if !is_name(&own.node) {
            let wanted = "wanted 1 to 64 letters, digits, '-', '_' and '.'";
            return Err(wrong(format!("node {:?} is no name; {wanted}", own.node)));
        }
        if own.cluster.control.is_empty() {
            return Err(wrong("control is empty; wanted the URL of at least one".to_owned()));
        }
        Ok(Some(own))
    }
}

/// A router that runs, as what a node of a cluster is. Nothing is stored here that a purge could reach.
struct RouterWorks {
    router: Arc<Router>,
}

impl Works for RouterWorks {
    fn purge(&self, _: &[Order]) -> Result<u64, String> {
        Ok(0)
    }

    fn distrust(&self) -> Result<u64, String> {
        Ok(0)
    }

    fn begins_at(&self, position: u64) {
        self.router.follows(position, position, false);
    }

    fn follows(&self, position: u64, head: u64, is_connected: bool) {
        self.router.follows(position, head, is_connected);
    }

    fn lost_control(&self) {
        self.router.lost_control();
    }

    fn take(&self, told: Told) -> Result<(), String> {
        let snapshot = read(&told)?;
        let taken = self.router.take(snapshot, serial(&told));
        taken.map_err(|errors| errors.join("; "))?;
        eprintln!("perigee: configuration {} is in force", told.version.number);
        Ok(())
    }

    fn steers(&self) -> bool {
        true
    }

    fn steered(&self, steered: Steered) {
        self.router.steered(&steered.node, &steered.pop, steered.steering, steered.missed);
    }

    fn unwell(&self) -> Option<String> {
        self.router.unwell()
    }

    fn vitals(&self, since_ms: i64) -> Vitals {
        Vitals {
            since_ms,
            requests: self.router.queries(),
            errors: self.router.queries_for_nothing(),
            memory_bytes: resident_bytes(),
            ..Vitals::default()
        }
    }

    fn holdings(&self) -> Holdings {
        Holdings::default()
    }

    fn registry(&self) -> Option<&Registry> {
        None
    }
}

/// Of the zone. All nameservers have the same for the same configuration.
fn serial(told: &Told) -> u32 {
    told.version.number as u32
}

fn read(told: &Told) -> Result<Snapshot, String> {
    let (snapshot, warnings) = told.read().map_err(|refused| refused.in_short())?;
    warnings.iter().for_each(|warning| eprintln!("{warning}"));
    Ok(snapshot)
}

/// The configuration to begin with: the first of those that are here which can be used, or one without a zone.
fn first(member: &Member, key: &[u8]) -> Config {
    for told in member.candidates() {
        let read = read(&told).and_then(|snapshot| {
            router::server::check(&snapshot, Some(key)).map_err(|errors| errors.join("; "))?;
            Ok(snapshot)
        });
        match read {
            Ok(snapshot) => {
                let serial = serial(&told);
                member.begins_with(Some(told.version));
                return Config::Told(Box::new(snapshot), serial);
            }
            Err(why) => {
                eprintln!("perigee: configuration {} cannot be used: {why}", told.version.number);
            }
        }
    }
    eprintln!(
        "perigee: this node has no configuration of its cluster yet: it answers for no zone until control tells it of one"
    );
    Config::Told(Box::new(Snapshot::without_sites(EdgeSettings::default())), 1)
}

impl RouterArgs {
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        // Of large pages the allocator's free parts stay resident: half as much again as a router needs. It reads few bytes of many
        // pages, and small ones serve as well. Where they cannot be switched off, it takes more memory and that is all.
        let _smaller = rustix::thread::disable_transparent_huge_pages(true);
        let own = Own::read(&self.config)?;
        if own.is_none() && self.token.is_some() {
            return Err(Failure::new(
                format!("{}: has no [cluster] to join", self.config.display()),
                "give the node's own file, or leave --token out; perigee router --help shows an example",
            ));
        }
        if let Some(own) = &own {
            self.fill_from(own)?;
        }
        let state = StateDir::find_here(self.state.clone())?;
        state.create()?;
        let failed = |StartError(errors): StartError| Failure::of_sentences(&errors);
        let generate =
            || Signer::generate().map_err(|_| Failure::new("no key could be made for the zone", ""));
        let (config, key, member, _lock) = match own {
            None => {
                let file = FileConfig::read(self.config.clone(), &|text| eprintln!("{text}"))
                    .map_err(|errors| failed(StartError(errors)))?;
                let snapshot = file.snapshot();
                let is_signed = snapshot.routing.dns.as_ref().is_some_and(|dns| dns.dnssec);
                // A key is made for a zone that is to be signed, and kept for the day on which another one is.
                let key = is_signed.then(|| state.zone_key(generate)).transpose()?;
                let ds = snapshot.routing.dns.as_ref().zip(key.as_ref());
                let ds = ds.and_then(|(dns, key)| ds_record(&dns.zone, key));
                if self.ds {
                    return print_ds(ds);
                }
                if let Some(ds) = ds {
                    eprintln!("for the parent zone: {ds}");
                }
                (Config::File(Box::new(file)), key, None, None)
            }
            Some(Own { node, cluster, .. }) => {
                let lock = state.lock()?;
                // Any configuration that is told may want it.
                let key = state.zone_key(generate)?;
                let OwnCluster { control, pop } = cluster;
                let controls = control.iter().map(ToString::to_string).collect();
                let file = self.config.display().to_string();
                let who = Who { file, role: Role::Router, name: node, pop, controls };
                let token = || self.token.as_deref().map(read_token).transpose();
                let member = Member::new(who, state.path(), token, true)?;
                let config = first(&member, &key);
                let Config::Told(snapshot, _) = &config else { return Ok(()) };
                if self.ds {
                    let dns = snapshot.routing.dns.as_ref().filter(|dns| dns.dnssec);
                    return print_ds(dns.and_then(|dns| ds_record(&dns.zone, &key)));
                }
                (config, Some(key), Some(member), Some(lock))
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let default = |address: &str| parse_address(address).map_err(|error| Failure::new(error, ""));
        let settings = Settings {
            listen: if self.listen.is_empty() { vec![default(LISTEN)?] } else { self.listen },
            admin: match self.admin {
                None => Some(default(ADMIN)?),
                Some(AdminAt::Off) => None,
                Some(AdminAt::Address(address)) => Some(address),
            },
            http: self.http,
            workers: self.workers.map_or(cores, usize::from),
            config,
            location: self.location.clone(),
            key,
            node: self.node.unwrap_or_else(|| "router".to_owned()),
            cookie_secret: state.cookie_secret()?,
            token: Some(state.token()?),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format!("no runtime: {error}"), ""))?;
        let router = Arc::new(Router::start(settings, |text| eprintln!("{text}")).map_err(failed)?);
        let addresses: Vec<String> = router.listening.iter().map(SocketAddr::to_string).collect();
        eprintln!("answering on {}", addresses.join(", "));
        if let Some(admin) = router.admin {
            eprintln!("metrics on http://{admin}/metrics");
        }
        for http in &router.http {
            eprintln!("redirecting on http://{http}/");
        }
        if self.location.is_none() {
            eprintln!(
                "warning: without --location nobody's place is known: visitors are spread over all PoPs"
            );
        }
        if let Some(member) = &member {
            member.start(Arc::new(RouterWorks { router: Arc::clone(&router) })).map_err(|error| {
                Failure::new(
                    format!("no thread to follow the cluster: {error}"),
                    "look at the limits of this user",
                )
            })?;
        }
        crate::manager::ready();
        runtime.block_on(async {
            let watch = |kind| signal(kind).map_err(|error| Failure::new(format!("no signals: {error}"), ""));
            let (mut terminate, mut interrupt) =
                (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
            // Nothing is lost by what is dropped: a signal ends the process either way.
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            Ok::<(), Failure>(())
        })?;
        if let Some(member) = member {
            member.stop();
        }
        router.stop();
        Ok(())
    }

    /// Takes what the command line does not say from the node's own file.
    fn fill_from(&mut self, own: &Own) -> Result<(), Failure> {
        if self.listen.is_empty() {
            self.listen = own.listen.iter().map(|at| at.0).collect();
        }
        if self.http.is_empty() {
            self.http = own.http.iter().map(|at| at.0).collect();
        }
        if self.admin.is_none() {
            let read = own.admin.as_deref().map(parse_admin).transpose();
            self.admin = read.map_err(|error| {
                Failure::new(
                    format!(
                        "{}: admin {:?} is {error}",
                        self.config.display(),
                        own.admin.as_deref().unwrap_or_default()
                    ),
                    "",
                )
            })?;
        }
        self.location = self.location.take().or_else(|| own.location.clone());
        self.state = self.state.take().or_else(|| own.state.clone());
        self.node = self.node.take().or_else(|| Some(own.node.clone()));
        self.workers = self.workers.or(own.workers.filter(|workers| *workers > 0));
        Ok(())
    }
}

fn ds_record(zone: &str, key: &[u8]) -> Option<String> {
    let data = Signer::new(key, &name_of(zone)?).ok()?.ds();
    let digest: String = data[4..].iter().map(|byte| format!("{byte:02X}")).collect();
    Some(format!(
        "{zone}. 3600 IN DS {} {} {} {digest}",
        u16::from_be_bytes([data[0], data[1]]),
        data[2],
        data[3]
    ))
}

fn print_ds(ds: Option<String>) -> Result<(), Failure> {
    let ds =
        ds.ok_or_else(|| Failure::new("the configuration signs no zone", "write dnssec = true in [dns]"))?;
    crate::print(&format!("{ds}\n"))
}
