//! Where things are in the demo's world: the shop, the PoPs, the cities that visitors come from; and how long light, routers and the
//! visitor's own line take between them. Names, places and arithmetic, nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use model::routing::Point;
use router::estimate::{PRIOR_KM_PER_MS, prior_ms};

/// Where the shop's own server stands: far from nearly everybody.
pub(super) const SHOP_CITY: &str = "Auckland";
const SHOP: Point = Point { latitude: -36.85, longitude: 174.76 };

/// What the shop's line carries, upwards: pages, photos and all, to everybody together. That of a small firm.
pub(super) const SHOP_UPLINK_BITS_PER_SECOND: u64 = 20_000_000;

/// The PoP through which the others ask the shop: the one that is nearest to it.
pub(super) const SHIELD: &str = "sin";

/// A place with edges.
#[derive(Debug)]
pub(super) struct Pop {
    /// Its name in the configuration.
    pub(super) name: &'static str,
    /// For people.
    pub(super) city: &'static str,
    /// As the configuration names it: an airport.
    pub(super) location: &'static str,
    point: Point,
    /// How many edges stand there.
    pub(super) edges: usize,
}

/// The PoPs.
pub(super) const POPS: &[Pop] = &[
    Pop {
        name: "fra",
        city: "Frankfurt",
        location: "FRA",
        point: Point { latitude: 50.03, longitude: 8.57 },
        edges: 2,
    },
    Pop {
        name: "iad",
        city: "Washington",
        location: "IAD",
        point: Point { latitude: 38.94, longitude: -77.46 },
        edges: 1,
    },
    Pop {
        name: "sin",
        city: "Singapore",
        location: "SIN",
        point: Point { latitude: 1.35, longitude: 103.99 },
        edges: 1,
    },
];

/// A city that visitors come from.
#[derive(Debug)]
pub(super) struct City {
    pub(super) name: &'static str,
    /// ISO 3166-1.
    pub(super) country: &'static str,
    point: Point,
    /// Visitors from here, in proportion to the other cities'.
    pub(super) weight: u64,
}

const fn city(name: &'static str, country: &'static str, latitude: f64, longitude: f64, weight: u64) -> City {
    City { name, country, point: Point { latitude, longitude }, weight }
}

/// The cities.
pub(super) const CITIES: &[City] = &[
    city("Tokyo", "JP", 35.68, 139.69, 8),
    city("Berlin", "DE", 52.52, 13.40, 6),
    city("London", "GB", 51.51, -0.13, 9),
    city("Paris", "FR", 48.86, 2.35, 7),
    city("Madrid", "ES", 40.42, -3.70, 4),
    city("Istanbul", "TR", 41.01, 28.98, 4),
    city("Lagos", "NG", 6.45, 3.40, 4),
    city("Nairobi", "KE", -1.29, 36.82, 3),
    city("New York", "US", 40.71, -74.01, 9),
    city("Chicago", "US", 41.88, -87.63, 5),
    city("Los Angeles", "US", 34.05, -118.24, 7),
    city("Mexico City", "MX", 19.43, -99.13, 4),
    city("São Paulo", "BR", -23.55, -46.63, 6),
    city("Mumbai", "IN", 19.08, 72.88, 8),
    city("Singapore", "SG", 1.29, 103.85, 4),
    city("Jakarta", "ID", -6.21, 106.85, 5),
];

/// The network of a city's visitors: addresses that stand for nobody (RFC 3849).
pub(super) fn network(city: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, city as u16 + 1, 0, 0, 0, 0, 0)
}

/// How long [`network`]'s prefix is.
pub(super) const NETWORK_BITS: u8 = 48;

/// The address of a visitor from a city.
pub(super) fn visitor(city: usize, number: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(network(city).to_bits() | u128::from(number))
}

/// The address of an edge. All of 127.0.0.0/8 is this machine (RFC 1122 §3.2.1.3), so that each has one of its own and all the same port.
pub(super) fn edge_address(pop: usize, edge: usize) -> IpAddr {
    Ipv4Addr::new(127, 83, pop as u8 + 1, edge as u8 + 1).into()
}

/// Where other edges reach one: the near end of a line that leads there.
pub(super) fn tier_door(pop: usize, edge: usize) -> IpAddr {
    Ipv4Addr::new(127, 84, pop as u8 + 1, edge as u8 + 1).into()
}

/// All edges: their PoP, and their number in it.
pub(super) fn edges() -> impl Iterator<Item = (usize, usize)> {
    POPS.iter().enumerate().flat_map(|(pop, place)| (0..place.edges).map(move |edge| (pop, edge)))
}

/// The PoP that an address is an edge of.
pub(super) fn pop_of(address: IpAddr) -> Option<usize> {
    let IpAddr::V4(address) = address else { return None };
    match address.octets() {
        [127, 83, pop, _] => usize::from(pop).checked_sub(1).filter(|pop| *pop < POPS.len()),
        _ => None,
    }
}

// --- Distances ---

/// One way from a visitor to a PoP.
pub(super) fn city_to_pop(city: usize, pop: usize) -> Duration {
    one_way(prior_ms(CITIES[city].point.km(POPS[pop].point)))
}

/// One way from a visitor to the shop, without a CDN.
pub(super) fn city_to_shop(city: usize) -> Duration {
    one_way(prior_ms(CITIES[city].point.km(SHOP)))
}

/// One way from a PoP to the shop: between data centres, without a visitor's own line.
pub(super) fn pop_to_shop(pop: usize) -> Duration {
    one_way(POPS[pop].point.km(SHOP) / PRIOR_KM_PER_MS)
}

/// One way between two PoPs, or from one edge of a PoP to another.
pub(super) fn pop_to_pop(from: usize, to: usize) -> Duration {
    one_way(POPS[from].point.km(POPS[to].point) / PRIOR_KM_PER_MS)
}

/// Of a round trip.
fn one_way(round_trip_ms: f64) -> Duration {
    Duration::from_secs_f64(round_trip_ms / 2000.0)
}

/// What the router is to know of the visitors' networks: lines of `perigee geo build --list`.
pub(super) fn location_list() -> String {
    let line = |(number, city): (usize, &City)| {
        let Point { latitude, longitude } = city.point;
        format!("{}/{NETWORK_BITS},{latitude} {longitude},{}\n", network(number), city.country)
    };
    CITIES.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_city_is_nearer_to_a_pop_than_to_the_shop() {
        for (number, city) in CITIES.iter().enumerate() {
            let nearest = (0..POPS.len()).map(|pop| city_to_pop(number, pop)).min();
            assert!(nearest < Some(city_to_shop(number)), "{}", city.name);
        }
    }

    #[test]
    fn the_shield_is_the_pop_that_is_nearest_to_the_shop() {
        let nearest = (0..POPS.len()).min_by_key(|pop| pop_to_shop(*pop)).unwrap();
        assert_eq!(POPS[nearest].name, SHIELD);
        assert_eq!(pop_to_pop(nearest, nearest), Duration::ZERO);
    }

    #[test]
    fn distances_are_those_of_the_earth() {
        // Frankfurt to Auckland: 18,200 km.
        assert_eq!(pop_to_shop(0).as_millis(), 168);
        // London to Frankfurt: 650 km, and the visitor's own line.
        assert_eq!(city_to_pop(2, 0).as_millis(), 10);
    }

    #[test]
    fn addresses_say_where_they_are() {
        assert_eq!(pop_of(edge_address(2, 1)), Some(2));
        assert_eq!(pop_of(edge_address(3, 0)), None);
        assert_eq!(pop_of(Ipv4Addr::LOCALHOST.into()), None);
        assert_eq!(visitor(0, 7).to_string(), "2001:db8:1::7");
        for (number, pop) in POPS.iter().enumerate() {
            let airport = model::routing::place(pop.location).unwrap();
            assert!(airport.km(pop.point) < 10.0, "{}", pop.name);
            assert!(pop.edges > 0 && number < 250);
        }
    }
}
