//! `perigee check`: reads a configuration as the edge would, with the certificates that it names, prints every finding, and runs the
//! tests in the file. Opens no socket and changes nothing. Called by `main`.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use edge::tls::{BadFile, read_certificates, read_client_authorities};
use model::diagnostic::Lines;
use model::{Diagnostic, Document, NodeSettings, Severity, Snapshot};
use serde_json::json;
use toml::de::{DeTable, DeValue};

use crate::configuration::read_text;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee check perigee.toml                      every finding with its place; exit code 1 if one is an error
  perigee check --elsewhere perigee.toml          where the certificates are not on this machine
  perigee check --elsewhere --json perigee.toml   as one JSON object, for editors and pipelines
  perigee check --cluster sites.toml              what the nodes of a cluster have in common
  perigee check --node node.toml                  what one node of a cluster is told
  perigee check --schema > perigee.schema.json
  perigee check --reference                       every key with its default, as Markdown
  perigee check -                                 reads standard input";

/// Check a configuration file and run the tests in it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The configuration; "-" is standard input.
    #[arg(required_unless_present_any = ["schema", "reference"])]
    file: Option<PathBuf>,
    /// The file is what the nodes of a cluster have in common.
    #[arg(long, conflicts_with_all = ["node", "reference"])]
    cluster: bool,
    /// The file is what one node of a cluster is told.
    #[arg(long, conflicts_with = "reference")]
    node: bool,
    /// The file is for another machine: the certificates that it names are not looked at.
    #[arg(long, conflicts_with_all = ["cluster", "schema", "reference"])]
    elsewhere: bool,
    /// Print findings as JSON.
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of the configuration, for editors, and stop.
    #[arg(long, conflicts_with_all = ["file", "json", "reference"])]
    schema: bool,
    /// Print the reference of all keys as Markdown, and stop.
    #[arg(long, conflicts_with_all = ["file", "json"])]
    reference: bool,
}

/// What a check found.
struct Outcome {
    diagnostics: Vec<Diagnostic>,
    site_count: usize,
    rule_count: usize,
    test_count: usize,
}

/// Runs the command. Exit code 0: usable, and all tests hold (there may be warnings). 1: an error. 2: no such file.
pub(crate) fn run(args: CheckArgs) -> ExitCode {
    let document = match (args.cluster, args.node) {
        (true, _) => Document::Cluster,
        (_, true) => Document::Node,
        (false, false) => Document::Whole,
    };
    if args.schema {
        return print(&model::json_schema(document), ExitCode::SUCCESS);
    }
    if args.reference {
        return print(&model::reference(), ExitCode::SUCCESS);
    }
    let Some(file) = &args.file else { return ExitCode::from(2) };
    let (text, source) = match read(file) {
        Ok(read) => read,
        Err(message) => {
            eprintln!(
                "{}",
                Failure::new(message, "name a file that this user can read, or - for standard input")
            );
            return ExitCode::from(2);
        }
    };
    let outcome = check(&text, &source, document, args.elsewhere);
    let failed = outcome.diagnostics.iter().any(Diagnostic::is_error);
    let code = if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    print(&if args.json { as_json(&outcome, &source) } else { as_text(&outcome, &source) }, code)
}

fn read(file: &Path) -> Result<(String, String), String> {
    if file == Path::new("-") {
        let text = std::io::read_to_string(std::io::stdin())
            .map_err(|error| format!("standard input cannot be read: {error}"))?;
        return Ok((text, "standard input".to_owned()));
    }
    let source = file.display().to_string();
    Ok((read_text(file)?, source))
}

/// Parses, and when that went well, runs the tests and reads the certificates. Those of a cluster's sites lie on its nodes.
fn check(text: &str, source: &str, document: Document, is_elsewhere: bool) -> Outcome {
    let (snapshot, diagnostics) = match document {
        Document::Whole => {
            let parsed = Snapshot::parse(text, source);
            (parsed.snapshot, parsed.diagnostics)
        }
        Document::Cluster => {
            let parsed = Snapshot::parse_cluster(text, source);
            (parsed.snapshot, parsed.diagnostics)
        }
        Document::Node => {
            let parsed = NodeSettings::parse(text, source);
            (parsed.settings.map(|settings| Snapshot::without_sites(settings.edge)), parsed.diagnostics)
        }
    };
    let mut outcome = Outcome { diagnostics, site_count: 0, rule_count: 0, test_count: 0 };
    if let Some(snapshot) = snapshot {
        outcome.diagnostics.extend(snapshot.run_tests());
        outcome.diagnostics.extend(check_zone(&snapshot, text, source));
        if document != Document::Cluster && !is_elsewhere {
            outcome.diagnostics.extend(check_certificates(&snapshot, text, source));
        }
        outcome.diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        outcome.site_count = snapshot.sites.len();
        outcome.rule_count = snapshot.sites.iter().map(|site| site.rules.len()).sum();
        outcome.test_count = snapshot.test_count();
    }
    outcome
}

/// What the zone of `[dns]` cannot hold; each at the section's head, as records have lines of their own.
fn check_zone(snapshot: &Snapshot, text: &str, source: &str) -> Vec<Diagnostic> {
    let Some(dns) = &snapshot.routing.dns else { return Vec::new() };
    let errors = router::zone::Zone::build(snapshot, 1, None).err().unwrap_or_default();
    let before = text.split_inclusive('\n').take(dns.line.saturating_sub(1) as usize);
    let start: usize = before.map(str::len).sum();
    let at = |error| {
        let span = start..text[start..].find('\n').map_or(text.len(), |end| start + end);
        Diagnostic::at(Severity::Error, source, text, &Lines::of(text), span, error, "")
    };
    errors.into_iter().map(at).collect()
}

/// What is wrong with the files of certificates, for which an edge would not start. Several entries may name one file.
fn check_certificates(snapshot: &Snapshot, text: &str, source: &str) -> Vec<Diagnostic> {
    let certificates = read_certificates(&snapshot.edge.certificates).err().unwrap_or_default();
    let authorities = read_client_authorities(snapshot).err().unwrap_or_default();
    let wrong: BTreeSet<BadFile> = certificates.into_iter().chain(authorities).collect();
    wrong.iter().map(|bad| describe_file(bad, text, source)).collect()
}

/// A file that cannot be used, where the text first names it.
fn describe_file(bad: &BadFile, text: &str, source: &str) -> Diagnostic {
    let (severity, help) = match bad.is_forbidden {
        true => (
            Severity::Warning,
            "the user of this check may not read it; run it as the edge's: sudo -u perigee perigee check FILE",
        ),
        false => (
            Severity::Error,
            "an edge would not start here; where the file is for another machine, add --elsewhere",
        ),
    };
    // The text has been parsed before, and has each path as a value.
    let root = DeTable::parse(text).ok();
    let span = root.and_then(|root| place_of(root.get_ref(), &bad.path)).unwrap_or_default();
    Diagnostic::at(severity, source, text, &Lines::of(text), span, bad.to_string(), help)
}

/// Where a table, or one within it, has this path as a value.
fn place_of(table: &DeTable<'_>, path: &Path) -> Option<Range<usize>> {
    table.values().find_map(|value| match value.get_ref() {
        DeValue::String(text) => (Path::new(&**text) == path).then(|| value.span()),
        DeValue::Table(table) => place_of(table, path),
        DeValue::Array(items) => {
            items.iter().filter_map(|item| item.get_ref().as_table()).find_map(|table| place_of(table, path))
        }
        _ => None,
    })
}

fn as_text(outcome: &Outcome, source: &str) -> String {
    let mut text = String::new();
    for diagnostic in &outcome.diagnostics {
        text.push_str(&format!("{diagnostic}\n"));
    }
    let errors = outcome.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = outcome.diagnostics.len() - errors;
    let mut findings = Vec::new();
    for (number, word) in [(errors, "error"), (warnings, "warning")] {
        if number > 0 {
            findings.push(counted(number, word));
        }
    }
    let findings = if findings.is_empty() { String::new() } else { format!(" ({})", findings.join(" and ")) };
    let verdict = if errors > 0 { "cannot be used" } else { "is good" };
    let inside = if outcome.site_count > 0 {
        format!(
            ": {}, {}, {}",
            counted(outcome.site_count, "site"),
            counted(outcome.rule_count, "rule"),
            counted(outcome.test_count, "test")
        )
    } else {
        String::new()
    };
    text.push_str(&format!("{source} {verdict}{findings}{inside}\n"));
    text
}

fn as_json(outcome: &Outcome, source: &str) -> String {
    let diagnostics: Vec<serde_json::Value> = outcome
        .diagnostics
        .iter()
        .map(|diagnostic| {
            json!({
                "severity": diagnostic.severity.as_str(),
                "line": diagnostic.line,
                "column": diagnostic.column,
                "start": diagnostic.span.start,
                "end": diagnostic.span.end,
                "found": diagnostic.found,
                "message": diagnostic.message,
                "help": diagnostic.help,
            })
        })
        .collect();
    let object = json!({
        "source": source,
        "usable": !outcome.diagnostics.iter().any(Diagnostic::is_error),
        "sites": outcome.site_count,
        "rules": outcome.rule_count,
        "tests": outcome.test_count,
        "diagnostics": diagnostics,
    });
    format!("{object:#}\n")
}

fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Prints and keeps the exit code, unless the reader of our output has gone away.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::from(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "[[site]]\nname = \"shop\"\ndomains = \"*\"\norigin = \"http://127.0.0.1:8000\"\n";

    #[test]
    fn a_good_file_is_called_good_and_counted() {
        let outcome = check(SITE, "perigee.toml", Document::Whole, false);
        assert_eq!(as_text(&outcome, "perigee.toml"), "perigee.toml is good: 1 site, 0 rules, 0 tests\n");
    }

    #[test]
    fn a_file_is_checked_as_what_it_is_said_to_be() {
        let node = "[cluster]\ncontrol = \"https://control.example\"\n[edge]\nnode = \"fra-1\"\n";
        let verdict = |text, document| as_text(&check(text, "f.toml", document, false), "f.toml");
        assert_eq!(verdict(SITE, Document::Cluster), "f.toml is good: 1 site, 0 rules, 0 tests\n");
        assert_eq!(verdict(node, Document::Node), "f.toml is good\n");
        assert!(verdict(SITE, Document::Node).ends_with("f.toml cannot be used (3 errors)\n"));
        assert!(verdict(node, Document::Cluster).ends_with("f.toml cannot be used (3 errors)\n"));
    }

    #[test]
    fn a_failing_test_makes_the_file_unusable_and_points_at_the_expectation() {
        let text = format!("{SITE}[[site.test]]\nget = \"/a\"\nexpect = {{ ttl = \"30d\" }}\n");
        let expected = "\
error: test failed: the answer should be stored for 30d, but is not: neither origin nor rule gives it a lifetime, nor is there a validator
 --> perigee.toml:7:18
  |
7 | expect = { ttl = \"30d\" }
  |                  ^^^^^
  = any.example/a is decided by the site's own keys

perigee.toml cannot be used (1 error): 1 site, 0 rules, 1 test
";
        assert_eq!(as_text(&check(&text, "perigee.toml", Document::Whole, false), "perigee.toml"), expected);
    }

    #[test]
    fn what_the_zone_cannot_hold_makes_the_file_unusable() {
        let text = format!(
            "{SITE}[[pop]]\nname = \"a\"\nlocation = \"FRA\"\nedges = \"192.0.2.1\"\n\
             [dns]\nzone = \"cdn.example\"\nnameservers = {{ \"ns.example\" = [] }}\nrecords = \"shop A 192.0.2.9\"\n"
        );
        let outcome = check(&text, "c.toml", Document::Cluster, false);
        let found: Vec<String> =
            outcome.diagnostics.iter().map(|found| format!("{}: {}", found.line, found.message)).collect();
        let wanted = "9: records: shop.cdn.example is a site's, and its A is chosen per client";
        assert_eq!(found, [wanted]);
    }

    /// What is found of `text`, each as `line:column found: message`.
    fn found(text: &str, document: Document) -> Vec<String> {
        let found = check(text, "f.toml", document, false).diagnostics;
        found
            .iter()
            .map(|one| format!("{}:{} {}: {}", one.line, one.column, one.found, one.message))
            .collect()
    }

    #[test]
    fn certificates_that_are_not_there_make_the_file_unusable_on_its_own_machine() {
        let own = "[cluster]\ncontrol = \"https://control.example\"\n[edge]\nnode = \"fra-1\"\n";
        let certificate = "# key = \"/none/shop.pem\"\n[[certificate]]\nkey = \"/none/shop.pem.key\"\n\
                           chain = '/none/shop.pem'\nocsp = \"/none/\\u0061.der\"\n";
        for (text, document, line) in [
            (format!("{certificate}{certificate}{SITE}"), Document::Whole, 3),
            (format!("{own}{certificate}"), Document::Node, 7),
        ] {
            let missing = "No such file or directory (os error 2)";
            let (next, last) = (line + 1, line + 2);
            assert_eq!(
                found(&text, document),
                [
                    format!("{line}:7 \"/none/shop.pem.key\": /none/shop.pem.key: {missing}"),
                    format!("{next}:9 '/none/shop.pem': /none/shop.pem: {missing}"),
                    format!("{last}:8 \"/none/\\u0061.der\": /none/a.der: {missing}"),
                ]
            );
            let outcome = check(&text, "f.toml", document, false);
            let is_so = |found: &Diagnostic| found.is_error() && found.help.contains("--elsewhere");
            assert!(outcome.diagnostics.iter().all(is_so), "{}", as_text(&outcome, "f.toml"));
            assert!(check(&text, "f.toml", document, true).diagnostics.is_empty());
        }
        let asks = format!(
            "{SITE}https = \"redirect\"\nclient_ca = \"/none/ca.pem\"\nclient_certificate = \"required\"\n"
        );
        assert_eq!(check(&asks, "f.toml", Document::Cluster, false).diagnostics, [], "it lies on the nodes");
    }

    #[test]
    fn a_key_that_cannot_be_read_hides_nothing_of_its_chain() {
        let chain = std::env::temp_dir().join(format!("perigee-check-{}.pem", std::process::id()));
        std::fs::write(&chain, "no certificate").unwrap();
        let named = chain.display();
        let text = format!("[[certificate]]\nkey = \"/none/key.pem\"\nchain = \"{named}\"\n{SITE}");
        assert_eq!(
            found(&text, Document::Whole),
            [
                "2:7 \"/none/key.pem\": /none/key.pem: No such file or directory (os error 2)".to_owned(),
                format!("3:9 \"{named}\": {named}: there is no certificate in it"),
            ]
        );
        std::fs::remove_file(chain).unwrap();
    }

    #[test]
    fn a_file_that_the_user_may_not_read_is_a_warning() {
        let error = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let bad = BadFile::unreadable(Path::new("/etc/key.pem"), &error);
        let expected = "\
warning: /etc/key.pem: permission denied
 --> f.toml:2:7
  |
2 | key = \"/etc/key.pem\"
  |       ^^^^^^^^^^^^^^
  = the user of this check may not read it; run it as the edge's: sudo -u perigee perigee check FILE
";
        let text = "[[certificate]]\nkey = \"/etc/key.pem\"\n";
        assert_eq!(describe_file(&bad, text, "f.toml").to_string(), expected);
    }

    #[test]
    fn json_has_place_and_text_of_each_finding() {
        let outcome = check("[edg]", "perigee.toml", Document::Whole, false);
        let json: serde_json::Value = serde_json::from_str(&as_json(&outcome, "perigee.toml")).unwrap();
        assert_eq!(json["usable"], false);
        assert_eq!(json["diagnostics"][0]["message"], "the file has no site");
        assert_eq!(json["diagnostics"][1]["help"], "did you mean \"edge\"?");
        assert_eq!(json["diagnostics"][1]["line"], 1);
    }
}
