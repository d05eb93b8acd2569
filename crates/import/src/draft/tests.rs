//! The order of rules: what was closed stays so.

use model::glob::Glob;
use proptest::prelude::*;

use super::*;

/// A rule in a few words: `WHAT [wide] [of-1] [early] [PATH] [+A | -A] [by A]`, where what it does is `share`, `pass`, `refuse`, `send` (a guard)
/// or `move`; `+A` is for those with a header, `-A` for those without it.
fn rule(text: &str) -> DraftRule {
    let mut rule = DraftRule { name: text.into(), ..DraftRule::default() };
    for word in text.split(' ') {
        match word {
            "share" => rule.keys.set("origin", quote("http://a"), &[]),
            "pass" => rule.keys.set("cache", "false", &[]),
            "refuse" => rule.keys.set("origin", quote(REFUSED_ORIGIN), &[]),
            "send" | "move" => {
                rule.keys.set("redirect.to", quote("/login"), &[]);
                rule.keeps_out = word == "send";
            }
            "wide" => rule.is_wide = true,
            "of-1" => rule.wide_place = Some(1),
            "early" => rule.is_early = true,
            "+A" => rule.keys.set("with_header.A", "true", &[]),
            "-A" => rule.keys.set("with_header.A", "false", &[]),
            "bare" => rule.keys.set("request_cookies", quote("none"), &[]),
            "+Cookie" => rule.keys.set("with_header.Cookie", "true", &[]),
            path if path.starts_with(['/', '*']) => rule.keys.set("path", quote(path), &[]),
            key => rule.keys.set(key, "true", &[]),
        }
    }
    rule
}

fn closed(rules: &[&str]) -> Vec<DraftRule> {
    let mut rules: Vec<DraftRule> = rules.iter().map(|text| rule(text)).collect();
    close(&mut rules, &mut Ledger::default());
    rules
}

/// A path, and whether there is the header.
type Asked<'a> = (&'a str, bool);

fn is_for(rule: &DraftRule, (path, has_header): Asked<'_>) -> bool {
    let paths = rule.keys.texts("path");
    let has = |key: &str| rule.keys.get(key).is_none_or(|value| (value == "true") == has_header);
    (paths.is_empty() || paths.iter().any(|glob| Glob::new(glob).matches(path.as_bytes())))
        && has("with_header.A")
        && has("with_header.Cookie")
}

/// What becomes of a request: nobody gets anything, the origin is asked, or what is stored is for all who say the same in a header or not.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Closed,
    Passed,
    SharedBy,
    Shared,
}

fn fate(rule: Option<&DraftRule>) -> Fate {
    match rule.map_or(Openness::Shared, DraftRule::openness) {
        // Sending on keeps nobody out, so nothing is opened where it does not come to it.
        Openness::Closed if rule.is_some_and(|rule| !rule.is_guard()) => Fate::Shared,
        Openness::Closed => Fate::Closed,
        Openness::Passed => Fate::Passed,
        Openness::Shared if rule.is_some_and(|rule| rule.keys.has_table("key")) => Fate::SharedBy,
        Openness::Shared => Fate::Shared,
    }
}

/// Whether what comes of rules is nowhere more open than they were, whatever a wide rule really held for and an early one came after.
fn stays_closed(texts: &[&str]) -> Result<(), String> {
    const PATHS: [&str; 6] = ["/a/1", "/a/b/1", "/a/b/1.x", "/a/1.x", "/1.x", "/1"];
    let old: Vec<DraftRule> = texts.iter().map(|text| rule(text)).collect();
    let new = closed(texts);
    let is_of_one = |at: &usize| old[*at].wide_place.is_some();
    let open: Vec<usize> = (0..old.len()).filter(|at| old[*at].is_wide).collect();
    let has_place = (0..old.len()).any(|at| is_of_one(&at));
    for asked in PATHS.into_iter().flat_map(|path| [(path, false), (path, true)]) {
        let found = new.iter().find(|rule| is_for(rule, asked));
        let found = match found {
            // Who is sent on gets nothing from here.
            Some(rule) if rule.openness() == Openness::Closed => Fate::Closed,
            found => fate(found),
        };
        for chosen in 0..1_usize << (open.len() + usize::from(has_place)) {
            let is_less =
                |at: usize| open.iter().position(|one| *one == at).is_some_and(|bit| chosen >> bit & 1 == 1);
            // A wide one does not hold after all, nor any of a wide place; and in place of an early one any behind it may have been.
            let may_be =
                |at: &usize| is_for(&old[*at], asked) && !(is_of_one(at) && chosen >> open.len() & 1 == 1);
            let was = |at: &usize| may_be(at) && !is_less(*at);
            let first = (0..old.len()).find(was);
            let wanted = match first {
                Some(at) if old[at].is_early => {
                    (at..old.len()).filter(was).map(|at| fate(Some(&old[at]))).min()
                }
                at => Some(fate(at.map(|at| &old[at]))),
            }
            .unwrap();
            if found > wanted {
                let names: Vec<&str> = new.iter().map(|rule| &*rule.name).collect();
                return Err(format!(
                    "{asked:?} was {wanted:?} by {first:?}, is {found:?}: {texts:?} became {names:?}"
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn what_was_refused_stays_refused_and_what_was_not_cached_is_not_cached() {
    for rules in [
        // A pass that is put before a wide rule must not come before the refusal that it meets.
        &["share wide *.x", "refuse /a/b/* +A", "pass /a/*"][..],
        &["share wide /a/*", "refuse /1.x", "pass *.x", "share"],
        &["share wide /a/b/*", "refuse *.x -A", "pass +A", "refuse"],
        &["share early /a/*", "refuse *.x", "pass"],
        &["share early /a/b/*", "share /a/*", "refuse *.x"],
        &["share early", "share key.headers", "refuse"],
        &["pass wide /a/*", "refuse /a/b/*", "share"],
        // Nor must it come before who is sent away.
        &["share wide *.x", "send /a/*", "pass", "share"],
        &["share wide /a/*", "move /a/b/*", "refuse", "share"],
        // What is kept apart is not shared.
        &["share wide /a/*", "share key.headers /a/b/*", "share"],
        &["share wide /a/*", "refuse *.x", "share key.headers"],
        &["share wide key.headers /a/*", "share key.headers"],
        // Several at once.
        &["share wide /a/*", "share wide *.x", "pass +A", "refuse /a/b/*", "refuse"],
    ] {
        stays_closed(rules).unwrap();
    }
}

#[test]
fn rules_that_hold_for_just_what_they_stand_for_stay_as_they_are() {
    for rules in [
        &["share /a/*", "refuse *.x", "pass"][..],
        // Nothing falls through to what stands behind the one that catches it.
        &["share wide /a/b/*", "share /a/*", "pass", "refuse *.x"],
        // They never meet.
        &["share wide /a/*", "refuse /b/*"],
        &["share wide +A", "pass -A"],
        // Cookies are the reason to pass, and are taken away.
        &["share wide bare /a/*", "pass +Cookie"],
        &["share wide /a/*", "move"],
        // Where the place is not theirs, neither is, and where it is, the first has what it asks for.
        &["share of-1 /a/* +A", "refuse of-1 /a/*"],
    ] {
        let names: Vec<String> = closed(rules).into_iter().map(|rule| rule.name).collect();
        assert_eq!(names, rules);
    }
    // They are no reason to let somebody in.
    assert_eq!(closed(&["share wide bare /a/*", "refuse +Cookie"]).len(), 3);
}

#[test]
fn a_rule_for_all_that_a_wide_one_is_for_leaves_what_stands_between_alone() {
    let check = |rules: &[&str], wanted: &[(&str, &str, &str)]| {
        let found: Vec<(String, String, String)> = closed(rules)
            .iter()
            .map(|rule| {
                (rule.name.clone(), rule.keys.texts("path").concat(), format!("{:?}", rule.openness()))
            })
            .collect();
        let wanted: Vec<(String, String, String)> = wanted
            .iter()
            .map(|(name, path, what)| ((*name).into(), (*path).into(), (*what).into()))
            .collect();
        assert_eq!(found, wanted);
    };
    check(
        &["share wide /a/*", "share /b/*", "pass"],
        &[
            ("share wide /a/*-past-the-cache", "/a/*", "Passed"),
            ("share wide /a/*", "/a/*", "Shared"),
            ("share /b/*", "/b/*", "Shared"),
            ("pass", "", "Passed"),
        ],
    );
    check(
        &["share wide /a/*", "share /b/*", "refuse"],
        &[
            ("refuse", "/a/*", "Closed"),
            ("share wide /a/*", "/a/*", "Shared"),
            ("share /b/*", "/b/*", "Shared"),
            ("refuse", "", "Closed"),
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_rules_there_are_nothing_is_opened(rules in prop::collection::vec(rules(), 1..7)) {
        let texts: Vec<&str> = rules.iter().map(String::as_str).collect();
        if let Err(why) = stays_closed(&texts) {
            prop_assert!(false, "{}", why);
        }
    }
}

fn rules() -> impl Strategy<Value = String> {
    const WORDS: [&[&str]; 4] = [
        &["share", "share", "share key.headers", "pass", "pass", "refuse", "refuse", "send", "move"],
        &["", "", " wide", " wide", " early", " of-1", " of-1"],
        &["", " /a/*", " /a/b/*", " *.x", " /a/*.x", " /1.x"],
        &["", "", " +A", " -A"],
    ];
    WORDS.map(prop::sample::select).prop_map(|words| words.concat())
}
