//! Where a cluster's edges are and by which names visitors find them: PoPs, the DNS zone, and how the router looks at them.
//! Values only; the crate `router` decides with them.

use std::net::IpAddr;
use std::time::Duration;

use crate::settings::{Bound, Network, bound};
use crate::tiers::Node;

/// PoPs of one cluster. Each costs the router some µs per change, and its visitors nothing.
pub const POPS_MAX: usize = 1000;
/// Addresses of a PoP: more than an answer of DNS holds in a plain UDP packet serve nobody.
pub const EDGES_MAX: usize = 64;
/// How long resolvers keep an answer. Half a minute bounds how long a visitor is sent to a PoP that has gone; shorter costs
/// visitors a look-up more often, and some resolvers don't believe it.
pub const DNS_TTL: Bound<Duration> =
    bound(Duration::from_secs(30), Duration::from_secs(5), Duration::from_secs(3600));
/// Answers per second of the same kind to one network (a /24 or /56), after which the rest is dropped or told to come by TCP; 0
/// is no limit. Large resolvers ask some hundred times per second for a busy name, once per client network and TTL.
pub const DNS_RATE: Bound<u32> = bound(1000, 0, 1_000_000);
/// Time between two probes of an edge.
pub const PROBE_INTERVAL: Bound<Duration> =
    bound(Duration::from_millis(500), Duration::from_millis(100), Duration::from_secs(60));
/// Time that an edge has to answer a probe. A round trip around the earth takes 0.3 s.
pub const PROBE_TIMEOUT: Bound<Duration> =
    bound(Duration::from_secs(1), Duration::from_millis(100), Duration::from_secs(30));
/// What an operator may add to a PoP's estimates.
pub const BIAS: Bound<Duration> = bound(Duration::ZERO, Duration::ZERO, Duration::from_secs(10));
/// Percent of all visitors that a PoP may be given.
pub const SHARE_PERCENT: std::ops::RangeInclusive<i64> = 1..=100;
/// How much farther a PoP's spare may be, as a visitor's wait by distance.
pub const SPARE_WITHIN: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(1);

/// A place on the earth, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// North is positive; -90 to 90.
    pub latitude: f64,
    /// East is positive; -180 to 180.
    pub longitude: f64,
}

impl Point {
    /// Kilometres to `other` along the surface. The earth counts as a sphere, which is wrong by at most 0.6 %.
    pub fn km(self, other: Point) -> f64 {
        let (a, b) = (self.unit(), other.unit());
        km_between(a, b)
    }

    /// The place as a vector of length 1 from the earth's centre.
    pub fn unit(self) -> [f64; 3] {
        let (latitude, longitude) = (self.latitude.to_radians(), self.longitude.to_radians());
        [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()]
    }
}

/// [`Point::km`] for two [`Point::unit`]s.
pub fn km_between(a: [f64; 3], b: [f64; 3]) -> f64 {
    let chord = ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2) + (a[2] - b[2]).powi(2)).sqrt();
    2.0 * EARTH_KM * (chord / 2.0).clamp(0.0, 1.0).asin()
}

/// The earth's radius.
pub const EARTH_KM: f64 = 6371.0;

/// Lines of `place latitude longitude`; see `data/places.py`.
const PLACES: &str = include_str!("../data/places.txt");

/// Where an airport (`FRA`) or a region of a cloud (`aws:eu-central-1`) is.
pub fn place(name: &str) -> Option<Point> {
    places().find(|(known, _)| *known == name).map(|(_, point)| point)
}

/// The centre of where a country's people live: what to take when nothing finer is known. `country`: two capital letters.
pub fn country_centre(country: &str) -> Option<Point> {
    places().find(|(known, _)| known.strip_prefix("country:") == Some(country)).map(|(_, point)| point)
}

/// The names that [`place`] knows.
pub fn place_names() -> impl Iterator<Item = &'static str> {
    places().map(|(name, _)| name).filter(|name| !name.starts_with("country:"))
}

/// The names of a cloud's regions: of `aws`, all that begin with `aws:`.
pub fn regions_of_cloud(cloud: &str) -> impl Iterator<Item = &'static str> {
    place_names().filter(move |name| name.strip_prefix(cloud).is_some_and(|rest| rest.starts_with(':')))
}

fn places() -> impl Iterator<Item = (&'static str, Point)> {
    PLACES.lines().filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let (latitude, longitude) = rest.split_once(' ')?;
        Some((name, Point { latitude: latitude.parse().ok()?, longitude: longitude.parse().ok()? }))
    })
}

/// Everything that a cluster says about routing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// The PoPs, in the order of the file.
    pub pops: Vec<Pop>,
    /// The zone; `None` when the router serves none.
    pub dns: Option<DnsSettings>,
    /// How edges are looked at.
    pub probe: ProbeSettings,
    /// What edges measure.
    pub measure: MeasureSettings,
}

impl Routing {
    /// The PoPs that a site's `pops` name, as indices; all of one's own when it names none. See [`crate::Site::pops`].
    pub fn pops_of(&self, names: &[Box<str>]) -> Vec<usize> {
        let is_of = |pop: &Pop| match names.is_empty() {
            true => pop.cname.is_none(),
            false => names.iter().any(|name| pop.name == *name || pop.regions.contains(name)),
        };
        (0..self.pops.len()).filter(|index| is_of(&self.pops[*index])).collect()
    }

    /// The PoP of this name.
    pub fn pop_named(&self, name: &str) -> Option<&Pop> {
        self.pops.iter().find(|pop| &*pop.name == name)
    }

    /// The PoP that has a node of this name.
    pub fn pop_of_node(&self, name: &str) -> Option<&Pop> {
        self.pops.iter().find(|pop| pop.nodes.iter().any(|node| &*node.name == name))
    }
}

/// One or more edges in one place; or another CDN, which is in all places.
#[derive(Clone, Debug, PartialEq)]
pub struct Pop {
    /// Its name: letters, digits, `-`, `_` and `.`; where there is a zone, a label of DNS.
    pub name: Box<str>,
    /// Where it is; `None` for another CDN: near everybody, as far as is known.
    pub location: Option<Point>,
    /// Of another CDN, the name that visitors are sent to, lower-case.
    pub cname: Option<Box<str>>,
    /// Of another CDN, what a visitor's browser times to learn how far it is.
    pub beacon: Option<Box<str>>,
    /// The addresses that visitors are sent to; of another CDN, where a CNAME may not stand.
    pub edges: Vec<IpAddr>,
    /// Its edges as they reach each other, where they act as one cache: at most [`crate::tiers::NODES_MAX`].
    pub nodes: Vec<Node>,
    /// Names of the operator's own for groups of PoPs, which sites may name.
    pub regions: Vec<Box<str>>,
    /// Clients that are served here before any estimate is asked.
    pub networks: Vec<Network>,
    /// Added to every estimate of this PoP, in ms: what it costs more than others, in the operator's eyes.
    pub bias_ms: f64,
    /// The percentage of all visitors that are sent here, wherever they are; `None`: those for whom it is the best.
    pub share: Option<u8>,
    /// What it can take, in Mbit/s; `None` is no bound.
    pub capacity: Option<u32>,
    /// Nobody new is sent here.
    pub drain: bool,
    /// Visitors are sent here only when no other PoP is left.
    pub last_resort: bool,
    /// Line of the configuration where it begins.
    pub line: u32,
}

/// A zone that the router answers for.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsSettings {
    /// Its name, lower-case, without the dot at the end: `cdn.example`.
    pub zone: Box<str>,
    /// Its nameservers, with their addresses when they lie in the zone.
    pub nameservers: Vec<(Box<str>, Vec<IpAddr>)>,
    /// Whom to write to (RFC 1035 §3.3.13), as a mail address.
    pub contact: Box<str>,
    /// How long resolvers keep an answer that names a PoP.
    pub ttl: Duration,
    /// Answers also have an address of the PoP next to the chosen one, if that is no farther than this ([`SPARE_WITHIN`]); `None`: never.
    pub spare_within: Option<Duration>,
    /// Whether answers are signed.
    pub dnssec: bool,
    /// Whether resolvers' client subnets are listened to (RFC 7871).
    pub client_subnet: bool,
    /// Whether HTTPS records are given, by which browsers learn of HTTP/2 and HTTP/3 before they connect.
    pub https: bool,
    /// Who may issue certificates for names of the zone (RFC 8659); nothing is said when empty.
    pub caa: Vec<Box<str>>,
    /// Further records in the form of a zone file (RFC 1035 §5); the origin is the zone.
    pub records: String,
    /// [`DNS_RATE`].
    pub rate: u32,
    /// Line of the configuration where it begins.
    pub line: u32,
}

/// What is asked of an edge to see whether it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A request of HTTP/1.1, which any answer below 500 satisfies.
    Http,
    /// A TCP connection.
    Tcp,
    /// Nothing: every edge counts as well.
    Off,
}

/// How edges are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// What is asked.
    pub kind: ProbeKind,
    /// On which port.
    pub port: u16,
    /// [`PROBE_INTERVAL`].
    pub interval: Duration,
    /// [`PROBE_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        ProbeSettings {
            kind: ProbeKind::Http,
            port: 80,
            interval: PROBE_INTERVAL.default,
            timeout: PROBE_TIMEOUT.default,
        }
    }
}

/// What edges measure of the way to visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasureSettings {
    /// The round trips of some of their visitors' connections.
    pub connections: bool,
    /// Whether they serve the beacon, and take what it says.
    pub beacons: bool,
}

impl Default for MeasureSettings {
    fn default() -> Self {
        MeasureSettings { connections: true, beacons: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_earth() {
        let [fra, jfk, syd] = ["FRA", "JFK", "SYD"].map(|code| place(code).unwrap());
        for (from, to, wanted) in [(fra, jfk, 6_205.0), (fra, syd, 16_500.0), (fra, fra, 0.0)] {
            let km = from.km(to);
            assert!((km - wanted).abs() <= wanted * 0.01, "{km} instead of {wanted}");
        }
        let (east, west) =
            (Point { latitude: 0.0, longitude: 179.0 }, Point { latitude: 0.0, longitude: -179.0 });
        assert!(east.km(west) < 223.0, "the date line is no wall");
    }

    #[test]
    fn clouds_and_countries_have_places() {
        assert!(place("aws:eu-central-1").unwrap().km(place("FRA").unwrap()) < 50.0);
        assert!(country_centre("DE").unwrap().km(place("FRA").unwrap()) < 300.0);
        assert_eq!(place("QQQ"), None);
    }
}
