//! Hosts that a page needs besides its own. What is not loaded takes no time: so it is looked whether each of them answers, and by which way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use browser::Visit;

use super::Target;
use crate::failure::Failure;

/// What a page needs besides its own host.
#[derive(Default)]
pub(super) struct Beside {
    /// Names with their ports, and where each is.
    pub(super) hosts: Vec<(String, SocketAddr)>,
    /// Those that answer by no way, line or none.
    pub(super) missing: BTreeSet<String>,
}

/// Name with port, and in parts, of a host that is not the page's own.
pub(super) fn other_host(url: &str, target: &Target) -> Option<(String, Target)> {
    let other = Target::of(url).ok().filter(|other| other.host != target.host)?;
    Some((format!("{}:{}", other.host, other.port), other))
}

/// The other hosts of which nothing came, and why. Who answers and is not believed (CORS, ORB, a policy of the page) has been reached.
pub(super) fn unanswered(visit: &Visit, target: &Target) -> BTreeMap<String, String> {
    let is_of_network = |why: &str| {
        why.starts_with("net::ERR_")
            && why != "net::ERR_FAILED"
            && !["ABORTED", "BLOCKED"].iter().any(|word| why.contains(word))
    };
    let (mut failed, mut answered) = (BTreeMap::new(), BTreeSet::new());
    for one in &visit.exchanges {
        let Some((host, _)) = other_host(&one.url, target) else { continue };
        match &one.failure {
            _ if one.status > 0 || one.is_from_cache => _ = answered.insert(host),
            Some(why) if is_of_network(why) => _ = failed.insert(host, why.clone()),
            _ => {}
        }
    }
    failed.retain(|host, _| !answered.contains(host));
    failed
}

/// The hosts that are missing by each way alike. A page that lacks something by one way alone would look the faster for it.
pub(super) fn missing_alike(ways: &[(&str, BTreeMap<String, String>)]) -> Result<BTreeSet<String>, Failure> {
    for (way, failed) in ways {
        for (host, why) in failed {
            if let Some((other, _)) = ways.iter().find(|(_, failed)| !failed.contains_key(host)) {
                return Err(Failure::new(
                    format!(
                        "{host} does not answer by way of {way} ({why}), and is not missed by way of {other}: what is not loaded takes no time"
                    ),
                    "see that this machine finds the host (DNS, /etc/hosts), that it listens, and that its certificate is believed (--insecure)",
                ));
            }
        }
    }
    Ok(ways.iter().flat_map(|(_, failed)| failed.keys().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use browser::Exchange;

    use super::*;

    fn visit(exchanges: &[(&str, u16, Option<&str>)]) -> Visit {
        let exchange = |(url, status, failure): &(&str, u16, Option<&str>)| Exchange {
            url: (*url).to_owned(),
            status: *status,
            failure: failure.map(str::to_owned),
            ..Exchange::default()
        };
        Visit { exchanges: exchanges.iter().map(exchange).collect(), ..Visit::default() }
    }

    #[test]
    fn a_host_is_missing_when_nothing_of_it_came_and_only_what_all_lack_is_let_pass() {
        let target = Target::of("http://shop.test/").unwrap();
        let lost = Some("net::ERR_NAME_NOT_RESOLVED");
        let seen = visit(&[
            ("http://shop.test/", 200, None),
            ("http://shop.test/a.js", 0, lost),
            ("https://cdn.test/a.js", 0, lost),
            ("https://two.test/a.js", 0, lost),
            ("https://two.test/b.js", 200, None),
            ("https://orb.test/a.js", 0, Some("net::ERR_BLOCKED_BY_ORB")),
            ("https://cors.test/a.js", 0, Some("net::ERR_FAILED")),
            ("https://left.test/a.js", 0, Some("net::ERR_ABORTED")),
            ("https://csp.test/a.js", 0, Some("csp")),
        ]);
        let lacking = unanswered(&seen, &target);
        assert_eq!(lacking.keys().collect::<Vec<_>>(), ["cdn.test:443"]);
        let none = BTreeMap::new();
        let refused = missing_alike(&[("origin", none), ("CDN", lacking.clone())]).unwrap_err().to_string();
        assert!(refused.contains("cdn.test:443 does not answer by way of CDN"), "{refused}");
        let alike = missing_alike(&[("origin", lacking.clone()), ("CDN", lacking)]).unwrap();
        assert_eq!(alike.iter().collect::<Vec<_>>(), ["cdn.test:443"]);
    }
}
