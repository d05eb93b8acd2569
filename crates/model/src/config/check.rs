//! From parsed TOML to checked values: each table is held against its [`Table`], and everything that doesn't fit is a
//! finding with its place. What comes out has the kinds that the tables say; a bad value is left out, so that it gives
//! one finding and no second one further on. Called by `config`; knows no key by name.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{HABITS, Key, Kind, Table, elsewhere};
use crate::diagnostic::{Diagnostic, Lines, Severity, did_you_mean};
use crate::units::{BadAmount, ByteSize, parse_duration, write_duration};

/// Bytes of the text.
pub(crate) type Span = Range<usize>;

/// Collects findings about one text.
pub(crate) struct Findings<'t> {
    pub(crate) source: &'t str,
    pub(crate) text: &'t str,
    pub(crate) lines: Lines,
    /// The text is not TOML: what a table lacks may stand in what could not be read.
    pub(crate) is_broken: bool,
    pub(crate) list: Vec<Diagnostic>,
}

/// A value of the kind that the tables say, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// See [`Kind`].
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Bool(bool),
    Text(String),
    Number(i64),
    Decimal(f64),
    Time(Duration),
    Size(ByteSize),
    List(Vec<Item>),
    Map(Vec<(Name, Item)>),
    Table(Section),
}

/// A name that the file chose, such as a header's.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) span: Span,
    pub(crate) text: String,
}

/// A checked table.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) span: Span,
    table: &'static Table,
    entries: Vec<Entry>,
    /// Keys that the builder has asked for, so that debug builds notice one that it forgot.
    asked: RefCell<Vec<&'static str>>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: &'static Key,
    key_span: Span,
    /// `None` when the value was bad.
    item: Option<Item>,
}

impl Findings<'_> {
    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.list.push(self.at(Severity::Error, span, message, help));
    }

    pub(crate) fn warn(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.list.push(self.at(Severity::Warning, span, message, help));
    }

    pub(crate) fn at(
        &self,
        severity: Severity,
        span: &Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::at(severity, self.source, self.text, &self.lines, span.clone(), message, help)
    }

    /// The line of `span`'s start, from 1.
    pub(crate) fn line(&self, span: &Span) -> u32 {
        self.lines.line_of(span.start)
    }

    /// Checks a table of the file; `span` is its header, or the whole inline table.
    pub(crate) fn section(&mut self, table: &'static Table, span: Span, found: &DeTable<'_>) -> Section {
        let mut entries = Vec::new();
        let mut misspelt = Vec::new();
        for (name, value) in found.iter() {
            let key_span = name.span();
            match table.key(name.get_ref()) {
                Some(key) => {
                    let item = self.item(&key.kind, key.name, value);
                    entries.push(Entry { key, key_span, item });
                }
                None => misspelt.extend(self.unknown_key(table, name.get_ref(), &key_span)),
            }
        }
        entries.sort_by_key(|entry| entry.key_span.start);
        let is_broken = self.is_broken;
        for key in table.keys().filter(|key| key.required && !is_broken) {
            if !entries.iter().any(|entry| entry.key.name == key.name) && !misspelt.contains(&key.name) {
                let message = format!("{} has no {}", table.title, key.name);
                self.error(&span, message, format!("add {}", example_line(key)));
            }
        }
        Section { span, table, entries, asked: RefCell::default() }
    }

    /// Reports a key that the table doesn't know; returns the one that was probably meant.
    fn unknown_key(&mut self, table: &Table, name: &str, span: &Span) -> Option<&'static str> {
        if let Some((message, help)) = elsewhere(table, name) {
            self.error(span, message, help);
            return None;
        }
        let message = format!("unknown key {name:?} in {}", table.title);
        let habit = HABITS.iter().find(|(written, _)| *written == name).map(|(_, help)| (*help).to_owned());
        let close = did_you_mean(name, table.keys().map(|key| key.name));
        let help = match (close, habit) {
            (Some(close), _) => format!("did you mean {close:?}?"),
            (None, Some(habit)) => habit,
            (None, None) => {
                let names: Vec<&str> = table.keys().map(|key| key.name).collect();
                format!("allowed here: {}", names.join(", "))
            }
        };
        self.error(span, message, help);
        close
    }

    fn item(&mut self, kind: &'static Kind, name: &str, found: &Spanned<DeValue<'_>>) -> Option<Item> {
        let span = found.span();
        let value = match (kind, found.get_ref()) {
            (Kind::Bool, DeValue::Boolean(flag)) => Value::Bool(*flag),
            (Kind::Text { .. }, DeValue::String(text)) => Value::Text(text.to_string()),
            (Kind::OneOf(words), DeValue::String(text)) => {
                if !words.contains(&&**text) {
                    let message = format!("{name} is {text:?}; it may be {}", any_of(words));
                    let help = did_you_mean(text, words.iter().copied())
                        .map_or_else(String::new, |close| format!("did you mean {close:?}?"));
                    self.error(&span, message, help);
                    return None;
                }
                Value::Text(text.to_string())
            }
            (Kind::Number { min, max }, DeValue::Integer(number)) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                let Some(parsed) = parsed.filter(|parsed| (min..=max).contains(&parsed)) else {
                    self.error(&span, format!("{name} is {number}; it may be {min} to {max}"), "");
                    return None;
                };
                Value::Number(parsed)
            }
            (Kind::Decimal { min, max }, found @ (DeValue::Integer(_) | DeValue::Float(_))) => {
                let text = match found {
                    DeValue::Integer(number) => number.as_str(),
                    DeValue::Float(number) => number.as_str(),
                    _ => "",
                };
                let parsed = text.parse::<f64>().ok().filter(|number| number.is_finite());
                let Some(parsed) = parsed.filter(|number| (*min as f64..=*max as f64).contains(number))
                else {
                    self.error(&span, format!("{name} is {text}; it may be {min} to {max}"), "");
                    return None;
                };
                Value::Decimal(parsed)
            }
            (Kind::Time { min, max }, DeValue::String(text)) => {
                let whole_seconds = min.is_zero() && max.as_secs() == crate::Ttl::MAX.secs();
                let parsed = if whole_seconds {
                    crate::Ttl::parse(text).map(|ttl| Duration::from_secs(ttl.secs()))
                } else {
                    parse_duration(text)
                };
                let parsed = self.amount(parsed, name, text, &span)?;
                if parsed < *min || parsed > *max {
                    let range = format!("it may be {:?} to {:?}", write_duration(*min), write_duration(*max));
                    self.error(&span, format!("{name} is {text:?}; {range}"), "");
                    return None;
                }
                Value::Time(parsed)
            }
            (Kind::Size { min, max }, DeValue::String(text)) => {
                let parsed = self.amount(ByteSize::parse(text), name, text, &span)?;
                if parsed < *min || parsed > *max {
                    let range = format!("it may be \"{min}\" to \"{max}\"");
                    self.error(&span, format!("{name} is {text:?}; {range}"), "");
                    return None;
                }
                Value::Size(parsed)
            }
            (Kind::List(of), DeValue::Array(values)) => {
                Value::List(values.iter().filter_map(|value| self.item(of, name, value)).collect())
            }
            (Kind::List(of), _) if !matches!(found.get_ref(), DeValue::Array(_)) => {
                Value::List(vec![self.item(of, name, found)?])
            }
            (Kind::Map { of, .. }, DeValue::Table(table)) => {
                let mut map: Vec<(Name, Item)> = Vec::new();
                for (key, value) in table.iter() {
                    let key_name = Name { span: key.span(), text: key.get_ref().to_string() };
                    if let Some(item) = self.item(of, &format!("{name}.{}", key_name.text), value) {
                        map.push((key_name, item));
                    }
                }
                map.sort_by_key(|(name, _)| name.span.start);
                Value::Map(map)
            }
            (Kind::Table(of), DeValue::Table(table)) => Value::Table(self.section(of, span.clone(), table)),
            (Kind::Tables { of, max }, DeValue::Array(values))
                if values.iter().all(|value| value.get_ref().is_table()) =>
            {
                if let Some((max, first_over)) = max.and_then(|max| Some((max, values.get(max)?))) {
                    let message = format!("{name} has {} tables; wanted is {}", values.len(), describe(kind));
                    let help = format!("leave out {} of them", values.len() - max);
                    self.error(&first_over.span(), message, help);
                }
                let mut sections = Vec::new();
                for value in values.iter() {
                    if let DeValue::Table(table) = value.get_ref() {
                        let section = self.section(of, value.span(), table);
                        sections.push(Item { span: value.span(), value: Value::Table(section) });
                    }
                }
                Value::List(sections)
            }
            (Kind::Either(kinds), value) => {
                let Some(kind) = kinds.iter().find(|kind| fits(kind, value)) else {
                    self.wrong_kind(kind, name, found);
                    return None;
                };
                return self.item(kind, name, found);
            }
            _ => {
                self.wrong_kind(kind, name, found);
                return None;
            }
        };
        Some(Item { span, value })
    }

    fn amount<T>(&mut self, parsed: Result<T, BadAmount>, name: &str, text: &str, span: &Span) -> Option<T> {
        parsed
            .map_err(|bad| {
                let message = format!("{name}: {text:?} {}", bad.reason);
                self.error(span, message, format!("write e.g. {:?}", bad.suggestion));
            })
            .ok()
    }

    fn wrong_kind(&mut self, kind: &Kind, name: &str, found: &Spanned<DeValue<'_>>) {
        let is = match found.get_ref() {
            DeValue::String(text) => format!("the text {text:?}"),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(date) => format!("the date {date}"),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        let help = match (kind, found.get_ref()) {
            (Kind::Time { .. }, DeValue::Integer(number)) => {
                format!("write \"{number}s\", \"{number}m\", \"{number}h\" or \"{number}d\"")
            }
            (Kind::Size { .. }, DeValue::Integer(number)) => {
                format!("write \"{number}B\" or \"{number}MiB\"")
            }
            (Kind::Bool, DeValue::String(text)) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => format!("write {name} = true, without quotes"),
                "false" | "no" | "off" => format!("write {name} = false, without quotes"),
                _ => String::new(),
            },
            (Kind::Number { .. }, DeValue::String(text)) if text.parse::<i64>().is_ok() => {
                format!("write {name} = {text}, without quotes")
            }
            (Kind::Tables { of: table, .. }, _) => format!("begin each with a line {}", table.title),
            (Kind::Either(_) | Kind::OneOf(_), _) => String::new(),
            _ => format!("write e.g. {name} = {}", example(kind)),
        };
        self.error(&found.span(), format!("{name} is {is}; wanted is {}", describe(kind)), help);
    }
}

impl Section {
    /// The value of a key; `None` when it is absent or was bad.
    pub(crate) fn item(&self, name: &'static str) -> Option<&Item> {
        debug_assert!(self.table.key(name).is_some(), "{} has no key {name}", self.table.title);
        self.asked.borrow_mut().push(name);
        self.entries.iter().find(|entry| entry.key.name == name)?.item.as_ref()
    }

    /// Whether the key stands in the file, be its value good or bad.
    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.entries.iter().any(|entry| entry.key.name == name)
    }

    /// The keys that stand in the file, and where.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&'static str, &Span)> {
        self.entries.iter().map(|entry| (entry.key.name, &entry.key_span))
    }

    pub(crate) fn bool(&self, name: &'static str) -> Option<bool> {
        match self.item(name)?.value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// The text of a key and its place.
    pub(crate) fn text(&self, name: &'static str) -> Option<(&str, &Span)> {
        self.item(name)?.text()
    }

    pub(crate) fn number(&self, name: &'static str) -> Option<u32> {
        match self.item(name)?.value {
            Value::Number(number) => u32::try_from(number).ok(),
            _ => None,
        }
    }

    pub(crate) fn time(&self, name: &'static str) -> Option<Duration> {
        self.item(name)?.time()
    }

    pub(crate) fn size(&self, name: &'static str) -> Option<ByteSize> {
        match self.item(name)?.value {
            Value::Size(size) => Some(size),
            _ => None,
        }
    }

    /// The items of a list; none when the key is absent.
    pub(crate) fn list(&self, name: &'static str) -> &[Item] {
        self.item(name).map_or(&[], Item::list)
    }

    /// The entries of a map; none when the key is absent.
    pub(crate) fn map(&self, name: &'static str) -> &[(Name, Item)] {
        match self.item(name).map(|item| &item.value) {
            Some(Value::Map(map)) => map,
            _ => &[],
        }
    }

    pub(crate) fn table(&self, name: &'static str) -> Option<&Section> {
        self.item(name)?.table()
    }

    /// To be called by each builder at its end: a key that the tables know and no builder reads would be accepted and
    /// do nothing.
    pub(crate) fn finish(&self) {
        let asked = self.asked.borrow();
        for key in self.table.keys() {
            debug_assert!(asked.contains(&key.name), "nobody reads {} of {}", key.name, self.table.title);
        }
    }
}

impl Item {
    pub(crate) fn text(&self) -> Option<(&str, &Span)> {
        match &self.value {
            Value::Text(text) => Some((text, &self.span)),
            _ => None,
        }
    }

    pub(crate) fn decimal(&self) -> Option<f64> {
        match self.value {
            Value::Decimal(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn time(&self) -> Option<Duration> {
        match self.value {
            Value::Time(time) => Some(time),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> &[Item] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn table(&self) -> Option<&Section> {
        match &self.value {
            Value::Table(section) => Some(section),
            _ => None,
        }
    }
}

/// Whether `value`'s TOML type is the kind's.
fn fits(kind: &Kind, value: &DeValue<'_>) -> bool {
    match kind {
        Kind::Bool => value.is_bool(),
        Kind::Text { .. } | Kind::OneOf(_) | Kind::Time { .. } | Kind::Size { .. } => value.is_str(),
        Kind::Number { .. } => value.is_integer(),
        Kind::Decimal { .. } => value.is_integer() || value.is_float(),
        Kind::List(of) => value.is_array() || fits(of, value),
        Kind::Map { .. } | Kind::Table(_) => value.is_table(),
        Kind::Tables { .. } => value.is_array(),
        Kind::Either(kinds) => kinds.iter().any(|kind| fits(kind, value)),
    }
}

/// The kind in words, as in "wanted is …".
pub(crate) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Text { what, .. } => (*what).to_owned(),
        Kind::OneOf(words) => any_of(words),
        Kind::Number { min, max } | Kind::Decimal { min, max } => format!("a number from {min} to {max}"),
        Kind::Time { .. } => "a duration such as \"30d\" or \"90s\"".to_owned(),
        Kind::Size { .. } => "a size such as \"512MiB\"".to_owned(),
        Kind::List(of) => format!("{} or a list of such", describe(of)),
        Kind::Map { what, of } => format!("a table from {what} to {}", describe(of)),
        Kind::Table(table) => {
            let names: Vec<&str> = table.keys().map(|key| key.name).collect();
            format!("a table with {}", names.join(", "))
        }
        Kind::Tables { of: table, max: None } => format!("any number of {}", table.title),
        Kind::Tables { of: table, max: Some(max) } => format!("at most {max} of {}", table.title),
        Kind::Either(kinds) => kinds.iter().map(describe).collect::<Vec<_>>().join(", or "),
    }
}

/// A value of the kind, as TOML.
pub(crate) fn example(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true".to_owned(),
        Kind::Text { example, .. } => format!("{example:?}"),
        Kind::OneOf(words) => format!("{:?}", words.first().copied().unwrap_or_default()),
        Kind::Number { min, .. } => min.to_string(),
        Kind::Decimal { .. } => "8.68".to_owned(),
        Kind::Time { .. } => "\"90s\"".to_owned(),
        Kind::Size { .. } => "\"512MiB\"".to_owned(),
        Kind::List(of) => format!("[{}]", example(of)),
        Kind::Map { what, of } => {
            let name = if what.contains("header") {
                "X-Name"
            } else if what.contains("status") {
                "404"
            } else {
                "name"
            };
            format!("{{ \"{name}\" = {} }}", example(of))
        }
        Kind::Table(table) | Kind::Tables { of: table, .. } => table
            .keys()
            .find(|key| key.required)
            .or_else(|| table.keys().next())
            .map_or_else(String::new, |key| format!("{{ {} = {} }}", key.name, example(&key.kind))),
        Kind::Either(kinds) => kinds.first().map_or_else(String::new, example),
    }
}

fn example_line(key: &Key) -> String {
    match &key.kind {
        Kind::Tables { of: table, .. } => format!("a table that begins with {}", table.title),
        Kind::List(of) => format!("{} = {}", key.name, example(of)),
        kind => format!("{} = {}", key.name, example(kind)),
    }
}

fn any_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
