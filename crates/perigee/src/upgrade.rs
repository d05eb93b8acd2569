//! `perigee upgrade`: asks a running edge to start its program anew in its place, waits, and says what came of it.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::purge::Edge;

/// How often it is asked how far it has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What is waited for beyond the time that the edge gives itself: a request waits while purges do.
const GRACE: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  perigee upgrade                     after a new binary was put in place of the running one
  perigee upgrade --json

The running edge starts its program anew, with the same arguments, and passes its listening sockets on. No
connection is refused. The old process ends when the requests that it still answers have ended. If the new one
does not start, the old one serves on, and this says why.";

/// `perigee upgrade`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    edge: Edge,
    /// Print the edge's last answer as JSON
    #[arg(long)]
    json: bool,
}

impl UpgradeArgs {
    /// Upgrades, and fails with the reason when the old process serves on.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let begun = self.edge.client()?.post("/v1/upgrade", &json!({}))?;
        let id = begun["id"].as_str().unwrap_or_default().to_owned();
        let patience = Duration::from_secs(begun["within_s"].as_u64().unwrap_or(0)) + GRACE;
        let last = self.follow(begun, &id, patience)?;
        if last["state"] == "done" {
            return crate::print(&if self.json { format!("{last:#}\n") } else { describe(&last) });
        }
        if self.json {
            crate::print(&format!("{last:#}\n"))?;
        }
        Err(failure(&last))
    }

    /// Asks until it is over; the process that answers changes on the way.
    fn follow(&self, begun: Value, id: &str, patience: Duration) -> Result<Value, Failure> {
        let begin = Instant::now();
        let mut last = begun;
        let mut told = String::new();
        loop {
            let state = last["state"].as_str().unwrap_or_default();
            if last["id"] == id && matches!(state, "done" | "failed") {
                return Ok(last);
            }
            if last["id"] != id {
                return Err(Failure::new(
                    "the process that was asked is gone, and the one that answers was not started by it",
                    "look at the log of the edge",
                ));
            }
            if told != state && !self.json {
                told = state.to_owned();
                eprintln!("{}", progress(state));
            }
            thread::sleep(LOOK_INTERVAL);
            // Found anew each time: the new process may have another address.
            match self.edge.client().and_then(|client| Ok(client.fetch("/v1/upgrade")?)) {
                Ok(answer) => last = answer,
                Err(failure) if begin.elapsed() > patience => return Err(failure),
                Err(_one_of_them_answers_soon) => {}
            }
        }
    }
}

fn progress(state: &str) -> &'static str {
    match state {
        "starting" => "the new process starts; the old one serves",
        _ => "the new process opens the disks; the old one serves, and purges wait",
    }
}

fn describe(last: &Value) -> String {
    let process = |which: &str| {
        let process = &last[which];
        format!("{} (process {})", process["version"].as_str().unwrap_or("?"), process["pid"])
    };
    format!("Upgraded: {} serves in place of {}\n", process("to"), process("from"))
}

fn failure(last: &Value) -> Failure {
    let mut message = last["error"].as_str().unwrap_or("it failed").to_owned();
    for line in last["said"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        message.push_str(&format!("\n  it said: {}", crate::visible(line)));
    }
    Failure::new(message, "the old process serves on; correct this and upgrade again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_said_in_words() {
        let done = json!({
            "id": "7-1", "state": "done",
            "from": { "version": "0.1.0", "pid": 7 }, "to": { "version": "0.2.0", "pid": 9 },
        });
        assert_eq!(describe(&done), "Upgraded: 0.2.0 (process 9) serves in place of 0.1.0 (process 7)\n");
        let failed = json!({ "state": "failed", "error": "it ended", "said": ["error: no", "\u{1b}[2J"] });
        assert_eq!(
            failure(&failed).to_string(),
            "error: it ended\n  it said: error: no\n  it said: \u{fffd}[2J\n  next: the old process serves on; \
             correct this and upgrade again"
        );
    }
}
