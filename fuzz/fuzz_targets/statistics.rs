//! Any bytes as what a node says of a second, and what is read of them once more.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stats::{Report, TopList};

fuzz_target!(|bytes: &[u8]| {
    let Ok(report) = Report::decode(bytes) else { return };
    // Names that this version does not know are not said again, and numbers can be written in more than one way.
    let again = Report::decode(&report.encode());
    assert_eq!(again.as_ref(), Ok(&report));
    for (_, list) in &report.lists {
        let mut sum = TopList::default();
        sum.merge([list, list]);
        sum.keep(3);
        assert!(sum.entries.len() <= 3 && sum.entries.iter().all(|entry| entry.over <= entry.count));
    }
    for (_, cell) in &report.cells {
        let mut sum = cell.clone();
        sum.merge(cell);
        assert!(sum.first_byte.quantile_us(990) >= sum.first_byte.quantile_us(500));
    }
});
