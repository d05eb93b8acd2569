//! Configurations as people run them, in `tests/nginx`, `tests/cloudfront`, `tests/cloudflare` and `tests/vcl`. Each file has the text, a line
//! `#### expect`, and tests of the site that has to come out (`[[site.test]]`, as in configuration.md), which are run against it.
//! Lines there that begin with `# left: ` name, in order, what is not mapped: the beginnings of the directives.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;

use import::{Imported, Item, Source, import};
use model::Snapshot;

/// Imports all files of a directory, checks what holds for each, and returns how many there are.
fn check(dir: &str, source: Source, statements: impl Fn(&str) -> usize) -> usize {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(dir);
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let wrong: String = files.iter().filter_map(|file| check_file(file, source, &statements).err()).collect();
    assert!(wrong.is_empty(), "{wrong}");
    files.len()
}

fn check_file(file: &Path, source: Source, statements: &impl Fn(&str) -> usize) -> Result<(), String> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).unwrap();
    let (text, expected) =
        text.split_once("#### expect\n").ok_or(format!("{name} has no line #### expect\n"))?;
    let imported = import(source, text, &name).map_err(|broken| format!("{broken}\n"))?;
    hold_what_is_promised(&imported, &name);
    let (found, count) = (imported.items.len(), statements(text));
    if found != count {
        return Err(format!("{name}: {found} statements in the report, {count} in the text\n"));
    }
    let left: Vec<&str> = expected.lines().filter_map(|line| line.strip_prefix("# left: ")).collect();
    let open: Vec<&Item> = imported.items.iter().filter(|item| item.is_open()).collect();
    if left.len() != open.len()
        || !open.iter().zip(&left).all(|(item, left)| item.directive.starts_with(left))
    {
        let open: String =
            open.iter().map(|item| format!("    {}: {:?}\n", item.directive, item.outcomes)).collect();
        return Err(format!("{name}: not mapped is\n{open}"));
    }
    // The tests are those of the last site.
    let tested = format!("{}\n{expected}", imported.config);
    let parsed = Snapshot::parse(&tested, &name);
    let snapshot = parsed.snapshot.ok_or_else(|| format!("{tested}\n{:?}\n", parsed.diagnostics))?;
    let failed: String = snapshot.run_tests().iter().map(ToString::to_string).collect();
    match () {
        () if snapshot.test_count() == 0 => Err(format!("{name} expects nothing\n")),
        () if !failed.is_empty() => Err(format!("{name}: {failed}{}\n", imported.config)),
        () => Ok(()),
    }
}

fn hold_what_is_promised(imported: &Imported, name: &str) {
    let parsed = Snapshot::parse(&imported.config, name);
    assert!(parsed.snapshot.is_some(), "{}\n{:?}", imported.config, parsed.diagnostics);
    for item in &imported.items {
        assert!(
            !item.outcomes.is_empty() && item.outcomes.iter().all(|outcome| !outcome.text().is_empty()),
            "{item:?}"
        );
        assert!(
            !item.outcomes.iter().any(|outcome| outcome.text().starts_with("unknown here")),
            "{name}: nobody knows {item:?}"
        );
    }
}

/// Directives by the signs that end them, without reading any.
fn directives(text: &str) -> usize {
    let (mut count, mut quote, mut is_comment, mut last) = (0, None, false, ' ');
    for c in text.chars() {
        match (quote, c) {
            _ if is_comment => is_comment = c != '\n',
            (Some(open), c) if c == open && last != '\\' => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => is_comment = true,
            (None, ';') => count += 1,
            (None, '{') if last != '$' => count += 1,
            _ => {}
        }
        last = c;
    }
    count
}

/// Statements of VCL by the signs that end them, comments and long texts taken out before.
fn statements(text: &str) -> usize {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = [("/*", "*/"), ("//", "\n"), ("#", "\n"), ("{\"", "\"}"), ("\"", "\"")]
            .into_iter()
            .find_map(|(open, close)| {
                let inside = rest.strip_prefix(open)?;
                Some(&inside[inside.find(close)? + close.len()..])
            });
        match skipped {
            Some(behind) => rest = behind,
            None => {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    // The ";" behind the block of a field ends nothing more.
    plain.matches([';', '{']).count() - plain.replace([' ', '\n'], "").matches("};").count()
}

/// Texts, numbers and the like of a JSON text, and what is empty.
fn leaves(text: &str) -> usize {
    fn count(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(items) if !items.is_empty() => items.iter().map(count).sum(),
            serde_json::Value::Object(members) if !members.is_empty() => members.values().map(count).sum(),
            _ => 1,
        }
    }
    count(&serde_json::from_str(text).unwrap())
}

#[test]
fn configurations_of_nginx_say_here_what_they_said_there() {
    assert!(check("nginx", Source::Nginx, directives) >= 30);
}

#[test]
fn distributions_of_cloudfront_say_here_what_they_said_there() {
    assert!(check("cloudfront", Source::CloudFront, leaves) >= 10);
}

#[test]
fn rules_of_cloudflare_say_here_what_they_said_there() {
    assert!(check("cloudflare", Source::Cloudflare, leaves) >= 4);
}

#[test]
fn programs_of_varnish_say_here_what_they_said_there() {
    assert!(check("vcl", Source::Vcl, statements) >= 4);
}
