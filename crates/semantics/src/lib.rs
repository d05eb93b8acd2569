//! What HTTP caching means, as functions on headers and instants: may I store, may I reuse, what key, which variant,
//! which range, what Cache-Status.
//!
//! Plain values in, decisions out: no sockets, files, clock, chance, logging, threads or `async`. Each module cites its RFC.

pub mod fields;
pub mod time;
pub mod why;

pub use fields::Fields;
pub use time::Wall;
pub use why::{Outcome, Why};
