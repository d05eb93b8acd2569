//! `perigee login`: keeps where a cluster's control is and how to be let in, once control has answered.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cluster::{Cluster, profile_path, write_profile};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee login https://control-1.example:7700 --authority 3f8a… --token-file admin-token
  perigee login https://control-1.example:7700 --authority ca.pem --token-file admin-token

`perigee control` prints the authority's fingerprint at its start. Nobody else's control is ever believed.";

/// `perigee login`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Login {
    /// URL of a control
    url: String,
    /// The cluster's authority: its fingerprint, or its file ca.pem
    #[arg(long, value_name = "HEX|FILE")]
    authority: String,
    /// File with the token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Login {
    /// Asks control, then writes the profile.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let profile = Cluster::of(self.url, self.authority, self.token_file).profile()?;
        let status = profile.client()?.fetch("/v1/status")?;
        let path = profile_path()?;
        write_profile(&path, &profile)?;
        let kept = path.display().to_string();
        crate::print(&match self.json {
            true => format!("{:#}\n", json!({ "profile": kept, "status": status })),
            false => format!(
                "Control {} answers, with {} nodes; kept in {kept}\n",
                status["control"].as_str().unwrap_or("?"),
                status["nodes"]
            ),
        })
    }
}
