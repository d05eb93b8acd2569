//! `perigee plan`: where to put PoPs, what each brings and costs, and what happens when one is gone.
//!
//! `gather` reads what is known, `insight::plan` decides, `report` has the figures, and `words` and `page` show them.

use std::path::{Path, PathBuf};

use clap::Args;
use insight::plan::prices::{self, Prices};

use crate::failure::Failure;

mod export;
mod gather;
mod page;
mod report;
mod words;

const EXAMPLES: &str = "\
Examples:
  perigee plan --countries shares.csv --origin FRA                  from analytics: lines such as DE,31.5
  perigee plan --log access.log --location location.geo --config cluster.toml --budget 600
  perigee plan --countries shares.csv --traffic 12000 --pops 4 --html plan.html --out pops.toml
  perigee plan --prices-out prices.toml                             the price table, to be edited; then --prices

Round trips are estimated by distance, as the router does it, until --measured has some. Places are some hundred cities; name
others by --places: airports (FRA,JFK), regions of clouds (aws:eu-central-1), or all of a cloud (aws).";

/// `perigee plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlanArgs {
    /// A log of requests; may be given several times. Needs --location
    #[arg(long, value_name = "FILE", conflicts_with = "countries", requires = "location")]
    log: Vec<PathBuf>,
    /// Shares of countries: lines `country,share[,GB per month]`
    #[arg(long, value_name = "FILE", required_unless_present_any = ["log", "prices_out"])]
    countries: Option<PathBuf>,
    /// Location data, made by `perigee geo build`
    #[arg(long, value_name = "FILE")]
    location: Option<PathBuf>,
    /// A configuration with the [[pop]]s that there are
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where visitors are served from today, when there is no PoP
    #[arg(long, value_name = "PLACE")]
    origin: Option<String>,
    /// Where PoPs may be put, with commas between: airports, regions of clouds, clouds [default: some hundred cities]
    #[arg(long, value_name = "PLACES", value_delimiter = ',')]
    places: Vec<String>,
    /// What new PoPs may cost per month
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    budget: Option<f64>,
    /// How many PoPs to add [default: as many as the budget allows, else up to the knee]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=insight::plan::optimise::COUNT_MAX as i64))]
    pops: Option<u8>,
    /// Up to how many more PoPs are compared
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=insight::plan::optimise::COUNT_MAX as i64))]
    up_to: u8,
    /// A price table [default: Perigee's assumptions; see --prices-out]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Write the price table that is used, to be edited
    #[arg(long, value_name = "FILE")]
    prices_out: Option<PathBuf>,
    /// GB per month to visitors [default: what the log or the third column says]
    #[arg(long, value_name = "GB", value_parser = amount)]
    traffic: Option<f64>,
    /// Measured round trips, as a router takes them at /v1/samples; needs --location and --config
    #[arg(long, value_name = "FILE", requires = "location", requires = "config")]
    measured: Option<PathBuf>,
    /// Round trips that a page waits for one after the other: TCP, TLS, the page, what it names, what that names
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = amount)]
    trips: f64,
    /// Write the configuration with the new PoPs
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a report with a map
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write what is to be solved, for another solver: demand, costs and round trips as JSON
    #[arg(long, value_name = "FILE")]
    problem_out: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl PlanArgs {
    /// Plans, and writes what was asked for.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (text, source) = match &self.prices {
            None => (prices::DEFAULT.to_owned(), "built-in prices".to_owned()),
            Some(path) => (read(path)?, path.display().to_string()),
        };
        let prices = Prices::parse(&text, &source).map_err(|error| {
            Failure::new(error, "perigee plan --prices-out FILE writes a table that is right")
        })?;
        if let Some(path) = &self.prices_out {
            write(path, &text)?;
            if self.countries.is_none() && self.log.is_empty() {
                return crate::print(&format!("wrote {}\n", path.display()));
            }
        }
        let gathered = gather::Gathered::new(&self, &prices)?;
        if let Some(path) = &self.problem_out {
            write(path, &gathered.as_json())?;
        }
        let report = report::Report::new(&self, &gathered, &prices)?;
        if let Some(path) = &self.out {
            write(path, &export::configuration(&gathered, &report)?)?;
        }
        if let Some(path) = &self.html {
            write(path, &page::page(&gathered, &report))?;
        }
        crate::print(&match self.json {
            true => {
                let shown = serde_json::to_string_pretty(&report);
                shown.map_err(|error| Failure::new(format!("the plan is no JSON: {error}"), ""))? + "\n"
            }
            false => crate::visible_lines(&words::describe(&report)),
        })
    }
}

fn amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(amount) if (0.0..=1e12).contains(&amount) => Ok(amount),
        _ => Err("wanted is a number from 0 on, e.g. 600".to_owned()),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display()), "name a file"))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    crate::whole::write(path, text.as_bytes()).map_err(|error| {
        Failure::new(format!("{} cannot be written: {error}", path.display()), "name another file")
    })
}
