//! Certificates by themselves (ACME, RFC 8555): for each domain that is asked for, one certificate is ordered, kept in a
//! [`Store`], renewed in time and handed to whoever serves. Visitors never wait for any of it: what is in the store is
//! served until its end, whatever the authority does.
//!
//! ```text
//! Service (a thread) ─┬─► Store: what there is, what is asked ─► Node::serve, Node::answer
//!                     ├─► plan: which domain is due
//!                     └─► order: account, order, challenge, certificate ◄─► authority
//! ```
//!
//! Several edges may share a store: one orders, all serve, and any of them answers the authority. This crate knows no
//! edge; what it needs of one is the trait [`Node`]. Not here: DNS-01, and so no wildcards.

mod challenge;
mod http;
mod order;
pub mod plan;
mod service;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use semantics::Wall;

pub use challenge::Challenge;
pub use service::{Service, State};
pub use store::{Store, Stored};

/// From whom, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The authority's directory: an https URL.
    pub directory: String,
    /// Where the authority writes to when something is the matter.
    pub email: Option<String>,
    /// PEM file with the roots to trust when talking to the authority; the system's without it.
    pub ca_file: Option<PathBuf>,
    /// How domains are shown to be ours: the first, and after a failure the next.
    pub challenges: Vec<Kind>,
    /// For how long other edges may take to notice a challenge in the store: zero when there are none.
    pub settle: Duration,
}

/// How a domain is shown to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By a request to port 80 (RFC 8555 §8.3).
    Http01,
    /// By a handshake at port 443 (RFC 8737).
    TlsAlpn01,
}

impl Kind {
    /// As the RFCs call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Http01 => "http-01",
            Kind::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// What a [`Service`] needs of the edge that it works for. Called from the service's thread; must not wait for long.
pub trait Node: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Wall;
    /// Serve these certificates from now on, and no other ordered ones.
    fn serve(&self, certificates: Vec<Stored>);
    /// Answer these challenges from now on, and no others.
    fn answer(&self, challenges: Vec<Challenge>);
    /// Something happened that the operator may want to know.
    fn tell(&self, event: Event);
}

/// What the operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A certificate was issued to this edge.
    Issued {
        /// For which domain.
        domain: Box<str>,
        /// Until when it holds.
        not_after: Wall,
        /// When it will be renewed.
        renewal: Wall,
    },
    /// An order came to nothing.
    Failed {
        /// For which domain.
        domain: Box<str>,
        /// Why.
        reason: String,
        /// How often in a row.
        count: u32,
        /// When the next attempt may begin.
        next: Wall,
    },
    /// The store, or a file in it, can't be used.
    Trouble(String),
}
