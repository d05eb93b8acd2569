//! A whole CDN under fire, in short: `perigee-world soak` is the long form.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use world::cluster::has_etcd;
use world::soak::{Options, run};

#[test]
fn under_fire_every_answer_is_right_nothing_purged_or_private_is_served_and_all_agree_afterwards() {
    let drawn =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64 % 1_000_000;
    let seed = std::env::var("PERIGEE_SOAK_SEED").ok().and_then(|text| text.parse().ok());
    let outcome = run(&Options {
        perigee: PathBuf::from(env!("CARGO_BIN_EXE_perigee")),
        seed: seed.unwrap_or(drawn),
        length: Duration::from_secs(20),
        steps_max: 5,
        etcd: usize::from(has_etcd()),
        visitors: 6,
        hold_max: Duration::from_secs(3),
        // Of a machine that does much else at the same time.
        agree_within: Duration::from_secs(60),
    });
    assert_eq!(outcome.violations, 0, "what must never be: see above, with the seed");
    assert!(outcome.steps > 0 && outcome.answered > 100, "{outcome:?}");
}
