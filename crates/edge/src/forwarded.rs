//! Who the visitor is when a proxy of ours stands before us: X-Forwarded-For and X-Forwarded-Proto are believed from
//! trusted networks alone, and from the right, because everything to the left of the last trusted hop was written by
//! strangers.

use std::net::IpAddr;

use model::settings::Network;
use semantics::Fields;

/// Most addresses of X-Forwarded-For that are looked at.
const HOPS_MAX: usize = 32;

/// Whether `address` is in one of the networks.
pub(crate) fn is_trusted(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// The visitor's address: the last one in X-Forwarded-For that is not a trusted proxy. `peer` when the list is absent,
/// unreadable, or holds trusted addresses only.
pub(crate) fn client(networks: &[Network], fields: &Fields, peer: IpAddr) -> IpAddr {
    let Some(list) = fields.combined("x-forwarded-for") else { return peer };
    let Ok(list) = std::str::from_utf8(&list) else { return peer };
    let mut client = peer;
    for address in list.rsplit(',').take(HOPS_MAX) {
        let Ok(address) = address.trim().parse::<IpAddr>() else { return client };
        client = address;
        if !is_trusted(networks, address) {
            break;
        }
    }
    client
}

/// Whether the proxy before us says that the visitor's connection is encrypted; `None` when it says nothing.
pub(crate) fn secure(fields: &Fields) -> Option<bool> {
    match fields.get("x-forwarded-proto")? {
        b"https" => Some(true),
        b"http" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_visitor_is_the_last_address_that_is_not_ours() {
        let networks = [Network::parse("10.0.0.0/8").unwrap(), Network::parse("127.0.0.1").unwrap()];
        let peer = "127.0.0.1".parse().unwrap();
        for (list, expected) in [
            (None, "127.0.0.1"),
            (Some("192.0.2.1"), "192.0.2.1"),
            (Some("6.6.6.6, 192.0.2.1, 10.0.0.9"), "192.0.2.1"),
            (Some("10.0.0.8, 10.0.0.9"), "10.0.0.8"),
            (Some("nonsense, 10.0.0.9"), "10.0.0.9"),
            (Some("192.0.2.1, nonsense"), "127.0.0.1"),
        ] {
            let fields: Fields = list.map(|list| ("X-Forwarded-For", list)).into_iter().collect();
            assert_eq!(client(&networks, &fields, peer), expected.parse::<IpAddr>().unwrap(), "{list:?}");
        }
    }
}
