//! Whose each network is: from an address to the number of its autonomous system. Two networks of one town may reach a PoP by
//! quite different ways, so what was measured is kept by both.
//!
//! Runs of /24s and /48s with one number, and an index by the first 16 bits: some 4 MB for the whole internet, of which a look-up reads
//! two or three lines. A part of location data ([`crate::location`]), made by `compile`.
//!
//! Of whom no data says whose it is, its prefix stands for the system: the /20 (IPv6: the /36), and the /16 (the /32) for those around it
//! (`wider`). On the internet two /24s of a /20 are of one system in 95 of 100 cases, two of a /16 in 85.

use std::net::IpAddr;

use model::mix64;

use crate::location::first_64;

/// Runs at most, of each family; the whole internet has half a million.
pub(crate) const RUNS_MAX: usize = 4 << 20;
const BLOCKS: usize = 1 << 16;
/// Numbers from here up to 0x8fff_ffff are no systems (IANA gives them to nobody) but prefixes:
///
/// ```text
/// IPv4   1000 0000000 pppppppppppppppppppp 1      the first 20 bits
/// IPv6   1000 1 hhhhhhhhhhhhhhhhhhhhhh pppp 1     a hash of the first 32 bits, the next 4
/// ```
///
/// With its last five bits 0, such a number is the wider prefix.
const PREFIXES: u32 = 0x8000_0000;
const PREFIXES_V6: u32 = 0x8800_0000;
/// Bits of the prefixes that stand for systems.
const PREFIX_BITS_V4: u32 = 20;
/// See [`PREFIX_BITS_V4`].
const PREFIX_BITS_V6: u32 = 36;

/// Whether it is a prefix that stands for a system.
pub(crate) fn is_prefix(system: u32) -> bool {
    system & 0xf000_0000 == PREFIXES
}

/// The system itself; of a prefix that stands for one, the one that is four bits shorter.
pub(crate) fn wider(system: u32) -> u32 {
    if is_prefix(system) { system & !0x1f } else { system }
}

/// What stands for the system of a /24.
fn prefix_of_24(network: u32) -> u32 {
    PREFIXES | (network >> (24 - PREFIX_BITS_V4)) << 1 | 1
}

/// What stands for the system of a /48.
fn prefix_of_48(network: u64) -> u32 {
    let hash = mix64(network >> 16) >> 42;
    let next = (network >> (48 - PREFIX_BITS_V6)) & 0xf;
    PREFIXES_V6 | ((hash << 4 | next) << 1) as u32 | 1
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Systems {
    v4: Runs,
    v6: Runs,
}

/// Where a run begins, and whose it is.
pub(crate) type Run = (u64, u32);

/// Where something else begins, ascending from 0: 24 bits of IPv4, 48 of IPv6.
#[derive(Clone, Debug, Default, PartialEq)]
struct Runs {
    /// The lowest 32 bits.
    starts: Vec<u32>,
    systems: Vec<u32>,
    /// For the first 16 bits, the first run that begins there.
    index: Vec<u32>,
}

impl Runs {
    /// `width`: of the starts, in bits.
    fn of(runs: &[Run], width: u32) -> Runs {
        if runs.is_empty() {
            return Runs::default();
        }
        let mut index = Vec::with_capacity(BLOCKS + 1);
        for (number, (start, _)) in runs.iter().enumerate() {
            while index.len() as u64 <= start >> (width - 16) {
                index.push(number as u32);
            }
        }
        index.resize(BLOCKS + 1, runs.len() as u32);
        Runs {
            starts: runs.iter().map(|(start, _)| *start as u32).collect(),
            systems: runs.iter().map(|(_, system)| *system).collect(),
            index,
        }
    }

    fn run(&self, network: u64, width: u32) -> Option<usize> {
        let top = (network >> (width - 16)) as usize;
        let (from, to) = (*self.index.get(top)? as usize, *self.index.get(top + 1)? as usize);
        let low = network as u32;
        // The run that holds the network may begin before its block.
        (from + self.starts[from..to].partition_point(|start| *start <= low)).checked_sub(1)
    }

    fn start(&self, run: usize, width: u32) -> Option<u64> {
        let low = u64::from(*self.starts.get(run)?);
        let top = self.index.partition_point(|first| *first as usize <= run).saturating_sub(1) as u64;
        let low_bits = width - 16;
        Some(top << low_bits | low & ((1 << low_bits) - 1))
    }

    fn pairs(&self, width: u32) -> impl Iterator<Item = Run> {
        (0..self.starts.len()).filter_map(move |run| Some((self.start(run, width)?, self.systems[run])))
    }

    /// The system of a network; `None` where it is not known.
    fn system(&self, network: u64, width: u32) -> Option<u32> {
        self.run(network, width).map(|run| self.systems[run]).filter(|system| *system != 0)
    }

    /// The first and the last of the networks around one that have the same system, or stand for it with the same `prefix_bits`.
    fn around(&self, network: u64, width: u32, prefix_bits: u32) -> (u64, u64) {
        let (mut first, mut last) = (0, (1 << width) - 1);
        let run = self.run(network, width);
        if let Some(run) = run {
            first = self.start(run, width).unwrap_or(network);
            last = self.start(run + 1, width).map_or(last, |next| next - 1);
        }
        if run.is_none_or(|run| self.systems[run] == 0) {
            let rest = (1 << (width - prefix_bits)) - 1;
            (first, last) = (first.max(network & !rest), last.min(network | rest));
        }
        (first, last)
    }
}

impl Systems {
    /// From runs that ascend from 0: of /24s, and of /48s.
    pub(crate) fn compile(v4: &[Run], v6: &[Run]) -> Systems {
        Systems { v4: Runs::of(v4, 24), v6: Runs::of(v6, 48) }
    }

    /// Whether nothing is known of anybody.
    pub fn is_empty(&self) -> bool {
        self.v4.starts.is_empty() && self.v6.starts.is_empty()
    }

    /// The system of an address; what stands for it when it is not known, which is never 0.
    pub fn of(&self, address: IpAddr) -> u32 {
        match address.to_canonical() {
            IpAddr::V4(address) => self.of_24(u32::from(address) >> 8),
            IpAddr::V6(address) => {
                let network = first_64(address) >> 16;
                self.v6.system(network, 48).unwrap_or_else(|| prefix_of_48(network))
            }
        }
    }

    /// The same of a /24, given by its first 24 bits.
    pub(crate) fn of_24(&self, network: u32) -> u32 {
        self.v4.system(u64::from(network), 24).unwrap_or_else(|| prefix_of_24(network))
    }

    /// The first and the last /24 of those around one that have the same system, or what stands for it.
    pub(crate) fn around_24(&self, network: u32) -> (u32, u32) {
        let (first, last) = self.v4.around(u64::from(network), 24, PREFIX_BITS_V4);
        (first as u32, last as u32)
    }

    /// The same of /48s; `wide`: of those in the wider prefix that stands for a system.
    pub(crate) fn around_48(&self, network: u64, wide: bool) -> (u64, u64) {
        self.v6.around(network, 48, PREFIX_BITS_V6 - if wide { 4 } else { 0 })
    }

    /// The runs of both families, as [`Systems::compile`] takes them.
    pub(crate) fn runs(&self) -> (Vec<Run>, Vec<Run>) {
        (self.v4.pairs(24).collect(), self.v6.pairs(48).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_runs_and_runs_are_given_back() {
        let v4 = [(0, 0), (0x0a_00_00, 64_500), (0x0a_00_10, 0), (0x0b_ff_fe, 64_501), (0x0c_00_02, 0)];
        let v6 = [(0, 0), (0x2001_0db8_0000, 64_502), (0x2001_0db9_0000, 0)];
        let systems = Systems::compile(&v4, &v6);
        let of = |address: &str| systems.of(address.parse().unwrap());
        for (address, wanted) in [
            ("10.0.0.1", 64_500),
            ("10.0.15.9", 64_500),
            ("11.255.254.1", 64_501),
            ("12.0.1.255", 64_501),
            ("::ffff:10.0.0.1", 64_500),
            ("2001:db8:ffff::1", 64_502),
        ] {
            assert_eq!((of(address), wider(wanted)), (wanted, wanted), "{address}");
        }
        for address in ["9.255.255.1", "10.0.16.1", "11.255.253.1", "12.0.2.0", "2001:db9::1", "2001:db7::1"]
        {
            assert_eq!(of(address) & 0xf000_0000, PREFIXES, "{address}");
        }
        assert_eq!(systems.runs(), (v4.to_vec(), v6.to_vec()));
        assert_eq!(systems.around_48(0x2001_0db8_1234, false), (0x2001_0db8_0000, 0x2001_0db8_ffff));
        assert_eq!(systems.around_24(0x0a_00_0f), (0x0a_00_00, 0x0a_00_0f));
        assert!(!systems.is_empty() && Systems::default().is_empty());
    }

    #[test]
    fn of_whom_nothing_is_known_the_prefix_stands_for_the_system() {
        let systems = Systems::compile(&[(0, 0), (0x0a_00_18, 64_500)], &[]);
        let of = |address: &str| systems.of(address.parse().unwrap());
        let same = |a: &str, b: &str| (of(a) == of(b), wider(of(a)) == wider(of(b)));
        for (a, b, wanted) in [
            ("10.0.0.1", "10.0.15.255", (true, true)),
            ("10.0.0.1", "10.0.16.1", (false, true)),
            ("9.255.0.1", "10.0.0.1", (false, false)),
            ("2001:db8::1", "2001:db8:fff::1", (true, true)),
            ("2001:db8::1", "2001:db8:1000::1", (false, true)),
            ("2001:db8::1", "2001:db9::1", (false, false)),
        ] {
            assert_eq!(same(a, b), wanted, "{a} {b}");
            assert_ne!(wider(of(a)), of(a), "the wider prefix is another number");
        }
        assert_eq!(wider(wider(of("10.0.0.1"))), wider(of("10.0.0.1")));
        assert_eq!(systems.around_24(0x0a_00_12), (0x0a_00_10, 0x0a_00_17), "up to a system that is known");
        assert_eq!(systems.around_24(0x0a_00_02), (0x0a_00_00, 0x0a_00_0f));
        assert_eq!(systems.around_48(0x2001_0db8_1234, false), (0x2001_0db8_1000, 0x2001_0db8_1fff));
        assert_eq!(systems.around_48(0x2001_0db8_1234, true), (0x2001_0db8_0000, 0x2001_0db8_ffff));
    }
}
