use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn rate(count: u32, per_secs: u64, burst: u32) -> Rate {
    Rate::new(count, Duration::from_secs(per_secs), burst)
}

/// How many of `tries` pass at once.
fn passing(bucket: &mut Bucket, rate: &Rate, now_ns: u64, tries: usize) -> usize {
    (0..tries).filter(|_| bucket.take(rate, now_ns).is_ok()).count()
}

#[test]
fn a_burst_passes_at_once_and_then_one_per_interval() {
    let (rate, mut bucket) = (rate(50, 1, 100), Bucket::default());
    assert_eq!(passing(&mut bucket, &rate, 0, 1000), 100);
    assert_eq!(bucket.take(&rate, 0), Err(TooMuch { wait_ns: 20_000_000 }));
    assert_eq!(bucket.take(&rate, 19_999_999), Err(TooMuch { wait_ns: 1 }));
    assert_eq!(bucket.take(&rate, 20_000_000), Ok(()));
    assert_eq!(passing(&mut bucket, &rate, SECOND, 1000), 49);
    assert_eq!(passing(&mut bucket, &rate, 60 * SECOND, 1000), 100);
}

#[test]
fn the_wait_that_is_told_is_exact() {
    let (rate, mut bucket) = (rate(1, 60, 1), Bucket::default());
    assert_eq!(bucket.take(&rate, 5 * SECOND), Ok(()));
    let Err(refused) = bucket.take(&rate, 5 * SECOND + 1) else { panic!("it passed") };
    assert_eq!(refused.wait_secs(), 60);
    assert_eq!(bucket.take(&rate, 5 * SECOND + refused.wait_ns), Err(TooMuch { wait_ns: 1 }));
    assert_eq!(bucket.take(&rate, 5 * SECOND + 1 + refused.wait_ns), Ok(()));
}

#[test]
fn what_is_given_back_can_be_taken_again_and_no_more() {
    let (rate, mut bucket) = (rate(1, 1, 10), Bucket::default());
    assert_eq!(passing(&mut bucket, &rate, 0, 100), 10);
    bucket.give_back(&rate, 3);
    assert_eq!(passing(&mut bucket, &rate, 0, 100), 3);
    bucket.give_back(&rate, 1000);
    assert_eq!(passing(&mut bucket, &rate, 0, 100), 10);
}

#[test]
fn rates_without_sense_are_the_nearest_that_have_some() {
    for rate in [rate(0, 0, 0), rate(u32::MAX, 0, u32::MAX), rate(1, u64::MAX, u32::MAX)] {
        let mut bucket = Bucket::default();
        assert!(bucket.take(&rate, 0).is_ok());
        assert!(bucket.take(&rate, u64::MAX).is_ok());
        bucket.give_back(&rate, u32::MAX);
    }
}

#[test]
fn keys_are_counted_apart() {
    let (rate, mut buckets) = (rate(1, 1, 2), Buckets::new(64));
    for key in [1, 2, 65, 129] {
        assert_eq!((0..5).filter(|_| buckets.take(key, &rate, 0).is_ok()).count(), 2, "{key}");
    }
    assert!(buckets.ask(1, &rate, 0).is_err() && buckets.ask(3, &rate, 0).is_ok());
    assert!((0..5).all(|_| buckets.ask(1, &rate, SECOND).is_ok()), "asking takes nothing");
    assert!(buckets.take(1, &rate, SECOND).is_ok() && buckets.take(1, &rate, SECOND).is_err());
}

#[test]
fn a_new_key_takes_the_place_of_the_one_that_is_empty_first() {
    let (rate, mut buckets) = (rate(1, 1, 10), Buckets::new(8));
    for key in 0..8 {
        (0..=key).for_each(|_| assert!(buckets.take(key, &rate, 0).is_ok()));
    }
    assert!(buckets.take(8, &rate, 0).is_ok());
    // Key 0 had one event only, and is forgotten; the others are not.
    assert_eq!((0..20).filter(|_| buckets.take(7, &rate, 0).is_ok()).count(), 2);
    assert_eq!((0..20).filter(|_| buckets.take(0, &rate, 0).is_ok()).count(), 10);
}

proptest! {
    #[test]
    fn over_any_span_no_more_pass_than_the_rate_says(
        count in 1u32..200,
        burst in 1u32..50,
        steps in prop::collection::vec(0u64..40_000_000, 1..400),
    ) {
        let rate = rate(count, 1, burst);
        let (mut bucket, mut now, mut passed) = (Bucket::default(), 0, Vec::new());
        for step in steps {
            now += step;
            if bucket.take(&rate, now).is_ok() {
                passed.push(now);
            }
        }
        for (first, from) in passed.iter().enumerate() {
            for (last, to) in passed.iter().enumerate().skip(first) {
                let allowed = u64::from(burst) + (to - from) / (SECOND / u64::from(count));
                prop_assert!((last - first + 1) as u64 <= allowed);
            }
        }
    }

    #[test]
    fn a_refusal_changes_nothing(tries in 1usize..50, at in 0u64..SECOND) {
        let rate = rate(5, 1, 5);
        let (mut tried, mut spared) = (Bucket::default(), Bucket::default());
        passing(&mut tried, &rate, 0, 5);
        passing(&mut spared, &rate, 0, 5);
        passing(&mut tried, &rate, 0, tries);
        prop_assert_eq!(tried, spared);
        prop_assert_eq!(tried.take(&rate, at), spared.take(&rate, at));
    }
}
