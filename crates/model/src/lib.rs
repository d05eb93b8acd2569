//! What a CDN is, as values: sites, rules, origins, limits; one TOML text → [`Snapshot`] + every diagnostic at once;
//! matching a request to its site and rule; and the pure state machines that the edge steps.
//!
//! Plain values in, values out: no sockets, files, clock, chance, logging, threads or `async`. The shell reads the
//! file and hands its text to [`Snapshot::parse`]; the edge keeps the snapshot in an `Arc` and takes one per request.

pub mod block;
pub mod breaker;
pub mod budget;
pub mod change;
pub mod cluster;
pub mod compress;
pub mod config;
pub mod cors;
pub mod crowd;
pub mod diagnostic;
pub mod diff;
pub mod draw;
pub mod glob;
pub mod health;
pub mod origin;
pub mod positions;
pub mod purge;
pub mod rate;
pub mod redirect;
pub mod retry;
pub mod rewrite;
pub mod rollout;
pub mod routing;
pub mod rule;
pub mod rum;
pub mod settings;
pub mod site_test;
pub mod snapshot;
pub mod steering;
pub mod tiers;
pub mod units;
pub mod url;
pub mod vitals;

pub use block::BlockList;
pub use cluster::{ClusterSettings, ControlAddress, NodeSettings, ParsedNode, Switches};
pub use config::{Document, json_schema, reference};
pub use diagnostic::{Diagnostic, Severity};
pub use diff::diff;
pub use draw::{Draw, mix64};
pub use origin::{Origin, OriginGroup, Scheme};
pub use routing::{DnsSettings, Point, Pop, Routing};
pub use rule::{Cache, Https, Matched, RequestView, Rule};
pub use settings::{DiskSettings, EdgeSettings, Limits, StoreSettings};
pub use snapshot::{Parsed, Site, Snapshot};
pub use units::{ByteSize, Ttl};
pub use url::Url;
