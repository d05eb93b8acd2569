//! Which PoP for which visitor.
//!
//! All but the server is pure: no IO, no clock. Imports neither the edge nor what steers it.

pub mod compile;
pub mod estimate;
pub mod health;
pub mod load;
pub mod location;
pub mod table;
