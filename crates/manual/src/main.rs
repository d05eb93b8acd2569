//! `cargo run --release -p manual`: makes the manual, and says what is wrong with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

/// Makes the manual of the Markdown in docs/: a site of plain files.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where it is written; what lies there already is replaced, file by file
    #[arg(long, value_name = "DIR", default_value = "target/manual")]
    out: PathBuf,
    /// The binary whose reference is printed [default: perigee, beside this program]
    #[arg(long, value_name = "PROGRAM")]
    perigee: Option<PathBuf>,
    /// The repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("manual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("perigee"));
    let perigee = arguments.perigee.clone().map_or_else(beside, Ok)?;
    let manual = manual::make(&arguments.root, &|words| print(&perigee, words))?;
    for (path, bytes) in &manual.files {
        let path = arguments.out.join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, bytes)?;
    }
    for problem in &manual.problems {
        eprintln!("{problem}");
    }
    println!("{}: {} files", arguments.out.join("index.html").display(), manual.files.len());
    Ok(if manual.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `perigee` prints.
fn print(perigee: &Path, words: &[&str]) -> Result<String, String> {
    let said = Command::new(perigee).args(words).output().map_err(|error| {
        format!("{} cannot be run: {error}; build it: cargo build --release -p perigee", perigee.display())
    })?;
    match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&said.stderr).into_owned()),
    }
}
