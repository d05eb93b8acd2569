//! `perigee versions`: the configurations that a cluster has had, or the text of one.

use clap::Args;
use serde_json::Value;

use crate::cluster::{Cluster, cell, show, table, when};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee versions
  perigee versions 3 > sites.toml";

/// `perigee versions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Versions {
    /// Print the text of this one
    version: Option<u64>,
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Versions {
    /// Lists them.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let client = self.cluster.client()?;
        match self.version {
            Some(version) => {
                let one = client.fetch(&format!("/v1/configurations/{version}"))?;
                show(self.json, &one, |one| one["text"].as_str().unwrap_or_default().to_owned())
            }
            None => show(self.json, &client.fetch("/v1/configurations")?, describe),
        }
    }
}

fn describe(answer: &Value) -> String {
    let state = |number: &Value| match number {
        _ if *number == answer["stable"] => "stable",
        _ if *number == answer["candidate"] => "candidate",
        _ => "",
    };
    let rows = answer["versions"].as_array().into_iter().flatten().map(|version| {
        let number = &version["number"];
        vec![
            number.to_string(),
            state(number).to_owned(),
            when(&version["at_ms"]),
            cell(&version["author"]),
            cell(&version["reason"]),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    match rows.is_empty() {
        true => "There is none yet; add one with: perigee apply\n".to_owned(),
        false => table(&["VERSION", "STATE", "ADDED", "BY", "REASON"], &rows),
    }
}
