//! `perigee purge`: asks a running edge to drop what it has stored. Says it is done only when the edge has said so.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use crate::address::parse_address;
use crate::client::Client;
use crate::failure::Failure;
use crate::state::StateDir;

const EXAMPLES: &str = "\
Examples:
  perigee purge --url https://www.shop.example/a.css?v=2
  perigee purge --prefix https://www.shop.example/media/
  perigee purge --tag shoes --tag sale --site shop
  perigee purge --everything --soft

A hard purge makes the next request a miss. A soft one makes what it matches stale: it is revalidated,
and served stale meanwhile where that is allowed.";

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
    /// Print the edge's answer as JSON
    #[arg(long)]
    json: bool,
}

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
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::new(self.admin, &StateDir::find_here(self.state.clone())?)
    }
}

impl Purge {
    /// Purges and says at which position it is in force.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let body = self.body();
        let answer = self.edge.client()?.post("/v1/purge", &body)?;
        crate::print(&if self.json { format!("{answer:#}\n") } else { describe(&answer) })
    }

    fn body(&self) -> Value {
        let mut body = json!({ "soft": self.soft });
        if let Some(url) = &self.url {
            body["url"] = json!(url);
        }
        if let Some(prefix) = &self.prefix {
            body["prefix"] = json!(prefix);
        }
        if !self.tag.is_empty() {
            body["tags"] = json!(self.tag);
        }
        if let Some(site) = &self.site {
            body["site"] = json!(site);
        }
        if self.everything {
            body["everything"] = json!(true);
        }
        body
    }
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
    use super::*;

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
