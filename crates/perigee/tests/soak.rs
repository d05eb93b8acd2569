//! A whole CDN under fire, in short: `perigee-world soak` is the long form.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
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

/// Says to this test that it is the one that is interrupted.
const INTERRUPTED: &str = "PERIGEE_SOAK_INTERRUPTED";

#[test]
fn ctrl_c_ends_it_in_order_after_the_step_that_is_under_way() {
    if std::env::var_os(INTERRUPTED).is_some() {
        let outcome = run(&Options {
            perigee: PathBuf::from(env!("CARGO_BIN_EXE_perigee")),
            seed: SEED,
            length: Duration::from_secs(600),
            steps_max: usize::MAX,
            etcd: usize::from(has_etcd()),
            visitors: 2,
            hold_max: Duration::from_secs(1),
            agree_within: Duration::from_secs(60),
        });
        return assert_eq!(outcome.violations, 0);
    }
    // A group of its own, as a shell gives it; what it has started ends with it if this test is killed.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(std::env::current_exe().unwrap())
        .args(["ctrl_c_ends_it_in_order_after_the_step_that_is_under_way", "--exact", "--nocapture"])
        .env(INTERRUPTED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let (mut said, mut is_asked) = (String::new(), false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("all agree after") && !is_asked {
            is_asked = true;
            kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = child.wait().unwrap();
    assert!(status.success() && said.contains("ending after this step"), "{status}: {said}");
    assert!(said.contains("violations=0"), "{said}");
    let mine = format!("perigee-cluster-{}-", child.id());
    let mut left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    assert!(!left.any(|entry| entry.file_name().to_string_lossy().starts_with(&mine)), "{said}");
}
