use proptest::prelude::*;

use super::*;

const SUBJECT: Subject =
    Subject { site: 7, url: 1, host: "a.example", path: "/static/img/x.png", tags: &[10, 11], position: 5 };

fn purge(kind: Kind, target: Target) -> Purge {
    Purge { target, kind }
}

fn prefix(host: Option<&str>, path: &str) -> Target {
    Target::Prefix { site: 7, host: host.map(str::to_owned), path: path.to_owned() }
}

/// What [`SUBJECT`] (fetched at position 5) is after these purges.
fn check(purges: &[(Kind, Target, u64)], expected: Option<(Kind, u64)>) {
    let mut clock = PurgeClock::new(Limits::default());
    for (kind, target, position) in purges {
        clock.record(purge(*kind, target.clone()), *position);
    }
    assert_eq!(clock.check(&SUBJECT), expected, "{purges:?}");
}

#[test]
fn each_target_matches_what_it_names_and_nothing_else() {
    let hits = [
        Target::Everything,
        Target::Site(7),
        Target::Tag { site: Some(7), tag: 11 },
        Target::Tag { site: None, tag: 11 },
        Target::Url { site: 7, url: 1 },
        prefix(None, ""),
        prefix(None, "/"),
        prefix(None, "/static/i"),
        prefix(None, "/static/img/x.png"),
        prefix(Some("a.example"), "/static/"),
    ];
    let misses = [
        Target::Site(8),
        Target::Tag { site: Some(7), tag: 12 },
        Target::Tag { site: None, tag: 12 },
        Target::Tag { site: Some(8), tag: 11 },
        Target::Url { site: 7, url: 2 },
        Target::Url { site: 8, url: 1 },
        prefix(None, "/static/img/x.png/"),
        prefix(None, "/Static"),
        prefix(None, "static"),
        prefix(Some("b.example"), "/static/"),
        prefix(Some("a.example"), "/other"),
    ];
    for kind in [Kind::Hard, Kind::Soft] {
        for target in &hits {
            check(&[(kind, target.clone(), 6)], Some((kind, 6)));
            check(&[(kind, target.clone(), 5)], None);
        }
        for target in &misses {
            check(&[(kind, target.clone(), 6)], None);
        }
    }
}

#[test]
fn the_strongest_newer_purge_applies_in_whatever_order_they_came() {
    use Kind::*;
    let site = || Target::Site(7);
    let tag = || Target::Tag { site: Some(7), tag: 10 };
    check(&[(Hard, site(), 6), (Soft, site(), 7)], Some((Hard, 6)));
    check(&[(Soft, site(), 6), (Hard, site(), 7)], Some((Hard, 7)));
    check(&[(Soft, site(), 7), (Hard, tag(), 6)], Some((Hard, 6)));
    check(&[(Hard, site(), 4), (Soft, tag(), 6)], Some((Soft, 6)));
    check(&[(Soft, site(), 9), (Soft, tag(), 6)], Some((Soft, 9)));
    check(&[(Soft, tag(), 9), (Soft, tag(), 6)], Some((Soft, 9)));
    check(&[(Hard, site(), 4), (Soft, tag(), 5)], None);
    check(&[(Doubt, Target::Everything, 6), (Soft, site(), 7)], Some((Doubt, 6)));
    check(&[(Doubt, Target::Everything, 7), (Hard, site(), 6)], Some((Hard, 6)));
    check(&[(Doubt, Target::Everything, 5)], None);
    check(&[(Doubt, site(), 6)], Some((Hard, 6)));
}

#[test]
fn a_long_prefix_counts_as_its_first_bytes() {
    let long = "/".to_owned() + &"x".repeat(PREFIX_BYTES_MAX);
    let mut clock = PurgeClock::default();
    clock.record(purge(Kind::Hard, prefix(None, &long)), 6);
    assert_eq!(clock.check(&Subject { path: &long[..PREFIX_BYTES_MAX - 1], ..SUBJECT }), None);
    assert_eq!(clock.check(&Subject { path: &long[..PREFIX_BYTES_MAX], ..SUBJECT }), Some((Kind::Hard, 6)));
}

#[test]
fn the_busiest_site_is_folded_and_the_others_keep_their_precision() {
    let limits = Limits { urls_max: 100, tags_max: 100, prefixes_max: 100, sites_max: 4 };
    let mut clock = PurgeClock::new(limits);
    clock.record(purge(Kind::Hard, Target::Url { site: 1, url: 0 }), 1);
    for position in 2..=101 {
        clock.record(purge(Kind::Soft, Target::Url { site: 7, url: u128::from(position) }), position);
    }
    let stats = clock.stats();
    assert_eq!((stats.urls, stats.folds, stats.folded), (51, 1, 50));
    // Site 7 forgot positions 2 to 51: whatever is older than 51 is stale, as those purges were soft.
    let subject = |site, url, position| Subject { site, url, position, ..SUBJECT };
    assert_eq!(clock.check(&subject(7, 999, 50)), Some((Kind::Soft, 51)));
    assert_eq!(clock.check(&subject(7, 999, 51)), None);
    assert_eq!(clock.check(&subject(7, 60, 51)), Some((Kind::Soft, 60)));
    assert_eq!(clock.check(&subject(1, 999, 0)), None);
    assert_eq!(clock.check(&subject(1, 0, 0)), Some((Kind::Hard, 1)));
}

#[test]
fn tags_of_all_sites_are_folded_for_all_sites() {
    let mut clock = PurgeClock::new(Limits { tags_max: 10, ..Limits::default() });
    clock.record(purge(Kind::Hard, Target::Tag { site: Some(1), tag: 99 }), 1);
    (2..=11).for_each(|position| {
        clock.record(purge(Kind::Soft, Target::Tag { site: None, tag: position }), position)
    });
    assert_eq!((clock.stats().tags, clock.stats().folded), (6, 5));
    assert_eq!(clock.check(&Subject { tags: &[], position: 5, ..SUBJECT }), Some((Kind::Soft, 6)));
    assert_eq!(clock.check(&Subject { tags: &[7], position: 6, ..SUBJECT }), Some((Kind::Soft, 7)));
    assert_eq!(clock.check(&Subject { tags: &[99], site: 1, position: 0, ..SUBJECT }), Some((Kind::Hard, 1)));
}

#[test]
fn a_purge_of_one_site_too_many_counts_for_everything() {
    let limits = Limits { sites_max: 1, ..Limits::default() };
    let mut clock = PurgeClock::new(limits);
    clock.record(purge(Kind::Soft, Target::Site(1)), 6);
    assert_eq!(clock.check(&SUBJECT), None);
    clock.record(purge(Kind::Soft, Target::Site(2)), 7);
    assert_eq!(clock.check(&SUBJECT), Some((Kind::Soft, 7)));
    assert_eq!(clock.stats().sites, 1);
}

#[test]
fn a_clone_goes_its_own_way() {
    let mut clock = PurgeClock::default();
    clock.record(purge(Kind::Soft, Target::Site(7)), 6);
    let before = clock.clone();
    clock.record(purge(Kind::Hard, Target::Site(7)), 7);
    assert_eq!(before.check(&SUBJECT), Some((Kind::Soft, 6)));
    assert_eq!(clock.check(&SUBJECT), Some((Kind::Hard, 7)));
}

// --- Against a list of all purges ---

/// The definition: every purge is kept and tried.
fn naive(purges: &[(Purge, u64)], subject: &Subject) -> Option<(Kind, u64)> {
    let matching = purges.iter().filter(|(purge, position)| {
        *position > subject.position
            && match &purge.target {
                Target::Everything => true,
                Target::Site(site) => *site == subject.site,
                Target::Prefix { site, host, path } => {
                    *site == subject.site
                        && host.as_ref().is_none_or(|host| host == subject.host)
                        && subject.path.starts_with(path.as_str())
                }
                Target::Tag { site, tag } => {
                    site.is_none_or(|site| site == subject.site) && subject.tags.contains(tag)
                }
                Target::Url { site, url } => *site == subject.site && *url == subject.url,
            }
    });
    let kind = |purge: &Purge| match purge.kind {
        Kind::Doubt if purge.target != Target::Everything => Kind::Hard,
        kind => kind,
    };
    matching.map(|(purge, position)| (kind(purge), *position)).max()
}

const HOSTS: [&str; 2] = ["a.example", "b.example"];
const PATHS: [&str; 8] = ["", "/", "/a", "/a/", "/a/b", "/a/bc", "/ab/c/d", "/é/x"];

fn purges() -> impl Strategy<Value = Vec<(Purge, u64)>> {
    let site = 0u32..3;
    let target = prop_oneof![
        1 => Just(Target::Everything),
        2 => site.clone().prop_map(Target::Site),
        8 => (site.clone(), proptest::option::of(0..HOSTS.len()), 0..PATHS.len()).prop_map(
            |(site, host, path)| Target::Prefix {
                site,
                host: host.map(|host| HOSTS[host].to_owned()),
                path: PATHS[path].to_owned(),
            }
        ),
        8 => (proptest::option::weighted(0.7, site.clone()), 0u64..6).prop_map(|(site, tag)| Target::Tag { site, tag }),
        8 => (site, 0u128..6).prop_map(|(site, url)| Target::Url { site, url }),
    ];
    let kind = prop_oneof![Just(Kind::Hard), Just(Kind::Soft), Just(Kind::Doubt)];
    let purge = (target, kind).prop_map(|(target, kind)| Purge { target, kind });
    // Positions in any order, and the same one more than once.
    proptest::collection::vec((purge, 1u64..60), 0..60)
}

fn subjects() -> impl Strategy<Value = Vec<(u32, u128, usize, usize, Vec<u64>, u64)>> {
    let tags = proptest::collection::vec(0u64..6, 0..3);
    proptest::collection::vec((0u32..3, 0u128..6, 0..HOSTS.len(), 0..PATHS.len(), tags, 0u64..60), 30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_list_of_all_purges(purges in purges(), subjects in subjects()) {
        let mut clock = PurgeClock::default();
        for (purge, position) in &purges {
            clock.record(purge.clone(), *position);
        }
        for (site, url, host, path, tags, position) in &subjects {
            let subject = Subject {
                site: *site, url: *url, host: HOSTS[*host], path: PATHS[*path], tags, position: *position,
            };
            prop_assert_eq!(clock.check(&subject), naive(&purges, &subject), "{:?}", subject);
        }
    }

    #[test]
    fn with_tight_limits_more_is_purged_but_never_less(
        purges in purges(), subjects in subjects(), max in 1usize..8, sites_max in 1usize..4,
    ) {
        let limits = Limits { urls_max: max, tags_max: max, prefixes_max: max, sites_max };
        let mut clock = PurgeClock::new(limits);
        for (recorded, (purge, position)) in purges.iter().enumerate() {
            clock.record(purge.clone(), *position);
            let stats = clock.stats();
            prop_assert!(stats.urls <= max && stats.tags <= max && stats.prefixes <= max);
            prop_assert!(stats.sites <= sites_max);
            for (site, url, host, path, tags, position) in subjects.iter().take(8) {
                let subject = Subject {
                    site: *site, url: *url, host: HOSTS[*host], path: PATHS[*path], tags, position: *position,
                };
                // Later positions and harder kinds compare greater, `None` least.
                let (found, wanted) = (clock.check(&subject), naive(&purges[..=recorded], &subject));
                prop_assert!(found >= wanted, "{found:?} < {wanted:?} for {subject:?}");
                prop_assert!(found.is_none_or(|(_, purged)| purged > subject.position));
            }
        }
    }

    #[test]
    fn an_object_found_clean_may_take_the_newest_position(purges in purges(), subjects in subjects()) {
        let (early, late) = purges.split_at(purges.len() / 2);
        let mut clock = PurgeClock::default();
        early.iter().for_each(|(purge, position)| clock.record(purge.clone(), *position));
        let raised = clock.newest();
        // What comes later has higher positions.
        let late: Vec<(Purge, u64)> = late.iter().map(|(purge, at)| (purge.clone(), at + raised)).collect();
        let mut after = clock.clone();
        late.iter().for_each(|(purge, position)| after.record(purge.clone(), *position));
        for (site, url, host, path, tags, position) in &subjects {
            let subject = Subject {
                site: *site, url: *url, host: HOSTS[*host], path: PATHS[*path], tags, position: *position,
            };
            if clock.check(&subject).is_none() {
                let lifted = Subject { position: raised.max(subject.position), ..subject };
                // An object from beyond the clock's newest keeps its own position.
                prop_assert_eq!(after.check(&lifted), after.check(&subject));
            }
        }
    }
}
