//! `perigee advise`: what keeps a site from being cached well, what to change, what that will bring, and, afterwards, whether it did.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use client::Control;
use insight::advise::{Metric, Proposal, Survey, Trial, Verdict, Verifier, Worth};
use insight::replay::{Replay, Settings};
use model::Snapshot;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::recorded::{self, Counted};
use crate::replay::bytes;

const EXAMPLES: &str = "\
Examples:
  perigee advise --log access.log --config perigee.toml                  what to change, the best first
  perigee advise --log access.log --config perigee.toml --draft 1 > new.toml   the configuration with the first
  perigee advise --log access.log --config perigee.toml --json > proposals.json
  perigee advise --verify proposals.json --log later.log                 did it do what was predicted?
  perigee advise --log access.log --report                               for the cluster's configuration, shown in its dashboard
  perigee advise --verify --report --only 1 --log later.log              and what came of it

Apply one proposal, check and reload, let some traffic pass, verify, and ask again: what remains is then seen better.
A log of other servers tells no response headers: --probe asks the origin for one URL of each class.";

/// `perigee advise`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AdviseArgs {
    /// A log of requests, in the order of time; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// The configuration that was in force
    #[arg(long, value_name = "FILE", required_unless_present_any = ["verify", "report"], conflicts_with = "report")]
    config: Option<PathBuf>,
    /// Only this site; it also takes requests without a host
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Where the origin is, to ask it what the log does not tell
    #[arg(long, value_name = "URL", alias = "live")]
    probe: Option<String>,
    /// Print the configuration with this proposal applied, and nothing else
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["json", "verify", "report"])]
    draft: Option<usize>,
    /// Proposals that have been applied, as --json has printed them: say whether the log shows what was predicted; exit code 1 if not.
    /// With --report, those that control keeps
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "probe"], num_args = 0..=1)]
    verify: Option<Option<PathBuf>>,
    /// With --verify, only these proposals, by their numbers
    #[arg(long, value_name = "NUMBER", requires = "verify")]
    only: Vec<usize>,
    /// Work it out for the configuration that a cluster runs, and have its control keep it for the dashboard
    #[arg(long)]
    report: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

impl AdviseArgs {
    /// Advises, or verifies.
    pub(crate) fn run(self) -> Result<(), Failure> {
        if let Some(file) = &self.verify {
            return self.verify(file.as_ref());
        }
        if self.cluster.is_given() && !self.report {
            return Err(Failure::new(
                "flags name a control, and nothing is reported to it",
                "add --report, or leave them out",
            ));
        }
        if self.log.iter().any(|log| log.as_os_str() == "-") {
            return Err(Failure::new("standard input cannot be read twice", "put the log into a file"));
        }
        let control = self.report.then(|| self.cluster.client()).transpose()?;
        let base = match (&self.config, &control) {
            (Some(config), _) => Base::of_file(config)?,
            (None, Some(control)) => Base::of_cluster(control)?,
            (None, None) => return Err(Failure::new("there is no configuration", "name it: --config FILE")),
        };
        let Base { text, snapshot, place, number } = base;
        let mut settings = Settings { site: self.site.clone(), ..Settings::default() };
        if let Some(at) = &self.probe {
            settings.probed = Arc::new(recorded::probe(&self.log, at)?);
        }
        let wrong = |why| Failure::new(format!("{place}: {why}"), "correct --site");
        let replay = Replay::new(snapshot, settings.clone()).map_err(wrong)?;
        let mut survey = Survey::new(text.clone(), replay);
        let counted = recorded::read(&self.log, |format, record| survey.take(format, record))?;
        counted.refuse_nothing(survey.requests())?;
        let parse = |draft: &str| recorded::parse(draft, &place).ok();
        let candidates = survey.candidates();
        let found = candidates.len();
        let Some(mut trial) = Trial::new(&text, candidates, &settings, parse) else {
            return Err(Failure::new(
                format!("{place} cannot be replayed"),
                "perigee check shows all findings",
            ));
        };
        for (change, at) in trial.refused() {
            let change = crate::visible_lines(&change);
            eprintln!(
                "perigee: cannot be tried, as {place} does not take it {at}; try it by hand:\n{change}"
            );
        }
        recorded::read(&self.log, |format, record| trial.take(format, record))?;
        let proposals = trial.proposals(&Worth::default());
        if let Some(number) = self.draft {
            let chosen = number.checked_sub(1).and_then(|index| proposals.get(index));
            let count = proposals.len();
            return match chosen {
                Some(proposal) if !proposal.draft.is_empty() => crate::print(&proposal.draft),
                Some(_) => Err(Failure::new(
                    format!("proposal {number} changes nothing in the configuration"),
                    "it is for the origin",
                )),
                None => Err(Failure::new(
                    format!("there is no proposal {number}; there are {count}"),
                    "leave --draft out to see them",
                )),
            };
        }
        if let Some(control) = &control {
            let told: Vec<Value> = proposals.iter().map(|proposal| told(proposal, &text)).collect();
            let body = json!({ "configuration": number, "requests": survey.requests(), "proposals": told });
            control.post("/v1/advice", &body)?;
        }
        crate::print(&match self.json {
            true => format!("{:#}\n", json!({ "log": counted, "considered": found, "proposals": proposals })),
            false => crate::visible_lines(&describe(&proposals, &counted, survey.requests())),
        })
    }

    fn verify(&self, file: Option<&PathBuf>) -> Result<(), Failure> {
        let control = self.report.then(|| self.cluster.client()).transpose()?;
        let (place, mut value) = match (file, &control) {
            (Some(file), _) => (file.display().to_string(), read_proposals(file)?),
            (None, Some(control)) => ("control's report".to_owned(), control.fetch("/v1/advice")?),
            (None, None) => {
                return Err(Failure::new(
                    "--verify names no proposals",
                    "name what --json printed, or add --report",
                ));
            }
        };
        if value.is_null() {
            return Err(Failure::new(
                "nobody has reported any advice yet",
                "perigee advise --log access.log --report",
            ));
        }
        let strange = |why: String| no_proposals(&place, &why);
        let proposals: Vec<Proposal> =
            serde_json::from_value(value["proposals"].take()).map_err(|error| strange(error.to_string()))?;
        let is_meant = |one: &Proposal| self.only.is_empty() || self.only.contains(&one.number);
        let mut verifier = Verifier::new(proposals.into_iter().filter(is_meant).collect());
        let mut requests = 0;
        let counted = recorded::read(&self.log, |_, record| {
            requests += 1;
            verifier.take(record);
        })?;
        counted.refuse_nothing(requests)?;
        let verdicts = verifier.verdicts();
        let failed = verdicts.iter().filter(|(.., verdict)| *verdict != Verdict::Kept).count();
        let rows: Vec<_> = (verdicts.iter())
            .map(|(proposal, measured, verdict)| {
                json!({ "number": proposal.number, "faults": proposal.faults, "metric": proposal.metric, "before": proposal.before,
                        "predicted": proposal.after, "measured": measured, "verdict": verdict })
            })
            .collect();
        if let Some(control) = &control {
            let kept = rows.iter().map(|row| json!({ "number": row["number"], "measured": row["measured"], "verdict": row["verdict"] }));
            control.post("/v1/advice/verdicts", &json!({ "verdicts": kept.collect::<Vec<_>>() }))?;
        }
        crate::print(&match self.json {
            true => format!("{:#}\n", json!({ "log": counted, "verdicts": rows })),
            false => crate::visible_lines(&verdict_words(&verdicts)),
        })?;
        match failed {
            0 => Ok(()),
            failed => Err(Failure::new(
                format!("{failed} of {} proposals did not do what was predicted", verdicts.len()),
                "were they applied before this log begins? Undo what did not help",
            )),
        }
    }
}

/// The configuration that advice is for.
struct Base {
    text: String,
    snapshot: Snapshot,
    /// What to call it.
    place: String,
    /// Its number in a cluster.
    number: Option<u64>,
}

impl Base {
    fn of_file(file: &Path) -> Result<Base, Failure> {
        let (text, snapshot) = recorded::configuration(file)?;
        Ok(Base { text, snapshot, place: file.display().to_string(), number: None })
    }

    /// The one that has proven itself, or the first of all on its way there.
    fn of_cluster(control: &Control) -> Result<Base, Failure> {
        let versions = control.fetch("/v1/configurations")?;
        let number = versions["stable"].as_u64().or(versions["candidate"].as_u64()).ok_or_else(|| {
            Failure::new("the cluster runs no configuration", "roll one out first: perigee apply")
        })?;
        let found = control.fetch(&format!("/v1/configurations/{number}"))?;
        let text = found["text"].as_str().unwrap_or_default().to_owned();
        let place = format!("configuration {number}");
        let snapshot = recorded::parse(&text, &place)?;
        Ok(Base { text, snapshot, place, number: Some(number) })
    }
}

/// A proposal as control keeps it: with the lines that it changes.
fn told(proposal: &Proposal, text: &str) -> Value {
    let mut told = json!(proposal);
    told["edit"] = match proposal.draft.is_empty() {
        true => Value::Null,
        false => lines_changed(text, &proposal.draft),
    };
    told
}

/// What makes one text of the other: all between the lines that both begin and end with.
fn lines_changed(text: &str, draft: &str) -> Value {
    let (old, new): (Vec<&str>, Vec<&str>) = (text.lines().collect(), draft.lines().collect());
    let before = old.iter().zip(&new).take_while(|(one, other)| one == other).count();
    let (old, new) = (&old[before..], &new[before..]);
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(one, other)| one == other).count();
    json!({ "line": before + 1, "remove": old[..old.len() - behind], "insert": new[..new.len() - behind] })
}

fn read_proposals(file: &Path) -> Result<Value, Failure> {
    let place = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!("{place} cannot be read: {error}"), "name what --json printed")
    })?;
    serde_json::from_str(&text).map_err(|error| no_proposals(&place, &error.to_string()))
}

fn no_proposals(place: &str, why: &str) -> Failure {
    Failure::new(format!("{place} holds no proposals: {why}"), "give it what `perigee advise --json` printed")
}

fn describe(proposals: &[Proposal], counted: &Counted, requests: u64) -> String {
    let mut words = counted.words();
    if proposals.is_empty() {
        words.push_str(&format!(
            "Nothing to propose: {requests} requests show no fault that is worth a change.\n"
        ));
        return words;
    }
    for one in proposals {
        let faults: Vec<&str> = one.faults.iter().map(|fault| fault.as_str()).collect();
        words.push_str(&format!("{}. {} (site {})\n", one.number, faults.join(" and "), one.site));
        words.push_str(&format!("   {}.\n", one.evidence));
        one.change.lines().for_each(|line| words.push_str(&format!("       {line}\n")));
        words.push_str(&format!("   apply    {}\n", one.apply));
        words.push_str(&format!("   undo     {}\n", one.undo));
        let kind = if one.is_estimate { "expected" } else { "predicted" };
        words.push_str(&format!(
            "   {kind:<8} {} {} → {}",
            metric(one.metric),
            amount(one.metric, one.before),
            amount(one.metric, one.after)
        ));
        if one.hits_gained.abs() >= 0.0005 {
            words.push_str(&format!("; hits of the whole log {:+.1} points", one.hits_gained * 100.0));
        }
        if one.origin_spared.abs() >= 0.0005 {
            words.push_str(&format!("; requests to the origin {:+.1} %", -one.origin_spared * 100.0));
        }
        words.push_str("\n\n");
    }
    words.push_str("Apply one, verify it, and ask again: perigee advise … --draft 1 > new.toml; --json keeps what --verify needs.\n");
    words
}

fn metric(metric: Metric) -> &'static str {
    match metric {
        Metric::HitRatio => "hit ratio there",
        Metric::ErrorRatio => "errors of the origin there",
        Metric::OriginRequestsPerRequest => "requests to the origin per request there",
        Metric::OriginBytesPerRequest => "bytes from the origin per request there",
        Metric::BytesPerRequest => "bytes to visitors per request there",
        Metric::RepeatRatio => "requests there by visitors who had it",
    }
}

fn amount(metric: Metric, value: f64) -> String {
    match metric {
        Metric::HitRatio | Metric::ErrorRatio | Metric::RepeatRatio => format!("{:.1} %", value * 100.0),
        Metric::OriginRequestsPerRequest => format!("{value:.3}"),
        Metric::OriginBytesPerRequest | Metric::BytesPerRequest => bytes(value as u64),
    }
}

fn verdict_words(verdicts: &[(Proposal, f64, Verdict)]) -> String {
    let mut words = String::new();
    for (one, measured, verdict) in verdicts {
        let faults: Vec<&str> = one.faults.iter().map(|fault| fault.as_str()).collect();
        let said = match verdict {
            Verdict::Kept => "as predicted",
            Verdict::Partly => "better, and less than was predicted",
            Verdict::Failed => "not better",
            Verdict::Unknown => "the log has no request that it is about",
        };
        words.push_str(&format!(
            "{}. {}: {said}: {} was {}, predicted {}, measured {}\n",
            one.number,
            faults.join(" and "),
            metric(one.metric),
            amount(one.metric, one.before),
            amount(one.metric, one.after),
            amount(one.metric, *measured)
        ));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_as_the_lines_between_what_stays() {
        for (text, draft, wanted) in [
            ("a\nb\nc\n", "a\nx\ny\nc\n", json!({ "line": 2, "remove": ["b"], "insert": ["x", "y"] })),
            ("a\nb\n", "a\nb\nb\n", json!({ "line": 3, "remove": [], "insert": ["b"] })),
            ("a\na\n", "a\n", json!({ "line": 2, "remove": ["a"], "insert": [] })),
            ("a\n", "a\n", json!({ "line": 2, "remove": [], "insert": [] })),
        ] {
            assert_eq!(lines_changed(text, draft), wanted);
        }
    }
}
