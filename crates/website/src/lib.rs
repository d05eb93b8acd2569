//! Puts a website behind Perigee and proves that nothing broke: URLs rewritten in pages and style sheets ([`rewrite`]), what
//! to paste where ([`stacks`]), and a look at the live site ([`doctor`]).

pub mod doctor;
pub mod fingerprint;
pub mod html;
pub mod rewrite;
pub mod stacks;

pub use rewrite::{Kind, Page, Report, Rewriter};
