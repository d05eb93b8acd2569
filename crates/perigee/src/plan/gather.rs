//! What a plan begins with: who asks from where, which PoPs there are and could be, and how long the way between them is.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use insight::plan::places::{self, Place};
use insight::plan::prices::Prices;
use insight::plan::{Cost, Problem, shares};
use model::routing::{place_names, regions_of_cloud};
use model::steering::{RoundTrips, network_of};
use model::{Point, Snapshot};
use router::estimate::{Estimates, Sample};
use router::location::{Location, UNKNOWN};
use serde::{Deserialize, Serialize};

use super::PlanArgs;
use crate::failure::Failure;
use crate::recorded;

/// Groups of markets among which is chosen; the figures are of all markets.
const GROUPS_MAX: usize = 400;
/// A place nearer than this to a PoP that there is adds nothing.
const SAME_PLACE_KM: f64 = 40.0;
/// Places at most.
const PLACES_MAX: usize = 400;
/// Seconds of a month, as far as prices go.
const MONTH_SECS: f64 = 30.0 * 86_400.0;
/// Nothing is nearer, whatever corrections say.
const TRIP_MS_MIN: f64 = 0.5;

/// Where demand comes from.
#[derive(Clone, Debug)]
pub(super) struct Market {
    pub(super) country: [u8; 2],
    pub(super) point: Point,
    pub(super) weight: f64,
    pub(super) gb: f64,
    /// The cell of the location data; [`UNKNOWN`] when it comes from a share.
    cell: u16,
}

/// Where a PoP is or may be, and for what.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) place: Place,
    /// As `location` of a PoP has it.
    pub(super) location: String,
    pub(super) cost: Cost,
}

/// What is said of the demand.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Demand {
    pub(super) source: String,
    pub(super) requests: Option<u64>,
    pub(super) days: Option<f64>,
    pub(super) gb_month: Option<f64>,
    /// The part of which nobody knows from where it comes; left out of all figures.
    pub(super) unlocated: f64,
    /// Countries and their parts, the largest first.
    pub(super) countries: Vec<(String, f64)>,
    pub(super) places: usize,
}

/// What is said of measurements.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Measured {
    pub(super) taken: u64,
    pub(super) refused: u64,
}

/// See the module's text.
pub(super) struct Gathered {
    pub(super) demand: Demand,
    pub(super) measured: Measured,
    pub(super) markets: Vec<Market>,
    /// Those that there are first.
    pub(super) offers: Vec<Offer>,
    pub(super) problem: Problem,
    pub(super) grouped: Problem,
    /// By place, then by market: whether the round trip rests on measurements.
    is_measured: Vec<Vec<bool>>,
    pub(super) origin: Option<Place>,
    pub(super) config: Option<(String, Snapshot)>,
    pub(super) attribution: Vec<String>,
    pub(super) warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Samples {
    samples: Vec<RoundTrips>,
}

impl Gathered {
    pub(super) fn new(args: &PlanArgs, prices: &Prices) -> Result<Gathered, Failure> {
        let joined = |errors: Vec<String>| Failure::of_sentences(&errors);
        let location =
            args.location.as_deref().map(router::server::read_location).transpose().map_err(joined)?;
        let location = Arc::new(location.unwrap_or_else(Location::empty));
        let config = args.config.as_deref().map(recorded::configuration).transpose()?;
        let origin = args
            .origin
            .as_deref()
            .map(|name| Place::named(name).ok_or_else(|| unknown_place("--origin", name)));
        let origin = origin.transpose()?;
        let mut warnings = Vec::new();
        let (mut demand, mut markets) = match &args.countries {
            Some(path) => from_shares(path)?,
            None => from_logs(args, &location, &mut warnings)?,
        };
        if let Some(traffic) = args.traffic {
            let weights: f64 = markets.iter().map(|market| market.weight).sum();
            markets.iter_mut().for_each(|market| market.gb = traffic * market.weight / weights);
            demand.gb_month = Some(traffic);
        }
        if demand.gb_month.is_none() {
            warnings.push("the traffic is not known, so costs are without it: --traffic GB".to_owned());
        }
        let existing = config.as_ref().map_or(&[][..], |(_, snapshot)| &snapshot.routing.pops);
        let mut offers: Vec<Offer> = Vec::new();
        for pop in existing {
            // Another CDN has no place of its own, and is nothing that could be planned.
            let Some(location) = pop.location else { continue };
            let place = Place::at(&pop.name, location);
            offers.push(Offer { cost: prices.of(&place), location: String::new(), place });
        }
        let kept = offers.len();
        for place in places_of(&args.places)? {
            if offers[..kept].iter().all(|offer| offer.place.point.km(place.point) > SAME_PLACE_KM) {
                offers.push(Offer { cost: prices.of(&place), location: place.name.clone(), place });
            }
        }
        if offers.len() == kept {
            return Err(Failure::new("no place is left: PoPs are at all of them", "name others by --places"));
        }
        let mut estimates = Estimates::default();
        let mut measured = Measured::default();
        if let Some(path) = &args.measured {
            measured = take_samples(path, &offers[..kept], &location, &mut estimates)?;
            if measured.taken == 0 {
                warnings.push(format!("{} has no round trip that can be used", path.display()));
            }
        }
        let mut rows = Vec::new();
        let mut is_measured = Vec::new();
        for (index, offer) in offers.iter().enumerate() {
            let way = |market: &Market| {
                let known = estimates.known(market.cell, market.country, 0);
                known.of(index as u16, offer.place.point.km(market.point))
            };
            let ways: Vec<_> = markets.iter().map(way).collect();
            rows.push((offer.cost, ways.iter().map(|way| way.ms().max(TRIP_MS_MIN)).collect()));
            is_measured.push(ways.iter().map(|way| way.samples >= 1.0).collect());
        }
        let weights: Vec<(f64, f64)> = markets.iter().map(|market| (market.weight, market.gb)).collect();
        let problem = Problem::new(&weights, rows, (0..kept).collect());
        let mut attribution = vec![places::ATTRIBUTION.to_owned()];
        attribution.extend((!location.attribution.is_empty()).then(|| location.attribution.clone()));
        Ok(Gathered {
            grouped: problem.grouped(&groups(&markets)),
            demand,
            measured,
            markets,
            offers,
            problem,
            is_measured,
            origin,
            config,
            attribution,
            warnings,
        })
    }

    /// The part of demand whose round trip to the PoP of `set` that serves it was measured.
    pub(super) fn measured_share(&self, set: &[usize]) -> f64 {
        let assigned = self.problem.assign(set).into_iter().enumerate();
        let measured = assigned.filter(|(market, offer)| self.is_measured[*offer][*market]);
        // The sum of nothing would be -0.
        measured.map(|(market, _)| self.problem.demand()[market]).fold(0.0, |sum, part| sum + part)
    }

    /// Round trips to the nearest of some points, by distance alone, with their weights.
    pub(super) fn trips_to(&self, points: &[Point]) -> Vec<(f64, f64)> {
        let units: Vec<_> = points.iter().map(|point| point.unit()).collect();
        let nearest = |market: &Market| {
            let at = market.point.unit();
            let km =
                units.iter().map(|unit| model::routing::km_between(at, *unit)).fold(f64::INFINITY, f64::min);
            (router::estimate::prior_ms(km), market.weight)
        };
        self.markets.iter().map(nearest).collect()
    }

    /// For another solver: what is chosen among.
    pub(super) fn as_json(&self) -> String {
        let problem = &self.grouped;
        let offers: Vec<_> = (self.offers.iter().enumerate())
            .map(|(index, offer)| {
                let ms: Vec<f64> = (0..problem.demand().len()).map(|market| problem.ms(index, market)).collect();
                serde_json::json!({ "name": offer.place.name, "month": offer.cost.month, "per_gb": offer.cost.per_gb, "ms": ms })
            })
            .collect();
        format!(
            "{}\n",
            serde_json::json!({ "demand": problem.demand(), "kept": problem.kept(), "places": offers })
        )
    }
}

// --- Demand ---

fn from_shares(path: &Path) -> Result<(Demand, Vec<Market>), Failure> {
    let place = path.display().to_string();
    let read = shares::parse(&super::read(path)?).map_err(|complaints| {
        let told: Vec<String> = complaints.iter().map(|one| format!("{place}:{one}")).collect();
        Failure::new(
            told.join("\n"),
            "each line is country,share with an optional third column, GB per month",
        )
    })?;
    let total: f64 = read.rows.iter().map(|row| row.share).sum();
    let mut markets = Vec::new();
    let mut gb_month = None;
    for row in &read.rows {
        if let Some(gb) = row.gb {
            *gb_month.get_or_insert(0.0) += gb;
        }
        for market in places::markets_of(&row.country) {
            let country = country_of(market.country);
            let (weight, gb) = (row.share * market.share, row.gb.unwrap_or(0.0) * market.share);
            markets.push(Market { country, point: market.point, weight, gb, cell: UNKNOWN });
        }
    }
    let unlocated = read.nowhere / (total + read.nowhere);
    let demand = Demand { source: place, gb_month, unlocated, ..Demand::default() };
    Ok((summed(demand, &markets), markets))
}

fn from_logs(
    args: &PlanArgs,
    location: &Location,
    warnings: &mut Vec<String>,
) -> Result<(Demand, Vec<Market>), Failure> {
    let mut cells: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
    let (mut requests, mut unlocated) = (0u64, 0u64);
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    let counted = recorded::read(&args.log, |_, record| {
        requests += 1;
        (first, last) = (first.min(record.time.0), last.max(record.time.0));
        let cell = record.client.parse::<IpAddr>().map_or(UNKNOWN, |address| location.cell(address));
        if cell == UNKNOWN {
            unlocated += 1;
            return;
        }
        let sums = cells.entry(cell).or_default();
        sums.0 += 1;
        sums.1 += record.body_bytes + record.head_bytes.unwrap_or(0);
    })?;
    if !counted.words().is_empty() {
        warnings.push(counted.words().trim_end().to_owned());
    }
    if cells.is_empty() {
        return Err(Failure::new(
            format!(
                "{requests} requests in {} lines, and of none is known where its client is\n{}",
                counted.lines,
                counted.words()
            ),
            "the log has to have clients' addresses that --location knows, not a proxy's",
        ));
    }
    let days = (last - first) as f64 / 86_400_000.0;
    let to_month = MONTH_SECS / ((last - first) as f64 / 1000.0).max(1.0) / 1e9;
    if days < 1.0 {
        warnings.push(format!(
            "the log spans {:.1} h: a month's traffic and the mix of countries are guesses",
            days * 24.0
        ));
    }
    let market = |(cell, (count, bytes)): (u16, (u64, u64))| {
        let place = location.cells()[usize::from(cell)];
        let (weight, gb) = (count as f64, bytes as f64 * to_month);
        Market { country: place.country, point: place.point, weight, gb, cell }
    };
    let markets: Vec<Market> = cells.into_iter().map(market).collect();
    let source = args.log.iter().map(|log| log.display().to_string()).collect::<Vec<_>>().join(", ");
    let demand = Demand {
        source,
        requests: Some(requests),
        days: Some(days),
        gb_month: Some(markets.iter().map(|market| market.gb).sum()),
        unlocated: unlocated as f64 / requests as f64,
        ..Demand::default()
    };
    Ok((summed(demand, &markets), markets))
}

fn summed(demand: Demand, markets: &[Market]) -> Demand {
    let total: f64 = markets.iter().map(|market| market.weight).sum();
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for market in markets {
        let country = std::str::from_utf8(&market.country).unwrap_or("??").trim_matches('\0');
        *sums.entry(country.to_owned()).or_default() += market.weight / total;
    }
    let mut countries: Vec<(String, f64)> = sums.into_iter().collect();
    countries.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Demand { countries, places: markets.len(), ..demand }
}

fn country_of(text: &str) -> [u8; 2] {
    text.as_bytes().try_into().unwrap_or_default()
}

/// Numbers of the groups in which markets are put together: those of one country in one square, as large as need be.
fn groups(markets: &[Market]) -> Vec<usize> {
    let mut degrees = 0.0;
    loop {
        let mut known = HashMap::new();
        let group = |(index, market): (usize, &Market)| {
            let square = |at: f64| if degrees == 0.0 { index as i64 } else { (at / degrees).floor() as i64 };
            let key = (market.country, square(market.point.latitude), square(market.point.longitude));
            let next = known.len();
            *known.entry(key).or_insert(next)
        };
        let groups: Vec<usize> = markets.iter().enumerate().map(group).collect();
        // A square as large as the world leaves one group per country.
        if known.len() <= GROUPS_MAX || degrees > 360.0 {
            return groups;
        }
        degrees = if degrees == 0.0 { 0.5 } else { degrees * 2.0 };
    }
}

// --- Sites ---

fn places_of(named: &[String]) -> Result<Vec<Place>, Failure> {
    let mut places: Vec<Place> = Vec::new();
    let mut add = |place: Place| {
        if places.iter().all(|known| known.name != place.name) {
            places.push(place);
        }
    };
    if named.is_empty() {
        insight::plan::places::metros().filter_map(|(code, _)| Place::named(code)).for_each(&mut add);
    }
    for name in named.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        let of_cloud: Vec<&str> = regions_of_cloud(name).collect();
        match Place::named(name) {
            Some(place) => add(place),
            None if !of_cloud.is_empty() => of_cloud.into_iter().filter_map(Place::named).for_each(&mut add),
            None => return Err(unknown_place("--places", name)),
        }
    }
    match places.len() {
        0 => Err(Failure::new("--places names nothing", "write e.g. FRA,JFK or aws")),
        count if count > PLACES_MAX => Err(Failure::new(
            format!("{count} places are too many: {PLACES_MAX} may be compared"),
            "name fewer by --places",
        )),
        _ => Ok(places),
    }
}

fn unknown_place(flag: &str, name: &str) -> Failure {
    let clouds: std::collections::BTreeSet<&str> =
        place_names().filter_map(|name| name.split_once(':')).map(|(cloud, _)| cloud).collect();
    let clouds: Vec<&str> = clouds.into_iter().collect();
    Failure::new(
        format!("{flag}: {name:?} is no airport's code and no cloud's region"),
        format!("write e.g. FRA or aws:eu-central-1; clouds are {}", clouds.join(", ")),
    )
}

// --- Measurements ---

fn take_samples(
    path: &Path,
    pops: &[Offer],
    location: &Location,
    estimates: &mut Estimates,
) -> Result<Measured, Failure> {
    let Samples { samples } = serde_json::from_str(&super::read(path)?).map_err(|error| {
        Failure::new(
            format!("{}: {error}", path.display()),
            r#"wanted is {"samples": [{"network": "203.0.113.0", "pop": "fra", "count": 1, "sum_ms": 23.4}]}"#,
        )
    })?;
    let mut measured = Measured::default();
    for trips in samples.iter().filter(|trips| trips.count > 0) {
        let count = u64::from(trips.count);
        let pop = pops.iter().position(|offer| offer.place.name == trips.pop);
        let cell = location.cell(network_of(trips.network));
        let Some(pop) = pop.filter(|_| cell != UNKNOWN) else {
            measured.refused += count;
            continue;
        };
        let place = location.cells()[usize::from(cell)];
        let sample = Sample {
            cell,
            country: place.country,
            asn: 0,
            pop: pop as u16,
            km: pops[pop].place.point.km(place.point),
            is_placed: true,
            rtt_ms: trips.sum_ms / f64::from(trips.count),
            count: trips.count,
        };
        match estimates.add(&sample) {
            Ok(_) => measured.taken += count,
            Err(_) => measured.refused += count,
        }
    }
    Ok(measured)
}
