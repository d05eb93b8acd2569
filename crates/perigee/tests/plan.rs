//! `plan` from outside: from shares and from a log, estimated and measured, and what it writes.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use world::scratch::Scratch;

fn perigee(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perigee")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&text(output)).unwrap()
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A PoP in Frankfurt; visitors near it, and near Tokyo.
const CLUSTER: &str = "[[pop]]\nname = \"fra\"\nlocation = \"FRA\"\nedges = \"203.0.113.10\"\n\
    [[site]]\nname = \"shop\"\ndomains = \"www.shop.example\"\norigin = \"http://o.example\"\n";

fn location(scratch: &Scratch) -> String {
    let list = scratch.file("list.csv", "198.51.100.0/24,50.1 8.7,DE\n203.0.113.0/24,35.7 139.7,JP\n");
    let made = scratch.path("location.geo");
    text(&perigee(&["geo", "build", "--list", &list, "--output", &made]));
    made
}

#[test]
fn shares_give_a_plan_that_says_it_is_estimated() {
    let scratch = Scratch::new("shares");
    let shares = scratch.file("shares.csv", "country,share\nDE,50\nJP,30\nUS,20\n");
    let html = scratch.path("plan.html");
    let words =
        text(&perigee(&["plan", "--countries", &shares, "--origin", "FRA", "--up-to", "4", "--html", &html]));
    for wanted in [
        "Today   all from Frankfurt (FRA): mean",
        "(estimated)",
        "Round trips are estimates: 10 ms and 1 ms per 54 km",
        "an assumption of Perigee's authors, not an offer",
        "the traffic is not known",
    ] {
        assert!(words.contains(wanted), "{wanted:?} in\n{words}");
    }
    let plan = json(&perigee(&["plan", "--countries", &shares, "--origin", "FRA", "--up-to", "4", "--json"]));
    let steps = plan["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 4);
    let means: Vec<f64> = steps.iter().map(|step| step["mean_ms"].as_f64().unwrap()).collect();
    assert!(means.is_sorted_by(|a, b| a > b), "{means:?}");
    assert!(steps.iter().all(|step| step["is_proven_best"] == true && step["measured"] == 0.0));
    let one = json(&perigee(&["plan", "--countries", &shares, "--places", "FRA", "--json"]));
    assert_eq!(one["plan"]["pops"][0]["name"], "FRA", "one is better than none");
    let networks = plan["networks"].as_array().unwrap();
    assert!(networks.iter().all(|one| one["as_of"].as_str().unwrap().starts_with("202")));
    let page = fs::read_to_string(html).unwrap();
    for wanted in
        ["<svg class=\"map\"", "<title>JP: 30 %</title>", "estimated", "What to build, in this order"]
    {
        assert!(page.contains(wanted), "{wanted:?}");
    }
    assert!(
        !page.contains("<script") && !page.contains("http://") && !page.contains(" src="),
        "it needs nothing else"
    );
}

#[test]
fn a_log_is_located_and_today_is_what_the_configuration_has() {
    let scratch = Scratch::new("log");
    let location = location(&scratch);
    let config = scratch.file("cluster.toml", CLUSTER);
    let line = |client: &str, minute: u32| {
        format!(
            "{client} - - [23/Nov/2026:20:{minute:02}:33 +0000] \"GET / HTTP/1.1\" 200 1000000 \"-\" \"x\"\n"
        )
    };
    let lines = [("198.51.100.7", 1), ("203.0.113.9", 2), ("203.0.113.10", 3), ("192.0.2.1", 4)];
    let log = scratch.file("access.log", lines.map(|(client, minute)| line(client, minute)).concat());
    let out = scratch.path("pops.toml");
    let arguments =
        ["plan", "--log", &log, "--location", &location, "--config", &config, "--pops", "1", "--json"];
    let plan = json(&perigee(&[&arguments[..], &["--out", &out]].concat()));
    assert_eq!((&plan["demand"]["requests"], &plan["demand"]["unlocated"]), (&4.into(), &0.25.into()));
    assert_eq!(plan["today"]["what"], "1 PoP");
    let pops = plan["plan"]["pops"].as_array().unwrap();
    assert_eq!(
        (&pops[0]["name"], &pops[1]["name"], &pops[1]["is_new"]),
        (&"fra".into(), &"NRT".into(), &true.into())
    );
    assert_eq!(pops[1]["loss"]["busiest"], "fra");
    let written = fs::read_to_string(&out).unwrap();
    assert!(
        written.starts_with(CLUSTER.trim_end()) && written.contains("name = \"nrt\"\nlocation = \"NRT\""),
        "{written}"
    );
    text(&perigee(&["check", "--cluster", &out]));
}

#[test]
fn what_the_pops_cost_adds_up_to_what_all_costs() {
    let scratch = Scratch::new("costs");
    let config = scratch.file("cluster.toml", CLUSTER);
    let shares = scratch.file("shares.csv", "DE,50\nJP,50\n");
    let plan = ["plan", "--countries", &shares, "--config", &config, "--pops", "2", "--traffic", "1000000"];
    let plan = json(&perigee(&[&plan[..], &["--json"]].concat()));
    let column = plan["plan"]["pops"].as_array().unwrap().iter().map(|pop| pop["cost"].as_f64().unwrap());
    let all = plan["today"]["cost"].as_f64().unwrap() + plan["plan"]["cost"].as_f64().unwrap();
    assert!((column.sum::<f64>() - all).abs() < 0.01, "{plan}");
}

#[test]
fn a_report_that_cannot_be_written_leaves_the_old_one() {
    let scratch = Scratch::new("full");
    let shares = scratch.file("shares.csv", "DE,50\n");
    let html = scratch.file("plan.html", "the old one");
    // The file may be half a kilobyte long.
    let limited = "trap '' XFSZ; ulimit -f 1; exec \"$@\"";
    let plan = [env!("CARGO_BIN_EXE_perigee"), "plan", "--countries", &shares, "--html", &html];
    let output = Command::new("sh").args(["-c", limited, "sh"]).args(plan).output().unwrap();
    let told = refusal(&output);
    assert!(told.contains(&format!("{html} cannot be written: ")), "{told}");
    assert_eq!(fs::read_to_string(&html).unwrap(), "the old one");
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2, "nothing is left beside it");
}

#[test]
fn measured_round_trips_take_the_place_of_estimates() {
    let scratch = Scratch::new("measured");
    let location = location(&scratch);
    let config = scratch.file("cluster.toml", CLUSTER);
    let shares = scratch.file("shares.csv", "DE,50\nJP,50\n");
    let samples = scratch.file(
        "samples.json",
        r#"{"samples": [{"network": "203.0.113.0", "pop": "fra", "count": 50, "sum_ms": 15000},
            {"network": "203.0.113.0", "pop": "fra", "count": 1, "sum_ms": 1}, {"network": "203.0.113.0", "pop": "syd", "count": 1, "sum_ms": 90}]}"#,
    );
    let base = [
        "plan",
        "--countries",
        &shares,
        "--config",
        &config,
        "--location",
        &location,
        "--pops",
        "1",
        "--json",
    ];
    let estimated = json(&perigee(&base));
    let measured = json(&perigee(&[&base[..], &["--measured", &samples]].concat()));
    assert_eq!(measured["round_trips"]["measured"]["taken"], 50);
    assert_eq!(measured["round_trips"]["measured"]["refused"], 2, "faster than light, and of no known PoP");
    let mean = |plan: &Value| plan["today"]["mean_ms"].as_f64().unwrap();
    assert!(mean(&measured) > mean(&estimated) + 20.0, "{} {}", mean(&measured), mean(&estimated));
    let part = |plan: &Value| plan["today"]["measured"].as_f64().unwrap();
    assert!(part(&estimated) == 0.0 && (part(&measured) - 0.5).abs() < 0.01, "Japan's half");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let scratch = Scratch::new("wrong");
    let shares = scratch.file("shares.csv", "DE,50\nJapan,30\nUS,x\n");
    let told = refusal(&perigee(&["plan", "--countries", &shares]));
    assert!(
        told.contains("shares.csv:2: \"JAPAN\" is no country")
            && told.contains("shares.csv:3: the share \"x\""),
        "{told}"
    );
    let good = scratch.file("good.csv", "DE,50\n");
    let prices = scratch.path("prices.toml");
    text(&perigee(&["plan", "--prices-out", &prices]));
    let table = fs::read_to_string(&prices).unwrap();
    fs::write(&prices, table.replacen("month = 250", "month = \"dear\"", 1)).unwrap();
    let told = refusal(&perigee(&["plan", "--countries", &good, "--prices", &prices]));
    assert!(told.contains("prices.toml: ") && told.contains("line 8"), "{told}");
    let told = refusal(&perigee(&["plan", "--countries", &good, "--places", "FRA,nowhere"]));
    assert!(told.contains("\"nowhere\" is no airport's code"), "{told}");
    let told = refusal(&perigee(&["plan", "--countries", &good, "--budget", "5"]));
    assert!(told.contains("no PoP can be had for 5 EUR a month"), "{told}");
    let config = scratch.file("cluster.toml", CLUSTER);
    let told = refusal(&perigee(&["plan", "--countries", &good, "--config", &config, "--places", "JFK"]));
    assert!(told.contains("none of the places is nearer to anybody") && told.contains("--places"), "{told}");
}
