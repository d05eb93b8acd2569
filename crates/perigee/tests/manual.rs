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
