//! `perigee reference`: prints what can be said of this binary by its own code, as Markdown: what it does not say of itself nobody has
//! to keep current by hand. The manual's reference pages are what it prints.

use std::fmt::Write;

use clap::{Arg, ArgAction, Args, CommandFactory, ValueEnum};
use serde_json::Value;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  perigee reference commands > commands.md
  perigee reference whys";

/// `perigee reference`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Reference {
    /// What to print
    part: Part,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// All subcommands with their arguments and examples
    Commands,
    /// All keys of the configuration, with kind, range and default
    Configuration,
    /// All paths of control's API, with what they take and answer
    Api,
    /// All metrics of edges, controls and routers
    Metrics,
    /// Why a request ended as it did: all reasons, and what to do about them
    Whys,
    /// What can be reached and is counted then, and the limits of control
    Limits,
}

impl Reference {
    /// Prints it.
    pub(crate) fn run(self) -> Result<(), Failure> {
        crate::print(&match self.part {
            Part::Commands => commands(),
            Part::Configuration => format!("# Configuration keys\n\n{}", model::reference()),
            Part::Api => api(&control::openapi())?,
            Part::Metrics => metrics(),
            Part::Whys => whys(),
            Part::Limits => limits(),
        })
    }
}

/// As the cell of a table.
fn cell(text: &str) -> String {
    text.trim().replace('\n', " ").replace('|', "\\|").replace('<', "&lt;")
}

// --- Commands ---

fn commands() -> String {
    let mut root = crate::Arguments::command();
    root.build();
    let mut text = "# Commands\n\nEach prints this about itself with `--help`. Exit codes: 0 when it was done, 1 when it could not be, 2 when the \
                    command line makes no sense or `check` cannot read its file, 130 when it was interrupted.\n\n"
        .to_owned();
    describe_command(&mut text, &root, 2);
    text
}

fn describe_command(text: &mut String, command: &clap::Command, level: usize) {
    for inner in command.get_subcommands() {
        let name = inner.get_bin_name().unwrap_or(inner.get_name());
        let _ = writeln!(text, "{} {name}\n", "#".repeat(level));
        if let Some(about) = inner.get_about() {
            let _ = writeln!(text, "{}.\n", about.to_string().trim_end_matches('.'));
        }
        let usage = inner.clone().render_usage().to_string();
        let _ = writeln!(text, "```\n{}\n```\n", usage.trim_start_matches("Usage: "));
        let shown: Vec<&Arg> =
            inner.get_arguments().filter(|arg| !arg.is_hide_set() && !asks_about(arg)).collect();
        if !shown.is_empty() {
            text.push_str("| argument | |\n|---|---|\n");
            for arg in shown {
                let _ = writeln!(text, "| `{}` | {} |", spelled(arg).replace('|', "\\|"), explained(arg));
            }
            text.push('\n');
        }
        if let Some(examples) = inner.get_after_help() {
            let _ = writeln!(text, "```\n{}\n```\n", examples.to_string().trim_end());
        }
        describe_command(text, inner, (level + 1).min(6));
    }
}

/// Whether it asks for help or the version, as each command's own.
fn asks_about(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

/// How an argument is written.
fn spelled(arg: &Arg) -> String {
    let value = match (arg.get_action().takes_values(), arg.get_value_names()) {
        (true, Some([name, ..])) => name.to_string(),
        _ => String::new(),
    };
    match (arg.get_long(), arg.get_short()) {
        _ if arg.is_positional() => value,
        (Some(long), _) => format!("--{long} {value}").trim_end().to_owned(),
        (None, Some(short)) => format!("-{short} {value}").trim_end().to_owned(),
        (None, None) => value,
    }
}

/// What it is for, which words it takes, and what holds without it.
fn explained(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = cell(&help);
    let words: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {}", value.get_name(), cell(&help.to_string())),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    if !words.is_empty() {
        let _ = write!(text, " ({})", words.join("; "));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        let _ = write!(text, " \\[default: {}\\]", cell(&defaults.join(", ")));
    }
    if arg.is_required_set() {
        text.push_str(" **required**");
    }
    text
}

// --- The API ---

/// From an OpenAPI document.
fn api(document: &str) -> Result<String, Failure> {
    let document: Value = serde_json::from_str(document)
        .map_err(|error| Failure::new(format!("the OpenAPI document is none: {error}"), "report it"))?;
    let mut text = "# The API of control\n\nWhat `/v1/openapi.json` of any control says, for reading. `Authorization: Bearer TOKEN`, JSON in \
                    and out; what fails is answered with a *Problem*.\n\n## Paths\n\n"
        .to_owned();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let _ = writeln!(text, "### {} {path}\n", method.to_uppercase());
            for words in [&operation["summary"], &operation["description"]] {
                if let Some(words) = words.as_str().filter(|words| !words.is_empty()) {
                    let _ = writeln!(text, "{}\n", words.replace('<', "&lt;"));
                }
            }
            let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
            if !parameters.is_empty() {
                text.push_str("| parameter | in | value | |\n|---|---|---|---|\n");
                for one in parameters {
                    let about = one["description"].as_str().unwrap_or_default();
                    let required = if one["required"] == true { " **required**" } else { "" };
                    let _ = writeln!(
                        text,
                        "| `{}` | {} | {} | {}{required} |",
                        one["name"].as_str().unwrap_or_default(),
                        one["in"].as_str().unwrap_or_default(),
                        shape(&one["schema"]),
                        cell(about)
                    );
                }
                text.push('\n');
            }
            if let Some(content) = operation["requestBody"]["content"].as_object() {
                for (kind, content) in content {
                    let _ = writeln!(text, "Takes {} (`{kind}`).\n", shape(&content["schema"]));
                }
            }
            for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
                let of = answer["content"].as_object().and_then(|content| content.values().next());
                let of = of.map_or_else(String::new, |content| format!(": {}", shape(&content["schema"])));
                let about = answer["description"].as_str().filter(|words| !words.is_empty());
                let about = about.map_or_else(String::new, |words| format!(". {}", cell(words)));
                let status = if status == "default" { "anything else" } else { status };
                let _ = writeln!(text, "- {status}{of}{about}");
            }
            text.push('\n');
        }
    }
    text.push_str("## Values\n\n");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "### {name}\n");
        if let Some(words) = schema["description"].as_str() {
            let _ = writeln!(text, "{}\n", words.replace('<', "&lt;"));
        }
        match schema["properties"].as_object() {
            Some(properties) => {
                let required: Vec<&str> =
                    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                text.push_str("| field | value | |\n|---|---|---|\n");
                for (field, value) in properties {
                    let about = cell(value["description"].as_str().unwrap_or_default());
                    let may = if required.contains(&field.as_str()) { "" } else { " *May be left out.*" };
                    let _ = writeln!(text, "| `{field}` | {} | {about}{may} |", shape(value));
                }
            }
            None => {
                let _ = writeln!(text, "{}", shape(schema));
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// What values a schema allows, in few words.
fn shape(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(of) = schema[several].as_array() {
            return of.iter().map(shape).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    let of = |kind: &str| match kind {
        "array" => format!("list of {}", shape(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", shape(&schema["additionalProperties"]))
        }
        kind => kind.to_owned(),
    };
    match &schema["type"] {
        Value::String(kind) => of(kind),
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).map(of).collect::<Vec<_>>().join(" or ")
        }
        _ => "anything".to_owned(),
    }
}

// --- Metrics, reasons, limits ---

fn metrics() -> String {
    let mut text = "# Metrics\n\nIn the text format of Prometheus, at `/metrics` of the admin address (edges, routers) and of control.\n".to_owned();
    text.push_str("\n## Edges\n\n| name | kind | unit | labels | |\n|---|---|---|---|---|\n");
    for family in observe::catalogue::FAMILIES {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            family.name,
            family.kind.as_str(),
            family.unit,
            labels.join(", "),
            cell(family.help)
        );
    }
    for (title, families) in
        [("Controls", control::metric_families()), ("Routers", router::server::metric_families())]
    {
        let _ = writeln!(text, "\n## {title}\n\n| name | kind | |\n|---|---|---|");
        for (name, kind, help) in families {
            let _ = writeln!(text, "| `{name}` | {kind} | {} |", cell(help));
        }
    }
    text
}

fn whys() -> String {
    let mut text = "# Why\n\nEach response has exactly one of these reasons: in `Cache-Status` (`detail=`), in the access log (`why`), in \
                    `perigee_requests_total` and in `perigee stats why`, which also shows an example of each.\n\n\
                    | why | outcome | what happened | what to do |\n|---|---|---|---|\n"
        .to_owned();
    for why in semantics::Why::ALL {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            why.as_str(),
            why.outcome().as_str(),
            cell(why.sentence()),
            cell(control::next_step(*why).unwrap_or_default())
        );
    }
    text
}

fn limits() -> String {
    let mut text = "# Limits\n\nWhat may be set, with ranges and defaults, is in `perigee reference configuration`.\n\n## Of edges\n\nReaching one \
                    counts in `perigee_limits_reached_total{limit=\"…\"}`.\n\n| `limit` | of what |\n|---|---|\n"
        .to_owned();
    for limit in observe::Limit::ALL {
        let _ = writeln!(text, "| `{}` | {} |", limit.as_str(), cell(limit.sentence()));
    }
    text.push_str("\n## Of control\n\nReaching one that has a name counts in `perigee_control_limits_reached_total{limit=\"…\"}`.\n\n| limit | value | `limit` |\n|---|---|---|\n");
    for (what, value, name) in control::limits::limits_in_words() {
        let name = name.map_or_else(String::new, |name| format!("`{name}`"));
        let _ = writeln!(text, "| {} | {} | {name} |", cell(what), cell(&value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_described_with_its_arguments() {
        let text = commands();
        for wanted in [
            "## perigee serve\n",
            "### perigee geo build\n",
            "| `--origin ",
            "| `--version N` |",
            "**required**",
            "Examples:",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
        assert!(!text.contains("--help "), "each has it, and none explains itself by it");
    }

    #[test]
    fn each_command_shows_how_it_is_used_and_takes_it() {
        fn check(root: &clap::Command, command: &clap::Command) {
            let name = command.get_bin_name().unwrap_or(command.get_name());
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines = command_lines(&examples);
            assert!(examples.starts_with("Examples:\n"), "{name}: {examples}");
            assert!(lines.iter().any(|line| line.starts_with(name)), "{name}: {lines:?}");
            for line in lines {
                let read = root.clone().try_get_matches_from(words(&line));
                assert!(read.is_ok(), "{line}\n{read:?}");
            }
            command.get_subcommands().for_each(|inner| check(root, inner));
        }
        let mut root = crate::Arguments::command();
        root.build();
        check(&root, &root);
    }

    /// The lines of examples by which a shell would call us, without what stands before and behind.
    fn command_lines(examples: &str) -> Vec<String> {
        let joined = examples.replace("\\\n      ", "");
        let indented = joined.lines().filter_map(|line| line.strip_prefix("  "));
        let called = indented.filter_map(|line| {
            let call = &line[if line.starts_with("perigee ") { 0 } else { line.find("| perigee ")? + 2 }..];
            let ends = ["  ", " | ", " > ", " && "].into_iter().filter_map(|end| call.find(end));
            Some(call[..ends.min().unwrap_or(call.len())].to_owned())
        });
        called.collect()
    }

    /// As a shell splits it.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut quote) = (vec![String::new()], None);
        for char in line.chars() {
            match (quote, char) {
                (None, '\'' | '"') => quote = Some(char),
                (Some(open), _) if open == char => quote = None,
                (None, ' ') => words.push(String::new()),
                _ => words.last_mut().expect("there is one").push(char),
            }
        }
        words
    }

    #[test]
    fn each_path_of_the_api_and_each_value_that_it_names_is_there() {
        let document = control::openapi();
        let text = api(&document).expect("it is one");
        let document: Value = serde_json::from_str(&document).expect("it is one");
        let named = |key: &str, of: &Value| {
            of[key].as_object().expect("there are").keys().cloned().collect::<Vec<_>>()
        };
        for path in named("paths", &document) {
            assert!(text.contains(&format!(" {path}\n")), "{path}");
        }
        for name in named("schemas", &document["components"]) {
            assert!(text.contains(&format!("### {name}\n")), "{name}");
        }
        assert!(text.contains("### POST /v1/purges"), "{text}");
    }

    #[test]
    fn the_shape_of_a_value_is_said_in_few_words() {
        use serde_json::json;
        for (schema, wanted) in [
            (json!({ "type": "integer" }), "integer"),
            (json!({ "type": ["string", "null"] }), "string or null"),
            (
                json!({ "type": "array", "items": { "$ref": "#/components/schemas/Node" } }),
                "list of [Node](#node)",
            ),
            (json!({ "oneOf": [{ "type": "null" }, { "type": "string" }] }), "null or string"),
            (json!({ "enum": ["a", "b"] }), "`\"a\"`, `\"b\"`"),
            (json!({}), "anything"),
        ] {
            assert_eq!(shape(&schema), wanted);
        }
    }

    #[test]
    fn each_reason_metric_and_limit_has_its_line() {
        for (text, wanted) in [
            (whys(), "| `stale-if-error` | hit |"),
            (metrics(), "| `perigee_requests_total` | counter | requests | `site`, `outcome`, `why` |"),
            (metrics(), "| `perigee_control_nodes` | gauge |"),
            (metrics(), "| `perigee_router_edges_down` | gauge |"),
            (limits(), "| `h2-resets` |"),
            (limits(), "| `purges_queued` |"),
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }
}
