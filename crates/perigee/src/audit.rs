//! `perigee audit`: who did what in a cluster.

use clap::Args;
use serde_json::Value;

use crate::cluster::{Cluster, cell, show, table, when};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee audit
  perigee audit --days 30 --without-purges --json";

/// `perigee audit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Audit {
    /// Days to go back, today included; at most 400
    #[arg(long, value_name = "N", default_value_t = 7)]
    days: u32,
    /// Leave purges out
    #[arg(long)]
    without_purges: bool,
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Audit {
    /// Lists it.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let target = format!("/v1/audit?days={}&without_purges={}", self.days, self.without_purges);
        let log = self.cluster.client()?.fetch(&target)?;
        show(self.json, &log, describe)
    }
}

fn describe(answer: &Value) -> String {
    let rows = answer["entries"].as_array().into_iter().flatten().map(|entry| {
        vec![
            when(&entry["at_ms"]),
            cell(&entry["by"]),
            cell(&entry["action"]),
            cell(&entry["subject"]),
            cell(&entry["reason"]),
        ]
    });
    let mut words = table(&["WHEN", "BY", "WHAT", "TO", "REASON"], &rows.collect::<Vec<_>>());
    if answer["has_more"] == true {
        words.push_str("There is more in these days than is shown.\n");
    }
    words
}
