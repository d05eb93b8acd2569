//! What the tier says it takes is what the process takes. One test in a process of its own: it reads the resident size
//! of the process.

use store::{Insertion, Tier, TierConfig, Weigh};

#[derive(Clone)]
struct Nothing(#[expect(dead_code, reason = "as large as a pointer to a value")] std::num::NonZeroU64);

impl Weigh for Nothing {
    fn bytes(&self) -> usize {
        0
    }
}

/// Resident bytes of this process; `None` where the system doesn't tell.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? * 1024)
}

#[test]
fn entries_take_no_more_memory_than_is_counted() {
    const ENTRIES: u64 = 300_000;
    let tier = Tier::new(TierConfig { bytes_max: 1 << 30, ..TierConfig::default() });
    let Some(before) = resident() else { return eprintln!("skipped: no /proc/self/status") };
    let mix = |number: u64| {
        let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 31)
    };
    for number in 0..ENTRIES {
        let key = u128::from(mix(number * 2 + 1)) << 64 | u128::from(mix(number * 2 + 2));
        assert_eq!(tier.insert(key, Nothing(std::num::NonZeroU64::MIN)), Insertion::Inserted);
    }
    let taken = resident().unwrap_or(usize::MAX).saturating_sub(before);
    let stats = tier.stats();
    println!(
        "resident {:.1}, allocated {:.1}, counted {:.1} bytes per entry",
        taken as f64 / ENTRIES as f64,
        stats.index_bytes as f64 / ENTRIES as f64,
        stats.bytes as f64 / ENTRIES as f64
    );
    assert!(taken <= stats.bytes as usize + (2 << 20), "{taken} resident, {} counted", stats.bytes);
    assert!(
        taken >= stats.bytes as usize / 2,
        "counted far too much: {taken} resident, {} counted",
        stats.bytes
    );
}
