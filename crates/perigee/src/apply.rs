//! `perigee apply`: checks a configuration, adds it as a version, and rolls it out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use client::Control;
use serde_json::{Value, json};

use crate::cluster::{Cluster, show};
use crate::failure::Failure;
use crate::rollout;

const EXAMPLES: &str = "\
Examples:
  perigee apply sites.toml --stage edge --reason \"cache images longer\" --wait
  perigee apply sites.toml --dry-run
  perigee apply sites.toml --stage all --reason \"the shop is down\"

A staged roll-out begins at one node, goes on with its PoP and then with all, and is undone by itself when it
does harm. With --stage all every edge runs it within seconds, and nameservers take it after them, one at a
time; it is watched, and undone, all the same.";

/// Between two looks at the roll-out.
const LOOK: Duration = Duration::from_secs(1);

/// Where a roll-out begins.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Stage {
    /// At one node; then its PoP, then all
    Edge,
    /// In one PoP; then all
    Pop,
    /// At all edges at once; then at nameservers, one at a time
    All,
}

/// `perigee apply`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Apply {
    /// The cluster's configuration; "-" is standard input
    file: PathBuf,
    /// Where the roll-out begins
    #[arg(long, value_enum, default_value = "edge")]
    stage: Stage,
    /// The node or PoP where it begins [default: control chooses]
    #[arg(long, value_name = "NAME")]
    first: Option<String>,
    /// Why; for those who read the list of versions
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Check it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Add it as a version, and roll nothing out
    #[arg(long, conflicts_with_all = ["dry_run", "wait"])]
    no_rollout: bool,
    /// Do not wait for enough requests to judge by
    #[arg(long)]
    without_traffic: bool,
    /// Wait for the roll-out's end; exit code 1 when it is undone
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answers as JSON
    #[arg(long)]
    json: bool,
}

impl Apply {
    /// Adds it and rolls it out.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let source = self.file.display().to_string();
        let text = match source.as_str() {
            "-" => std::io::read_to_string(std::io::stdin()),
            _ => std::fs::read_to_string(&self.file),
        };
        let text =
            text.map_err(|error| Failure::new(format!("{source}: {error}"), "name the file with the sites"))?;
        let client = self.cluster.client()?;
        let reason = self.reason.as_deref().unwrap_or_default();
        let (status, added) = client.add_configuration(&text, &source, reason, self.dry_run)?;
        let findings = findings(&added);
        if !(200..300).contains(&status) {
            if self.json {
                crate::print(&format!("{added:#}\n"))?;
            }
            eprint!("{findings}");
            return Err(client::Error::refused(status, &added).into());
        }
        if self.dry_run || self.no_rollout {
            eprint!("{findings}");
            return show(self.json, &added, |added| match added["version"].as_u64() {
                Some(version) => format!(
                    "{source} is configuration {version}; roll it out with: perigee rollout start {version}\n"
                ),
                None => format!("{source} is good\n"),
            });
        }
        eprint!("{findings}");
        let stage = self.stage.to_possible_value().map(|value| value.get_name().to_owned());
        let wanted = json!({
            "version": added["version"], "stage": stage, "first": self.first, "reason": self.reason,
            "without_traffic": self.without_traffic,
        });
        let begun = client.roll_out(&wanted)?;
        match self.wait {
            true => wait(&client, self.json),
            false => show(self.json, &begun, rollout::describe),
        }
    }
}

/// Says how the roll-out goes, until its end.
pub(crate) fn wait(client: &Control, json: bool) -> Result<(), Failure> {
    let mut said = String::new();
    loop {
        let current = client.rollout()?;
        let words = rollout::describe(&current);
        match current["state"].as_str() {
            Some("running" | "paused") => {
                if words != said {
                    eprint!("{words}");
                    said = words;
                }
                std::thread::sleep(LOOK);
            }
            Some("promoted") => return show(json, &current, rollout::describe),
            _ => {
                show(json, &current, rollout::describe)?;
                return Err(Failure::new(
                    "the roll-out was taken back",
                    "correct the configuration and apply it again",
                ));
            }
        }
    }
}

/// Each finding with its place, as `perigee check` prints it.
fn findings(answer: &Value) -> String {
    let text = |finding: &Value, key: &str| crate::visible(finding[key].as_str().unwrap_or_default());
    let one = |finding: &Value| {
        let number = finding["line"].to_string();
        let margin = " ".repeat(number.len());
        let column = finding["column"].as_u64().unwrap_or(1).saturating_sub(1) as usize;
        let carets = "^".repeat(text(finding, "found").trim_end().chars().count().max(1));
        let mut words = format!(
            "{}: {}\n{margin}--> {}:{number}:{}\n{margin} |\n{number} | {}\n{margin} | {}{carets}\n",
            text(finding, "severity"),
            text(finding, "message"),
            text(finding, "source"),
            finding["column"],
            text(finding, "line_text"),
            " ".repeat(column),
        );
        if !text(finding, "help").is_empty() {
            words.push_str(&format!("{margin} = {}\n", text(finding, "help")));
        }
        words.push('\n');
        words
    };
    answer["diagnostics"].as_array().into_iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_shown_with_a_caret_under_the_value() {
        let answer = json!({ "diagnostics": [{
            "severity": "error", "message": "\"5 parsecs\" is not a duration", "source": "sites.toml", "line": 12,
            "column": 7, "found": "\"5 parsecs\"", "line_text": "ttl = \"5 parsecs\"", "help": "write e.g. \"90s\"",
        }] });
        let expected = "\
error: \"5 parsecs\" is not a duration
  --> sites.toml:12:7
   |
12 | ttl = \"5 parsecs\"
   |       ^^^^^^^^^^^
   = write e.g. \"90s\"

";
        assert_eq!(findings(&answer), expected);
    }
}
