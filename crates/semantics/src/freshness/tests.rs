use super::*;

const NOW: Wall = Wall::from_secs(1_790_000_000);

/// Dates relative to [`NOW`].
fn ago(secs: i64) -> String {
    date::format(Wall(NOW.0 - secs * 1000)).as_str().to_owned()
}

fn fields(lines: &[(&str, &str)]) -> Fields {
    lines.iter().copied().collect()
}

#[test]
fn age_is_the_first_member_or_nothing() {
    let check = |lines: &[&str], expected: u32| {
        let response: Fields = lines.iter().map(|value| ("Age", value)).collect();
        assert_eq!(age_value(&response), expected, "{lines:?}");
    };
    check(&[], 0);
    check(&["7200"], 7200);
    check(&["7200, 0"], 7200);
    check(&["0, 7200"], 0);
    check(&["7200", "0"], 7200);
    check(&["0", "7200"], 0);
    check(&["2147483647"], 2_147_483_647);
    check(&["2147483648"], SECS_MAX);
    check(&["99999999999999999999"], SECS_MAX);
    for ignored in ["", "abc", "-7200", "7200.0", "+1", "7200;foo=bar", ", 5", "abc, 5"] {
        check(&[ignored], 0);
    }
}

#[test]
fn age_on_arrival_is_the_worse_of_date_and_age() {
    let check = |date: Option<i64>, age: Option<&str>, delay_ms: i64, expected_secs: u64| {
        let mut response = Fields::new();
        if let Some(secs) = date {
            response.append("Date", ago(secs)).unwrap();
        }
        if let Some(age) = age {
            response.append("Age", age).unwrap();
        }
        let found = initial_age_ms(&response, Wall(NOW.0 - delay_ms), NOW);
        assert_eq!(found / 1000, expected_secs, "{date:?} {age:?} {delay_ms}");
    };
    check(None, None, 0, 0);
    check(Some(0), None, 300, 0);
    check(Some(0), None, 5000, 5);
    check(Some(0), Some("30"), 0, 30);
    check(Some(0), Some("30"), 2000, 32);
    check(Some(7200), None, 0, 7199); // one second may be rounding
    check(Some(7200), Some("9000"), 0, 9000);
    check(Some(-400), None, 0, 0);
    check(Some(-400), Some("7"), 0, 7);
    // A clock that jumped back during the fetch makes nothing older.
    check(Some(0), None, -5000, 0);
}

#[test]
fn the_lifetime_has_one_source() {
    let policy = Policy::default();
    let check_status = |status: u16, lines: &[(&str, &str)], secs: u32, source: LifetimeSource| {
        let response = fields(lines);
        let directives = ResponseDirectives::of(&response, &policy.targeted);
        let found = lifetime(status, &response, &directives, &policy, NOW, 0);
        assert_eq!(found, (secs, source), "{status} {lines:?}");
    };
    let check =
        |lines: &[(&str, &str)], secs: u32, source: LifetimeSource| check_status(200, lines, secs, source);
    let (now, past, soon) = (ago(0), ago(5000), ago(-300));
    let (cc, cdn) = ("Cache-Control", "CDN-Cache-Control");
    check(&[], 0, LifetimeSource::Nothing);
    check(&[(cc, "max-age=60")], 60, LifetimeSource::MaxAge);
    check(&[(cc, "max-age=60, s-maxage=1")], 1, LifetimeSource::SMaxage);
    check(&[(cc, "s-maxage=3600"), (cc, "max-age=1"), ("Expires", &past)], 3600, LifetimeSource::SMaxage);
    check(&[(cc, "max-age=60"), ("Expires", "0")], 60, LifetimeSource::MaxAge);
    check(&[(cc, "max-age=0"), ("Expires", &soon)], 0, LifetimeSource::MaxAge);
    check(&[(cc, "max-age=x"), ("Expires", &soon)], 0, LifetimeSource::MaxAge);
    check(&[(cc, "max-age=9"), (cdn, "max-age=60")], 60, LifetimeSource::TargetedMaxAge(1));
    check(&[(cdn, "max-age=60, s-maxage=5")], 5, LifetimeSource::TargetedSMaxage(1));
    check(
        &[("Perigee-Cache-Control", "max-age=7"), (cdn, "max-age=60")],
        7,
        LifetimeSource::TargetedMaxAge(0),
    );
    // A targeted field without a time silences Expires and Cache-Control all the same.
    check(&[(cdn, "foo"), (cc, "max-age=9"), ("Expires", &soon)], 0, LifetimeSource::Nothing);
    check(&[("Expires", &soon), ("Date", &now)], 300, LifetimeSource::Expires);
    check(&[("Expires", &soon), ("Date", "foo")], 300, LifetimeSource::Expires);
    check(&[("Expires", &soon)], 300, LifetimeSource::Expires);
    check(&[("Expires", &soon), ("Date", &ago(-400))], 0, LifetimeSource::Expires);
    check(&[("Expires", &now), ("Date", &now)], 0, LifetimeSource::Expires);
    check(&[("Expires", &past), ("Date", &now)], 0, LifetimeSource::Expires);
    check(&[("Expires", "0")], 0, LifetimeSource::Expires);
    check(&[("Expires", "")], 0, LifetimeSource::Expires);
    check(&[("Expires", "Thu, 18 Aug 2050 02:01:18 UTC")], 0, LifetimeSource::Expires);
    check(&[("Expires", "0"), ("Expires", &soon)], 0, LifetimeSource::Expires);
    let far = "Sun, 21 Nov 2286 04:46:39 GMT";
    check(&[("Expires", far), ("Date", &now)], SECS_MAX, LifetimeSource::Expires);
    // An Expires that is wrong is not a reason to guess.
    check(&[("Expires", "0"), ("Last-Modified", &ago(86_400))], 0, LifetimeSource::Expires);

    let day_old = ago(86_400);
    let changed = [("Last-Modified", day_old.as_str()), ("Date", now.as_str())];
    for status in [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501] {
        check_status(status, &changed, 8640, LifetimeSource::Heuristic);
    }
    for status in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
        check_status(status, &changed, 0, LifetimeSource::Nothing);
        let public = [changed[0], changed[1], (cc, "public")];
        check_status(status, &public, 8640, LifetimeSource::Heuristic);
    }
    check(&[("Last-Modified", &ago(100 * 86_400))], 86_400, LifetimeSource::Heuristic);
    check(&[("Last-Modified", &ago(5))], 0, LifetimeSource::Heuristic);
    check(&[("Last-Modified", &ago(-500))], 0, LifetimeSource::Heuristic);
    check(&[("Last-Modified", "yesterday")], 0, LifetimeSource::Nothing);
    check(&[("Last-Modified", "Mon, 01 Jan 0000 00:00:00 GMT")], 86_400, LifetimeSource::Heuristic);
}

#[test]
fn a_rule_beats_the_headers_and_counts_from_arrival() {
    let policy =
        Policy { ttl: Some(30), ttl_by_status: vec![(404..=404, 5), (400..=599, 1)], ..Policy::default() };
    let check = |status: u16, value: &str, expected: (u32, LifetimeSource)| {
        let response = fields(&[("Cache-Control", value), ("CDN-Cache-Control", "max-age=9")]);
        let directives = ResponseDirectives::of(&response, &policy.targeted);
        let found = lifetime(status, &response, &directives, &policy, NOW, 100_500);
        assert_eq!(found, expected, "{status} {value}");
    };
    check(200, "max-age=60", (130, LifetimeSource::Rule));
    check(200, "no-cache", (130, LifetimeSource::Rule));
    check(301, "", (130, LifetimeSource::Rule));
    check(302, "", (9, LifetimeSource::TargetedMaxAge(1)));
    check(404, "max-age=60", (105, LifetimeSource::RuleForStatus));
    check(503, "max-age=60", (101, LifetimeSource::RuleForStatus));
}

#[test]
fn a_rule_may_heed_no_cache_and_cut_what_the_origin_says() {
    let check = |policy: &Policy, line: &str, expected: (u32, LifetimeSource)| {
        let response = fields(&[("Cache-Control", line)]);
        let directives = ResponseDirectives::of(&response, &policy.targeted);
        assert_eq!(lifetime(200, &response, &directives, policy, NOW, 100_500), expected, "{line}");
    };
    let heeding = Policy { ttl: Some(30), heeds_no_cache: true, ..Policy::default() };
    check(&heeding, "max-age=60", (130, LifetimeSource::Rule));
    check(&heeding, "no-cache", (130, LifetimeSource::RuleForSilence));
    check(&heeding, "no-cache, max-age=60", (60, LifetimeSource::MaxAge));
    check(&heeding, "no-cache=\"set-cookie\"", (130, LifetimeSource::Rule));
    // Counted from the arrival, as a rule's ttl is.
    let cutting = Policy { ttl: Some(30), ttl_overrides: false, ttl_max: Some(20), ..Policy::default() };
    check(&cutting, "max-age=600", (120, LifetimeSource::MaxAge));
    check(&cutting, "max-age=60", (60, LifetimeSource::MaxAge));
    check(&cutting, "public", (120, LifetimeSource::RuleForSilence));
}

#[test]
fn a_rule_that_overrides_nothing_speaks_for_an_origin_that_is_silent() {
    let policy = Policy {
        ttl: Some(30),
        ttl_by_status: vec![(404..=404, 5), (302..=302, 7)],
        ttl_overrides: false,
        ..Policy::default()
    };
    let check = |status: u16, lines: &[(&str, &str)], expected: (u32, LifetimeSource)| {
        let response = fields(lines);
        let directives = ResponseDirectives::of(&response, &policy.targeted);
        let found = lifetime(status, &response, &directives, &policy, NOW, 100_500);
        assert_eq!(found, expected, "{status} {lines:?}");
    };
    let day_old = ago(86_400);
    check(200, &[], (130, LifetimeSource::RuleForSilence));
    check(200, &[("Cache-Control", "public")], (130, LifetimeSource::RuleForSilence));
    check(200, &[("Last-Modified", &day_old)], (130, LifetimeSource::RuleForSilence));
    check(404, &[], (105, LifetimeSource::RuleForSilence));
    check(302, &[], (107, LifetimeSource::RuleForSilence));
    check(503, &[], (0, LifetimeSource::Nothing));
    check(200, &[("Cache-Control", "max-age=60")], (60, LifetimeSource::MaxAge));
    check(404, &[("CDN-Cache-Control", "max-age=9")], (9, LifetimeSource::TargetedMaxAge(1)));
    check(200, &[("Expires", "0")], (0, LifetimeSource::Expires));
}

#[test]
fn the_origin_of_a_lifetime_is_told_in_words() {
    let policy = Policy::default();
    let facts = Facts { initial_age_ms: 3000, ..facts(60) };
    let check = |source: LifetimeSource, expected: &str| {
        assert_eq!(lifetime_origin(&Facts { source, ..facts }, &policy), expected);
    };
    check(LifetimeSource::Rule, "the rule's ttl of 57 s from arrival");
    check(LifetimeSource::RuleForStatus, "the rule's ttl of 57 s for status 200");
    check(LifetimeSource::RuleForSilence, "the rule's ttl of 57 s, as the origin says nothing");
    check(LifetimeSource::TargetedMaxAge(0), "max-age in Perigee-Cache-Control");
    check(LifetimeSource::TargetedMaxAge(9), "max-age in a targeted field");
    check(LifetimeSource::SMaxage, "s-maxage in Cache-Control");
    check(LifetimeSource::Expires, "Expires - Date");
    check(LifetimeSource::Heuristic, "10 % of Date - Last-Modified, at most 86400 s");
    check(LifetimeSource::Nothing, "nothing says how long");
    let capped = Policy { ttl_max: Some(57), ..policy };
    assert_eq!(lifetime_origin(&facts, &capped), "the rule's ttl_max of 57 s from arrival");
}

#[test]
fn facts_are_small() {
    assert!(size_of::<Facts>() <= 40, "{}", size_of::<Facts>());
}

fn facts(lifetime: u32) -> Facts {
    Facts {
        response_time: NOW,
        initial_age_ms: 0,
        lifetime,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        status: 200,
        source: LifetimeSource::MaxAge,
        flags: Flags::NONE,
    }
}

#[test]
fn facts_come_back_from_their_bytes_and_nothing_else_does() {
    let sources = [
        LifetimeSource::Rule,
        LifetimeSource::RuleForStatus,
        LifetimeSource::RuleForSilence,
        LifetimeSource::TargetedSMaxage(1),
        LifetimeSource::TargetedMaxAge(200),
        LifetimeSource::SMaxage,
        LifetimeSource::MaxAge,
        LifetimeSource::Expires,
        LifetimeSource::Heuristic,
        LifetimeSource::Nothing,
    ];
    for source in sources {
        let facts = Facts {
            response_time: Wall(-1_234_567_890_123),
            initial_age_ms: u64::MAX - 5,
            lifetime: 0x0102_0304,
            stale_while_revalidate: 7,
            stale_if_error: u32::MAX,
            status: 404,
            source,
            flags: Flags::NEVER_STALE.with(Flags::LAST_MODIFIED),
        };
        let bytes = facts.to_bytes();
        assert_eq!(Facts::from_bytes(&bytes), Some(facts));
        for (at, wrong) in [(30, 10), (39, 1)] {
            let mut bytes = bytes;
            bytes[at] = wrong;
            assert_eq!(Facts::from_bytes(&bytes), None);
        }
    }
}
