//! Files that are broken in the ways in which files break, some hundreds: each is refused with its place and a reason.

use super::cluster::{CLUSTER, NODE};
use super::*;

/// What is done to one line `key = value` of a good file so that no reader may take it any more.
type Damage = (&'static str, fn(&str, &str) -> Option<String>);

const DAMAGES: [Damage; 14] = [
    ("a letter too many in the key", |key, value| Some(format!("{key}q = {value}"))),
    ("a capital in the key", |key, value| {
        let (first, rest) = key.split_at(1);
        Some(format!("{}{rest} = {value}", first.to_uppercase()))
    }),
    ("a hyphen for the underscore", |key, value| {
        key.contains('_').then(|| format!("{} = {value}", key.replace('_', "-")))
    }),
    ("a date for the value", |key, _| Some(format!("{key} = 1979-05-27"))),
    ("a negative number for the value", |key, _| Some(format!("{key} = -1"))),
    ("a list of lists for the value", |key, _| Some(format!("{key} = [[{{ a = 1 }}]]"))),
    ("no value", |key, _| Some(format!("{key} ="))),
    ("a colon for the equals sign", |key, value| Some(format!("{key}: {value}"))),
    ("no quotes", |key, value| {
        let bare = value.strip_prefix('"')?.strip_suffix('"')?;
        // What is left must not be a value of another kind.
        (!bare.contains('"') && bare.parse::<f64>().is_err()).then(|| format!("{key} = {bare}"))
    }),
    ("cut off", |key, value| {
        let cut = value.strip_suffix(['"', ']', '}'])?;
        Some(format!("{key} = {cut}"))
    }),
    ("twice", |key, value| Some(format!("{key} = {value}\n{key} = {value}"))),
    ("joined with the next line", |key, value| Some(format!("{key} = {value} {key} = {value}"))),
    ("a byte of zero in it", |key, value| Some(format!("{key} = \0{value}"))),
    ("a mark of a merge behind it", |key, value| Some(format!("{key} = {value}\n<<<<<<< theirs"))),
];

/// Reads a text as what it is.
type Reader = fn(&str, &str) -> (bool, Vec<Diagnostic>);

fn whole(text: &str, source: &str) -> (bool, Vec<Diagnostic>) {
    let parsed = Snapshot::parse(text, source);
    (parsed.snapshot.is_some(), parsed.diagnostics)
}

fn cluster(text: &str, source: &str) -> (bool, Vec<Diagnostic>) {
    let parsed = Snapshot::parse_cluster(text, source);
    (parsed.snapshot.is_some(), parsed.diagnostics)
}

fn node(text: &str, source: &str) -> (bool, Vec<Diagnostic>) {
    let parsed = NodeSettings::parse(text, source);
    (parsed.settings.is_some(), parsed.diagnostics)
}

/// It is refused, and each error says where and why.
#[track_caller]
fn refused(what: &str, text: &str, read: Reader) {
    let (is_taken, found) = read(text, "sites.toml");
    assert!(!is_taken, "{what} is taken:\n{text}");
    let errors: Vec<&Diagnostic> = found.iter().filter(|found| found.is_error()).collect();
    assert!(!errors.is_empty(), "{what}");
    for error in errors {
        assert!(error.line >= 1 && error.column >= 1 && error.source == "sites.toml", "{what}: {error:?}");
        assert!(error.line as usize <= text.lines().count().max(1) + 1, "{what}: {error:?}");
        assert!(text.get(error.span.clone()).is_some(), "{what}: {error:?}");
        assert!(error.message.len() > 8, "{what}: {error:?}");
        assert!(error.to_string().contains(&format!("--> sites.toml:{}:{}", error.line, error.column)));
    }
}

#[test]
fn hundreds_of_damaged_files_are_refused_with_place_and_reason() {
    let mut count = 0;
    for (text, read) in [(example(), whole as Reader), (CLUSTER, cluster), (NODE, node)] {
        assert!(read(text, "f").0, "the file is good before it is damaged");
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let is_key = |key: &str| {
                !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            };
            let bare = line.split_once(" #").map_or(*line, |(bare, _)| bare).trim_end();
            let Some((key, value)) = bare.split_once(" = ").map(|(key, value)| (key.trim_end(), value))
            else {
                continue;
            };
            if !is_key(key) || value.ends_with('[') {
                continue;
            }
            for (what, damage) in DAMAGES {
                let Some(damaged) = damage(key, value) else { continue };
                let mut lines = lines.clone();
                lines[number] = &damaged;
                refused(&format!("line {}, {what}", number + 1), &lines.join("\n"), read);
                count += 1;
            }
        }
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with('[')) {
            for damaged in
                [line.replacen(']', "", 1), line.replace(['[', ']'], ""), line.replacen('[', "[x", 1)]
            {
                let mut lines = lines.clone();
                lines[number] = &damaged;
                refused(&format!("line {}: {damaged}", number + 1), &lines.join("\n"), read);
                count += 1;
            }
        }
    }
    assert!(count >= 200, "{count}");
    println!("{count} damaged files");
}

const SITE: &str = "[[site]]\nname = \"shop\"\ndomains = \"shop.example\"\norigin = \"https://o.example\"\n";

#[test]
fn files_that_were_never_a_configuration_are_refused() {
    let deep = format!("{SITE}ttl = {}{}", "[".repeat(50_000), "]".repeat(50_000));
    let deep_tables = format!("{SITE}{}", "a.".repeat(20_000));
    let long_line = format!("{SITE}# {}\nttl = 1\n", "x".repeat(1 << 20));
    let many = "[[site]]\n".repeat(2_000);
    let huge = format!("{SITE}# {}", "x".repeat(TEXT_BYTES_MAX));
    let texts: [(&str, &str); 40] = [
        ("nothing", ""),
        ("a space", " "),
        ("a line end", "\n"),
        ("a byte order mark", "\u{feff}"),
        ("a byte of zero", "\0"),
        ("a comment", "# perigee\n"),
        ("prose", "Please cache everything, thank you."),
        ("JSON", "{\"site\": [{\"name\": \"shop\"}]}"),
        ("YAML", "site:\n  - name: shop\n    domains: [shop.example]\n"),
        ("nginx", "server { listen 80; server_name shop.example; proxy_pass http://o; }"),
        ("VCL", "vcl 4.1;\nbackend default { .host = \"o\"; }\n"),
        ("a Caddyfile", "shop.example {\n\treverse_proxy o:80\n}\n"),
        ("HTML", "<!doctype html><title>502 Bad Gateway</title>"),
        ("a conflict", "<<<<<<< ours\n[[site]]\n=======\n[[site]]\n>>>>>>> theirs\n"),
        ("a half of a surrogate", "[[site]]\nname = \"\\ud800\"\n"),
        ("an unknown escape", "[[site]]\nname = \"\\q\"\n"),
        ("typographic quotes", "[[site]]\nname = “shop”\n"),
        ("no-break spaces", "[[site]]\nname\u{a0}= \"shop\"\n"),
        ("carriage returns alone", "[[site]]\rname = \"shop\"\r"),
        ("a table for a list", "[site]\nname = \"shop\"\n"),
        ("a list for a table", "[[switches]]\nhttp3 = false\n"),
        ("an empty list of sites", "site = []\n"),
        ("sites as text", "site = \"shop\"\n"),
        ("rules without a site", "[[site.rule]]\npath = \"/\"\n"),
        ("a rule of no site", "[[rule]]\npath = \"/\"\n"),
        ("a test without an expectation", &[SITE, "[[site.test]]\nget = \"/\"\n"].concat()),
        ("a site twice", &[SITE, SITE].concat()),
        ("a domain twice", &[SITE, &SITE.replace("\"shop\"", "\"other\"")].concat()),
        ("an origin without a scheme", &SITE.replace("https://", "")),
        ("an origin of another scheme", &SITE.replace("https://", "ftp://")),
        ("a domain with a port", &SITE.replace("\"shop.example\"", "\"shop.example:80\"")),
        ("a domain with a path", &SITE.replace("\"shop.example\"", "\"shop.example/a\"")),
        ("a name with a line end", &SITE.replace("\"shop\"", "\"shop\\n\"")),
        (
            "a header with a line end",
            &[SITE, "response_headers = { set = { X-A = \"a\\r\\nSet-Cookie: a=b\" } }\n"].concat(),
        ),
        (
            "a header with a name that is none",
            &[SITE, "response_headers = { set = { \"a b\" = \"x\" } }\n"].concat(),
        ),
        ("a ttl of all time", &[SITE, "ttl = \"99999999999999999999d\"\n"].concat()),
        ("brackets to no end", &deep),
        ("tables to no end", &deep_tables),
        ("an error behind a long line", &long_line),
        ("a file that is too long", &huge),
    ];
    for (what, text) in texts {
        refused(what, text, whole);
        refused(what, text, cluster);
        refused(what, text, node);
    }
    refused("sites without anything", &many, whole);
}
