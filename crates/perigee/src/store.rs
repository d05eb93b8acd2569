//! `perigee store`: what is on the disks of a cache, read from outside; also while an edge uses them, and without changing
//! anything. `stat` reads what the index needs, `verify` and `dump` read every record.
//!
//! What an edge that runs replaces meanwhile is seen half as it was and half as it is: `verify` finds out what that was,
//! `dump` shows it as damaged. Exit code 1 when a directory could not be looked at, or something in it is damaged.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use edge::inspect::{self, Inspection, OpenError};
use serde_json::{Value, json};

use crate::configuration::Source;
use crate::failure::Failure;
use crate::state::StateDir;

mod dump;
mod verify;

const EXAMPLES: &str = "\
Examples:
  perigee store stat                               the disk in the state directory
  perigee store verify --config /etc/perigee.toml  every disk of a configuration
  perigee store dump --path /var/cache/perigee | grep shop.example

All of them only read, and may be used while an edge runs.";

const STAT_EXAMPLES: &str = "\
Examples:
  perigee store stat
  perigee store stat --state /var/lib/perigee
  perigee store stat --config /etc/perigee.toml --json | jq .records";

/// `perigee store`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say how large the cache on a disk is, and how full; reads little
    Stat(Stat),
    /// Read everything, and say whether it is what was written
    Verify(verify::Verify),
    /// Print one line for each record
    Dump(dump::Dump),
}

#[derive(Debug, Args)]
#[command(after_help = STAT_EXAMPLES)]
struct Stat {
    #[command(flatten)]
    place: Place,
    /// Print JSON, one line for each disk
    #[arg(long)]
    json: bool,
}

/// Which disks are meant.
#[derive(Debug, Args)]
struct Place {
    /// The directory of one disk [default: `store` in the state directory]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "state"])]
    path: Option<PathBuf>,
    /// All disks of this configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// State directory of the edge [default: $XDG_STATE_HOME/perigee or ~/.local/state/perigee]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// What looking at one disk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Sound,
    Damaged,
    /// Nobody reads the rest of the output.
    Unwanted,
}

impl Store {
    /// Looks at each disk, also when another one cannot be looked at.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Stat(stat) => stat.place.look_at_each(|directory| stat.run(directory)),
            Command::Verify(verify) => verify.place.look_at_each(|directory| verify.run(directory)),
            Command::Dump(dump) => dump.place.look_at_each(|directory| dump.run(directory)),
        }
    }
}

impl Place {
    fn look_at_each(&self, look: impl Fn(&Path) -> Result<Finding, Failure>) -> ExitCode {
        let directories = match self.directories() {
            Ok(directories) => directories,
            Err(failure) => {
                eprintln!("{failure}");
                return ExitCode::FAILURE;
            }
        };
        let mut code = ExitCode::SUCCESS;
        for directory in directories {
            match look(&directory) {
                Ok(Finding::Sound) => {}
                Ok(Finding::Damaged) => code = ExitCode::FAILURE,
                Ok(Finding::Unwanted) => break,
                Err(failure) => {
                    eprintln!("{failure}");
                    code = ExitCode::FAILURE;
                }
            }
        }
        code
    }

    fn directories(&self) -> Result<Vec<PathBuf>, Failure> {
        let default = || {
            let state = StateDir::find_here(self.state.clone())?;
            Ok(inspect::default_directory(state.path()))
        };
        match (&self.path, &self.config) {
            (Some(path), _) => Ok(vec![path.clone()]),
            (None, None) => Ok(vec![default()?]),
            (None, Some(config)) => {
                let read = Source::File(config.clone()).read().map_err(|refused| refused.into_failure())?;
                let disks = read.snapshot.edge.store.disks;
                if disks.is_empty() {
                    return Err(Failure::new(
                        format!("{}: names no disk", config.display()),
                        "is it the file that the edge runs with? A disk is a section [[store.disk]]; \
                         --path DIR looks at any directory",
                    ));
                }
                disks.into_iter().map(|disk| disk.path.map_or_else(default, Ok)).collect()
            }
        }
    }
}

/// Opens the disk in a directory, or says why that is none.
fn open(directory: &Path) -> Result<Inspection, Failure> {
    inspect::open(directory).map_err(|error| {
        let (what, next) = match &error {
            OpenError::Io(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => (
                "there is no cache in it".to_owned(),
                "say where it is with --path DIR, --config FILE or --state DIR; `perigee serve` makes one \
                 when it is told of a disk",
            ),
            OpenError::Io(cause) if cause.kind() == ErrorKind::PermissionDenied => {
                (format!("cannot be read: {cause}"), "run as the user that runs `perigee serve`")
            }
            OpenError::Io(cause) => (format!("cannot be read: {cause}"), "look at the disk that it is on"),
            OpenError::Nothing => (
                "its file `volume` is empty, or its first block is damaged or of another version".to_owned(),
                "`perigee serve` begins it anew, and everything is fetched again",
            ),
            OpenError::Foreign => (
                "its file `volume` is not a cache of Perigee's".to_owned(),
                "check the directory; `perigee serve` will not touch that file either",
            ),
            OpenError::InUse | OpenError::TooSmall => (error.to_string(), ""),
        };
        Failure::new(format!("{}: {what}", directory.display()), next)
    })
}

/// Whether a process has locked a file in the directory, as an edge does. `false` also where the system doesn't tell, as in
/// a container beside that of the edge.
fn is_in_use(directory: &Path) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let device = device(directory);
    let locked = locks.lines().filter_map(locked);
    // Where the system doesn't tell of which file system it is, it may be any.
    let here = locked.filter(|(on, _)| device.as_ref().is_none_or(|device| device == on));
    let here: HashSet<u64> = here.map(|(_, inode)| inode).collect();
    fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| here.contains(&entry.ino()))
}

/// Device and inode in a line of `/proc/locks` about an exclusive lock of a whole file: `1: FLOCK ADVISORY WRITE 77 fd:00:99 0 EOF`.
fn locked(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_whitespace().skip(1);
    match (words.next(), words.next(), words.next()) {
        (Some("FLOCK"), Some(_), Some("WRITE")) => {
            let (device, inode) = words.nth(1)?.rsplit_once(':')?;
            Some((device.to_owned(), inode.parse().ok()?))
        }
        _ => None,
    }
}

/// The device of a directory's file system, as `/proc/locks` writes it. What `stat` says is another one on btrfs and overlays.
fn device(directory: &Path) -> Option<String> {
    let opened = fs::File::open(directory).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    device_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, mount)
}

/// The device of a mount, by lines such as `36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw`.
fn device_of(mounts: &str, mount: &str) -> Option<String> {
    let words = |line: &str| line.split(' ').take(3).map(str::to_owned).collect::<Vec<_>>();
    let found = mounts.lines().map(words).find(|words| words[0] == mount)?;
    let (major, minor) = found.get(2)?.split_once(':')?;
    Some(format!("{:02x}:{:02x}", major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
}

impl Stat {
    fn run(&self, directory: &Path) -> Result<Finding, Failure> {
        let disk = open(directory)?;
        let (opened, stats) = disk.stats();
        let is_in_use = is_in_use(directory);
        let text = if self.json {
            json_line(&json!({
                "directory": directory.display().to_string(),
                "bytes_max": stats.bytes_max,
                "bytes": stats.bytes,
                "records": stats.records,
                "index_bytes": stats.index_bytes,
                "had_snapshot": opened.had_snapshot,
                "footers_read": opened.footers,
                "segments_scanned": opened.scanned,
                "read_errors": stats.read_errors,
                "in_use": is_in_use,
            }))
        } else {
            let mut text = format!("{}\n", directory.display());
            let mut line = |label: &str, value: String| text.push_str(&format!("  {label:<9}{value}\n"));
            let percent = stats.bytes * 100 / stats.bytes_max.max(1);
            line(
                "size",
                format!("{}, of which {} in use ({percent} %)", size(stats.bytes_max), size(stats.bytes)),
            );
            line("records", format!("{} (`perigee store verify` counts the kinds)", stats.records));
            let footers = counted(opened.footers as u64, "footer");
            let scanned = counted(opened.scanned as u64, "segment");
            line(
                "index",
                match opened.had_snapshot {
                    true => format!("a snapshot, then {footers}, and {scanned} read record by record"),
                    false => format!("no snapshot: {footers}, and {scanned} read record by record"),
                },
            );
            line("memory", format!("{} for the index, in an edge", size(stats.index_bytes)));
            if stats.read_errors > 0 {
                line("errors", format!("{} when segments were read", stats.read_errors));
            }
            if is_in_use {
                line("edge", "one uses it now".to_owned());
            }
            text
        };
        crate::print(&text)?;
        Ok(Finding::Sound)
    }
}

// --- Words ---

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "bytes" { format!("{bytes} {unit}") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

fn counted(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// One line of JSON. Control characters that JSON allows as they are (a terminal obeys some of them) are escaped.
fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for char in value.to_string().chars() {
        match char.is_control() {
            true => line.push_str(&format!("\\u{:04x}", u32::from(char))),
            false => line.push(char),
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_lock_is_found_among_others() {
        let check = |line: &str, wanted: Option<(&str, u64)>| {
            assert_eq!(locked(line), wanted.map(|(device, inode)| (device.to_owned(), inode)), "{line}");
        };
        check("1: FLOCK  ADVISORY  WRITE 4711 fd:00:99 0 EOF", Some(("fd:00", 99)));
        check("12: FLOCK  ADVISORY  READ 4711 fd:00:99 0 EOF", None);
        check("2: POSIX  ADVISORY  WRITE 4711 fd:00:99 0 EOF", None);
        check("2: -> FLOCK  ADVISORY  WRITE 4711 fd:00:99 0 EOF", None);
        check("1: FLOCK ADVISORY WRITE", None);
        check("", None);
    }

    #[test]
    fn a_lock_on_another_file_system_is_not_one_here() {
        let mounts = "36 35 253:0 /a /b rw - ext4 /dev/x rw\n37 35 0:300 / /c rw - overlay overlay rw\n";
        assert_eq!(device_of(mounts, "36").as_deref(), Some("fd:00"));
        assert_eq!(device_of(mounts, "37").as_deref(), Some("00:12c"));
        assert_eq!(device_of(mounts, "3"), None);
        let directory = std::env::temp_dir().join(format!("perigee-locked-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let file = fs::File::create(directory.join("0")).unwrap();
        assert!(!is_in_use(&directory));
        file.lock().unwrap();
        let known = fs::read_to_string("/proc/locks").unwrap_or_default();
        let known = known.contains(&format!(" {} ", std::process::id()));
        assert_eq!(is_in_use(&directory), known, "as far as the system tells of locks");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn sizes_are_said_in_the_largest_unit_that_they_fill() {
        let check = |bytes: u64, wanted: &str| assert_eq!(size(bytes), wanted);
        check(0, "0 bytes");
        check(1023, "1023 bytes");
        check(1024, "1.0 KiB");
        check(150 << 30 | 1 << 29, "150.5 GiB");
        check(3 << 50, "3072.0 TiB");
    }

    #[test]
    fn a_line_of_json_has_nothing_that_a_terminal_obeys() {
        let line = json_line(&json!({ "url": "/\u{1b}[2J\u{9b}2J\n\u{7f}ü" }));
        assert_eq!(line, "{\"url\":\"/\\u001b[2J\\u009b2J\\n\\u007fü\"}\n");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["url"], "/\u{1b}[2J\u{9b}2J\n\u{7f}ü");
    }
}
