//! Which PoP for which visitor, and the DNS server that says so.
//!
//! ```text
//! client network ─► location: cell ─► table: PoP ─► zone: an answer, made beforehand ─► udp, server
//!                                       ▲
//!        estimate, health, demand ──────┘   (built anew when any of them changes, and swapped)
//! ```
//!
//! All but `udp`, `probe`, `observe`, `http`, `selfcheck` and `server` is pure: no IO, no clock, no chance but for keys. Imports neither the edge nor what steers it.

pub mod compile;
mod demand;
pub mod estimate;
pub mod explain;
mod grey;
mod health;
mod http;
pub mod load;
pub mod location;
mod measure;
mod mesh;
pub mod observe;
mod probe;
pub mod respond;
mod selfcheck;
pub mod server;
pub mod sign;
pub mod systems;
pub mod table;
mod udp;
pub mod wire;
pub mod zone;
