use super::*;
use crate::freshness::LifetimeSource;
use crate::{Reuse, date, decide_reuse};

const NOW: Wall = Wall::from_secs(1_790_000_000);

const CC: &str = "Cache-Control";
const CDN: &str = "CDN-Cache-Control";

fn fields(lines: &[(&str, &str)]) -> Fields {
    lines.iter().copied().collect()
}

fn decide(
    method: &str,
    request: &[(&str, &str)],
    status: u16,
    response: &[(&str, &str)],
    policy: &Policy,
) -> Result<Facts, Refusal> {
    let request = fields(request);
    let target = Target { authority: "shop.example", origin_authority: None, path_and_query: "/cart?x" };
    let request = StoreRequest { method, fields: &request, target };
    decide_store(&request, status, &fields(response), policy, NOW, NOW)
}

/// A plain GET under `policy`.
fn check_with(policy: &Policy, status: u16, response: &[(&str, &str)], expected: Result<(), Refusal>) {
    let found = decide("GET", &[], status, response, policy);
    assert_eq!(found.map(|_| ()), expected, "{status} {response:?}");
}

fn check(status: u16, response: &[(&str, &str)], expected: Result<(), Refusal>) {
    check_with(&Policy::default(), status, response, expected);
}

#[test]
fn any_final_status_with_a_lifetime_is_stored_unless_it_is_about_the_request() {
    let fresh = [(CC, "max-age=60")];
    for status in [
        200, 201, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 410, 414, 418, 451,
        499, 500, 501, 502, 503, 504, 599, 999,
    ] {
        check(status, &fresh, Ok(()));
    }
    for status in [0, 100, 101, 103, 304, 407, 408, 412, 413, 416, 417, 421, 425, 426, 428, 429, 431, 511] {
        check(status, &fresh, Err(Refusal::Status));
    }
    check(206, &fresh, Err(Refusal::Part));
    check(206, &[(CC, "max-age=60"), ("Content-Range", "bytes 0-1/9")], Ok(()));
}

#[test]
fn without_a_lifetime_a_validator_or_a_stale_window_decides() {
    check(200, &[], Err(Refusal::NoFreshness));
    check(200, &[("Date", "Mon, 21 Sep 2026 14:13:20 GMT")], Err(Refusal::NoFreshness));
    check(200, &[("ETag", "\"a\"")], Ok(()));
    check(200, &[("ETag", "")], Err(Refusal::NoFreshness));
    check(200, &[("Last-Modified", "Mon, 21 Sep 2026 14:13:20 GMT")], Ok(()));
    check(200, &[("Last-Modified", "0")], Err(Refusal::NoFreshness));
    check(200, &[(CC, "max-age=0")], Err(Refusal::NoFreshness));
    check(200, &[(CC, "max-age=0"), ("ETag", "\"a\"")], Ok(()));
    check(200, &[(CC, "max-age=0, stale-while-revalidate=9")], Ok(()));
    check(200, &[(CC, "max-age=0, stale-if-error=9")], Ok(()));
    check(200, &[(CC, "max-age=0, stale-if-error=9, must-revalidate")], Err(Refusal::NoFreshness));
    check(200, &[(CC, "no-cache, max-age=60")], Err(Refusal::NoFreshness));
    check(200, &[(CC, "no-cache"), ("ETag", "W/\"a\"")], Ok(()));
    check(200, &[("Expires", "0")], Err(Refusal::NoFreshness));
    // A status that is not cacheable by default is not kept for its validator alone.
    for status in [201, 202, 302, 403, 500, 502, 503, 504, 599] {
        check(status, &[("Last-Modified", "Sun, 20 Sep 2026 14:13:20 GMT")], Err(Refusal::NoFreshness));
        check(status, &[("Last-Modified", "Sun, 20 Sep 2026 14:13:20 GMT"), (CC, "public")], Ok(()));
    }
    let rule = |ttl| Policy { ttl: Some(ttl), ..Policy::default() };
    check_with(&rule(60), 200, &[], Ok(()));
    check_with(&rule(60), 200, &[(CC, "no-cache")], Ok(()));
    check_with(&rule(60), 503, &[], Err(Refusal::NoFreshness));
    check_with(&rule(0), 200, &[], Err(Refusal::NoFreshness));
    check_with(&rule(0), 200, &[("ETag", "\"a\"")], Ok(()));
    let negative = Policy { ttl_by_status: vec![(500..=599, 5)], ..Policy::default() };
    check_with(&negative, 503, &[], Ok(()));
    check_with(&negative, 503, &[(CC, "no-store")], Err(Refusal::NoStore));
    let swr = Policy { stale_while_revalidate: Some(5), ..Policy::default() };
    check_with(&swr, 200, &[], Ok(()));
}

#[test]
fn what_a_rule_keeps_for_no_time_by_its_status_is_not_stored_to_answer_when_stale() {
    let none = Policy {
        ttl: Some(0),
        ttl_by_status: vec![(404..=404, 0), (300..=599, 9)],
        stale_while_revalidate: Some(5),
        stale_if_error: Some(5),
        ..Policy::default()
    };
    for line in ["", "max-age=60"] {
        check_with(&none, 404, &[(CC, line), ("ETag", "\"a\"")], Err(Refusal::RuleForStatus));
        check_with(&none, 410, &[(CC, line)], Ok(()));
        check_with(&none, 200, &[(CC, line)], Ok(()));
    }
    let for_silence = Policy { ttl_overrides: false, ..none };
    check_with(&for_silence, 404, &[("ETag", "\"a\"")], Err(Refusal::RuleForStatus));
    check_with(&for_silence, 404, &[(CC, "max-age=60")], Ok(()));
}

#[test]
fn what_is_private_stays_private_whatever_the_rule() {
    let rule = Policy { ttl: Some(60), ttl_by_status: vec![(200..=299, 60)], ..Policy::default() };
    for policy in [&Policy::default(), &rule] {
        check_with(policy, 200, &[(CC, "no-store, max-age=60")], Err(Refusal::NoStore));
        check_with(policy, 200, &[(CC, "max-age=60"), (CC, "No-Store")], Err(Refusal::NoStore));
        check_with(policy, 200, &[(CC, "private, max-age=60")], Err(Refusal::Private));
        check_with(policy, 200, &[(CC, "private=\"\", max-age=60")], Err(Refusal::Private));
        check_with(policy, 200, &[(CC, "private=\"a\", max-age=60")], Ok(()));
        check_with(policy, 200, &[(CC, "max-age=60"), ("Vary", "a, *")], Err(Refusal::VaryStar));
        check_with(policy, 200, &[(CC, "max-age=60"), ("Vary", "a"), ("Vary", "*")], Err(Refusal::VaryStar));
        check_with(policy, 200, &[(CC, "max-age=60"), (CDN, "private")], Err(Refusal::Private));
        check_with(policy, 200, &[(CC, "max-age=60"), (CDN, "no-store")], Err(Refusal::NoStore));
    }
    // The origin's word to us by name is the one that counts.
    check(200, &[(CC, "no-store"), (CDN, "max-age=60")], Ok(()));
    check(200, &[(CC, "private"), ("Perigee-Cache-Control", "max-age=60")], Ok(()));
    check(200, &[(CC, "no-store"), (CDN, "max-age=60, &&")], Err(Refusal::NoStore));
}

#[test]
fn must_understand_trades_no_store_for_knowing_the_status() {
    let response = [(CC, "max-age=60, no-store, must-understand")];
    for status in [200, 204, 301, 302, 404, 451, 503] {
        check(status, &response, Ok(()));
    }
    for status in [299, 418, 499, 599, 999] {
        check(status, &response, Err(Refusal::MustUnderstand));
        check(status, &[(CC, "max-age=60, must-understand")], Err(Refusal::MustUnderstand));
    }
}

#[test]
fn an_authorized_answer_is_shared_when_the_origin_or_a_rule_says_so() {
    let check = |policy: &Policy, response: &[(&str, &str)], expected: Result<(), Refusal>| {
        let found = decide("GET", &[("Authorization", "Basic eA==")], 200, response, policy);
        assert_eq!(found.map(|_| ()), expected, "{response:?}");
    };
    let refused = Err(Refusal::Authorization);
    let default = Policy::default();
    check(&default, &[(CC, "max-age=60")], refused);
    check(&default, &[(CC, "max-age=60, proxy-revalidate")], refused);
    check(&default, &[(CDN, "max-age=60"), (CC, "public")], refused);
    check(&default, &[(CC, "max-age=60, public")], Ok(()));
    check(&default, &[(CC, "max-age=60, must-revalidate")], Ok(()));
    check(&default, &[(CC, "s-maxage=60")], Ok(()));
    check(&default, &[(CDN, "max-age=60, public")], Ok(()));
    check(&Policy { ttl: Some(60), ..Policy::default() }, &[], refused);
    check(&Policy { share_authorized: true, ..Policy::default() }, &[(CC, "max-age=60")], Ok(()));
    check(
        &Policy { share_authorized: true, ..Policy::default() },
        &[(CC, "max-age=60, private")],
        Err(Refusal::Private),
    );
}

#[test]
fn a_cookie_is_shared_only_by_name() {
    let policy = |set_cookie| Policy { set_cookie, ..Policy::default() };
    let cookie = ("Set-Cookie", "session=1");
    let check = |set_cookie: SetCookie, lines: &[(&str, &str)], expected: Result<bool, Refusal>| {
        let mut response = vec![cookie];
        response.extend_from_slice(lines);
        let policy = policy(set_cookie);
        let found = decide("GET", &[], 200, &response, &policy).map(|_| {
            let mut copy = fields(&response);
            strip_unstorable(&mut copy, &policy);
            copy.contains("set-cookie")
        });
        assert_eq!(found, expected, "{set_cookie:?} {lines:?}");
    };
    check(SetCookie::Refuse, &[(CC, "max-age=60")], Err(Refusal::SetCookie));
    check(SetCookie::Refuse, &[("ETag", "\"a\"")], Err(Refusal::SetCookie));
    check(SetCookie::Refuse, &[(CC, "max-age=60, public")], Ok(true));
    check(SetCookie::Refuse, &[(CC, "s-maxage=60")], Ok(true));
    check(SetCookie::Refuse, &[(CDN, "max-age=60")], Ok(true));
    check(SetCookie::Refuse, &[(CDN, "no-cache"), ("ETag", "\"a\"")], Err(Refusal::SetCookie));
    check(SetCookie::Refuse, &[(CC, "max-age=60, no-cache=\"set-cookie\"")], Ok(false));
    check(SetCookie::Refuse, &[(CC, "max-age=60, private=Set-Cookie")], Ok(false));
    check(SetCookie::Rfc9111, &[(CC, "max-age=60")], Ok(true));
    check(SetCookie::Rfc9111, &[(CC, "max-age=60, private=Set-Cookie")], Ok(false));
    check(SetCookie::Strip, &[(CC, "max-age=60")], Ok(false));
    check(SetCookie::Strip, &[(CC, "max-age=60, public")], Ok(false));
    for said in ["max-age=60", "max-age=60, public", "s-maxage=60", "max-age=60, private=Set-Cookie"] {
        check(SetCookie::Never, &[(CC, said)], Err(Refusal::SetCookie));
    }
    let uncooked = decide("GET", &[], 200, &[(CC, "max-age=60")], &policy(SetCookie::Never));
    assert!(uncooked.is_ok(), "it is about cookies alone");
    // A copy that is kept against decide_store's word has no cookie either.
    let mut copy = fields(&[cookie, (CC, "max-age=60")]);
    strip_unstorable(&mut copy, &Policy::default());
    assert!(!copy.contains("set-cookie"));
    check_with(&Policy { ttl: Some(60), ..Policy::default() }, 200, &[cookie], Err(Refusal::SetCookie));
}

#[test]
fn the_copy_lacks_the_fields_that_are_for_one_user() {
    let check = |value: &str, expected: &str| {
        let mut copy = fields(&[(CC, value), ("A", "1"), ("B", "2"), ("a", "3"), ("C", "4")]);
        strip_unstorable(&mut copy, &Policy::default());
        let names: Vec<_> =
            copy.iter().skip(1).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        assert_eq!(names.join(" "), expected, "{value}");
    };
    check("no-cache=\"a\"", "B C");
    check("private=\"a, b\"", "C");
    check("private=\"a\", no-cache=c", "B");
    check("max-age=1", "A B a C");
}

#[test]
fn a_posts_answer_serves_gets_when_it_is_the_targets_own_content() {
    let check = |method: &str,
                 status: u16,
                 response: &[(&str, &str)],
                 policy: &Policy,
                 expected: Result<(), Refusal>| {
        let found = decide(method, &[], status, response, policy);
        assert_eq!(found.map(|_| ()), expected, "{method} {response:?}");
    };
    let (default, refused) = (Policy::default(), Err(Refusal::Method));
    let own = ("Content-Location", "/cart?x");
    check("POST", 200, &[own, (CC, "max-age=60")], &default, Ok(()));
    check(
        "POST",
        200,
        &[("Content-Location", "http://shop.example/cart?x"), (CC, "max-age=60")],
        &default,
        Ok(()),
    );
    check("POST", 200, &[("Content-Location", ""), (CC, "max-age=60")], &default, Ok(()));
    check("POST", 200, &[own, (CC, "max-age=60, private")], &default, Err(Refusal::Private));
    check("POST", 200, &[("Content-Location", "/other"), (CC, "max-age=60")], &default, refused);
    check(
        "POST",
        200,
        &[("Content-Location", "http://evil.example/cart?x"), (CC, "max-age=60")],
        &default,
        refused,
    );
    check("POST", 200, &[(CC, "max-age=60")], &default, refused);
    check("POST", 200, &[own, ("Last-Modified", "Sun, 20 Sep 2026 14:13:20 GMT")], &default, refused);
    check("POST", 200, &[own], &Policy { ttl: Some(60), ..Policy::default() }, refused);
    check("POST", 303, &[own, (CC, "max-age=60")], &default, refused);
    for method in ["HEAD", "PUT", "DELETE", "OPTIONS", "get", "FOO"] {
        check(method, 200, &[own, (CC, "max-age=60")], &default, refused);
    }
}

#[test]
fn a_requests_no_store_is_heeded_where_requests_are_honoured() {
    let request = [(CC, "no-store")];
    let response = [(CC, "max-age=60")];
    assert!(decide("GET", &request, 200, &response, &Policy::default()).is_ok());
    let honour = Policy { request_cache_control: RequestCacheControl::Honour, ..Policy::default() };
    assert_eq!(decide("GET", &request, 200, &response, &honour), Err(Refusal::RequestNoStore));
}

#[test]
fn facts_carry_what_reuse_needs() {
    let found = |response: &[(&str, &str)]| decide("GET", &[], 200, response, &Policy::default()).unwrap();
    let full = "max-age=60, stale-while-revalidate=5, stale-if-error=6, immutable, must-revalidate";
    let facts = found(&[
        (CC, full),
        ("ETag", "\"a\""),
        ("Age", "7"),
        ("Last-Modified", "Sun, 20 Sep 2026 14:13:20 GMT"),
    ]);
    assert_eq!(
        facts,
        Facts {
            response_time: NOW,
            initial_age_ms: 7000,
            lifetime: 60,
            stale_while_revalidate: 5,
            stale_if_error: 6,
            status: 200,
            source: LifetimeSource::MaxAge,
            flags: Flags::IMMUTABLE
                .with(Flags::NEVER_STALE)
                .with(Flags::STALE_IF_ERROR)
                .with(Flags::STRONG_ETAG)
                .with(Flags::LAST_MODIFIED),
        }
    );
    assert!(found(&[("ETag", "W/\"a\"")]).flags.has(Flags::WEAK_ETAG));
    assert!(found(&[(CC, "s-maxage=1")]).flags.has(Flags::STALE_IF_NAMED));
    assert!(found(&[(CC, "proxy-revalidate, max-age=1")]).flags.has(Flags::NEVER_STALE));
    let no_cache = found(&[(CC, "no-cache, max-age=60"), ("ETag", "\"a\"")]);
    assert!(no_cache.flags.has(Flags::NO_CACHE) && no_cache.flags.has(Flags::NEVER_STALE));
    let ruled = Policy { ttl: Some(60), ..Policy::default() };
    let ruled = decide("GET", &[], 200, &[(CC, "no-cache")], &ruled).unwrap();
    assert!(!ruled.flags.has(Flags::NO_CACHE) && ruled.flags.has(Flags::NEVER_STALE));
}

#[test]
fn every_refusal_has_words() {
    let all = [
        Refusal::Method,
        Refusal::Status,
        Refusal::Part,
        Refusal::RequestNoStore,
        Refusal::MustUnderstand,
        Refusal::NoStore,
        Refusal::Private,
        Refusal::VaryStar,
        Refusal::Authorization,
        Refusal::SetCookie,
        Refusal::NoFreshness,
        Refusal::TooLarge,
    ];
    let mut names: Vec<_> = all.iter().map(|refusal| refusal.as_str()).collect();
    assert!(all.iter().all(|refusal| refusal.sentence().ends_with('.')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// Lines near enough to real ones to get past the first comparison.
    fn line() -> impl Strategy<Value = (String, String)> {
        let name = prop::sample::select(vec![
            "Cache-Control",
            "CDN-Cache-Control",
            "Perigee-Cache-Control",
            "Expires",
            "Date",
            "Age",
            "Last-Modified",
            "ETag",
            "Vary",
            "Set-Cookie",
            "Pragma",
            "Content-Location",
            "Content-Range",
            "If-None-Match",
            "If-Modified-Since",
            "If-Match",
            "If-Unmodified-Since",
            "Authorization",
            "Cache-Group-Invalidation",
        ]);
        let piece = prop::sample::select(vec![
            "max-age=",
            "s-maxage=",
            "public",
            "must-revalidate",
            "no-cache",
            "=\"",
            "\"",
            ", ",
            "60",
            "99999999999999",
            "-1",
            "stale-while-revalidate=9",
            "W/\"a\"",
            "*",
            "a",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "2050",
            "\\",
            " ",
            "immutable",
            "must-understand",
            "private=\"a\"",
            "é",
        ]);
        let value =
            prop_oneof![prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat()), "\\PC{0,20}",];
        (name.prop_map(str::to_owned), value)
    }

    fn lines() -> impl Strategy<Value = Fields> {
        prop::collection::vec(line(), 0..8).prop_map(|lines| lines.into_iter().collect())
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let secs = || prop::option::of(prop::sample::select(vec![0, 1, 60, u64::MAX]));
        (secs(), secs(), secs(), any::<(bool, bool)>(), 0..3u8).prop_map(
            |(ttl, swr, sie, (honour, share), cookie)| Policy {
                ttl,
                ttl_by_status: ttl.map(|ttl| (400..=599, ttl)).into_iter().collect(),
                stale_while_revalidate: swr,
                stale_if_error: sie,
                request_cache_control: if honour {
                    RequestCacheControl::Honour
                } else {
                    RequestCacheControl::Ignore
                },
                share_authorized: share,
                set_cookie: [SetCookie::Refuse, SetCookie::Rfc9111, SetCookie::Strip][usize::from(cookie)],
                ..Policy::default()
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_panics_and_every_sum_adds_up(
            request in lines(),
            response in lines(),
            policy in policy(),
            status: u16,
            times: [i64; 3],
        ) {
            let target = Target { authority: "a", origin_authority: None, path_and_query: "/" };
            let [asked, answered, now] = times;
            let directives = RequestDirectives::parse(&request);
            for method in ["GET", "POST"] {
                let store = StoreRequest { method, fields: &request, target };
                let found = decide_store(&store, status, &response, &policy, Wall(asked), Wall(answered));
                let Ok(facts) = found else { continue };
                let assessment = decide_reuse(&facts, &directives, &policy, Wall(now));
                prop_assert_eq!(assessment.ttl > 0, facts.ttl(Wall(now)) > 0);
                prop_assert!(!freshness::lifetime_origin(&facts, &policy).is_empty());
                let stored = crate::conditional::Validators::of(&response);
                let _ = crate::conditional::evaluate_preconditions(&request, method, &stored, &facts, Wall(now));
            }
            let _ = crate::update::merge_304(&response, &request);
            let _ = crate::update::update_from_head(&response, Some(3), 200, &request);
            let _ = crate::invalidation::invalidated_by("POST", 200, &target, &response);
            let mut copy = response.clone();
            strip_unstorable(&mut copy, &policy);
        }

        #[test]
        fn what_is_private_or_not_to_be_stored_never_is(
            before in lines(),
            after in lines(),
            word in prop::sample::select(vec!["no-store", "private", "No-Store", "PRIVATE, max-age=60", "private=\"\""]),
            policy in policy(),
            status in 200..600u16,
        ) {
            let mut response = Fields::new();
            response.append(CC, word).unwrap();
            for (name, value) in before.iter().chain(after.iter()) {
                // Targeted fields and must-understand may lift the ban: that is what they are for.
                let lifts = name.ends_with(b"-Cache-Control") || value.windows(15).any(|part| part == b"must-understand");
                if !lifts {
                    response.append(name, value).unwrap();
                }
            }
            let request = Fields::new();
            let target = Target { authority: "a", origin_authority: None, path_and_query: "/" };
            let store = StoreRequest { method: "GET", fields: &request, target };
            prop_assert!(decide_store(&store, status, &response, &policy, NOW, NOW).is_err());
        }

        #[test]
        fn what_must_be_validated_never_answers_by_itself(
            lines in lines(),
            swr in prop::option::of(0..1000u64),
            elapsed in 0..10_000i64,
        ) {
            let mut response = Fields::new();
            response.append(CC, "no-cache").unwrap();
            for (name, value) in lines.iter().filter(|(name, _)| !name.ends_with(b"-Cache-Control")) {
                response.append(name, value).unwrap();
            }
            let request = Fields::new();
            let target = Target { authority: "a", origin_authority: None, path_and_query: "/" };
            let store = StoreRequest { method: "GET", fields: &request, target };
            let policy = Policy { stale_while_revalidate: swr, stale_if_error: swr, ..Policy::default() };
            if let Ok(facts) = decide_store(&store, 200, &response, &policy, NOW, NOW) {
                let found = decide_reuse(&facts, &RequestDirectives::default(), &policy, Wall(NOW.0 + elapsed * 1000));
                prop_assert_eq!(found.reuse, Reuse::Revalidate { stale_on: crate::StaleOn::Nothing });
            }
        }
    }
}

#[test]
fn a_date_of_now_costs_no_freshness() {
    let now = date::format(NOW);
    let response = [("Date", now.as_str()), (CC, "max-age=1")];
    let facts = decide("GET", &[], 200, &response, &Policy::default()).unwrap();
    assert_eq!((facts.ttl(NOW), facts.ttl(Wall(NOW.0 + 999)), facts.ttl(Wall(NOW.0 + 1000))), (1, 1, 0));
}
