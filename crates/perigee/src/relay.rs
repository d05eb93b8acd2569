//! `perigee relay`: passes on what a control says to the nodes of a region, and to control what they report.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use journal::feed::{Check, Dialer, Hub, Relay, follow};
use model::ControlAddress;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use trust::{Role, is_name};

use crate::address::{ListenAt, listen_elsewhere, one_or_many};
use crate::edge::read_token;
use crate::failure::Failure;
use crate::manager;
use crate::member::keep::Keep;
use crate::member::{Certified, Who};

const EXAMPLES: &str = "\
Examples:
  perigee relay --config relay.toml --token join.token    join the cluster, and relay
  perigee relay --config relay.toml

relay.toml:
  name    = \"eu-1\"
  listen  = \"0.0.0.0:7700\"
  state   = \"/var/lib/perigee-relay\"
  control = [\"https://control-1.example:7700\", \"https://control-2.example:7700\"]

Nodes follow it when their [cluster] control names it: control = [\"https://eu-1.example:7700\",
\"https://control-1.example:7700\"]. Name a control too: a relay lets nobody join and renews no certificates.";

/// `perigee relay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RelayArgs {
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// File with the enrolment token, or - for standard input; needed once, until the relay has joined
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
}

/// `relay.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: String,
    listen: ListenAt,
    state: PathBuf,
    #[serde(deserialize_with = "one_or_many")]
    control: Vec<ControlAddress>,
}

impl RelayArgs {
    /// Joins if need be, and relays until SIGTERM or SIGINT.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let settings = read(&self.config)?;
        let keep = Keep::of(&settings.state)?;
        let token = || self.token.as_deref().map(read_token).transpose();
        let who = Who {
            file: self.config.display().to_string(),
            role: Role::Relay,
            name: settings.name.clone(),
            pop: String::new(),
            controls: settings.control.iter().map(ToString::to_string).collect(),
        };
        let certified = Arc::new(Certified::new(&keep, &who, token)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("threads cannot be started: {error}"), ""))?;
        runtime.block_on(relay(settings, &keep, who.controls, certified))
    }
}

async fn relay(
    settings: Settings,
    keep: &Keep,
    controls: Vec<String>,
    certified: Arc<Certified>,
) -> Result<(), Failure> {
    let unhandled = |error: std::io::Error| Failure::new(format!("signals cannot be handled: {error}"), "");
    let mut terminated = signal(SignalKind::terminate()).map_err(unhandled)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(unhandled)?;
    let ListenAt(listen) = settings.listen;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Failure::new(format!("cannot listen on {listen}: {error}"), listen_elsewhere(&error, "listen"))
    })?;
    let identity = certified.clone();
    let dialer = Arc::new(Dialer::new(controls, move || identity.identity()));
    // Who speaks is who its certificate says. Whether the cluster still has that node, and whether it is its signature, control
    // finds out.
    let check: Check = Box::new(|peer, report| match report.node == peer.name {
        true => Ok(()),
        false => Err(format!("{} speaks for {}", peer.name, report.node)),
    });
    let (hub, node) = Hub::of_relay(&settings.name, dialer.clone(), check);
    eprintln!("perigee: relay {} listens on {listen}", settings.name);
    manager::ready();
    let identity = certified.clone();
    tokio::select! {
        () = follow(node, dialer.clone()) => {}
        () = Relay::new(hub, dialer.clone()).serve(listener, move || identity.identity()) => {}
        () = certified.keep_renewed(keep, &dialer, |_| {}) => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    manager::stopping();
    Ok(())
}

fn read(path: &Path) -> Result<Settings, Failure> {
    let place = path.display();
    let help = "perigee relay --help shows an example";
    let text = fs::read_to_string(path).map_err(|error| Failure::new(format!("{place}: {error}"), help))?;
    let settings: Settings =
        toml::from_str(&text).map_err(|error| Failure::new(format!("{place}: {error}"), help))?;
    let wrong = |what: String| Err(Failure::new(format!("{place}: {what}"), help));
    if !is_name(&settings.name) {
        return wrong(format!(
            "name {:?} is no name; wanted 1 to 64 letters, digits, '-', '_' and '.'",
            settings.name
        ));
    }
    if !settings.state.is_absolute() {
        return wrong(format!("state {:?} is not absolute; write the whole path", settings.state.display()));
    }
    if settings.control.is_empty() {
        return wrong("control is empty; wanted the URL of at least one".to_owned());
    }
    Ok(settings)
}
