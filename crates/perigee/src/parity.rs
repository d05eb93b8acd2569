//! `perigee parity`: asks two servers for what a log says was asked for, and says where their answers differ.
//!
//! Status, what visitors are told of lifetimes, and every other header but those that differ by nature (Date, Server, Via and the like). Each
//! URL is asked for twice at both, so that what a cache keeps comes from the cache; the second answers are compared. Bodies are read and
//! not compared: a page that says what time it is would differ from itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use semantics::directives::{ResponseDirectives, Scope};
use semantics::{Fields, Wall, date};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::pace::Pace;
use crate::probe::Probe;
use crate::recorded;

const EXAMPLES: &str = "\
Examples:
  perigee parity --log access.log --old http://10.0.0.1 --new http://127.0.0.1:8080
  perigee parity --log access.log --host www.shop.example --old https://www.shop.example --new https://203.0.113.10 --max 5000
  perigee parity --log access.log --old http://10.0.0.1 --new http://127.0.0.1:8080 --ignore X-Request-Id --json

Requests with Authorization are left out, and so is everything but GET and HEAD. Fill the new cache before it gets visitors:
perigee warm --log access.log.

Exit code 0: all answers are the same. 1: some differ, or a server did not answer. 2: the command line makes no sense.";

/// Different requests of a log that are counted, at most: those that come first in it.
const COUNTED_MAX: usize = 1_000_000;

/// Bytes of a body that are waited for: what a cache fetches to its end by itself is longer.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Seconds by which lifetimes may differ, which are told as points in time.
const TOLERANCE_SECS: u64 = 5;

/// Requests named for each difference.
const EXAMPLES_SHOWN: usize = 3;

/// Fields that differ from one answer to the next, or name the server.
const BY_NATURE: [&str; 22] = [
    "date",
    "age",
    "server",
    "via",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "cache-status",
    "x-cache",
    "x-cache-status",
    "x-cache-hits",
    "x-served-by",
    "alt-svc",
    "server-timing",
    "accept-ranges",
    "cache-control",
    "expires",
    "x-request-id",
    "x-varnish",
    "x-amz-cf-id",
    "cf-ray",
];

/// `perigee parity`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ParityArgs {
    /// A log of requests; may be given several times; "-" is standard input
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// The server that is there today
    #[arg(long, value_name = "URL")]
    old: String,
    /// The server that is to take its place
    #[arg(long, value_name = "URL")]
    new: String,
    /// For lines of a log that do not say it: the host that visitors asked
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Requests, at most: those that were made most often
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max: usize,
    /// Requests per second, at each server
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Requests at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
    /// A header that may differ; may be given several times
    #[arg(long, value_name = "NAME")]
    ignore: Vec<String>,
    /// Ask once: what is cached may come from the origin then
    #[arg(long)]
    once: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// A request of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Asked {
    method: &'static str,
    host: String,
    target: String,
}

/// One way in which answers differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Difference {
    /// `status`, `lifetime`, or a header's name.
    what: String,
    old: String,
    new: String,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    asked: usize,
    same: usize,
    /// With the requests that differ so.
    differences: BTreeMap<Difference, Vec<String>>,
    /// Requests that one of both did not answer, and why.
    failed: Vec<(String, String)>,
}

impl ParityArgs {
    /// Reads, asks, compares and prints.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let servers = [Probe::new(&self.old)?, Probe::new(&self.new)?];
        let (requests, left_out) = self.requests()?;
        let ignored: BTreeSet<String> = BY_NATURE
            .iter()
            .map(|name| (*name).to_owned())
            .chain(self.ignore.iter().map(|name| name.to_ascii_lowercase()))
            .collect();
        let pace = Pace::new(self.rate);
        let (found, next) =
            (Mutex::new(Found { asked: requests.len(), ..Found::default() }), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..self.parallel {
                scope.spawn(|| {
                    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = compare(&servers, request, self.once, &ignored, &pace);
                        note(&found, request, outcome);
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap_or_default();
        found.failed.sort();
        crate::print(&match self.json {
            true => self.as_json(&found, left_out),
            false => crate::visible_lines(&self.as_text(&found, left_out)),
        })?;
        let is_same = found.differences.is_empty() && found.failed.is_empty();
        Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The requests of the log that are asked, the most frequent first, and how many lines are left out.
    fn requests(&self) -> Result<(Vec<Asked>, u64), Failure> {
        let (mut counts, mut left_out, mut hostless) = (HashMap::<Asked, u64>::new(), 0, 0);
        let counted = recorded::read(&self.log, |_, record| {
            let method = match &*record.method {
                "GET" => "GET",
                "HEAD" => "HEAD",
                _ => return left_out += 1,
            };
            if record.authorized || !record.target.starts_with('/') {
                return left_out += 1;
            }
            let host = Some(&*record.host).filter(|host| !host.is_empty()).or(self.host.as_deref());
            let Some(host) = host else { return hostless += 1 };
            let asked = Asked { method, host: host.to_owned(), target: record.target.clone() };
            let has_room = counts.len() < COUNTED_MAX;
            match counts.get_mut(&asked) {
                Some(count) => *count += 1,
                None if has_room => _ = counts.insert(asked, 1),
                None => left_out += 1,
            }
        })?;
        if counts.is_empty() {
            let (message, next) = match hostless {
                0 => (
                    format!("there is no GET or HEAD in {} lines of the log", counted.lines),
                    "is it a log of requests?",
                ),
                _ => (
                    "no line of the log says which host was asked".to_owned(),
                    "say it: --host www.shop.example",
                ),
            };
            return Err(Failure::new(message, next));
        }
        let mut requests: Vec<(Asked, u64)> = counts.into_iter().collect();
        requests.sort_by(|(one, count), (other, more)| more.cmp(count).then_with(|| one.cmp(other)));
        Ok((
            requests.into_iter().map(|(asked, _)| asked).take(self.max).collect(),
            left_out + hostless + counted.malformed,
        ))
    }

    fn as_json(&self, found: &Found, left_out: u64) -> String {
        let differences: Vec<Value> = ordered(found)
            .into_iter()
            .map(|(difference, urls)| {
                json!({
                    "what": difference.what, "old": difference.old, "new": difference.new,
                    "requests": urls.len(), "examples": &urls[..urls.len().min(EXAMPLES_SHOWN)],
                })
            })
            .collect();
        let failed: Vec<Value> =
            found.failed.iter().map(|(request, why)| json!({ "request": request, "why": why })).collect();
        let value = json!({
            "old": self.old, "new": self.new, "asked": found.asked, "same": found.same, "left_out": left_out,
            "differences": differences, "failed": failed,
        });
        format!("{value:#}\n")
    }

    fn as_text(&self, found: &Found, left_out: u64) -> String {
        let mut text = format!(
            "old {}, new {}: {} requests, {} with the same answers",
            self.old, self.new, found.asked, found.same
        );
        if left_out > 0 {
            text.push_str(&format!("; {left_out} lines of the log left out"));
        }
        text.push('\n');
        for (difference, urls) in ordered(found) {
            text.push_str(&format!(
                "\n{} differs for {}: {} there, {} here\n",
                difference.what,
                urls.len(),
                difference.old,
                difference.new
            ));
            for url in urls.iter().take(EXAMPLES_SHOWN) {
                text.push_str(&format!("  {url}\n"));
            }
        }
        if !found.failed.is_empty() {
            text.push_str(&format!("\n{} without an answer\n", found.failed.len()));
            for (request, why) in found.failed.iter().take(EXAMPLES_SHOWN) {
                text.push_str(&format!("  {request}: {why}\n"));
            }
        }
        if !found.differences.is_empty() {
            text.push_str("\nnext: perigee explain URL says why an edge answers as it does\n");
        }
        text
    }
}

/// Differences, those of the most requests first.
fn ordered(found: &Found) -> Vec<(&Difference, &Vec<String>)> {
    let mut differences: Vec<_> = found.differences.iter().collect();
    differences.sort_by_key(|(_, urls)| std::cmp::Reverse(urls.len()));
    differences
}

fn note(found: &Mutex<Found>, request: &Asked, outcome: Result<Vec<Difference>, String>) {
    let name = format!("{} {}{}", request.method, request.host, request.target);
    // Nothing in here can panic and leave it poisoned.
    let Ok(mut found) = found.lock() else { return };
    match outcome {
        Ok(differences) if differences.is_empty() => found.same += 1,
        Ok(differences) => differences
            .into_iter()
            .for_each(|one| found.differences.entry(one).or_default().push(name.clone())),
        Err(why) => found.failed.push((name, why)),
    }
}

/// Asks both, and says in what their answers differ.
fn compare(
    servers: &[Probe; 2],
    request: &Asked,
    once: bool,
    ignored: &BTreeSet<String>,
    pace: &Pace,
) -> Result<Vec<Difference>, String> {
    let mut last = None;
    for _ in 0..if once { 1 } else { 2 } {
        // At both servers in the same turn.
        let now = Instant::now();
        std::thread::sleep(pace.turn(now).saturating_duration_since(now));
        let ask = |name: &str, server: &Probe| {
            server
                .ask_whole(request.method, &request.host, &request.target, BODY_BYTES_MAX)
                .map_err(|error| format!("the {name} server: {error}"))
        };
        last = Some((ask("old", &servers[0])?, ask("new", &servers[1])?));
    }
    let Some((old, new)) = last else { return Ok(Vec::new()) };
    Ok(differences(&old, &new, ignored))
}

fn differences(old: &(u16, Fields), new: &(u16, Fields), ignored: &BTreeSet<String>) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut push =
        |what: &str, old: String, new: String| found.push(Difference { what: what.to_owned(), old, new });
    if old.0 != new.0 {
        push("status", old.0.to_string(), new.0.to_string());
    }
    let lifetimes = [Lifetime::of(&old.1), Lifetime::of(&new.1)];
    if !lifetimes[0].is_like(&lifetimes[1]) {
        push("lifetime", lifetimes[0].to_string(), lifetimes[1].to_string());
    }
    let names: BTreeSet<String> = old
        .1
        .iter()
        .chain(new.1.iter())
        .map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase())
        .collect();
    for name in names.difference(ignored) {
        let (one, other) = (values(&old.1, name), values(&new.1, name));
        if one != other {
            push(name, one, other);
        }
    }
    found
}

/// The values of a header, as they are compared: those of Vary in any order and case, of Set-Cookie the names alone.
fn values(fields: &Fields, name: &str) -> String {
    let mut values: Vec<String> =
        fields.get_all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    match name {
        "vary" => {
            values = values
                .iter()
                .flat_map(|line| line.split(','))
                .map(|name| name.trim().to_ascii_lowercase())
                .collect();
            values.sort();
            values.dedup();
        }
        "set-cookie" => {
            values = values.iter().map(|line| line.split('=').next().unwrap_or_default().to_owned()).collect()
        }
        _ => {}
    }
    if values.is_empty() { "nothing".to_owned() } else { values.join(", ") }
}

/// What visitors are told of how long an answer may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lifetime {
    /// Words that forbid: no-store, private, no-cache.
    bars: Vec<&'static str>,
    /// Seconds, where they are told.
    secs: Option<u64>,
}

impl Lifetime {
    fn of(fields: &Fields) -> Lifetime {
        let directives = ResponseDirectives::of(fields, &[]);
        let mut bars = Vec::new();
        for (is_set, word) in [
            (directives.no_store, "no-store"),
            (directives.private == Scope::Whole, "private"),
            (directives.no_cache == Scope::Whole, "no-cache"),
        ] {
            if is_set {
                bars.push(word);
            }
        }
        let by_expires = || {
            let now = Wall(0);
            let expires = fields.get("expires")?;
            let date = fields.get("date").and_then(|value| date::parse(value, now))?;
            Some(date::parse(expires, now).map_or(0, |expires| expires.secs_since(date)))
        };
        let secs = directives.max_age.map(u64::from).or_else(by_expires);
        Lifetime { bars, secs }
    }

    fn is_like(&self, other: &Lifetime) -> bool {
        let near = match (self.secs, other.secs) {
            (Some(one), Some(two)) => one.abs_diff(two) <= TOLERANCE_SECS,
            (one, two) => one == two,
        };
        self.bars == other.bars && near
    }
}

impl std::fmt::Display for Lifetime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secs = self.secs.map(|secs| format!("{secs} s"));
        let words: Vec<String> = self.bars.iter().map(|word| (*word).to_owned()).chain(secs).collect();
        f.write_str(&if words.is_empty() { "nothing".to_owned() } else { words.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(old: &[(&str, &str)], new: &[(&str, &str)]) -> Vec<(String, String, String)> {
        let ignored = BY_NATURE.iter().map(|name| (*name).to_owned()).collect();
        let fields = |lines: &[(&str, &str)]| lines.iter().copied().collect::<Fields>();
        differences(&(200, fields(old)), &(200, fields(new)), &ignored)
            .into_iter()
            .map(|one| (one.what, one.old, one.new))
            .collect()
    }

    #[test]
    fn lifetimes_are_compared_however_they_are_told() {
        let date = ("Date", "Mon, 23 Nov 2026 10:00:00 GMT");
        let expires = ("Expires", "Mon, 23 Nov 2026 10:01:01 GMT");
        assert_eq!(told(&[date, expires], &[("Cache-Control", "max-age=60")]), []);
        let wanted = [("lifetime".to_owned(), "60 s".to_owned(), "no-store".to_owned())];
        assert_eq!(told(&[("Cache-Control", "max-age=60")], &[("Cache-Control", "no-store")]), wanted);
        let wanted = [("lifetime".to_owned(), "nothing".to_owned(), "10 s".to_owned())];
        assert_eq!(told(&[], &[("Cache-Control", "public, max-age=10")]), wanted);
    }

    #[test]
    fn headers_are_compared_but_for_those_that_differ_by_nature() {
        assert_eq!(
            told(
                &[("Server", "nginx"), ("Vary", "Accept, Cookie")],
                &[("Via", "x"), ("Vary", "cookie,accept")]
            ),
            []
        );
        assert_eq!(told(&[("Set-Cookie", "a=1; Path=/")], &[("Set-Cookie", "a=2")]), []);
        let wanted = [("x-a".to_owned(), "1, 2".to_owned(), "nothing".to_owned())];
        assert_eq!(told(&[("X-A", "1"), ("x-a", "2")], &[]), wanted);
    }
}
