//! Tests only: what stands around an edge, so that its behaviour can be watched from outside over real sockets.
//!
//! - [`wire`]: HTTP/1.1 as bytes, for clients and origins that must be able to say what no library would say.
//! - [`mod@play`]: the scenario language, in which a test reads like a play.
//! - [`edges`]: several edges that ask each other.
//! - [`authority`]: a certificate authority that nobody here wrote, and a look at what an edge shows in a handshake.
//! - [`responder`]: an OCSP responder, by `openssl`.
//! - [`conformance`]: runs the public HTTP cache-tests definitions against a proxy (binary `conformance`).
//! - [`operator`]: somebody who uses control's API.
//! - [`shop`]: an origin whose every answer can be told right from wrong.
//! - [`draw`]: chance that is the same for the same seed.
//! - [`cluster`]: a whole cluster as processes of its own; [`ground`]: a network of its own for them.
//! - [`soak`]: all of it under fire (binary `perigee-world`).
//! - [`trusting`]: TLS for the clients of benches.
//!
//! Nothing of Perigee depends on this crate.

pub mod authority;
pub mod cluster;
pub mod conformance;
mod dates;
pub mod draw;
pub mod edges;
pub mod ground;
pub mod operator;
pub mod play;
pub mod responder;
pub mod scratch;
pub mod shop;
pub mod soak;
pub mod trusting;
pub mod wire;

pub use play::{Gate, play};
