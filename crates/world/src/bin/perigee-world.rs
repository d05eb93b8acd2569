//! The world around Perigee, for whoever wants to see it suffer; see [`world::soak`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use world::cluster::has_etcd;
use world::soak::{Options, run};

const USAGE: &str =
    "Usage: perigee-world soak [--minutes N] [--seed S] [--etcd N] [--visitors N] [--perigee PROGRAM]
  --minutes N        steps begin for so long (60)
  --seed S           what is done, to whom and for how long (drawn from the clock)
  --etcd N           members of etcd, 0 to 3; 0: one control, on SQLite (3 where etcd is installed)
  --visitors N       visitors at a time, each with some 7 requests a second, 1 to 200 (24)
  --perigee PROGRAM  the program under fire (the one beside this)
As root it makes network namespaces, which end with it. Exit code 1 when anything happened that must not.
Example:
  perigee-world soak --minutes 10 --seed 7 --etcd 0";

fn main() -> ExitCode {
    if std::env::args().skip(1).any(|argument| ["--help", "-h"].contains(&&*argument)) {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match options(std::env::args().skip(1)) {
        Ok(options) => match run(&options).violations {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        Err(why) => {
            eprintln!("perigee-world: {why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    match arguments.next().as_deref() {
        Some("soak") => {}
        Some(other) => return Err(format!("{other:?} is nothing that it does; say soak")),
        None => return Err("say what to do: soak".to_owned()),
    }
    let beside = std::env::current_exe().map(|program| program.with_file_name("perigee"));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut options = Options {
        perigee: beside.unwrap_or_else(|_| PathBuf::from("perigee")),
        seed: since.as_millis() as u64 % 1_000_000,
        length: Duration::from_secs(3_600),
        steps_max: usize::MAX,
        etcd: if has_etcd() { 3 } else { 0 },
        visitors: 24,
        hold_max: Duration::from_secs(60),
        agree_within: Duration::from_secs(5),
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} wants a value"))?;
        let number = |least: u64, most: u64| {
            let number = value.parse().ok().filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| format!("{name} {value:?}: wanted a number from {least} to {most}"))
        };
        match name.as_str() {
            "--minutes" => options.length = Duration::from_secs(60 * number(1, 10_000)?),
            "--seed" => options.seed = number(0, u64::MAX)?,
            "--etcd" => options.etcd = number(0, 3)? as usize,
            "--visitors" => options.visitors = number(1, 200)?,
            "--perigee" => options.perigee = PathBuf::from(&value),
            _ => return Err(format!("{name} is no option")),
        }
    }
    match options.perigee.is_file() {
        true => Ok(options),
        false => Err(format!("{} is not there; build it, or say --perigee", options.perigee.display())),
    }
}
