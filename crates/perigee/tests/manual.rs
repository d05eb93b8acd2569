//! The manual is sound: each page is found, and each link and anchor leads somewhere, into what this binary prints of itself too.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::process::Command;

fn print(words: &[&str]) -> Result<String, String> {
    let said = Command::new(env!("CARGO_BIN_EXE_perigee")).args(words).output().unwrap();
    assert!(said.status.success(), "perigee {words:?}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(String::from_utf8(said.stdout).unwrap())
}

#[test]
fn each_page_is_in_the_index_and_each_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manual = manual::make(&root, &print).unwrap();
    assert!(manual.problems.is_empty(), "what is wrong with the manual:\n{}", manual.problems.join("\n"));
    for page in
        ["index.html", "tutorial.html", "reference/commands.html", "reference/api.html", "runbook.html"]
    {
        assert!(manual.files.contains_key(page), "{page} is missing");
    }
}

/// The commands in a page: what stands behind `perigee` in blocks for a shell and in code spans, up to where a shell ends it.
fn commands_of(text: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let mut fence: Option<bool> = None;
    for line in text.lines() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            fence = fence.is_none().then(|| kind.starts_with("sh"));
            continue;
        }
        let pieces: Vec<&str> = match fence {
            Some(true) => vec![line],
            Some(false) => continue,
            None => line.split('`').skip(1).step_by(2).collect(),
        };
        for piece in pieces {
            let words: Vec<&str> = piece.split_whitespace().collect();
            for (place, _) in words.iter().enumerate().filter(|(_, word)| **word == "perigee") {
                let ends =
                    |word: &&&str| !matches!(**word, "|" | "&" | "&&" | ";" | ">" | "#" | "\\" | "then:");
                found.push(words[place + 1..].iter().take_while(ends).copied().collect());
            }
        }
    }
    found
}

#[test]
fn each_flag_that_a_page_shows_is_one() {
    let reference = print(&["reference", "commands"]).unwrap();
    // By command, such as `geo build`: what its section says.
    let mut sections: std::collections::HashMap<&str, &str> = std::collections::HashMap::new();
    for section in reference.split("\n## perigee ").flat_map(|part| part.split("\n### perigee ")).skip(1) {
        let (name, text) = section.split_once('\n').unwrap();
        sections.insert(name, text);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|end| end == "md") => pages.push(path),
                false => {}
            }
        }
    }
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for words in commands_of(&text) {
            let pair = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            let Some(section) = sections.get(pair.as_str()).or_else(|| sections.get(*words.first()?)) else {
                continue;
            };
            let own = sections.get(words[0]).copied().unwrap_or_default();
            for word in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                let flag: String =
                    word.chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '-').collect();
                seen += 1;
                let is_one = |text: &str| {
                    text.contains(&format!("| `{flag} ")) || text.contains(&format!("| `{flag}` |"))
                };
                if !is_one(section) && !is_one(own) && flag != "--help" {
                    wrong.push(format!(
                        "{}: perigee {}: there is no {flag}",
                        page.display(),
                        words.join(" ")
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 100, "only {seen} flags were seen");
}
