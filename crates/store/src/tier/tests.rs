use std::collections::HashMap;
use std::sync::Weak;

use proptest::prelude::*;

use super::*;
use crate::slots_test_key as key;

const POLICIES: [Policy; 6] = [
    Policy::Lgdsf { e: 1.0 },
    Policy::Lgdsf { e: 0.5 },
    Policy::Lgdsf { e: 0.0 },
    Policy::Lru,
    Policy::Sieve,
    Policy::S3Fifo,
];

/// A value that knows which it is and weighs what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    key: u64,
    version: u64,
    bytes: usize,
}

impl Weigh for Page {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

fn page(key: u64, version: u64, bytes: usize) -> Page {
    Page { key, version, bytes }
}

const ENTRY: usize = Tier::<Page>::ENTRY_BYTES;

/// A tier with `room` bytes beside the fixed part, in which an object may take all of it.
fn tier(policy: Policy, shards: usize, room: usize) -> Tier<Page> {
    let config = TierConfig { bytes_max: 0, policy, shards: Some(shards), object_max_fraction: 1.0 };
    let tier = Tier::new(config);
    tier.resize(fixed(&tier) + room);
    tier
}

/// A tier with room for `count` pages of 1,000 bytes.
fn tier_of(policy: Policy, count: usize) -> Tier<Page> {
    tier(policy, 1, count * (1000 + ENTRY))
}

fn fixed(tier: &Tier<Page>) -> usize {
    tier.shards.len() * Shard::<Page>::FIXED_BYTES
}

fn put(tier: &Tier<Page>, number: u64, bytes: usize) {
    assert_eq!(tier.insert(key(number), page(number, 0, bytes)), Insertion::Inserted, "{number}");
}

/// Which of `numbers` are held; leaves no trace.
fn held(tier: &Tier<Page>, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    numbers.into_iter().filter(|number| tier.peek(key(*number)).is_some()).collect()
}

fn hit(tier: &Tier<Page>, number: u64, times: usize) {
    (0..times).for_each(|_| assert!(tier.lookup(key(number)).is_some(), "{number}"));
}

fn check_sums(tier: &Tier<Page>) {
    let (mut entries, mut bytes) = (0, 0);
    tier.for_each(|at, page| {
        assert_eq!(at, key(page.key));
        entries += 1;
        bytes += page.bytes + ENTRY;
    });
    let stats = tier.stats();
    assert_eq!(stats.entries, entries);
    assert_eq!(stats.bytes as usize, fixed(tier) + bytes);
    assert!(stats.bytes <= stats.bytes_max.max(fixed(tier) as u64), "{stats:?}");
    assert_eq!(stats.entries, stats.insertions - stats.evictions - stats.removals);
}

// --- Against a model ---

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, usize),
    Lookup(u64),
    Remove(u64),
    RemoveOther(u64),
    Resize(usize),
    Clear,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => (0u64..40, 0usize..4_000).prop_map(|(key, bytes)| Op::Insert(key, bytes)),
        12 => (0u64..40).prop_map(Op::Lookup),
        3 => (0u64..40).prop_map(Op::Remove),
        1 => (0u64..40).prop_map(Op::RemoveOther),
        1 => (0usize..30_000).prop_map(Op::Resize),
        1 => Just(Op::Clear),
    ];
    proptest::collection::vec(op, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_the_last_value_is_served_and_the_budget_holds_after_every_step(
        ops in ops(), policy in 0..POLICIES.len(), shards in prop_oneof![Just(1usize), Just(4)],
    ) {
        let tier = tier(POLICIES[policy], shards, 20_000);
        let mut last: HashMap<u64, u64> = HashMap::new();
        for (version, op) in ops.into_iter().enumerate() {
            let version = version as u64;
            match op {
                Op::Insert(number, bytes) => match tier.insert(key(number), page(number, version, bytes)) {
                    Insertion::Inserted | Insertion::Replaced => {
                        last.insert(number, version);
                        prop_assert_eq!(tier.peek(key(number)), Some(page(number, version, bytes)));
                    }
                    Insertion::Refused(_) => {
                        last.remove(&number);
                        prop_assert_eq!(tier.peek(key(number)), None);
                    }
                },
                Op::Lookup(number) => {
                    if let Some(found) = tier.lookup(key(number)) {
                        prop_assert_eq!(Some(&found.version), last.get(&number));
                    }
                }
                Op::Remove(number) => {
                    tier.remove(key(number));
                    last.remove(&number);
                    prop_assert_eq!(tier.lookup(key(number)), None);
                }
                Op::RemoveOther(number) => prop_assert_eq!(tier.remove_if(key(number), |_| false), None),
                Op::Resize(room) => tier.resize(fixed(&tier) + room),
                Op::Clear => {
                    tier.clear();
                    last.clear();
                    prop_assert_eq!(tier.stats().entries, 0);
                }
            }
            check_sums(&tier);
        }
        // Every entry is where the evictor finds it.
        tier.resize(0);
        prop_assert_eq!(tier.stats().entries, 0);
        check_sums(&tier);
    }
}

#[test]
fn threads_see_only_last_values_and_the_budget_holds_meanwhile() {
    const THREADS: u64 = 4;
    for policy in [Policy::default(), Policy::Lru, Policy::Sieve, Policy::S3Fifo] {
        let tier = tier(policy, 8, 60_000);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let tier = &tier;
                scope.spawn(move || {
                    let mut last: HashMap<u64, u64> = HashMap::new();
                    for step in 0..6_000u64 {
                        let random = key(thread << 32 | step) as u64;
                        let number = random % 200;
                        // Each thread writes keys of its own and reads all.
                        let own = number / THREADS * THREADS + thread;
                        match random >> 32 & 7 {
                            0..3 => {
                                let page = page(own, step, (random >> 40) as usize % 3_000);
                                match tier.insert(key(own), page) {
                                    Insertion::Refused(_) => last.remove(&own),
                                    _ => last.insert(own, step),
                                };
                            }
                            3 => {
                                tier.remove(key(own));
                                last.remove(&own);
                            }
                            4 => assert!(tier.stats().bytes <= tier.stats().bytes_max),
                            _ => {
                                if let Some(page) = tier.lookup(key(number)) {
                                    assert_eq!(page.key, number);
                                }
                                if let Some(page) = tier.lookup(key(own)) {
                                    assert_eq!(Some(&page.version), last.get(&own));
                                }
                            }
                        }
                    }
                });
            }
        });
        check_sums(&tier);
        let stats = tier.stats();
        assert!(stats.hits > 0 && stats.evictions > 0, "{stats:?}");
        tier.resize(0);
        assert_eq!(tier.stats().entries, 0);
    }
}

// --- The tier ---

#[test]
fn a_replaced_value_frees_its_weight_and_a_heavier_one_makes_room() {
    for policy in POLICIES {
        let tier = tier_of(policy, 10);
        (0..10).for_each(|number| put(&tier, number, 1000));
        hit(&tier, 3, 3);
        assert_eq!(tier.insert(key(3), page(3, 1, 10)), Insertion::Replaced);
        assert_eq!(held(&tier, 0..10).len(), 10);
        check_sums(&tier);
        assert_eq!(tier.insert(key(3), page(3, 2, 5_000)), Insertion::Replaced);
        assert_eq!(tier.peek(key(3)).map(|page| page.version), Some(2));
        let left = held(&tier, 0..10).len();
        assert!((5..=6).contains(&left), "{policy:?}: {left}");
        check_sums(&tier);
    }
}

#[test]
fn a_refused_value_takes_the_former_one_with_it() {
    let config = TierConfig { bytes_max: 1 << 20, object_max_fraction: 0.02, ..TierConfig::default() };
    let tier = Tier::new(config);
    put(&tier, 1, 1000);
    assert_eq!(tier.insert(key(1), page(1, 1, 21_000)), Insertion::Refused(Refusal::TooLarge));
    assert_eq!(tier.peek(key(1)), None);
    assert_eq!(tier.stats().refused_too_large, 1);
    assert_eq!(tier.stats().bytes as usize, fixed(&tier));
}

#[test]
fn a_tier_smaller_than_its_fixed_part_stores_nothing_and_still_answers() {
    let tier = Tier::new(TierConfig { bytes_max: 1000, object_max_fraction: 1.0, ..TierConfig::default() });
    assert_eq!(tier.insert(key(1), page(1, 0, 10)), Insertion::Refused(Refusal::NoRoom));
    assert_eq!(tier.lookup(key(1)), None);
    assert_eq!(tier.stats().refused_no_room, 1);
}

#[test]
fn the_largest_admissible_object_takes_its_room_from_all_shards() {
    for policy in POLICIES {
        for mib in [16, 64, 512] {
            let config = TierConfig { bytes_max: mib << 20, policy, ..TierConfig::default() };
            let tier = Tier::new(config);
            let small = 20_000;
            for number in 0..(mib << 20) as u64 * 11 / 10 / small {
                put(&tier, number, small as usize - ENTRY);
            }
            let before = tier.stats();
            let large = tier.object_bytes_max() - ENTRY;
            assert!(large as f64 > 0.0199 * (mib << 20) as f64);
            put(&tier, 1 << 40, large);
            assert_eq!(tier.peek(key(1 << 40)).map(|page| page.bytes), Some(large));
            assert_eq!(
                tier.insert(key(2 << 40), page(2 << 40, 0, large + 1)),
                Insertion::Refused(Refusal::TooLarge)
            );
            let lost = tier.stats().evictions - before.evictions;
            let needed = (large as u64).div_ceil(small) + 1;
            assert!(lost <= needed, "{policy:?} {mib} MiB: {lost} left for {needed}");
            check_sums(&tier);
        }
    }
}

#[test]
fn a_smaller_budget_takes_effect_at_once() {
    let tier = tier_of(Policy::default(), 100);
    (0..100).for_each(|number| put(&tier, number, 1000));
    tier.resize(fixed(&tier) + 10 * (1000 + ENTRY));
    assert_eq!(tier.stats().entries, 10);
    check_sums(&tier);
}

#[test]
fn hits_and_misses_are_counted_and_a_peek_is_not() {
    let tier = tier_of(Policy::default(), 10);
    put(&tier, 1, 10);
    hit(&tier, 1, 3);
    assert_eq!(tier.lookup(key(2)), None);
    assert!(tier.peek(key(1)).is_some() && tier.peek(key(2)).is_none());
    let stats = tier.stats();
    assert_eq!((stats.hits, stats.misses, stats.entries), (3, 1, 1));
}

#[test]
fn values_are_dropped_outside_every_lock() {
    /// On its last drop looks itself up, which would hang if its shard were locked.
    struct Curious(Weak<Tier<Arc<Curious>>>);
    impl Weigh for Curious {
        fn bytes(&self) -> usize {
            1000
        }
    }
    impl Drop for Curious {
        fn drop(&mut self) {
            if let Some(tier) = self.0.upgrade() {
                (0..20).for_each(|number| drop(tier.remove_if(key(number), |_| false)));
            }
        }
    }
    for policy in POLICIES {
        let config = TierConfig { bytes_max: 1 << 40, policy, shards: Some(1), object_max_fraction: 1.0 };
        let tier: Arc<Tier<Arc<Curious>>> = Arc::new(Tier::new(config));
        tier.resize(tier.stats().bytes as usize + 5_000);
        let curious = || Arc::new(Curious(Arc::downgrade(&tier)));
        (0..20).for_each(|number| assert_eq!(tier.insert(key(number), curious()), Insertion::Inserted));
        let resident = (0..20).find(|number| tier.peek(key(*number)).is_some()).unwrap();
        assert_eq!(tier.insert(key(resident), curious()), Insertion::Replaced);
        tier.remove(key(resident));
        tier.clear();
        assert_eq!(tier.stats().entries, 0);
    }
}

#[test]
fn counted_index_bytes_bound_the_allocated_ones_up_and_down() {
    for policy in POLICIES {
        let tier = tier(policy, 4, 100 << 20);
        let check = |what: &str| {
            let stats = tier.stats();
            let counted = fixed(&tier) + stats.entries as usize * ENTRY;
            assert!(stats.index_bytes as usize <= counted, "{policy:?} {what}: {stats:?}, {counted} counted");
        };
        for number in 0..60_000 {
            put(&tier, number, 0);
            if number % 1009 == 0 {
                check("growing");
            }
        }
        for number in 0..60_000 {
            tier.remove(key(number));
            if number % 1009 == 0 {
                check("shrinking");
            }
        }
    }
}

#[test]
fn an_entry_with_a_shared_value_takes_at_most_87_bytes() {
    assert_eq!(size_of::<Option<crate::slots::Slot<Arc<u8>>>>(), 48);
    assert_eq!(Shard::<Arc<Page>>::ENTRY_BYTES, 87);
}

// --- The policies ---

#[test]
fn lru_evicts_what_was_not_used_for_longest() {
    let tier = tier_of(Policy::Lru, 3);
    (0..3).for_each(|number| put(&tier, number, 1000));
    hit(&tier, 0, 1);
    put(&tier, 3, 1000);
    assert_eq!(held(&tier, 0..4), [0, 2, 3]);
}

#[test]
fn sieve_spares_what_was_hit_once_and_leaves_it_in_place() {
    let tier = tier_of(Policy::Sieve, 3);
    (0..3).for_each(|number| put(&tier, number, 1000));
    hit(&tier, 0, 1);
    put(&tier, 3, 1000);
    assert_eq!(held(&tier, 0..4), [0, 2, 3]);
    // The hand goes on from where it was: 0 has lost its mark but lies behind it.
    put(&tier, 4, 1000);
    put(&tier, 5, 1000);
    assert_eq!(held(&tier, 0..6), [0, 4, 5]);
}

#[test]
fn s3fifo_keeps_what_was_hit_twice_from_a_scan() {
    let tier = tier_of(Policy::S3Fifo, 20);
    (0..20).for_each(|number| put(&tier, number, 1000));
    (0..10).for_each(|number| hit(&tier, number, 2));
    (100..200).for_each(|number| put(&tier, number, 1000));
    assert_eq!(held(&tier, 0..20), Vec::from_iter(0..10));
}

#[test]
fn s3fifo_takes_what_returns_from_the_ghost_straight_to_the_main_queue() {
    let tier = tier_of(Policy::S3Fifo, 20);
    (0..30).for_each(|number| put(&tier, number, 1000));
    assert_eq!(held(&tier, [9]), []);
    put(&tier, 9, 1000);
    assert_eq!(tier.stats().ghost_hits, 1);
    (100..110).for_each(|number| put(&tier, number, 1000));
    assert_eq!(held(&tier, [9]), [9]);
}

#[test]
fn lgdsf_prefers_small_objects_as_e_says() {
    for (e, small_left) in [(1.0, 10), (0.5, 10), (0.0, 0)] {
        let tier = tier(Policy::Lgdsf { e }, 1, 10 * (100 + ENTRY) + 10 * (10_000 + ENTRY));
        (0..10).for_each(|number| put(&tier, number, 100));
        (10..20).for_each(|number| put(&tier, number, 10_000));
        (20..25).for_each(|number| put(&tier, number, 10_000));
        assert_eq!(held(&tier, 0..10).len(), small_left, "e = {e}");
    }
}

#[test]
fn lgdsf_keeps_what_was_hit_from_a_scan() {
    let tier = tier_of(Policy::default(), 20);
    (0..20).for_each(|number| put(&tier, number, 1000));
    (0..10).for_each(|number| hit(&tier, number, 3));
    (100..130).for_each(|number| put(&tier, number, 1000));
    assert_eq!(held(&tier, 0..20), Vec::from_iter(0..10));
}

#[test]
fn lgdsf_forgets_old_favourites_when_nobody_asks_for_them() {
    let tier = tier_of(Policy::default(), 20);
    (0..20).for_each(|number| put(&tier, number, 1000));
    (0..10).for_each(|number| hit(&tier, number, 7));
    (100..600).for_each(|number| put(&tier, number, 1000));
    assert_eq!(held(&tier, 0..20), []);
}

#[test]
fn lgdsf_gives_a_returning_object_part_of_its_former_frequency() {
    let tier = tier_of(Policy::default(), 10);
    put(&tier, 0, 1000);
    hit(&tier, 0, 7);
    let mut next = 100;
    while !held(&tier, [0]).is_empty() {
        put(&tier, next, 1000);
        next += 1;
    }
    put(&tier, 0, 1000);
    assert_eq!(tier.stats().ghost_hits, 1);
    // Without a hit since its return it outlives newcomers for some turns of the tier.
    (0..20).for_each(|number| put(&tier, 1000 + number, 1000));
    assert_eq!(held(&tier, [0]), [0]);
}
