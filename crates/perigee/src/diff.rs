//! `perigee diff`: what tells two configurations of a cluster apart, key by key, and what of it needs a second thought.

use clap::Args;
use serde_json::Value;

use crate::cluster::{Cluster, show};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee diff                       from what is stable to the newest version
  perigee diff --from 3 --to 4
  perigee diff --file sites.toml     from what is stable to a file that has not been added yet";

/// `perigee diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// The older version [default: what is stable]
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// The newer version [default: the newest]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    to: Option<u64>,
    /// A file in place of the newer version
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    #[command(flatten)]
    cluster: Cluster,
    /// Print the difference as JSON
    #[arg(long)]
    json: bool,
}

impl Diff {
    /// Compares.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let client = self.cluster.client()?;
        let Some(file) = &self.file else {
            return show(self.json, &client.diff(self.from, self.to)?, describe);
        };
        let place = file.display();
        let new = std::fs::read_to_string(file)
            .map_err(|error| Failure::new(format!("{place}: {error}"), "name the file with the sites"))?;
        let stable = || client.fetch("/v1/configurations").map(|listed| listed["stable"].as_u64());
        let Some(from) = self.from.map_or_else(stable, |from| Ok(Some(from)))? else {
            return Err(Failure::new(
                "nothing is stable yet, so there is nothing to compare with",
                "name a version: --from N",
            ));
        };
        let old = client.fetch(&format!("/v1/configurations/{from}"))?;
        let difference =
            model::diff::diff(old["text"].as_str().unwrap_or_default(), &new).map_err(|found| {
                let found: String =
                    found.iter().filter(|one| one.is_error()).map(|one| format!("{one}\n")).collect();
                Failure::new(
                    format!("{place} cannot be used:\n{found}"),
                    "correct it; perigee check --cluster shows all findings",
                )
            })?;
        crate::print(&match self.json {
            true => format!("{:#}\n", serde_json::to_value(&difference).unwrap_or_default()),
            false if difference.is_empty() => "No difference.\n".to_owned(),
            false => crate::visible_lines(&difference.to_string()),
        })
    }
}

fn describe(answer: &Value) -> String {
    let rows = |key: &str| answer[key].as_array().into_iter().flatten();
    let mut words = String::new();
    for change in rows("changes") {
        words.push_str(&format!("{}\n", crate::visible(change["line"].as_str().unwrap_or_default())));
    }
    for warning in rows("warnings") {
        let site = warning["site"].as_str().map(|site| format!("site {site}: ")).unwrap_or_default();
        words.push_str(&crate::visible(&format!(
            "warning: {site}{}",
            warning["message"].as_str().unwrap_or_default()
        )));
        words.push('\n');
    }
    match (words.is_empty(), answer["from"].is_null()) {
        (true, true) => "Nothing is stable yet, so there is nothing to compare with.\n".to_owned(),
        (true, false) => "No difference.\n".to_owned(),
        _ => words,
    }
}
