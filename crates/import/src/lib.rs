//! Configurations of nginx, CloudFront, Cloudflare and Varnish, read as Perigee's: text in, text and report out.
//!
//! ```text
//! text ─► statements, each noted in the ledger ─► draft: sites and rules ─► text that Snapshot::parse accepts
//!                  └────────────── what became of each: mapped, not needed, not mapped ──────────┘
//! ```
//!
//! A statement is in the ledger before anybody looks at what it means, and one that nobody has spoken for comes out as not
//! mapped: so nothing can be dropped silently. Lines of the draft that the configuration reader refuses are taken out again, and
//! their statements are not mapped (`draft`). Pure: no files, so `include` and the like are reported and not followed, but within a dump
//! that holds several files (`nginx -T`).
//!
//! ```
//! let imported = import::import(
//!     import::Source::Nginx,
//!     "server { server_name shop.example; location / { proxy_pass http://10.0.0.7:8000; } }",
//!     "nginx.conf",
//! )
//! .unwrap();
//! assert!(model::Snapshot::parse(&imported.config, "perigee.toml").snapshot.is_some());
//! assert_eq!(imported.items.len(), 4);
//! ```

mod cloudflare;
mod cloudfront;
mod condition;
mod draft;
mod json;
mod ledger;
mod nginx;
mod pattern;
mod vcl;

use std::fmt;

pub use ledger::{Item, Outcome, Place};

/// Longest text that is read, as of our own configuration.
pub const TEXT_BYTES_MAX: usize = model::config::TEXT_BYTES_MAX;

/// Statements of a text, at most. The largest configurations in use have some ten thousand.
pub const STATEMENTS_MAX: usize = 100_000;

/// Blocks within blocks, at most.
pub const DEPTH_MAX: usize = 32;

/// What the text is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A configuration of nginx: whole, a fragment, or the output of `nginx -T`.
    Nginx,
    /// A CloudFront distribution, as `aws cloudfront get-distribution-config` prints it.
    CloudFront,
    /// Rules of a Cloudflare zone, as its API gives them: rulesets and page rules.
    Cloudflare,
    /// A program of Varnish.
    Vcl,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Imported {
    /// A configuration that `Snapshot::parse` accepts; comments say which line each of its lines comes from.
    pub config: String,
    /// Every statement of the text, in its order, and what became of it.
    pub items: Vec<Item>,
}

impl Imported {
    /// How many rules answer nobody, because what they stand for let in only some and no rule can say whom.
    pub fn refusals(&self) -> usize {
        let origin = format!("origin = \"{}\"", draft::REFUSED_ORIGIN);
        let rules = self.config.split("[[site.rule]]").skip(1);
        rules.filter(|rule| rule.lines().any(|line| line.starts_with(&origin))).count()
    }
}

/// Why a text cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub place: Place,
    /// What is wrong: a sentence without a full stop that names what was found.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for Broken {}

/// Reads `text` as `source`. `name` is what messages call it, usually the file's path.
///
/// # Errors
/// The first thing in the text that is not of its language, or that nothing in it becomes a site.
pub fn import(source: Source, text: &str, name: &str) -> Result<Imported, Broken> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Broken {
            place: Place { file: name.into(), line: 1, column: 1 },
            message: format!("the text is over {} MiB long", TEXT_BYTES_MAX >> 20),
            help: "split it".into(),
        });
    }
    match source {
        Source::Nginx => nginx::import(text, name),
        Source::CloudFront => cloudfront::import(text, name),
        Source::Cloudflare => cloudflare::import(text, name),
        Source::Vcl => vcl::import(text, name),
    }
}

/// What is promised of any text, for fuzzing.
#[cfg(fuzzing)]
pub fn fuzz(source: Source, text: &str) {
    let Ok(imported) = import(source, text, "fuzz") else { return };
    assert!(model::Snapshot::parse(&imported.config, "fuzz").snapshot.is_some(), "{}", imported.config);
    assert!(imported.items.iter().all(|item| !item.outcomes.is_empty()));
}
