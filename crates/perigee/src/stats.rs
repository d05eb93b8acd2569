//! `perigee stats`: what a cluster has served, as control's API has it: sums by something, lists of URLs, reasons.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use client::push_query;
use model::units::parse_duration;
use serde_json::Value;

use crate::cluster::{Cluster, cell, show, table};
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee stats                                 the last 15 minutes, in all
  perigee stats --by pop --last 1h              by PoP
  perigee stats --by country --site shop --last 7d
  perigee stats why --site shop                 why requests were not answered from the cache
  perigee stats top --of misses --by bytes      the URLs that missed most
  perigee stats --by site --last 30d --csv      a row for each bucket, for a spreadsheet
  perigee stats rum --by group --last 1d        how fast pages were for their visitors

What is counted, and for how long it is kept: docs/statistics.md.";

const TOP_EXAMPLES: &str = "\
Examples:
  perigee stats top --last 1h
  perigee stats top --of misses --by bytes --site shop";

const WHY_EXAMPLES: &str = "\
Examples:
  perigee stats why
  perigee stats why --site shop --last 1d";

const RUM_EXAMPLES: &str = "\
Examples:
  perigee stats rum --by group --last 1d
  perigee stats rum --country DE --by pop --last 7d";

/// `perigee stats`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Stats {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    series: Series,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The URLs that were asked for most, that missed most, that failed most
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopUrls),
    /// Why requests ended as they did, and what to do about it
    #[command(after_help = WHY_EXAMPLES)]
    Why(Asked),
    /// How fast pages were, as visitors' browsers have told: 75th percentiles
    #[command(after_help = RUM_EXAMPLES)]
    Rum(PageViews),
}

/// What holds for each question.
#[derive(Debug, Args)]
struct Asked {
    /// How far to go back, e.g. 15m, 6h, 30d
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = parse_span)]
    last: Duration,
    /// Only this site; may be given several times, as all that follow
    #[arg(long, value_name = "NAME")]
    site: Vec<String>,
    /// Only this PoP
    #[arg(long, value_name = "NAME")]
    pop: Vec<String>,
    /// Print control's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
struct Series {
    /// What to tell apart
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Only visitors of this country, e.g. DE
    #[arg(long, value_name = "CODE")]
    country: Vec<String>,
    /// Only this class of content, e.g. image
    #[arg(long, value_name = "CLASS")]
    class: Vec<String>,
    /// Length of a bucket: 1s, 1m, 1h or 1d
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Print a row for each bucket, as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Site,
    Pop,
    Country,
    Class,
    Rule,
    Status,
    Why,
}

#[derive(Debug, Args)]
struct TopUrls {
    /// Which list
    #[arg(long, value_enum, default_value_t = Of::Urls)]
    of: Of,
    /// What it is ordered by
    #[arg(long, value_enum, default_value_t = Order::Requests)]
    by: Order,
    /// How many, at most 200
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct PageViews {
    /// What to tell apart
    #[arg(long, value_enum)]
    by: Option<ViewsBy>,
    /// Only visitors of this country, e.g. DE
    #[arg(long, value_name = "CODE")]
    country: Vec<String>,
    /// Only this group of pages, e.g. /tea/
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ViewsBy {
    Site,
    Pop,
    Country,
    Group,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    Urls,
    Misses,
    Errors,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    Requests,
    Bytes,
}

fn parse_span(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|_| "wanted a time such as 15m, 6h or 30d".to_owned())
}

/// The name of a value as it stands on the command line, which is that of the API.
fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Asked {
    fn path(&self, path: &str) -> String {
        let mut target = path.to_owned();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        push_query(&mut target, "from", &now.saturating_sub(self.last).as_millis().to_string());
        self.site.iter().for_each(|site| push_query(&mut target, "site", site));
        self.pop.iter().for_each(|pop| push_query(&mut target, "pop", pop));
        target
    }
}

impl Stats {
    /// Asks, and prints.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.action {
            None => self.series.run(&self.asked),
            Some(Action::Top(top)) => top.run(),
            Some(Action::Rum(views)) => views.run(),
            Some(Action::Why(asked)) => {
                let answer = asked.cluster.client()?.fetch(&asked.path("/v1/stats/why"))?;
                show(asked.json, &answer, whys)
            }
        }
    }
}

impl Series {
    fn run(&self, asked: &Asked) -> Result<(), Failure> {
        let client = asked.cluster.client()?;
        let mut target = asked.path(if self.csv { "/v1/stats/export" } else { "/v1/stats" });
        if let Some(by) = &self.by {
            push_query(&mut target, "by", &name_of(by));
        }
        for (name, values) in [("country", &self.country), ("class", &self.class)] {
            values.iter().for_each(|value| push_query(&mut target, name, value));
        }
        if let Some(step) = &self.step {
            push_query(&mut target, "step", step);
        }
        match self.csv {
            true => crate::print(&client.fetch_text(&target)?),
            false => show(asked.json, &client.fetch(&target)?, totals),
        }
    }
}

impl TopUrls {
    fn run(&self) -> Result<(), Failure> {
        let mut target = self.asked.path("/v1/stats/top");
        push_query(&mut target, "of", &name_of(&self.of));
        push_query(&mut target, "by", &name_of(&self.by));
        push_query(&mut target, "limit", &self.limit.to_string());
        show(self.asked.json, &self.asked.cluster.client()?.fetch(&target)?, urls)
    }
}

impl PageViews {
    fn run(&self) -> Result<(), Failure> {
        let mut target = self.asked.path("/v1/stats/rum");
        if let Some(by) = &self.by {
            push_query(&mut target, "by", &name_of(by));
        }
        for (name, values) in [("country", &self.country), ("group", &self.group)] {
            values.iter().for_each(|value| push_query(&mut target, name, value));
        }
        show(self.asked.json, &self.asked.cluster.client()?.fetch(&target)?, views)
    }
}

// --- Words ---

/// Page views by key, one line each, and what the time to the first byte is made of.
fn views(answer: &Value) -> String {
    const VITALS: [&str; 6] = ["ttfb", "fcp", "lcp", "inp", "cls", "load"];
    const PARTS: [&str; 5] = ["redirect", "dns", "connect", "tls", "wait"];
    let items = answer["items"].as_array().into_iter().flatten();
    let lines: Vec<&Value> = items.chain([&answer["total"]]).collect();
    let name = |line: &Value| if line["key"].is_null() { "all".to_owned() } else { cell(&line["key"]) };
    let value = |line: &Value, metric: &str| match line["metrics"][metric]["p75"].as_f64() {
        None => "-".to_owned(),
        Some(shift) if metric == "cls" => format!("{shift:.3}"),
        Some(ms) => format!("{ms:.0} ms"),
    };
    let rows = |metrics: &[&str], has_good: bool| -> Vec<Vec<String>> {
        let row = |line: &&Value| {
            let mut row = vec![name(line), cell(&line["views"])];
            row.extend(metrics.iter().map(|metric| value(line, metric)));
            let lcp = &line["metrics"]["lcp"];
            row.extend(has_good.then(|| share(&lcp["good"], &lcp["views"])));
            row
        };
        lines.iter().map(row).collect()
    };
    let mut text = String::from("75th percentiles: three of four page views were at least as fast\n\n");
    let head = ["", "VIEWS", "TTFB", "FCP", "LCP", "INP", "CLS", "LOAD", "LCP GOOD"];
    text.push_str(&table(&head, &rows(&VITALS, true)));
    text.push_str("\nwhat the time to the first byte is made of\n\n");
    text.push_str(&table(&["", "VIEWS", "REDIRECT", "DNS", "CONNECT", "TLS", "WAIT"], &rows(&PARTS, false)));
    text
}

/// Sums by key, one line each.
pub(crate) fn totals(answer: &Value) -> String {
    let rows = answer["totals"].as_array().into_iter().flatten().map(|sums| {
        vec![
            if sums["key"].is_null() { "all".to_owned() } else { cell(&sums["key"]) },
            cell(&sums["requests"]),
            share(&sums["hits"], &sums["requests"]),
            bytes(&sums["bytes"]),
            share(&sums["hit_bytes"], &sums["bytes"]),
            cell(&sums["errors"]),
            cell(&sums["origin_requests"]),
            bytes(&sums["origin_bytes"]),
            time(&sums["ttfb_us"]["p50"]),
            time(&sums["ttfb_us"]["p95"]),
            time(&sums["ttfb_us"]["p99"]),
        ]
    });
    let head = [
        "",
        "REQUESTS",
        "HITS",
        "BYTES",
        "HIT BYTES",
        "ERRORS",
        "ORIGIN",
        "ORIGIN BYTES",
        "P50",
        "P95",
        "P99",
    ];
    let mut text = table(&head, &rows.collect::<Vec<_>>());
    if let Some(lost) = answer["lost"]["reports"].as_u64().filter(|lost| *lost > 0) {
        text.push_str(&format!("{lost} seconds of nodes could not be delivered and are missing\n"));
    }
    text
}

fn urls(answer: &Value) -> String {
    let items: Vec<&Value> = answer["items"].as_array().into_iter().flatten().collect();
    let has_why = items.iter().any(|item| !item["why"].is_null());
    let rows = items.iter().map(|item| {
        let mut row = vec![cell(&item["requests"]), bytes(&item["bytes"])];
        row.extend(has_why.then(|| cell(&item["why"])));
        row.extend([cell(&item["site"]), cell(&item["url"])]);
        row
    });
    let head: &[&str] = match has_why {
        true => &["REQUESTS", "BYTES", "WHY", "SITE", "URL"],
        false => &["REQUESTS", "BYTES", "SITE", "URL"],
    };
    let mut text = table(head, &rows.collect::<Vec<_>>());
    let too_high = items.iter().filter_map(|item| item["at_most_too_high"].as_u64()).max().unwrap_or(0);
    let error = answer["error_at_most"].as_u64().unwrap_or(0);
    if error > 0 || too_high > 0 {
        text.push_str(&format!(
            "counts are too low by {error} at most, and too high by {too_high} at most\n"
        ));
    }
    text
}

/// Reasons, those that are no hits with an example and what to do.
fn whys(answer: &Value) -> String {
    let items: Vec<&Value> = answer["items"].as_array().into_iter().flatten().collect();
    let all: u64 = items.iter().filter_map(|item| item["requests"].as_u64()).sum();
    let rows = items.iter().map(|item| {
        vec![
            cell(&item["why"]),
            cell(&item["requests"]),
            share(&item["requests"], &Value::from(all)),
            bytes(&item["bytes"]),
            cell(&item["about"]),
        ]
    });
    let mut text = table(&["WHY", "REQUESTS", "SHARE", "BYTES", "WHAT IT MEANS"], &rows.collect::<Vec<_>>());
    for item in items.iter().filter(|item| item["is_hit"] == false) {
        let (example, next) = (&item["example"], &item["next"]);
        if example.is_null() && next.is_null() {
            continue;
        }
        text.push_str(&format!("\n{}\n", cell(&item["why"])));
        if !example.is_null() {
            text.push_str(&format!(
                "  e.g. {}\n       {}\n",
                cell(&example["url"]),
                cell(&example["cache_status"])
            ));
        }
        if !next.is_null() {
            text.push_str(&format!("  {}\n", cell(next)));
        }
    }
    text
}

/// A part of a whole, in percent.
pub(crate) fn share(part: &Value, whole: &Value) -> String {
    match (part.as_f64(), whole.as_f64()) {
        (Some(part), Some(whole)) if whole > 0.0 => format!("{:.1} %", 100.0 * part / whole),
        _ => "-".to_owned(),
    }
}

/// Bytes, in the unit that fits: of 1,000, as traffic is sold.
pub(crate) fn bytes(value: &Value) -> String {
    let Some(count) = value.as_f64() else { return "-".to_owned() };
    if count < 999.5 {
        return format!("{count:.0} B");
    }
    let mut count = count / 1e3;
    for unit in ["kB", "MB", "GB", "TB"] {
        // By what would be shown: 999,950 are 1.0 MB.
        if count < 999.95 {
            return format!("{count:.1} {unit}");
        }
        count /= 1e3;
    }
    format!("{count:.1} PB")
}

/// Microseconds, in the unit that fits.
pub(crate) fn time(value: &Value) -> String {
    match value.as_u64() {
        None => "-".to_owned(),
        Some(us @ 0..1_000) => format!("{us} µs"),
        Some(us @ 1_000..999_950) => format!("{:.1} ms", us as f64 / 1e3),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_have_the_unit_that_fits() {
        for (count, wanted) in [
            (json!(0), "0 B"),
            (json!(114.285_714), "114 B"),
            (json!(999), "999 B"),
            (json!(999.5), "1.0 kB"),
            (json!(1_000), "1.0 kB"),
            (json!(999_949), "999.9 kB"),
            (json!(999_950), "1.0 MB"),
            (json!(2_500_000_000_000_i64), "2.5 TB"),
        ] {
            assert_eq!(bytes(&count), wanted);
        }
        for (us, wanted) in [
            (json!(null), "-"),
            (json!(999), "999 µs"),
            (json!(1_500), "1.5 ms"),
            (json!(999_949), "999.9 ms"),
            (json!(999_950), "1.0 s"),
            (json!(2_000_000), "2.0 s"),
        ] {
            assert_eq!(time(&us), wanted);
        }
        assert_eq!(share(&json!(1), &json!(3)), "33.3 %");
        assert_eq!(share(&json!(0), &json!(0)), "-");
    }

    #[test]
    fn page_views_are_shown_with_their_percentiles() {
        let line = |key: &str| {
            json!({ "key": key, "views": 4, "metrics": {
                "ttfb": { "views": 4, "p75": 48.0 }, "cls": { "views": 4, "p75": 0.021 },
                "lcp": { "views": 4, "p75": 613.0, "good": 3 }, "wait": { "views": 4, "p75": 31.0 } } })
        };
        let mut total = line("");
        total["key"] = Value::Null;
        assert_eq!(
            views(&json!({ "items": [line("fra")], "total": total })),
            "75th percentiles: three of four page views were at least as fast\n\n\
             \x20    VIEWS  TTFB   FCP  LCP     INP  CLS    LOAD  LCP GOOD\n\
             fra  4      48 ms  -    613 ms  -    0.021  -     75.0 %\n\
             all  4      48 ms  -    613 ms  -    0.021  -     75.0 %\n\
             \nwhat the time to the first byte is made of\n\n\
             \x20    VIEWS  REDIRECT  DNS  CONNECT  TLS  WAIT\n\
             fra  4      -         -    -        -    31 ms\n\
             all  4      -         -    -        -    31 ms\n"
        );
    }

    #[test]
    fn a_reason_is_shown_with_its_example_and_what_to_do() {
        let answer = json!({ "items": [
            { "why": "fresh", "about": "It was there.", "next": null, "is_hit": true, "requests": 3, "bytes": 30, "example": null },
            { "why": "absent", "about": "It was not.", "next": "Wait.", "is_hit": false, "requests": 1, "bytes": 10,
              "example": { "url": "https://a/", "at": 1, "pop": "fra", "cache_status": "e; fwd=miss" } },
        ]});
        assert_eq!(
            whys(&answer),
            "WHY     REQUESTS  SHARE   BYTES  WHAT IT MEANS\n\
             fresh   3         75.0 %  30 B   It was there.\n\
             absent  1         25.0 %  10 B   It was not.\n\
             \nabsent\n  e.g. https://a/\n       e; fwd=miss\n  Wait.\n"
        );
    }
}
