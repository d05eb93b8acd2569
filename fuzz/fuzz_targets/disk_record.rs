//! Any bytes as what lies on a disk: records, footers, superblocks, headers, shards of the index.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (is_sealed, bytes) = input;
    store::disk::fuzzing::disk_record(bytes, is_sealed);
});
