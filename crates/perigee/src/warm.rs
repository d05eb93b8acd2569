//! `perigee warm`: has edges fetch what visitors will ask for, before they do. What that is comes from sitemaps, an access log or a
//! list.
//!
//! ```text
//! sitemap, log, list ─► URLs ─► for each edge: ask, with the URL's Host ─► warmed, already there, failed
//! ```
//!
//! Each request says that nobody waits for it (`Priority: u=7`, RFC 9218 §4.1): where the origin has a budget, visitors come first. An edge
//! that says "later" (503 with Retry-After) is asked again later; one that gives no answer for a while is asked no more.

mod fetch;
mod sources;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::json;
use tokio::time::Instant;
use warm::Url;

use crate::failure::Failure;
use crate::recorded;
use fetch::{Edge, Fetcher, Outcome};

const EXAMPLES: &str = "\
Examples:
  perigee warm --sitemap https://www.shop.example/sitemap.xml --edge 203.0.113.10
  perigee warm --log access.log --pop fra --pop ams --config cluster.toml --rate 50
  perigee warm --urls urls.txt --edge 127.0.0.1:8080 --resume warm.done

Sitemaps are fetched through the first edge, so the site's name need not lead there yet. Logs are perigee's own,
those of CloudFront and Logpush, or in the common or combined format; what was asked for most is fetched first.";

/// URLs, at most, unless more are asked for.
const URLS_MAX: usize = 100_000;

/// How long what is under way may take to end when the command is to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How often progress is told: to a terminal, and to a file.
const TOLD_EVERY: Duration = Duration::from_secs(1);
const TOLD_RARELY_EVERY: Duration = Duration::from_secs(15);

/// `perigee warm`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("what").required(true).args(["sitemap", "log", "urls"]),
    group = ArgGroup::new("whom").required(true).multiple(true).args(["edge", "pop"])
)]
pub(crate) struct Warm {
    /// A sitemap or an index of some, also with gzip: a URL, or a file; may be given several times
    #[arg(long, value_name = "URL")]
    sitemap: Vec<String>,
    /// An access log, also with gzip: perigee's, CloudFront's, Logpush, or in the common or combined format
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// A file with a URL in each line
    #[arg(long, value_name = "FILE")]
    urls: Option<PathBuf>,
    /// For lines of a log that do not say it: the host that visitors asked
    #[arg(long, value_name = "HOST", requires = "log")]
    host: Option<String>,
    /// For lines of a log that do not say it: ask by http, not https
    #[arg(long, requires = "log")]
    http: bool,
    /// An edge by its address, with a port if it is not 80 and 443; may be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = parse_edge)]
    edge: Vec<Edge>,
    /// All edges of a PoP of the configuration; may be given several times
    #[arg(long, value_name = "NAME", requires = "config")]
    pop: Vec<String>,
    /// The configuration that says where PoPs are
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Requests per second, at all edges together
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Requests at a time, at each edge
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    /// URLs, at most
    #[arg(long, value_name = "N", default_value_t = URLS_MAX)]
    max: usize,
    /// A file that remembers what is done: what stands in it is left out the next time
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Certificates to trust instead of the system's, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl Warm {
    /// Runs the command. An error when anything failed or was left.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime
            .map_err(|error| Failure::new(format!("the system gives no timers or sockets: {error}"), ""))?;
        let local = tokio::task::LocalSet::new();
        let json = self.json;
        let summary = local.block_on(&runtime, self.warm())?;
        crate::print(&if json { summary.json() } else { summary.text() })?;
        summary.end()
    }

    async fn warm(self) -> Result<Summary, Failure> {
        let edges = self.edges()?;
        let fetcher = Fetcher::new(self.ca.as_deref(), self.rate)?;
        let found = tokio::select! {
            biased;
            // What has been read so far is of no use to anybody.
            _ = tokio::signal::ctrl_c() => return Err(Failure::new("stopped while the URLs were being read", "")),
            found = sources::read(&self, &fetcher, &edges[0]) => found?,
        };
        let done = Done::open(self.resume.as_deref())?;
        let total = found.urls.len() * edges.len();
        let work = Rc::new(Work {
            fetcher,
            parallel: self.parallel,
            summary: RefCell::new(Summary { total, bad: found.bad, ..Summary::default() }),
            done: RefCell::new(done),
            is_stopped: Cell::new(false),
        });
        let mut workers = tokio::task::JoinSet::new();
        for edge in edges {
            let done = work.done.borrow();
            let left: VecDeque<Url> =
                found.urls.iter().filter(|url| !done.holds(&edge, url)).cloned().collect();
            drop(done);
            work.summary.borrow_mut().skipped += found.urls.len() - left.len();
            let queue = Rc::new(Queue { left: RefCell::new(left), unanswered: Cell::new(0) });
            for _ in 0..self.parallel {
                workers.spawn_local(work.clone().ask_on(edge.clone(), queue.clone()));
            }
        }
        work.wait(&mut workers).await;
        let mut summary = std::mem::take(&mut *work.summary.borrow_mut());
        summary.is_stopped = work.is_stopped.get();
        Ok(summary)
    }

    /// The edges that are asked, each once.
    fn edges(&self) -> Result<Vec<Edge>, Failure> {
        let mut edges = self.edge.clone();
        if let Some(config) = self.config.as_deref().filter(|_| !self.pop.is_empty()) {
            edges.extend(edges_of(config, &self.pop)?);
        }
        let mut seen = HashSet::new();
        edges.retain(|edge| seen.insert(edge.clone()));
        Ok(edges)
    }
}

fn parse_edge(text: &str) -> Result<Edge, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => Ok(Edge { address: address.ip(), port: Some(address.port()) }),
        (_, Ok(address)) => Ok(Edge { address, port: None }),
        _ => Err("not an address; write e.g. 203.0.113.10, 127.0.0.1:8080 or [2001:db8::1]:80".to_owned()),
    }
}

/// The edges of PoPs, as a configuration or a cluster's says.
fn edges_of(config: &Path, names: &[String]) -> Result<Vec<Edge>, Failure> {
    let place = config.display();
    let (_, snapshot) = recorded::configuration(config)?;
    // Another CDN is not ours to fill.
    let pops = snapshot.routing.pops.iter().filter(|pop| pop.cname.is_none());
    let known: Vec<&str> = pops.clone().map(|pop| &*pop.name).collect();
    let mut edges = Vec::new();
    for name in names {
        let pop = pops.clone().find(|pop| *pop.name == **name).ok_or_else(|| {
            let known = if known.is_empty() { "it has none".to_owned() } else { known.join(", ") };
            Failure::new(format!("{place}: there is no PoP {name:?}"), format!("PoPs of it: {known}"))
        })?;
        edges.extend(pop.edges.iter().map(|address| Edge { address: *address, port: None }));
    }
    Ok(edges)
}

// --- Asking ---

/// What one edge is still to be asked for.
struct Queue {
    left: RefCell<VecDeque<Url>>,
    /// URLs in a row to which it gave no answer.
    unanswered: Cell<u32>,
}

struct Work {
    fetcher: Fetcher,
    /// Requests at a time, at each edge.
    parallel: u32,
    summary: RefCell<Summary>,
    done: RefCell<Done>,
    is_stopped: Cell<bool>,
}

impl Work {
    /// Asks one edge for one URL after the other, on a connection that is kept.
    async fn ask_on(self: Rc<Self>, edge: Edge, queue: Rc<Queue>) {
        let mut connection = None;
        while !self.is_stopped.get() {
            let Some(url) = queue.left.borrow_mut().pop_front() else { return };
            let outcome = self.fetcher.ask(&mut connection, &edge, &url).await;
            let is_unanswered = matches!(outcome, Outcome::Unanswered(_));
            queue.unanswered.set(if is_unanswered { queue.unanswered.get() + 1 } else { 0 });
            self.note(&edge, &url, outcome);
            // More than were under way together, so this began when others had tried for seconds.
            if queue.unanswered.get() > self.parallel {
                self.give_up(&edge, &queue, &url);
            }
        }
    }

    /// Leaves out what is of the scheme and host of `url`: other ports and certificates may be well.
    fn give_up(&self, edge: &Edge, queue: &Queue, url: &Url) {
        let is_alike = |other: &Url| other.is_https() == url.is_https() && other.host() == url.host();
        let (alike, left) = queue.left.take().into_iter().partition::<VecDeque<_>, _>(is_alike);
        queue.left.replace(left);
        // The others are given up for what is wrong with them.
        queue.unanswered.set(0);
        for url in alike {
            let reason = "not asked for, as those before had no answer".to_owned();
            self.note(edge, &url, Outcome::Failed(reason));
        }
    }

    fn note(&self, edge: &Edge, url: &Url, outcome: Outcome) {
        let mut summary = self.summary.borrow_mut();
        match outcome {
            Outcome::Warmed => summary.warmed += 1,
            Outcome::Present => summary.present += 1,
            Outcome::Failed(reason) | Outcome::Unanswered(reason) => {
                let known = summary.failed.entry(reason).or_insert_with(|| (0, format!("{url} at {edge}")));
                known.0 += 1;
                return;
            }
        }
        if let Err(error) = self.done.borrow_mut().note(edge, url)
            && summary.trouble.is_none()
        {
            summary.trouble = Some(error.to_string());
        }
    }

    /// Tells how it goes until all is done, or the command is to stop and what is under way has ended.
    async fn wait(&self, workers: &mut tokio::task::JoinSet<()>) {
        let is_terminal = std::io::stderr().is_terminal();
        let mut ticks = tokio::time::interval(if is_terminal { TOLD_EVERY } else { TOLD_RARELY_EVERY });
        // The first one comes at once.
        ticks.tick().await;
        let mut deadline = None;
        loop {
            let until = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                biased;
                // A mistake of ours is told by its panic.
                ended = workers.join_next() => if ended.is_none() {
                    break;
                },
                _ = tokio::signal::ctrl_c() => {
                    self.is_stopped.set(true);
                    // The second time it ends at once.
                    let patience = if deadline.is_some() { Duration::ZERO } else { STOP_PATIENCE };
                    deadline = Some(Instant::now() + patience);
                    eprintln!("perigee: stopping; what is under way is waited for");
                }
                () = tokio::time::sleep_until(until), if deadline.is_some() => break,
                _ = ticks.tick() => self.tell(is_terminal),
            }
        }
        if is_terminal {
            eprintln!();
        }
    }

    fn tell(&self, is_terminal: bool) {
        let line = self.summary.borrow().line();
        match is_terminal {
            true => eprint!("\r\x1b[K{line}"),
            false => eprintln!("{line}"),
        }
        let _unseen = std::io::stderr().flush();
    }
}

/// What has been done, here and by earlier runs: a line for each, the edge and the URL.
struct Done {
    known: HashSet<String>,
    file: Option<File>,
}

impl Done {
    fn open(path: Option<&Path>) -> Result<Done, Failure> {
        let Some(path) = path else { return Ok(Done { known: HashSet::new(), file: None }) };
        let wrong = |error: std::io::Error| {
            Failure::new(format!("{}: {error}", path.display()), "check --resume FILE")
        };
        let mut file = File::options().read(true).append(true).create(true).open(path).map_err(wrong)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).map_err(wrong)?;
        // A line without an end was being written when the program died.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let known = whole.lines().map(str::to_owned).collect();
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(wrong)?;
        }
        Ok(Done { known, file: Some(file) })
    }

    fn holds(&self, edge: &Edge, url: &Url) -> bool {
        !self.known.is_empty() && self.known.contains(&format!("{edge} {url}"))
    }

    fn note(&mut self, edge: &Edge, url: &Url) -> std::io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(format!("{edge} {url}\n").as_bytes()),
            None => Ok(()),
        }
    }
}

// --- What came of it ---

/// What came of a run. Counts are of URLs at edges.
#[derive(Debug, Default)]
struct Summary {
    total: usize,
    /// Fetched and stored.
    warmed: usize,
    /// There already, and fresh.
    present: usize,
    /// Left out, because an earlier run has done it.
    skipped: usize,
    /// By reason: how many, and the first of them.
    failed: BTreeMap<String, (usize, String)>,
    /// What was read and is no URL.
    bad: usize,
    is_stopped: bool,
    /// Why what is done could not be remembered.
    trouble: Option<String>,
}

impl Summary {
    fn failures(&self) -> usize {
        self.failed.values().map(|(count, _)| count).sum()
    }

    fn left(&self) -> usize {
        self.total - self.warmed - self.present - self.skipped - self.failures()
    }

    fn line(&self) -> String {
        let Summary { total, warmed, present, skipped, .. } = self;
        let done = total - self.left();
        let failed = self.failures();
        format!(
            "{done} of {total}: {warmed} warmed, {present} there already, {skipped} done before, {failed} failed"
        )
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.line());
        for (reason, (count, first)) in &self.failed {
            text.push_str(&format!(
                "  {count} × {}, e.g. {}\n",
                crate::visible(reason),
                crate::visible(first)
            ));
        }
        if self.bad > 0 {
            text.push_str(&format!("  {} that were read are no URLs, or not to be fetched\n", self.bad));
        }
        text
    }

    fn json(&self) -> String {
        let failed: BTreeMap<&str, usize> =
            self.failed.iter().map(|(reason, (count, _))| (reason.as_str(), *count)).collect();
        let summary = json!({
            "total": self.total, "warmed": self.warmed, "present": self.present, "skipped": self.skipped,
            "failed": failed, "left": self.left(), "bad": self.bad, "stopped": self.is_stopped,
        });
        format!("{summary}\n")
    }

    fn end(&self) -> Result<(), Failure> {
        let (total, resume) = (self.total, "run it again; with --resume FILE, what is done is left out");
        match (self.left(), self.failures(), &self.trouble) {
            (left, _, _) if left > 0 => {
                Err(Failure::new(format!("stopped while {left} of {total} fetches were left"), resume))
            }
            (_, failed, _) if failed > 0 => {
                Err(Failure::new(format!("{failed} of {total} fetches have failed"), resume))
            }
            (_, _, Some(trouble)) => Err(Failure::new(
                format!("what is done could not be remembered: {trouble}"),
                "check --resume FILE",
            )),
            _ => Ok(()),
        }
    }
}
