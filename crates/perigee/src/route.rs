//! `perigee route`: says to which PoP a client would be sent, why, what comes next, and on what data. Asks no running router: it
//! decides as one would that thinks every edge well, but for those named by `--without`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use model::Snapshot;
use router::location::{Location, UNKNOWN};
use router::table::{Ranking, View, World};

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee route 203.0.113.7 --site shop --config cluster.toml --location location.geo
  perigee route 203.0.113.7 --config cluster.toml --location location.geo --without fra     what if fra were gone";

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
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Route {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let joined = |errors: Vec<String>| Failure::new(errors.join("\n"), "");
        let snapshot = router::server::read_config(&self.config, &|_| {}).map_err(joined)?;
        let location = match &self.location {
            Some(path) => router::server::read_location(path).map_err(joined)?,
            None => Location::empty(),
        };
        let pops = &snapshot.routing.pops;
        if pops.is_empty() {
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
        let group: Vec<u16> = snapshot.routing.pops_of(fence).into_iter().map(|pop| pop as u16).collect();
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
        let world = World::new(pops.clone(), Arc::new(location));
        let view = View { down, ..View::default() };
        let ranking = world.rank_client(self.ip, &group, &view);
        let text = if self.json {
            format!("{:#}\n", router::explain::ranking(&world, self.ip, &ranking))
        } else {
            self.as_text(&snapshot, &world, &ranking)
        };
        crate::print(&text)
    }

    fn as_text(&self, snapshot: &Snapshot, world: &World, ranking: &Ranking) -> String {
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
        for (place, one) in ranking.order.iter().enumerate() {
            let pop = &snapshot.routing.pops[usize::from(one.pop)];
            let why = if place == 0 { format!("  chosen: {}", why_in_words(ranking)) } else { String::new() };
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
            text.push_str(&format!(
                "{}. {:<12}{wait}  ({}:{}){why}\n",
                place + 1,
                pop.name,
                self.config.display(),
                pop.line
            ));
        }
        if !world.location.attribution.is_empty() {
            text.push_str(&format!("location data: {}\n", world.location.attribution));
        }
        text
    }
}

fn why_in_words(ranking: &Ranking) -> &'static str {
    use router::table::Why;
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
