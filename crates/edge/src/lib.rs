//! The data plane: accepts visitors, answers from the cache, collapses what is missing into one fetch, and delivers.
//!
//! ```text
//! listen ─► connection ─► flow ◄─► lookup ─► flight (collapse) ─► fetch ─► origin
//!    (worker per core)      │                                       └─► store
//!                           └─► serve ─► deliver
//! ```
//!
//! [`Edge::start`] takes a validated configuration and gives a [`Handle`], by which the configuration is replaced,
//! things are purged and the edge is stopped. The edge boots and serves from what it is given; it asks nobody else.

pub mod admin;
mod answer;
mod beacon;
mod clock;
mod compress;
mod connection;
mod deliver;
mod fetch;
mod flight;
mod flow;
mod forwarded;
#[cfg(fuzzing)]
pub mod fuzzing;
mod h1;
mod h3;
mod handle;
pub mod handover;
mod hints;
mod in_flight;
mod intake;
mod interim;
mod listen;
mod loaded;
mod lookup;
mod measure;
mod meta;
mod object;
mod origin;
mod past;
mod pieces;
mod proxy_protocol;
mod published;
mod purge_log;
mod purging;
mod quic;
mod rates;
mod refusal;
mod request;
mod rewriting;
mod rum;
mod serve;
#[cfg(test)]
mod sizes;
mod slices;
pub mod sockets;
mod storage;
mod succession;
mod tcp_info;
mod tiering;
mod tiers;
pub mod tls;
mod tracing;
mod urgency;
mod websocket;
mod worker;

pub use clock::Clock;
pub use handle::{Edge, Handle, Locate, Options, Predecessor, StartError, Status, wanted, workers};
pub use origin::{BudgetStatus, OriginStatus};
pub use purging::{Applied, PurgeError};
pub use storage::inspect;
pub use tiers::TierIdentity;
pub use tracing::Tracing;
