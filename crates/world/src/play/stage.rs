//! The edge of a play: started in this process on a free port, with a clock that only the play moves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge::handover::{Channel, Message};
use edge::sockets::{Bound, Sockets};
use edge::tls::ClientAuthorities;
use edge::{Clock, Edge, Handle, Options, Predecessor, PurgeError};
use model::change::{Order, What};
use model::{Snapshot, Url};
use observe::{BuildInfo, Registry};
use semantics::Wall;
use stats::Country;
use tokio::runtime::Handle as Runtime;

use super::bridge::Bridge;
use super::speaks_http2;
use super::tls::Identity;
use crate::edges::{self, any_port};

pub(super) struct Stage {
    edge: Handle,
    /// What clients speak through, if not to the edge itself.
    bridge: Option<Bridge>,
}

impl Stage {
    /// Starts an edge with this configuration at a moment, in milliseconds since the epoch; every diagnostic of a bad
    /// one fails the test. `state` is where it keeps what outlives it.
    pub(super) fn start(
        runtime: &Runtime,
        config: &str,
        now_ms: i64,
        state: Option<&Path>,
        tls: Option<&Identity>,
    ) -> Stage {
        Stage::try_start(runtime, config, now_ms, state, tls)
            .unwrap_or_else(|error| panic!("the edge does not start: {error}"))
    }

    /// See [`super::Play::try_start`].
    pub(super) fn try_start(
        runtime: &Runtime,
        config: &str,
        now_ms: i64,
        state: Option<&Path>,
        tls: Option<&Identity>,
    ) -> Result<Stage, String> {
        let snapshot = snapshot(config);
        let options = Options { client_authorities: authorities(&snapshot), ..options(now_ms, state, tls) };
        let edge = Edge::start(snapshot, options).map_err(|error| error.to_string())?;
        let bridge = tls.filter(|_| speaks_http2()).map(|identity| {
            let address = *edge.addresses_tls().first().expect("an edge listens");
            Bridge::start(runtime, address, identity)
        });
        Ok(Stage { edge, bridge })
    }

    /// Starts another edge that takes this one's place, as an upgrade does. This one drains from then on.
    pub(super) fn succeed(&self, config: &str, tls: Option<&Identity>) -> Stage {
        let (ours, theirs) = Channel::pair().expect("a pair of sockets");
        self.edge.pass_sockets(&ours).expect("the sockets are passed on");
        ours.send(&Message::Lock, &[]).expect("and nothing more");
        let mut passed = Vec::new();
        while let (Message::Sockets { kind, asked }, sockets) = theirs.receive().expect("they arrive") {
            passed.push(Bound { kind, asked, sockets });
        }
        let snapshot = snapshot(config);
        let listen = || vec![any_port()];
        let wanted = edge::wanted(
            listen(),
            tls.map(|_| listen()).unwrap_or_default(),
            Vec::new(),
            snapshot.edge.http3,
        );
        let sockets =
            Sockets::open(&wanted, passed, edge::workers(&snapshot.edge)).expect("nothing is to be opened");
        let options = Options {
            sockets: Some(sockets),
            predecessor: Some(Predecessor { channel: theirs, process: None, draining: 1 }),
            client_authorities: authorities(&snapshot),
            ..options(self.now_ms(), None, tls)
        };
        let stage = Stage { edge: Edge::start(snapshot, options).expect("the edge starts"), bridge: None };
        self.edge.hand_over(ours, Vec::new(), Duration::ZERO).expect("a thread starts");
        stage
    }

    /// `host:port` for visitors who speak HTTP/1.1 to the edge itself.
    pub(super) fn plain_address(&self) -> String {
        self.edge.addresses().first().expect("an edge listens").to_string()
    }

    /// `host:port` for visitors who send requests, by whatever protocol.
    pub(super) fn address(&self) -> String {
        self.bridge.as_ref().map_or_else(|| self.plain_address(), Bridge::address)
    }

    pub(super) fn advance(&self, time: Duration) {
        assert!(self.edge.clock().advance(time), "a play's clock is manual");
    }

    pub(super) fn replace(&self, config: &str) {
        let snapshot = snapshot(config);
        let authorities = authorities(&snapshot);
        self.edge.replace(snapshot, &authorities).expect("the configuration comes into force");
    }

    /// See [`super::Play::stop_edge`].
    pub(super) fn begin_stop(self, within: Duration) -> std::thread::JoinHandle<bool> {
        std::thread::spawn(move || self.edge.stop(within))
    }

    /// See [`super::Play::purge`].
    pub(super) fn purge(&self, what: &str, soft: bool) {
        self.try_purge(what, soft).unwrap_or_else(|error| panic!("purge {what}: {error}"));
    }

    /// See [`super::Play::refused_purge`].
    pub(super) fn try_purge(&self, what: &str, soft: bool) -> Result<(), PurgeError> {
        let (form, name) = what.split_once(' ').unwrap_or((what, ""));
        let site = || {
            let host = Url::parse(name).expect("a URL").host();
            self.edge.with_snapshot(|snapshot| snapshot.site_for(&host).expect("a site").name.to_string())
        };
        let text = name.to_owned();
        let what = match form {
            "url" => What::Url { site: site(), url: text },
            "prefix" => What::Prefix { site: site(), prefix: text },
            "tag" => What::Tag { tag: text, site: None },
            "site" => What::Site { site: text },
            "everything" => What::Everything,
            _ => panic!("{what:?} is no purge: write url, prefix, tag, site or everything"),
        };
        self.edge.purge(&[Order { what, soft }]).map(drop)
    }

    /// The edge itself, for what has no word in the language.
    pub(super) fn handle(&self) -> &Handle {
        &self.edge
    }

    /// The edge's time.
    pub(super) fn now_ms(&self) -> i64 {
        self.edge.clock().wall().0
    }

    /// Cuts what still runs: the play is over.
    pub(super) fn stop(self) {
        self.edge.stop(Duration::ZERO);
    }
}

fn options(now_ms: i64, state: Option<&Path>, tls: Option<&Identity>) -> Options {
    Options {
        listen_tls: tls.map(|_| vec![any_port()]),
        certificates: tls.iter().map(|identity| identity.certificate()).collect(),
        state: state.map(Path::to_owned),
        locate: Some(Arc::new(|_| Country::of(*b"DE"))),
        registry: counted(),
        ..edges::options(Clock::manual(Wall(now_ms)))
    }
}

/// A registry for observers that keep statistics, too.
fn counted() -> Arc<Registry> {
    let registry = Registry::new(BuildInfo { version: "play", commit: "" });
    registry.keep_statistics();
    registry
}

fn authorities(snapshot: &Snapshot) -> Vec<ClientAuthorities> {
    edge::tls::read_client_authorities(snapshot)
        .unwrap_or_else(|wrong| panic!("the play's files are wrong: {wrong:?}"))
}

fn snapshot(config: &str) -> Snapshot {
    let parsed = Snapshot::parse(config, "play.toml");
    let diagnostics: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    parsed
        .snapshot
        .unwrap_or_else(|| panic!("the play's configuration is wrong:\n{config}\n{}", diagnostics.join("\n")))
}
