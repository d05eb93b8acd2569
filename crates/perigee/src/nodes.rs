//! `perigee nodes`: the nodes of a cluster: what they run, how far they are, when they were heard of; retires one.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cluster::{Cluster, cell, show, table, when};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee nodes
  perigee nodes retire fra-1         its certificate is not believed any more, and purges do not wait for it";

/// `perigee nodes`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Nodes {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take a node out of the cluster for good
    #[command(after_help = "Examples:\n  perigee nodes retire fra-1")]
    Retire {
        /// Its name
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        name: String,
    },
}

impl Nodes {
    /// Lists them, or retires one.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let client = self.cluster.client()?;
        match self.action {
            None => show(self.json, &client.nodes()?, describe),
            Some(Action::Retire { name }) => {
                let gone = client.delete(&format!("/v1/nodes/{}", client::segment(&name)))?;
                show(self.json, &gone, |_| format!("{} is retired\n", crate::visible(&name)))
            }
        }
    }
}

fn describe(answer: &Value) -> String {
    let rows = answer["nodes"].as_array().into_iter().flatten().map(|node| {
        let health = match (&node["in_service"], &node["refused"]["version"], &node["running"]) {
            (Value::Bool(false), ..) => "out of contact".to_owned(),
            _ if node["heard_ms"].is_null() => "not heard of yet".to_owned(),
            (_, Value::Number(version), _) => format!("refused {version}"),
            _ if node["unwell"].is_string() => "does not answer".to_owned(),
            (_, _, running) if !node["wanted"].is_null() && *running != node["wanted"] => {
                format!("is to run {}", node["wanted"])
            }
            _ => "well".to_owned(),
        };
        vec![
            cell(&node["name"]),
            cell(&node["role"]),
            cell(&node["pop"]),
            health,
            cell(&node["running"]),
            cell(&node["behind"]),
            when(&node["heard_ms"]),
            cell(&node["software"]),
            when(&node["certificate_until_ms"]),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    match rows.is_empty() {
        true => "There is none yet; have one join with: perigee enroll\n".to_owned(),
        false => table(
            &["NAME", "ROLE", "POP", "HEALTH", "RUNS", "BEHIND", "HEARD", "SOFTWARE", "CERTIFICATE"],
            &rows,
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_of_which_nothing_was_heard_is_not_told_to_be_well() {
        let line = |heard_ms: Value| {
            let node = json!({ "name": "fra-1", "in_service": true, "heard_ms": heard_ms, "wanted": null });
            describe(&json!({ "nodes": [node] })).lines().nth(1).unwrap().to_owned()
        };
        assert!(line(Value::Null).contains("not heard of yet"), "{}", line(Value::Null));
        assert!(line(json!(1)).contains("well"), "{}", line(json!(1)));
    }
}
