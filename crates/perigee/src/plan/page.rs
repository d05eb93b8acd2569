//! A plan as one page of HTML that needs nothing else: a map, and the tables of the terminal.
//!
//! The map is drawn here, in SVG, from the outlines of control's dashboard; what it shows stands in tables below it, too.

use std::collections::HashMap;

use model::Point;
use website::html::escape;

use super::gather::Gathered;
use super::report::{Report, Served};
use super::words::{cells_of, demand, maybe, ms, notes, percent, whole};

/// Units of the map per radian, as the outlines have it.
const SCALE: f64 = 180.0;
/// Without Antarctica: left, top, width, height.
const VIEW: (f64, f64, f64, f64) = (-490.0, -236.0, 980.0, 432.0);
/// Shades of a country, from little to much.
const LEVELS: f64 = 6.0;
/// A label's height, and the width of a letter.
const LABEL: (f64, f64) = (16.0, 8.4);

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(gathered: &Gathered, report: &Report) -> String {
    let currency = &report.prices.currency;
    let plan = &report.plan;
    let mut body = String::new();
    let title = format!("Where to put PoPs: {}", plan.reason);
    body.push_str(&format!(
        "<h1>{}</h1>\n<p class=\"lead\">{}</p>\n",
        escape(&title),
        escape(&demand(report))
    ));
    body.push_str("<div class=\"cards\">\n");
    if let Some(today) = &report.today {
        card(
            &mut body,
            &format!("Today: {}", today.what),
            &today.served,
            today.cost.map(|cost| format!("{} {currency} a month", whole(cost))),
        );
    }
    let new = plan.pops.iter().filter(|pop| pop.is_new).count();
    card(
        &mut body,
        &format!("Planned: {new} new"),
        &plan.served,
        Some(format!("{} {currency} a month more", whole(plan.cost))),
    );
    if let Some(page) = &plan.page {
        body.push_str(&format!(
            "<section class=\"card\"><h2>A page of {} round trips</h2><p class=\"figure\">{} ms</p><p>of waiting instead of {} ms</p>\
             <p class=\"basis\">estimated: hits alone, no transfer, no rendering</p></section>\n",
            page.trips,
            ms(page.planned_ms),
            ms(page.today_ms)
        ));
    }
    body.push_str("</div>\n");
    body.push_str(&map(gathered, report));

    let rows = plan.pops.iter().map(cells_of);
    let per_100 = format!("ms per 100 {currency}");
    let month = format!("{currency} a month");
    let head = [
        "PoP",
        "City",
        "",
        "Serves",
        &month,
        "Mean, ms",
        "Gains, ms",
        &per_100,
        "Mean when gone",
        "≤ 50 ms when gone",
        "Busiest then",
    ];
    table(&mut body, "What to build, in this order", &head, 3, rows, |_| false);

    let rows = report.steps.iter().map(|step| {
        let proof = if step.is_proven_best { "" } else { " (found, not proven best)" };
        let knee = if step.is_knee { " — the knee: more bring little" } else { "" };
        vec![
            format!("{}{knee}{proof}", step.added.join(" ")),
            step.added.len().to_string(),
            ms(step.served.mean_ms),
            ms(step.served.p95_ms),
            percent(step.served.within_50_ms),
            whole(step.cost),
            maybe(step.gain_ms, ms),
            maybe(step.gain_ms_per_100, ms),
        ]
    });
    let head = [
        "The best set of each size",
        "New",
        "Mean, ms",
        "95 % within, ms",
        "≤ 50 ms",
        &month,
        "Gains, ms",
        &per_100,
    ];
    table(&mut body, "More PoPs", &head, 1, rows, |index| report.steps[index].is_knee);

    let rows = report.next.iter().map(|next| {
        vec![
            next.name.clone(),
            next.city.clone(),
            ms(next.served.mean_ms),
            ms(next.served.p95_ms),
            percent(next.served.within_50_ms),
            whole(next.cost),
            maybe(next.gain_ms, ms),
            maybe(next.gain_ms_per_100, ms),
        ]
    });
    let head = ["PoP", "City", "Mean, ms", "95 % within, ms", "≤ 50 ms", &month, "Gains, ms", &per_100];
    table(&mut body, "The next one, if it is one", &head, 2, rows, |_| false);

    let own = [(
        "this plan",
        plan.pops.len(),
        plan.served.mean_ms,
        plan.served.p95_ms,
        plan.served.within_50_ms,
        "-",
    )];
    let others = (report.networks.iter())
        .map(|one| (&*one.name, one.cities, one.mean_ms, one.p95_ms, one.within_50_ms, &*one.as_of));
    let rows = own.into_iter().chain(others).map(|(name, cities, mean_ms, p95_ms, near, as_of)| {
        vec![name.to_owned(), as_of.to_owned(), cities.to_string(), ms(mean_ms), ms(p95_ms), percent(near)]
    });
    let head = ["Network", "List as of", "Cities", "Mean, ms", "95 % within, ms", "≤ 50 ms"];
    table(
        &mut body,
        "Public networks, by their published locations alone: not how fast they are",
        &head,
        2,
        rows,
        |index| index == 0,
    );

    let countries = report.demand.countries.iter().map(|(code, part)| vec![code.clone(), percent(*part)]);
    body.push_str("<details><summary>Demand by country</summary>\n");
    table(&mut body, "", &["Country", "Part"], 1, countries, |_| false);
    body.push_str("</details>\n<footer>\n");
    notes(report).iter().for_each(|note| body.push_str(&format!("<p>{}</p>\n", escape(note))));
    for one in &report.networks {
        body.push_str(&format!(
            "<p>{}, {}: {}.</p>\n",
            escape(&one.name),
            escape(&one.as_of),
            escape(&one.source)
        ));
    }
    body.push_str("<p>Outlines: Natural Earth (naturalearthdata.com), public domain.</p>\n</footer>\n");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(&title)
    )
}

fn card(body: &mut String, title: &str, served: &Served, cost: Option<String>) {
    let cost = cost.map_or_else(String::new, |cost| format!("<p>{}</p>", escape(&cost)));
    body.push_str(&format!(
        "<section class=\"card\"><h2>{}</h2><p class=\"figure\">{} ms</p><p>mean round trip; 95 % within {} ms, {} of demand within 50 ms</p>{cost}\
         <p class=\"basis\">{}</p></section>\n",
        escape(title),
        ms(served.mean_ms),
        ms(served.p95_ms),
        percent(served.within_50_ms),
        escape(&served.basis())
    ));
}

/// The first `texts` columns are text, the others figures.
fn table(
    body: &mut String,
    title: &str,
    head: &[&str],
    texts: usize,
    rows: impl Iterator<Item = Vec<String>>,
    is_marked: impl Fn(usize) -> bool,
) {
    let class = |column: usize| if column < texts { "" } else { " class=\"number\"" };
    let heads: Vec<String> = head
        .iter()
        .enumerate()
        .map(|(column, name)| format!("<th scope=\"col\"{}>{}</th>", class(column), escape(name)))
        .collect();
    let caption = if title.is_empty() { String::new() } else { format!("<h2>{}</h2>\n", escape(title)) };
    body.push_str(&format!(
        "{caption}<div class=\"scroll\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n",
        heads.concat()
    ));
    for (index, row) in rows.enumerate() {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("<td{}>{}</td>", class(column), escape(cell)))
            .collect();
        let mark = if is_marked(index) { " class=\"marked\"" } else { "" };
        body.push_str(&format!("<tr{mark}>{}</tr>\n", cells.concat()));
    }
    body.push_str("</tbody></table></div>\n");
}

// --- The map ---

/// Equal Earth (Šavrič, Patterson and Jenny 2018), as the outlines were drawn.
fn project(point: Point) -> (f64, f64) {
    let [a1, a2, a3, a4] = [1.340264, -0.081106, 0.000893, 0.003796];
    let half = 3f64.sqrt() / 2.0;
    let theta = (half * point.latitude.to_radians().sin()).asin();
    let square = theta * theta;
    let six = square.powi(3);
    let x = point.longitude.to_radians() * theta.cos()
        / (half * (a1 + 3.0 * a2 * square + six * (7.0 * a3 + 9.0 * a4 * square)));
    let y = theta * (a1 + a2 * square + six * (a3 + a4 * square));
    (x * SCALE, -y * SCALE)
}

fn map(gathered: &Gathered, report: &Report) -> String {
    let parts: HashMap<&str, f64> =
        report.demand.countries.iter().map(|(code, part)| (&**code, *part)).collect();
    let most = report.demand.countries.first().map_or(1.0, |(_, part)| *part);
    let level = |code: &str| match parts.get(code) {
        Some(part) if *part > 0.0 => ((part / most).sqrt() * LEVELS).ceil().clamp(1.0, LEVELS) as usize,
        _ => 0,
    };
    let names: Vec<&str> = report.plan.pops.iter().map(|pop| &*pop.name).collect();
    let said = format!("PoPs: {}. Countries are the darker the more is asked there.", names.join(", "));
    let (left, top, width, height) = VIEW;
    let mut svg = format!(
        "<figure><svg class=\"map\" role=\"img\" aria-labelledby=\"map-title map-text\" viewBox=\"{left} {top} {width} {height}\">\n\
         <title id=\"map-title\">PoPs and demand in the world</title><desc id=\"map-text\">{}</desc>\n<g transform=\"scale(.1)\">\n",
        escape(&said)
    );
    for (code, path) in control::outlines() {
        let told = parts
            .get(code)
            .map_or_else(String::new, |part| format!("<title>{code}: {}</title>", percent(*part)));
        svg.push_str(&format!(
            "<path class=\"land level-{}\" d=\"{}\">{told}</path>\n",
            level(code),
            escape(path)
        ));
    }
    svg.push_str("</g>\n");
    // Dots first, so that no label lies below one.
    let spots: Vec<(f64, f64)> =
        report.plan.set.iter().map(|offer| project(gathered.offers[*offer].place.point)).collect();
    let mut taken: Vec<(f64, f64, f64, f64)> =
        spots.iter().map(|(x, y)| (x - 7.0, y - 7.0, 14.0, 14.0)).collect();
    for ((x, y), pop) in spots.into_iter().zip(&report.plan.pops) {
        let wide = pop.name.chars().count() as f64 * LABEL.1 + 4.0;
        let places = [
            (x + 10.0, y - LABEL.0 / 2.0, "start", x + 10.0),
            (x - 10.0 - wide, y - LABEL.0 / 2.0, "end", x - 10.0),
            (x - wide / 2.0, y - 10.0 - LABEL.0, "middle", x),
            (x - wide / 2.0, y + 10.0, "middle", x),
        ];
        let is_free = |at: &(f64, f64, f64, f64)| {
            taken.iter().all(|other| {
                at.0 > other.0 + other.2
                    || other.0 > at.0 + at.2
                    || at.1 > other.1 + other.3
                    || other.1 > at.1 + at.3
            })
        };
        let found = places.into_iter().find(|(at_x, at_y, ..)| {
            is_free(&(*at_x, *at_y, wide, LABEL.0)) && *at_x > left && at_x + wide < left + width
        });
        let label = found.map_or_else(String::new, |(at_x, at_y, anchor, text_x)| {
            taken.push((at_x, at_y, wide, LABEL.0));
            let text_y = at_y + LABEL.0 * 0.75;
            format!(
                "<text x=\"{text_x:.1}\" y=\"{text_y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                escape(&pop.name)
            )
        });
        let class = if pop.is_new { "new" } else { "there" };
        svg.push_str(&format!(
            "<g class=\"pop {class}\"><title>{}, {}: serves {}</title><circle class=\"halo\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"10\"/>\
             <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5.5\"/>{label}</g>\n",
            escape(&pop.name),
            escape(&pop.city),
            percent(pop.share)
        ));
    }
    svg.push_str("</svg>\n<figcaption><span class=\"key new\"></span> new");
    if report.plan.pops.iter().any(|pop| !pop.is_new) {
        svg.push_str(" <span class=\"key there\"></span> there already");
    }
    svg.push_str(" · the darker a country, the more is asked there</figcaption></figure>\n");
    svg
}
