//! From verdicts to counts: a test counts as passed when it passed and everything that it depends on counts as passed.
//! Also the list of tests that are accepted as not passing, and the tables for people.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::definition::{Group, Kind, Test};
use super::player::{Failure, FailureKind};

/// The outcome of one run over the definitions.
pub(super) struct Results<'a> {
    groups: &'a [Group],
    tests: HashMap<&'a str, &'a Test>,
    verdicts: HashMap<String, Result<(), Failure>>,
}

impl<'a> Results<'a> {
    pub(super) fn new(groups: &'a [Group], verdicts: HashMap<String, Result<(), Failure>>) -> Self {
        let tests =
            groups.iter().flat_map(|group| &group.tests).map(|test| (test.id.as_str(), test)).collect();
        Results { groups, tests, verdicts }
    }

    /// Whether `id` counts as passed. A dependency that was not run counts as failed; there are no circles.
    fn passed(&self, id: &str) -> bool {
        let (Some(test), Some(Ok(()))) = (self.tests.get(id), self.verdicts.get(id)) else { return false };
        test.depends_on.iter().all(|dependency| self.passed(dependency))
    }

    /// Why `id` does not count as passed.
    fn reason(&self, id: &str) -> String {
        let missing =
            self.tests.get(id).and_then(|test| test.depends_on.iter().find(|&other| !self.passed(other)));
        match (missing, self.verdicts.get(id)) {
            (Some(other), _) => format!("needs {other}, which did not pass"),
            (None, Some(Err(failure))) if failure.kind == FailureKind::Setup => {
                format!("setup: {}", failure.message)
            }
            (None, Some(Err(failure))) => failure.message.clone(),
            (None, _) => "was not run".to_owned(),
        }
    }

    /// How many tests of `kind` count as passed.
    pub(super) fn count(&self, kind: Kind) -> usize {
        let tests = self.groups.iter().flat_map(|group| &group.tests);
        tests.filter(|test| test.kind == kind && self.passed(&test.id)).count()
    }

    /// Ids of the required and optimal tests that do not count as passed.
    pub(super) fn not_passed(&self) -> BTreeSet<String> {
        let tests = self.groups.iter().flat_map(|group| &group.tests);
        tests
            .filter(|test| test.kind != Kind::Check && !self.passed(&test.id))
            .map(|test| test.id.clone())
            .collect()
    }

    /// One line per test that does not count as passed; `check` tests only when asked for.
    pub(super) fn failures(&self, with_checks: bool) -> Vec<String> {
        let tests = self.groups.iter().flat_map(|group| &group.tests);
        tests
            .filter(|test| self.verdicts.contains_key(&test.id) && !self.passed(&test.id))
            .filter(|test| with_checks || test.kind != Kind::Check)
            .map(|test| format!("{:8} {}\n           {}", test.kind.as_str(), test.id, self.reason(&test.id)))
            .collect()
    }

    /// Passed of all, by group and kind.
    pub(super) fn table(&self) -> String {
        let mut table = format!("{:56} {:>9} {:>9} {:>9}\n", "group", "required", "optimal", "check");
        for group in self.groups {
            let cell = |kind: Kind| {
                let all: Vec<&Test> = group.tests.iter().filter(|test| test.kind == kind).collect();
                let passed = all.iter().filter(|test| self.passed(&test.id)).count();
                if all.is_empty() { "-".to_owned() } else { format!("{passed}/{}", all.len()) }
            };
            let (required, optimal, check) = (cell(Kind::Required), cell(Kind::Optimal), cell(Kind::Check));
            table.push_str(&format!("{:56} {required:>9} {optimal:>9} {check:>9}\n", group.name));
        }
        table
    }
}

/// Tests accepted as not passing, by mode: lines `mode id`; `#` starts a comment.
pub(super) struct Accepted(BTreeMap<String, BTreeSet<String>>);

impl Accepted {
    /// Reads the list; a line of another form is an error.
    pub(super) fn parse(text: &str) -> Result<Accepted, String> {
        let mut accepted = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [] => {}
                [mode, id] => {
                    let ids: &mut BTreeSet<String> = accepted.entry(mode.to_owned()).or_default();
                    ids.insert(id.to_owned());
                }
                _ => return Err(format!("line {}: {line:?} is not `mode id`", index + 1)),
            }
        }
        Ok(Accepted(accepted))
    }

    /// What is wrong with a run of `mode` in which `not_passed` did not pass: (drops, list entries that now pass).
    pub(super) fn compare(&self, mode: &str, not_passed: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
        let empty = BTreeSet::new();
        let accepted = self.0.get(mode).unwrap_or(&empty);
        (
            not_passed.difference(accepted).cloned().collect(),
            accepted.difference(not_passed).cloned().collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(id: &str, kind: Kind, depends_on: &[&str]) -> Test {
        let depends_on = depends_on.iter().map(|id| id.to_string()).collect();
        Test { id: id.into(), name: id.into(), kind, browser_only: false, depends_on, requests: Vec::new() }
    }

    #[test]
    fn a_test_whose_dependency_failed_does_not_count() {
        let tests = vec![
            test("a", Kind::Required, &[]),
            test("b", Kind::Optimal, &["a"]),
            test("c", Kind::Check, &["b"]),
            test("d", Kind::Required, &[]),
        ];
        let groups = [Group { name: "g".into(), tests }];
        let failure = Failure { kind: FailureKind::Subject, message: "no".into() };
        let verdicts = HashMap::from([
            ("a".to_owned(), Err(failure)),
            ("b".to_owned(), Ok(())),
            ("c".to_owned(), Ok(())),
            ("d".to_owned(), Ok(())),
        ]);
        let results = Results::new(&groups, verdicts);
        assert_eq!(
            (results.count(Kind::Required), results.count(Kind::Optimal), results.count(Kind::Check)),
            (1, 0, 0)
        );
        assert_eq!(results.not_passed(), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        assert!(results.failures(true)[2].contains("needs b"));
    }

    #[test]
    fn a_drop_and_a_stale_entry_are_both_told() {
        let accepted = Accepted::parse("# why\ndefault a # reason\ndefault b\n").unwrap();
        let not_passed = BTreeSet::from(["a".to_owned(), "x".to_owned()]);
        assert_eq!(accepted.compare("default", &not_passed), (vec!["x".to_owned()], vec!["b".to_owned()]));
        assert_eq!(accepted.compare("rfc9111", &BTreeSet::new()), (vec![], vec![]));
        assert!(Accepted::parse("default a b c").is_err());
    }
}
