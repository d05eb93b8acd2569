//! A synthetic internet, made from a seed: towns with visitors, networks with habits of their own, and paths with detours.
//!
//! ```text
//! rtt = access(network) + km / 100 × stretch(country, PoP) + detour(network, PoP) + noise(sample)
//! ```
//!
//! - Towns lie at random airports; their visitors follow Zipf's law with exponent 1. A country is the nearest of the countries' centres.
//! - access: log-normal, median 12 ms, σ 0.4. stretch: 1.2 to 2.6, as measured paths are 1.8 to 2.5 times light in fibre.
//! - detour: of each network (three to six per country), one path of four takes 10 ms and more longer, 45 ms on average.
//! - noise: exponential, 4 ms on average.

use model::Point;
use model::routing::{country_centre, place, place_names};

/// PoPs of a network of usual size, where such have theirs.
pub(super) const POPS: [&str; 24] = [
    "FRA", "LHR", "CDG", "MAD", "WAW", "ARN", "IAD", "JFK", "ORD", "DFW", "LAX", "SEA", "MIA", "YYZ", "GRU",
    "EZE", "SIN", "HKG", "NRT", "ICN", "BOM", "SYD", "JNB", "DXB",
];

/// Numbers as if by chance (SplitMix64).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count - 1)
    }

    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// A town.
pub(super) struct Town {
    pub(super) country: [u8; 2],
    pub(super) at: Point,
    /// Its share of all visitors.
    pub(super) weight: f64,
    /// Kilometres to each PoP.
    pub(super) km: Vec<f64>,
}

/// The internet of a seed.
pub(super) struct Internet {
    pub(super) towns: Vec<Town>,
    pub(super) pops: Vec<Point>,
    countries: Vec<([u8; 2], Vec<f64>)>,
    /// For each country, its networks: access, and detour to each PoP.
    networks: Vec<Vec<(f64, Vec<f64>)>>,
}

impl Internet {
    pub(super) fn new(chance: &mut Chance, town_count: usize) -> Internet {
        let pops: Vec<Point> = POPS.iter().filter_map(|code| place(code)).collect();
        let airports: Vec<Point> = place_names().filter(|name| name.len() == 3).filter_map(place).collect();
        let centres: Vec<([u8; 2], Point)> = (b'A'..=b'Z')
            .flat_map(|a| (b'A'..=b'Z').map(move |b| [a, b]))
            .filter_map(|code| Some((code, country_centre(std::str::from_utf8(&code).ok()?)?)))
            .collect();
        let countries: Vec<([u8; 2], Vec<f64>)> = centres
            .iter()
            .map(|(code, _)| (*code, pops.iter().map(|_| 1.2 + 1.4 * chance.unit()).collect()))
            .collect();
        let networks = countries
            .iter()
            .map(|_| {
                (0..3 + chance.below(4))
                    .map(|_| {
                        let access = 12.0 * (0.4 * chance.normal()).exp();
                        let detours = pops
                            .iter()
                            .map(|_| if chance.unit() < 0.25 { 10.0 + chance.exponential(35.0) } else { 0.0 })
                            .collect();
                        (access, detours)
                    })
                    .collect()
            })
            .collect();
        let harmonic: f64 = (1..=town_count).map(|rank| 1.0 / rank as f64).sum();
        let towns = (0..town_count)
            .map(|rank| {
                let at = airports[chance.below(airports.len())];
                let nearest = centres.iter().min_by(|a, b| at.km(a.1).total_cmp(&at.km(b.1)));
                Town {
                    country: nearest.map_or([0; 2], |(code, _)| *code),
                    at,
                    weight: 1.0 / (rank + 1) as f64 / harmonic,
                    km: pops.iter().map(|pop| at.km(*pop)).collect(),
                }
            })
            .collect();
        Internet { towns, pops, countries, networks }
    }

    /// A number that no other network has.
    pub(super) fn asn(&self, (town, network): (usize, usize)) -> u32 {
        (self.country(town) * 16 + network + 1) as u32
    }

    /// What a visitor waits for a PoP, without noise.
    pub(super) fn rtt_ms(&self, (town, network): (usize, usize), pop: usize) -> f64 {
        let country = self.country(town);
        let (access, detours) = &self.networks[country][network];
        access + self.towns[town].km[pop] / 100.0 * self.countries[country].1[pop] + detours[pop]
    }

    /// Networks of a town's country.
    pub(super) fn network_count(&self, town: usize) -> usize {
        self.networks[self.country(town)].len()
    }

    /// What a visitor's own line takes.
    pub(super) fn access_ms(&self, (town, network): (usize, usize)) -> f64 {
        self.networks[self.country(town)][network].0
    }

    /// As [`Internet::rtt_ms`], on the country's usual path.
    pub(super) fn without_detour_ms(&self, (town, network): (usize, usize), pop: usize) -> f64 {
        let stretch = self.countries[self.country(town)].1[pop];
        self.access_ms((town, network)) + self.towns[town].km[pop] / 100.0 * stretch
    }

    /// The PoPs, and of each town its place, its share, and of each of its networks a number and the ms to each PoP.
    pub(super) fn as_json(&self) -> serde_json::Value {
        let towns = self.towns.iter().enumerate().map(|(number, town)| {
            let networks = (0..self.networks[self.country(number)].len()).map(|network| {
                let rtts: Vec<f64> =
                    (0..self.pops.len()).map(|pop| self.rtt_ms((number, network), pop)).collect();
                serde_json::json!({ "asn": self.asn((number, network)), "rtt_ms": rtts })
            });
            serde_json::json!({
                "latitude": town.at.latitude, "longitude": town.at.longitude, "weight": town.weight,
                "country": std::str::from_utf8(&town.country).unwrap_or_default(),
                "km": town.km, "networks": networks.collect::<Vec<_>>(),
            })
        });
        serde_json::json!({ "pops": POPS, "towns": towns.collect::<Vec<_>>() })
    }

    fn country(&self, town: usize) -> usize {
        self.countries.iter().position(|(code, _)| *code == self.towns[town].country).unwrap_or(0)
    }
}
