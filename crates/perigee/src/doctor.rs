//! `perigee doctor`: a look at a live site, directly and through an edge.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use website::doctor::{self, Options, Report};

use crate::address::parse_address;
use crate::failure::Failure;
use crate::interrupt::{self, unless_interrupted};

const EXAMPLES: &str = "\
Examples:
  perigee doctor https://www.shop.example/
  perigee doctor https://www.shop.example/ --through 203.0.113.10:443 --crawl 20 --html report.html
  perigee doctor https://www.shop.example/ --through 203.0.113.10:443 --cdn cdn.shop.example";

/// `perigee doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// A page of the site
    url: String,
    /// Look at it through the edge there too, and compare
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    through: Option<SocketAddr>,
    /// Where the site itself is, if its name leads to the edge already
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    direct: Option<SocketAddr>,
    /// Where static files come from, if not from the site's own host
    #[arg(long, value_name = "HOST")]
    cdn: Option<String>,
    /// How many pages to look at, from the first one on
    #[arg(long, value_name = "N", default_value_t = 1)]
    crawl: usize,
    /// Write a report with pictures there
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    /// Leave the browser out
    #[arg(long)]
    no_browser: bool,
    /// The browser
    #[arg(long, value_name = "PROGRAM")]
    chromium: Option<PathBuf>,
}

impl Doctor {
    /// Looks and prints. Exit code 0: nothing is bad. 1: something is, or there is nothing to look at.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let options = Options {
            url: self.url.clone(),
            through: self.through,
            direct: self.direct,
            cdn: self.cdn.clone(),
            pages: self.crawl,
            without_browser: self.no_browser,
            chromium: self.chromium.clone(),
        };
        let Some(report) = examine(&options)? else {
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        };
        if let Some(file) = &self.html {
            crate::whole::write(file, doctor::as_html(&report).as_bytes()).map_err(|error| {
                Failure::new(format!("{} cannot be written: {error}", file.display()), "")
            })?;
        }
        crate::print(&if self.json {
            as_json(&report)
        } else {
            doctor::as_text(&report, std::io::stdout().is_terminal())
        })?;
        Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Looks at a site; `None` when it was interrupted.
pub(crate) fn examine(options: &Options) -> Result<Option<Report>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(format!("the runtime cannot be started: {error}"), ""))?;
    runtime.block_on(unless_interrupted(async {
        let examined = doctor::examine(options).await;
        examined.map_err(|error| Failure::new(error, "write e.g. perigee doctor https://www.shop.example/"))
    }))
}

fn as_json(report: &Report) -> String {
    let value = json!({ "url": report.url, "good": report.is_good(), "findings": report.findings });
    format!("{value:#}\n")
}
