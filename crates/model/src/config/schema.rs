//! The JSON Schema (draft 7, which editors' TOML extensions read), made from the tables that the reader uses.

use serde_json::{Map, Value, json};

use super::Document;
use super::keys::{Key, Kind, Shown, Table};
use crate::units::write_duration;

/// The schema of a kind of file, as indented JSON with a line end.
///
/// It knows every key, kind, choice and range that the reader knows. What needs more than one key, or a parser (URLs,
/// domains, templates), only `perigee check` finds.
pub fn json_schema(document: Document) -> String {
    let mut schema = table_schema(document.table());
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".into(), json!("http://json-schema.org/draft-07/schema#"));
        object.insert("title".into(), json!(format!("Perigee: {}", document.table().title)));
    }
    format!("{schema:#}\n")
}

fn table_schema(table: &Table) -> Value {
    let properties: Map<String, Value> =
        table.keys().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let required: Vec<&str> = table.keys().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if let (Some(object), false) = (schema.as_object_mut(), required.is_empty()) {
        object.insert("required".into(), json!(required));
    }
    schema
}

fn key_schema(key: &Key) -> Value {
    let mut schema = kind_schema(&key.kind);
    if let Some(object) = schema.as_object_mut() {
        let default = match key.default {
            Shown::None => String::new(),
            shown => format!(" Default: {shown}."),
        };
        object.insert("description".into(), json!(format!("{}{default}", key.doc)));
    }
    schema
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Text { example, .. } => json!({ "type": "string", "examples": [example] }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Decimal { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Time { .. } => json!({
            "type": "string",
            "pattern": "^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
            "minLength": 1,
            "examples": ["90s", "1h30m", "30d"],
        }),
        Kind::Size { .. } => json!({
            "type": "string",
            "pattern": "^(0|[0-9]+(B|kB|KiB|MB|MiB|GB|GiB|TB|TiB))$",
            "examples": ["512MiB"],
        }),
        Kind::List(of) => {
            let item = kind_schema(of);
            json!({ "anyOf": [item, { "type": "array", "items": item }] })
        }
        Kind::Map { of, .. } => json!({ "type": "object", "additionalProperties": kind_schema(of) }),
        Kind::Table(table) => table_schema(table),
        Kind::Tables { of, max: None } => json!({ "type": "array", "items": table_schema(of) }),
        Kind::Tables { of, max: Some(max) } => {
            json!({ "type": "array", "items": table_schema(of), "maxItems": max })
        }
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(kind_schema).collect::<Vec<_>>() }),
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shown::None => Ok(()),
            Shown::Text(text) => f.write_str(text),
            Shown::Time(time) => write!(f, "\"{}\"", write_duration(*time)),
            Shown::Size(size) => write!(f, "\"{size}\""),
            Shown::Number(number) => write!(f, "{number}"),
        }
    }
}
