//! What is generated from the command line itself: completions for shells, and pages for man.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Arguments;
use crate::failure::Failure;

const COMPLETIONS: &str = "\
Examples:
  perigee completions bash > /usr/share/bash-completion/completions/perigee
  perigee completions zsh > /usr/share/zsh/vendor-completions/_perigee
  perigee completions fish > /usr/share/fish/vendor_completions.d/perigee.fish";

const MAN: &str = "\
Examples:
  perigee man /usr/local/share/man/man1
  perigee man . && man -l perigee-serve.1";

/// Shells whose completions are made.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// `perigee completions`.
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Known,
}

impl Completions {
    /// Prints them.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let shell = match self.shell {
            Known::Bash => Shell::Bash,
            Known::Zsh => Shell::Zsh,
            Known::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "perigee", &mut script);
        crate::print(&String::from_utf8_lossy(&script))
    }
}

/// `perigee man`.
#[derive(Debug, Args)]
#[command(after_help = MAN)]
pub(crate) struct Man {
    /// The directory to write the pages into: perigee.1, and one for each subcommand
    dir: PathBuf,
}

impl Man {
    /// Writes them.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let wrong = |error: std::io::Error| {
            Failure::new(
                format!("{}: the pages cannot be written: {error}", self.dir.display()),
                "name a directory that may be written",
            )
        };
        std::fs::create_dir_all(&self.dir).map_err(wrong)?;
        clap_mangen::generate_to(Arguments::command(), &self.dir).map_err(wrong)
    }
}
