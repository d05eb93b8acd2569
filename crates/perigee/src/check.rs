//! `perigee check`: reads a configuration as the edge would, with the certificates that it names, prints every finding, and runs the
//! tests in the file. Opens no socket and changes nothing. Called by `main`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use edge::tls::{read_certificates, read_client_authorities};
use model::diagnostic::Lines;
use model::settings::Ocsp;
use model::{Diagnostic, Document, NodeSettings, Severity, Snapshot};
use serde_json::json;

use crate::configuration::read_text;
use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee check perigee.toml             every finding with its place; exit code 1 if one is an error
  perigee check --json perigee.toml      the same as one JSON object, for editors and pipelines
  perigee check --cluster sites.toml     what the nodes of a cluster have in common
  perigee check --node node.toml         what one node of a cluster is told
  perigee check --elsewhere perigee.toml the same where the certificates that it names are not
  perigee check --schema > perigee.schema.json
  perigee check --reference              every key with its default, as Markdown
  perigee check -                        reads standard input";

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
    #[arg(long)]
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

/// What is wrong with the files of certificates, for which an edge would not start: each where the text names it.
fn check_certificates(snapshot: &Snapshot, text: &str, source: &str) -> Vec<Diagnostic> {
    let mut wrong = read_certificates(&snapshot.edge.certificates).err().unwrap_or_default();
    wrong.extend(read_client_authorities(snapshot).err().unwrap_or_default());
    let mut paths: Vec<&Path> = snapshot.sites.iter().filter_map(|site| site.client_ca.as_deref()).collect();
    for files in &snapshot.edge.certificates {
        paths.extend([&*files.chain, &*files.key]);
        if let Some(Ocsp::File(path)) = &files.ocsp {
            paths.push(path);
        }
    }
    let names: Vec<String> = paths.into_iter().map(|path| path.display().to_string()).collect();
    let place = |error: &str| {
        let name = names
            .iter()
            .find(|name| error.strip_prefix(&***name).is_some_and(|rest| rest.starts_with(": ")))?;
        // A name with an escape stands otherwise in the text, and one in a comment is another matter.
        let is_meant =
            |start: usize| !text[..start].rsplit('\n').next().is_some_and(|line| line.contains('#'));
        let start = text.match_indices(&**name).map(|(start, _)| start).find(|start| is_meant(*start))?;
        Some(start..start + name.len())
    };
    let help = "an edge would not start here; where the file is for another machine, add --elsewhere";
    let at = |error: String| {
        let span = place(&error).unwrap_or(0..0);
        Diagnostic::at(Severity::Error, source, text, &Lines::of(text), span, error, help)
    };
    wrong.into_iter().map(at).collect()
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

    #[test]
    fn a_certificate_that_is_not_there_makes_the_file_unusable_on_its_own_machine() {
        let own = "[cluster]\ncontrol = \"https://control.example\"\n[edge]\nnode = \"fra-1\"\n";
        let certificate = "# key = \"/nonexistent/key.pem\"\n[[certificate]]\nchain = \"/nonexistent/chain.pem\"\n\
                           key = \"/nonexistent/key.pem\"\n";
        for (text, document, line) in [
            (format!("{certificate}{SITE}"), Document::Whole, 3),
            (format!("{own}{certificate}"), Document::Node, 7),
        ] {
            let outcome = check(&text, "f.toml", document, false);
            let [found] = &outcome.diagnostics[..] else { panic!("{}", as_text(&outcome, "f.toml")) };
            assert!(found.message.starts_with("/nonexistent/chain.pem: No such file"), "{found}");
            assert_eq!(
                (found.line, found.column, &*found.found),
                (line, 10, "/nonexistent/chain.pem"),
                "{found}"
            );
            assert!(found.is_error() && found.help.contains("--elsewhere"), "{found}");
            assert!(check(&text, "f.toml", document, true).diagnostics.is_empty());
        }
        let asks = format!(
            "{SITE}https = \"redirect\"\nclient_ca = \"/nonexistent/ca.pem\"\nclient_certificate = \"required\"\n"
        );
        assert_eq!(check(&asks, "f.toml", Document::Cluster, false).diagnostics, [], "it lies on the nodes");
        let chain = std::env::temp_dir().join(format!("perigee-check-{}.pem", std::process::id()));
        std::fs::write(&chain, "no certificate").unwrap();
        let text = certificate.replace("/nonexistent/chain.pem", &chain.display().to_string()) + SITE;
        let found = check(&text, "f.toml", Document::Whole, false).diagnostics;
        assert_eq!((found.len(), found[0].line), (1, 4), "the key comes next: {found:?}");
        assert!(found[0].message.starts_with("/nonexistent/key.pem: "), "{found:?}");
        std::fs::remove_file(chain).unwrap();
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
