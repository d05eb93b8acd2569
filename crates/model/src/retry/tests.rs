use proptest::prelude::*;

use super::*;

fn policy(percent: u32, floor_per_sec: u32) -> RetryPolicy {
    RetryPolicy { percent, floor_per_sec, window_secs: 10 }
}

/// How many retries are granted at once after `requests` first attempts.
fn granted(policy: RetryPolicy, requests: u32) -> usize {
    let mut budget = RetryBudget::new(policy);
    (0..requests).for_each(|_| budget.request(1_000));
    (0..10_000).take_while(|_| budget.take(1_000)).count()
}

#[test]
fn a_share_of_the_requests_and_the_floor_are_granted() {
    assert_eq!(granted(policy(20, 1), 0), 10);
    assert_eq!(granted(policy(20, 0), 0), 0);
    assert_eq!(granted(policy(20, 0), 4), 0);
    assert_eq!(granted(policy(20, 0), 1000), 200);
    assert_eq!(granted(policy(20, 1), 1000), 210);
    assert_eq!(granted(policy(0, 1), 1000), 10);
}

#[test]
fn a_used_up_budget_fills_as_the_window_moves() {
    let mut budget = RetryBudget::new(policy(20, 0));
    (0..100).for_each(|_| budget.request(0));
    assert_eq!((0..100).filter(|_| budget.take(0)).count(), 20);
    (0..100).for_each(|_| budget.request(5_000));
    assert_eq!((0..100).filter(|_| budget.take(5_000)).count(), 20);
    // The requests and retries of second 0 have left, those of second 5 have not.
    assert!(!budget.take(14_999));
    (0..5).for_each(|_| budget.request(14_999));
    assert!(budget.take(14_999) && !budget.take(14_999));
}

#[test]
fn a_long_pause_empties_the_window_and_a_clock_going_back_does_not_disturb() {
    let mut budget = RetryBudget::new(policy(50, 0));
    (0..10).for_each(|_| budget.request(3_000));
    assert!(!budget.take(3_000_000_000));
    budget.request(1_000);
    budget.request(1_000);
    assert!(budget.take(2_000) && !budget.take(2_000));
}

#[test]
fn a_window_out_of_range_counts_as_the_nearest() {
    for window_secs in [0, 1, 60, u32::MAX] {
        let floor = policy(0, 1);
        let window = u64::from(window_secs.clamp(1, WINDOW_SECS_MAX));
        assert_eq!(granted(RetryPolicy { window_secs, ..floor }, 0) as u64, window);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn retries_are_what_a_list_of_all_events_allows(
        events in proptest::collection::vec((0u64..1500, prop::bool::weighted(0.6)), 1..300),
        percent in 0u32..60, floor_per_sec in 0u32..3, window_secs in 1u32..15,
    ) {
        let mut budget = RetryBudget::new(RetryPolicy { percent, floor_per_sec, window_secs });
        let (mut now, mut requests, mut retries) = (0u64, Vec::new(), Vec::new());
        for (pause, first) in events {
            now += pause;
            let second = now / 1000;
            if first {
                budget.request(now);
                requests.push(second);
                continue;
            }
            let within = |seconds: &[u64]| {
                seconds.iter().filter(|at| **at + u64::from(window_secs) > second).count() as u64
            };
            let allowed = within(&requests) * u64::from(percent) / 100 + u64::from(floor_per_sec * window_secs);
            let expected = within(&retries) < allowed;
            prop_assert_eq!(budget.take(now), expected);
            if expected {
                retries.push(second);
            }
        }
    }
}
