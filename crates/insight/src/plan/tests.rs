use model::Point;
use proptest::prelude::*;

use super::optimise::best_within;
use super::places::{Place, markets, markets_of, metros, networks};
use super::prices::{DEFAULT, Prices};
use super::*;

/// Markets and places on a line, 1 ms apart per unit.
fn on_a_line(markets: &[(f64, f64)], places: &[(f64, f64)], kept: &[usize]) -> Problem {
    let places = places.iter().map(|(at, month)| {
        let ms = markets.iter().map(|(place, _)| (place - at).abs()).collect();
        (Cost { month: *month, per_gb: 0.0 }, ms)
    });
    let weights: Vec<(f64, f64)> = markets.iter().map(|(_, weight)| (*weight, 0.0)).collect();
    Problem::new(&weights, places.collect(), kept.to_vec())
}

fn unlimited(count: usize) -> Limit {
    Limit { count, budget: None }
}

#[test]
fn coverage_says_mean_tail_and_what_is_near() {
    let trips = vec![(10.0, 90.0), (60.0, 5.0), (200.0, 5.0)];
    let coverage = Coverage::of(trips).unwrap();
    assert_eq!(coverage, Coverage { mean_ms: 22.0, p95_ms: 60.0, near: 0.9 });
    assert_eq!(Coverage::of(vec![(10.0, 0.0)]), None, "nobody asks");
    assert_eq!(Coverage::of(vec![]), None);
}

#[test]
fn greed_alone_would_be_wrong_and_the_choice_is_right() {
    // The middle place is the best alone; the outer two are the best together.
    let problem =
        on_a_line(&[(0.0, 10.0), (50.0, 1.0), (100.0, 10.0)], &[(50.0, 1.0), (0.0, 1.0), (100.0, 1.0)], &[]);
    assert_eq!(best(&problem, &unlimited(1)).added, [0]);
    let two = best(&problem, &unlimited(2));
    assert_eq!((two.added, two.is_proven), (vec![1, 2], true));
}

#[test]
fn a_budget_holds_for_all_that_is_added_and_for_what_it_sends() {
    let markets = [(1.0, 100.0), (1.0, 100.0)];
    let place = |month: f64, per_gb: f64, ms: [f64; 2]| (Cost { month, per_gb }, ms.to_vec());
    let places = vec![
        place(100.0, 0.0, [50.0, 50.0]),
        place(100.0, 0.0, [10.0, 50.0]),
        // Dear by what it sends: 100 and 100 × 2.
        place(100.0, 2.0, [50.0, 5.0]),
    ];
    let problem = Problem::new(&markets, places, vec![0]);
    let within = |budget: f64| best(&problem, &Limit { count: 3, budget: Some(budget) }).added;
    assert_eq!(within(99.0), Vec::<usize>::new());
    assert_eq!(within(100.0), [1]);
    assert_eq!(within(300.0), [2], "it brings more than the cheap one");
    assert_eq!(within(400.0), [1, 2]);
    assert_eq!(problem.cost(&[0, 1, 2]) - problem.cost(&[0]), 400.0);
}

#[test]
fn what_is_lost_with_a_pop_and_who_takes_its_place() {
    let problem = on_a_line(&[(0.0, 3.0), (10.0, 1.0), (100.0, 1.0)], &[(0.0, 1.0), (100.0, 1.0)], &[0]);
    let losses = problem.losses(&[0, 1]);
    assert_eq!((losses[0].moved, losses[0].busiest), (0.8, Some((1, 1.0))));
    assert_eq!(losses[0].coverage.unwrap().mean_ms, (300.0 + 90.0) / 5.0);
    assert_eq!(problem.shares(&[0, 1]), [0.8, 0.2]);
    assert_eq!(problem.losses(&[0])[0].coverage, None, "nobody is left");
}

#[test]
fn the_knee_is_where_the_curve_bends() {
    assert_eq!(knee(&[100.0, 40.0, 35.0, 32.0, 30.0]), Some(1));
    assert_eq!(knee(&[100.0, 70.0, 40.0, 38.0, 37.0]), Some(2));
    assert_eq!(knee(&[10.0, 10.0, 10.0]), None, "nothing is gained");
    assert_eq!(knee(&[30.0, 20.0, 10.0]), None, "each brings the same");
    assert_eq!(knee(&[30.0, 20.0]), None);
}

#[test]
fn shares_are_read_as_analytics_write_them() {
    let read =
        shares::parse("country,share,gb\n# ours\nde, 31.5%, 900\nUK\t10\nXX,3\n\nUS,\"20\"\n").unwrap();
    let rows: Vec<_> = read.rows.iter().map(|row| (&*row.country, row.share, row.gb)).collect();
    assert_eq!(rows, [("DE", 31.5, Some(900.0)), ("GB", 10.0, None), ("US", 20.0, None)]);
    assert_eq!(read.nowhere, 3.0);
}

#[test]
fn wrong_shares_are_told_with_their_lines() {
    for (text, wanted) in [
        ("DE,31\nDE\n", "2: \"DE\" has no share; wanted is country,share, e.g. DE,31.5"),
        ("DE,31\nFR,-1\n", "2: the share \"-1\" is no number from 0 on; wanted is e.g. 31.5"),
        ("DE,31\nFR,nan\n", "2: the share \"nan\" is no number from 0 on; wanted is e.g. 31.5"),
        ("DE,31\nFR,1,x\n", "2: the traffic \"x\" is no number from 0 on; wanted is e.g. 31.5"),
        ("DE,31\n\nQQ,2\n", "3: \"QQ\" is no country; wanted are the two letters of ISO 3166, e.g. DE"),
        (
            "DE,31\nDE,1,2,3\n",
            "2: \"DE,1,2,3\" has more than three fields; wanted is country,share[,GB per month]",
        ),
        (
            "Country;Visitors\nDE;3,5,1\n",
            "2: \"DE;3,5,1\" has more than three fields; wanted is country,share[,GB per month]",
        ),
        ("", "1: no line has a share above 0; wanted are lines such as DE,31.5"),
        ("DE,0\nXX,4\n", "1: no line has a share above 0; wanted are lines such as DE,31.5"),
    ] {
        assert_eq!(shares::parse(text).unwrap_err(), [wanted], "{text:?}");
    }
    assert_eq!(shares::parse("DE,1\n4\n5\n").unwrap_err().len(), 2, "all at once");
}

#[test]
fn the_most_exact_price_counts() {
    let table = |more: &str| {
        let text = format!(
            "as_of = \"2026-11\"\nsource = \"s\"\ncurrency = \"EUR\"\n[[price]]\nmonth = 9\ngb = 0.9\n{more}"
        );
        Prices::parse(&text, "p.toml")
    };
    let prices = table(
        "[[price]]\ncontinent = [\"EU\"]\nmonth = 8\ngb = 0.8\n[[price]]\ncountry = [\"DE\"]\nmonth = 7\ngb = 0.7\n[[price]]\nplace = [\"FRA\"]\nmonth = 6\ngb = 0.6\n",
    )
    .unwrap();
    let month = |name: &str| prices.of(&Place::named(name).unwrap()).month;
    assert_eq!(["FRA", "MUC", "CDG", "JFK"].map(month), [6.0, 7.0, 8.0, 9.0]);
    for (more, wanted) in [
        ("[[price]]\nmonth = -1\ngb = 0\n", "p.toml: month = -1 in [[price]] 2: wanted is 0 to 10000000"),
        ("[[price]]\nmonht = 1\ngb = 0\n", "unknown field `monht`"),
        ("[[price]]\nmonht = 1\ngb = 0\n", "line 8"),
    ] {
        let error = table(more).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    let none =
        Prices::parse("as_of = \"\"\nsource = \"\"\ncurrency = \"\"\nprice = []\n", "p.toml").unwrap_err();
    assert!(none.contains("no [[price]] is for all places"), "{none}");
}

#[test]
fn what_comes_with_perigee_is_whole() {
    let built_in = Prices::parse(DEFAULT, "prices.toml").unwrap();
    assert!(!built_in.as_of.is_empty() && built_in.source.contains("assumption"));
    let metros: Vec<&str> = metros().map(|(code, _)| code).collect();
    assert!(metros.len() > 100);
    for code in &metros {
        let place = Place::named(code).unwrap_or_else(|| panic!("{code} is an airport"));
        assert!(built_in.of(&place).month > 0.0);
    }
    let networks = networks();
    let names: Vec<_> = networks.iter().map(|network| network.name).collect();
    assert_eq!(names, ["Amazon CloudFront", "Cloudflare", "Fastly"]);
    for network in &networks {
        assert!(
            network.points.len() > 70
                && network.as_of.starts_with("202")
                && network.source.contains("github")
        );
    }
    let mut sums = std::collections::BTreeMap::new();
    markets().for_each(|market| *sums.entry(market.country).or_insert(0.0) += market.share);
    assert!(sums.len() > 200);
    for (country, sum) in sums {
        assert!((0.98..1.01).contains(&sum), "{country}: {sum}");
    }
    assert!(markets_of("US").len() > 10 && markets_of("QQ").is_empty());
    let fra = Place::named("fra").unwrap();
    assert_eq!((&*fra.name, &*fra.city, fra.country, fra.continent), ("FRA", "Frankfurt", "DE", "EU"));
    let near = Place::at("x", Point { latitude: 48.1, longitude: 11.6 });
    assert_eq!((&*near.city, near.country), ("Munich", "DE"));
}

/// All sets of at most `count` of `0..places`.
fn subsets(places: usize, count: usize) -> Vec<Vec<usize>> {
    (0u32..1 << places)
        .filter(|bits| bits.count_ones() as usize <= count)
        .map(|bits| (0..places).filter(|place| bits & (1 << place) != 0).collect())
        .collect()
}

prop_compose! {
    fn any_problem()(markets in 1usize..12, places in 1usize..9)(
        weights in prop::collection::vec((1u32..100, 0u32..50), markets),
        places in prop::collection::vec(
            ((1u32..50, 0u32..20), prop::collection::vec(1u32..300, markets)), places),
        keeps in any::<bool>(),
    ) -> Problem {
        let weights: Vec<_> = weights.into_iter().map(|(weight, gb)| (f64::from(weight), f64::from(gb))).collect();
        let places = places.into_iter().map(|((month, per_gb), ms)| {
            let cost = Cost { month: f64::from(month), per_gb: f64::from(per_gb) / 100.0 };
            (cost, ms.into_iter().map(f64::from).collect())
        });
        Problem::new(&weights, places.collect(), if keeps { vec![0] } else { vec![] })
    }
}

proptest! {
    #[test]
    fn no_other_choice_is_better(problem in any_problem(), count in 1usize..6, budget in prop::option::of(5u32..150)) {
        let limit = Limit { count, budget: budget.map(f64::from) };
        let choice = best(&problem, &limit);
        prop_assert!(choice.is_proven);
        let base = problem.cost(problem.kept());
        let with = |added: &[usize]| problem.kept().iter().chain(added).copied().collect::<Vec<_>>();
        let mean = |added: &[usize]| problem.coverage(&with(added)).map_or(f64::INFINITY, |one| one.mean_ms);
        let is_allowed = |added: &[usize]| {
            added.len() <= count && added.iter().all(|place| !problem.kept().contains(place))
                && limit.budget.is_none_or(|budget| added.is_empty() || problem.cost(&with(added)) - base <= budget + 1e-9)
        };
        prop_assert!(is_allowed(&choice.added));
        for added in subsets(problem.places(), count).into_iter().filter(|added| is_allowed(added)) {
            prop_assert!(mean(&choice.added) <= mean(&added) + 1e-6, "{:?} {:?}", choice, added);
        }
    }

    #[test]
    fn one_more_pop_never_makes_it_worse(problem in any_problem(), set in 0usize..256) {
        let set: Vec<usize> = (0..problem.places()).filter(|place| set & (1 << place) != 0).collect();
        let Some(before) = problem.coverage(&set) else { return Ok(()) };
        for place in 0..problem.places() {
            let mut more = set.clone();
            if !more.contains(&place) {
                more.push(place);
            }
            let after = problem.coverage(&more).unwrap();
            prop_assert!(after.mean_ms <= before.mean_ms + 1e-9);
            prop_assert!(after.p95_ms <= before.p95_ms && after.near >= before.near - 1e-9);
        }
    }

    #[test]
    fn more_pops_are_never_worse_and_the_same_comes_again(problem in any_problem()) {
        let mut before = f64::INFINITY;
        for count in 1..=problem.places() - problem.kept().len() {
            let choice = best(&problem, &unlimited(count));
            prop_assert_eq!(&choice, &best(&problem, &unlimited(count)));
            let set: Vec<usize> = problem.kept().iter().chain(&choice.added).copied().collect();
            let Some(coverage) = problem.coverage(&set) else { continue };
            prop_assert!(coverage.mean_ms <= before + 1e-9);
            before = coverage.mean_ms;
            let mut order = problem.order(&choice.added);
            order.sort_unstable();
            prop_assert_eq!(order, choice.added);
        }
    }

    #[test]
    fn a_search_that_is_cut_short_says_so_and_still_has_a_choice(problem in any_problem()) {
        let limit = unlimited(6);
        let choice = best_within(&problem, &limit, 1);
        let proven = best(&problem, &limit);
        prop_assert!(proven.is_proven);
        let mean = |added: &[usize]| {
            let set: Vec<usize> = problem.kept().iter().chain(added).copied().collect();
            problem.coverage(&set).map_or(f64::INFINITY, |one| one.mean_ms)
        };
        prop_assert!(mean(&choice.added) >= mean(&proven.added) - 1e-6);
    }

    #[test]
    fn a_knee_is_one_of_the_points(means in prop::collection::vec(1.0f64..500.0, 0..20)) {
        let mut means = means;
        means.sort_by(|a, b| b.total_cmp(a));
        if let Some(index) = knee(&means) {
            prop_assert!(index < means.len() && index > 0 && index + 1 < means.len());
        }
    }

    #[test]
    fn markets_that_are_put_together_keep_their_demand(problem in any_problem(), groups in prop::collection::vec(0usize..3, 12)) {
        // Numbers without gaps.
        let mut seen = Vec::new();
        let groups: Vec<usize> = groups[..problem.demand().len()].iter().map(|group| {
            if !seen.contains(group) {
                seen.push(*group);
            }
            seen.iter().position(|one| one == group).unwrap()
        }).collect();
        let grouped = problem.grouped(&groups);
        prop_assert!((grouped.demand().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        for place in 0..problem.places() {
            let one = |problem: &Problem| problem.coverage(&[place]).unwrap().mean_ms;
            prop_assert!((one(&grouped) - one(&problem)).abs() < 1e-6, "the mean to one place stays");
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[DEUSXQ,;0-9.%\n#\" -]{0,80}") {
        match shares::parse(&text) {
            Ok(shares) => prop_assert!(shares.rows.iter().any(|row| row.share > 0.0)),
            Err(complaints) => prop_assert!(!complaints.is_empty()),
        }
    }
}
