//! Results that a cluster's control keeps: told, listed, and compared with each other.

use std::time::Duration;

use clap::{Args, Subcommand};
use client::Control;
use control::is_page_test_name;
use control::limits::{
    PAGE_TEST_BYTES_MAX, PAGE_TEST_NAME_BYTES_MAX, PAGE_TEST_SERIES_MAX, PAGE_TEST_URL_BYTES_MAX,
};
use insight::stats;
use model::units::parse_duration;
use serde_json::{Value, json};

use super::report::{Report, sentence};
use super::series::{Comparison, METRICS, TIMES};
use crate::cluster::{Cluster, cell, show, table, when};
use crate::failure::Failure;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// How far back is looked for a result to compare with: for as long as control keeps them.
const KEPT_MS: i64 = 90 * DAY_MS;

/// What is done with what control keeps.
#[derive(Debug, Subcommand)]
pub(super) enum Kept {
    /// The page tests that control keeps
    List(List),
    /// The newest result of a page test against an earlier one
    Compare(Compare),
    /// Have control forget a page test, with all that it keeps of it
    Forget(Forget),
}

impl Kept {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match self {
            Kept::List(list) => list.run(),
            Kept::Compare(compare) => compare.run(),
            Kept::Forget(forget) => forget.run(),
        }
    }
}

/// `perigee measure list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  perigee measure list")]
pub(super) struct List {
    #[command(flatten)]
    cluster: Cluster,
    /// Print control's answer as JSON
    #[arg(long)]
    json: bool,
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let found = self.cluster.client()?.fetch("/v1/page-tests")?;
        show(self.json, &found, listed)
    }
}

fn listed(answer: &Value) -> String {
    let rows = answer["items"].as_array().into_iter().flatten().map(|one| {
        let over = one["over_budget_count"].as_u64().unwrap_or_default();
        let budget = if over == 0 { "kept".to_owned() } else { format!("{over} over") };
        let newest = [cell(&one["name"]), when(&one["at_ms"]), budget, cell(&one["results"])];
        [&newest[..], &[cell(&one["by"]), cell(&one["url"])]].concat()
    });
    let head = ["NAME", "LAST MEASURED", "BUDGET", "RESULTS", "BY", "PAGE"];
    table(&head, &rows.collect::<Vec<_>>()) + &unread(answer)
}

/// What is kept besides the items of an answer: a line, or nothing.
fn unread(answer: &Value) -> String {
    match answer["unread"].as_u64().unwrap_or_default() {
        0 => String::new(),
        count => format!(
            "\nControl keeps {count} more, which it cannot read: where a newer control has written that, upgrade this one.\n"
        ),
    }
}

/// `perigee measure compare`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  perigee measure compare home\n  perigee measure compare home --ago 1d")]
pub(super) struct Compare {
    /// The page test
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    /// Compare with the newest result that is so much older [default: the one before]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ago: Option<Duration>,
    /// With which probability a difference may be claimed where there is none
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = super::parse_level)]
    level: f64,
    #[command(flatten)]
    cluster: Cluster,
}

/// `perigee measure forget`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  perigee measure forget home")]
pub(super) struct Forget {
    /// The page test
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    #[command(flatten)]
    cluster: Cluster,
}

impl Forget {
    fn run(&self) -> Result<(), Failure> {
        self.cluster.client()?.delete(&format!("/v1/page-tests/{}", escaped(&self.name)))?;
        crate::print(&format!("{} is forgotten, with all that was kept of it\n", self.name))
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|bad| format!("{text:?} {}; write e.g. {}", bad.reason, bad.suggestion))
}

impl Compare {
    fn run(&self) -> Result<(), Failure> {
        let client = self.cluster.client()?;
        let now = crate::now_ms();
        let target = format!("/v1/page-tests/{}?from={}&values=true", escaped(&self.name), now - KEPT_MS);
        let found = client.fetch(&target)?;
        let items = found["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let unread = unread(&found);
        let missing = |what: &str| {
            let next = match unread.trim() {
                "" => "measure it: perigee measure URL --keep NAME",
                unread => unread,
            };
            Failure::new(format!("{what} of {} is kept", self.name), next)
        };
        let at = |one: &Value| one["at_ms"].as_i64().unwrap_or_default();
        let (newest, earlier) = items.split_last().ok_or_else(|| missing("no result"))?;
        let latest = self.ago.map_or(i64::MAX, |ago| at(newest) - ago.as_millis() as i64);
        let before = earlier
            .iter()
            .rfind(|one| at(one) <= latest && one["url"] == newest["url"])
            .ok_or_else(|| missing("no result that is so old, and of the same page,"))?;
        crate::print(&crate::visible_lines(&(describe(&self.name, before, newest, self.level) + &unread)))
    }
}

/// For a path: names that control takes have nothing else.
fn escaped(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

fn describe(name: &str, before: &Value, after: &Value, level: f64) -> String {
    let all = |result: &Value| result["series"].as_array().cloned().unwrap_or_default();
    let values = |series: &Value, metric: usize| -> Vec<f64> {
        let values = series["values"][METRICS[metric].0].as_array().map(Vec::as_slice).unwrap_or_default();
        values.iter().filter_map(Value::as_f64).collect()
    };
    let mut compared = Vec::new();
    for new in all(after) {
        let is_same = |old: &&Value| {
            ["place", "emulated_by", "line", "way", "view"].iter().all(|key| old[*key] == new[*key])
        };
        let Some(old) = all(before).iter().find(is_same).cloned() else { continue };
        let title = format!("From {}, {}, {}", cell(&new["place"]), cell(&new["way"]), cell(&new["view"]));
        let times = (0..TIMES)
            .filter_map(|metric| Comparison::between(&values(&old, metric), &values(&new, metric), metric));
        compared.push((title, times.collect::<Vec<_>>()));
    }
    let ps: Vec<f64> = compared.iter().flat_map(|(_, times)| times).map(|one| one.test.p).collect();
    let claims = stats::claims(&ps, level);
    let times = compared.iter_mut().flat_map(|(_, times)| times);
    times.zip(claims).for_each(|(one, is_claimed)| one.is_claimed = is_claimed);
    let mut text = format!("{name}: {} against {}\n", when(&after["at_ms"]), when(&before["at_ms"]));
    for (title, times) in &compared {
        text.push_str(&format!("\n{title}:\n"));
        times.iter().for_each(|one| text.push_str(&format!("  {}\n", sentence(one))));
    }
    if compared.is_empty() {
        text.push_str(
            "\nNothing was measured both times from the same place, over the same line and by the same means and way.\n",
        );
    }
    text
}

/// What is about to be measured.
pub(super) struct Planned<'a> {
    pub(super) url: &'a str,
    /// Kinds of visits.
    pub(super) series: usize,
    pub(super) runs: u32,
    /// Lines about budgets, at most.
    pub(super) over_max: usize,
}

/// That control will keep it, before it is measured: name, size, and who tells it.
pub(super) fn check(control: &Control, name: &str, planned: &Planned<'_>) -> Result<(), Failure> {
    check_size(name, planned)?;
    let me = control.fetch("/v1/whoami")?;
    let is_bound = me["sites"].is_array();
    if me["role"] == "viewer" || is_bound {
        let bound = if is_bound { ", for some sites alone" } else { "" };
        return Err(Failure::new(
            format!("--keep: the token {} has the role {}{bound}", cell(&me["name"]), cell(&me["role"])),
            "have an admin make one: perigee token add NAME --role purger",
        ));
    }
    Ok(())
}

fn check_size(name: &str, planned: &Planned<'_>) -> Result<(), Failure> {
    // Braces, words and names of a series; of a value what most of them have, digits, point and comma; and a line.
    const SERIES_BYTES: usize = 350;
    const VALUE_BYTES: usize = 8;
    const LINE_BYTES: usize = 100;
    let Planned { url, series, runs, over_max } = planned;
    if !is_page_test_name(name) {
        return Err(Failure::new(
            format!("--keep {name:?} is no name of a page test"),
            format!("write 1 to {PAGE_TEST_NAME_BYTES_MAX} letters, digits, dots, _ and -"),
        ));
    }
    if url.len() > PAGE_TEST_URL_BYTES_MAX {
        return Err(Failure::new(
            format!(
                "--keep: the URL has {} bytes, of which control keeps {PAGE_TEST_URL_BYTES_MAX}",
                url.len()
            ),
            "measure it without --keep",
        ));
    }
    let bytes =
        series * (SERIES_BYTES + METRICS.len() * *runs as usize * VALUE_BYTES) + over_max * LINE_BYTES;
    if *series > PAGE_TEST_SERIES_MAX || bytes > PAGE_TEST_BYTES_MAX {
        return Err(Failure::new(
            format!(
                "--keep: {series} kinds of visits in {runs} rounds have about {bytes} bytes; control keeps \
                 {PAGE_TEST_SERIES_MAX} kinds, and {PAGE_TEST_BYTES_MAX} bytes"
            ),
            "measure in fewer rounds, from fewer places or by fewer edges, or keep them under several names",
        ));
    }
    Ok(())
}

/// What control is told of a report.
pub(super) fn told(name: &str, report: &Report, over_budget: &[String]) -> Value {
    // A thousandth of a millisecond, or of a layout shift's score.
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    let series: Vec<Value> = (report.places.iter())
        .flat_map(|place| place.series.iter().map(move |series| (place, series)))
        .map(|(place, series)| {
            let values: serde_json::Map<String, Value> = (METRICS.iter().enumerate())
                .map(|(index, (metric, _))| {
                    let values: Vec<f64> = series.values(index).into_iter().map(rounded).collect();
                    ((*metric).to_owned(), json!(values))
                })
                .collect();
            json!({
                "place": place.place.name, "emulated_by": place.means.map(super::Means::name),
                "line": place.means.map(|_| place.place.line()), "way": series.way,
                "is_edge": series.is_edge, "view": series.view.words(), "values": values,
            })
        })
        .collect();
    json!({ "name": name, "url": report.url, "browser": report.browser, "series": series, "over_budget": over_budget })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_control_would_not_keep_is_refused_before_it_is_measured() {
        let check = |name: &str, series, runs, over_max| {
            check_size(name, &Planned { url: "https://www.shop.example/", series, runs, over_max })
        };
        assert_eq!(check("home", 5, 9, 1), Ok(()));
        assert_eq!(check("home", 40, 9, 56), Ok(()), "eight places, two ways, a cold edge, and all budgets");
        for (name, series, runs, over_max, wanted) in [
            ("a/b", 2, 9, 0, "no name"),
            ("", 2, 9, 0, "no name"),
            ("home", 65, 1, 0, "65 kinds"),
            ("home", 6, 200, 0, "bytes"),
            ("home", 40, 9, 400, "bytes"),
        ] {
            let refused = check(name, series, runs, over_max).unwrap_err().to_string();
            assert!(refused.contains(wanted) && refused.contains("next:"), "{refused}");
        }
        let url = "a".repeat(2_001);
        assert!(check_size("home", &Planned { url: &url, series: 2, runs: 9, over_max: 0 }).is_err());
    }

    #[test]
    fn what_control_cannot_read_is_told_of_beside_what_it_can() {
        let item = json!({ "name": "home", "over_budget_count": 2, "results": 3, "by": "ci", "url": "https://www.shop.example/" });
        let said = listed(&json!({ "items": [item], "unread": 0 }));
        assert!(said.contains("home") && said.contains("2 over") && !said.contains("cannot read"), "{said}");
        for items in [json!([]), json!([item])] {
            let said = listed(&json!({ "items": items, "unread": 4 }));
            assert!(
                said.contains("Control keeps 4 more, which it cannot read") && said.contains("upgrade"),
                "{said}"
            );
        }
    }

    #[test]
    fn only_what_was_measured_alike_is_compared_and_only_what_is_more_than_chance_is_claimed() {
        let result = |at_ms: i64, way: &str, lcp: &[f64]| json!({ "at_ms": at_ms, "series": [{ "place": "here", "emulated_by": null, "way": way, "view": "first view", "values": { "lcp": lcp } }] });
        let slow: Vec<f64> = (0..9).map(|value| 900.0 + f64::from(value)).collect();
        let fast: Vec<f64> = (0..9).map(|value| 300.0 + f64::from(value)).collect();
        let (before, after) = (result(1, "CDN", &slow), result(2, "CDN", &fast));
        let said = describe("home", &before, &after, 0.01);
        assert!(
            said.contains("The main content shows 600 ms sooner: after 304 ms instead of 904 ms"),
            "{said}"
        );
        assert!(describe("home", &before, &before, 0.01).contains("told from chance"));
        let said = describe("home", &before, &result(2, "origin", &fast), 0.01);
        assert!(said.contains("Nothing was measured both times") && !said.contains("sooner"), "{said}");
        let mut farther = after.clone();
        farther["series"][0]["line"] = json!("200 ms to the origin, 10 ms to the edges");
        let said = describe("home", &before, &farther, 0.01);
        assert!(said.contains("Nothing was measured both times"), "{said}");
    }
}
