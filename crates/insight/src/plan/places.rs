//! Where people live, where servers can be put, and where public networks say that they are.
//!
//! Three lists: `data/markets.txt`, made by the script beside it, `data/metros.txt` and `data/networks.txt`, which say themselves where they are
//! from. Places have their coordinates from [`model::routing::place`].

use model::Point;
use model::routing::{country_centre, place};

const MARKETS: &str = include_str!("../../data/markets.txt");
const METROS: &str = include_str!("../../data/metros.txt");
const NETWORKS: &str = include_str!("../../data/networks.txt");

/// Whose data the markets are, as the licence wants it shown.
pub const ATTRIBUTION: &str = "cities by GeoNames, geonames.org (CC BY 4.0)";

/// A part of a country.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Market {
    /// ISO 3166, two capital letters.
    pub country: &'static str,
    /// `AF`, `AN`, `AS`, `EU`, `NA`, `OC` or `SA`.
    pub continent: &'static str,
    /// Its largest city.
    pub city: &'static str,
    /// Where that is.
    pub point: Point,
    /// Its part of the country's people.
    pub share: f64,
}

/// Where a PoP is or may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// An airport's code, a cloud's region, or a PoP's name.
    pub name: String,
    /// A city, for people.
    pub city: String,
    /// Where it is.
    pub point: Point,
    /// Two capital letters; empty when nobody lives near.
    pub country: &'static str,
    /// As [`Market::continent`].
    pub continent: &'static str,
}

/// A public network's locations.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: &'static str,
    /// The date of the list.
    pub as_of: &'static str,
    /// Whose list.
    pub source: &'static str,
    /// Where it has locations.
    pub points: Vec<Point>,
}

/// All markets, by country.
pub fn markets() -> impl Iterator<Item = Market> {
    MARKETS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut parts = line.splitn(6, ' ');
        let (country, continent) = (parts.next()?, parts.next()?);
        let mut number = || parts.next()?.parse::<f64>().ok();
        let (latitude, longitude, share) = (number()?, number()?, number()?);
        Some(Market { country, continent, city: parts.next()?, point: Point { latitude, longitude }, share })
    })
}

/// The markets of a country (two capital letters), the largest first: its centre alone where no city is known, nothing when there is no such country.
pub fn markets_of(country: &str) -> Vec<Market> {
    let known: Vec<Market> = markets().filter(|market| market.country == country).collect();
    if !known.is_empty() {
        return known;
    }
    let centre = country_centre(country).and_then(|point| {
        let near = nearest(point)?;
        Some(Market { point, share: 1.0, ..near })
    });
    centre.into_iter().collect()
}

fn nearest(point: Point) -> Option<Market> {
    markets().min_by(|a, b| a.point.km(point).total_cmp(&b.point.km(point)))
}

impl Place {
    /// A place at coordinates: what is near says in which country it is, and how to call it.
    pub fn at(name: &str, point: Point) -> Place {
        let near = nearest(point);
        let (country, continent, city) =
            near.map_or(("", "", name), |market| (market.country, market.continent, market.city));
        Place { name: name.to_owned(), city: city.to_owned(), point, country, continent }
    }

    /// An airport (`FRA`) or a region of a cloud (`aws:eu-central-1`); `None` when it is neither.
    pub fn named(name: &str) -> Option<Place> {
        let found = place(name).or_else(|| place(&name.to_ascii_uppercase()))?;
        let mut made = Place::at(name, found);
        if let Some((code, city)) = metros().find(|(code, _)| code.eq_ignore_ascii_case(name)) {
            (made.name, made.city) = (code.to_owned(), city.to_owned());
        }
        Some(made)
    }
}

/// Where servers can be had: airport and city.
pub fn metros() -> impl Iterator<Item = (&'static str, &'static str)> {
    METROS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '))
}

/// Public networks, as `data/networks.txt` has them.
pub fn networks() -> Vec<Network> {
    let mut networks: Vec<Network> = Vec::new();
    for line in NETWORKS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("network ") {
            networks.push(Network { name, as_of: "", source: "", points: Vec::new() });
            continue;
        }
        let Some(network) = networks.last_mut() else { continue };
        if let Some(date) = line.strip_prefix("as_of ") {
            network.as_of = date;
        } else if let Some(source) = line.strip_prefix("source ") {
            network.source = source;
        } else {
            network.points.extend(line.split(' ').filter_map(place));
        }
    }
    networks
}
