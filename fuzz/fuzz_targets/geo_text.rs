//! Any text as a geofeed and as a list of networks, any bytes as a database.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut compiler = router::compile::Compiler::new();
    compiler.geofeed(&text, "feed");
    compiler.list(&text, "list");
    // Damaged databases are refused, and not more than that.
    _ = compiler.database(bytes);
});
