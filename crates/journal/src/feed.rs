//! The feed: how nodes follow the journal. Nodes dial out to any control, or to a relay, which follows a control itself.
//!
//! ```text
//! node                                         control or relay
//!  │ POST /v1/feed (HTTP/2, mutual TLS)         │
//!  │ ── hello: journal, cursor ───────────────► │
//!  │ ◄──────────────────────────── welcome ──── │
//!  │ ◄─────────────── records after cursor ──── │   or restart: begin anew from here, trust nothing stored before
//!  │ ── report: applied up to N, signed ──────► │   with what it wants of origins' budgets
//!  │ ◄───────── leases, if hello takes them ─── │
//!  │ ◄──────────────────────────────── beat ─── │   each second, so that both know that the other is there
//!  │ ── report ───────────────────────────────► │
//!  │ ── statistics of a second ───────────────► │
//!  │ ◄────────────── counted: they are kept ─── │   until then, the node keeps them: for a minute, and in a bounded room
//! ```
//!
//! Both directions are lines of JSON, each a [`Down`] or an [`Up`], of at most [`LINE_BYTES_MAX`] bytes. HTTP/2's windows are the
//! back-pressure: to a node that does not read, nothing more is sent. A node that has seen a gap, or a digest unlike its own,
//! breaks off and dials anew.

mod dial;
mod hub;
mod lines;
mod outbox;
mod relay;

use std::time::{Duration, SystemTime};

use model::budget::lease::{Ask, Grant};
use model::change::Version;
pub use model::steering::Steering;
pub use model::vitals::Vitals;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use dial::{Dialer, Link, Node, Told, chance_below, follow};
pub use hub::{Admit, Check, Counting, Hub, PageText, Seen, Source};
pub use lines::LinesBody;
pub use outbox::{Confirm, Outbox, Patience};
pub use relay::Relay;

use crate::{Digest, Mark, Record};

/// Bytes of a line, at most. What is longer ends the feed.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// How often either side says something, whether there is news or not.
pub const BEAT: Duration = Duration::from_secs(1);

/// After how long without a word the other side is left.
pub const SILENCE: Duration = Duration::from_secs(5);

/// Budgets of origins that a node may say something of in one report.
pub const BUDGETS_MAX: usize = 1_024;

/// What a node is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Down {
    /// The first line.
    Welcome(Welcome),
    /// What has been written.
    Records(Records),
    /// Records that the node lacks are not kept any more, or its digest is not the journal's.
    Restart(Restart),
    /// Nothing new.
    Beat(Beat),
    /// What a node has reported for routers, to those who want it ([`Hello::steers`]).
    Steered(Box<Steered>),
    /// What is granted of origins' budgets, to the node or to those behind a relay. Only for who [takes them](Hello::takes_leases).
    Leases(Vec<Leased>),
    /// Statistics have been written down, and need not be kept by whoever has said them.
    Counted(Counted),
    /// The node is to break off and not to come back: why, and what to do.
    Refused {
        /// For the node's operator.
        why: String,
    },
}

/// Who answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The journal's name.
    pub journal: String,
    /// The name of the control or relay.
    pub from: String,
    /// The newest position.
    pub head: u64,
    /// Whether statistics may be said to it: what was built before there were any would break off.
    #[serde(default)]
    pub takes_statistics: bool,
}

/// A word that only says that all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The newest position.
    pub head: u64,
    /// Over how many ms nodes that lose this feed spread their dialling: the more nodes there are, the longer.
    pub spread_ms: u64,
    /// Whether whoever says it knows that there is nothing newer: a control that cannot reach the journal, or a relay that is cut
    /// off, does not.
    pub is_current: bool,
}

/// What a node has reported for routers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steered {
    /// Its name.
    pub node: String,
    /// The place where it stands.
    pub pop: String,
    /// What it says.
    pub steering: Steering,
    /// How many of these lines were dropped before this one, because they were not read fast enough.
    #[serde(default)]
    pub missed: u64,
}

/// Some consecutive records.
#[derive(Debug, Serialize, Deserialize)]
pub struct Records {
    /// The position before the first one: the node's cursor, or there is a gap.
    pub after: u64,
    /// In order; never empty.
    pub records: Vec<Line>,
    /// The chain over all records up to the last one.
    pub digest: Digest,
    /// The newest position of the journal.
    pub head: u64,
}

/// A record as a part of a line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// Its position.
    pub position: u64,
    /// Its text, byte for byte.
    pub written: Box<RawValue>,
}

/// From where a node goes on that cannot be told what it has missed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Restart {
    /// Its cursor from now on.
    pub at: Mark,
    /// The newest plan at that position; records above it may hold a newer one.
    pub plan: model::change::Plan,
    /// Why, for its log.
    pub why: String,
}

/// What a node says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Up {
    /// The first line.
    Hello(Hello),
    /// How a node is: the one that says it, or one that follows a relay.
    Report(Box<Report>),
    /// What a node has counted.
    Statistics(Box<Statistics>),
    /// Nothing new, from a relay or control that has no nodes.
    Beat,
}

/// Who follows, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The node's name, which its certificate must confirm.
    pub node: String,
    /// The journal that it followed; `None` when it is new.
    pub journal: Option<String>,
    /// Up to where it has applied it.
    pub cursor: Mark,
    /// Whether it only reports, as a control does to another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reports_only: bool,
    /// Whether it wants to hear what nodes report for routers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub steers: bool,
    /// Whether it knows what [`Down::Leases`] is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_leases: bool,
}

/// What a node wants of an origin's budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which: see [`model::budget::BudgetPolicy::id`].
    pub budget: String,
    /// What it says of it.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What a node is granted of an origin's budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// The node.
    pub node: String,
    /// As it was asked for.
    pub budget: String,
    /// How much, and for how long.
    #[serde(flatten)]
    pub grant: Grant,
}

/// The cell with the plan that is in force: as in the newest record with one.
pub const PLAN_CELL: &str = "plan";

/// How a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub node: String,
    /// The place where it stands; empty when it is in none.
    pub pop: String,
    /// Version of its program.
    pub software: String,
    /// Up to where everything is in force and safe.
    pub receipt: Receipt,
    /// The configuration in force; `None` before the first.
    pub running: Option<u64>,
    /// The configuration that it would not take, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// Why it does not answer what it asks itself; nothing from nodes that ask themselves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwell: Option<String>,
    /// Starts of its program since it was enrolled: a crash shows here.
    pub starts: u64,
    /// What it holds, to be looked at.
    #[serde(default)]
    pub holdings: Holdings,
    /// Since it began to run `running`.
    pub vitals: Vitals,
    /// For routers.
    #[serde(default, skip_serializing_if = "Steering::is_empty")]
    pub steering: Steering,
    /// What it wants of origins' budgets; at most [`BUDGETS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Wanted>,
}

/// What a node has counted in a second, or in a part of one. Each is counted once, however often and by whomever it is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// The node.
    pub node: String,
    /// Which of its program's lives: what is counted in one has nothing to do with what is counted in another.
    pub epoch: u64,
    /// Which of that life's: from 1 on, each once.
    pub sequence: u64,
    /// How many the node could not deliver, in this life so far.
    pub lost: u64,
    /// Bytes of `stats::Report`, base64.
    pub report: String,
}

impl Statistics {
    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        self.report.len() + self.node.len() + 128
    }
}

/// Which statistics have been written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The node.
    pub node: String,
    /// As in [`Statistics::epoch`].
    pub epoch: u64,
    /// As in [`Statistics::sequence`].
    pub sequence: u64,
}

impl Counted {
    /// Of these.
    pub fn of(line: &Statistics) -> Self {
        Counted { node: line.node.clone(), epoch: line.epoch, sequence: line.sequence }
    }

    fn is_of(&self, line: &Statistics) -> bool {
        (&self.node, self.epoch, self.sequence) == (&line.node, line.epoch, line.sequence)
    }
}

/// What a node holds: its disks, and the certificates that its visitors see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Its disks, in the order of its configuration.
    pub disks: Vec<HeldDisk>,
    /// The certificates that end first, at most [`CERTIFICATES_TOLD_MAX`].
    pub certificates: Vec<HeldCertificate>,
    /// How many there are in all.
    pub certificate_count: usize,
}

/// A disk of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldDisk {
    /// Its directory.
    pub name: String,
    /// `well`, `full` or `failed`.
    pub health: String,
    /// Bytes that are stored.
    pub bytes: u64,
    /// Bytes that there is room for.
    pub bytes_max: u64,
    /// Objects and slices.
    pub records: u64,
}

/// A certificate that visitors see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCertificate {
    /// The first of its names.
    pub name: String,
    /// How many names it has.
    pub names: usize,
    /// Who issued it.
    pub issuer: String,
    /// Its end, in ms since 1970.
    pub until_ms: i64,
}

/// Certificates in a report: a report is said each second, and it is the next to end that somebody has to look at.
pub const CERTIFICATES_TOLD_MAX: usize = 16;

/// Proof that a node has applied the journal up to a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Up to here, with the digest.
    pub cursor: Mark,
    /// When, in ms since 1970 by the node's clock.
    pub at_ms: i64,
    /// The signature of the node's key over [`model::change::receipt_signed`], base64.
    pub signature: String,
}

/// A configuration that a node would not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which.
    pub version: Version,
    /// Why: the first diagnostic with file and line.
    pub why: String,
}

impl Line {
    /// As a record of the journal.
    pub fn into_record(self) -> Record {
        Record { position: self.position, text: self.written.get().into() }
    }

    /// `None` when the text is no JSON.
    pub fn of(record: &Record) -> Option<Line> {
        let written = RawValue::from_string(record.text.to_string()).ok()?;
        Some(Line { position: record.position, written })
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_budgets_is_left_aside_by_who_does_not_know_of_them() {
        let hello = |takes_leases| {
            let cursor = Mark::default();
            let hello = Hello {
                node: "n".into(),
                journal: None,
                cursor,
                reports_only: false,
                steers: false,
                takes_leases,
            };
            serde_json::to_value(hello).unwrap()
        };
        assert_eq!(hello(false).as_object().unwrap().len(), 3, "as before there were any");
        assert_eq!(hello(true)["takes_leases"], true);
        let ask = Ask { seq: 7, applied: 3, ..Ask::default() };
        let wanted = Wanted { budget: "shop http://o".into(), ask };
        let line = serde_json::to_string(&wanted).unwrap();
        assert_eq!(serde_json::from_str::<Wanted>(&line).unwrap(), wanted, "{line}");
    }

    #[test]
    fn a_record_arrives_byte_for_byte() {
        let record = Record { position: 9, text: r#"{"by":"a",  "x":1}"#.into() };
        let records = Records {
            after: 4,
            records: vec![Line::of(&record).unwrap()],
            digest: Mark::default().then(&record).digest,
            head: 9,
        };
        let line = serde_json::to_string(&Down::Records(records)).unwrap();
        let Down::Records(read) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        let read_record = read.records.into_iter().next().unwrap().into_record();
        assert_eq!(read_record, record);
        assert_eq!(Mark::default().then(&read_record).digest, read.digest);
    }
}
