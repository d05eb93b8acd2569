//! Which PoP for which visitor.
//!
//! `estimate`, `health` and `load` are pure: no IO, no clock. Imports neither the edge nor what steers it.

pub mod estimate;
pub mod health;
pub mod load;
