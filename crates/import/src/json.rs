//! JSON with the place of each value, so that a report can say where something stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ledger::{Id, Ledger, Outcome, Place};
use crate::{Broken, DEPTH_MAX};

/// A value. Those that hold nothing (texts, numbers, empty lists) are statements.
#[derive(Debug)]
pub(crate) struct Node {
    /// Of a statement: its number; of what holds some, the first one's.
    pub(crate) id: Id,
    value: Value,
}

#[derive(Debug)]
enum Value {
    /// Null, or a list or an object without anything in it.
    Empty,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// The member of this name; the first, if there are several.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.members().iter().find(|(known, _)| known == name).map(|(_, node)| node)
    }

    /// A member's member, and so on.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    pub(crate) fn members(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Object(members) => members,
            _ => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&self) -> Option<u64> {
        match &self.value {
            Value::Number(number) => number.parse().ok(),
            _ => None,
        }
    }

    /// Whether it is -1, which stands for what is no number.
    pub(crate) fn is_minus_one(&self) -> bool {
        matches!(&self.value, Value::Number(number) if number == "-1")
    }

    /// Every statement in it.
    pub(crate) fn leaves(&self) -> Vec<&Node> {
        match &self.value {
            Value::List(items) => items.iter().flat_map(Node::leaves).collect(),
            Value::Object(members) => members.iter().flat_map(|(_, node)| node.leaves()).collect(),
            _ => vec![self],
        }
    }

    /// Says the same of every statement in it that nobody has spoken for.
    pub(crate) fn speak_for(&self, outcome: &Outcome, ledger: &mut Ledger) {
        for leaf in self.leaves() {
            if ledger.is_silent(leaf.id) {
                ledger.note(leaf.id, outcome.clone());
            }
        }
    }

    /// Whether it says nothing: null, "", false, 0 or empty.
    pub(crate) fn is_nothing(&self) -> bool {
        match &self.value {
            Value::Empty | Value::Bool(false) => true,
            Value::Text(text) => text.is_empty(),
            Value::Number(number) => number == "0",
            _ => false,
        }
    }
}

/// Reads a text. Each statement is noted under its path, as in `Origins.Items[0].Id`.
pub(crate) fn read(text: &str, name: &str, ledger: &mut Ledger) -> Result<Node, Broken> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| Broken {
        place: Place { file: name.into(), line: error.line() as u32, column: error.column().max(1) as u32 },
        message: format!("this is not JSON: {}", what(&error)),
        help: "give it the JSON that the API or the command line tool prints".into(),
    })?;
    let mut reader = Reader { text, at: 0, place: Place { file: name.into(), line: 1, column: 1 }, ledger };
    reader.node(raw, String::new(), 0)
}

/// The error without its place, which is told apart.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

struct Reader<'a> {
    text: &'a str,
    /// The byte that `place` is of; it only goes forward.
    at: usize,
    place: Place,
    ledger: &'a mut Ledger,
}

impl<'a> Reader<'a> {
    fn node(&mut self, raw: &'a RawValue, path: String, depth: usize) -> Result<Node, Broken> {
        let text = raw.get();
        self.go_to(text.as_ptr() as usize - self.text.as_ptr() as usize);
        if depth > DEPTH_MAX {
            let message = format!("values lie more than {DEPTH_MAX} deep");
            return Err(Broken {
                place: self.place.clone(),
                message,
                help: "no such export is that deep".into(),
            });
        }
        let next = self.ledger.len();
        let value = match text.as_bytes().first() {
            Some(b'{') => {
                let members: Members<'a> = self.again(text)?;
                let nodes = members.0.into_iter().map(|(name, raw)| {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    Ok((name, self.node(raw, path, depth + 1)?))
                });
                Value::Object(nodes.collect::<Result<_, Broken>>()?)
            }
            Some(b'[') => {
                let items: Vec<&'a RawValue> = self.again(text)?;
                let nodes = items
                    .into_iter()
                    .enumerate()
                    .map(|(index, raw)| self.node(raw, format!("{path}[{index}]"), depth + 1));
                Value::List(nodes.collect::<Result<_, Broken>>()?)
            }
            Some(b'"') => Value::Text(self.again(text)?),
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            Some(b'n') | None => Value::Empty,
            Some(_) => Value::Number(text.to_owned()),
        };
        let value = match value {
            Value::List(items) if items.is_empty() => Value::Empty,
            Value::Object(members) if members.is_empty() => Value::Empty,
            value => value,
        };
        if self.ledger.len() == next {
            self.ledger.add(self.place.clone(), &format!("{path}: {text}"))?;
        }
        Ok(Node { id: next, value })
    }

    fn again<T: Deserialize<'a>>(&self, text: &'a str) -> Result<T, Broken> {
        serde_json::from_str(text).map_err(|error| Broken {
            place: self.place.clone(),
            message: format!("this is not JSON: {}", what(&error)),
            help: "give it the JSON that the API or the command line tool prints".into(),
        })
    }

    fn go_to(&mut self, at: usize) {
        for char in self.text[self.at..at].chars() {
            match char {
                '\n' => (self.place.line, self.place.column) = (self.place.line + 1, 1),
                _ => self.place.column += 1,
            }
        }
        self.at = at;
    }
}

/// The members of an object in their order, those of one name all.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}
