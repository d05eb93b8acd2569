//! `perigee router`: starts the DNS server that sends visitors to PoPs, then waits for SIGTERM or SIGINT.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use router::server::{Router, Settings, StartError};
use router::sign::Signer;
use router::wire::name_of;
use tokio::signal::unix::{SignalKind, signal};

use crate::address::{AdminAt, parse_address, parse_admin};
use crate::failure::Failure;
use crate::state::StateDir;

const EXAMPLES: &str = "\
Examples:
  perigee router --config cluster.toml --listen 203.0.113.53:53 --location location.geo
  perigee router --config cluster.toml --listen 127.0.0.1:5353     try it without the right to port 53
  perigee router --config cluster.toml --ds                        the DS record for the parent zone, and stop

A changed configuration or location file comes into force by itself within two seconds. If it has errors, they are
printed and what was in force stays.";

/// `perigee router`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RouterArgs {
    /// The cluster's configuration, with [[pop]] and [dns]
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Address for queries by UDP and TCP; may be given several times. Name each address: answers leave from where was asked
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, default_value = "127.0.0.1:5353")]
    listen: Vec<SocketAddr>,
    /// Address of /healthz and /metrics, or off
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_admin, default_value = "127.0.0.1:9053")]
    admin: AdminAt,
    /// Location data, made by `perigee geo build`; without, visitors are spread over all PoPs
    #[arg(long, value_name = "FILE")]
    location: Option<PathBuf>,
    /// Directory for the zone's key and the cookies' secret
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Name of this server, told to who asks (NSID)
    #[arg(long, value_name = "NAME", default_value = "router")]
    node: String,
    /// Threads per address [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Print the DS record that the parent zone needs for a signed zone, and stop
    #[arg(long)]
    ds: bool,
}

impl RouterArgs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let failed = |StartError(errors): StartError| Failure::new(errors.join("\n"), "");
        let report = |text: &str| eprintln!("{text}");
        let snapshot = router::server::read_config(&self.config, &|_| {})
            .map_err(|errors| failed(StartError(errors)))?;
        let state = StateDir::find_here(self.state)?;
        state.create()?;
        let generate =
            || Signer::generate().map_err(|_| Failure::new("no key could be made for the zone", ""));
        let dns = snapshot.routing.dns.as_ref().filter(|dns| dns.dnssec);
        // A key is made for a zone that is to be signed, and kept for the day on which another one is.
        let key = dns.map(|_| state.zone_key(generate)).transpose()?;
        let ds = dns.zip(key.as_ref()).and_then(|(dns, key)| {
            let data = Signer::new(key, &name_of(&dns.zone)?).ok()?.ds();
            let digest: String = data[4..].iter().map(|byte| format!("{byte:02X}")).collect();
            Some(format!(
                "{}. 3600 IN DS {} {} {} {digest}",
                dns.zone,
                u16::from_be_bytes([data[0], data[1]]),
                data[2],
                data[3]
            ))
        });
        if self.ds {
            let ds = ds.ok_or_else(|| {
                Failure::new("the configuration signs no zone", "write dnssec = true in [dns]")
            })?;
            return crate::print(&format!("{ds}\n"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = Settings {
            listen: self.listen,
            admin: match self.admin {
                AdminAt::Off => None,
                AdminAt::Address(address) => Some(address),
            },
            workers: self.workers.map_or(cores, usize::from),
            config: self.config,
            location: self.location.clone(),
            key,
            node: self.node,
            cookie_secret: state.cookie_secret()?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format!("no runtime: {error}"), ""))?;
        let router = Router::start(settings, report).map_err(failed)?;
        let addresses: Vec<String> = router.listening.iter().map(SocketAddr::to_string).collect();
        eprintln!("answering on {}", addresses.join(", "));
        if let Some(admin) = router.admin {
            eprintln!("metrics on http://{admin}/metrics");
        }
        if self.location.is_none() {
            eprintln!(
                "warning: without --location nobody's place is known: visitors are spread over all PoPs"
            );
        }
        if let Some(ds) = ds {
            eprintln!("for the parent zone: {ds}");
        }
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
            Ok(())
        })?;
        router.stop();
        Ok(())
    }
}
