//! Purges on disk: what a restart must not forget while there are disks whose contents outlive it.
//!
//! ```text
//! <sum> {"log":"5f0c…","version":1}
//! <sum> {"start":1000000,"after":0}
//! <sum> {"known":"shop","domains":["www.shop.example"],"queries":[{"part":"all"}]}
//! <sum> {"position":1000001,"kind":"hard","targets":[{"tag":{"site":"shop","tag":"9a3e…"}}]}
//! <sum> {"start":2000001,"after":1000001}
//! ```
//!
//! One line for each purge, or for many that are put in force as one, each with a sum over the rest of it, and acknowledged only once it is safe from a loss of power. A
//! line that was cut short at the end was never acknowledged, and is dropped. Sites stand there by name: numbers are
//! given anew at each start. What sites have had (`past`) stands there too, so that it lives as long as what was stored. The log has an id: what is stored on a disk under the positions of another log is of no use, so a
//! log that is lost or damaged costs the disks' contents, and never lets anything come back.
//!
//! Invalidations by visitors' requests are not synced one by one, so a loss of power can take the newest of them; what was
//! stored after them has positions that the log does not know. Those are never given out again: each start goes on
//! [`START_GAP`] above the last position that it found, and what was stored in between is of no use.
//!
//! It grows by about 100 bytes for each purge. Beyond [`LOG_BYTES_MAX`] it is written anew with the newest purge of each target,
//! and of more than [`TARGETS_MAX`] the older half becomes one purge of everything.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::purge::{Kind, Purge, Target};
use semantics::key::{KeySeed, hash};
use serde::{Deserialize, Serialize};

use crate::loaded::SiteNumbers;
use crate::past::{Past, SiteLine};

const VERSION: u32 = 1;

/// Length of a log above which it is written anew.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// By how much positions jump with each start: more than can have been lost at the end of the log.
const START_GAP: u64 = 1_000_000;

/// Unsynced purges after which one is synced: far fewer than the gap.
const UNSYNCED_MAX: u64 = START_GAP / 10;

/// Purges that could not be written and are remembered one by one.
const MISSED_MAX: usize = 1_000;

/// Targets that a log remembers one by one: about what a purge clock does.
const TARGETS_MAX: usize = 400_000;

/// A log of purges, open for appending.
pub(crate) struct PurgeLog {
    path: PathBuf,
    file: Arc<File>,
    id: u128,
    /// Appended since the last sync that was asked for.
    unsynced: u64,
    /// In force and not in the log, because it could not be written: to go before whatever is written next.
    missed: Vec<LoggedPurge>,
    bytes: u64,
    bytes_max: u64,
    /// Set by a failed append: what the file ends with is not known.
    is_torn: bool,
}

#[derive(Serialize, Deserialize)]
struct First {
    log: String,
    version: u32,
}

/// A line after the first.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(untagged)]
enum Line {
    Purge(LoggedPurge),
    Start(Start),
    Site(SiteLine),
}

/// A start of the edge: positions above `after` and below `start` were never given out, or were lost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
struct Start {
    start: u64,
    after: u64,
}

/// One purge as it stands in the log.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Hash)]
struct LoggedPurge {
    position: u64,
    kind: LoggedKind,
    targets: Vec<Logged>,
}

/// As it stands in the log.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LoggedKind {
    Soft,
    Doubt,
    Hard,
}

impl LoggedKind {
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Soft => LoggedKind::Soft,
            Kind::Doubt => LoggedKind::Doubt,
            Kind::Hard => LoggedKind::Hard,
        }
    }

    pub(crate) fn to_kind(self) -> Kind {
        match self {
            LoggedKind::Soft => Kind::Soft,
            LoggedKind::Doubt => Kind::Doubt,
            LoggedKind::Hard => Kind::Hard,
        }
    }
}

/// What is purged, as it stands in the log: with sites by name.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Logged {
    Everything,
    Site {
        site: String,
    },
    Prefix {
        site: String,
        host: Option<String>,
        path: String,
    },
    Tag {
        /// All without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<String>,
        tag: String,
    },
    Url {
        site: String,
        url: String,
    },
}

/// What a log has told at its opening.
pub(crate) struct Replayed {
    pub(crate) purges: Vec<(u64, Kind, Target)>,
    /// The position from which this start goes on.
    pub(crate) newest: u64,
    /// Which positions mean anything.
    pub(crate) positions: Positions,
    /// What sites have had.
    pub(crate) past: Past,
    /// Why an old log could not be gone on with, if there was one.
    pub(crate) begun_anew: Option<String>,
}

/// The positions that a log knows. Something stored at another one may have been fetched before a purge that was lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Positions {
    /// Gaps, in ascending order.
    starts: Vec<Start>,
}

impl Positions {
    /// Whether what was stored at `position` can be told from what was purged.
    pub(crate) fn know(&self, position: u64) -> bool {
        let next = self.starts.partition_point(|start| start.start <= position);
        self.starts.get(next).is_none_or(|start| position <= start.after)
    }
}

impl PurgeLog {
    /// Opens the log at `path`, or begins one. `chance` becomes the id of a new one.
    ///
    /// # Errors
    /// Those of the file system. A damaged log is no error: it is set aside.
    pub(crate) fn open(path: &Path, chance: u128, sites: &SiteNumbers) -> io::Result<(Self, Replayed)> {
        Self::open_with(path, chance, sites, LOG_BYTES_MAX)
    }

    fn open_with(
        path: &Path,
        chance: u128,
        sites: &SiteNumbers,
        bytes_max: u64,
    ) -> io::Result<(Self, Replayed)> {
        let mut begun_anew = None;
        let read = match fs::read(path) {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => match parse(&bytes) {
                Ok(read) => Some(read),
                Err(reason) => {
                    let aside = path.with_extension("damaged");
                    fs::rename(path, &aside)?;
                    begun_anew = Some(format!("{reason}; the file was kept as {}", aside.display()));
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (id, lines, bytes) = match read {
            Some(Read { id, lines, whole_bytes }) => (id, lines, whole_bytes),
            None => {
                let first = first_line(chance);
                replace(path, &first)?;
                (chance, Vec::new(), first.len() as u64)
            }
        };
        let file = Arc::new(OpenOptions::new().append(true).mode(0o600).open(path)?);
        // What was cut short has no place before what comes next.
        file.set_len(bytes)?;
        let mut replayed = Replayed {
            purges: Vec::new(),
            newest: 0,
            positions: Positions::default(),
            past: Past::default(),
            begun_anew,
        };
        let mut sites_known = Vec::new();
        for line in lines {
            match line {
                Line::Site(site) => sites_known.push(site),
                Line::Start(start) => {
                    replayed.newest = replayed.newest.max(start.start);
                    replayed.positions.starts.push(start);
                }
                Line::Purge(LoggedPurge { position, kind, targets }) => {
                    let kind = kind.to_kind();
                    replayed.newest = replayed.newest.max(position);
                    let targets = targets.iter().map(|target| (position, kind, target.to_target(sites)));
                    replayed.purges.extend(targets);
                }
            }
        }
        replayed.past = Past::of(sites_known);
        let path = path.to_owned();
        let mut log =
            PurgeLog { path, file, id, unsynced: 0, missed: Vec::new(), bytes, bytes_max, is_torn: false };
        let start = Start { start: replayed.newest + START_GAP, after: replayed.newest };
        log.write(&[Line::Start(start)])?;
        log.file.sync_data()?;
        sync_directory(&log.path)?;
        replayed.newest = start.start;
        replayed.positions.starts.push(start);
        if log.bytes > bytes_max {
            log.write_anew()?;
        }
        Ok((log, replayed))
    }

    /// Takes the log away: what is on disk was stored under a log that is no more, and is dropped by the next start that finds
    /// it. For a time in which what is taken away cannot be taken away from the disks.
    ///
    /// # Errors
    /// Those of removing the file; that there is none is fine.
    pub(crate) fn revoke(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_directory(path),
        }
    }

    /// [`PurgeLog::revoke`] of this one, because disks could not be told what was taken away. The operator is told; whether it is
    /// away.
    pub(crate) fn end(&self) -> bool {
        let (revoked, path) = (Self::revoke(&self.path), self.path.display());
        match &revoked {
            Ok(()) => eprintln!(
                "perigee: {path}: removed: not all that was taken away could be written to the disks, and the next start drops what they hold"
            ),
            Err(error) => {
                eprintln!("perigee: {path}: cannot be removed: {error}; remove it before the next start");
            }
        }
        revoked.is_ok()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names the log: positions of another one mean nothing.
    pub(crate) fn id(&self) -> u128 {
        self.id
    }

    /// Appends purges that come into force as one: safe from the end of the process. What is returned is to be synced by
    /// whoever acknowledges them.
    ///
    /// # Errors
    /// Those of writing: acknowledged purges are not in the log then and must not be carried out; any others are kept, and
    /// written before the next ones.
    pub(crate) fn append(
        &mut self,
        position: u64,
        purges: &[Purge],
        sites: &SiteNumbers,
        acknowledged: bool,
    ) -> io::Result<Option<Arc<File>>> {
        let logged: Vec<LoggedPurge> = [Kind::Hard, Kind::Doubt, Kind::Soft]
            .into_iter()
            .map(|kind| {
                let of_kind = purges.iter().filter(|purge| purge.kind == kind);
                let targets = of_kind.map(|purge| Logged::of(&purge.target, sites)).collect();
                LoggedPurge { position, kind: LoggedKind::of(kind), targets }
            })
            .filter(|purge| !purge.targets.is_empty())
            .collect();
        let lines: Vec<Line> = logged.iter().cloned().map(Line::Purge).collect();
        if let Err(error) = self.write_missed().and_then(|()| self.write(&lines)) {
            if !acknowledged {
                logged.into_iter().for_each(|purge| self.miss(purge));
            }
            return Err(error);
        }
        // Reading and writing all of it takes a while, and a visitor's request should not be the one that waits.
        let bytes_max = if acknowledged { self.bytes_max } else { 4 * self.bytes_max };
        if self.bytes > bytes_max {
            // The purges are in the log either way.
            if let Err(error) = self.write_anew() {
                eprintln!("perigee: {}: cannot be made shorter: {error}", self.path.display());
                self.bytes_max = self.bytes * 2;
            }
        }
        self.unsynced += 1;
        let is_due = acknowledged || self.unsynced >= UNSYNCED_MAX;
        if is_due {
            self.unsynced = 0;
        }
        Ok(is_due.then(|| self.file.clone()))
    }

    /// Writes down what sites have. What is returned is to be synced before anything is stored under it.
    ///
    /// # Errors
    /// Those of writing: then nothing may be stored under it.
    pub(crate) fn note_sites(&mut self, lines: Vec<SiteLine>) -> io::Result<Option<Arc<File>>> {
        if lines.is_empty() {
            return Ok(None);
        }
        let lines: Vec<Line> = lines.into_iter().map(Line::Site).collect();
        self.write(&lines)?;
        Ok(Some(self.file.clone()))
    }

    /// Writes what could not be written before.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn write_missed(&mut self) -> io::Result<()> {
        while let Some(purge) = self.missed.first().cloned() {
            self.write(&[Line::Purge(purge)])?;
            self.missed.remove(0);
        }
        Ok(())
    }

    fn miss(&mut self, purge: LoggedPurge) {
        if self.missed.len() < MISSED_MAX {
            return self.missed.push(purge);
        }
        // More than can be remembered: then all of it is purged after a restart.
        let everything = LoggedPurge {
            position: purge.position,
            kind: LoggedKind::Hard,
            targets: vec![Logged::Everything],
        };
        self.missed = vec![everything];
    }

    /// When this fails, none of them is there for a later start; a crash may leave the first ones.
    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let bytes: Vec<u8> = lines.iter().flat_map(line_of).collect();
        if self.is_torn {
            self.file.set_len(self.bytes)?;
            self.is_torn = false;
        }
        if let Err(error) = (&*self.file).write_all(&bytes) {
            self.is_torn = true;
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Leaves out what later purges have made needless.
    fn write_anew(&mut self) -> io::Result<()> {
        let read = parse(&fs::read(&self.path)?).map_err(io::Error::other)?;
        let mut newest: HashMap<(LoggedKind, Logged), u64> = HashMap::new();
        let mut starts = Vec::new();
        let mut sites: HashMap<Box<str>, SiteLine> = HashMap::new();
        for line in read.lines {
            match line {
                Line::Site(site) => _ = sites.insert(site.known.clone(), site),
                Line::Start(start) => starts.push(start),
                Line::Purge(purge) => {
                    for target in purge.targets {
                        let position = newest.entry((purge.kind, target)).or_insert(0);
                        *position = purge.position.max(*position);
                    }
                }
            }
        }
        let mut kept: Vec<(u64, LoggedKind, Logged)> =
            newest.into_iter().map(|((kind, target), position)| (position, kind, target)).collect();
        kept.sort_unstable_by_key(|(position, ..)| *position);
        if kept.len() > TARGETS_MAX {
            let rest = kept.split_off(kept.len() - TARGETS_MAX / 2);
            let position = kept.last().map_or(0, |(position, ..)| *position);
            kept = vec![(position, LoggedKind::Hard, Logged::Everything)];
            kept.extend(rest);
        }
        let mut bytes = first_line(self.id);
        starts.into_iter().for_each(|start| bytes.extend(line_of(&Line::Start(start))));
        sites.into_values().for_each(|site| bytes.extend(line_of(&Line::Site(site))));
        for (position, kind, target) in kept {
            bytes.extend(line_of(&Line::Purge(LoggedPurge { position, kind, targets: vec![target] })));
        }
        self.file = Arc::new(replace(&self.path, &bytes)?);
        self.bytes = bytes.len() as u64;
        self.bytes_max = self.bytes_max.max(self.bytes * 2);
        // Until the name is safe, the old file is what a loss of power would leave: all but what is appended from now on.
        sync_directory(&self.path)
    }
}

/// Puts a file in place of another, safe from a loss of power but for its name, and opens it for appending. Nothing can fail
/// once it has the name.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let new = path.with_extension("new");
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut file = OpenOptions::new().append(true).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(file)
}

/// Makes a new name of a file in the directory safe from a loss of power.
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn sum(text: &[u8]) -> String {
    format!("{:016x}", hash(&KeySeed([0; 16]), text) as u64)
}

fn with_sum(text: &str) -> Vec<u8> {
    format!("{} {text}\n", sum(text.as_bytes())).into_bytes()
}

fn first_line(id: u128) -> Vec<u8> {
    let first = First { log: format!("{id:032x}"), version: VERSION };
    with_sum(&serde_json::to_string(&first).unwrap_or_default())
}

fn line_of(line: &Line) -> Vec<u8> {
    with_sum(&serde_json::to_string(line).unwrap_or_default())
}

struct Read {
    id: u128,
    lines: Vec<Line>,
    /// Bytes up to the end of the last whole line.
    whole_bytes: u64,
}

fn parse(bytes: &[u8]) -> Result<Read, String> {
    let text = |line: &[u8]| {
        let (check, rest) = line.split_at_checked(17)?;
        (check[..16] == *sum(rest).as_bytes() && check[16] == b' ').then(|| rest.to_vec())
    };
    let mut lines = Vec::new();
    let mut id = None;
    let mut at = 0;
    for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let is_last = at + line.len() == bytes.len();
        let whole = line.strip_suffix(b"\n").and_then(text);
        let read = match (&id, whole) {
            (None, Some(text)) => serde_json::from_slice::<First>(&text).ok().and_then(|first| {
                id = Some(u128::from_str_radix(&first.log, 16).ok()?);
                (first.version == VERSION).then_some(())
            }),
            (Some(_), Some(text)) => serde_json::from_slice(&text).ok().map(|line| lines.push(line)),
            (_, None) => None,
        };
        match read {
            Some(()) => at += line.len(),
            // Without its end it was cut short; with it, it may have been acknowledged.
            None if is_last && number > 1 && !line.ends_with(b"\n") => break,
            None => return Err(format!("line {number} is not what was written")),
        }
    }
    let id = id.ok_or("it has no first line")?;
    Ok(Read { id, lines, whole_bytes: at as u64 })
}

impl Logged {
    pub(crate) fn of(target: &Target, sites: &SiteNumbers) -> Self {
        let name = |site: &u32| sites.name(*site);
        match target {
            Target::Everything => Logged::Everything,
            Target::Site(site) => Logged::Site { site: name(site) },
            Target::Prefix { site, host, path } => {
                Logged::Prefix { site: name(site), host: host.clone(), path: path.clone() }
            }
            Target::Tag { site, tag } => {
                Logged::Tag { site: site.as_ref().map(name), tag: format!("{tag:016x}") }
            }
            Target::Url { site, url } => Logged::Url { site: name(site), url: format!("{url:032x}") },
        }
    }

    /// A number that is none was written by something else, since the sum was right: more is purged then, not less.
    pub(crate) fn to_target(&self, sites: &SiteNumbers) -> Target {
        match self {
            Logged::Everything => Target::Everything,
            Logged::Site { site } => Target::Site(sites.of(site)),
            Logged::Prefix { site, host, path } => {
                Target::Prefix { site: sites.of(site), host: host.clone(), path: path.clone() }
            }
            Logged::Tag { site, tag } => {
                let site = site.as_ref().map(|site| sites.of(site));
                let whole = site.map_or(Target::Everything, Target::Site);
                u64::from_str_radix(tag, 16).map_or(whole, |tag| Target::Tag { site, tag })
            }
            Logged::Url { site, url } => {
                let (site, url) = (sites.of(site), u128::from_str_radix(url, 16));
                url.map_or(Target::Site(site), |url| Target::Url { site, url })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("perigee-purges-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn log(&self) -> PathBuf {
            self.0.join("purges")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn targets(sites: &SiteNumbers) -> Vec<Target> {
        let site = sites.of("shop \"quoted\"");
        vec![
            Target::Everything,
            Target::Site(site),
            Target::Prefix { site, host: Some("a.example".into()), path: "/ü/".into() },
            Target::Tag { site: Some(site), tag: u64::MAX - 1 },
            Target::Tag { site: None, tag: 5 },
            Target::Url { site, url: u128::MAX / 3 },
        ]
    }

    fn of(kind: Kind, targets: impl IntoIterator<Item = Target>) -> Vec<Purge> {
        targets.into_iter().map(|target| Purge { target, kind }).collect()
    }

    #[test]
    fn purges_come_back_after_a_restart_under_the_names_of_their_sites() {
        let scratch = Scratch::new("back");
        let sites = SiteNumbers::default();
        let (mut log, replayed) = PurgeLog::open(&scratch.log(), 7, &sites).unwrap();
        assert!(replayed.purges.is_empty() && replayed.begun_anew.is_none() && log.id() == 7);
        for (position, target) in (1..).zip(targets(&sites)) {
            log.append(position, &of(Kind::Soft, [target]), &sites, true).unwrap();
        }
        // Numbers are others after a restart.
        let sites = SiteNumbers::default();
        sites.of("another");
        let (log, replayed) = PurgeLog::open(&scratch.log(), 8, &sites).unwrap();
        assert_eq!((log.id(), replayed.newest), (7, 2 * START_GAP));
        let wanted: Vec<_> =
            (1..).zip(targets(&sites)).map(|(position, target)| (position, Kind::Soft, target)).collect();
        assert_eq!(replayed.purges, wanted);
    }

    #[test]
    fn a_line_that_was_cut_short_is_dropped_and_anything_else_that_is_wrong_ends_the_log() {
        let scratch = Scratch::new("cut");
        let sites = SiteNumbers::default();
        let (mut log, _) = PurgeLog::open(&scratch.log(), 7, &sites).unwrap();
        log.append(1, &of(Kind::Hard, [Target::Everything]), &sites, true).unwrap();
        let one = fs::read(scratch.log()).unwrap();
        log.append(2, &of(Kind::Hard, targets(&sites)), &sites, true).unwrap();
        let two = fs::read(scratch.log()).unwrap();
        for end in one.len()..two.len() {
            fs::write(scratch.log(), &two[..end]).unwrap();
            let (mut log, replayed) = PurgeLog::open(&scratch.log(), 8, &sites).unwrap();
            assert_eq!(log.id(), 7, "cut at {end}");
            assert_eq!(replayed.purges.len(), 1, "cut at {end}");
            log.append(replayed.newest + 1, &of(Kind::Hard, [Target::Site(0)]), &sites, false).unwrap();
            let (_, replayed) = PurgeLog::open(&scratch.log(), 8, &sites).unwrap();
            assert_eq!(replayed.purges.len(), 2);
        }
        let first = one.iter().position(|byte| *byte == b'\n').unwrap();
        for at in [0, 20, first + 3, one.len() - 5, two.len() - 5] {
            let mut damaged = two.clone();
            damaged[at] ^= 1;
            fs::write(scratch.log(), damaged).unwrap();
            let (log, replayed) = PurgeLog::open(&scratch.log(), 9, &sites).unwrap();
            assert_eq!((log.id(), replayed.purges.len()), (9, 0), "flipped at {at}");
            assert!(replayed.begun_anew.unwrap().contains("line"));
        }
    }

    #[test]
    fn a_position_that_was_lost_is_not_given_out_again_and_not_known() {
        let scratch = Scratch::new("lost");
        let sites = SiteNumbers::default();
        let (mut log, first) = PurgeLog::open(&scratch.log(), 7, &sites).unwrap();
        log.append(first.newest + 1, &of(Kind::Hard, [Target::Everything]), &sites, true).unwrap();
        let kept = fs::read(scratch.log()).unwrap();
        log.append(first.newest + 2, &of(Kind::Hard, [Target::Everything]), &sites, false).unwrap();
        drop(log);
        fs::write(scratch.log(), kept).unwrap();
        let (mut log, second) = PurgeLog::open(&scratch.log(), 8, &sites).unwrap();
        assert!(second.newest > first.newest + 2);
        log.append(second.newest + 1, &of(Kind::Hard, [Target::Everything]), &sites, true).unwrap();
        let (_, third) = PurgeLog::open(&scratch.log(), 8, &sites).unwrap();
        for positions in [&second.positions, &third.positions] {
            assert!(positions.know(first.newest) && positions.know(first.newest + 1));
            assert!(!positions.know(first.newest + 2) && !positions.know(second.newest - 1));
            assert!(positions.know(second.newest) && positions.know(second.newest + 1));
        }
        assert!(!third.positions.know(second.newest + 2) && third.positions.know(third.newest));
    }

    #[test]
    fn what_could_not_be_written_is_written_before_what_comes_next() {
        let scratch = Scratch::new("missed");
        let sites = SiteNumbers::default();
        let site = sites.of("shop");
        let (mut log, _) = PurgeLog::open(&scratch.log(), 7, &sites).unwrap();
        let good = std::mem::replace(&mut log.file, Arc::new(File::open(scratch.log()).unwrap()));
        let append = |log: &mut PurgeLog, position, acknowledged| {
            let target = Target::Tag { site: Some(site), tag: position };
            log.append(position, &of(Kind::Hard, [target]), &sites, acknowledged).map(drop)
        };
        assert!(append(&mut log, 1, false).is_err() && append(&mut log, 2, true).is_err());
        assert!(append(&mut log, 3, false).is_err());
        log.file = good;
        append(&mut log, 4, true).unwrap();
        let (_, replayed) = PurgeLog::open(&scratch.log(), 8, &sites).unwrap();
        let positions: Vec<u64> = replayed.purges.iter().map(|(position, ..)| *position).collect();
        assert_eq!(positions, [1, 3, 4]);
        log.file = Arc::new(File::open(scratch.log()).unwrap());
        (10..10 + MISSED_MAX as u64 + 1)
            .for_each(|position| assert!(append(&mut log, position, false).is_err()));
        assert!(log.missed.len() == 1 && log.missed[0].targets == [Logged::Everything]);
    }

    #[test]
    fn a_long_log_is_written_anew_with_what_still_matters() {
        let scratch = Scratch::new("long");
        let sites = SiteNumbers::default();
        let site = sites.of("shop");
        let (mut log, _) = PurgeLog::open_with(&scratch.log(), 7, &sites, 20_000).unwrap();
        for position in 1..=2000 {
            let target = Target::Tag { site: Some(site), tag: position % 10 };
            log.append(position, &of(Kind::Hard, [target]), &sites, true).unwrap();
        }
        assert!(fs::metadata(scratch.log()).unwrap().len() < 30_000);
        let (_, replayed) = PurgeLog::open_with(&scratch.log(), 8, &sites, 20_000).unwrap();
        assert_eq!(replayed.newest, 2 * START_GAP);
        for tag in 0..10 {
            let newest = replayed
                .purges
                .iter()
                .filter(|(_, _, target)| *target == Target::Tag { site: Some(site), tag });
            assert_eq!(
                newest.map(|(position, ..)| position).max(),
                Some(&(if tag == 0 { 2000 } else { 1990 + tag }))
            );
        }
    }

    #[test]
    fn purges_of_all_kinds_as_one_come_back() {
        let scratch = Scratch::new("both");
        let sites = SiteNumbers::default();
        let (mut log, _) = PurgeLog::open(&scratch.log(), 7, &sites).unwrap();
        let before = fs::metadata(scratch.log()).unwrap().len();
        let mut purges = of(Kind::Soft, [Target::Site(sites.of("a"))]);
        purges.extend(of(Kind::Hard, [Target::Site(sites.of("b"))]));
        purges.extend(of(Kind::Doubt, [Target::Everything]));
        log.append(1, &purges, &sites, true).unwrap();
        let whole = fs::read(scratch.log()).unwrap();
        let (_, replayed) = PurgeLog::open(&scratch.log(), 8, &sites).unwrap();
        let mut kinds: Vec<(u64, Kind)> = replayed.purges.iter().map(|(at, kind, _)| (*at, *kind)).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [(1, Kind::Soft), (1, Kind::Doubt), (1, Kind::Hard)]);
        fs::write(scratch.log(), &whole[..before as usize + 20]).unwrap();
        let (_, replayed) = PurgeLog::open(&scratch.log(), 8, &sites).unwrap();
        assert!(replayed.purges.is_empty() && replayed.begun_anew.is_none());
    }

    #[test]
    fn what_sites_have_had_outlives_restarts_and_shortening() {
        let scratch = Scratch::new("sites");
        let sites = SiteNumbers::default();
        let (mut log, _) = PurgeLog::open_with(&scratch.log(), 7, &sites, 4_000).unwrap();
        let site = |name: &str, text: &str| -> SiteLine {
            let json = format!(r#"{{"known":"{name}","domains":["{text}"],"queries":[{{"part":"all"}}]}}"#);
            serde_json::from_str(&json).unwrap()
        };
        log.note_sites(vec![site("a", "old.example"), site("b", "b.example")]).unwrap();
        log.note_sites(vec![site("a", "new.example")]).unwrap();
        for position in 1..=100 {
            log.append(position, &of(Kind::Hard, [Target::Site(0)]), &sites, true).unwrap();
        }
        for _ in 0..2 {
            let (_, replayed) = PurgeLog::open_with(&scratch.log(), 8, &sites, 4_000).unwrap();
            assert_eq!(replayed.past.sites_of("new.example"), ["a"]);
            assert_eq!(replayed.past.sites_of("b.example"), ["b"]);
            assert!(replayed.past.sites_of("old.example").is_empty());
        }
    }
}
