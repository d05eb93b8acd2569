//! `replay` and `advise` from outside: on the log of a real edge, and on logs that are made here.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use world::cluster::{Cluster, Shape};
use world::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(30);

fn perigee(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perigee")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An origin whose paths say what it answers.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let target = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or("/").to_owned();
                    let more = match target.split('/').nth(1).unwrap_or_default() {
                        "cookie" => "Cache-Control: max-age=600\r\nSet-Cookie: session=secret\r\n",
                        "vary" => "Cache-Control: max-age=600\r\nVary: X-Lang\r\n",
                        "silent" => "",
                        _ => "Cache-Control: max-age=600\r\nETag: \"1\"\r\n",
                    };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/css\r\nContent-Length: 500\r\n{more}\r\n{}",
                        "x".repeat(500)
                    );
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    head.clear();
                }
            });
        }
    });
    address
}

/// Starts an edge, asks it for these one after the other, stops it, and returns its log.
fn record(scratch: &Scratch, config: &str, asked: &[(String, &str)]) -> String {
    let log = scratch.path("access.log");
    let ready = scratch.path("edge.out");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut edge = Command::new(env!("CARGO_BIN_EXE_perigee"))
        .args([
            "serve",
            "--config",
            config,
            "--state",
            &scratch.path("state"),
            "--admin",
            "off",
            "--listen",
            &port.to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&ready).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + PATIENCE;
    let mut stream = loop {
        match TcpStream::connect(port) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < until, "the edge does not listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for (target, more) in asked {
        write!(stream, "GET {target} HTTP/1.1\r\nHost: shop.test\r\n{more}\r\n").unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).to_lowercase();
        let length =
            text.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; length]).unwrap();
    }
    drop(stream);
    let lines = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let until = Instant::now() + PATIENCE;
    while lines() < asked.len() {
        assert!(Instant::now() < until, "{} of {} lines", lines(), asked.len());
        std::thread::sleep(Duration::from_millis(50));
    }
    edge.kill().unwrap();
    edge.wait().unwrap();
    log
}

fn config(scratch: &Scratch, name: &str, origin: SocketAddr, site: &str) -> String {
    let text = format!(
        "[edge]\naccess_log = \"{}\"\n[[site]]\nname = \"shop\"\ndomains = [\"shop.test\"]\norigin = \"http://{origin}\"\n{site}",
        scratch.path("access.log")
    );
    scratch.file(name, &text)
}

/// Requests of every kind, each several times.
fn asked() -> Vec<(String, &'static str)> {
    let mut asked = Vec::new();
    for round in 0..12 {
        for number in 0..6 {
            asked.push((format!("/plain/{number}.css?utm_source={round}"), ""));
            asked.push((format!("/cookie/{number}.css"), ""));
            asked.push((format!("/silent/{number}.css"), ""));
            asked.push((format!("/vary/{number}.css"), ["X-Lang: de\r\n", "X-Lang: en\r\n"][round % 2]));
        }
    }
    asked
}

#[test]
fn the_log_of_an_edge_predicts_what_another_configuration_does() {
    let (scratch, origin) = (Scratch::new("predict"), origin());
    let plain = config(&scratch, "plain.toml", origin, "");
    let log = record(&scratch, &plain, &asked());
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("\"selected_by\":{\"x-lang\":\"") && text.contains("\"set-cookie\":\"1\""),
        "{text}"
    );
    assert!(!text.contains("secret") && !text.contains("session"), "no cookie's value is logged");

    // Under the same configuration: what happened.
    let report = &json(&perigee(&["replay", "--log", &log, "--config", &plain, "--json"]))["report"];
    let (recorded, predicted) = (&report["recorded"], &report["predicted"][0]);
    assert_eq!(predicted["whys"], recorded["whys"]);
    assert_eq!(predicted["origin_requests"], recorded["origin_requests"]);

    // Under another one: what then happens.
    let rules = "query = { drop = [\"utm_*\"] }\n[[site.rule]]\npath = \"/cookie/*\"\nset_cookie = \"strip\"\n\
                 [[site.rule]]\npath = \"/silent/*\"\nttl = \"1h\"\n[[site.rule]]\npath = \"/vary/*\"\nvary = { \"x-lang\" = \"presence\" }\n";
    let draft = config(&scratch, "draft.toml", origin, rules);
    let kept = scratch.path("kept.log");
    fs::rename(&log, &kept).unwrap();
    let again = record(&scratch, &draft, &asked());
    let report =
        |log: &str| json(&perigee(&["replay", "--log", log, "--config", &draft, "--json"]))["report"].clone();
    let (predicted, measured) =
        (report(&kept)["predicted"][0]["whys"].clone(), report(&again)["recorded"]["whys"].clone());
    assert_eq!(predicted, measured);
    let said = perigee(&["replay", "--log", &kept, "--config", &draft, "--against", &plain]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("Answers that change") && said.contains("passed → cached"), "{said}");

    // And the advisor finds these four by itself, and the first one keeps its word.
    let proposals = json(&perigee(&["advise", "--log", &kept, "--config", &plain, "--json"]));
    let faults: Vec<&str> = (proposals["proposals"].as_array().unwrap().iter())
        .flat_map(|one| one["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()))
        .collect();
    for wanted in ["query-noise", "set-cookie", "missing-ttl", "useless-vary"] {
        assert!(faults.contains(&wanted), "{faults:?}");
    }
    let saved = scratch.file("proposals.json", proposals.to_string());
    let drafted = perigee(&["advise", "--log", &kept, "--config", &plain, "--draft", "1"]);
    let better = scratch.file("better.toml", &drafted.stdout);
    fs::remove_file(&again).unwrap();
    let later = record(&scratch, &better, &asked());
    let verified = perigee(&["advise", "--verify", &saved, "--only", "1", "--log", &later]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && said.contains("as predicted"), "{said}");
    let verified = perigee(&["advise", "--verify", &saved, "--only", "1", "--log", &kept]);
    assert_eq!(verified.status.code(), Some(1), "what was not applied has not helped");
}

#[test]
fn control_keeps_advice_for_its_dashboard_and_what_came_of_it() {
    let shape = Shape { etcd: 0, controls: 1, edges: 1, relayed: 0, disks: false };
    let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_perigee")), shape);
    let (scratch, origin) = (Scratch::new("advice"), origin());
    let site =
        format!("[[site]]\nname = \"shop\"\ndomains = [\"shop.test\"]\norigin = \"http://{origin}\"\n");
    cluster.apply(&site);
    let refused = cluster.try_perigee(0, &["advise", "--verify", "--report", "--log", "/nowhere"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nobody has reported any advice"));

    let plain = config(&scratch, "plain.toml", origin, "");
    let log = record(&scratch, &plain, &asked());
    let told = cluster.perigee(&["advise", "--log", &log, "--report", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let proposals = told["proposals"].as_array().unwrap();
    let silent = proposals.iter().find(|one| one["faults"][0] == "missing-ttl").unwrap();
    let number = silent["number"].to_string();

    // What it is applied to is the text that the cluster runs, by whoever looks at the dashboard.
    if browser::find().is_some() {
        open_in_the_editor(&cluster, &number, silent["change"].as_str().unwrap());
    } else {
        eprintln!("no Chromium is installed: the dashboard was not tested");
    }

    let drafted = perigee(&["advise", "--log", &log, "--config", &plain, "--draft", &number]);
    let better = scratch.file("better.toml", &drafted.stdout);
    fs::remove_file(&log).unwrap();
    let later = record(&scratch, &better, &asked());
    let verify = ["advise", "--verify", "--report", "--only", &number, "--log", &later, "--json"];
    let verdicts: Value = serde_json::from_str(&cluster.perigee(&verify)).unwrap();
    assert_eq!(verdicts["verdicts"][0]["verdict"], "kept", "{verdicts}");
    let elsewhere = cluster.try_perigee(0, &["advise", "--log", &later, "--config", &plain, "--report"]);
    assert_eq!(elsewhere.status.code(), Some(2), "another configuration than the cluster's is not reported");
}

/// Goes from the reasons of misses to a proposal, and from there to the editor: which has the lines, and has found them good.
fn open_in_the_editor(cluster: &Cluster, number: &str, change: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = browser::Options { takes_any_certificate: true, ..browser::Options::default() };
        let browser = browser::Browser::launch(&options).await.unwrap();
        let page = browser.new_page().await.unwrap();
        let url = format!("{}/dashboard/why#token={}", cluster.control_urls()[0], cluster.access().1);
        page.call("Page.navigate", serde_json::json!({ "url": url })).await.unwrap();
        let until = Instant::now() + PATIENCE * 2;
        let when = async |what: &str, script: &str| loop {
            match page.evaluate(script).await {
                Ok(found) if found != false && !found.is_null() => return found,
                found => {
                    let text = page.evaluate("document.body.innerText").await;
                    assert!(Instant::now() < until, "it never came that {what}: {found:?}, {text:?}");
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let open = format!(
            "(found => found && (found.click(), true))([...document.querySelectorAll('a.advice-open')].find(one => one.href.includes('advice={number}')))"
        );
        when("the proposal is there", &open).await;
        when("its lines are good", "document.getElementById('config-state')?.dataset.good === 'true' && document.getElementById('config-reason').value.startsWith('advice: ')").await;
        let text = when("they are in the text", "document.getElementById('config-text').value").await;
        let text = text.as_str().unwrap();
        assert!(change.lines().all(|line| text.contains(line)), "{change} is not in {text}");
        browser.close().await;
    });
}

#[test]
fn a_log_of_another_server_is_replayed_with_a_look_at_the_origin() {
    let (scratch, origin) = (Scratch::new("probe"), origin());
    let line = |path: &str| {
        format!("10.0.0.1 - - [23/Nov/2026:20:44:33 +0000] \"GET {path} HTTP/1.1\" 200 500 \"-\" \"x\"\n")
    };
    let log = scratch.file(
        "combined.log",
        &(line("/plain/x") + &line("/plain/x") + "nonsense\n" + &line("/silent/y.css")),
    );
    let plain = config(&scratch, "plain.toml", origin, "");
    let run = |more: &[&str]| {
        let arguments = [&["replay", "--log", &log, "--config", &plain], more].concat();
        String::from_utf8_lossy(&perigee(&arguments).stdout).into_owned()
    };
    let said = run(&[]);
    for words in [
        "1 of 4 lines could not be read",
        "combined.log:3: there is no [time]: nonsense",
        "Taken for granted",
    ] {
        assert!(said.contains(words), "{words} not in {said}");
    }
    // Without headers a page is not taken to be kept; the origin knows better.
    assert!(run(&["--json"]).contains("\"hits\": 0"));
    let probed = run(&["--json", "--probe", &format!("http://{origin}")]);
    assert!(probed.contains("\"fresh\": 1"), "{probed}");
}

#[test]
fn what_cannot_be_replayed_says_why() {
    let scratch = Scratch::new("refused");
    let good = config(&scratch, "good.toml", "127.0.0.1:9".parse().unwrap(), "");
    let bad = scratch.file("bad.toml", "[[site]]\nname = 1\n");
    let empty = scratch.file("empty.log", "\n");
    for (arguments, wanted) in [
        (vec!["replay", "--log", "/nowhere", "--config", &good], "/nowhere cannot be read"),
        (vec!["replay", "--log", &empty, "--config", &bad], "bad.toml cannot be used"),
        (vec!["replay", "--log", &empty, "--config", &good], "not one request"),
        (vec!["replay", "--log", &empty, "--config", &good, "--site", "b"], "there is no site \"b\""),
        (vec!["advise", "--log", &empty, "--config", &good], "not one request"),
        (vec!["advise", "--log", &empty, "--verify", &good], "holds no proposals"),
    ] {
        let output = perigee(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(wanted) && said.contains("next:"), "{arguments:?}: {said}");
    }
}
