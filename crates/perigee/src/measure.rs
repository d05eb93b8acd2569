//! `perigee measure`: how fast a page is, from its origin and through the CDN, in a real browser; and what of the difference is more
//! than chance.
//!
//! A round visits the page once in each way, in turns that change from round to round, so that whatever else the machine does meets all of them
//! alike. First views have a profile of their own; repeat views the cache that the first view has left.

mod beside;
mod device;
mod film;
mod keep;
mod packets;
mod place;
mod relay;
mod report;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use browser::{Browser, Frame, Options, Page, Visit};
use clap::Args;
use client::Control;
use model::Url;
use serde_json::json;
use tokio::net::lookup_host;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::address::parse_address;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::interrupt::{self, unless_interrupted};
use crate::purge::Edge;
use beside::{Beside, missing_alike, other_host, unanswered};
use film::Film;
use keep::{Kept, Planned};
use packets::{Line, Shape};
use place::{Means, Place};
use report::{Place as PlaceReport, Report};
use series::{Budget, Series, Shot, View};

const EXAMPLES: &str = "\
Examples:
  perigee measure http://127.0.0.1:8080/                                  one way: as the address says
  perigee measure http://shop.example/ --origin 127.0.0.1:8000 --via 127.0.0.1:8080 --html report.html
  perigee measure http://shop.example/ --origin 127.0.0.1:8000 --via 127.0.0.1:8080 --from sydney=280ms/12ms --cold
  perigee measure http://shop.example/ --via 127.0.0.1:8080 --from phone=180ms/60ms,9Mbit,0.5%
  perigee measure https://www.shop.example/ --budget lcp=2.5s,ttfb=400ms   exit code 1 when a median is over it
  perigee measure https://www.shop.example/ --via 127.0.0.1:8443 --every 1h --keep home   the cluster's dashboard shows it over time
  perigee measure list                                                    what control keeps
  perigee measure compare home --ago 1d                                   the newest against yesterday's
  perigee measure forget home                                             control keeps nothing of it any more

--from NAME=FAR/NEAR puts the origin FAR and the edges NEAR away: packet by packet where this runs as root and has /dev/net/tun, else by
a relay that delays what passes; for TCP alone. The report says which. Packets may also meet a rate and a loss, the same in both directions.
A difference is claimed only where a rank test says that chance would make one with --level's probability at most, over all
claims of the report together.";

/// Longest that one visit may take.
const VISIT_TIME_MAX: Duration = Duration::from_secs(60);

/// Most edges that are compared: each has a browser of its own.
const VIAS_MAX: usize = 8;

/// Other hosts of a page that are forwarded to, each with a socket that listens.
const HOSTS_MAX: usize = 64;

/// How often a page may be measured: a measurement takes a minute, and after a week the line has gaps.
const EVERY_MIN: Duration = Duration::from_secs(60);
const EVERY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// `perigee measure`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct MeasureArgs {
    #[command(subcommand)]
    kept: Option<Kept>,
    /// The page
    #[arg(value_name = "URL", required = true)]
    url: Option<String>,
    /// Where the page's host is to be found without the CDN [default: where DNS says]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    origin: Option<SocketAddr>,
    /// An edge to compare with; may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    via: Vec<SocketAddr>,
    /// Also visit the edges after a purge of the page's host: by the edge's own API, as `perigee purge` does
    #[arg(long, requires = "via")]
    cold: bool,
    #[command(flatten)]
    edge: Edge,
    /// A place to visit from: the round trips to the origin and to the edges, what its line carries and loses; may be given several times
    #[arg(long, value_name = "NAME=FAR/NEAR[,RATE][,LOSS]", value_parser = Place::parse)]
    from: Vec<Place>,
    /// How places are emulated [default: packets where they can be, else relay]
    #[arg(long, value_name = "MEANS", requires = "from")]
    emulate: Option<Means>,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=200))]
    runs: u32,
    /// With which probability a report may claim a difference where there is none
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = parse_level)]
    level: f64,
    /// Exit with 1 when the median of a first view is over one of these: ttfb, fcp, lcp, load, cls, bytes, requests
    #[arg(long, value_name = "NAME=MOST,…", value_parser = Budget::parse)]
    budget: Option<Budget>,
    /// Take every certificate
    #[arg(long)]
    insecure: bool,
    /// The browser's program [default: the first Chromium on PATH]
    #[arg(long, value_name = "FILE")]
    browser: Option<PathBuf>,
    /// Write a report for people
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Have a cluster's control keep the result, under this name: its dashboard shows it over time
    #[arg(long, value_name = "NAME")]
    keep: Option<String>,
    /// Measure again and again, so long after the last time, until it is interrupted
    #[arg(long, value_name = "DURATION", requires = "keep", value_parser = parse_every)]
    every: Option<Duration>,
    #[command(flatten)]
    cluster: Cluster,
}

/// At most every minute: a measurement takes that long.
fn parse_every(text: &str) -> Result<Duration, String> {
    let every = keep::duration(text)?;
    let range = EVERY_MIN..=EVERY_MAX;
    range.contains(&every).then_some(every).ok_or(format!("{text:?} is out of range; write 1m to 7d"))
}

fn parse_level(text: &str) -> Result<f64, String> {
    let level = text.parse().ok().filter(|level| (0.0001..=0.2).contains(level));
    level.ok_or(format!("{text:?} is no level; write a share from 0.0001 to 0.2, as 0.01"))
}

/// The page's address, in parts.
struct Target {
    host: String,
    port: u16,
    prefix: String,
}

impl Target {
    fn of(url: &str) -> Result<Target, Failure> {
        let wrong = || Failure::new(format!("{url:?} is no page"), "write e.g. https://www.shop.example/");
        let url = Url::parse(url).map_err(|_| wrong())?;
        let (host, port) = (url.host(), url.port());
        // As browsers write it.
        Ok(Target { host, port, prefix: format!("{}://{}/", url.scheme.as_str(), url.authority) })
    }

    async fn resolve(&self) -> Result<SocketAddr, Failure> {
        let name = self.host.trim_matches(['[', ']']);
        let found = lookup_host((name, self.port)).await;
        let missing =
            || Failure::new(format!("{} is not found", self.host), "say where it is: --origin HOST:PORT");
        found.ok().and_then(|mut addresses| addresses.next()).ok_or_else(missing)
    }
}

/// Where a way leads: to where DNS says, without an address.
struct Lead {
    name: String,
    address: Option<SocketAddr>,
    is_edge: bool,
}

/// What makes a way long, as long as it is there.
#[derive(Default)]
struct Distance {
    line: Option<Line>,
    /// Ends with this.
    _relay: Option<JoinSet<()>>,
}

/// A way to the page: a browser that finds its host at one address.
struct Way {
    name: String,
    is_edge: bool,
    browser: Browser,
    /// Behind a line: the hosts that are known. What else the page asks for, the line does not lead to.
    known: Option<BTreeSet<String>>,
    /// What it is far away by.
    _distance: Distance,
}

impl MeasureArgs {
    /// Measures, reports, and says by the exit code whether the budget was kept.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if self.via.len() > VIAS_MAX {
            return Err(Failure::new(
                format!("{} edges are too many", self.via.len()),
                format!("name {VIAS_MAX} at most"),
            ));
        }
        if let Some(kept) = &self.kept {
            return kept.run().map(|()| ExitCode::SUCCESS);
        }
        if self.cluster.is_given() && self.keep.is_none() {
            return Err(Failure::new(
                "flags name a control, and nothing is told to it",
                "add --keep NAME, or leave them out",
            ));
        }
        let control = self.keep.as_ref().map(|_| self.cluster.client()).transpose()?;
        // Before anything is measured: who is not let in learns it at once.
        if let (Some(control), Some(name)) = (&control, &self.keep) {
            keep::check(control, name, &self.planned())?;
        }
        let done = runtime()?.block_on(unless_interrupted(self.work(control.as_ref())))?;
        Ok(done.unwrap_or(ExitCode::from(interrupt::EXIT_CODE)))
    }

    fn planned(&self) -> Planned<'_> {
        let (places, edges) = (self.from.len().max(1), self.via.len());
        let views = if self.cold { 3 } else { 2 };
        let budgets = self.budget.as_ref().map_or(0, |budget| budget.0.len());
        Planned {
            url: self.url(),
            series: places * (2 + edges * views),
            runs: self.runs,
            over_max: places * edges.max(1) * budgets,
        }
    }

    /// Measures once, or again and again.
    async fn work(&self, control: Option<&Control>) -> Result<ExitCode, Failure> {
        let Some(every) = self.every else { return self.once(control).await };
        loop {
            let next = Instant::now() + every;
            if let Err(failure) = self.once(control).await {
                // The page, its origin or control may be away for a while.
                eprintln!("{failure}");
            }
            sleep_until(next).await;
        }
    }

    async fn once(&self, control: Option<&Control>) -> Result<ExitCode, Failure> {
        let report = self.measure().await?;
        // What was measured is printed and kept, whether its report can be written or not.
        let written = self.html.as_ref().map(|file| {
            crate::whole::write(file, report.html().as_bytes()).map_err(|error| {
                Failure::new(format!("{} cannot be written: {error}", file.display()), "name another file")
            })
        });
        let over = self.budget.as_ref().map(|budget| report.over(budget)).unwrap_or_default();
        crate::print(&match self.json {
            true => format!("{:#}\n", json!({ "report": report.json(), "over_budget": over })),
            false => crate::visible_lines(&report.text()),
        })?;
        over.iter().for_each(|line| eprintln!("over budget: {line}"));
        if let (Some(control), Some(name)) = (control, &self.keep) {
            control.post("/v1/page-tests", &keep::told(name, &report, &over))?;
        }
        if let (Some(written), Some(file)) = (written, &self.html) {
            written?;
            eprintln!("The report is in {}", file.display());
        }
        Ok(if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The page.
    fn url(&self) -> &str {
        self.url.as_deref().unwrap_or_default()
    }

    async fn measure(&self) -> Result<Report, Failure> {
        let target = Target::of(self.url())?;
        let here = [Place::here()];
        let places = if self.from.is_empty() { &here[..] } else { &self.from };
        let means = self.means()?;
        let beside = match means {
            Some(Means::Packets) => self.beside(&target).await?,
            _ => Beside::default(),
        };
        let mut report = Report::new(self.url(), self.level, self.runs);
        for place in places {
            let ways = self.ways(&target, place, means, &beside).await?;
            report.browser = ways.first().map(|way| way.browser.version().to_owned()).unwrap_or_default();
            let measured = self.visit(&target, place, &ways).await;
            let films =
                if measured.is_ok() && self.html.is_some() { self.films(&ways).await } else { Vec::new() };
            for way in ways {
                way.browser.close().await;
            }
            report.places.push(PlaceReport::new(place.clone(), means, measured?, films, self.level));
        }
        Ok(report)
    }

    /// How places are emulated, if there are any: packet by packet where that can be done and nothing else is wanted.
    fn means(&self) -> Result<Option<Means>, Failure> {
        if self.from.is_empty() {
            return Ok(None);
        }
        let needing = self.from.iter().find(|place| place.needs_packets());
        if self.emulate == Some(Means::Relay) {
            return match needing {
                None => Ok(Some(Means::Relay)),
                Some(place) => Err(Failure::new(
                    format!("--from {}: a relay has neither rate nor loss", place.name),
                    "leave them out, or --emulate packets",
                )),
            };
        }
        match Line::open(Shape::default()) {
            Ok(_) => Ok(Some(Means::Packets)),
            Err(error) if self.emulate.is_some() || needing.is_some() => Err(Failure::new(
                format!("no packets can be delayed here: {error}"),
                "run it as root, where there is /dev/net/tun and network namespaces are allowed",
            )),
            Err(error) => {
                eprintln!("No packets can be delayed here ({error}), so a relay delays bytes; see --emulate");
                Ok(Some(Means::Relay))
            }
        }
    }

    /// The ways to the page.
    fn leads(&self) -> Vec<Lead> {
        let name = |index| if self.via.len() == 1 { "CDN".to_owned() } else { format!("CDN {}", index + 1) };
        let edge = |(index, via): (usize, &SocketAddr)| Lead {
            name: name(index),
            address: Some(*via),
            is_edge: true,
        };
        let origin = Lead { name: "origin".to_owned(), address: self.origin, is_edge: false };
        std::iter::once(origin).chain(self.via.iter().enumerate().map(edge)).collect()
    }

    /// What else the page needs, and where it is: from a browser behind a line nothing is reached that is not forwarded. Each way has a page
    /// of its own: an edge may have put other hosts into it.
    async fn beside(&self, target: &Target) -> Result<Beside, Failure> {
        let mut seen = Vec::new();
        for lead in self.leads() {
            let way = self.way(lead, Distance::default(), Vec::new(), &Beside::default(), target).await?;
            let shot = self.first_view(&way, target).await;
            way.browser.close().await;
            seen.push((way.name, shot?.0.visit));
        }
        let unanswered: Vec<_> =
            seen.iter().map(|(name, visit)| (name.as_str(), unanswered(visit, target))).collect();
        let missing = missing_alike(&unanswered)?;
        let mut found = BTreeMap::new();
        for one in seen.iter().flat_map(|(_, visit)| &visit.exchanges) {
            let Some((host, other)) = other_host(&one.url, target) else { continue };
            if found.contains_key(&host) || missing.contains(&host) {
                continue;
            }
            if found.len() == HOSTS_MAX {
                return Err(Failure::new(
                    format!("the page needs more than {HOSTS_MAX} other hosts"),
                    "--emulate relay leaves them as they are",
                ));
            }
            let address = other.resolve().await.map_err(|_| {
                Failure::new(
                    format!("{host}, which the page needs, is not found"),
                    "see that this machine finds it, by DNS or /etc/hosts, or take --emulate relay",
                )
            })?;
            found.insert(host, address);
        }
        Ok(Beside { hosts: found.into_iter().collect(), missing })
    }

    /// A browser for the origin and one for each edge, with their delays.
    async fn ways(
        &self,
        target: &Target,
        place: &Place,
        means: Option<Means>,
        beside: &Beside,
    ) -> Result<Vec<Way>, Failure> {
        let mut ways = Vec::new();
        for mut lead in self.leads() {
            let shape = if lead.is_edge { place.to_edges } else { place.to_origin };
            let is_relayed = means == Some(Means::Relay) && !shape.round_trip.is_zero();
            let far = match lead.address {
                None if is_relayed || means == Some(Means::Packets) => Some(target.resolve().await?),
                address => address,
            };
            let (mut distance, mut hosts) = (Distance::default(), Vec::new());
            lead.address = match far {
                Some(far) if is_relayed => {
                    let relay = relay::start(far, shape.round_trip).await;
                    let (near, relay) =
                        relay.map_err(|error| Failure::new(format!("no relay to {far}: {error}"), ""))?;
                    distance._relay = Some(relay);
                    Some(near)
                }
                Some(far) if means == Some(Means::Packets) => {
                    let laid = Line::open(shape).and_then(|mut line| {
                        let near = line.forward(far)?;
                        for (host, address) in &beside.hosts {
                            // What is found at an edge is served by edges: by way of this one, by this one, and from as far.
                            let is_tested = *address == far || (lead.is_edge && self.via.contains(address));
                            let at = if is_tested { near } else { line.forward_beside(*address)? };
                            hosts.push((host.clone(), at));
                        }
                        Ok((near, line))
                    });
                    let (near, laid) =
                        laid.map_err(|error| Failure::new(format!("no line to {far}: {error}"), ""))?;
                    distance.line = Some(laid);
                    Some(near)
                }
                address => address,
            };
            ways.push(self.way(lead, distance, hosts, beside, target).await?);
        }
        Ok(ways)
    }

    async fn way(
        &self,
        lead: Lead,
        distance: Distance,
        mut hosts: Vec<(String, SocketAddr)>,
        beside: &Beside,
        target: &Target,
    ) -> Result<Way, Failure> {
        let known = distance.line.as_ref().map(|_| {
            hosts.iter().map(|(host, _)| host).chain(&beside.missing).cloned().collect::<BTreeSet<_>>()
        });
        let Lead { name, address, is_edge } = lead;
        hosts.extend(address.map(|address| (target.host.clone(), address)));
        let line = distance.line.as_ref();
        let options = Options {
            program: self.browser.clone(),
            hosts,
            takes_any_certificate: self.insecure,
            without_quic: line.is_some(),
            namespace: line.map(Line::near),
            ..Options::default()
        };
        let browser = Browser::launch(&options).await.map_err(of_browser)?;
        Ok(Way { name, is_edge, browser, known, _distance: distance })
    }

    async fn visit(&self, target: &Target, place: &Place, ways: &[Way]) -> Result<Vec<Series>, Failure> {
        let mut shots: BTreeMap<(usize, View), Vec<Shot>> = BTreeMap::new();
        // What no visitor meets twice: DNS, the first start of everything.
        let mut lacking = Vec::new();
        for way in ways {
            let (shot, page) = self.first_view(way, target).await?;
            page.close().await.map_err(of_browser)?;
            lacking.push((way.name.as_str(), unanswered(&shot.visit, target)));
        }
        for host in missing_alike(&lacking)? {
            eprintln!("{}: {host} does not answer, by any way; its part of the page is missing", place.name);
        }
        for round in 0..self.runs as usize {
            eprintln!("{}: round {} of {}", place.name, round + 1, self.runs);
            for turn in 0..ways.len() {
                let at = (turn + round) % ways.len();
                let way = &ways[at];
                if way.is_edge && self.cold {
                    self.purge(target).await?;
                    let (shot, page) = self.first_view(way, target).await?;
                    page.close().await.map_err(of_browser)?;
                    shots.entry((at, View::Cold)).or_default().push(shot);
                }
                let (shot, mut page) = self.first_view(way, target).await?;
                shots.entry((at, View::First)).or_default().push(shot);
                let again = self.view(way, &mut page, target).await?;
                shots.entry((at, View::Repeat)).or_default().push(again);
                page.close().await.map_err(of_browser)?;
            }
        }
        let series = |((at, view), shots): ((usize, View), Vec<Shot>)| {
            Series::new(&ways[at].name, ways[at].is_edge, view, shots)
        };
        Ok(shots.into_iter().map(series).collect())
    }

    /// What is to be seen by each way. A film that cannot be had costs nothing of what was measured.
    async fn films(&self, ways: &[Way]) -> Vec<Film> {
        let mut films = Vec::new();
        for way in ways {
            let film = match self.film(way).await {
                Ok(frames) if frames.is_empty() => {
                    Film::missing(&way.name, "the page could not be had, or showed nothing")
                }
                Ok(frames) => Film { way: way.name.clone(), frames, failure: None },
                Err(error) => Film::missing(&way.name, error.to_string()),
            };
            film.failure.iter().for_each(|why| eprintln!("By way of {} nothing was filmed: {why}", way.name));
            films.push(film);
        }
        films
    }

    async fn film(&self, way: &Way) -> Result<Vec<Frame>, browser::Error> {
        let mut page = way.browser.new_page().await?;
        let (_, frames) = page.film(self.url(), VISIT_TIME_MAX).await?;
        page.close().await?;
        Ok(frames)
    }

    async fn first_view(&self, way: &Way, target: &Target) -> Result<(Shot, Page), Failure> {
        let mut page = way.browser.new_page().await.map_err(of_browser)?;
        let shot = self.view(way, &mut page, target).await?;
        Ok((shot, page))
    }

    /// One visit, which has to get the page.
    async fn view(&self, way: &Way, page: &mut Page, target: &Target) -> Result<Shot, Failure> {
        let visit = page.visit(self.url(), VISIT_TIME_MAX).await.map_err(of_browser)?;
        let document = visit.document();
        let failed = document.is_none_or(|one| one.failure.is_some() || one.status >= 400 || one.status == 0);
        if failed {
            let why = document.and_then(|one| one.failure.clone());
            let status = document.map_or(0, |one| one.status);
            return Err(Failure::new(
                format!(
                    "{} by way of {}: {}",
                    self.url(),
                    way.name,
                    why.unwrap_or(format!("status {status}"))
                ),
                "check the address, and that --origin and --via listen and serve this host",
            ));
        }
        way.check(&visit, target)?;
        if !visit.is_complete {
            let is_open = |one: &&browser::Exchange| one.end_ms.is_none() && one.kind != "EventSource";
            let open = visit.exchanges.iter().find(is_open).map_or("more", |one| &*one.url);
            eprintln!(
                "{} by way of {}: after {} s it was still loading {open}; a page that never finishes has no load time in the result",
                self.url(),
                way.name,
                VISIT_TIME_MAX.as_secs()
            );
        }
        Ok(Shot::of(visit))
    }

    async fn purge(&self, target: &Target) -> Result<(), Failure> {
        let client = self.edge.client()?;
        let wanted = client::Purge { prefix: Some(target.prefix.clone()), ..client::Purge::default() };
        let purged = tokio::task::spawn_blocking(move || client.purge(&wanted)).await;
        purged.map_err(|error| Failure::new(format!("the purge did not end: {error}"), ""))??;
        Ok(())
    }
}

impl Way {
    /// That the page asked for no host that its line does not lead to: what is not loaded takes no time.
    fn check(&self, visit: &Visit, target: &Target) -> Result<(), Failure> {
        let Some(known) = &self.known else { return Ok(()) };
        match unanswered(visit, target).into_iter().find(|(host, _)| !known.contains(host)) {
            None => Ok(()),
            Some((host, why)) => Err(Failure::new(
                format!(
                    "by way of {} the page asks for {host}, which it did not before, so that no line leads there: {why}",
                    self.name
                ),
                "measure once more; where the page asks for other hosts each time, take --emulate relay, which leaves them as they are",
            )),
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| Failure::new(format!("no runtime: {error}"), ""))
}

fn of_browser(error: browser::Error) -> Failure {
    Failure::new(error.to_string(), "is a Chromium installed? Name its program: --browser FILE")
}
