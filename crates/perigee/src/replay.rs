//! `perigee replay`: what recorded requests would have come to under a configuration, before it is deployed.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use insight::replay::{Assumed, Replay, Report, Run, Settings, Totals};
use model::{ByteSize, Ttl};
use serde_json::json;

use crate::failure::Failure;
use crate::recorded::{self, Counted};

const EXAMPLES: &str = "\
Examples:
  perigee replay --log access.log --config draft.toml                         predicted hit ratio and origin load
  perigee replay --log access.log --config draft.toml --against running.toml  and which answers would change
  perigee replay --log access.log.gz --config draft.toml --memory 256MiB      with another cache size
  perigee replay --log cloudfront.gz --config draft.toml --probe http://origin.example

The log may be our JSON (access_log_format = \"json\"), combined, CloudFront's or Cloudflare Logpush's, also gzipped.
Only ours tells what the origin's answers said; for others --probe asks the origin for one URL of each class, and
what is taken for granted without is said in the output.";

/// Classes of URLs that are shown to people.
const CLASSES_SHOWN: usize = 12;

/// `perigee replay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReplayArgs {
    /// A log of requests, in the order of time; may be given several times; "-" is standard input
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// The configuration to predict for
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The configuration to compare with, instead of what the log says happened
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Only this site; it also takes requests without a host
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Memory of the cache, instead of the configuration's
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<ByteSize>,
    /// Where the origin is, to ask it what the log does not tell
    #[arg(long, value_name = "URL")]
    probe: Option<String>,
    /// How long an answer lives that another cache has kept and nobody knows the headers of [default: 1h; 1d if its content is static and
    /// the log says no outcome]
    #[arg(long, value_name = "TIME", value_parser = time)]
    assume_ttl: Option<Ttl>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn size(text: &str) -> Result<ByteSize, String> {
    ByteSize::parse(text).map_err(|bad| format!("{text:?} {}; write e.g. {}", bad.reason, bad.suggestion))
}

fn time(text: &str) -> Result<Ttl, String> {
    Ttl::parse(text).map_err(|bad| format!("{text:?} {}; write e.g. {}", bad.reason, bad.suggestion))
}

impl ReplayArgs {
    /// Replays and prints.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut settings = Settings {
            memory_bytes: self.memory.map(|size| size.0),
            site: self.site.clone(),
            ..Settings::default()
        };
        if let Some(ttl) = self.assume_ttl {
            settings.assumed = Assumed { kept_secs: ttl.secs(), static_secs: ttl.secs() };
        }
        let mut replays = Vec::new();
        for file in [Some(&self.config), self.against.as_ref()].into_iter().flatten() {
            let (_, snapshot) = recorded::configuration(file)?;
            replays.push((snapshot, file));
        }
        if let Some(at) = &self.probe {
            settings.probed = Arc::new(recorded::probe(&self.log, at)?);
        }
        let replays = replays.into_iter().map(|(snapshot, file)| {
            Replay::new(snapshot, settings.clone())
                .map_err(|why| Failure::new(format!("{}: {why}", file.display()), "correct --site"))
        });
        let mut run = Run::new(replays.collect::<Result<_, _>>()?);
        let counted = recorded::read(&self.log, |format, record| _ = run.take(format, record))?;
        let report = run.report();
        counted.refuse_nothing(report.recorded.requests)?;
        crate::print(&match self.json {
            true => format!("{:#}\n", json!({ "log": counted, "report": report })),
            false => crate::visible_lines(&describe(&report, &counted, self.against.is_some())),
        })
    }
}

fn describe(report: &Report, counted: &Counted, is_compared: bool) -> String {
    let mut words = counted.words();
    let formats: Vec<_> = report.formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
    words.push_str(&format!("Requests: {} over {}", formats.join(", "), span(report.span_secs)));
    if report.foreign > 0 {
        words.push_str(&format!("; {} of hosts that are not meant", report.foreign));
    }
    words.push_str("\n\n");
    let Some(draft) = report.predicted.first() else { return words };
    let mut columns = vec![("recorded", &report.recorded)];
    if let Some(against) = report.predicted.get(1) {
        columns.push(("against", against));
    }
    columns.push(("predicted", draft));
    table(&mut words, &columns);
    words.push_str("\nBy class of URL:\n");
    let before = if is_compared { "against" } else { "recorded" };
    words.push_str(&format!(
        "  {:<28} {:>9} {:>9} {:>10} {:>9} {:>10}\n",
        "", "requests", before, "predicted", before, "predicted"
    ));
    words.push_str(&format!(
        "  {:<28} {:>9} {:>9} {:>10} {:>9} {:>10}\n",
        "", "", "hits", "hits", "origin", "origin"
    ));
    for class in report.classes.iter().take(CLASSES_SHOWN) {
        let was =
            if is_compared { class.predicted.get(1).unwrap_or(&class.recorded) } else { &class.recorded };
        let Some(is) = class.predicted.first() else { continue };
        words.push_str(&format!(
            "  {:<28} {:>9} {:>8.1}% {:>9.1}% {:>9} {:>10}\n",
            class.pattern,
            class.recorded.requests,
            was.hit_ratio * 100.0,
            is.hit_ratio * 100.0,
            was.origin_requests,
            is.origin_requests
        ));
    }
    if report.classes.len() > CLASSES_SHOWN {
        words.push_str(&format!("  and {} more classes: --json\n", report.classes.len() - CLASSES_SHOWN));
    }
    let changes: Vec<_> = report
        .classes
        .iter()
        .flat_map(|class| class.changes.iter().map(|change| (&class.pattern, change)))
        .collect();
    if !changes.is_empty() {
        words.push_str("\nAnswers that change:\n");
        for (pattern, change) in changes.iter().take(CLASSES_SHOWN) {
            words.push_str(&format!(
                "  {:<28} {:>9}  {}, e.g. {}\n",
                pattern, change.requests, change.change, change.example
            ));
        }
    }
    let assumptions = report.assumptions.first().map(Vec::as_slice).unwrap_or_default();
    if !assumptions.is_empty() {
        words.push_str("\nTaken for granted:\n");
        assumptions.iter().for_each(|one| words.push_str(&format!("  {one}\n")));
    }
    words
}

fn table(words: &mut String, columns: &[(&str, &Totals)]) {
    let mut row = |name: &str, cell: &dyn Fn(&Totals) -> String| {
        words.push_str(&format!("  {name:<22}"));
        columns.iter().for_each(|(_, totals)| words.push_str(&format!("{:>14}", cell(totals))));
        words.push('\n');
    };
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let heads = std::cell::Cell::new(0);
    row("", &|_| {
        let index = heads.replace(heads.get() + 1);
        names[index].to_owned()
    });
    row("hit ratio, requests", &|totals| format!("{:.2}%", totals.hit_ratio * 100.0));
    row("hit ratio, bytes", &|totals| format!("{:.2}%", totals.byte_hit_ratio * 100.0));
    row("requests to the origin", &|totals| totals.origin_requests.to_string());
    row("bytes from the origin", &|totals| bytes(totals.origin_bytes));
    let mut whys: Vec<&str> = columns.iter().flat_map(|(_, totals)| totals.whys.keys().copied()).collect();
    whys.sort_unstable();
    whys.dedup();
    for why in whys {
        row(why, &|totals| totals.whys.get(why).copied().unwrap_or(0).to_string());
    }
}

/// An amount as people say it.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1024.0 && unit + 1 < units.len() {
        (amount, unit) = (amount / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", units[unit]) }
}

fn span(secs: f64) -> String {
    match secs {
        secs if secs >= 2.0 * 86_400.0 => format!("{:.1} days", secs / 86_400.0),
        secs if secs >= 2.0 * 3600.0 => format!("{:.1} hours", secs / 3600.0),
        secs if secs >= 120.0 => format!("{:.0} minutes", secs / 60.0),
        secs => format!("{secs:.0} seconds"),
    }
}
