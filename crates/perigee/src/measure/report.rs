//! What was measured, in words, as JSON, and as a page for people.

use insight::stats;
use serde_json::{Value, json};
use website::html::escape;

use super::film::{self, Film, PICTURES_BYTES_MAX};
use super::packets::Shape;
use super::place::{self, Means};
use super::series::{Budget, Comparison, METRICS, Series, TIMES, View};

/// Requests of a waterfall that are drawn.
const ROWS_MAX: usize = 60;

/// All that was measured.
pub(super) struct Report {
    pub(super) url: String,
    level: f64,
    runs: u32,
    pub(super) browser: String,
    pub(super) places: Vec<Place>,
}

/// What was measured from one place.
pub(super) struct Place {
    pub(super) place: place::Place,
    /// How it is emulated, where it is.
    pub(super) means: Option<Means>,
    pub(super) series: Vec<Series>,
    /// A film by each way, where they are wanted.
    films: Vec<Film>,
    /// The series that are compared, and each time of theirs.
    pairs: Vec<(usize, usize, Vec<Comparison>)>,
}

impl Place {
    /// Compares each way with the origin, view by view, and decides what may be claimed, for all of them together.
    pub(super) fn new(
        place: place::Place,
        means: Option<Means>,
        series: Vec<Series>,
        films: Vec<Film>,
        level: f64,
    ) -> Place {
        let mut pairs = Vec::new();
        for (after, edge) in series.iter().enumerate().filter(|(_, one)| one.is_edge) {
            let view = if edge.view == View::Cold { View::First } else { edge.view };
            let Some(before) = series.iter().position(|one| !one.is_edge && one.view == view) else {
                continue;
            };
            let compared = (0..TIMES).filter_map(|metric| Comparison::of(&series[before], edge, metric));
            pairs.push((before, after, compared.collect::<Vec<_>>()));
        }
        let ps: Vec<f64> = pairs.iter().flat_map(|(.., compared)| compared).map(|one| one.test.p).collect();
        let claimed = stats::claims(&ps, level);
        let all = pairs.iter_mut().flat_map(|(.., compared)| compared);
        all.zip(claimed).for_each(|(one, is_claimed)| one.is_claimed = is_claimed);
        Place { place, means, series, films, pairs }
    }

    fn title(&self) -> String {
        let Some(means) = self.means else { return format!("From {}", self.place.name) };
        format!("From {}: {} ({})", self.place.name, self.place.line(), means.words())
    }
}

fn milliseconds(shape: Shape) -> f64 {
    shape.round_trip.as_secs_f64() * 1e3
}

/// What a comparison comes to, in one sentence.
pub(super) fn sentence(one: &Comparison) -> String {
    let (name, unit) = METRICS[one.metric];
    let what = match name {
        "ttfb" => "The first byte comes",
        "fcp" => "The first content shows",
        "lcp" => "The main content shows",
        _ => "The page is loaded",
    };
    if !one.is_claimed {
        let p = one.test.p;
        return format!(
            "{what} after {} instead of {}: no difference that can be told from chance (p = {p:.3})",
            unit.words(one.after),
            unit.words(one.before)
        );
    }
    let gain = one.before - one.after;
    let word = if gain >= 0.0 { "sooner" } else { "later" };
    let (low, high) =
        (one.interval.0.abs().min(one.interval.1.abs()), one.interval.0.abs().max(one.interval.1.abs()));
    format!(
        "{what} {} {word}: after {} instead of {} ({:.0} %; {} to {} with 95 % confidence, p = {:.5})",
        unit.words(gain.abs()),
        unit.words(one.after),
        unit.words(one.before),
        gain.abs() / one.before.max(1e-9) * 100.0,
        unit.words(low),
        unit.words(high),
        one.test.p
    )
}

impl Report {
    pub(super) fn new(url: &str, level: f64, runs: u32) -> Report {
        Report { url: url.to_owned(), level, runs, browser: String::new(), places: Vec::new() }
    }

    /// What is over the budget: medians of the first view, by way of the CDN where there is one.
    pub(super) fn over(&self, budget: &Budget) -> Vec<String> {
        let mut over = Vec::new();
        for place in &self.places {
            let has_edge = place.series.iter().any(|one| one.is_edge);
            let meant = place.series.iter().filter(|one| one.view == View::First && one.is_edge == has_edge);
            for series in meant {
                for (metric, most) in &budget.0 {
                    let (name, unit) = METRICS[*metric];
                    match series.median(*metric) {
                        Some(median) if median <= *most => {}
                        Some(median) => over.push(format!(
                            "{name} from {} by way of {}: {} and at most {} is wanted",
                            place.place.name,
                            series.way,
                            unit.words(median),
                            unit.words(*most)
                        )),
                        None => over.push(format!("{name} from {}: the page showed none", place.place.name)),
                    }
                }
            }
        }
        over
    }

    pub(super) fn json(&self) -> Value {
        let places: Vec<Value> = (self.places.iter())
            .map(|place| {
                let comparisons: Vec<Value> = (place.pairs.iter())
                    .flat_map(|(before, after, compared)| compared.iter().map(move |one| (*before, *after, one)))
                    .map(|(before, after, one)| {
                        json!({
                            "before": place.series[before].name(), "after": place.series[after].name(), "metric": METRICS[one.metric].0,
                            "median_before": one.before, "median_after": one.after, "gain_ms": one.before - one.after,
                            "interval95_ms": one.interval, "u": one.test.u, "p": one.test.p, "claimed": one.is_claimed,
                        })
                    })
                    .collect();
                json!({
                    "name": place.place.name, "emulated": place.means.is_some(), "emulated_by": place.means.map(Means::name),
                    "round_trip_origin_ms": milliseconds(place.place.to_origin), "round_trip_edges_ms": milliseconds(place.place.to_edges),
                    "rate_bits": place.place.to_origin.rate, "loss": place.place.to_origin.loss,
                    "films": place.films.iter().map(Film::json).collect::<Vec<_>>(), "comparisons": comparisons,
                    "series": place.series.iter().map(Series::json).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "url": self.url, "browser": self.browser, "runs": self.runs, "level": self.level, "places": places })
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}, {} rounds, {}\n", self.url, self.runs, self.browser);
        for place in &self.places {
            text.push_str(&format!("\n{}\n  {:<30}", place.title(), ""));
            METRICS.iter().for_each(|(name, _)| text.push_str(&format!("{name:>11}")));
            text.push_str("       hits\n");
            for series in &place.series {
                text.push_str(&format!("  {:<30}", series.name()));
                for (index, (_, unit)) in METRICS.iter().enumerate() {
                    let cell = series.median(index).map_or("-".to_owned(), |value| unit.words(value));
                    text.push_str(&format!("{cell:>11}"));
                }
                let (hits, of) = series.hits();
                text.push_str(&if of > 0 {
                    format!("{:>11}\n", format!("{hits}/{of}"))
                } else {
                    format!("{:>11}\n", "-")
                });
            }
            for (before, after, compared) in &place.pairs {
                text.push_str(&format!(
                    "\n  {} against {}:\n",
                    place.series[*after].name(),
                    place.series[*before].name()
                ));
                compared.iter().for_each(|one| text.push_str(&format!("    {}\n", sentence(one))));
            }
        }
        text.push_str(&format!("\n{}\n", self.honesty()));
        text
    }

    fn honesty(&self) -> String {
        format!(
            "Medians. Differences are claimed by the rank test of Mann and Whitney with Holm's correction, so that a place without any difference \
             gets a claim in {:.1} % of reports at most.",
            self.level * 100.0
        )
    }

    /// A page that stands alone: no script, nothing from elsewhere.
    pub(super) fn html(&self) -> String {
        let mut html = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>{0}</title><style>{STYLE}</style>\
             <h1>How fast is {0}?</h1><p class=by>{1} rounds, {2}</p>",
            escape(&self.url),
            self.runs,
            escape(&self.browser)
        );
        let mut room = PICTURES_BYTES_MAX;
        for (number, place) in self.places.iter().enumerate() {
            html.push_str(&format!("<h2>{}</h2>", escape(&place.title())));
            for (before, after, compared) in &place.pairs {
                let (before, after) = (&place.series[*before], &place.series[*after]);
                html.push_str(&format!(
                    "<h3>{} against {}</h3><ul>",
                    escape(&after.name()),
                    escape(&before.name())
                ));
                for one in compared {
                    let class = match (one.is_claimed, one.after <= one.before) {
                        (false, _) => "same",
                        (true, true) => "good",
                        (true, false) => "bad",
                    };
                    html.push_str(&format!("<li class={class}>{}", escape(&sentence(one))));
                }
                html.push_str("</ul>");
            }
            html.push_str(&film::strips(&place.films, number, &mut room));
            html.push_str(&bars(&place.series));
            html.push_str("<h3>What was loaded, in the visit in the middle</h3>");
            place.series.iter().for_each(|series| html.push_str(&waterfall(series)));
        }
        html.push_str(&format!("<p class=by>{}</p></html>\n", escape(&self.honesty())));
        html
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#223}h1{font-size:1.6em}h2{margin-top:2em;\
border-top:1px solid #ccd;padding-top:1em}li.good::marker{content:'✓ ';color:#187a3c}li.bad::marker{content:'✗ ';color:#b3261e}\
li.same::marker{content:'= ';color:#667}.by{color:#667}table{border-collapse:collapse;width:100%}td,th{padding:.2em .5em;text-align:right}\
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}details{margin:.5em 0}summary{cursor:pointer}\
.film{overflow-x:auto}.film table{width:auto}.frame{width:120px;height:68px;border:1px solid #ccd;background:#fff center/contain no-repeat}text{font:11px system-ui,sans-serif;fill:#223}";

/// Medians with their intervals, a bar for each time.
fn bars(series: &[Series]) -> String {
    let mut html = String::from("<table><tr><th>");
    METRICS.iter().for_each(|(name, _)| html.push_str(&format!("<th>{}", name.to_uppercase())));
    html.push_str("<th>cache hits");
    for one in series {
        html.push_str(&format!("<tr><td>{}", escape(&one.name())));
        for (index, (_, unit)) in METRICS.iter().enumerate() {
            match (one.median(index), one.interval(index)) {
                (Some(median), Some((low, high))) => html.push_str(&format!(
                    "<td title=\"{} to {} with 95 % confidence\">{}",
                    unit.words(low),
                    unit.words(high),
                    unit.words(median)
                )),
                _ => html.push_str("<td>–"),
            }
        }
        let (hits, of) = one.hits();
        html.push_str(&if of > 0 { format!("<td>{hits} of {of}") } else { "<td>–".to_owned() });
    }
    html.push_str("</table>");
    for metric in [2, 3] {
        let most = series.iter().filter_map(|one| Some(one.interval(metric)?.1)).fold(1.0, f64::max);
        let height = series.len() * 26 + 20;
        html.push_str(&format!(
            "<svg viewBox=\"0 0 720 {height}\" role=img><text x=0 y=12 font-weight=bold>{}</text>",
            if metric == 2 { "Main content visible (LCP)" } else { "Page loaded" }
        ));
        for (index, one) in series.iter().enumerate() {
            let (Some(median), Some((low, high))) = (one.median(metric), one.interval(metric)) else {
                continue;
            };
            let (y, x) = (20 + index * 26, |value: f64| 220.0 + value / most * 400.0);
            let colour = if one.is_edge { "#2b7de9" } else { "#9aa4b2" };
            html.push_str(&format!(
                "<text x=0 y={}>{}</text><rect x=220 y={y} width={:.1} height=18 fill=\"{colour}\"/><path d=\"M{:.1} {m}H{:.1}\" stroke=\"#223\"/>\
                 <text x={:.1} y={}>{}</text>",
                y + 13,
                escape(&one.name()),
                x(median) - 220.0,
                x(low),
                x(high),
                x(high) + 6.0,
                y + 13,
                METRICS[metric].1.words(median),
                m = y + 9,
            ));
        }
        html.push_str("</svg>");
    }
    html
}

/// Each request of the typical visit as a bar: waiting, then receiving.
fn waterfall(series: &Series) -> String {
    let Some(shot) = series.typical() else { return String::new() };
    let exchanges = &shot.visit.exchanges;
    let most =
        exchanges.iter().filter_map(|one| one.end_ms).fold(shot.visit.load_ms.unwrap_or(1.0), f64::max);
    let shown = exchanges.len().min(ROWS_MAX);
    let height = shown * 16 + 10;
    let mut html = format!(
        "<details><summary>{}: {} requests</summary><svg viewBox=\"0 0 960 {height}\" role=img>",
        escape(&series.name()),
        exchanges.len()
    );
    let x = |ms: f64| 340.0 + ms.max(0.0) / most * 520.0;
    for (row, one) in exchanges.iter().take(ROWS_MAX).enumerate() {
        let y = row * 16 + 4;
        let end = one.end_ms.unwrap_or(most);
        let head = one.head_ms.unwrap_or(end).clamp(one.start_ms, end.max(one.start_ms));
        let cache = match (one.is_from_cache, one.field("cache-status")) {
            (true, _) => "browser".to_owned(),
            (false, Some(status)) => {
                status.rsplit(',').next().unwrap_or(status).trim().chars().take(40).collect()
            }
            (false, None) => String::new(),
        };
        let name: String =
            one.url.rsplit('/').find(|part| !part.is_empty()).unwrap_or(&one.url).chars().take(44).collect();
        html.push_str(&format!(
            "<g><title>{} {} {} {cache}</title><text x=0 y={}>{} {}</text><rect x={:.1} y={y} width={:.1} height=11 fill=\"#c6d4ea\"/>\
             <rect x={:.1} y={y} width={:.1} height=11 fill=\"#2b7de9\"/><text x=868 y={}>{:.0} ms</text></g>",
            escape(&one.url),
            one.status,
            escape(&one.protocol),
            y + 10,
            escape(&name),
            one.status,
            x(one.start_ms),
            x(head) - x(one.start_ms),
            x(head),
            (x(end) - x(head)).max(1.0),
            y + 10,
            end,
            cache = escape(&cache),
        ));
    }
    if let Some(paint) = &shot.visit.lcp {
        html.push_str(&format!(
            "<path d=\"M{0:.1} 0V{height}\" stroke=\"#187a3c\" stroke-dasharray=4><title>LCP</title></path>",
            x(paint.at_ms)
        ));
    }
    html.push_str("</svg></details>");
    html
}
