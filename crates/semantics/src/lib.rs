//! What HTTP caching means, as functions on headers and instants: may I store, may I reuse, what key, which variant,
//! which range, what Cache-Status.
//!
//! Plain values in, decisions out: no sockets, files, clock, chance, logging, threads or `async`. Each module cites its RFC.

pub mod cache_status;
pub mod fields;
pub mod hop;
pub mod key;
mod list;
pub mod request_rules;
pub mod tags;
pub mod time;
pub mod vary;
pub mod why;

pub use fields::Fields;
pub use key::{Key, KeyRecipe, KeySeed};
pub use time::Wall;
pub use vary::{Normalise, Vary, VarySpec};
pub use why::{Outcome, Why};
