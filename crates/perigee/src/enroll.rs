//! `perigee enroll`: makes a token by which nodes join a cluster; lists and revokes such tokens.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use client::{Control, segment};
use model::diagnostic::few;
use model::{ControlAddress, Snapshot};
use serde_json::{Value, json};

use crate::cluster::{Cluster, cell, show, table, when};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee enroll --role edge --pop fra --uses 3 > join-token
  perigee enroll --role relay --name eu-1 --ttl 10m > join-token
  perigee enroll list
  perigee enroll revoke 3f8a0c11d2e4

The token is one line with a secret, printed to standard output this once. Whoever has it can join so many
nodes as it says.";

/// `perigee enroll`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Enroll {
    #[command(subcommand)]
    action: Option<Action>,
    /// What the nodes are
    #[arg(long, value_parser = ["edge", "relay", "router"], default_value = "edge")]
    role: String,
    /// The PoP that they stand in; needed for edges
    #[arg(long, value_name = "NAME")]
    pop: Option<String>,
    /// The only name that it lets in [default: the node chooses]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// For how long it is good, e.g. 10m; at most 30d [default: 1h]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How many nodes it lets in [default: 1]
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// URL by which nodes reach control; may be given several times [default: the one that is asked now]
    #[arg(long, value_name = "URL")]
    node_control: Vec<ControlAddress>,
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The enrolment tokens there are
    #[command(after_help = "Examples:\n  perigee enroll list")]
    List {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Revoke one; nodes that it has let in stay
    #[command(after_help = "Examples:\n  perigee enroll revoke 3f8a0c11d2e4")]
    Revoke {
        /// Which: perigee enroll list
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        id: String,
        #[command(flatten)]
        cluster: Cluster,
    },
}

impl Enroll {
    /// Does it.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.action {
            Some(Action::List { cluster }) => {
                show(self.json, &cluster.client()?.fetch("/v1/enrolment-tokens")?, describe)
            }
            Some(Action::Revoke { id, cluster }) => {
                let gone = cluster.client()?.delete(&format!("/v1/enrolment-tokens/{}", segment(&id)))?;
                show(self.json, &gone, |_| format!("{} is revoked\n", crate::visible(&id)))
            }
            None if self.role == "edge" && self.pop.is_none() => Err(Failure::new(
                "an edge stands in a PoP, and the token says in which",
                "name it: --pop NAME",
            )),
            None => {
                let controls: Vec<_> = self.node_control.iter().map(ToString::to_string).collect();
                let pop = self.pop.unwrap_or_default();
                let wanted = json!({
                    "role": self.role, "pop": pop, "name": self.name, "ttl": self.ttl,
                    "uses": self.uses, "controls": controls,
                });
                let client = self.cluster.client()?;
                let made = client.post("/v1/enrolment-tokens", &wanted)?;
                show(self.json, &made, |made| format!("{}\n", made["token"].as_str().unwrap_or_default()))?;
                if !self.json {
                    eprintln!(
                        "perigee: good for {} node{}, ends {}; give it to the node: perigee {} --config node.toml --token FILE",
                        made["uses"],
                        if made["uses"] == 1 { "" } else { "s" },
                        when(&made["expires_ms"]),
                        self.role
                    );
                }
                // The token is good whatever the answer to this is.
                if self.role == "edge"
                    && let Some(pops) = configured_pops(&client)
                    && let Some(warning) = warn_of_pop(&pops, &pop)
                {
                    eprintln!("{warning}: perigee enroll revoke {}", cell(&made["id"]));
                }
                Ok(())
            }
        }
    }
}

/// PoPs of the configurations that nodes may run: the stable one, and the one that is rolled out. `None` where not all of them can be
/// known: there is no configuration yet, or one that is not shown or cannot be read.
fn configured_pops(control: &Control) -> Option<BTreeSet<String>> {
    let versions = control.fetch("/v1/configurations").ok()?;
    let mut names = None;
    for number in [&versions["stable"], &versions["candidate"]].into_iter().filter_map(Value::as_u64) {
        let version = control.fetch(&format!("/v1/configurations/{number}")).ok()?;
        let snapshot = Snapshot::parse_cluster(version["text"].as_str().unwrap_or_default(), "").snapshot?;
        let names: &mut BTreeSet<String> = names.get_or_insert_default();
        names.extend(snapshot.routing.pops.iter().map(|pop| pop.name.to_string()));
    }
    names
}

/// What to say of a PoP that is none of the `configured` ones: an edge may come before its PoP, but routers send nobody there until then.
/// Where none is configured, PoPs are what edges call them.
fn warn_of_pop(configured: &BTreeSet<String>, pop: &str) -> Option<String> {
    if configured.is_empty() || configured.contains(pop) {
        return None;
    }
    Some(format!(
        "perigee: warning: {pop:?} is none of the configuration's PoPs ({}): routers send nobody there until a [[pop]] is called \
         so. If another was meant",
        few(configured.iter().map(String::as_str))
    ))
}

fn describe(answer: &Value) -> String {
    let rows = answer["enrolments"].as_array().into_iter().flatten().map(|enrolment| {
        vec![
            cell(&enrolment["id"]),
            cell(&enrolment["role"]),
            cell(&enrolment["pop"]),
            cell(&enrolment["name"]),
            format!("{} of {}", enrolment["uses_left"], enrolment["uses"]),
            when(&enrolment["expires_ms"]),
            cell(&enrolment["by"]),
        ]
    });
    table(&["ID", "ROLE", "POP", "NAME", "LEFT", "ENDS", "BY"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pop_that_is_missing_beside_others_is_warned_of() {
        let configured = BTreeSet::from(["fra".to_owned(), "syd".to_owned()]);
        assert_eq!(warn_of_pop(&BTreeSet::new(), "mars"), None);
        assert_eq!(warn_of_pop(&configured, "syd"), None);
        let warning = warn_of_pop(&configured, "mars").unwrap();
        assert!(warning.contains("\"mars\" is none of the configuration's PoPs (fra or syd)"), "{warning}");
    }
}
