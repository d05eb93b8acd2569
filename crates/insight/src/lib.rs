//! What recorded traffic says about a configuration. [`log`] reads access logs, ours and those of others; [`replay`] sends
//! what was recorded through the real decisions of a configuration and says what would have come of it; [`advise`] finds
//! what keeps a site from being cached well, and proves each proposal by replay.
//!
//! Pure as far as it can be: readers take any [`std::io::Read`], nothing here opens a file, asks the network, reads a clock
//! or draws by chance. It never imports `edge`: what an edge decides stands in `semantics` and `model`, what it keeps in `store`.

pub mod advise;
pub mod class;
pub mod log;
pub mod plan;
pub mod replay;
pub mod stats;
