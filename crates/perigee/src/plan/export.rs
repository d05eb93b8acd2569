//! A plan as configuration: a `[[pop]]` for each place to add, behind what there is.

use std::net::{IpAddr, Ipv4Addr};

use super::gather::Gathered;
use super::report::Report;
use crate::failure::Failure;

/// What is no configuration without a site.
const SITE: &str = "# A configuration has a site; this one is an example.
[[site]]
name = \"shop\"
domains = \"www.shop.example\"
origin = \"https://origin.shop.example\"
";

/// The configuration as it was, if there was one, with the new PoPs. Their addresses are of those that are nobody's (RFC 5737), to be
/// replaced.
pub(super) fn configuration(gathered: &Gathered, report: &Report) -> Result<String, Failure> {
    let mut text = match &gathered.config {
        Some((text, _)) => format!("{}\n", text.trim_end()),
        None => SITE.to_owned(),
    };
    let pops = gathered.config.as_ref().map_or(&[][..], |(_, snapshot)| &snapshot.routing.pops);
    let mut names: Vec<String> = pops.iter().map(|pop| pop.name.to_string()).collect();
    let mut addresses = (1..=254u8).map(|host| IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)));
    text.push_str("\n# Added by `perigee plan`. The addresses are nobody's (RFC 5737): put those of your edges there.\n");
    // Those of the configuration come first, but for other CDNs, which are in no place.
    let kept = pops.iter().filter(|pop| pop.location.is_some()).count();
    for offer in &report.plan.set[kept..] {
        let offer = &gathered.offers[*offer];
        let plain = offer.location.to_ascii_lowercase().replace(':', "-");
        let name = (1..).map(|count| if count == 1 { plain.clone() } else { format!("{plain}-{count}") });
        let name = name.into_iter().find(|name| !names.contains(name)).unwrap_or(plain.clone());
        let is_free = |address: &IpAddr| pops.iter().all(|pop| !pop.edges.contains(address));
        let Some(address) = addresses.by_ref().find(is_free) else {
            return Err(Failure::new(
                "no example address is left for a PoP",
                "leave some of 192.0.2.0/24 out of --config",
            ));
        };
        text.push_str(&format!(
            "\n# {}\n[[pop]]\nname = {name:?}\nlocation = {:?}\nedges = [\"{address}\"]\n",
            offer.place.city, offer.location
        ));
        names.push(name);
    }
    crate::recorded::parse(&text, "the configuration with the new PoPs")?;
    Ok(text)
}
