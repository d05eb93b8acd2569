//! The edge of a play: started in this process on a free port, with a clock that only the play moves.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use edge::tls::Certificate;
use edge::{Clock, Edge, Handle, Options, PurgeError, PurgeRequest, PurgeTarget, Receipt};
use model::Snapshot;
use observe::{BuildInfo, Registry};
use rustls::pki_types::CertificateDer;
use semantics::Wall;
use tokio::runtime::Runtime;

use super::bridge::{self, Bridge};
use super::speaks_http2;

/// A play's key seed: any, and the same each time.
const KEY_SEED: [u8; 16] = *b"a play's own key";

pub(super) struct Stage {
    edge: Handle,
    /// What clients speak through, if not to the edge itself.
    bridge: Option<Bridge>,
}

impl Stage {
    /// Starts an edge with this configuration at a moment, in milliseconds since the epoch; every diagnostic of a bad
    /// one fails the test. `state` is where it keeps what outlives it.
    pub(super) fn start(runtime: &Runtime, config: &str, now_ms: i64, state: Option<&Path>) -> Stage {
        Stage::try_start(runtime, config, now_ms, state)
            .unwrap_or_else(|error| panic!("the edge does not start: {error}"))
    }

    /// See [`super::Play::try_start`].
    pub(super) fn try_start(
        runtime: &Runtime,
        config: &str,
        now_ms: i64,
        state: Option<&Path>,
    ) -> Result<Stage, String> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let identity = speaks_http2().then(identity);
        let options = Options {
            listen: Some(vec![loopback]),
            listen_tls: identity.map(|_| vec![loopback]),
            certificates: identity.iter().map(|identity| identity.certificate.clone()).collect(),
            clock: Clock::manual(Wall(now_ms)),
            key_seed: KEY_SEED,
            state: state.map(Path::to_owned),
            disk_engine: None,
            registry: Registry::new(BuildInfo { version: "play", commit: "" }),
            access_log: None,
        };
        let edge = Edge::start(snapshot(config), options).map_err(|error| error.to_string())?;
        let bridge = identity.map(|identity| {
            let address = *edge.addresses_tls().first().expect("an edge listens");
            Bridge::start(runtime.handle(), address, identity.der.clone())
        });
        Ok(Stage { edge, bridge })
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
        self.edge.replace(snapshot(config));
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
    pub(super) fn try_purge(&self, what: &str, soft: bool) -> Result<Receipt, PurgeError> {
        let (form, name) = what.split_once(' ').unwrap_or((what, ""));
        let target = match form {
            "url" => PurgeTarget::Url(name.to_owned()),
            "prefix" => PurgeTarget::Prefix(name.to_owned()),
            "tag" => PurgeTarget::Tag { tag: name.to_owned(), site: None },
            "site" => PurgeTarget::Site(name.to_owned()),
            "everything" => PurgeTarget::Everything,
            _ => panic!("{what:?} is no purge: write url, prefix, tag, site or everything"),
        };
        self.edge.purge(&PurgeRequest { target, soft })
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

/// The edge's certificate in plays over TLS.
struct Identity {
    certificate: Certificate,
    der: CertificateDer<'static>,
}

/// Made once, as each key takes its time.
fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([bridge::NAME.to_owned()]).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect("it is read again");
        Identity { certificate, der: made.cert.der().clone() }
    })
}

fn snapshot(config: &str) -> Snapshot {
    let parsed = Snapshot::parse(config, "play.toml");
    let diagnostics: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    parsed
        .snapshot
        .unwrap_or_else(|| panic!("the play's configuration is wrong:\n{config}\n{}", diagnostics.join("\n")))
}
