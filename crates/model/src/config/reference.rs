//! The reference of all keys as Markdown, made from the tables that the reader uses.

use std::fmt::Write;

use super::keys::{CLUSTER, Kind, NODE, ROOT, Shown, Table};
use crate::units::write_duration;

/// One heading and one table of Markdown per table of the file, each table once, in the order of the file.
pub fn reference() -> String {
    let mut text = String::new();
    let mut done: Vec<*const Table> = Vec::new();
    for root in [&ROOT, &CLUSTER, &NODE] {
        write_table(&mut text, root, &mut done);
    }
    text
}

fn write_table(text: &mut String, table: &'static Table, done: &mut Vec<*const Table>) {
    if done.contains(&std::ptr::from_ref(table)) {
        return;
    }
    done.push(table);
    let _ = writeln!(text, "### {}\n\n| key | value | default | |\n|---|---|---|---|", table.title);
    for key in table.keys() {
        let default = match (key.required, key.default) {
            (true, _) => "**required**".to_owned(),
            (false, Shown::None) => String::new(),
            (false, Shown::Text(words)) if words.contains('"') || matches!(words, "true" | "false") => {
                format!("`{words}`")
            }
            (false, Shown::Text(words)) => words.to_owned(),
            (false, shown) => format!("`{shown}`"),
        };
        let _ = writeln!(text, "| `{}` | {} | {default} | {} |", key.name, shape(&key.kind), escape(key.doc));
    }
    text.push('\n');
    for key in table.keys() {
        for inner in tables_of(&key.kind) {
            write_table(text, inner, done);
        }
    }
}

fn tables_of(kind: &Kind) -> Vec<&'static Table> {
    match kind {
        Kind::Table(table) | Kind::Tables { of: table, .. } => vec![table],
        Kind::Either(kinds) => kinds.iter().flat_map(tables_of).collect(),
        Kind::List(of) | Kind::Map { of, .. } => tables_of(of),
        _ => Vec::new(),
    }
}

/// The kind in few words.
fn shape(kind: &Kind) -> String {
    let text = match kind {
        Kind::Bool => "true, false".to_owned(),
        Kind::Text { what, .. } => (*what).to_owned(),
        Kind::OneOf(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        Kind::Number { min, max } if *max == i64::from(u32::MAX) => format!("{min} or more"),
        Kind::Number { min, max } | Kind::Decimal { min, max } => format!("{min} to {max}"),
        Kind::Time { min, max } if min.is_zero() && max.as_secs() == crate::Ttl::MAX.secs() => {
            "duration".to_owned()
        }
        Kind::Time { min, max } => format!("duration, {} to {}", write_duration(*min), write_duration(*max)),
        Kind::Size { min, max } if max.bytes() >= 1 << 50 => format!("size, from {min}"),
        Kind::Size { min, max } => format!("size, {min} to {max}"),
        Kind::List(of) => format!("{}, or a list", shape(of)),
        Kind::Map { what, of } => format!("table: {what} = {}", shape(of)),
        Kind::Table(table) => format!("table *{}*", table.title),
        Kind::Tables { of: table, max: None } => format!("any number of *{}*", table.title),
        Kind::Tables { of: table, max: Some(max) } => format!("at most {max} of *{}*", table.title),
        Kind::Either(kinds) => kinds.iter().map(shape).collect::<Vec<_>>().join("; or "),
    };
    escape(&text)
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
pub(super) fn all_tables() -> Vec<&'static Table> {
    fn walk(table: &'static Table, found: &mut Vec<&'static Table>) {
        if !found.iter().any(|other| std::ptr::eq(*other, table)) {
            found.push(table);
            table.keys().flat_map(|key| tables_of(&key.kind)).for_each(|inner| walk(inner, found));
        }
    }
    let mut found = Vec::new();
    [&ROOT, &CLUSTER, &NODE].into_iter().for_each(|root| walk(root, &mut found));
    found
}
