//! `perigee route`: says to which PoP a client would be sent, why, what comes next, and on what data. Asks no running router: it
//! decides as one would that thinks every edge well, but for those named by `--without`; `--with` adds PoPs that there are not yet.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use model::Pop;
use model::routing::{Point, place};
use router::location::{Location, UNKNOWN};
use router::table::{Ranking, View, Why, World};

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee route 203.0.113.7 --site shop --config cluster.toml --location location.geo
  perigee route 203.0.113.7 --config cluster.toml --location location.geo --without fra     what if fra were gone
  perigee route 203.0.113.7 --config cluster.toml --location location.geo --with waw=WAW    what if there were one in Warsaw";

/// `perigee route`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Route {
    /// The client's address
    ip: IpAddr,
    /// For which site; without, all PoPs may be chosen
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// The cluster's configuration, with [[pop]]
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Location data, made by `perigee geo build`
    #[arg(long, value_name = "FILE")]
    location: Option<PathBuf>,
    /// As if this PoP were down; may be given several times
    #[arg(long, value_name = "POP")]
    without: Vec<String>,
    /// As if there were this PoP too, for any site: an airport, a cloud's region, or LATITUDE,LONGITUDE; may be given several times
    #[arg(long, value_name = "POP=PLACE", value_parser = parse_pop)]
    with: Vec<Pop>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Route {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let joined = |errors: Vec<String>| Failure::of_sentences(&errors);
        let snapshot = router::server::read_config(&self.config, &|_| {}).map_err(joined)?;
        let location = match &self.location {
            Some(path) => router::server::read_location(path).map_err(joined)?,
            None => Location::empty(),
        };
        let mut pops = snapshot.routing.pops.clone();
        if pops.is_empty() && self.with.is_empty() {
            return Err(Failure::new(
                format!("{} has no [[pop]]", self.config.display()),
                "add one with name, location and edges",
            ));
        }
        let named = self.site.as_deref().map(|name| {
            let known: Vec<&str> = snapshot.sites.iter().map(|site| &*site.name).collect();
            snapshot.site_named(name).ok_or_else(|| {
                Failure::new(
                    format!("no site is called {name:?}"),
                    format!("there are: {}", known.join(", ")),
                )
            })
        });
        let fence = named.transpose()?.map_or(&[][..], |site| &site.pops);
        let mut group = snapshot.routing.pops_of(fence);
        for new in &self.with {
            if let Some(known) = pops.iter().find(|pop| pop.name == new.name) {
                return Err(Failure::new(
                    format!("--with {}: there is a PoP of this name in line {}", new.name, known.line),
                    "take another name",
                ));
            }
            group.push(pops.len());
            pops.push(new.clone());
        }
        let group: Vec<u16> = group.into_iter().map(|pop| pop as u16).collect();
        let mut down = vec![false; pops.len()];
        for name in &self.without {
            let Some(index) = pops.iter().position(|pop| *pop.name == **name) else {
                let known: Vec<&str> = pops.iter().map(|pop| &*pop.name).collect();
                return Err(Failure::new(
                    format!("no PoP is called {name:?}"),
                    format!("there are: {}", known.join(", ")),
                ));
            };
            down[index] = true;
        }
        let world = World::new(pops, Arc::new(location));
        let view = View { down, ..View::default() };
        let ranking = world.rank_client(self.ip, &group, &view);
        let spare = router::server::spare_of(&snapshot, &world, &ranking, &group, &view);
        let text = if self.json {
            format!("{:#}\n", router::explain::ranking(&world, self.ip, &ranking, spare))
        } else {
            let within = snapshot.routing.dns.as_ref().and_then(|dns| dns.spare_within);
            self.as_text(&world, &ranking, spare, within)
        };
        crate::print(&text)
    }

    fn as_text(
        &self,
        world: &World,
        ranking: &Ranking,
        spare: Option<u16>,
        spare_within: Option<Duration>,
    ) -> String {
        let mut text = String::new();
        let cell = world.location.cells()[usize::from(ranking.cell)];
        match ranking.cell {
            UNKNOWN => text.push_str(&format!("{}: nobody knows where it is\n", self.ip)),
            number => {
                let country = std::str::from_utf8(&cell.country).ok().filter(|_| cell.country != [0; 2]);
                text.push_str(&format!(
                    "{}: near {:.2} {:.2}{} (cell {number})\n",
                    self.ip,
                    cell.point.latitude,
                    cell.point.longitude,
                    country.map_or_else(String::new, |country| format!(" in {country}")),
                ));
            }
        }
        let first = ranking.order.first().map_or("", |first| &*world.pops[usize::from(first.pop)].name);
        for (place, one) in ranking.order.iter().enumerate() {
            let pop = &world.pops[usize::from(one.pop)];
            let why = match place {
                0 => format!("  chosen: {}", why_in_words(ranking)),
                _ if spare == Some(one.pop) => {
                    let ms = world.spare_ms(ranking.order[0].pop, one.pop, f64::INFINITY).unwrap_or_default();
                    format!("  spare: the nearest to {first}, {ms:.0} ms away")
                }
                _ => String::new(),
            };
            let extra =
                if one.extra_ms > 0.0 { format!(" + {:.0} ms bias", one.extra_ms) } else { String::new() };
            let wait = match (&pop.cname, ranking.cell) {
                (Some(cname), _) if one.estimate.samples > 0.0 => {
                    format!("  CNAME {cname}  {:>4.0} ms as measured{extra}", one.estimate.ms())
                }
                (Some(cname), _) => format!("  CNAME {cname}  not measured{extra}"),
                (None, UNKNOWN) => String::new(),
                (None, _) => {
                    format!("  {:>6.0} km  {:>4.0} ms by distance{extra}", one.km, one.estimate.prior_ms)
                }
            };
            let said = match pop.line {
                0 => "--with".to_owned(),
                line => format!("{}:{line}", self.config.display()),
            };
            text.push_str(&format!("{}. {:<12}{wait}  ({said}){why}\n", place + 1, pop.name));
        }
        if let (Some(within), None, Some(first)) = (spare_within, spare, ranking.order.first()) {
            let first = &world.pops[usize::from(first.pop)];
            text.push_str(&format!("no spare: {}\n", why_no_spare(ranking.why, first, within)));
        }
        if !world.location.attribution.is_empty() {
            text.push_str(&format!("location data: {}\n", world.location.attribution));
        }
        text
    }
}

/// A PoP that is not in the configuration: it begins in no line of it.
fn parse_pop(text: &str) -> Result<Pop, String> {
    let wanted = "wanted POP=PLACE, such as waw=WAW, waw=aws:eu-central-1 or waw=52.17,20.97";
    let (name, at) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or(wanted)?;
    let coordinates = || {
        let (latitude, longitude) = at.split_once(',')?;
        let point =
            Point { latitude: latitude.trim().parse().ok()?, longitude: longitude.trim().parse().ok()? };
        let is_real = (-90.0..=90.0).contains(&point.latitude) && (-180.0..=180.0).contains(&point.longitude);
        is_real.then_some(point)
    };
    let location = place(at).or_else(|| place(&at.to_ascii_uppercase())).or_else(coordinates);
    let location = location.ok_or_else(|| format!("{at:?} is no place; {wanted}"))?;
    Ok(Pop {
        name: name.into(),
        location: Some(location),
        cname: None,
        beacon: None,
        edges: Vec::new(),
        nodes: Vec::new(),
        regions: Vec::new(),
        networks: Vec::new(),
        bias_ms: 0.0,
        share: None,
        capacity: None,
        drain: false,
        last_resort: false,
        line: 0,
    })
}

fn why_in_words(ranking: &Ranking) -> &'static str {
    match ranking.why {
        Why::Network => "the configuration names the client's network",
        Why::Distance => "the nearest",
        Why::Measured => "measured to be faster than nearer ones",
        Why::Load => "nearer ones are full",
        Why::Share => "one of the visitors that it gets a share of",
        Why::Unlocated => "one of all, as the client's place is not known",
        Why::FailedOpen => "most look down, so none is believed to be",
        Why::LastResort => "the last resort: no other is left, or has room",
        Why::Drained => "it drains, but no other is left",
    }
}

/// Why answers with `first` have no address of another PoP.
fn why_no_spare(why: Why, first: &Pop, within: Duration) -> String {
    let name = &first.name;
    match why {
        _ if first.location.is_none() => format!("{name} is another CDN"),
        Why::LastResort => "only the last resort is left".to_owned(),
        Why::Drained => "only what drains is left".to_owned(),
        Why::FailedOpen => {
            format!("most look down, and none that looks up and can be one is within {within:?} of {name}")
        }
        _ => format!("none that can be one is within {within:?} of {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_why_there_is_no_spare() {
        let own = parse_pop("fra=FRA").unwrap();
        let other = Pop { location: None, cname: Some("shop.example".into()), ..own.clone() };
        for (why, first, wanted) in [
            (Why::Distance, &own, "none that can be one is within 10ms of fra"),
            (Why::Unlocated, &own, "none that can be one is within 10ms of fra"),
            (
                Why::FailedOpen,
                &own,
                "most look down, and none that looks up and can be one is within 10ms of fra",
            ),
            (Why::LastResort, &own, "only the last resort is left"),
            (Why::Drained, &own, "only what drains is left"),
            (Why::LastResort, &other, "fra is another CDN"),
            (Why::Measured, &other, "fra is another CDN"),
        ] {
            assert_eq!(why_no_spare(why, first, Duration::from_millis(10)), wanted);
        }
    }

    #[test]
    fn a_pop_that_is_to_be_is_read_and_what_is_no_place_is_refused_with_an_example() {
        for (text, latitude) in
            [("waw=WAW", 52.0), ("waw=waw", 52.0), ("x=52.17, 20.97", 52.0), ("f=aws:eu-central-1", 50.0)]
        {
            let pop = parse_pop(text).unwrap();
            assert_eq!((pop.location.unwrap().latitude.floor(), pop.line), (latitude, 0), "{text}");
        }
        for text in ["WAW", "=WAW", "a=", "a=nowhere", "a=91,0", "a=0,181", "a=1;2"] {
            assert!(parse_pop(text).unwrap_err().contains("waw=WAW"), "{text}");
        }
    }
}
