//! `perigee rollout`: how the roll-out stands; begins, pauses, resumes or undoes one.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::apply::{Stage, wait};
use crate::cluster::{Cluster, show, when};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee rollout                                 how it stands, and what it waits for
  perigee rollout --wait                          the same until its end
  perigee rollout start 4 --stage pop --first fra
  perigee rollout pause
  perigee rollout resume --without-traffic
  perigee rollout undo";

/// `perigee rollout`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rollout {
    #[command(subcommand)]
    action: Option<Action>,
    /// Wait for its end; exit code 1 when it is undone
    #[arg(long, global = true)]
    wait: bool,
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Roll a version out
    #[command(after_help = "Examples:\n  perigee rollout start 4 --stage pop --first fra --wait")]
    Start {
        /// Its number: perigee versions
        version: u64,
        /// Where it begins
        #[arg(long, value_enum, default_value = "edge")]
        stage: Stage,
        /// The node or PoP where it begins [default: control chooses]
        #[arg(long, value_name = "NAME")]
        first: Option<String>,
        /// Why [default: the version's reason]
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not wait for enough requests to judge by
        #[arg(long)]
        without_traffic: bool,
    },
    /// Let it go no further; it is watched all the same
    #[command(after_help = "Examples:\n  perigee rollout pause")]
    Pause,
    /// Let it go on
    #[command(
        after_help = "Examples:\n  perigee rollout resume\n  perigee rollout resume --without-traffic --wait"
    )]
    Resume {
        /// From now on do not wait for enough requests to judge by
        #[arg(long)]
        without_traffic: bool,
    },
    /// Take it back everywhere
    #[command(after_help = "Examples:\n  perigee rollout undo")]
    Undo,
}

impl Rollout {
    /// Does it, and says how it stands.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let client = self.cluster.client()?;
        let answer = match self.action {
            None => client.rollout()?,
            Some(Action::Start { version, stage, first, reason, without_traffic }) => {
                let stage = stage.to_possible_value().map(|value| value.get_name().to_owned());
                let wanted = json!({
                    "version": version, "stage": stage, "first": first, "reason": reason, "without_traffic": without_traffic,
                });
                client.roll_out(&wanted)?
            }
            Some(Action::Pause) => client.post("/v1/rollouts/current/pause", &json!({}))?,
            Some(Action::Resume { without_traffic }) => {
                client.post("/v1/rollouts/current/resume", &json!({ "without_traffic": without_traffic }))?
            }
            Some(Action::Undo) => client.post("/v1/rollouts/current/undo", &json!({}))?,
        };
        match self.wait {
            true => wait(&client, self.json),
            false => show(self.json, &answer, describe),
        }
    }
}

/// How a roll-out stands, in words.
pub(crate) fn describe(rollout: &Value) -> String {
    let text = |key: &str| crate::visible(rollout[key].as_str().unwrap_or_default());
    let Some(version) = rollout["version"].as_u64() else {
        return "There has never been a roll-out; begin one with: perigee apply\n".to_owned();
    };
    let names = |key: &str| {
        let names = rollout["audience"][key].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.collect::<Vec<_>>().join(", ")
    };
    let to = match (rollout["audience"]["all"] == true, names("pops"), names("nodes")) {
        (true, ..) => "everywhere".to_owned(),
        (_, pops, _) if !pops.is_empty() => format!("in {pops}"),
        (.., nodes) if !nodes.is_empty() => format!("on {nodes}"),
        _ => "nowhere yet".to_owned(),
    };
    let began = rollout["began"].as_array().and_then(|began| began.last()).map(|last| when(&last["at_ms"]));
    let began = began.unwrap_or_default();
    let mut words = match text("state").as_str() {
        "promoted" => format!("Configuration {version} is stable ({began}).\n"),
        "undone" => match rollout["harm"]["told"].as_str() {
            Some(told) => format!(
                "Configuration {version} was taken back ({began}): {}: {}.\n",
                crate::visible(rollout["harm"]["node"].as_str().unwrap_or("?")),
                crate::visible(told)
            ),
            None => format!("Configuration {version} was taken back by hand ({began}).\n"),
        },
        state => format!(
            "Configuration {version} is {}, {to}: {} of {} nodes in service run it{}.\n",
            if state == "running" { "being rolled out" } else { state },
            rollout["running"],
            rollout["nodes"],
            if rollout["running"] == 0 { " yet" } else { "" }
        ),
    };
    if let Some(what) = rollout["waiting_for"].as_str() {
        words.push_str(&format!("  waits for: {}\n", crate::visible(what)));
    }
    let waiting: Vec<&str> =
        rollout["waiting"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !waiting.is_empty() {
        let names = crate::visible(&waiting.join(", "));
        words.push_str(&format!("  nameservers that wait for the one before: {names}\n"));
    }
    if rollout["judged_on_few"] == true {
        words.push_str("  a stage went by with too few requests to judge\n");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roll_out_is_told_in_words() {
        for (rollout, wanted) in [
            (
                json!({ "version": null, "state": "none" }),
                "There has never been a roll-out; begin one with: perigee apply\n",
            ),
            (
                json!({ "version": 4, "state": "running", "audience": { "nodes": ["fra-1"] }, "running": 1, "nodes": 5, "waiting_for": "x" }),
                "Configuration 4 is being rolled out, on fra-1: 1 of 5 nodes in service run it.\n  waits for: x\n",
            ),
            (
                json!({ "version": 4, "state": "running", "audience": { "all": true }, "running": 2, "nodes": 4, "waiting": ["ns2", "ns3"] }),
                "Configuration 4 is being rolled out, everywhere: 2 of 4 nodes in service run it.\n  nameservers that wait for the one before: ns2, ns3\n",
            ),
            (
                json!({ "version": 1, "state": "running", "audience": { "all": true }, "running": 0, "nodes": 3 }),
                "Configuration 1 is being rolled out, everywhere: 0 of 3 nodes in service run it yet.\n",
            ),
            (
                json!({ "version": 4, "state": "undone", "began": [], "harm": { "node": "fra-1", "told": "has errors" } }),
                "Configuration 4 was taken back (): fra-1: has errors.\n",
            ),
        ] {
            assert_eq!(describe(&rollout), wanted);
        }
    }
}
