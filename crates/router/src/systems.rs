//! Whose each network is: from an address to the number of its autonomous system. Two networks of one town may reach a PoP by
//! quite different ways, so what was measured is kept by both.
//!
//! Runs of /24s and /48s with one number, and an index by the first 16 bits: some 4 MB for the whole internet, of which a look-up reads
//! two or three lines. A part of location data ([`crate::location`]), made by `compile`.

use std::net::IpAddr;

use crate::location::first_64;

/// Runs at most, of each family; the whole internet has half a million.
pub(crate) const RUNS_MAX: usize = 4 << 20;
const BLOCKS: usize = 1 << 16;

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

    /// The system of an address; 0 when it is not known.
    pub fn of(&self, address: IpAddr) -> u32 {
        match address.to_canonical() {
            IpAddr::V4(address) => self.of_24(u32::from(address) >> 8),
            IpAddr::V6(address) => {
                let run = self.v6.run(first_64(address) >> 16, 48);
                run.map_or(0, |run| self.v6.systems[run])
            }
        }
    }

    /// The system of a /24, given by its first 24 bits.
    pub(crate) fn of_24(&self, network: u32) -> u32 {
        self.v4.run(u64::from(network), 24).map_or(0, |run| self.v4.systems[run])
    }

    /// The first and the last /48 of those around one that have the same system.
    pub(crate) fn around_48(&self, network: u64) -> (u64, u64) {
        let Some(run) = self.v6.run(network, 48) else { return (network, network) };
        let last = self.v6.start(run + 1, 48).map_or((1 << 48) - 1, |next| next - 1);
        (self.v6.start(run, 48).unwrap_or(network), last)
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
        for (address, wanted) in [
            ("9.255.255.1", 0),
            ("10.0.0.1", 64_500),
            ("10.0.15.9", 64_500),
            ("10.0.16.1", 0),
            ("11.255.253.1", 0),
            ("11.255.254.1", 64_501),
            ("12.0.1.255", 64_501),
            ("12.0.2.0", 0),
            ("::ffff:10.0.0.1", 64_500),
            ("2001:db8:ffff::1", 64_502),
            ("2001:db9::1", 0),
            ("2001:db7::1", 0),
        ] {
            assert_eq!(systems.of(address.parse().unwrap()), wanted, "{address}");
        }
        assert_eq!(systems.runs(), (v4.to_vec(), v6.to_vec()));
        assert_eq!(systems.around_48(0x2001_0db8_1234), (0x2001_0db8_0000, 0x2001_0db8_ffff));
        assert!(!systems.is_empty() && Systems::default().is_empty());
        assert_eq!(Systems::default().of("10.0.0.1".parse().unwrap()), 0);
    }
}
