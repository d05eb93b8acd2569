//! A whole CDN under fire, in short: `perigee-world soak` is the long form.

use std::path::PathBuf;
use std::time::Duration;

use world::cluster::has_etcd;
use world::soak::{Options, run};

/// Where etcd is and network namespaces are: an edge is killed, the shield is cut off, all controls are killed, and a store is damaged.
const SEED: u64 = 57_641;

#[test]
fn under_fire_every_answer_is_right_nothing_purged_or_private_is_served_and_all_agree_afterwards() {
    let seed = std::env::var("PERIGEE_SOAK_SEED").ok().and_then(|text| text.parse().ok());
    let outcome = run(&Options {
        perigee: PathBuf::from(env!("CARGO_BIN_EXE_perigee")),
        seed: seed.unwrap_or(SEED),
        length: Duration::from_secs(45),
        steps_max: 4,
        etcd: usize::from(has_etcd()),
        visitors: 6,
        hold_max: Duration::from_secs(3),
        // Of a machine that does much else at the same time.
        agree_within: Duration::from_secs(60),
    });
    assert_eq!(outcome.violations, 0, "what must never be: see above, with the seed");
    assert!(outcome.steps > 0 && outcome.answered > 100, "{outcome:?}");
}
