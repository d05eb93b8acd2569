//! `perigee integrate`: what to paste where, and the rules that belong to it; then whether the live page agrees.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use website::doctor::{Options, as_text};
use website::stacks::{Hosts, Mode, Stack};

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee integrate --stack django --site www.shop.example --origin https://origin.shop.example
  perigee integrate --stack rails --site www.shop.example --cdn cdn.shop.example --origin https://origin.shop.example
  perigee integrate --stack next --site www.shop.example --origin https://origin.shop.example --rules > perigee.toml";

/// `perigee integrate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Integrate {
    #[arg(long, value_parser = stack, help = format!("What the site is made with: {}", stacks()))]
    stack: &'static Stack,
    /// What visitors type
    #[arg(long, value_name = "HOST", default_value = "www.shop.example")]
    site: String,
    /// Let static files come from this host; without, all of the site is put behind the edge, and no URL changes
    #[arg(long, value_name = "HOST")]
    cdn: Option<String>,
    /// Where the edge fetches from
    #[arg(long, value_name = "URL", default_value = "https://origin.shop.example")]
    origin: String,
    /// Then look at this page, and say what stands in the way
    #[arg(long, value_name = "URL", conflicts_with_all = ["rules", "json"])]
    check: Option<String>,
    /// Print the rules alone
    #[arg(long, conflicts_with = "json")]
    rules: bool,
    /// Print all of it as JSON
    #[arg(long)]
    json: bool,
}

fn stack(name: &str) -> Result<&'static Stack, String> {
    Stack::named(name).ok_or_else(|| format!("known are {}", stacks()))
}

/// The names of all stacks.
fn stacks() -> String {
    Stack::all().iter().map(|stack| stack.name).collect::<Vec<_>>().join(", ")
}

impl Integrate {
    /// Prints. With `--check`, exit code 1 says that something is bad on the page.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        self.print()?;
        let Some(url) = self.check else { return Ok(ExitCode::SUCCESS) };
        let options = Options { url, cdn: self.cdn, pages: 1, without_browser: true, ..Options::default() };
        let Some(report) = crate::doctor::examine(&options)? else {
            return Ok(ExitCode::from(crate::interrupt::EXIT_CODE));
        };
        crate::print(&format!("\n{}", as_text(&report, std::io::stdout().is_terminal())))?;
        Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn print(&self) -> Result<(), Failure> {
        let mode = if self.cdn.is_some() { Mode::AssetHost } else { Mode::WholeSite };
        let hosts = Hosts {
            site: self.site.clone(),
            cdn: self.cdn.clone().unwrap_or_default(),
            origin: self.origin.clone(),
        };
        let rules = self.stack.rules(mode, &hosts);
        let bad = model::Snapshot::parse(&rules, "the rules").diagnostics;
        if let Some(error) = bad.into_iter().find(model::Diagnostic::is_error) {
            return Err(Failure::new(error.message, error.help));
        }
        let (file, lines) = self.stack.snippet(mode, &hosts);
        if self.rules {
            return crate::print(&rules);
        }
        if self.json {
            let value = json!({
                "stack": self.stack.name,
                "file": file,
                "lines": lines,
                "rules": rules,
                "traps": self.stack.traps(),
            });
            return crate::print(&format!("{value:#}\n"));
        }
        let mut text = format!("{}\n\n1. Paste into {file}:\n\n{}\n", self.stack.title, indented(&lines));
        text += &format!(
            "2. Give the edge these rules (`perigee serve --config perigee.toml`):\n\n{}\n",
            indented(&rules)
        );
        if !self.stack.traps().is_empty() {
            text += "3. Mind that:\n\n";
        }
        for trap in self.stack.traps() {
            text += &format!("  - {trap}\n");
        }
        crate::print(&text)
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect()
}
