//! `perigee rollback`: goes back to an older configuration, at all edges at once.

use clap::Args;

use crate::apply::wait;
use crate::cluster::{Cluster, show};
use crate::failure::Failure;
use crate::rollout::describe;

const EXAMPLES: &str = "\
Examples:
  perigee rollback                            to what was stable before, or takes the roll-out under way back
  perigee rollback --version 3 --reason \"4 breaks the search\"";

/// `perigee rollback`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollback {
    /// To which version [default: what was stable before]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until it is stable
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Rollback {
    /// Goes back.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let client = self.cluster.client()?;
        let answer = client.roll_back(self.version, self.reason.as_deref())?;
        match self.wait && answer["state"] == "running" {
            true => wait(&client, self.json),
            false => show(self.json, &answer, describe),
        }
    }
}
