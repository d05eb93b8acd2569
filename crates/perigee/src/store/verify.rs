//! `perigee store verify`: reads every record and compares it with its sums.
//!
//! An edge that runs writes over segments while they are read here. So what looks damaged then is looked at once more, with
//! a fresh index: only what is damaged again, in the same place, was damaged.

use std::collections::{BTreeMap, HashSet};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use edge::inspect::{self, Inspection, Item};
use serde_json::json;

use super::{Finding, Place, counted, is_in_use, json_line, open, size};
use crate::failure::Failure;

/// Damaged records that are listed.
const LISTED_MAX: usize = 20;

/// Damaged records whose places are remembered, to look at them again.
const SUSPECTS_MAX: usize = 100_000;

const EXAMPLES: &str = "\
Examples:
  perigee store verify
  perigee store verify --path /var/cache/perigee --json | jq .damaged

The whole disk is read, past the page cache. Exit code 1 when something is damaged. Visitors never get what is
damaged: the edge verifies what it reads, and asks the origin instead. But more damage each time means a disk that
is about to fail.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    #[command(flatten)]
    pub(super) place: Place,
    /// Print JSON, one line for each disk
    #[arg(long)]
    json: bool,
}

/// What was found on one disk.
#[derive(Default)]
struct Verdict {
    /// Sound records by form, and bytes of all of them.
    forms: BTreeMap<&'static str, u64>,
    bytes: u64,
    damaged: u64,
    /// The first of those: at most [`SUSPECTS_MAX`].
    places: Vec<Damaged>,
    /// Records that the index knows and that no segment lists, or that changed while they were read.
    unseen: u64,
    is_in_use: bool,
}

struct Damaged {
    place: (u32, u32),
    bytes: u32,
    key: u128,
}

impl Verify {
    pub(super) fn run(&self, directory: &Path) -> Result<Finding, Failure> {
        let verdict = verify(directory)?;
        crate::print(&if self.json { verdict.as_json(directory) } else { verdict.as_text(directory) })?;
        Ok(if verdict.is_sound() { Finding::Sound } else { Finding::Damaged })
    }
}

fn verify(directory: &Path) -> Result<Verdict, Failure> {
    let mut verdict = Verdict { is_in_use: is_in_use(directory), ..Verdict::default() };
    let disk = open(directory)?;
    let mut known = disk.stats().1.records;
    for_each(directory, &disk, "verified", |item| {
        known = known.saturating_sub(1);
        verdict.take(item);
        true
    })?;
    verdict.unseen = known;
    verdict.is_in_use |= is_in_use(directory);
    if verdict.is_in_use && !verdict.places.is_empty() {
        verdict.look_again(directory)?;
    }
    Ok(verdict)
}

/// Reads every record, and tells how far it has come.
fn for_each(
    directory: &Path,
    disk: &Inspection,
    verb: &'static str,
    mut look: impl FnMut(Item) -> bool,
) -> Result<(), Failure> {
    let mut progress = Progress::new(directory, verb, disk.stats().1.records);
    let looked = inspect::for_each(disk, |item| {
        progress.step(u64::from(item.record_bytes));
        look(item)
    });
    progress.end();
    looked.map_err(|error| {
        Failure::new(
            format!("{}: cannot be read to the end: {error}", directory.display()),
            "the disk gives errors: look at the kernel's messages, and at smartctl",
        )
    })
}

impl Verdict {
    fn take(&mut self, item: Item) {
        if item.form != "damaged" {
            *self.forms.entry(item.form).or_default() += 1;
            self.bytes += u64::from(item.record_bytes);
            return;
        }
        self.damaged += 1;
        if self.places.len() < SUSPECTS_MAX {
            self.places.push(Damaged { place: item.place, bytes: item.record_bytes, key: item.key });
        }
    }

    /// Takes back what was no damage but a record that an edge has replaced.
    fn look_again(&mut self, directory: &Path) -> Result<(), Failure> {
        let last = self.places.iter().map(|damaged| damaged.place.0).max();
        let suspects: HashSet<_> = self.places.iter().map(|damaged| (damaged.place, damaged.key)).collect();
        let mut again = HashSet::new();
        for_each(directory, &open(directory)?, "verified again", |item| {
            let suspect = (item.place, item.key);
            if item.form == "damaged" && suspects.contains(&suspect) {
                again.insert(suspect);
            }
            Some(item.place.0) <= last
        })?;
        let before = self.places.len();
        self.places.retain(|damaged| again.contains(&(damaged.place, damaged.key)));
        let replaced = (before - self.places.len()) as u64;
        self.damaged -= replaced;
        self.unseen += replaced;
        Ok(())
    }

    /// With an edge that runs, records come and go.
    fn is_sound(&self) -> bool {
        self.damaged == 0 && (self.unseen == 0 || self.is_in_use)
    }

    fn records(&self) -> u64 {
        self.forms.values().sum::<u64>() + self.damaged
    }

    fn as_text(&self, directory: &Path) -> String {
        let damaged =
            if self.damaged == 0 { "none damaged".into() } else { format!("{} DAMAGED", self.damaged) };
        let mut text = format!(
            "{}: {} read, {} sound, {damaged}\n",
            directory.display(),
            counted(self.records(), "record"),
            size(self.bytes)
        );
        for (form, count) in &self.forms {
            text.push_str(&format!("  {form:<20}{count}\n"));
        }
        for Damaged { place: (segment, offset), bytes, key } in self.places.iter().take(LISTED_MAX) {
            let place = format!("segment {segment}, offset {offset}");
            text.push_str(&format!("  damaged: {place}, {bytes} bytes, key {key:032x}\n"));
        }
        if self.damaged > LISTED_MAX as u64 {
            text.push_str(&format!("  and {} more\n", self.damaged - LISTED_MAX as u64));
        }
        if self.damaged > 0 {
            text.push_str(
                "Each is a miss for visitors: the edge finds out when it reads it, and asks the origin.\n",
            );
        }
        let unseen = counted(self.unseen, "record");
        match (self.unseen, self.is_in_use) {
            (0, _) => {}
            (_, true) => text.push_str(&format!(
                "An edge uses this disk. Replaced or evicted meanwhile, and left out: {unseen}.\n"
            )),
            (_, false) => text.push_str(&format!(
                "{unseen} could not be found: the list of their segment is DAMAGED, or an edge that is not seen \
                 from here has replaced them meanwhile.\n"
            )),
        }
        text
    }

    fn as_json(&self, directory: &Path) -> String {
        let places = self.places.iter().take(LISTED_MAX).map(|damaged| {
            json!({
                "segment": damaged.place.0,
                "offset": damaged.place.1,
                "bytes": damaged.bytes,
                "key": format!("{:032x}", damaged.key),
            })
        });
        json_line(&json!({
            "directory": directory.display().to_string(),
            "sound": self.is_sound(),
            "records": self.records(),
            "sound_bytes": self.bytes,
            "forms": self.forms,
            "damaged": self.damaged,
            "first_damaged": places.collect::<Vec<_>>(),
            "unseen": self.unseen,
            "in_use": self.is_in_use,
        }))
    }
}

// --- Progress ---

/// Says on standard error how far the reading has come: often and in place on a terminal, else now and then.
struct Progress {
    name: String,
    verb: &'static str,
    all: u64,
    done: u64,
    bytes: u64,
    said: Instant,
    is_terminal: bool,
}

impl Progress {
    fn new(directory: &Path, verb: &'static str, all: u64) -> Self {
        let name = directory.display().to_string();
        let is_terminal = std::io::stderr().is_terminal();
        Progress { name, verb, all, done: 0, bytes: 0, said: Instant::now(), is_terminal }
    }

    fn step(&mut self, bytes: u64) {
        self.done += 1;
        self.bytes += bytes;
        let pause = Duration::from_millis(if self.is_terminal { 200 } else { 5000 });
        if self.said.elapsed() < pause {
            return;
        }
        self.said = Instant::now();
        let Progress { name, verb, all, done, .. } = self;
        let text = format!("{name}: {done} of {all} records {verb}, {}", size(self.bytes));
        // Who cannot be told can still be answered.
        let _ = match self.is_terminal {
            true => write!(std::io::stderr(), "\r{text}\x1b[K"),
            false => writeln!(std::io::stderr(), "{text}"),
        };
    }

    fn end(&self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(form: &'static str, number: u32) -> Item {
        Item {
            key: u128::from(number),
            form,
            url: String::new(),
            status: None,
            body_bytes: 0,
            record_bytes: 512,
            position: None,
            expiry: 0,
            place: (number, 4096),
        }
    }

    #[test]
    fn a_verdict_lists_some_damage_and_counts_all() {
        let mut verdict = Verdict::default();
        verdict.take(item("slice", 0));
        verdict.take(item("response", 1));
        verdict.take(item("slice", 2));
        assert!(verdict.is_sound());
        let wanted = "/d: 3 records read, 1.5 KiB sound, none damaged\n  response            1\n  slice               2\n";
        assert_eq!(verdict.as_text(Path::new("/d")), wanted);
        (3..28).for_each(|number| verdict.take(item("damaged", number)));
        assert!(!verdict.is_sound());
        let text = verdict.as_text(Path::new("/d"));
        for words in
            ["28 records read", "25 DAMAGED", "segment 22, offset 4096, 512 bytes", "and 5 more", "a miss"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("segment 23"));
        let json: serde_json::Value = serde_json::from_str(&verdict.as_json(Path::new("/d"))).unwrap();
        assert_eq!((&json["damaged"], &json["forms"]["slice"]), (&json!(25), &json!(2)));
        assert_eq!(json["first_damaged"].as_array().map(Vec::len), Some(LISTED_MAX));
    }

    #[test]
    fn what_is_not_found_is_damage_unless_an_edge_is_at_work() {
        let mut verdict = Verdict { unseen: 1, ..Verdict::default() };
        assert!(!verdict.is_sound() && verdict.as_text(Path::new("/d")).contains("could not be found"));
        verdict.is_in_use = true;
        assert!(verdict.is_sound() && verdict.as_text(Path::new("/d")).contains("left out"));
    }
}
