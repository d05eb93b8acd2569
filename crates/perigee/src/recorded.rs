//! Logs and configurations as `replay` and `advise` take them: opened, read, and counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use insight::class::pattern;
use insight::log::{Format, Lines, Malformed, Record};
use insight::replay::Probed;
use model::{Diagnostic, Snapshot};

use crate::failure::Failure;
use crate::probe::Probe;

/// Classes of URLs of which one URL is asked for.
const PROBES_MAX: usize = 60;

/// Classes that are counted for it, at most: those that come first. Visitors name them.
const CLASSES_MAX: usize = 100_000;

/// What all logs together had that was no request.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Counted {
    pub(crate) lines: u64,
    pub(crate) malformed: u64,
    /// The first of them, by file.
    pub(crate) shown: Vec<(String, Malformed)>,
}

/// Lines shown of all files together.
const SHOWN_MAX: usize = 5;

/// Reads all requests of `logs`, in their order; "-" is standard input.
pub(crate) fn read(logs: &[PathBuf], mut take: impl FnMut(Format, &Record)) -> Result<Counted, Failure> {
    let mut counted = Counted::default();
    for log in logs {
        let input: Box<dyn Read> = match log == Path::new("-") {
            true => Box::new(std::io::stdin()),
            false => Box::new(File::open(log).map_err(|error| unreadable(log, &error))?),
        };
        let mut lines = Lines::new(input);
        while let Some((format, record)) = lines.next().map_err(|error| unreadable(log, &error))? {
            take(format, &record);
        }
        counted.lines += lines.count;
        counted.malformed += lines.malformed;
        let room = SHOWN_MAX.saturating_sub(counted.shown.len());
        counted.shown.extend(lines.shown.into_iter().take(room).map(|one| (log.display().to_string(), one)));
    }
    Ok(counted)
}

impl Counted {
    /// What was malformed, in words; empty where nothing was.
    pub(crate) fn words(&self) -> String {
        if self.malformed == 0 {
            return String::new();
        }
        let mut words = format!("{} of {} lines could not be read:\n", self.malformed, self.lines);
        for (file, one) in &self.shown {
            words.push_str(&format!("  {file}:{}: {}: {}\n", one.line, one.why, one.text));
        }
        words
    }

    /// A failure where there was no request at all.
    pub(crate) fn refuse_nothing(&self, requests: u64) -> Result<(), Failure> {
        if requests > 0 {
            return Ok(());
        }
        Err(Failure::new(
            format!(
                "{} lines and not one request that is for this configuration\n{}",
                self.lines,
                crate::visible_lines(&self.words())
            ),
            "the log has to be our JSON, combined, CloudFront's or Logpush's, and its hosts in the configuration; \
             --site NAME takes a log without hosts",
        ))
    }
}

fn unreadable(log: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} cannot be read: {error}", log.display()), "name a log, or - for standard input")
}

/// The configuration in a file.
pub(crate) fn configuration(file: &Path) -> Result<(String, Snapshot), Failure> {
    let place = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!("{place} cannot be read: {error}"), "name the configuration")
    })?;
    let snapshot = parse(&text, &place)?;
    Ok((text, snapshot))
}

/// A text as the configuration of one node, else as that of a cluster.
pub(crate) fn parse(text: &str, place: &str) -> Result<Snapshot, Failure> {
    let whole = Snapshot::parse(text, place);
    if let Some(snapshot) = whole.snapshot {
        return Ok(snapshot);
    }
    if let Some(snapshot) = Snapshot::parse_cluster(text, place).snapshot {
        return Ok(snapshot);
    }
    let errors = whole.diagnostics.iter().filter(|one| Diagnostic::is_error(one));
    let found: String = errors.map(|one| format!("\n{one}")).collect();
    Err(Failure::new(
        format!("{place} cannot be used:{found}"),
        "correct it; perigee check shows all findings",
    ))
}

/// By class: requests, and host and target of the first.
type Classes = BTreeMap<String, (u64, String, String)>;

fn count(classes: &mut Classes, record: &Record) {
    let pattern = pattern(record.path());
    let has_room = classes.len() < CLASSES_MAX || classes.contains_key(&pattern);
    if record.method == "GET" && matches!(record.status, 200 | 304) && has_room {
        let class = classes.entry(pattern).or_default();
        class.0 += 1;
        if class.2.is_empty() {
            (class.1, class.2) = (record.host.clone(), record.target.clone());
        }
    }
}

/// Asks for one URL of each class of the logs, the busiest first, and keeps what its answer says.
pub(crate) fn probe(logs: &[PathBuf], at: &str) -> Result<Probed, Failure> {
    if logs.iter().any(|log| log == Path::new("-")) {
        return Err(Failure::new(
            "standard input cannot be read twice, as --probe needs",
            "put the log into a file",
        ));
    }
    let probe = Probe::new(at)?;
    let mut classes = Classes::new();
    read(logs, |_, record| count(&mut classes, record))?;
    let mut classes: Vec<_> = classes.into_iter().collect();
    classes.sort_by_key(|(_, (count, ..))| std::cmp::Reverse(*count));
    let mut probed = Probed::new();
    let mut failed = None;
    for (class, (_, host, target)) in classes.into_iter().take(PROBES_MAX) {
        match probe.ask(&host, &target) {
            Ok(answer) => _ = probed.insert(class, answer),
            Err(error) => failed = Some((target, error)),
        }
    }
    match failed {
        Some((target, error)) if probed.is_empty() => Err(Failure::new(
            format!("{at} answers nothing: GET {target}: {error}"),
            "is it the origin, and does it listen there?",
        )),
        _ => Ok(probed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_classes_are_counted_than_have_room() {
        let mut classes = Classes::new();
        for number in (0..CLASSES_MAX + 10).chain([0]) {
            let target = format!("/{number}/x");
            count(&mut classes, &Record { method: "GET".into(), status: 200, target, ..Record::default() });
        }
        assert_eq!((classes.len(), classes["/0/*"].0), (CLASSES_MAX, 2));
    }
}
