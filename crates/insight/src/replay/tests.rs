use model::Snapshot;

use super::*;
use crate::log::{BODY_BYTES_MAX, Reader};

/// A log, one line per request: seconds, target, and more keys of a JSON line.
struct Log(Reader, Vec<Record>);

impl Log {
    fn of(lines: &[(i64, &str, &str)]) -> Vec<Record> {
        let mut log = Log(Reader::default(), Vec::new());
        lines.iter().for_each(|(secs, target, more)| log.add(*secs, target, more));
        log.1
    }

    fn add(&mut self, secs: i64, target: &str, more: &str) {
        let (minute, second) = (secs / 60, secs % 60);
        let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
        let mut line = format!(
            "{{\"time\":\"2026-11-23T20:{minute:02}:{second:02}.000Z\",\"method\":\"{method}\",\"host\":\"a.test\",\"target\":\"{target}\""
        );
        for (key, default) in [("status", "200"), ("body_bytes", "1000"), ("why", "\"absent\"")] {
            if !more.contains(&format!("\"{key}\":")) {
                line.push_str(&format!(",\"{key}\":{default}"));
            }
        }
        line.push_str(more);
        line.push('}');
        let (_, record) = self.0.read(line.as_bytes()).unwrap().unwrap();
        self.1.push(record);
    }
}

/// A recorded fetch whose answer said this.
fn fetched(answer: &str) -> String {
    format!(",\"origin_status\":200,\"origin_us\":0,\"answer\":{{{answer}}}")
}

const MINUTE: &str = r#""cache-control":"max-age=60""#;

fn snapshot(rules: &str) -> Snapshot {
    let text =
        format!("[[site]]\nname = \"a\"\ndomains = [\"a.test\"]\norigin = \"http://127.0.0.1:9\"\n{rules}");
    let parsed = Snapshot::parse(&text, "test");
    parsed.snapshot.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

/// Replays and wants these reasons, one per request.
fn check(rules: &str, log: &[(i64, &str, &str)], wanted: &[&str]) -> Vec<Decision> {
    let mut replay = Replay::new(snapshot(rules), Settings::default()).unwrap();
    let decisions: Vec<_> = Log::of(log).iter().map(|record| replay.take(record).unwrap()).collect();
    let whys: Vec<_> = decisions.iter().map(|decision| decision.why.as_str()).collect();
    assert_eq!(whys, wanted, "{rules}");
    decisions
}

#[test]
fn what_was_fetched_is_fresh_until_it_is_not() {
    let one = fetched(MINUTE);
    let log: &[(i64, &str, &str)] = &[(0, "/x", &one), (59, "/x", &one), (60, "/x", &one), (61, "/y", &one)];
    check("", log, &["absent", "fresh", "expired", "absent"]);
    check("ttl = \"2m\"", log, &["absent", "fresh", "fresh", "absent"]);
    check("ttl = \"10s\"", log, &["absent", "expired", "fresh", "absent"]);
    check("cache = false", log, &["rule"; 4]);
    let decisions = check(
        "stale_while_revalidate = \"1m\"",
        log,
        &["absent", "fresh", "stale-while-revalidate", "absent"],
    );
    assert_eq!((decisions[2].origin_requests, decisions[2].origin_bytes), (1, 1000));
}

#[test]
fn a_validator_spares_the_bytes_of_what_has_not_changed() {
    let one = fetched(r#""cache-control":"max-age=1","etag":"\"1\"""#);
    let two = fetched(r#""cache-control":"max-age=1","etag":"\"2\"""#);
    let log: &[(i64, &str, &str)] = &[(0, "/x", &one), (10, "/x", &one), (20, "/x", &two)];
    let decisions = check("", log, &["absent", "revalidated", "expired"]);
    let bytes: Vec<_> = decisions.iter().map(|decision| decision.origin_bytes).collect();
    assert_eq!(bytes, [1000, 0, 1000]);
}

#[test]
fn what_is_taken_to_have_a_validator_is_kept_and_validated_although_it_has_no_lifetime() {
    let nothing = fetched(r#""content-type":"text/css""#);
    let log = Log::of(&[(0, "/a/x.css", &nothing), (1, "/a/x.css", &nothing), (2, "/b/x.css", &nothing)]);
    let settings = Settings { validated: vec!["/a/*.css".to_owned()], ..Settings::default() };
    let mut replay = Replay::new(snapshot(""), settings).unwrap();
    let decisions: Vec<_> = log.iter().map(|record| replay.take(record).unwrap()).collect();
    let told: Vec<_> =
        decisions.iter().map(|decision| (decision.why.as_str(), decision.origin_bytes)).collect();
    assert_eq!(told, [("absent", 1000), ("revalidated", 0), ("uncacheable", 1000)]);
}

#[test]
fn what_may_not_be_kept_is_passed_and_the_rule_that_lifts_it_counts() {
    let cookie = fetched(r#""cache-control":"max-age=60","set-cookie":"1""#);
    let log: &[(i64, &str, &str)] = &[(0, "/x", &cookie), (1, "/x", &cookie)];
    let decisions = check("", log, &["uncacheable", "hit-for-miss"]);
    assert_eq!(decisions[0].refusal, Some(Refusal::SetCookie));
    check("set_cookie = \"strip\"", log, &["absent", "fresh"]);
    let private = fetched(r#""cache-control":"private""#);
    check("ttl = \"1d\"", &[(0, "/x", &private), (1, "/x", &private)], &["uncacheable", "hit-for-miss"]);
    let nothing = fetched(r#""content-type":"text/css""#);
    check("", &[(0, "/x", &nothing), (1, "/x", &nothing)], &["uncacheable", "hit-for-miss"]);
    check("ttl = \"1d\"", &[(0, "/x", &nothing), (1, "/x", &nothing)], &["absent", "fresh"]);
}

#[test]
fn requests_that_a_rule_takes_for_one_share_an_answer() {
    let one = fetched(MINUTE);
    let log: &[(i64, &str, &str)] =
        &[(0, "/x?utm_a=1&b=2", &one), (1, "/x?utm_a=2&b=2", &one), (2, "/x?b=3", &one)];
    check("", log, &["absent"; 3]);
    check("query = { drop = [\"utm_*\"] }", log, &["absent", "fresh", "absent"]);
    check("query = \"ignore\"", log, &["absent", "fresh", "fresh"]);
}

#[test]
fn variants_are_told_apart_by_what_the_log_has_of_their_headers() {
    let vary = |hash: &str| {
        fetched(r#""cache-control":"max-age=60","vary":"X-Lang""#)
            + &format!(r#","selected_by":{{"x-lang":"{hash}"}}"#)
    };
    let (de, en) = (vary("00000001"), vary("00000002"));
    let log: &[(i64, &str, &str)] = &[(0, "/x", &de), (1, "/x", &en), (2, "/x", &de), (3, "/x", &en)];
    check("", log, &["absent", "variant", "fresh", "fresh"]);
    check("vary = { \"x-lang\" = \"presence\" }", log, &["absent", "fresh", "fresh", "fresh"]);
    check("key = { headers = [\"x-lang\"] }", log, &["absent", "absent", "fresh", "fresh"]);
}

#[test]
fn an_origin_that_failed_fails_again_unless_something_stale_may_answer() {
    let one = fetched(MINUTE);
    let down = r#","why":"origin-connect","status":502,"origin_status":0"#;
    let log: &[(i64, &str, &str)] = &[(0, "/x", &one), (70, "/x", down), (71, "/y", down)];
    check("", log, &["absent", "stale-if-error", "origin-connect"]);
    check("stale_if_error = \"0s\"", log, &["absent", "origin-connect", "origin-connect"]);
    check("ttl = \"10m\"", log, &["absent", "fresh", "origin-connect"]);
}

/// An authorized request that has waited for its answer for so long.
fn authorized(waited_secs: u32, answer: &str) -> String {
    fetched(answer) + &format!(",\"authorized\":true,\"first_byte_us\":{}", waited_secs * 1_000_000)
}

#[test]
fn of_those_who_fetch_for_nobody_else_one_at_a_time_waits_and_the_others_get_what_is_stale() {
    let (one, at_once) = (fetched(MINUTE), authorized(0, MINUTE));
    let slow = authorized(1, MINUTE);
    let log: &[(i64, &str, &str)] = &[
        (0, "/x", &one),
        (75, "/x", &slow),
        (75, "/x", &slow),
        (76, "/x", &at_once),
        (77, "/x", &one),
        (78, "/x", &at_once),
    ];
    let rules = "stale_while_revalidate = \"5m\"";
    let stale = "stale-while-revalidate";
    let wanted = ["absent", "uncacheable", stale, "uncacheable", stale, "fresh"];
    let decisions = check(rules, log, &wanted);
    let asked: Vec<_> = decisions.iter().map(|decision| decision.origin_requests).collect();
    assert_eq!(asked, [1, 1, 0, 1, 1, 0]);
    // What may be shared is there for all once it has come.
    let rules = format!("share_authorized = true\n{rules}");
    check(&rules, log, &["absent", "expired", stale, "fresh", "fresh", "fresh"]);
}

#[test]
fn who_waits_for_longer_than_its_patience_gets_what_is_stale_and_its_fetch_goes_on() {
    let one = fetched(MINUTE);
    let check_waited = |waited_secs, rules: &str, wanted: &[&str]| {
        let (slow, meanwhile) = (authorized(waited_secs, MINUTE), authorized(1, MINUTE));
        let log: &[(i64, &str, &str)] =
            &[(0, "/x", &one), (75, "/x", &slow), (75, "/x", &meanwhile), (76, "/x", &one)];
        let rules = format!("stale_while_revalidate = \"5m\"\nshare_authorized = true\n{rules}");
        let decisions = check(&rules, log, wanted);
        let asked: Vec<_> = decisions.iter().map(|decision| decision.origin_requests).collect();
        assert_eq!(asked, [1, 1, 0, 0], "{waited_secs} s");
    };
    let stale = "stale-while-revalidate";
    check_waited(1, "", &["absent", "expired", stale, "fresh"]);
    check_waited(2, "", &["absent", stale, stale, "fresh"]);
    check_waited(5, "", &["absent", stale, stale, "fresh"]);
    let budget = "origin_options = { budget = { in_flight = 9, stale_deadline = \"3s\" } }";
    check_waited(2, budget, &["absent", "expired", stale, "fresh"]);
    check_waited(5, budget, &["absent", "stale-budget", stale, "fresh"]);
}

#[test]
fn beside_the_fetch_of_one_who_fetches_for_nobody_else_there_is_one_for_the_others() {
    let origin_of = |answer: &str, wanted: &str| {
        let (one, alone) = (fetched(answer), authorized(1, answer));
        let meanwhile = format!("{one},\"first_byte_us\":1000000");
        let log: &[(i64, &str, &str)] = &[
            (0, "/x", &one),
            (75, "/x", &alone),
            (75, "/x", &alone),
            (75, "/x", &meanwhile),
            (75, "/x", &meanwhile),
            (76, "/x", &one),
        ];
        let stale = "stale-while-revalidate";
        let rules = "share_authorized = true\nstale_while_revalidate = \"5m\"";
        let decisions = check(rules, log, &["absent", wanted, stale, stale, stale, "fresh"]);
        let asked: Vec<_> = decisions.iter().map(|decision| decision.origin_requests).collect();
        assert_eq!(asked, [1, 1, 0, 1, 0, 0]);
        decisions.iter().map(|decision| decision.origin_bytes).collect::<Vec<_>>()
    };
    assert_eq!(origin_of(MINUTE, "expired"), [1000, 1000, 0, 1000, 0, 0]);
    let tagged = format!("{MINUTE},\"etag\":\"\\\"1\\\"\"");
    assert_eq!(origin_of(&tagged, "revalidated"), [1000, 0, 0, 0, 0, 0]);
}

#[test]
fn a_fetch_goes_on_behind_a_stale_answer_where_others_may_follow_it_or_one_has_waited_in_vain() {
    let load = |method_and_target: &str, why: &str, more: &str| {
        let said = format!(",\"why\":\"{why}\"{more}");
        recorded_load(&Log::of(&[(0, method_and_target, &said)])[0])
    };
    let stale = "stale-while-revalidate";
    let authorized = |us: u64| format!(",\"authorized\":true,\"first_byte_us\":{us}");
    assert_eq!(load("/x", stale, ""), (1, 0));
    assert_eq!(load("HEAD /x", stale, ""), (0, 0));
    assert_eq!(load("/x", stale, &authorized(1_999_999)), (0, 0));
    assert_eq!(load("/x", stale, &authorized(2_000_000)), (1, 0));
    assert_eq!(load("/x", "stale-budget", &authorized(500_000)), (1, 0));
    assert_eq!(load("/x", "stale-budget", ""), (0, 0));
}

#[test]
fn what_all_may_have_is_kept_also_for_who_asked_with_authorization() {
    let public = fetched(r#""cache-control":"public, max-age=60""#);
    let hit = r#","why":"fresh","authorized":true"#;
    check("", &[(0, "/x", &public), (70, "/x", hit), (71, "/x", hit)], &["absent", "expired", "fresh"]);
}

#[test]
fn those_who_fetch_for_nobody_else_ask_an_origin_that_fails_once_a_second() {
    let one = fetched(MINUTE);
    let down = r#","why":"origin-connect","status":502,"origin_status":0,"authorized":true"#;
    let log: &[(i64, &str, &str)] = &[(0, "/x", &one), (70, "/x", down), (70, "/x", down), (71, "/x", down)];
    let wanted = ["absent", "stale-if-error", "stale-while-revalidate", "stale-if-error"];
    check("stale_while_revalidate = \"5m\"", log, &wanted);
}

#[test]
fn what_head_is_answered_confirms_what_is_stale_or_outdates_it() {
    let answer = |tag: &str| fetched(&format!("\"cache-control\":\"max-age=60\"{tag}"));
    let (none, same, other) = (answer(""), answer(r#","etag":"\"1\"""#), answer(r#","etag":"\"2\"""#));
    let check = |first: &str, head: &str, wanted: &[&str]| {
        let log: &[(i64, &str, &str)] = &[(0, "/x", first), (70, "HEAD /x", head), (71, "/x", first)];
        check("stale_while_revalidate = \"5m\"", log, wanted)
    };
    let decisions = check(&same, &same, &["absent", "revalidated", "fresh"]);
    assert_eq!((decisions[1].origin_requests, decisions[1].origin_bytes), (1, 0));
    check(&none, &none, &["absent", "uncacheable", "fresh"]);
    check(&same, &other, &["absent", "uncacheable", "absent"]);
}

#[test]
fn what_was_stored_before_the_log_began_is_a_hit() {
    let before = r#","why":"fresh","age":30,"ttl":30"#;
    check("", &[(0, "/x", before), (29, "/x", before), (31, "/x", before)], &["fresh", "fresh", "expired"]);
    check("ttl = \"1m\"", &[(0, "/x", before), (31, "/x", before)], &["fresh", "expired"]);
}

#[test]
fn numbers_that_nothing_can_be_are_no_trouble() {
    let most = u64::MAX;
    let long =
        format!(r#"{},"body_bytes":{most}"#, fetched(&format!(r#"{MINUTE},"content-length":"{most}""#)));
    let slow =
        format!(r#","first_byte_us":{most},"origin_status":200,"origin_us":{most},"answer":{{{MINUTE}}}"#);
    let before = format!(r#","why":"fresh","age":{},"ttl":{}"#, u32::MAX, i64::MAX);
    let log: [(i64, &str, &str); 5] =
        [(0, "/x", &long), (1, "/x", &long), (2, "HEAD /x", &long), (3, "/y", &slow), (4, "/z", &before)];
    let log = Log::of(&log);
    let mut run = Run::new(vec![Replay::new(snapshot(""), Settings::default()).unwrap()]);
    let mut why = |record| run.take(crate::log::Format::Json, record)[0].as_ref().unwrap().why.as_str();
    let whys: Vec<_> = log.iter().map(&mut why).collect();
    assert_eq!(whys, ["too-large", "hit-for-miss", "hit-for-miss", "absent", "expired"]);
    let report = run.report();
    assert_eq!(report.recorded.bytes, 3 * BODY_BYTES_MAX + 2000);
}

#[test]
fn outcomes_that_are_no_affair_of_the_cache_stay() {
    let one = fetched(MINUTE);
    let log: &[(i64, &str, &str)] = &[
        (0, "/x", r#","why":"blocked","status":403"#),
        (1, "POST /x", &one),
        (2, "/x", &one),
        (3, "POST /x", &one),
        (4, "/x", &one),
        (5, "/../x", &one),
    ];
    check("", log, &["blocked", "method", "absent", "method", "absent", "rule"]);
    let decisions = check("redirect = { to = \"https://b.test{path}\" }", &[(0, "/x", &one)], &["redirect"]);
    assert_eq!(decisions[0].location.as_deref(), Some("https://b.test/x"));
}

#[test]
fn a_small_memory_forgets_and_a_disk_does_not() {
    let one = fetched(MINUTE) + ",\"body_bytes\":9000";
    let names: Vec<String> = (0..400).map(|number| format!("/{number}")).collect();
    let round: Vec<(i64, &str, &str)> = names.iter().map(|name| (0, &**name, &*one)).collect();
    let log = Log::of(&[round.clone(), round].concat());
    let hits = |extra: &str, memory_bytes| {
        let text = format!(
            "[[site]]\nname = \"a\"\ndomains = [\"a.test\"]\norigin = \"http://127.0.0.1:9\"\n{extra}"
        );
        let snapshot = Snapshot::parse(&text, "test").snapshot.unwrap();
        let mut run = Run::new(vec![
            Replay::new(snapshot, Settings { memory_bytes: Some(memory_bytes), ..Settings::default() })
                .unwrap(),
        ]);
        log.iter().for_each(|record| _ = run.take(crate::log::Format::Json, record));
        run.report().predicted[0].hits
    };
    assert_eq!(hits("", 64 << 20), 400);
    assert!(hits("", 2 << 20) < 250);
    assert_eq!(hits("[[store.disk]]\nsize = \"64MiB\"\n", 2 << 20), 400);
}

#[test]
fn another_caches_log_is_taken_by_its_outcomes_and_says_so() {
    let mut reader = Reader::default();
    let mut replay =
        Replay::new(snapshot(""), Settings { site: Some("a".into()), ..Settings::default() }).unwrap();
    let mut whys = Vec::new();
    for line in [
        r#"1.2.3.4 - - [23/Nov/2026:20:44:33 +0000] "GET /a.css HTTP/1.1" 200 10 "-" "-""#,
        r#"1.2.3.4 - - [23/Nov/2026:20:44:34 +0000] "GET /a.css HTTP/1.1" 200 10 "-" "-""#,
        r#"1.2.3.4 - - [23/Nov/2026:20:44:35 +0000] "GET /cart HTTP/1.1" 200 10 "-" "-""#,
        r#"1.2.3.4 - - [23/Nov/2026:20:44:36 +0000] "GET /cart HTTP/1.1" 200 10 "-" "-""#,
    ] {
        let (_, record) = reader.read(line.as_bytes()).unwrap().unwrap();
        whys.push(replay.take(&record).unwrap().why.as_str());
    }
    assert_eq!(whys, ["absent", "fresh", "uncacheable", "hit-for-miss"]);
    let said = replay.notes.sentences(&Assumed::default()).join("\n");
    assert!(said.contains("the log has no headers of theirs"), "{said}");
    assert!(Replay::new(snapshot(""), Settings { site: Some("b".into()), ..Settings::default() }).is_err());
}

#[test]
fn differences_between_two_configurations_are_told_by_class() {
    let one = fetched(MINUTE);
    let log = Log::of(&[(0, "/img/x.png", &one), (1, "/img/y.png", &one), (2, "/api/z", &one)]);
    let replay = |rules| Replay::new(snapshot(rules), Settings::default()).unwrap();
    let draft = "[[site.rule]]\npath = \"/api/*\"\ncache = false\n[[site.rule]]\npath = \"/img/*\"\nbrowser_ttl = \"1d\"\n";
    let mut run = Run::new(vec![replay(draft), replay("")]);
    log.iter().for_each(|record| _ = run.take(crate::log::Format::Json, record));
    let report = run.report();
    let changes: Vec<_> = (report.classes.iter())
        .flat_map(|class| class.changes.iter().map(|one| (&*class.pattern, &*one.change, one.requests)))
        .collect();
    assert_eq!(
        changes,
        [("/img/*.png", "browser TTL the origin's → 86400 s", 2), ("/api/*", "cached → passed", 1)]
    );
}
