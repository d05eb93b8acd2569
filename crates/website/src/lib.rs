//! Puts a website behind Perigee and proves that nothing broke: URLs rewritten in pages and style sheets ([`rewrite`]).

pub mod fingerprint;
pub mod rewrite;

pub use rewrite::{Kind, Page, Report, Rewriter};
