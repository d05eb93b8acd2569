//! `perigee top`: what a cluster serves now, drawn anew each second. Plain ANSI: clear the screen, write from its corner.

use std::io::IsTerminal;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use clap::Args;
use client::Control;
use serde_json::Value;

use crate::cluster::{Cluster, cell, table};
use crate::failure::Failure;
use crate::stats::{bytes, share, time};

const EXAMPLES: &str = "\
Examples:
  perigee top
  perigee top --site shop --seconds 60

Ctrl-C ends it. Where standard output is no terminal, it prints once.";

/// URLs and reasons that are shown.
const SHOWN: usize = 8;

/// Rates are those of the last seconds but these: nodes say what a second had when it is over.
const SETTLES_SECS: u64 = 3;

/// `perigee top`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    /// Of how many seconds rates are the mean
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only this site
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
}

impl Top {
    /// Draws until it is ended.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let client = self.cluster.client()?;
        let mut page = self.page(&client)?;
        if !std::io::stdout().is_terminal() {
            return crate::print(&page);
        }
        loop {
            // Home, each line to its end, and what is below: nothing flickers.
            let lines: String = page.lines().map(|line| format!("{line}\x1b[K\n")).collect();
            crate::print(&format!("\x1b[H{lines}\x1b[J"))?;
            sleep(Duration::from_secs(1));
            page = self.page(&client).unwrap_or_else(|failure| format!("{failure}\n"));
        }
    }

    fn page(&self, client: &Control) -> Result<String, Failure> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let to = now.saturating_sub(SETTLES_SECS);
        let span = format!("from={}&to={}", (to - self.seconds) * 1000, to * 1000);
        let site = self.site.as_ref().map(|site| format!("&site={}", client::segment(site)));
        let site = site.unwrap_or_default();
        let minute = format!("from={}{site}", (now - 60) * 1000);
        let all = client.fetch(&format!("/v1/stats?step=1s&{span}{site}"))?;
        let pops = client.fetch(&format!("/v1/stats?step=1s&by=pop&{span}{site}"))?;
        let whys = client.fetch(&format!("/v1/stats/why?{span}{site}"))?;
        let urls = client.fetch(&format!("/v1/stats/top?limit={SHOWN}&{minute}"))?;
        Ok(draw(self.seconds, &all, &pops, &whys, &urls))
    }
}

fn draw(seconds: u64, all: &Value, pops: &Value, whys: &Value, urls: &Value) -> String {
    let rate = |value: &Value| format!("{:.1}", value.as_f64().unwrap_or(0.0) / seconds as f64);
    let bit_rate = |value: &Value| {
        let bits = Value::from(value.as_f64().unwrap_or(0.0) * 8.0 / seconds as f64);
        bytes(&bits).replace('B', "bit/s")
    };
    let line = |sums: &Value| {
        let name = if sums["key"].is_null() { "all".to_owned() } else { cell(&sums["key"]) };
        vec![
            name,
            rate(&sums["requests"]),
            share(&sums["hits"], &sums["requests"]),
            bit_rate(&sums["bytes"]),
            share(&sums["hit_bytes"], &sums["bytes"]),
            rate(&sums["errors"]),
            rate(&sums["origin_requests"]),
            time(&sums["ttfb_us"]["p50"]),
            time(&sums["ttfb_us"]["p99"]),
        ]
    };
    let totals = |answer: &Value| answer["totals"].as_array().cloned().unwrap_or_default();
    let rows: Vec<Vec<String>> = totals(all).iter().chain(&totals(pops)).map(line).collect();
    let head = ["POP", "REQUESTS/S", "HITS", "TRAFFIC", "HIT BYTES", "ERRORS/S", "ORIGIN/S", "P50", "P99"];
    let mut text = table(&head, &rows);
    let items = |answer: &Value| answer["items"].as_array().cloned().unwrap_or_default();
    let misses: Vec<Vec<String>> = items(whys)
        .iter()
        .filter(|item| item["is_hit"] == false)
        .take(SHOWN)
        .map(|item| vec![cell(&item["why"]), rate(&item["requests"]), bit_rate(&item["bytes"])])
        .collect();
    if !misses.is_empty() {
        text.push('\n');
        text.push_str(&table(&["NOT FROM THE CACHE", "REQUESTS/S", "TRAFFIC"], &misses));
    }
    let urls: Vec<Vec<String>> = items(urls)
        .iter()
        .map(|item| vec![cell(&item["requests"]), bytes(&item["bytes"]), cell(&item["url"])])
        .collect();
    if !urls.is_empty() {
        text.push('\n');
        text.push_str(&table(&["REQUESTS", "BYTES", "URL, SINCE THE LAST MINUTE BEGAN"], &urls));
    }
    text
}
