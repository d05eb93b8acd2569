//! Makes a [`Location`] from databases in MaxMind's format, geofeeds (RFC 8805) and lists of the operator's own.
//!
//! ```text
//! databases ─► /24 and runs of IPv6 ─► overwritten by geofeeds ─► overwritten by lists
//! ```
//!
//! Coordinates are put together to cells of a quarter of a degree within a country; the grid becomes coarser when there would be too many.
//! A record that names a country alone is put where most of its people live. Of several records within a /24, the one with the most
//! addresses counts. A geofeed names cities, not coordinates: a database that knows the city says where it is.
//!
//! Works on bytes that are at hand, so that it can be tested and fuzzed without files. Called by `perigee geo build`.

use std::collections::HashMap;
use std::net::IpAddr;

use maxminddb::{Reader, WithinOptions};
use model::Point;
use model::routing::{country_centre, place};
use model::settings::Network;
use serde::Deserialize;

use crate::location::{CELLS_MAX, Cell, Location, UNKNOWN};
use crate::systems::Systems;
use crate::table::V6_BITS;

/// Width of a cell, in quarters of a degree, at first.
const GRID_QUARTERS: i32 = 1;
/// Lines of a geofeed or list that are told one by one when they are bad.
const COMPLAINTS_MAX: usize = 20;

/// Collects where networks are.
pub struct Compiler {
    /// The place of each /24, as an index into `places`; 0 is none.
    by_24: Vec<u32>,
    /// The same for IPv6: the first 64 bits where something else begins.
    v6: Vec<(u64, u64, u32)>,
    places: Vec<Place>,
    known: HashMap<Key, u32>,
    /// Cities of the databases, lower-case.
    cities: HashMap<([u8; 2], String), u32>,
    attribution: Vec<String>,
    /// First and last network of ranges of one system: /24s, and /48s.
    systems_v4: Vec<(u64, u64, u32)>,
    systems_v6: Vec<(u64, u64, u32)>,
    /// What was wrong with lines of geofeeds and lists, and how many more there were.
    pub complaints: Vec<String>,
    /// Bad lines in all.
    pub bad_lines: usize,
}

#[derive(Clone, Copy)]
struct Place {
    country: [u8; 2],
    point: Point,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    country: [u8; 2],
    latitude_milli: i32,
    longitude_milli: i32,
}

/// Ranges → runs that ascend from 0, with 0 for what nobody has. Where ranges overlap, the one that begins later counts, and of two that
/// begin together the shorter.
fn filled(mut ranges: Vec<(u64, u64, u32)>) -> Vec<(u64, u32)> {
    if ranges.is_empty() {
        return Vec::new();
    }
    ranges.sort_unstable_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
    runs(&ranges, |system| system)
}

/// A record, of either of two schemas: MaxMind's own, or flat as in `ip-location-db`.
#[derive(Deserialize)]
struct Record<'d> {
    country_code: Option<&'d str>,
    latitude: Option<Decimal>,
    longitude: Option<Decimal>,
    #[serde(borrow)]
    country: Option<Country<'d>>,
    #[serde(borrow)]
    city: Option<City<'d>>,
    location: Option<Coordinates>,
}

#[derive(Deserialize)]
struct Country<'d> {
    iso_code: Option<&'d str>,
}

#[derive(Deserialize)]
struct Coordinates {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum City<'d> {
    Flat(&'d str),
    Named {
        #[serde(borrow)]
        names: Option<HashMap<&'d str, &'d str>>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Decimal {
    Number(f64),
    Text(String),
}

impl Decimal {
    fn degrees(self) -> Option<f64> {
        match self {
            Decimal::Number(number) => Some(number),
            Decimal::Text(text) => text.parse().ok(),
        }
    }
}

impl Default for Compiler {
    fn default() -> Self {
        Compiler::new()
    }
}

impl Compiler {
    /// One that knows nothing yet. Takes 64 MiB.
    pub fn new() -> Compiler {
        let nowhere = Place { country: [0; 2], point: Point { latitude: 0.0, longitude: 0.0 } };
        Compiler {
            by_24: vec![0; 1 << 24],
            v6: Vec::new(),
            places: vec![nowhere],
            known: HashMap::new(),
            cities: HashMap::new(),
            attribution: Vec::new(),
            systems_v4: Vec::new(),
            systems_v6: Vec::new(),
            complaints: Vec::new(),
            bad_lines: 0,
        }
    }

    /// Says whose data is in it.
    pub fn attribute(&mut self, text: &str) {
        self.attribution.push(text.to_owned());
    }

    /// Takes a database in MaxMind's format. Returns how many networks had a place. The error is a sentence part that follows
    /// the file's name.
    pub fn database(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let reader = Reader::from_source(bytes)
            .map_err(|error| format!("is no database in MaxMind's format: {error}"))?;
        let damaged = |error: maxminddb::MaxMindDbError| format!("is damaged: {error}");
        // Many networks share one record, so each is read once.
        let mut by_offset: HashMap<usize, u32> = HashMap::new();
        let mut count = 0;
        let mut shares = Shares::default();
        for found in reader.networks(WithinOptions::default()).map_err(damaged)? {
            let found = found.map_err(damaged)?;
            let Some(offset) = found.offset() else { continue };
            let place = match by_offset.get(&offset) {
                Some(place) => *place,
                None => {
                    let place = match found.decode::<Record<'_>>().map_err(damaged)? {
                        Some(record) => self.place_of(record),
                        None => 0,
                    };
                    by_offset.insert(offset, place);
                    place
                }
            };
            if place == 0 {
                continue;
            }
            count += 1;
            let network = found.network().map_err(damaged)?;
            self.put(network.ip(), network.prefix(), place, Some(&mut shares));
        }
        shares.flush(&mut self.by_24);
        Ok(count)
    }

    /// Takes a geofeed: `prefix,country,region,city,postal code` in each line (RFC 8805 §2.1.1). Bad lines are left out and
    /// complained about.
    pub fn geofeed(&mut self, text: &str, source: &str) -> usize {
        let mut count = 0;
        for (number, line) in lines(text) {
            let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
            let (prefix, country) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let city = fields.nth(1).unwrap_or_default();
            let place = country_code(country).and_then(|code| self.place_of_city(code, city));
            match (Network::parse(prefix), place) {
                (Ok(network), Some(place)) => {
                    self.put(network.range().0, network.prefix_len(), place, None);
                    count += 1;
                }
                // "No country" means that the place is not to be told (§2.1.1.2): what a database says is then as good.
                (Ok(_), None) if country.is_empty() => {}
                (Err(reason), _) => self.complain(source, number, format!("{prefix:?} {reason}")),
                (Ok(_), None) => self.complain(source, number, format!("{country:?} is no country")),
            }
        }
        count
    }

    /// Takes a list of the operator's own: `prefix,place` or `prefix,place,country` in each line, where the place is an airport, a cloud's
    /// region, or latitude and longitude with a blank between.
    pub fn list(&mut self, text: &str, source: &str) -> usize {
        let mut count = 0;
        for (number, line) in lines(text) {
            let (prefix, rest) = line.split_once(',').unwrap_or((line, ""));
            let (name, country) = rest.split_once(',').unwrap_or((rest, ""));
            let (name, country) = (name.trim(), country.trim());
            let code = match country {
                "" => Some([0; 2]),
                country => country_code(country),
            };
            let point = place(name).or_else(|| {
                let (latitude, longitude) = name.split_once(char::is_whitespace)?;
                on_earth(latitude.trim().parse().ok()?, longitude.trim().parse().ok()?)
            });
            match (Network::parse(prefix.trim()), point, code) {
                (Ok(network), Some(point), Some(code)) => {
                    let place = self.place_at(code, point);
                    self.put(network.range().0, network.prefix_len(), place, None);
                    count += 1;
                }
                (Err(reason), ..) => self.complain(source, number, format!("{prefix:?} {reason}")),
                (Ok(_), None, _) => self.complain(source, number, format!("{name:?} is no place")),
                (Ok(_), _, None) => self.complain(source, number, format!("{country:?} is no country")),
            }
        }
        count
    }

    /// Takes a table of autonomous systems: first address, last address and number in each line, with tabs or commas between; what
    /// follows is left. So are ranges within a /24 or /48.
    pub fn systems(&mut self, text: &str, source: &str) -> usize {
        let mut count = 0;
        for (number, line) in lines(text) {
            let mut fields = line.split(['\t', ',']).map(|field| field.trim().trim_matches('"'));
            let mut field = || fields.next().unwrap_or_default();
            let (first, last, system) = (field().parse(), field().parse(), field());
            let system = system.strip_prefix("AS").unwrap_or(system).parse::<u32>();
            match (first, last, system) {
                (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last)), Ok(system)) if first <= last => {
                    let (first, end) =
                        (u64::from(u32::from(first)).div_ceil(256), (u64::from(u32::from(last)) + 1) / 256);
                    count += usize::from(end > first);
                    self.systems_v4.extend((end > first).then(|| (first, end - 1, system)));
                }
                (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last)), Ok(system)) if first <= last => {
                    let first = (u128::from(first).div_ceil(1 << 80)) as u64;
                    // Of the last address of all, one more is none.
                    let end = u128::from(last).checked_add(1).map_or(1 << 48, |end| (end >> 80) as u64);
                    count += usize::from(end > first);
                    self.systems_v6.extend((end > first).then(|| (first, end - 1, system)));
                }
                _ => self.complain(
                    source,
                    number,
                    format!("{line:?} is no first address, last address and number"),
                ),
            }
        }
        count
    }

    fn complain(&mut self, source: &str, line_index: usize, text: String) {
        self.bad_lines += 1;
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(format!("{source}:{}: {text}", line_index + 1));
        }
    }

    /// Puts all together. `built_secs`: now, since 1970.
    pub fn finish(mut self, built_secs: u64) -> Location {
        let (cell_of_place, cells) = self.cells();
        let by_24: Vec<u16> = self.by_24.iter().map(|place| cell_of_place[*place as usize]).collect();
        self.by_24 = Vec::new();
        let v6 = runs(&self.v6, |place| cell_of_place[place as usize]);
        let (starts, run_cells) = v6.into_iter().unzip();
        let systems = Systems::compile(&filled(self.systems_v4), &filled(self.systems_v6));
        let mut location = Location::compile(cells, &by_24, starts, run_cells).with_systems(systems);
        self.attribution.dedup();
        (location.attribution, location.built_secs) = (self.attribution.join("; "), built_secs);
        location
    }

    /// Places → cells, on the finest grid that has few enough of them.
    fn cells(&self) -> (Vec<u16>, Vec<Cell>) {
        // How much a place weighs in the middle of its cell: its networks of IPv4, and a little for those of IPv6.
        let mut weights = vec![1.0f64; self.places.len()];
        self.by_24.iter().for_each(|place| weights[*place as usize] += 1.0);
        let mut quarters = GRID_QUARTERS;
        loop {
            let degrees = f64::from(quarters) * 0.25;
            let mut numbers: HashMap<([u8; 2], i32, i32), u16> = HashMap::new();
            let mut sums = vec![(Cell { country: [0; 2], point: self.places[0].point }, 0.0)];
            let mut cell_of_place = vec![UNKNOWN];
            for (place, weight) in self.places.iter().zip(&weights).skip(1) {
                let row = (place.point.latitude / degrees).floor() as i32;
                let column = (place.point.longitude / degrees).floor() as i32;
                let number = *numbers.entry((place.country, row, column)).or_insert_with(|| {
                    let nowhere = Point { latitude: 0.0, longitude: 0.0 };
                    sums.push((Cell { country: place.country, point: nowhere }, 0.0));
                    (sums.len() - 1).min(usize::from(u16::MAX)) as u16
                });
                if sums.len() > CELLS_MAX {
                    break;
                }
                let (cell, sum) = &mut sums[usize::from(number)];
                cell.point.latitude += place.point.latitude * weight;
                cell.point.longitude += place.point.longitude * weight;
                *sum += weight;
                cell_of_place.push(number);
            }
            if sums.len() <= CELLS_MAX {
                let mean = |(cell, sum): (Cell, f64)| match sum > 0.0 {
                    true => {
                        let Point { latitude, longitude } = cell.point;
                        Cell { point: Point { latitude: latitude / sum, longitude: longitude / sum }, ..cell }
                    }
                    false => cell,
                };
                return (cell_of_place, sums.into_iter().map(mean).collect());
            }
            quarters *= 2;
        }
    }

    fn place_of(&mut self, record: Record<'_>) -> u32 {
        let country = record.country.and_then(|country| country.iso_code).or(record.country_code);
        let country = country.and_then(country_code).unwrap_or_default();
        let coordinates =
            record.location.map_or((None, None), |location| (location.latitude, location.longitude));
        let latitude = coordinates.0.or_else(|| record.latitude?.degrees());
        let longitude = coordinates.1.or_else(|| record.longitude?.degrees());
        let point = latitude.zip(longitude).and_then(|(latitude, longitude)| on_earth(latitude, longitude));
        let centre = || std::str::from_utf8(&country).ok().and_then(country_centre);
        let Some(point) = point.or_else(centre) else { return 0 };
        let place = self.place_at(country, point);
        let city = match &record.city {
            Some(City::Flat(name)) => Some(*name),
            Some(City::Named { names }) => names.as_ref().and_then(|names| names.get("en").copied()),
            None => None,
        };
        if let Some(city) = city.filter(|city| !city.is_empty()) {
            self.cities.entry((country, city.to_lowercase())).or_insert(place);
        }
        place
    }

    fn place_of_city(&mut self, country: [u8; 2], city: &str) -> Option<u32> {
        if let Some(place) = self.cities.get(&(country, city.to_lowercase())) {
            return Some(*place);
        }
        let centre = std::str::from_utf8(&country).ok().and_then(country_centre)?;
        Some(self.place_at(country, centre))
    }

    fn place_at(&mut self, country: [u8; 2], point: Point) -> u32 {
        let milli = |degrees: f64| (degrees * 1e3).round() as i32;
        let key =
            Key { country, latitude_milli: milli(point.latitude), longitude_milli: milli(point.longitude) };
        *self.known.entry(key).or_insert_with(|| {
            self.places.push(Place { country, point });
            (self.places.len() - 1) as u32
        })
    }

    fn put(&mut self, address: IpAddr, bits: u8, place: u32, shares: Option<&mut Shares>) {
        // An IPv4 network in a database of IPv6 stands at ::/96, or is mapped.
        let (address, bits) = match address {
            IpAddr::V6(v6) if bits >= 96 && (v6.to_ipv4().is_some() || v6.is_unspecified()) => {
                (v6.to_ipv4().map_or(address, IpAddr::V4), bits - 96)
            }
            _ => (address, bits),
        };
        match address {
            IpAddr::V4(v4) if bits <= 24 => {
                let first = (u32::from(v4) >> 8) as usize;
                self.by_24[first..][..1 << (24 - bits)].fill(place);
            }
            IpAddr::V4(v4) => {
                let first = u32::from(v4) >> 8;
                match shares {
                    Some(shares) => shares.add(&mut self.by_24, first, place, 1 << (32 - bits)),
                    None => self.by_24[first as usize] = place,
                }
            }
            IpAddr::V6(v6) => {
                let bits = bits.min(V6_BITS);
                let width = if bits == 0 { u64::MAX } else { (1u64 << (64 - bits)) - 1 };
                let first = crate::location::first_64(v6) & !width;
                self.v6.push((first, first | width, place));
            }
        }
    }
}

/// Addresses of each place within one /24: databases are in order, so one at a time is enough.
#[derive(Default)]
struct Shares {
    network: u32,
    places: Vec<(u32, u32)>,
}

impl Shares {
    fn add(&mut self, by_24: &mut [u32], network: u32, place: u32, addresses: u32) {
        if network != self.network {
            self.flush(by_24);
            self.network = network;
        }
        match self.places.iter_mut().find(|(one, _)| *one == place) {
            Some((_, count)) => *count += addresses,
            None => self.places.push((place, addresses)),
        }
    }

    fn flush(&mut self, by_24: &mut [u32]) {
        if let Some((place, _)) = self.places.iter().max_by_key(|(_, count)| *count) {
            by_24[self.network as usize] = *place;
        }
        self.places.clear();
    }
}

/// Ranges (first, last, whose), later ones over earlier ones, as runs from 0 on, each with where it begins and what `of` says to whose it
/// is: 0 is nobody's.
fn runs<T: PartialEq>(ranges: &[(u64, u64, u32)], of: impl Fn(u32) -> T) -> Vec<(u64, T)> {
    // Where something begins or ends; between two such places, the newest range that covers them counts.
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|index| (ranges[*index].0, *index));
    let mut open = std::collections::BinaryHeap::new();
    let mut runs: Vec<(u64, T)> = Vec::new();
    let mut next = 0;
    let mut at = 0u64;
    loop {
        while next < order.len() && ranges[order[next]].0 <= at {
            open.push(order[next]);
            next += 1;
        }
        while open.peek().is_some_and(|index| ranges[*index].1 < at) {
            open.pop();
        }
        let top = open.peek().copied();
        let value = of(top.map_or(0, |index| ranges[index].2));
        if runs.last().is_none_or(|(_, known)| *known != value) {
            runs.push((at, value));
        }
        let begins = order.get(next).map(|index| ranges[*index].0);
        let ends = top.and_then(|index| ranges[index].1.checked_add(1));
        match (begins, ends) {
            (Some(begin), Some(end)) => at = begin.min(end),
            (Some(one), None) | (None, Some(one)) => at = one,
            (None, None) => break,
        }
    }
    runs
}

/// Lines that say something, each with its number from 0.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn on_earth(latitude: f64, longitude: f64) -> Option<Point> {
    let good = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
    good.then_some(Point { latitude, longitude })
}

fn country_code(text: &str) -> Option<[u8; 2]> {
    let code: [u8; 2] = text.as_bytes().try_into().ok()?;
    code.iter().all(u8::is_ascii_alphabetic).then(|| code.map(|byte| byte.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_win_over_geofeeds_and_bad_lines_are_told() {
        let mut compiler = Compiler::new();
        let feed = "# a comment\n192.0.2.0/24,DE,DE-HE,Frankfurt,\n2001:db8::/32,US,,,\n198.51.100.0/24,,,,\n192.0.2.1/24,DE,,,\n203.0.113.0/24,XX,,,\n";
        assert_eq!(compiler.geofeed(feed, "feed.csv"), 2);
        assert_eq!(
            compiler.list("192.0.2.0/24,FRA\n2001:db8:1::/48,35.5 139.8\n10.0.0.0/8,nowhere\n", "own"),
            2
        );
        assert_eq!(
            compiler.complaints,
            [
                "feed.csv:5: \"192.0.2.1/24\" has bits set behind its prefix; the network is 192.0.2.0/24",
                "feed.csv:6: \"XX\" is no country",
                "own:3: \"nowhere\" is no place",
            ]
        );
        let location = compiler.finish(1);
        let at = |text: &str| location.cells()[usize::from(location.cell(text.parse().unwrap()))];
        assert!(at("192.0.2.77").point.km(place("FRA").unwrap()) < 1.0);
        assert_eq!(at("2001:db8:2::").country, *b"US");
        assert!(at("2001:db8:1::5").point.km(place("HND").unwrap()) < 10.0);
        assert_eq!(at("2001:db9::").country, [0; 2]);
        assert_eq!(location.cell("198.51.100.1".parse().unwrap()), UNKNOWN);
    }

    #[test]
    fn a_database_that_is_none_is_refused() {
        let refused = Compiler::new().database(b"not one").unwrap_err();
        assert!(refused.starts_with("is no database in MaxMind's format"), "{refused}");
    }

    #[test]
    fn a_system_goes_on_behind_one_that_lies_within_it() {
        let mut compiler = Compiler::new();
        let text = "10.0.0.0\t10.0.255.255\t1\n10.0.1.0\t10.0.1.255\t2\n10.0.0.0\t10.0.0.255\t3\n";
        assert_eq!(compiler.systems(text, "table"), 3);
        let location = compiler.finish(1);
        for (address, wanted) in [("10.0.0.1", 3), ("10.0.1.1", 2), ("10.0.2.1", 1), ("10.0.255.1", 1)] {
            assert_eq!(location.systems().of(address.parse().unwrap()), wanted, "{address}");
        }
    }

    proptest! {
        #[test]
        fn of_ranges_that_overlap_the_one_that_begins_later_counts_then_the_shorter(
            ranges in prop::collection::vec((0u64..40, 0u64..40, 1u32..5), 1..12)
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(first, more, system)| (first, first + more, system)).collect();
            let runs = filled(ranges.clone());
            prop_assert_eq!(runs[0].0, 0);
            prop_assert!(runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
            for at in 0..90 {
                let covering = ranges.iter().filter(|(first, last, _)| (*first..=*last).contains(&at));
                let best = covering.clone().map(|(first, last, _)| (*first, std::cmp::Reverse(*last))).max();
                let wanted: Vec<u32> = covering
                    .filter(|(first, last, _)| Some((*first, std::cmp::Reverse(*last))) == best)
                    .map(|(.., system)| *system)
                    .collect();
                let found = runs[runs.partition_point(|(start, _)| *start <= at) - 1].1;
                prop_assert!(wanted.contains(&found) || (wanted.is_empty() && found == 0), "{at}: {found}");
            }
        }
    }

    #[test]
    fn runs_follow_the_newest_network() {
        let cells = [0, 1, 2, 3];
        let networks = [(100, 199, 1), (150, 159, 2), (300, u64::MAX, 3), (0, 9, 1)];
        let runs = |networks| runs(networks, |place| cells[place as usize]);
        assert_eq!(runs(&networks), [(0, 1), (10, 0), (100, 1), (150, 2), (160, 1), (200, 0), (300, 3)]);
        assert_eq!(runs(&[]), [(0, 0)]);
    }
}
