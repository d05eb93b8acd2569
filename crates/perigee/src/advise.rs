//! `perigee advise`: what keeps a site from being cached well, what to change, what that will bring, and, afterwards, whether it did.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use insight::advise::{Metric, Proposal, Survey, Trial, Verdict, Verifier, Worth};
use insight::replay::{Replay, Settings};
use serde_json::json;

use crate::failure::Failure;
use crate::recorded::{self, Counted};
use crate::replay::bytes;

const EXAMPLES: &str = "\
Examples:
  perigee advise --log access.log --config perigee.toml                  what to change, the best first
  perigee advise --log access.log --config perigee.toml --draft 1 > new.toml   the configuration with the first
  perigee advise --log access.log --config perigee.toml --json > proposals.json
  perigee advise --verify proposals.json --log later.log                 did it do what was predicted?

Apply one proposal, check and reload, let some traffic pass, verify, and ask again: what remains is then seen better.
A log of other servers tells no response headers: --live asks the origin for one URL of each class.";

/// `perigee advise`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AdviseArgs {
    /// A log of requests, in the order of time; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// The configuration that was in force
    #[arg(long, value_name = "FILE", required_unless_present = "verify")]
    config: Option<PathBuf>,
    /// Only this site; it also takes requests without a host
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Where the origin is, to ask it what the log does not tell
    #[arg(long, value_name = "URL")]
    live: Option<String>,
    /// Print the configuration with this proposal applied, and nothing else
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["json", "verify"])]
    draft: Option<usize>,
    /// Proposals that have been applied, as --json has printed them: say whether the log shows what was predicted; exit code 1 if not
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "live"])]
    verify: Option<PathBuf>,
    /// With --verify, only these proposals, by their numbers
    #[arg(long, value_name = "NUMBER", requires = "verify")]
    only: Vec<usize>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl AdviseArgs {
    /// Advises, or verifies.
    pub(crate) fn run(self) -> Result<(), Failure> {
        if let Some(file) = &self.verify {
            return self.verify(file);
        }
        let Some(config) = &self.config else {
            return Err(Failure::new("there is no configuration", "name it: --config FILE"));
        };
        if self.log.iter().any(|log| log.as_os_str() == "-") {
            return Err(Failure::new("standard input cannot be read twice", "put the log into a file"));
        }
        let (text, snapshot) = recorded::configuration(config)?;
        let mut settings = Settings { site: self.site.clone(), ..Settings::default() };
        if let Some(at) = &self.live {
            settings.probed = Arc::new(recorded::probe(&self.log, at)?);
        }
        let wrong = |why| Failure::new(format!("{}: {why}", config.display()), "correct --site");
        let replay = Replay::new(snapshot, settings.clone()).map_err(wrong)?;
        let mut survey = Survey::new(text.clone(), replay);
        let counted = recorded::read(&self.log, |format, record| survey.take(format, record))?;
        counted.refuse_nothing(survey.requests())?;
        let place = config.display().to_string();
        let parse = |draft: &str| recorded::parse(draft, &place).ok();
        let candidates = survey.candidates();
        let found = candidates.len();
        let Some(mut trial) = Trial::new(&text, candidates, &settings, parse) else {
            return Err(Failure::new(
                format!("{place} cannot be replayed"),
                "perigee check shows all findings",
            ));
        };
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
        crate::print(&match self.json {
            true => format!("{:#}\n", json!({ "log": counted, "considered": found, "proposals": proposals })),
            false => crate::visible_lines(&describe(&proposals, &counted, survey.requests())),
        })
    }

    fn verify(&self, file: &PathBuf) -> Result<(), Failure> {
        let place = file.display();
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::new(format!("{place} cannot be read: {error}"), "name what --json printed")
        })?;
        let strange = |why: String| {
            Failure::new(
                format!("{place} holds no proposals: {why}"),
                "give it what `perigee advise --json` printed",
            )
        };
        let mut value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
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
