//! `perigee purge`: asks a running edge to drop what it has stored, or all edges of a cluster by way of its control. Says it is
//! done only when they have said so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use client::{Admin, Control};
use serde_json::Value;

use crate::address::parse_address;
use crate::cluster::{Cluster, profile_path};
use crate::failure::Failure;
use crate::state::StateDir;

const EXAMPLES: &str = "\
Examples:
  perigee purge --url https://www.shop.example/a.css?v=2
  perigee purge --prefix https://www.shop.example/media/
  perigee purge --tag shoes --tag sale --site shop
  perigee purge --everything --soft
  perigee purge --tag shoes --control https://control-1.example:7700 --wait
  perigee purge --url https://www.shop.example/a.css --cluster --reason \"new colours\" --wait

A hard purge makes the next request a miss. A soft one makes what it matches stale: it is revalidated,
and served stale meanwhile where that is allowed.

Without --control, --cluster or $PERIGEE_CONTROL the edge on this machine is asked. With one of them it goes to the
cluster's control, and --wait shows a signed receipt of each node.";

/// `perigee purge`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("what").required(true).multiple(true).args(["url", "prefix", "tag", "site", "everything"])
)]
pub(crate) struct Purge {
    /// One URL, with all its variants
    #[arg(long, value_name = "URL", conflicts_with_all = ["prefix", "tag", "site", "everything"])]
    url: Option<String>,
    /// Every URL that begins so; queries do not count
    #[arg(long, value_name = "URL", conflicts_with_all = ["tag", "site", "everything"])]
    prefix: Option<String>,
    /// Everything with this surrogate key (Surrogate-Key, Cache-Tag, xkey); may be given several times
    #[arg(long, value_name = "KEY", conflicts_with = "everything")]
    tag: Vec<String>,
    /// One site, by its name in the configuration; with --tag, only that site's objects
    #[arg(long, value_name = "NAME", conflicts_with = "everything")]
    site: Option<String>,
    /// All that is stored
    #[arg(long)]
    everything: bool,
    /// Make it stale instead of dropping it
    #[arg(long)]
    soft: bool,
    #[command(flatten)]
    edge: Edge,
    /// Ask the control that `perigee login` has kept
    #[arg(long = "cluster", conflicts_with_all = ["admin", "state"])]
    by_cluster: bool,
    #[command(flatten)]
    cluster: Cluster,
    /// Why; for those who read the list of purges
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until every node in service has signed for it; exit code 1 when one has not in time
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    timeout: u64,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Where `serve` puts the admin API when nothing else is said.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Which running edge is meant.
#[derive(Debug, Args)]
pub(crate) struct Edge {
    /// Address of the admin API [default: where the edge of this state directory listens, else 127.0.0.1:9090]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    admin: Option<SocketAddr>,
    /// State directory of the edge, where its token is [default: $XDG_STATE_HOME/perigee or ~/.local/state/perigee]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Edge {
    /// The way to its admin API.
    pub(crate) fn client(&self) -> Result<Admin, Failure> {
        let state = StateDir::find_here(self.state.clone())?;
        let address = self.admin.or_else(|| state.admin_address()).unwrap_or(DEFAULT_ADDRESS);
        Ok(Admin::new(address, state.existing_token()?))
    }
}

impl Purge {
    /// Purges and says at which position it is in force.
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.by_cluster || self.cluster.is_named() {
            let client = self.cluster.client()?;
            let accepted = client.purge(&self.wanted())?;
            return match self.wait {
                true => self.prove(&client, client::position(&accepted)?),
                false => crate::cluster::show(self.json, &accepted, accepted_words),
            };
        }
        if self.wait || self.reason.is_some() {
            return Err(Failure::new(
                "--wait and --reason are for a cluster, and none is named; an edge answers when the purge is in force",
                "leave them out, or name the cluster: --control URL, or --cluster after perigee login",
            ));
        }
        let edge = self.edge.client().map_err(|failure| match profile_path() {
            Ok(profile) if profile.exists() => {
                failure.or("purge in the cluster of `perigee login`: --cluster")
            }
            _ => failure,
        })?;
        let answer = edge.purge(&self.wanted())?;
        crate::print(&if self.json { format!("{answer:#}\n") } else { describe(&answer) })
    }

    /// Waits for the last receipt, and shows them.
    fn prove(&self, client: &Control, position: u64) -> Result<(), Failure> {
        let mut said = String::new();
        let timeout = Duration::from_secs(self.timeout);
        let status = client.await_purge(position, timeout, &mut |status| {
            let words = progress(status);
            if words != said {
                eprintln!("{words}");
                said = words;
            }
        })?;
        crate::cluster::show(self.json, &status, proof_words)?;
        match status["state"] == "done" {
            true => Ok(()),
            false => Err(Failure::new(
                format!("not every node has signed within {} s; {}", self.timeout, progress(&status)),
                "the purge is in the journal, and they apply it before they serve on; perigee nodes says how they are",
            )),
        }
    }

    fn wanted(&self) -> client::Purge {
        client::Purge {
            url: self.url.clone(),
            prefix: self.prefix.clone(),
            tags: self.tag.clone(),
            site: self.site.clone(),
            everything: self.everything,
            soft: self.soft,
            reason: self.reason.clone(),
        }
    }
}

fn accepted_words(answer: &Value) -> String {
    format!(
        "Purged at position {}, safe in the journal; its receipts: perigee purge … --wait, or {}\n",
        answer["position"],
        answer["receipts"].as_str().unwrap_or("?")
    )
}

/// How far a purge has come, in one line.
fn progress(status: &Value) -> String {
    let names = |list: &str| {
        let names = status[list].as_array().into_iter().flatten().filter_map(|node| node["node"].as_str());
        names.map(crate::visible).collect::<Vec<_>>().join(", ")
    };
    let count = |list: &str| status[list].as_array().map_or(0, Vec::len);
    let mut words = format!(
        "position {}: {} of {} nodes",
        status["position"],
        count("receipts"),
        count("receipts") + count("laggards")
    );
    if count("receipts") + count("laggards") == 0 {
        words = format!("position {}: no node is in service", status["position"]);
    }
    if count("laggards") > 0 {
        words.push_str(&format!(", waiting for {}", names("laggards")));
    }
    if count("out_of_contact") > 0 {
        words.push_str(&format!(", out of contact: {}", names("out_of_contact")));
    }
    words
}

/// The receipts, and who has given none.
fn proof_words(status: &Value) -> String {
    let mut words = match status["state"] == "done" {
        true => format!(
            "Purged, in force at position {}, as every node in service has signed:\n",
            status["position"]
        ),
        false => format!("Purged at position {}, and not proven at every node:\n", status["position"]),
    };
    let rows = |list: &str| status[list].as_array().into_iter().flatten();
    let name = |node: &Value| crate::cluster::cell(&node["node"]);
    for receipt in rows("receipts") {
        let signature = receipt["signature"].as_str().unwrap_or_default();
        let begin = signature.get(..16).unwrap_or(signature);
        words.push_str(&format!(
            "  {}  at {}, signed {}…\n",
            name(receipt),
            receipt["position"],
            crate::visible(begin)
        ));
    }
    for (list, why) in [("laggards", "has not signed yet"), ("out_of_contact", "is out of contact")] {
        for node in rows(list) {
            let heard = match crate::cluster::when(&node["heard_ms"]).as_str() {
                "-" => "never heard of".to_owned(),
                ago => format!("last heard of {ago}"),
            };
            words.push_str(&format!("  {}  {why}, {heard}\n", name(node)));
        }
    }
    words
}

fn describe(answer: &Value) -> String {
    let form = answer["form"].as_str().unwrap_or("?");
    let mut text = format!("Purged ({form}), in force on all workers at position {}:\n", answer["position"]);
    for purged in answer["purged"].as_array().into_iter().flatten() {
        text.push_str(&format!("  {}\n", purged["matches"].as_str().unwrap_or("?")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_proof_names_who_has_signed_and_who_has_not() {
        let status = json!({
            "position": 9, "state": "waiting",
            "receipts": [{ "node": "fra-1", "position": 12, "signature": "MEUCIQDabcdefghijkl" }],
            "laggards": [{ "node": "fra-2", "heard_ms": null }], "out_of_contact": [{ "node": "nyc-1", "heard_ms": null }],
        });
        assert_eq!(
            proof_words(&status),
            "Purged at position 9, and not proven at every node:\n  fra-1  at 12, signed MEUCIQDabcdefghi…\n  fra-2  has not \
             signed yet, never heard of\n  nyc-1  is out of contact, never heard of\n"
        );
        assert_eq!(progress(&status), "position 9: 1 of 2 nodes, waiting for fra-2, out of contact: nyc-1");
    }

    #[test]
    fn the_answer_is_said_in_words() {
        let answer = json!({
            "form": "soft", "position": 12,
            "purged": [{ "matches": "every object" }, { "matches": "more" }],
        });
        assert_eq!(
            describe(&answer),
            "Purged (soft), in force on all workers at position 12:\n  every object\n  more\n"
        );
    }
}
