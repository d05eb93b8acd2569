//! A plan in words, for a terminal.

use crate::cluster::table;

use super::report::{Pop, Report, Served};

/// Countries that are named.
const COUNTRIES_SHOWN: usize = 8;

pub(super) fn percent(part: f64) -> String {
    match part * 100.0 {
        percent if percent > 0.0 && percent < 0.95 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

pub(super) fn ms(ms: f64) -> String {
    if ms.abs() < 9.95 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

/// An amount, with spaces between thousands.
pub(super) fn whole(amount: f64) -> String {
    let digits = format!("{:.0}", amount.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if amount <= -0.5 { format!("-{text}") } else { text }
}

pub(super) fn maybe(value: Option<f64>, shown: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), shown)
}

/// What the table of PoPs says of one: name, city, whether it is new, share, cost, mean, gain, gain for 100; and when it is gone:
/// mean, share within 50 ms, who is busiest then.
pub(super) fn cells_of(pop: &Pop) -> Vec<String> {
    let loss = pop.loss.as_ref();
    vec![
        pop.name.clone(),
        pop.city.clone(),
        if pop.is_new { "new".to_owned() } else { "there".to_owned() },
        percent(pop.share),
        whole(pop.cost),
        maybe(pop.mean_ms, ms),
        maybe(pop.gain_ms, ms),
        maybe(pop.gain_ms_per_100, ms),
        maybe(loss.map(|loss| loss.mean_ms), ms),
        maybe(loss.map(|loss| loss.within_50_ms), percent),
        loss.map_or_else(
            || "-".to_owned(),
            |loss| format!("{} {}", loss.busiest, percent(loss.busiest_share)),
        ),
    ]
}

fn served(served: &Served) -> String {
    format!(
        "mean {} ms, 95 % within {} ms, {} of demand within 50 ms ({})",
        ms(served.mean_ms),
        ms(served.p95_ms),
        percent(served.within_50_ms),
        served.basis()
    )
}

/// What the demand is, in a line.
pub(super) fn demand(report: &Report) -> String {
    let demand = &report.demand;
    let mut parts = Vec::new();
    if let Some((requests, days)) = demand.requests.zip(demand.days) {
        parts.push(format!("{} requests in {days:.1} days", whole(requests as f64)));
    }
    if let Some(gb) = demand.gb_month {
        parts.push(format!("{} GB a month", whole(gb)));
    }
    parts.push(format!("{} countries, {} places", demand.countries.len(), demand.places));
    if demand.unlocated > 0.0 {
        parts.push(format!("{} from nobody knows where, left out", percent(demand.unlocated)));
    }
    format!("{}: {}", demand.source, parts.join("; "))
}

pub(super) fn describe(report: &Report) -> String {
    let currency = &report.prices.currency;
    let countries = report.demand.countries.iter().take(COUNTRIES_SHOWN);
    let countries: Vec<String> = countries.map(|(code, part)| format!("{code} {}", percent(*part))).collect();
    let mut words = format!("Demand  {}\n        {}\n", demand(report), countries.join(", "));
    match &report.today {
        Some(today) => {
            let cost =
                today.cost.map_or_else(String::new, |cost| format!(", {} {currency} a month", whole(cost)));
            words.push_str(&format!("Today   {}{cost}: {}\n", today.what, served(&today.served)));
        }
        None => words.push_str(
            "Today   not known: --config FILE has today's PoPs, --origin PLACE is where all comes from\n",
        ),
    }

    let plan = &report.plan;
    words.push_str(&format!(
        "Plan    {}: {}\n        {} {currency} a month more; {}\n",
        plan.reason,
        served(&plan.served),
        whole(plan.cost),
        match plan.is_proven_best {
            true => "no other choice of so many is better",
            false => "the best that was found; a better one may exist",
        }
    ));
    if let Some(page) = &plan.page {
        words.push_str(&format!(
            "        a page of {} round trips: {} ms of waiting instead of {} (estimated: hits alone, no transfer, no rendering)\n",
            page.trips,
            ms(page.planned_ms),
            ms(page.today_ms)
        ));
    }

    words.push_str("\nWhat to build, in this order; and what there is when one is gone\n");
    let rows: Vec<Vec<String>> = plan.pops.iter().map(cells_of).collect();
    let per_100 = format!("PER 100 {currency}");
    let head = [
        "POP",
        "CITY",
        "",
        "SHARE",
        currency,
        "MEAN MS",
        "GAINS",
        &per_100,
        "GONE: MEAN",
        "<=50 MS",
        "BUSIEST THEN",
    ];
    words.push_str(&table(&head, &rows));

    words.push_str("\nMore PoPs: the best set of each size\n");
    let rows: Vec<Vec<String>> = (report.steps.iter())
        .map(|step| {
            vec![
                step.added.len().to_string(),
                ms(step.served.mean_ms),
                ms(step.served.p95_ms),
                percent(step.served.within_50_ms),
                whole(step.cost),
                maybe(step.gain_ms, ms),
                maybe(step.gain_ms_per_100, ms),
                format!(
                    "{}{}{}",
                    step.added.join(" "),
                    if step.is_knee { "  <- the knee: more bring little" } else { "" },
                    if step.is_proven_best { "" } else { "  (found, not proven best)" }
                ),
            ]
        })
        .collect();
    words.push_str(&table(&["NEW", "MEAN MS", "P95", "<=50 MS", currency, "GAINS", &per_100, "POPS"], &rows));

    words.push_str("\nThe next one, if it is one\n");
    let rows: Vec<Vec<String>> = (report.next.iter())
        .map(|next| {
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
        })
        .collect();
    words.push_str(&table(&["POP", "CITY", "MEAN MS", "P95", "<=50 MS", currency, "GAINS", &per_100], &rows));

    words.push_str("\nPublic networks, by their published locations alone: not how fast they are\n");
    let mut rows: Vec<Vec<String>> = (report.networks.iter())
        .map(|one| {
            vec![
                one.name.clone(),
                one.cities.to_string(),
                ms(one.mean_ms),
                ms(one.p95_ms),
                percent(one.within_50_ms),
                one.as_of.clone(),
            ]
        })
        .collect();
    let own = &plan.served;
    rows.insert(
        0,
        vec![
            "this plan".to_owned(),
            plan.pops.len().to_string(),
            ms(own.mean_ms),
            ms(own.p95_ms),
            percent(own.within_50_ms),
            "-".to_owned(),
        ],
    );
    words.push_str(&table(&["NETWORK", "CITIES", "MEAN MS", "P95", "<=50 MS", "AS OF"], &rows));
    words.push('\n');
    notes(report).iter().for_each(|note| words.push_str(&format!("{note}\n")));
    words
}

/// What the figures rest on.
pub(super) fn notes(report: &Report) -> Vec<String> {
    let mut notes: Vec<String> =
        report.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
    let measured = &report.round_trips.measured;
    notes.push(match measured.taken {
        0 => format!("Round trips are estimates: {}. --measured FILE replaces them where there are any.", report.round_trips.estimate),
        taken => format!(
            "Round trips are measured where there are any ({} taken, {} refused); the rest are estimates: {}, corrected by what was measured.",
            whole(taken as f64),
            whole(measured.refused as f64),
            report.round_trips.estimate
        ),
    });
    notes.push(format!("Prices as of {}: {}.", report.prices.as_of, report.prices.source));
    notes.push(format!("Data: {}.", report.attribution.join("; ")));
    notes
}
