//! `perigee import`: what a team runs today, as a configuration, with a word for each of its directives.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use import::{Imported, Item, Source};
use serde_json::json;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  nginx -T | perigee import nginx - --out perigee.toml
  aws cloudfront get-distribution-config --id E123 | perigee import cloudfront - --out perigee.toml
  perigee import cloudflare rules.json --out perigee.toml
  perigee import vcl default.vcl --json

Then: perigee check perigee.toml, and perigee parity to compare both by a log of requests.

The configuration goes to --out, else to standard output; the report goes to standard output, or to standard error where
the configuration has that. Exit code 0: it was imported. 1: it could not be, or with --strict something is not mapped.
2: the command line makes no sense.";

/// What is imported.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A configuration of nginx, or what `nginx -T` prints
    Nginx,
    /// A CloudFront distribution, as `aws cloudfront get-distribution-config` prints it
    Cloudfront,
    /// Rules of a Cloudflare zone: rulesets and page rules, as the API gives them
    Cloudflare,
    /// A program of Varnish
    Vcl,
}

/// `perigee import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Import {
    /// What it is written for
    #[arg(value_enum)]
    kind: Kind,
    /// The file; "-" is standard input
    file: PathBuf,
    /// Write the configuration there
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, requires = "out")]
    force: bool,
    /// Print configuration and report as one JSON object
    #[arg(long)]
    json: bool,
    /// Fail when something is not mapped
    #[arg(long)]
    strict: bool,
}

impl Import {
    /// Reads, writes and reports.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let (text, name) = read(&self.file)?;
        let source = match self.kind {
            Kind::Nginx => Source::Nginx,
            Kind::Cloudfront => Source::CloudFront,
            Kind::Cloudflare => Source::Cloudflare,
            Kind::Vcl => Source::Vcl,
        };
        let imported = import::import(source, &text, &name)
            .map_err(|broken| Failure::new(broken.to_string(), broken.help))?;
        if let Some(out) = &self.out {
            crate::init::write_new(out, &imported.config, self.force)?;
        }
        let open = imported.items.iter().filter(|item| item.is_open()).count();
        let report = match self.json {
            true => as_json(&imported, &name),
            false => as_text(&imported, self.out.as_deref()),
        };
        match &self.out {
            None if !self.json => {
                crate::print(&imported.config)?;
                eprint!("{}", crate::visible_lines(&report));
            }
            _ if self.json => crate::print(&report)?,
            _ => crate::print(&crate::visible_lines(&report))?,
        }
        Ok(if self.strict && open > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn read(file: &Path) -> Result<(String, String), Failure> {
    if file == Path::new("-") {
        let text = std::io::read_to_string(std::io::stdin()).map_err(|error| {
            Failure::new(format!("standard input cannot be read: {error}"), "give it a file")
        })?;
        return Ok((text, "standard input".to_owned()));
    }
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!("{name} cannot be read: {error}"), "name a file, or - for standard input")
    })?;
    Ok((text, name))
}

fn as_json(imported: &Imported, name: &str) -> String {
    let [mapped, not_needed, not_mapped] = counts(&imported.items);
    let value = json!({
        "source": name,
        "config": imported.config,
        "directives": imported.items.len(),
        "mapped": mapped,
        "not_needed": not_needed,
        "not_mapped": not_mapped,
        "refusals": imported.refusals(),
        "report": imported.items,
    });
    format!("{value:#}\n")
}

/// Statements by the worst that became of them.
fn counts(items: &[Item]) -> [usize; 3] {
    let mut counts = [0; 3];
    for item in items {
        let is_mapped = item.outcomes.iter().any(|outcome| matches!(outcome, import::Outcome::Mapped(_)));
        counts[match (item.is_open(), is_mapped) {
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        }] += 1;
    }
    counts
}

fn as_text(imported: &Imported, out: Option<&Path>) -> String {
    let items = &imported.items;
    let mut text = String::new();
    for item in items {
        text.push_str(&format!("{}: {}\n", item.place, item.directive));
        for outcome in &item.outcomes {
            let sign = if matches!(outcome, import::Outcome::Mapped(_)) { " →" } else { ":" };
            text.push_str(&format!("    {}{sign} {}\n", outcome.word(), outcome.text()));
        }
    }
    let [mapped, not_needed, not_mapped] = counts(items);
    text.push_str(&format!(
        "\n{} directives: {mapped} mapped, {not_needed} not needed, {not_mapped} not mapped or in part\n",
        items.len()
    ));
    match imported.refusals() {
        0 => {}
        count => text.push_str(&format!(
            "{count} rule{} nobody (502), as what let in only some there is not said by a rule: read the comments before {}, and decide\n",
            if count == 1 { " answers" } else { "s answer" },
            if count == 1 { "it" } else { "them" },
        )),
    }
    if let Some(out) = out {
        text.push_str(&format!("next: perigee check {}\n", out.display()));
    }
    text
}
