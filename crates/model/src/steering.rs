//! What edges tell routers about the way to visitors and about each other. Values only: `edge` makes them, reports carry them, and
//! `router` decides with them.
//!
//! These are texts that nodes exchange (JSON), so a field may be added with a default and never change its meaning.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Round trips in one report; what is more waits for the next one, a second later.
pub const TRIPS_MAX: usize = 512;
/// Bits of a network whose round trips are put together: of IPv4, of IPv6. What is longer is nobody's business.
pub const NETWORK_BITS: (u8, u8) = (24, 48);

/// Round trips between a network and a PoP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundTrips {
    /// An address of the network: [`NETWORK_BITS`] of it count.
    pub network: IpAddr,
    /// The name of the PoP.
    pub pop: String,
    /// How many were measured.
    #[serde(default)]
    pub count: u32,
    /// Their sum, in ms.
    #[serde(default)]
    pub sum_ms: f64,
    /// How many more got no answer.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failed: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// The network of an address, as a number: what [`NETWORK_BITS`] leave of it, the same for an IPv4 address and the IPv6 address that it
/// is mapped into.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) & (u32::MAX << (32 - NETWORK_BITS.0))).into()),
        IpAddr::V6(address) => {
            IpAddr::V6((u128::from(address) & (u128::MAX << (128 - NETWORK_BITS.1))).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_as_long_as_is_told_apart() {
        for (address, wanted) in [
            ("203.0.113.77", "203.0.113.0"),
            ("::ffff:203.0.113.77", "203.0.113.0"),
            ("2001:db8:1:2:3::4", "2001:db8:1::"),
        ] {
            let [address, wanted] = [address, wanted].map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(network_of(address), wanted);
        }
    }
}
