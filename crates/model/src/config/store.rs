//! `[store]` → [`StoreSettings`].

use std::path::{Path, PathBuf};

use super::check::{Findings, Section, Span};
use crate::settings::{DiskSettings, Eviction, StoreSettings};

/// Settings from the section; defaults where it says nothing.
pub(super) fn build(findings: &mut Findings<'_>, section: Option<&Section>) -> StoreSettings {
    let mut settings = StoreSettings::default();
    let Some(section) = section else { return settings };
    settings.memory = section.size("memory").unwrap_or(settings.memory);
    settings.in_flight = section.size("in_flight");
    settings.eviction = match section.text("eviction").map(|(word, _)| word) {
        Some("lru") => Eviction::Lru,
        Some("sieve") => Eviction::Sieve,
        Some("s3-fifo") => Eviction::S3Fifo,
        _ => Eviction::Lgdsf,
    };
    let disks: Vec<&Section> = section.list("disk").iter().filter_map(|item| item.table()).collect();
    refuse_shared_directories(findings, &disks);
    settings.disks = disks.iter().filter_map(|disk| build_disk(findings, disk)).collect();
    section.finish();
    settings
}

/// `None` when the size is missing or bad, which has been said.
fn build_disk(findings: &mut Findings<'_>, section: &Section) -> Option<DiskSettings> {
    let path = section.text("path").and_then(|(path, span)| checked_directory(findings, path, span));
    let size = section.size("size");
    let writes_per_day = section.number("writes_per_day");
    section.finish();
    let disk = DiskSettings::of(size?);
    Some(DiskSettings { path, writes_per_day: writes_per_day.unwrap_or(disk.writes_per_day), ..disk })
}

fn checked_directory(findings: &mut Findings<'_>, path: &str, span: &Span) -> Option<PathBuf> {
    if path.is_empty() {
        let help = "write a directory, or leave path out for \"store\" in the state directory";
        findings.error(span, "path is empty", help);
        return None;
    }
    if !Path::new(path).is_absolute() {
        // Relative to what? Where the process was started is not where the file lies, and neither is seen in it.
        let message = format!("path: {path:?} is not absolute");
        findings.error(span, message, "write an absolute path, e.g. \"/var/cache/perigee\"");
        return None;
    }
    Some(path.into())
}

/// Each disk has a directory of its own: two in one would write over each other. Paths are compared as they are written;
/// what links and mounts make of them only the start finds out.
fn refuse_shared_directories(findings: &mut Findings<'_>, disks: &[&Section]) {
    let directory = |disk: &Section| match disk.text("path") {
        Some((path, span)) => Some((Some(PathBuf::from(path)), span.clone())),
        None if disk.has("path") => None,
        None => Some((None, disk.span.clone())),
    };
    let mut earlier: Vec<(Option<PathBuf>, u32)> = Vec::new();
    for (path, span) in disks.iter().filter_map(|disk| directory(disk)) {
        let first = earlier.iter().find(|(other, _)| *other == path).map(|(_, line)| *line);
        match (first, &path) {
            (None, _) => earlier.push((path, findings.line(&span))),
            (Some(first), Some(path)) => {
                let message = format!("two disks have the path {path:?}; the first is in line {first}");
                findings.error(&span, message, "give each disk its own directory");
            }
            (Some(first), None) => {
                let message = format!("two disks have no path; the first is in line {first}");
                findings.error(&span, message, "add path = \"/var/cache/perigee\" to one of them");
            }
        }
    }
}
