//! `perigee certificates`: the certificates of a running edge, when they end, and what is in the way of new ones.

use std::fmt::Write;

use clap::Args;
use semantics::{Wall, date};
use serde_json::Value;

use crate::failure::Failure;
use crate::purge::Edge;
use crate::visible;

const EXAMPLES: &str = "\
Examples:
  perigee certificates
  perigee certificates --json | jq '.certificates[] | select(.failures > 0)'";

/// `perigee certificates`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Certificates {
    #[command(flatten)]
    edge: Edge,
    /// Print the edge's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Certificates {
    /// Asks and prints.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let answer = self.edge.client()?.fetch("/v1/certificates")?;
        crate::print(&if self.json { format!("{answer:#}\n") } else { table(&answer) })
    }
}

/// One certificate a line, and below it why the last order failed.
fn table(answer: &Value) -> String {
    let none = Vec::new();
    let certificates = answer["certificates"].as_array().unwrap_or(&none);
    if certificates.is_empty() {
        return "no certificates: neither [[certificate]] nor [acme] names one\n".to_owned();
    }
    let mut out = String::new();
    let mut line = |names: &str, source: &str, end: &str, next: &str, issuer: &str| {
        // Writing into memory cannot fail.
        let _ = writeln!(out, "{names:<32}  {source:<24}  {end:<29}  {next:<29}  {issuer}");
    };
    line("NAMES", "SOURCE", "ENDS", "NEXT ORDER", "ISSUER");
    let mut troubles = String::new();
    for one in certificates {
        let names: Vec<&str> =
            one["names"].as_array().unwrap_or(&none).iter().filter_map(Value::as_str).collect();
        let names = visible(&names.join(","));
        let when = |value: &Value, or: &str| {
            value.as_i64().map_or_else(|| or.to_owned(), |ms| date::format(Wall(ms)).as_str().to_owned())
        };
        let source = one["source"].as_str().unwrap_or("-");
        let next = if source == "acme" { when(&one["next_order_ms"], "now") } else { "-".to_owned() };
        let issuer = one["issuer"].as_str().unwrap_or("-");
        line(&names, &visible(source), &when(&one["not_after_ms"], "none yet"), &next, &visible(issuer));
        if let Some(error) = one["last_error"].as_str() {
            let _ = writeln!(troubles, "{names}: failed {} times: {}", one["failures"], visible(error));
        }
    }
    if !troubles.is_empty() {
        out.push('\n');
        out.push_str(&troubles);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_ends_and_what_is_in_the_way() {
        let answer = serde_json::json!({ "certificates": [
            { "names": ["a.example", "*.a.example"], "source": "/etc/a.pem", "issuer": "CN=Some", "not_after_ms": 1_000,
              "next_order_ms": null, "failures": 0, "last_error": null },
            { "names": ["b.example"], "source": "acme", "issuer": null, "not_after_ms": null, "next_order_ms": 60_000,
              "failures": 2, "last_error": "refused\u{1b}[2J" },
        ]});
        let text = table(&answer);
        for words in [
            "a.example,*.a.example             /etc/a.pem                Thu, 01 Jan 1970 00:00:01 GMT  -  ",
            "b.example                         acme                      none yet                       Thu, 01 Jan",
            "b.example: failed 2 times: refused\u{fffd}[2J\n",
        ] {
            assert!(text.contains(words), "{words:?} is not in:\n{text}");
        }
        assert!(table(&serde_json::json!({ "certificates": [] })).starts_with("no certificates"));
    }
}
