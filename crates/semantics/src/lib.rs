//! What HTTP caching means, as functions on headers and instants: may I store, may I reuse, what key, which variant,
//! which range, what Cache-Status.
//!
//! Plain values in, decisions out: no sockets, files, clock, chance, logging, threads or `async`. Each module cites its RFC.

pub mod cache_status;
pub mod coding;
pub mod conditional;
pub mod date;
pub mod directives;
pub mod fields;
pub mod freshness;
pub mod hop;
pub mod invalidation;
pub mod key;
mod list;
pub mod policy;
pub mod range;
pub mod request_rules;
pub mod reuse;
pub mod storing;
mod structured;
pub mod tags;
pub mod target;
pub mod time;
pub mod trace;
pub mod update;
pub mod vary;
pub mod why;

pub use directives::RequestDirectives;
pub use fields::Fields;
pub use freshness::{Facts, Flags, LifetimeSource};
pub use key::{KeyRecipe, KeySeed};
pub use policy::{Heuristic, Policy, RequestCacheControl, SetCookie};
pub use reuse::{Assessment, Reuse, StaleOn, decide_reuse};
pub use storing::{Refusal, StoreRequest, decide_store};
pub use target::Target;
pub use time::Wall;
pub use vary::{Normalise, Vary, VarySpec};
pub use why::{Outcome, Why};
