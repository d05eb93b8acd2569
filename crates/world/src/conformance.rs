//! Runs the public HTTP cache-tests definitions (365 tests for proxies) against a proxy and counts what passes.
//!
//! ```text
//! player ── request ──► proxy under test ──► origin (scripted)        one connection per request, about 100 tests at once
//!    └──── judges the response and what the origin saw ────┘
//! ```
//!
//! The rules of judging are those of the public harness, so the counts compare with what it gives for other caches.
//! In one place they are stricter: a hop-by-hop field that must not be stored is looked for, where the harness forgets to.
//! The definitions are not part of this repository; without them the run says so and is skipped.

mod definition;
mod origin;
mod player;
mod proxy;
mod results;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use definition::{Group, Kind, Test};
use origin::Scripts;
use player::{Failure, Stage};
use proxy::{Mode, Proxy};
use results::{Accepted, Results};

/// Tests under way at once against one proxy.
const CONCURRENT: usize = 100;

/// Ids that are accepted as not passing, with their mode.
const ACCEPTED: &str = include_str!("../conformance.expected");

const USAGE: &str = "\
usage: conformance --perigee BINARY | --proxy ADDR --origin-port PORT   [--only ID[,ID…]] [-v]
  --perigee BINARY     start BINARY three times (set_cookie = \"rfc9111\", defaults, and with a disk) and test all
  --proxy ADDR         test a proxy that is already running before 127.0.0.1:PORT
  --only ID[,ID…]      only these tests, with every message
  -v                   every message of the tests that do not pass
The definitions come from PERIGEE_CACHE_TESTS or ../shared/conformance/cache-tests.json beside the repository.";

struct Arguments {
    perigee: Option<PathBuf>,
    proxy: Option<String>,
    origin_port: u16,
    only: Vec<String>,
    verbose: bool,
}

/// The whole program: arguments without the program's name in, exit code out. 0: nothing dropped, or skipped;
/// 1: a test that is not accepted as failing failed; 2: could not run.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Some(path) = definitions_path() else {
        println!("conformance: skipped: no definitions (set PERIGEE_CACHE_TESTS to a cache-tests.json)");
        return ExitCode::SUCCESS;
    };
    let groups = match definition::load(&path) {
        Ok(groups) => groups,
        Err(message) => {
            eprintln!("conformance: {message}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("conformance: no runtime: {error}");
            return ExitCode::from(2);
        }
    };
    match tokio::task::LocalSet::new().block_on(&runtime, test(&arguments, &groups)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("conformance: {message}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments =
        Arguments { perigee: None, proxy: None, origin_port: 0, only: Vec::new(), verbose: false };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--perigee" => arguments.perigee = Some(value()?.into()),
            "--proxy" => arguments.proxy = Some(value()?),
            "--origin-port" => {
                arguments.origin_port =
                    value()?.parse().map_err(|_| "--origin-port is a number".to_owned())?;
            }
            "--only" => arguments.only = value()?.split(',').map(str::to_owned).collect(),
            "-v" => arguments.verbose = true,
            other => return Err(format!("what is {other}?")),
        }
    }
    match (&arguments.perigee, &arguments.proxy) {
        (Some(_), None) | (None, Some(_)) => Ok(arguments),
        _ => Err("one of --perigee and --proxy is needed".to_owned()),
    }
}

/// `PERIGEE_CACHE_TESTS`, or the file beside the repository; `None` when neither is there.
fn definitions_path() -> Option<PathBuf> {
    let beside =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/cache-tests.json");
    let path = std::env::var_os("PERIGEE_CACHE_TESTS").map_or_else(beside, PathBuf::from);
    path.exists().then_some(path)
}

async fn test(arguments: &Arguments, groups: &[Group]) -> Result<bool, String> {
    let listener = TcpListener::bind(("127.0.0.1", arguments.origin_port)).await;
    let listener = listener.map_err(|error| format!("origin on port {}: {error}", arguments.origin_port))?;
    let origin = listener.local_addr().map_err(|error| error.to_string())?.to_string();
    let scripts = Scripts::default();
    tokio::task::spawn_local(origin::run(listener, scripts.clone()));
    let Some(binary) = &arguments.perigee else {
        let address = arguments.proxy.clone().unwrap_or_default();
        let results = play_all(arguments, groups, &scripts, address).await;
        report(arguments, "proxy", &results);
        println!("RESULT {}", counts(&results, ""));
        return Ok(true);
    };
    let mut rfc9111 = Proxy::start(binary, &origin, Mode::Rfc9111).await?;
    let mut default = Proxy::start(binary, &origin, Mode::Default).await?;
    let mut disk = Proxy::start(binary, &origin, Mode::Disk).await?;
    let (with_cookies, with_defaults) = tokio::join!(
        play_all(arguments, groups, &scripts, rfc9111.address.clone()),
        play_all(arguments, groups, &scripts, default.address.clone()),
    );
    // By itself: many tests are about single seconds, and three proxies at once make a small machine miss them.
    let with_disk = play_all(arguments, groups, &scripts, disk.address.clone()).await;
    let proxies = [(Mode::Rfc9111, &mut rfc9111), (Mode::Default, &mut default), (Mode::Disk, &mut disk)];
    for (mode, proxy) in proxies {
        if !proxy.is_running() {
            return Err(format!("the proxy ({}) ended during the run:\n{}", mode.as_str(), proxy.output()));
        }
    }
    report(arguments, Mode::Rfc9111.as_str(), &with_cookies);
    report(arguments, Mode::Default.as_str(), &with_defaults);
    report(arguments, Mode::Disk.as_str(), &with_disk);
    let mut held = true;
    if arguments.only.is_empty() {
        let accepted = Accepted::parse(ACCEPTED).map_err(|error| format!("conformance.expected: {error}"))?;
        let all = [(Mode::Rfc9111, &with_cookies), (Mode::Default, &with_defaults), (Mode::Disk, &with_disk)];
        for (mode, results) in all {
            let (drops, stale) = accepted.compare(mode.as_str(), &results.not_passed());
            for id in &drops {
                println!("DROP {} {id}: not in conformance.expected", mode.as_str());
            }
            for id in &stale {
                println!("NOTE {} {id} passes now: take it out of conformance.expected", mode.as_str());
            }
            held &= drops.is_empty();
        }
    }
    let tested = [(&with_defaults, "default_"), (&with_disk, "disk_")].map(|(results, prefix)| {
        let counts = counts(results, prefix);
        counts.split(&format!(" {prefix}check")).next().unwrap_or_default().to_owned()
    });
    println!("RESULT {} {}", counts(&with_cookies, ""), tested.join(" "));
    Ok(held)
}

async fn play_all<'a>(
    arguments: &Arguments,
    groups: &'a [Group],
    scripts: &Scripts,
    proxy: String,
) -> Results<'a> {
    let log = arguments.verbose || !arguments.only.is_empty();
    let stage = Rc::new(Stage { proxy, scripts: scripts.clone(), log });
    let places = Rc::new(Semaphore::new(CONCURRENT));
    let mut players = JoinSet::new();
    let wanted = |test: &&Test| arguments.only.is_empty() || arguments.only.contains(&test.id);
    for test in groups.iter().flat_map(|group| &group.tests).filter(wanted) {
        let (stage, places, test) = (stage.clone(), places.clone(), test.clone());
        players.spawn_local(async move {
            let _place = places.acquire().await;
            let (verdict, log) = player::play(&stage, &test).await;
            (test, verdict, log)
        });
    }
    let mut verdicts: HashMap<String, Result<(), Failure>> = HashMap::new();
    while let Some(played) = players.join_next().await {
        let Ok((test, verdict, log)) = played else { continue };
        if !arguments.only.is_empty() || (arguments.verbose && verdict.is_err() && test.kind != Kind::Check) {
            let outcome =
                verdict.as_ref().map_or_else(|failure| failure.message.clone(), |()| "passed".to_owned());
            println!(
                "=== {} ({}): {outcome}\n    {}\n    {}",
                test.id,
                stage.proxy,
                test.name,
                log.join("\n    ")
            );
        }
        verdicts.insert(test.id, verdict);
    }
    Results::new(groups, verdicts)
}

fn report(arguments: &Arguments, mode: &str, results: &Results<'_>) {
    if arguments.only.is_empty() {
        println!("--- {mode}: not passed");
        for line in results.failures(arguments.verbose) {
            println!("{line}");
        }
        println!("--- {mode}: passed by group\n{}", results.table());
    }
}

fn counts(results: &Results<'_>, prefix: &str) -> String {
    [Kind::Required, Kind::Optimal, Kind::Check]
        .map(|kind| format!("{prefix}{}={}", kind.as_str(), results.count(kind)))
        .join(" ")
}
