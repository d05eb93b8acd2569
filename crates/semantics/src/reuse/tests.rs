use super::*;
use crate::freshness::LifetimeSource;

const NOW: Wall = Wall::from_secs(1_790_000_000);

/// Fresh for 100 s from [`NOW`].
const FACTS: Facts = Facts {
    response_time: NOW,
    initial_age_ms: 0,
    lifetime: 100,
    stale_while_revalidate: 0,
    stale_if_error: 0,
    status: 200,
    source: LifetimeSource::MaxAge,
    flags: Flags::NONE,
};

const NONE: RequestDirectives = RequestDirectives {
    max_age: None,
    max_stale: None,
    min_fresh: None,
    stale_if_error: None,
    no_cache: false,
    no_store: false,
    only_if_cached: false,
};

fn honouring() -> Policy {
    Policy { request_cache_control: RequestCacheControl::Honour, ..Policy::default() }
}

fn assess(facts: &Facts, request: &RequestDirectives, policy: &Policy, secs: i64) -> Assessment {
    decide_reuse(facts, request, policy, Wall(NOW.0 + secs * 1000))
}

#[test]
fn fresh_until_the_age_reaches_the_lifetime() {
    let check = |facts: &Facts, secs: i64, fresh: bool, age: u32, ttl: i64| {
        let found = assess(facts, &NONE, &Policy::default(), secs);
        assert_eq!((found.reuse == Reuse::Fresh, found.age, found.ttl), (fresh, age, ttl), "{secs}");
        assert_eq!(found.why, if fresh { Why::Fresh } else { Why::Expired });
    };
    check(&FACTS, 0, true, 0, 100);
    check(&FACTS, 99, true, 99, 1);
    check(&FACTS, 100, false, 100, 0);
    check(&FACTS, 200, false, 200, -100);
    check(&FACTS, -50, true, 0, 100); // the clock went back
    let aged = Facts { initial_age_ms: 40_000, ..FACTS };
    check(&aged, 59, true, 99, 1);
    check(&aged, 60, false, 100, 0);
    check(&Facts { lifetime: 0, ..FACTS }, 0, false, 0, 0);
    let no_cache = Facts { flags: Flags::NO_CACHE, ..FACTS };
    check(&no_cache, 0, false, 0, 100);
}

#[test]
fn stale_answers_within_the_window_of_response_or_rule() {
    let check = |facts: Facts, rule: Option<u64>, secs: i64, served: bool| {
        let policy = Policy { stale_while_revalidate: rule, ..Policy::default() };
        let found = assess(&facts, &NONE, &policy, secs);
        assert_eq!(found.reuse == Reuse::StaleWhileRevalidate, served, "{facts:?} {rule:?} {secs}");
        let why = if served { Why::StaleWhileRevalidate } else { Why::Expired };
        assert_eq!(found.why, why);
    };
    let with =
        |flags: Flags, source: LifetimeSource| Facts { stale_while_revalidate: 4, flags, source, ..FACTS };
    let plain = with(Flags::NONE, LifetimeSource::MaxAge);
    check(plain, None, 100, true);
    check(plain, None, 103, true);
    check(plain, None, 104, false);
    check(plain, Some(50), 149, true);
    check(plain, Some(50), 150, false);
    check(plain, Some(0), 100, false);
    check(FACTS, None, 100, false);
    check(FACTS, Some(50), 149, true);
    // must-revalidate and its kin win over both,
    let never = with(Flags::NEVER_STALE, LifetimeSource::MaxAge);
    check(never, None, 100, false);
    check(never, Some(50), 100, false);
    // unless the rule has replaced the lifetime and names the window.
    let ruled = with(Flags::NEVER_STALE, LifetimeSource::Rule);
    check(ruled, None, 100, false);
    check(ruled, Some(50), 149, true);
    // A bare s-maxage leaves a named window alone.
    let shared = with(Flags::STALE_IF_NAMED, LifetimeSource::SMaxage);
    check(shared, None, 103, true);
    check(with(Flags::NO_CACHE.with(Flags::NEVER_STALE), LifetimeSource::MaxAge), Some(50), 100, false);
}

#[test]
fn an_error_is_hidden_when_named_and_an_outage_unless_forbidden() {
    let check =
        |facts: Facts, rule: Option<u64>, request: RequestDirectives, secs: i64, expected: StaleOn| {
            let policy = Policy { stale_if_error: rule, ..Policy::default() };
            let now = Wall(NOW.0 + secs * 1000);
            assert_eq!(stale_on(&facts, &request, &policy, now), expected, "{facts:?} {rule:?} {secs}");
        };
    let (day, named) =
        (UNREACHABLE_SECS as i64, Facts { stale_if_error: 60, flags: Flags::STALE_IF_ERROR, ..FACTS });
    check(FACTS, None, NONE, 100, StaleOn::Unreachable);
    check(FACTS, None, NONE, 100 + day - 1, StaleOn::Unreachable);
    check(FACTS, None, NONE, 100 + day, StaleOn::Nothing);
    check(FACTS, Some(0), NONE, 100, StaleOn::Nothing);
    check(FACTS, Some(9), NONE, 108, StaleOn::Error);
    check(FACTS, Some(9), NONE, 109, StaleOn::Nothing);
    check(named, None, NONE, 159, StaleOn::Error);
    check(named, None, NONE, 160, StaleOn::Nothing);
    check(named, Some(600), NONE, 160, StaleOn::Error);
    check(Facts { stale_if_error: 0, ..named }, None, NONE, 100, StaleOn::Nothing);
    for flags in [Flags::NEVER_STALE, Flags::NO_CACHE.with(Flags::NEVER_STALE)] {
        let never = Facts { flags: flags.with(Flags::STALE_IF_ERROR), ..named };
        check(never, None, NONE, 100, StaleOn::Nothing);
        check(never, Some(600), NONE, 100, StaleOn::Nothing);
    }
    let ruled = Facts { flags: Flags::NEVER_STALE, source: LifetimeSource::Rule, ..FACTS };
    check(ruled, None, NONE, 100, StaleOn::Nothing);
    check(ruled, Some(600), NONE, 100, StaleOn::Error);
    let shared = Facts { flags: Flags::STALE_IF_NAMED, ..FACTS };
    check(shared, None, NONE, 100, StaleOn::Nothing);
    check(shared, Some(600), NONE, 100, StaleOn::Error);
    let shared_named =
        Facts { stale_if_error: 60, flags: Flags::STALE_IF_NAMED.with(Flags::STALE_IF_ERROR), ..FACTS };
    check(shared_named, None, NONE, 159, StaleOn::Error);
    // The client may ask for it too.
    let asks = RequestDirectives { stale_if_error: Some(30), ..NONE };
    check(FACTS, None, asks, 129, StaleOn::Error);
    check(FACTS, None, asks, 130, StaleOn::Unreachable);
    check(shared, None, asks, 100, StaleOn::Nothing);
}

#[test]
fn clients_get_newer_answers_only_where_that_is_honoured() {
    let check = |request: RequestDirectives, facts: Facts, secs: i64, refused: bool| {
        let ignored = assess(&facts, &request, &Policy::default(), secs);
        assert_eq!(ignored.reuse, Reuse::Fresh, "{request:?}");
        let honoured = assess(&facts, &request, &honouring(), secs);
        assert_eq!(honoured.reuse != Reuse::Fresh, refused, "{request:?} {secs}");
        assert_eq!(honoured.why, if refused { Why::RequestDirective } else { Why::Fresh });
    };
    check(NONE, FACTS, 50, false);
    check(RequestDirectives { no_cache: true, ..NONE }, FACTS, 0, true);
    check(RequestDirectives { max_age: Some(0), ..NONE }, FACTS, 0, true);
    check(RequestDirectives { max_age: Some(50), ..NONE }, FACTS, 50, false);
    check(RequestDirectives { max_age: Some(50), ..NONE }, FACTS, 51, true);
    check(RequestDirectives { min_fresh: Some(50), ..NONE }, FACTS, 50, false);
    check(RequestDirectives { min_fresh: Some(50), ..NONE }, FACTS, 51, true);
    let immutable = Facts { flags: Flags::IMMUTABLE, ..FACTS };
    check(RequestDirectives { max_age: Some(0), ..NONE }, immutable, 50, false);
    check(RequestDirectives { no_cache: true, ..NONE }, immutable, 50, true);
    // A refused answer does not come back as a stale one.
    let windowed = Facts { stale_while_revalidate: 1000, ..FACTS };
    check(RequestDirectives { no_cache: true, ..NONE }, windowed, 50, true);
}

#[test]
fn max_stale_spares_the_origin_and_is_always_honoured() {
    let check = |max_stale: u32, flags: Flags, secs: i64, served: bool| {
        for policy in [Policy::default(), honouring()] {
            let request = RequestDirectives { max_stale: Some(max_stale), ..NONE };
            let found = assess(&Facts { flags, ..FACTS }, &request, &policy, secs);
            assert_eq!(found.reuse == Reuse::StaleWhileRevalidate, served, "{max_stale} {flags:?} {secs}");
        }
    };
    check(10, Flags::NONE, 100, true);
    check(10, Flags::NONE, 110, true);
    check(10, Flags::NONE, 111, false);
    check(0, Flags::NONE, 100, true);
    check(u32::MAX, Flags::NONE, 1_000_000_000, true);
    check(u32::MAX, Flags::NEVER_STALE, 100, false);
    check(u32::MAX, Flags::STALE_IF_NAMED, 100, false);
    check(u32::MAX, Flags::NO_CACHE, 100, false);
}
