//! Every statement of a text, and what became of it.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::{Broken, STATEMENTS_MAX};

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// What messages call the text.
    #[serde(serialize_with = "write_text")]
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

fn write_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What became of a statement, or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is said by this key.
    Mapped(String),
    /// Nothing has to say it, for this reason.
    NotNeeded(String),
    /// Nothing says it; what to do instead.
    NotMapped(String),
}

impl Outcome {
    /// The word for it, as in the report.
    pub const fn word(&self) -> &'static str {
        match self {
            Outcome::Mapped(_) => "mapped",
            Outcome::NotNeeded(_) => "not needed",
            Outcome::NotMapped(_) => "not mapped",
        }
    }

    /// To which key, why, or what instead.
    pub fn text(&self) -> &str {
        match self {
            Outcome::Mapped(text) | Outcome::NotNeeded(text) | Outcome::NotMapped(text) => text,
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Outcome", 2)?;
        out.serialize_field("outcome", self.word())?;
        out.serialize_field("text", self.text())?;
        out.end()
    }
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Where it begins.
    #[serde(flatten)]
    pub place: Place,
    /// The statement, without its block, cut to 120 characters.
    pub directive: String,
    /// What became of it; at least one, and several where its parts fared differently.
    pub outcomes: Vec<Outcome>,
}

impl Item {
    /// Whether any part of it is not mapped.
    pub fn is_open(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::NotMapped(_)))
    }
}

/// Characters of a statement that are shown.
pub(crate) const SHOWN_MAX: usize = 120;

/// A statement's number.
pub(crate) type Id = usize;

/// All statements of a text.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    items: Vec<Item>,
}

impl Ledger {
    /// Notes a statement, before anybody knows what it means.
    pub(crate) fn add(&mut self, place: Place, statement: &str) -> Result<Id, Broken> {
        if self.items.len() == STATEMENTS_MAX {
            let message = format!("there are more than {STATEMENTS_MAX} statements");
            return Err(Broken { place, message, help: "split it".into() });
        }
        let mut directive: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = directive.char_indices().nth(SHOWN_MAX) {
            directive.truncate(end);
            directive.push('…');
        }
        self.items.push(Item { place, directive, outcomes: Vec::new() });
        Ok(self.items.len() - 1)
    }

    pub(crate) fn mapped(&mut self, id: Id, key: impl Into<String>) {
        self.note(id, Outcome::Mapped(key.into()));
    }

    pub(crate) fn not_needed(&mut self, id: Id, why: impl Into<String>) {
        self.note(id, Outcome::NotNeeded(why.into()));
    }

    pub(crate) fn not_mapped(&mut self, id: Id, instead: impl Into<String>) {
        self.note(id, Outcome::NotMapped(instead.into()));
    }

    /// Says what became of a statement, once: what is inherited by many is spoken of by each.
    pub(crate) fn note(&mut self, id: Id, outcome: Outcome) {
        let outcomes = &mut self.items[id].outcomes;
        if !outcomes.contains(&outcome) {
            outcomes.push(outcome);
        }
    }

    /// Says what became of a statement, in place of all that was said before.
    pub(crate) fn settle(&mut self, id: Id, outcome: Outcome) {
        self.items[id].outcomes = vec![outcome];
    }

    /// Takes back that a statement is said by a key.
    pub(crate) fn retract(&mut self, id: Id, key: &str) {
        self.items[id].outcomes.retain(|outcome| !matches!(outcome, Outcome::Mapped(to) if to == key));
    }

    /// How many there are: the next one's number.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_silent(&self, id: Id) -> bool {
        self.items[id].outcomes.is_empty()
    }

    pub(crate) fn place(&self, id: Id) -> &Place {
        &self.items[id].place
    }

    /// All of it. What nobody has spoken for is not mapped.
    pub(crate) fn close(mut self) -> Vec<Item> {
        for item in self.items.iter_mut().filter(|item| item.outcomes.is_empty()) {
            item.outcomes.push(Outcome::NotMapped(
                "unknown here: look it up, and say it by hand if it matters".into(),
            ));
        }
        self.items
    }
}
