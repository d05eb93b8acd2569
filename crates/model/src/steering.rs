//! What edges tell routers about the way to visitors and about each other. Values only: `edge` makes them, reports carry them, and
//! `router` decides with them.
//!
//! These are texts that nodes exchange (JSON), so a field may be added with a default and never change its meaning.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Round trips in one report; what is more waits for the next one, a second later.
pub const TRIPS_MAX: usize = 512;
/// Votes in one report. Each address has three PoPs that look at it, so that a node has some hundred even in the largest cluster.
pub const VOTES_MAX: usize = 4_096;
/// Bytes of a PoP's name.
const NAME_BYTES_MAX: usize = 64;
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

/// What a node thinks of an edge that it has probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The edge's address.
    pub edge: IpAddr,
    /// Whether it does not answer.
    pub down: bool,
    /// The least round trip of the probes since the report before, in µs; `None` without one that was answered well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
}

/// What one report says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Steering {
    /// Round trips since the report before: at most [`TRIPS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trips: Vec<RoundTrips>,
    /// How many more there were that nobody had room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
    /// What it sends, in Mbit/s of responses' bodies; `None` when it was asked too soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mbps: Option<f64>,
    /// What it thinks of the edges that it looks at: at most [`VOTES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Vote>,
}

impl Steering {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Steering::default()
    }

    /// Whether it is no longer than a report may make it.
    pub fn is_bounded(&self) -> bool {
        self.trips.len() <= TRIPS_MAX
            && self.votes.len() <= VOTES_MAX
            && self.trips.iter().all(|trips| trips.pop.len() <= NAME_BYTES_MAX)
    }
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

fn is_zero(count: &u64) -> bool {
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
    fn votes_of_older_and_of_newer_nodes_are_read() {
        for (text, rtt_us) in [
            (r#"{"edge":"192.0.2.1","down":false}"#, None),
            (r#"{"edge":"192.0.2.1","down":false,"rtt_us":9300}"#, Some(9_300)),
            (r#"{"edge":"192.0.2.1","down":false,"rtt_us":9300,"of_tomorrow":[]}"#, Some(9_300)),
        ] {
            let vote = Vote { edge: "192.0.2.1".parse().unwrap(), down: false, rtt_us };
            assert_eq!(serde_json::from_str::<Vote>(text).unwrap(), vote, "{text}");
        }
        let silent = Vote { edge: "192.0.2.1".parse().unwrap(), down: true, rtt_us: None };
        assert_eq!(serde_json::to_string(&silent).unwrap(), r#"{"edge":"192.0.2.1","down":true}"#);
    }

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
