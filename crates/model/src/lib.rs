//! model
pub mod breaker;
pub mod health;
pub mod purge;
pub mod retry;
