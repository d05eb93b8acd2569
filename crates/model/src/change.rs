//! What the journal carries: changes that every node of a cluster learns of in one order.
//!
//! ```text
//! position 41   Purge [tag "shoes" of site shop, hard]          by token ci, at …
//! position 57   Plan  stable 3, candidate 4 on node fra-1       by anna, at …
//! position 60   Plan  stable 3, candidate 4 on PoP fra          by roll-out
//! position 88   Plan  stable 4                                  by roll-out
//! ```
//!
//! Positions ascend and have gaps. A purge is an event: a node must apply each one. A plan is a state: the newest one
//! says all there is to know about which configuration each node is to run, so what came before it may be forgotten.
//!
//! These are the texts that nodes exchange (JSON), so a field may be added with a default and never change its meaning.

use std::fmt;

use semantics::tags::is_key;
use serde::{Deserialize, Serialize};

use crate::Url;
use crate::diagnostic::Mistake;

/// Purges in one entry, at most; an order is at most [`ORDER_BYTES_MAX`] long, so that an entry fits into one request
/// to any engine.
pub const ORDERS_MAX: usize = 500;

/// Bytes of a URL, prefix, tag or name in an order.
pub const ORDER_BYTES_MAX: usize = 2_048;

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the order. Ascending, with gaps; at least 1.
    pub position: u64,
    /// What was written.
    pub written: Written,
}

/// What a writer gives to the journal, which adds the position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Who wanted it: the name of a token, or of the part of control that decided it.
    pub by: String,
    /// When, in ms since 1970 by the writer's clock. For people: order is by position alone.
    pub at_ms: i64,
    /// What.
    pub change: Change,
}

/// A change of what a cluster does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Nobody is to be served what these match and was fetched before.
    Purge(Vec<Order>),
    /// Which configuration each node is to run, from now on.
    Plan(Plan),
}

/// One purge, as somebody ordered it: in words, because a node's hashes are its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Order {
    /// What.
    pub what: What,
    /// Whether what it matches may be served while it is validated. Otherwise it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
}

/// What is purged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// One URL with all its variants.
    Url {
        /// The site whose domain it has, as the writer knew it: a node that knows no site of this domain purges the
        /// site whole.
        site: String,
        /// Absolute: `https://www.shop.example/a.css?v=2`.
        url: String,
    },
    /// All URLs that start so.
    Prefix {
        /// As for a URL.
        site: String,
        /// Absolute, without a query: `https://www.shop.example/media/`.
        prefix: String,
    },
    /// All that carries a surrogate key, on one site or on all.
    Tag {
        /// The site; all without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<String>,
        /// The key.
        tag: String,
    },
    /// Everything of a site.
    Site {
        /// Its name.
        site: String,
    },
    /// Everything.
    Everything,
}

impl What {
    /// The site that it names, if any.
    pub fn site(&self) -> Option<&str> {
        match self {
            What::Url { site, .. } | What::Prefix { site, .. } | What::Site { site } => Some(site),
            What::Tag { site, .. } => site.as_deref(),
            What::Everything => None,
        }
    }
}

/// What it matches, for people.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Url { url, .. } => write!(f, "{url} with all its variants"),
            What::Prefix { prefix, .. } => write!(f, "every URL that begins with {prefix}"),
            What::Tag { tag, site: None } => write!(f, "every object with the surrogate key {tag:?}"),
            What::Tag { tag, site: Some(site) } => {
                write!(f, "every object of site {site:?} with the surrogate key {tag:?}")
            }
            What::Site { site } => write!(f, "every object of site {site:?}"),
            What::Everything => f.write_str("every object"),
        }
    }
}

/// The URLs that a text is the beginning of, as [`What::Prefix`] has it.
///
/// # Errors
/// It is no absolute URL, or has a query: prefixes match paths.
pub fn parse_prefix(text: &str) -> Result<Url<'_>, Mistake> {
    match Url::parse(text)? {
        url if url.query.is_none() => Ok(url),
        _ => Err(Mistake {
            error: "has a query, and prefixes match paths",
            wanted: "the beginning of a path: https://www.shop.example/media/",
            next: "leave out \"?\" and what follows",
        }),
    }
}

/// Whether a text is one surrogate key: [`is_key`].
///
/// # Errors
/// It is none.
pub fn check_tag(text: &str) -> Result<(), Mistake> {
    match is_key(text) {
        true => Ok(()),
        false => Err(Mistake {
            error: "is not one surrogate key",
            wanted: "one key as the origin sends it: at most 1,024 bytes of UTF-8, without spaces and commas",
            next: "give several keys one by one: --tag A --tag B, or \"tags\": [\"a\", \"b\"]",
        }),
    }
}

/// Which configuration each node is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What has proven itself: the last known good. `None` before the first.
    pub stable: Option<Version>,
    /// What is being rolled out, and how far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
}

/// One immutable configuration of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Its number: 1, 2, 3 …
    pub number: u64,
    /// SHA-256 of its text, in hex: what a node fetches it by and checks it against.
    pub hash: String,
    /// The cluster's signature over number and hash ([`Version::signed`]), base64. Nodes run nothing that is not signed.
    pub signature: String,
}

/// A configuration on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The configuration.
    pub version: Version,
    /// Who runs it by now.
    pub to: Audience,
    /// Who of them does not yet, by name: nameservers, which take it one at a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
}

impl Candidate {
    /// Whether a node is to run it by now.
    pub fn is_for(&self, node: &str, pop: &str) -> bool {
        self.to.includes(node, pop) && !self.waiting.iter().any(|name| name == node)
    }
}

/// Some of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// These.
    Nodes(Vec<String>),
    /// All in these PoPs.
    Pops(Vec<String>),
    /// All.
    All,
}

impl Plan {
    /// All run this one from now on, whatever was on its way: how a cluster is rolled back to what once was stable. For what
    /// has not proven itself there is [`crate::rollout`].
    pub fn only(version: Version) -> Plan {
        Plan { stable: Some(version), candidate: None }
    }

    /// The configuration that a node is to run; `None` as long as there is none for it.
    pub fn version_for(&self, node: &str, pop: &str) -> Option<&Version> {
        let candidate = self.candidate.as_ref().filter(|candidate| candidate.is_for(node, pop));
        candidate.map(|candidate| &candidate.version).or(self.stable.as_ref())
    }
}

impl Audience {
    /// Whether a node is among them.
    pub fn includes(&self, node: &str, pop: &str) -> bool {
        match self {
            Audience::Nodes(nodes) => nodes.iter().any(|name| name == node),
            Audience::Pops(pops) => pops.iter().any(|name| name == pop),
            Audience::All => true,
        }
    }
}

impl Version {
    /// What the signature is over.
    pub fn signed(number: u64, hash: &str) -> String {
        format!("perigee configuration {number} {hash}")
    }
}

/// What a node's signature of a receipt is over: that it has applied the journal up to a position, and that what it has read up to
/// there has this digest.
pub fn receipt_signed(
    journal: &str,
    node: &str,
    position: u64,
    digest: &impl std::fmt::Display,
    at_ms: i64,
) -> String {
    format!("perigee receipt {journal} {node} {position} {digest} {at_ms}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Version {
        Version { number, hash: format!("{number:064x}"), signature: String::new() }
    }

    #[test]
    fn a_node_runs_the_candidate_that_is_meant_for_it_and_otherwise_what_is_stable() {
        let number =
            |plan: &Plan, node: &str, pop: &str| plan.version_for(node, pop).map(|found| found.number);
        let mut plan = Plan::default();
        assert_eq!(number(&plan, "fra-1", "fra"), None);
        plan.stable = Some(version(3));
        assert_eq!(number(&plan, "fra-1", "fra"), Some(3));
        assert_eq!(Plan::only(version(3)), plan);
        for (to, wanted) in [
            (Audience::Nodes(vec!["fra-1".into()]), [4, 3, 3]),
            (Audience::Pops(vec!["fra".into()]), [4, 4, 3]),
            (Audience::All, [4, 4, 4]),
        ] {
            plan.candidate = Some(Candidate { version: version(4), to, waiting: Vec::new() });
            let run = [("fra-1", "fra"), ("fra-2", "fra"), ("nyc-1", "nyc")]
                .map(|(node, pop)| number(&plan, node, pop).unwrap_or_default());
            assert_eq!(run, wanted, "{:?}", plan.candidate);
        }
        let waiting = vec!["fra-2".into()];
        plan.candidate = Some(Candidate { version: version(4), to: Audience::All, waiting });
        assert_eq!((number(&plan, "fra-1", "fra"), number(&plan, "fra-2", "fra")), (Some(4), Some(3)));
    }

    #[test]
    fn a_prefix_is_a_url_without_a_query() {
        let check = |text: &str, error: Option<&str>| {
            assert_eq!(parse_prefix(text).err().map(|mistake| mistake.error), error, "{text}");
        };
        check("https://a.example/media/", None);
        check("https://a.example", None);
        check("/media/", Some("is not an absolute URL"));
        check("https://a.example/?a", Some("has a query, and prefixes match paths"));
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let change = Change::Purge(vec![
            Order { what: What::Everything, soft: true },
            Order { what: What::Tag { site: None, tag: "shoes".into() }, soft: false },
            Order {
                what: What::Url { site: "shop".into(), url: "https://a.example/x?y".into() },
                soft: false,
            },
        ]);
        let entry = Entry { position: 7, written: Written { by: "ci".into(), at_ms: 1, change } };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"position":7,"written":{"by":"ci","at_ms":1,"change":{"purge":[{"what":"everything","soft":true},"#,
                r#"{"what":{"tag":{"tag":"shoes"}}},{"what":{"url":{"site":"shop","url":"https://a.example/x?y"}}}]}}}"#
            )
        );
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    }
}
