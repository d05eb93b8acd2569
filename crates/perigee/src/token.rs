//! `perigee token`: tokens of operators and programs: lists, makes and revokes them.

use clap::{Args, Subcommand};
use client::segment;
use serde_json::{Value, json};

use crate::cluster::{Cluster, cell, show, table, when};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee token list
  perigee token add ci --role purger --site shop --ttl 90d > ci-token
  perigee token revoke ci

A secret is printed to standard output this once, and kept nowhere.";

/// `perigee token`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The tokens there are
    #[command(after_help = "Examples:\n  perigee token list")]
    List,
    /// Make one
    #[command(
        after_help = "Examples:\n  perigee token add ci --role purger --site shop --ttl 90d > ci-token"
    )]
    Add {
        /// Its name: purges and the audit log say it
        name: String,
        /// What it may do: viewer looks, purger purges, editor changes configurations, admin does everything
        #[arg(long, value_parser = ["viewer", "purger", "editor", "admin"])]
        role: String,
        /// The site that it may purge; may be given several times [default: all]
        #[arg(long, value_name = "NAME")]
        site: Vec<String>,
        /// For how long it is good, e.g. 90d [default: for ever]
        #[arg(long, value_name = "DURATION")]
        ttl: Option<String>,
        /// Requests per second [default: 2000]
        #[arg(long, value_name = "N")]
        requests_per_second: Option<u32>,
    },
    /// Revoke one, at once
    #[command(after_help = "Examples:\n  perigee token revoke ci")]
    Revoke {
        /// Its name
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        name: String,
    },
}

impl Token {
    /// Does it.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let client = self.cluster.client()?;
        match self.action {
            Action::List => show(self.json, &client.fetch("/v1/tokens")?, describe),
            Action::Add { name, role, site, ttl, requests_per_second } => {
                let sites = (!site.is_empty()).then_some(site);
                let wanted = json!({
                    "name": name, "role": role, "sites": sites, "ttl": ttl, "requests_per_second": requests_per_second,
                });
                let made = client.post("/v1/tokens", &wanted)?;
                show(self.json, &made, |made| format!("{}\n", made["secret"].as_str().unwrap_or_default()))
            }
            Action::Revoke { name } => {
                let gone = client.delete(&format!("/v1/tokens/{}", segment(&name)))?;
                show(self.json, &gone, |_| format!("{} is revoked\n", crate::visible(&name)))
            }
        }
    }
}

fn describe(answer: &Value) -> String {
    let rows = answer["tokens"].as_array().into_iter().flatten().map(|token| {
        let sites =
            token["sites"].as_array().map(|sites| sites.iter().map(cell).collect::<Vec<_>>().join(", "));
        vec![
            cell(&token["name"]),
            cell(&token["role"]),
            sites.unwrap_or_else(|| "all".to_owned()),
            when(&token["expires_ms"]),
            when(&token["created_ms"]),
            cell(&token["by"]),
        ]
    });
    table(&["NAME", "ROLE", "SITES", "ENDS", "MADE", "BY"], &rows.collect::<Vec<_>>())
}
