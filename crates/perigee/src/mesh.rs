//! `perigee mesh`: how long the links between PoPs are, as a running router knows them from edges' probes, and between which PoPs they are
//! shorter than can be.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use client::http;
use serde_json::Value;

use crate::address::parse_address;
use crate::failure::Failure;
use crate::router::ADMIN;
use crate::visible;

const EXAMPLES: &str = "\
Examples:
  perigee mesh
  perigee mesh --router 127.0.0.1:9053 --pop fra
  perigee mesh --json | jq -r '.links[].fault // empty'";

/// Time for the whole exchange.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Bytes of an answer that are read: a router shows a thousand links.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// `perigee mesh`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MeshArgs {
    /// Admin address of a router that is a node of the cluster
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, default_value = ADMIN)]
    router: SocketAddr,
    /// Only the links of this PoP
    #[arg(long, value_name = "POP", value_parser = parse_name)]
    pop: Option<String>,
    /// Print the router's answer as JSON
    #[arg(long)]
    json: bool,
}

impl MeshArgs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let answer = self.ask()?;
        crate::print(&if self.json { format!("{answer:#}\n") } else { table(&answer) })
    }

    fn ask(&self) -> Result<Value, Failure> {
        let failed = |what: String| {
            let next =
                "is a router's admin API there? Say --router HOST:PORT, as its own file or --admin has it";
            Failure::new(format!("router at {}: {what}", self.router), next)
        };
        let query = self.pop.as_ref().map_or_else(String::new, |pop| format!("?pop={pop}"));
        let request = format!("GET /v1/mesh{query} HTTP/1.0\r\nHost: {}\r\n\r\n", self.router);
        let answer = http::send(self.router, request.as_bytes(), ANSWER_BYTES_MAX, TIME_MAX);
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let (status, body) =
            http::parse_answer(&answer).map_err(|what| failed(format!("the answer {what}")))?;
        let body: Value = serde_json::from_slice(body).map_err(|_| {
            failed(format!("status {status}, and no JSON: a router without /v1/mesh, or none"))
        })?;
        if status != 200 {
            return Err(client::Error::refused(status, &body).into());
        }
        match body["links"].is_array() {
            true => Ok(body),
            false => Err(failed("the answer has no links".to_owned())),
        }
    }
}

/// Such as need no encoding in a URL.
fn parse_name(text: &str) -> Result<String, String> {
    match trust::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("no PoP has such a name; wanted letters, digits, '-', '_' and '.'".to_owned()),
    }
}

/// One link a line, and below them what cannot be.
fn table(answer: &Value) -> String {
    let none = Vec::new();
    let links = answer["links"].as_array().unwrap_or(&none);
    if links.is_empty() {
        return "no links are known: edges of a cluster tell a router of theirs, within some seconds, if they name their pop and probes are not off; \
                nobody tells a router without a cluster, and edges or controls of an older version don't say how long probes take\n"
            .to_owned();
    }
    let mut out = format!("{:<32}  {:>10}  {:>9}  {:>8}\n", "LINK", "ROUND TRIP", "LIGHT", "APART");
    let or_none = |value: &Value, decimals: usize, unit: &str| {
        value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$} {unit}"))
    };
    for link in links {
        let [one, other] = [0, 1].map(|end| visible(link["pops"][end].as_str().unwrap_or("?")));
        let mark = if link["fault"].is_null() { "" } else { "  faster than light" };
        // Writing into memory cannot fail.
        let _ = writeln!(
            out,
            "{:<32}  {:>10}  {:>9}  {:>8}{mark}",
            format!("{one} {other}"),
            or_none(&link["rtt_ms"], 1, "ms"),
            or_none(&link["light_ms"], 1, "ms"),
            or_none(&link["km"], 0, "km"),
        );
    }
    let count = answer["count"].as_u64().unwrap_or_default();
    if count > links.len() as u64 {
        let _ = writeln!(out, "… and {} more; --pop shows those of one PoP", count - links.len() as u64);
    }
    for fault in links.iter().filter_map(|link| link["fault"].as_str()) {
        let _ = writeln!(out, "\n{}", visible(fault));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_without_links_is_not_taken_for_one_that_knows_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let router = listener.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // What is not read of the request could cut the answer off.
            let _ = stream.read(&mut [0; 1024]).unwrap();
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{{\"ways\":[]}}").unwrap();
        });
        let failure = MeshArgs { router, pop: None, json: false }.ask().unwrap_err().to_string();
        answering.join().unwrap();
        assert!(failure.contains(&format!("router at {router}: the answer has no links")), "{failure}");
    }

    #[test]
    fn a_table_shows_each_link_and_says_what_cannot_be() {
        let answer = serde_json::json!({ "count": 3, "links": [
            { "pops": ["fra", "nrt"], "rtt_ms": 3.12, "km": 9353.0, "light_ms": 93.53, "fault": "PoPs fra and nrt\u{1b}[2J" },
            { "pops": ["fra", "other"], "rtt_ms": 12.0, "km": null, "light_ms": null, "fault": null },
        ]});
        assert_eq!(
            table(&answer),
            "LINK                              ROUND TRIP      LIGHT     APART\n\
             fra nrt                               3.1 ms    93.5 ms   9353 km  faster than light\n\
             fra other                            12.0 ms          -         -\n\
             … and 1 more; --pop shows those of one PoP\n\
             \nPoPs fra and nrt\u{fffd}[2J\n"
        );
        assert!(table(&serde_json::json!({ "links": [], "count": 0 })).starts_with("no links are known"));
    }
}
