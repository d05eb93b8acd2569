//! `perigee explain`: how a running edge would answer a request now, in the order in which it decides.

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use crate::failure::Failure;
use crate::purge::Edge;
use crate::visible;
use client::push_query;

const EXAMPLES: &str = "\
Examples:
  perigee explain http://127.0.0.1:8080/
  perigee explain https://www.shop.example/a.css --header 'Accept-Encoding: br'
  perigee explain https://www.shop.example/cart --method POST --json";

/// `perigee explain`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// The URL as a visitor would ask for it
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    url: String,
    /// A header line of the request; may be given several times
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The request's method
    #[arg(long, default_value = "GET")]
    method: String,
    #[command(flatten)]
    edge: Edge,
    /// Print the edge's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Asks and prints.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut target = "/v1/explain".to_owned();
        push_query(&mut target, "url", &self.url);
        push_query(&mut target, "method", &self.method);
        self.header.iter().for_each(|line| push_query(&mut target, "header", line));
        let answer = self.edge.client()?.fetch(&target)?;
        crate::print(&if self.json { format!("{answer:#}\n") } else { describe(&answer) })
    }
}

fn describe(answer: &Value) -> String {
    let mut out = String::new();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut line = |label: &str, value: String| {
        // Writing into memory cannot fail.
        let _ = writeln!(out, "{label:<12}{}", visible(&value));
    };
    line("request", format!("{} {}", text(&answer["method"]), text(&answer["url"])));
    line("site", format!("{}{}", text(&answer["site"]["name"]), at_line(&answer["site"])));
    let rule = &answer["rule"];
    line("rule", format!("{}{}", text(&rule["name"]), at_line(rule)));
    let origins: Vec<String> = answer["origins"].as_array().into_iter().flatten().map(text).collect();
    line("origin", origins.join(", then "));
    let tiers: Vec<String> = answer["tiers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|tier| format!("{} ({})", text(&tier["node"]), text(&tier["as"])))
        .collect();
    if !tiers.is_empty() {
        line("asks first", tiers.join(", then "));
    }
    for (index, budget) in answer["budget"]["origins"].as_array().into_iter().flatten().enumerate() {
        let (allowed, used) = (&budget["allowed"], &budget["used"]);
        let rate = format!("{} of {} requests", used["requests_per_second"], allowed["requests_per_second"]);
        let in_flight = format!("{} of {} in flight", used["in_flight"], allowed["in_flight"]);
        let rest = format!("{} waiting, {} refused", budget["waiting"], budget["refused"]);
        let told = format!("{}: {rate} in the last second, {in_flight}, {rest}", text(&budget["origin"]));
        line(if index == 0 { "budget" } else { "" }, told);
    }
    if let Some(content) = answer["budget"]["content"].as_str() {
        line("", format!("of the class {content}, before or after others when it is used up"));
    }
    if let Some(redirect) = answer.get("redirect") {
        line("redirect", format!("{} to {}", redirect["status"], text(&redirect["location"])));
    }
    for (index, part) in answer["key"].as_array().into_iter().flatten().enumerate() {
        line(if index == 0 { "key" } else { "" }, text(part));
    }
    if let Some(variant) = answer.get("variant") {
        let lists = variant["vary"].as_array().into_iter().flatten();
        for (index, list) in lists.enumerate() {
            let names: Vec<String> = list["names"].as_array().into_iter().flatten().map(text).collect();
            let before = if index == 0 { "Vary names" } else { "before, Vary named" };
            line(if index == 0 { "variant" } else { "" }, format!("{before} {}", names.join(", ")));
            list["values"].as_array().into_iter().flatten().for_each(|value| line("", text(value)));
        }
        line("", format!("key {}", text(&variant["key_hash"])));
    }
    match answer.get("stored") {
        None => line("stored", "nothing that may answer this request".into()),
        Some(stored) => {
            let bytes =
                stored["body_bytes"].as_u64().map_or("parts only".into(), |bytes| format!("{bytes} bytes"));
            let slices = &stored["slices"];
            let place = match (stored["head_in"].as_str(), slices.is_object()) {
                (Some("disk"), true) => ", head on disk",
                (Some(_), true) => ", head in memory",
                (Some("disk"), false) => ", on disk",
                (Some(_), false) => ", in memory",
                (None, _) => "",
            };
            let (status, key) = (&stored["status"], text(&stored["key_hash"]));
            line("stored", format!("status {status}, {bytes}{place}, key {key}"));
            if slices.is_object() {
                line("", format!("slices on disk: {} of {}", slices["on_disk"], slices["of"]));
            }
            for copy in stored["copies"].as_array().into_iter().flatten() {
                let (coding, effort, place) =
                    (text(&copy["coding"]), text(&copy["effort"]), text(&copy["in"]));
                line("", format!("copy in {coding}: {} bytes, {effort}, in {place}", copy["bytes"]));
            }
            for (name, value) in stored["fields"].as_object().into_iter().flatten() {
                line("", format!("{name}: {}", text(value)));
            }
        }
    }
    if let Some(freshness) = answer.get("freshness") {
        line("freshness", text(&freshness["sum"]));
        let number = |name: &str| freshness[name].as_u64().unwrap_or(0);
        let on_failure = match (number("stale_if_error"), number("stale_if_unreachable")) {
            (0, 0) => "never in place of an error".to_owned(),
            (0, secs) => {
                format!("{secs} s while no connection to the origin can be had, not for its error answers")
            }
            (secs, _) => format!("stale-if-error {secs} s"),
        };
        let revalidate = number("stale_while_revalidate");
        line("then stale", format!("stale-while-revalidate {revalidate} s; {on_failure}"));
    }
    let decision = &answer["decision"];
    line(
        "why",
        format!(
            "{} ({}): {}",
            text(&decision["why"]),
            text(&decision["outcome"]),
            text(&decision["sentence"])
        ),
    );
    out
}

fn at_line(place: &Value) -> String {
    match place["line"].as_u64() {
        None | Some(0) => String::new(),
        Some(line) => format!(" (line {line} of the configuration)"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_explanation_reads_from_request_to_why() {
        let answer = json!({
            "method": "GET", "url": "http://a/x",
            "site": { "name": "shop", "line": 3 }, "rule": { "name": "rule 1", "line": 9 },
            "origins": ["http://o1", "http://o2"],
            "tiers": [{ "as": "peer", "node": "fra-2" }, { "as": "shield", "node": "ams-1" }],
            "budget": { "content": "page", "origins": [{
                "origin": "http://o1", "waiting": 3, "refused": 4,
                "allowed": { "requests_per_second": 200, "in_flight": 50 },
                "used": { "requests_per_second": 12, "in_flight": 5 },
            }] },
            "key": ["site 4:shop", "host 1:a"],
            "variant": { "key_hash": "0f", "vary": [
                { "names": ["accept-encoding", "x"], "values": ["vary accept-encoding 2:br", "vary x -"] },
                { "names": ["y"], "values": ["vary y 1:1"] },
            ] },
            "stored": { "status": 200, "body_bytes": 12, "key_hash": "0f", "fields": { "etag": "\"x\u{1b}[2J\"" } },
            "freshness": { "sum": "lifetime 60 s - age 12 s = 48 s", "stale_while_revalidate": 5, "stale_if_error": 7 },
            "decision": { "why": "fresh", "outcome": "hit", "sentence": "A fresh stored response answered." },
        });
        let wanted = "\
request     GET http://a/x
site        shop (line 3 of the configuration)
rule        rule 1 (line 9 of the configuration)
origin      http://o1, then http://o2
asks first  fra-2 (peer), then ams-1 (shield)
budget      http://o1: 12 of 200 requests in the last second, 5 of 50 in flight, 3 waiting, 4 refused
            of the class page, before or after others when it is used up
key         site 4:shop
            host 1:a
variant     Vary names accept-encoding, x
            vary accept-encoding 2:br
            vary x -
            before, Vary named y
            vary y 1:1
            key 0f
stored      status 200, 12 bytes, key 0f
            etag: \"x\u{fffd}[2J\"
freshness   lifetime 60 s - age 12 s = 48 s
then stale  stale-while-revalidate 5 s; stale-if-error 7 s
why         fresh (hit): A fresh stored response answered.
";
        assert_eq!(describe(&answer), wanted);
    }

    #[test]
    fn where_a_stored_response_lies_is_said_as_far_as_the_edge_says_it() {
        let check = |place: Value, wanted: &str| {
            let mut answer = json!({ "stored": { "status": 200, "body_bytes": 9, "key_hash": "0f" } });
            answer["stored"].as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
            let said = describe(&answer);
            assert!(said.contains(wanted), "{said}");
        };
        check(json!({}), "9 bytes, key 0f\n");
        check(json!({ "head_in": "memory" }), "9 bytes, in memory, key 0f\n");
        check(json!({ "head_in": "disk" }), "9 bytes, on disk, key 0f\n");
        let slices = json!({ "on_disk": 3, "of": 10 });
        check(
            json!({ "head_in": "disk", "slices": slices }),
            "9 bytes, head on disk, key 0f\n            slices on disk: 3 of 10\n",
        );
        check(json!({ "head_in": "memory", "slices": slices }), "9 bytes, head in memory, key 0f\n");
    }
}
