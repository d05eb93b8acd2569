use model::routing::place;
use proptest::prelude::*;

use super::*;
use crate::compile::Compiler;
use crate::estimate::Sample;

fn pop(name: &str) -> Pop {
    Pop {
        name: name.into(),
        location: place(name),
        cname: None,
        beacon: None,
        share: None,
        nodes: Vec::new(),
        edges: vec!["192.0.2.1".parse().unwrap()],
        regions: Vec::new(),
        networks: Vec::new(),
        bias_ms: 0.0,
        capacity: None,
        drain: false,
        last_resort: false,
        line: 0,
    }
}

/// Clients of Germany in 10.0.0.0/9, of Japan in the rest of 10/8, mixed in 11.1.0.0/16; nobody knows the rest.
fn location() -> Arc<Location> {
    static MADE: std::sync::OnceLock<Arc<Location>> = std::sync::OnceLock::new();
    Arc::clone(MADE.get_or_init(make_location))
}

fn make_location() -> Arc<Location> {
    let mut compiler = Compiler::new();
    let mut list = String::from(
        "10.0.0.0/9,FRA\n10.128.0.0/9,NRT\n2001:db8::/32,FRA\n2001:dc0::/32,FRA\n2001:db8:8000::/33,NRT\n",
    );
    for third in 0..256 {
        list.push_str(&format!("11.1.{third}.0/24,{}\n", ["FRA", "JFK", "NRT"][(third / 16) % 3]));
    }
    compiler.list(&list, "list");
    compiler.systems(SYSTEMS, "systems");
    assert_eq!(compiler.bad_lines, 0);
    Arc::new(compiler.finish(0))
}

const SYSTEMS: &str = "10.0.0.0,10.63.255.255,64500\n10.128.3.0,10.128.77.255,64501\n11.1.16.0\t11.1.25.255\tAS64502\tname\n\
    2001:db8:1000::,2001:db8:1fff:ffff:ffff:ffff:ffff:ffff,64503\n";

/// Measured: visitors of each of these systems, and of some prefixes, get to the last PoP at once, and to the others late.
fn measured() -> Arc<Estimates> {
    let mut estimates = Estimates::default();
    let prefixes =
        ["10.70.16.1", "10.200.0.1", "2001:db8:9000::1"].map(|address| location().systems().of(at(address)));
    for asn in (64_500..64_504).chain(prefixes) {
        for (pop, rtt_ms) in [(0, 400.0), (1, 400.0), (2, 20.0)] {
            let sample =
                Sample { cell: 1, country: [0; 2], asn, pop, km: 500.0, is_placed: true, rtt_ms, count: 30 };
            (0..30).for_each(|_| assert!(estimates.add(&sample).is_ok()));
        }
    }
    Arc::new(estimates)
}

#[test]
fn a_system_that_was_measured_is_sent_where_it_is_fast_and_its_neighbours_are_not() {
    let world = world(|_| {});
    let view = View { estimates: measured(), ..View::default() };
    let table = Table::build(&world, &ALL, &view);
    for (address, bits) in
        [("10.1.2.3", 24), ("10.63.255.1", 24), ("11.1.17.1", 24), ("2001:db8:1234::1", 48)]
    {
        let found = table.find(&world, at(address), bits);
        let ranking = world.rank_client(at(address), &ALL, &view);
        assert_eq!((found.pop, ranking.order[0].pop, ranking.why), (2, 2, Why::Measured), "{address}");
    }
    assert_eq!(
        table.find(&world, at("10.1.2.3"), 24).scope,
        16,
        "a system's networks share an answer, within a /16"
    );
    assert_eq!(table.find(&world, at("2001:db8:1234::1"), 48).scope, 36);
}

#[test]
fn a_prefix_that_was_measured_is_sent_where_it_is_fast_and_the_next_one_is_not() {
    let world = world(|_| {});
    let mut estimates = Estimates::default();
    let mut measure = |address: &str, rtts_ms: [f64; 3]| {
        let (cell, asn) = (world.location.cell(at(address)), world.location.systems().of(at(address)));
        for (pop, rtt_ms) in (0..).zip(rtts_ms) {
            let km = world.km(cell, pop);
            let sample = Sample { cell, country: [0; 2], asn, pop, km, is_placed: true, rtt_ms, count: 30 };
            (0..30).for_each(|_| assert!(estimates.add(&sample).is_ok()));
        }
    };
    for (slow, fast) in [("10.70.16.1", "10.70.32.1"), ("2001:db8:1::1", "2001:db8:2001::1")] {
        measure(slow, [400.0, 100.0, 250.0]);
        measure(fast, [20.0, 100.0, 250.0]);
    }
    let view = View { estimates: Arc::new(estimates), ..View::default() };
    let table = Table::build(&world, &ALL, &view);
    for (address, bits, wanted) in [
        ("10.70.31.9", 24, Some((1, None))),
        ("10.70.47.9", 24, Some((0, Some(19)))),
        ("10.70.99.9", 24, None),
        ("10.99.0.1", 24, None),
        ("2001:db8:fff::1", 48, Some((1, Some(36)))),
        ("2001:db8:2fff::1", 48, Some((0, Some(36)))),
        ("2001:db8:4000::1", 48, None),
    ] {
        let found = table.find(&world, at(address), bits);
        let ranking = world.rank_client(at(address), &ALL, &view);
        assert_eq!(found.pop, ranking.order[0].pop, "{address}");
        if let Some((pop, scope)) = wanted {
            assert_eq!((found.pop, scope.unwrap_or(found.scope)), (pop, found.scope), "{address}");
        }
    }
    let elsewhere = table.find(&world, at("2001:dc0:4000::1"), 48);
    assert_eq!(elsewhere.scope, 32, "nothing is known of the whole /32");
}

fn world(change: impl FnOnce(&mut Vec<Pop>)) -> World {
    let mut pops: Vec<Pop> = ["FRA", "JFK", "NRT"].map(pop).into();
    change(&mut pops);
    World::new(pops, location())
}

const ALL: [u16; 3] = [0, 1, 2];

fn at(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn first(world: &World, view: &View, address: &str) -> (u16, Why) {
    let ranking = world.rank_client(at(address), &ALL, view);
    (ranking.order[0].pop, ranking.why)
}

#[test]
fn the_nearest_is_chosen_and_the_next_when_it_is_down() {
    let world = world(|_| {});
    let mut view = View::default();
    assert_eq!(first(&world, &view, "10.1.2.3"), (0, Why::Distance));
    assert_eq!(first(&world, &view, "10.200.2.3"), (2, Why::Distance));
    view.down = vec![true, false, false];
    assert_eq!(first(&world, &view, "10.1.2.3"), (1, Why::Distance));
    view.down = vec![true, true, false];
    assert_eq!(first(&world, &view, "10.1.2.3"), (0, Why::FailedOpen), "most look down");
    view.down = vec![true; 3];
    assert_eq!(first(&world, &view, "10.1.2.3"), (0, Why::FailedOpen));
}

#[test]
fn bias_drain_and_last_resort_are_the_operators() {
    let view = View::default();
    let why = |change: fn(&mut Vec<Pop>)| first(&world(change), &view, "10.1.2.3");
    assert_eq!(why(|pops| pops[0].bias_ms = 50.0), (0, Why::Distance));
    assert_eq!(why(|pops| pops[0].bias_ms = 500.0), (1, Why::Distance));
    assert_eq!(why(|pops| pops[0].drain = true), (1, Why::Distance));
    assert_eq!(why(|pops| pops[0].last_resort = true), (1, Why::Distance));
    assert_eq!(
        why(|pops| {
            pops[0].last_resort = true;
            pops[1].drain = true;
            pops[2].drain = true;
        }),
        (0, Why::LastResort)
    );
    assert_eq!(why(|pops| pops.iter_mut().for_each(|pop| pop.drain = true)), (0, Why::Drained));
    assert_eq!(
        why(|pops| pops[2].networks = vec![model::settings::Network::parse("10.1.0.0/16").unwrap()]),
        (2, Why::Network)
    );
}

#[test]
fn a_spare_is_the_nearest_pop_that_visitors_are_sent_to_anyway() {
    // Frankfurt; London is 660 km off, Paris 450, New York 6,200: 12, 8 and 115 ms.
    let spares = |within_ms: f64, view: &View, group: &[u16], change: &dyn Fn(&mut Vec<Pop>)| {
        let mut pops = ["FRA", "LHR", "CDG", "JFK"].map(pop).to_vec();
        change(&mut pops);
        let world = World::new(pops, location());
        let spares = world.spares(group, view, within_ms);
        for pop in group {
            assert_eq!(world.spare(*pop, group, view, within_ms), spares[usize::from(*pop)], "one alone");
        }
        spares
    };
    let of_all = |change: &dyn Fn(&mut Vec<Pop>)| spares(15.0, &View::default(), &[0, 1, 2, 3], change)[0];
    let with = |view: View| spares(15.0, &view, &[0, 1, 2, 3], &|_| {})[0];
    let default = View::default();
    assert_eq!(spares(15.0, &default, &[0, 1, 2, 3], &|_| {}), [Some(2), Some(2), Some(1), None]);
    assert_eq!(spares(10.0, &default, &[0, 1, 2, 3], &|_| {}), [Some(2), Some(2), Some(1), None]);
    assert_eq!(spares(7.0, &default, &[0, 1, 2, 3], &|_| {}), [None, Some(2), Some(1), None]);
    assert_eq!(
        spares(15.0, &default, &[0, 1, 3], &|_| {}),
        [Some(1), Some(0), None, None],
        "within the fence"
    );
    assert_eq!(of_all(&|pops| pops[2].drain = true), Some(1));
    assert_eq!(of_all(&|pops| pops[2].last_resort = true), Some(1));
    assert_eq!(of_all(&|pops| pops[2].share = Some(20)), Some(1));
    assert_eq!(of_all(&|pops| pops[2].bias_ms = 5.0), Some(1));
    assert_eq!(of_all(&|pops| pops[1..3].iter_mut().for_each(|pop| pop.drain = true)), None);
    let other = |pops: &mut Vec<Pop>| {
        (pops[1].location, pops[1].cname) = (None, Some("other.example".into()));
    };
    assert_eq!(spares(1e3, &default, &[0, 1], &other), [None; 4], "another CDN is none and has none");
    assert_eq!(with(View { down: vec![false, false, true], ..View::default() }), Some(1));
    assert_eq!(with(View { share: vec![1.0, 1.0, 0.5], ..View::default() }), Some(1), "on its way back");
    assert_eq!(with(View { full: vec![false, false, true], ..View::default() }), Some(1));
    assert_eq!(
        with(View { down: vec![true, false, true, true], ..View::default() }),
        Some(1),
        "nothing is believed, but this one looks up"
    );
    let own = with(View { down: vec![true], ..View::default() });
    assert_eq!(own, Some(2), "nobody is sent there, so it may have one");
}

fn other_cdn(change: impl FnOnce(&mut Pop)) -> World {
    world(|pops| {
        let mut other =
            Pop { location: None, cname: Some("other.example".into()), edges: Vec::new(), ..pop("FRA") };
        other.name = "other".into();
        change(&mut other);
        pops.push(other);
    })
}

const WITH_OTHER: [u16; 4] = [0, 1, 2, 3];

#[test]
fn a_share_is_of_all_visitors_and_always_the_same_ones_while_who_has_it_is_up() {
    let world = other_cdn(|other| other.share = Some(20));
    let clients: Vec<IpAddr> =
        (0..4_000u32).map(|network| Ipv4Addr::from(0x0a00_0000 + (network << 8)).into()).collect();
    let sent = |view: &View| -> Vec<u16> {
        let table = Table::build(&world, &WITH_OTHER, view);
        clients.iter().map(|client| table.find(&world, *client, 24).pop).collect()
    };
    let before = sent(&View::default());
    let count = |sent: &[u16], pop| sent.iter().filter(|one| **one == pop).count();
    assert!((720..880).contains(&count(&before, 3)) && count(&before, 0) > 3_000, "a fifth");
    let without = sent(&View { down: vec![false, false, false, true], ..View::default() });
    assert_eq!(count(&without, 3), 0);
    let moved = before.iter().zip(&without).filter(|(a, b)| a != b).count();
    assert_eq!(moved, count(&before, 3), "nobody else goes elsewhere");
    let chosen = clients.iter().zip(&before).find(|(_, pop)| **pop == 3).unwrap().0;
    let ranking = world.rank_client(*chosen, &WITH_OTHER, &View::default());
    assert_eq!((ranking.order[0].pop, ranking.order[1].pop, ranking.why), (3, 0, Why::Share));
    assert_eq!(Table::build(&world, &WITH_OTHER, &View::default()).find(&world, *chosen, 24).scope, 24);
}

#[test]
fn shares_of_a_hundred_percent_leave_nothing_and_one_that_is_down_is_the_others() {
    let world = world(|pops| {
        pops.iter_mut().zip([70, 20, 10]).for_each(|(pop, share)| pop.share = Some(share));
    });
    for (down, wanted) in [(vec![], [700, 200, 100]), (vec![true, false, false], [0, 200, 100])] {
        let view = View { down, ..View::default() };
        let table = Table::build(&world, &ALL, &view);
        let mut counts = [0i32; 3];
        for network in 0..1_000u32 {
            let client = Ipv4Addr::from(0x0a00_0000 + (network << 8));
            counts[usize::from(table.find(&world, client.into(), 24).pop)] += 1;
        }
        assert!(counts.iter().zip(wanted).all(|(count, least)| *count >= least * 8 / 10), "{counts:?}");
        assert!(wanted[0] > 0 || counts[0] == 0, "{counts:?}");
    }
}

#[test]
fn another_cdn_takes_who_is_left_when_all_own_pops_are_down() {
    let of = |world: &World, down: &[bool]| {
        let view = View { down: down.into(), ..View::default() };
        let ranking = world.rank_client(at("10.1.2.3"), &WITH_OTHER, &view);
        let found = Table::build(world, &WITH_OTHER, &view).find(world, at("10.1.2.3"), 24);
        assert_eq!(found.pop, ranking.order[0].pop);
        (found.pop, ranking.why)
    };
    let last = other_cdn(|other| other.last_resort = true);
    assert_eq!(of(&last, &[]), (0, Why::Distance));
    assert_eq!(of(&last, &[true, false, false]), (1, Why::Distance));
    assert_eq!(of(&last, &[true, true, false]), (0, Why::FailedOpen), "most look down, and not all");
    assert_eq!(of(&last, &[true; 3]), (3, Why::LastResort));
    assert_eq!(of(&last, &[true; 4]), (0, Why::FailedOpen), "it is no better");
    let beside = other_cdn(|_| {});
    assert_eq!(of(&beside, &[]), (0, Why::Distance), "nobody has measured it");
    assert_eq!(of(&beside, &[true; 3]), (3, Why::Distance));
}

#[test]
fn another_cdn_is_chosen_where_it_was_measured_to_be_faster() {
    let world = other_cdn(|_| {});
    let cell = world.location.cell(at("10.1.2.3"));
    let measured = |rtt_ms: [f64; 2]| {
        let mut estimates = Estimates::default();
        for _ in 0..30 {
            for (pop, rtt_ms) in [(0, rtt_ms[0]), (3, rtt_ms[1])] {
                let km = world.km(cell, pop);
                let sample =
                    Sample { cell, country: [0; 2], asn: 0, pop, km, is_placed: pop != 3, rtt_ms, count: 1 };
                estimates.add(&sample).unwrap();
            }
        }
        let view = View { estimates: Arc::new(estimates), ..View::default() };
        let ranking = world.rank_client(at("10.1.2.3"), &WITH_OTHER, &view);
        let found = Table::build(&world, &WITH_OTHER, &view).find(&world, at("10.1.2.3"), 24);
        assert_eq!(found.pop, ranking.order[0].pop);
        (found.pop, ranking.why)
    };
    assert_eq!(measured([60.0, 20.0]), (3, Why::Measured));
    assert_eq!(measured([20.0, 19.0]), (0, Why::Distance), "not by so little");
    assert_eq!(measured([20.0, 60.0]), (0, Why::Distance));
}

#[test]
fn a_fence_is_never_left() {
    let world = world(|_| {});
    let view = View { down: vec![false, false, true], ..View::default() };
    for address in ["10.1.2.3", "10.200.0.1", "1.2.3.4", "2001:db8::1"] {
        assert_eq!(world.rank_client(at(address), &[2], &view).order.len(), 1);
        let table = Table::build(&world, &[2], &view);
        assert_eq!(table.find(&world, at(address), 24).pop, 2, "even though it is down");
    }
}

#[test]
fn who_was_measured_to_be_faster_is_preferred() {
    let world = world(|_| {});
    let cell = world.location.cell(at("10.1.2.3"));
    let mut estimates = Estimates::default();
    for _ in 0..30 {
        for (pop, rtt_ms) in [(0, 220.0), (1, 90.0)] {
            let km = world.rank(cell, 0, &[pop], &View::default()).order[0].km;
            estimates
                .add(&Sample { cell, country: [0; 2], asn: 0, pop, km, is_placed: true, rtt_ms, count: 1 })
                .unwrap();
        }
    }
    let view = View { estimates: Arc::new(estimates), ..View::default() };
    assert_eq!(first(&world, &view, "10.1.2.3"), (1, Why::Measured));
    assert_eq!(Table::build(&world, &ALL, &view).find(&world, at("10.1.2.3"), 24).pop, 1);
}

#[test]
fn a_full_pop_sends_others_away_and_a_split_keeps_each_network() {
    let world = world(|_| {});
    let view = View { prices: vec![300.0, 0.0, 0.0], ..View::default() };
    assert_eq!(first(&world, &view, "10.1.2.3"), (1, Why::Load));
    let cell = world.location.cell(at("10.1.2.3"));
    let view = View { splits: [(cell, vec![(0, 0.75), (1, 0.25)])].into(), ..View::default() };
    let table = Table::build(&world, &ALL, &view);
    let mut counts = [0; 3];
    for third in 0..=255u8 {
        for second in 0..16 {
            let client = Ipv4Addr::new(10, second, third, 1);
            counts[usize::from(table.find(&world, client.into(), 24).pop)] += 1;
        }
    }
    assert!((2900..3250).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
}

#[test]
fn clients_from_nowhere_are_spread_over_all() {
    let world = world(|_| {});
    let table = Table::build(&world, &ALL, &View::default());
    let mut counts = [0; 3];
    for network in 0..3000u32 {
        counts
            [usize::from(table.find(&world, Ipv4Addr::from(0x0100_0000 + (network << 8)).into(), 24).pop)] +=
            1;
    }
    assert!(counts.iter().all(|count| *count > 850), "{counts:?}");
}

#[test]
fn who_comes_back_gets_its_cells_little_by_little() {
    let world = world(|_| {});
    let mut taken = Vec::new();
    for share in [0.0, 0.3, 0.6, 1.0] {
        let view = View { share: vec![share, 1.0, 1.0], ..View::default() };
        let of = |cell: u16| {
            let mut usable = world.usable(&ALL, &view).best;
            settle(cell, &mut usable, &view);
            usable.contains(&0)
        };
        taken.push((0..1000).filter(|cell| of(*cell)).count());
    }
    assert!(
        taken[0] == 0 && (250..350).contains(&taken[1]) && (550..650).contains(&taken[2]) && taken[3] == 1000,
        "{taken:?}"
    );
}

#[test]
fn a_table_says_what_the_ranking_says() {
    let world = world(|pops| pops[2].bias_ms = 30.0);
    for view in [
        View::default(),
        View { down: vec![true, false, false], ..View::default() },
        View { share: vec![0.5, 1.0, 1.0], ..View::default() },
        View { down: vec![true, true, false], share: vec![1.0, 1.0, 0.3], ..View::default() },
        View { prices: vec![300.0, 0.0, 10.0], ..View::default() },
    ] {
        for group in [&ALL[..], &[0, 2], &[1]] {
            let table = Table::build(&world, group, &view);
            for address in ["10.1.2.3", "10.200.2.3", "11.1.17.4", "2001:db8::1", "2001:db8:8001::"] {
                let ranking = world.rank_client(at(address), group, &view);
                assert_eq!(
                    table.find(&world, at(address), 128).pop,
                    ranking.order[0].pop,
                    "{address} {view:?}"
                );
            }
        }
    }
}

#[test]
fn a_table_says_what_the_ranking_says_also_of_few_pops_far_away_among_many() {
    let places: Vec<&str> = model::routing::place_names().step_by(7).take(80).collect();
    for (biased, down) in [(false, false), (true, false), (false, true)] {
        let mut pops: Vec<Pop> = places.iter().map(|place| pop(place)).collect();
        // Two in one place come equal.
        pops[61].location = pops[60].location;
        pops.iter_mut()
            .enumerate()
            .for_each(|(index, pop)| pop.bias_ms = f64::from(biased) * (index % 5) as f64);
        let world = World::new(pops, location());
        let view = View { down: vec![down; 20], ..View::default() };
        for group in [&[3, 17, 60, 61][..], &[60, 61], &[5], &[1, 2, 30, 31, 32, 33, 34, 70]] {
            let table = Table::build(&world, group, &view);
            for address in ["10.1.2.3", "10.200.2.3", "11.1.17.4", "2001:db8::1"] {
                let ranking = world.rank_client(at(address), group, &view);
                let found = table.find(&world, at(address), 128).pop;
                assert_eq!(found, ranking.order[0].pop, "{address} {group:?} {biased} {down}");
            }
        }
    }
}

#[test]
fn scopes_are_as_wide_as_the_answer_reaches() {
    let world =
        world(|pops| pops[1].networks = vec![model::settings::Network::parse("10.64.7.0/24").unwrap()]);
    let table = Table::build(&world, &ALL, &View::default());
    let find = |address: &str, bits| {
        let Found { pop, scope } = table.find(&world, at(address), bits);
        (pop, scope)
    };
    assert_eq!(find("10.1.2.0", 24), (0, 10), "up to the operator's network");
    assert_eq!(find("10.200.2.0", 24), (2, 9));
    assert_eq!(find("10.64.7.0", 24), (1, 24));
    assert_eq!(find("10.64.6.0", 24), (0, 24));
    assert_eq!(find("11.1.17.0", 24), (1, 20));
    assert_eq!(find("11.1.17.0", 16), (1, 16), "never more than was asked for");
    assert_eq!(find("2001:db8:1::", 56), (0, 33));
    assert_eq!(find("2001:db8:8001::", 56), (2, 33));
}

fn arbitrary_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..1 << 24).prop_map(|low| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + low))),
        (0u32..1 << 16).prop_map(|low| IpAddr::from(Ipv4Addr::from(0x0b01_0000 + low))),
        any::<u32>().prop_map(|all| IpAddr::from(Ipv4Addr::from(all))),
        (any::<u64>())
            .prop_map(|low| IpAddr::from(Ipv6Addr::from((0x2001_0db8u128 << 96) | (u128::from(low) << 32)))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn within_its_scope_everybody_gets_the_same_answer(
        clients in prop::collection::vec((arbitrary_address(), prop::collection::vec(any::<u128>(), 20)), 60),
        down in prop::collection::vec(any::<bool>(), 3),
        split: bool,
        has_measured: bool,
        share in prop::option::of(1u8..=100),
        networks in prop::collection::vec((0u32..1 << 16, 9u8..=24, 0usize..3), 0..5),
    ) {
        let world = world(|pops| for (low, bits, pop) in &networks {
            let first = (0x0a00_0000 + (low << 8)) & (u32::MAX << (32 - bits));
            let network = format!("{}/{bits}", Ipv4Addr::from(first));
            pops[*pop].networks.push(model::settings::Network::parse(&network).unwrap());
            pops[1].share = share;
        });
        let cell = world.location.cell(at("10.1.2.3"));
        let mut view = View { down, ..View::default() };
        if split {
            view.splits.insert(cell, vec![(0, 0.5), (2, 0.5)]);
        }
        if has_measured {
            view.estimates = measured();
        }
        let table = Table::build(&world, &ALL, &view);
        for (client, others) in clients {
            let bits = if client.is_ipv4() { 24 } else { 48 };
            let found = table.find(&world, client, bits);
            prop_assert!(found.scope <= bits);
            prop_assert!(usize::from(found.pop) < 3);
            for other in others {
                let keep = if client.is_ipv4() { found.scope + 96 } else { found.scope };
                let mixed = (number(client) & mask(keep)) | (other & !mask(keep) & if client.is_ipv4() { 0xffff_ff00 } else { !0xffff_ffff_ffff_ffff_ffff });
                let neighbour = IpAddr::from(Ipv6Addr::from(mixed)).to_canonical();
                prop_assert_eq!(table.find(&world, neighbour, bits).pop, found.pop, "{} {:?} {}", client, found, neighbour);
            }
        }
    }
}
