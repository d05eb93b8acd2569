//! What is counted of requests, second by second, and how a node tells it: the cells by site, rule, country, class of content,
//! reason and status; times to the first byte; the URLs that are asked for most; and what browsers say of page views.
//!
//! ```text
//! edge: each worker counts ─► a Report per second ─► bytes ─► control: the same cells, summed over time and places
//! ```
//!
//! Nothing is sampled: each finished request is in exactly one cell. Only the lists of URLs are estimates, because a visitor can
//! ask for more URLs than anybody can remember: see [`sketch`].
//!
//! Pure: values in, values out. Made by `observe`, read by `control`, which know nothing of each other.

pub mod bytes;
pub mod histogram;
pub mod key;
pub mod otlp;
pub mod remote_write;
pub mod report;
pub mod rum;
pub mod sketch;

pub use histogram::Histogram;
pub use key::{Class, Country, Key, Rule, Status};
pub use report::{Cell, Damaged, Example, LISTS, ListKind, Report};
pub use sketch::{Entry, Sketch, TopList};
