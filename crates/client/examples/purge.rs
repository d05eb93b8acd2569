//! Purges surrogate keys everywhere, and waits until every edge has signed for it:
//!
//! `PERIGEE_CONTROL=https://… PERIGEE_AUTHORITY=64 hex digits PERIGEE_TOKEN=pgt_… cargo run -p client --example purge product-17 …`

use std::time::Duration;

use client::{Control, Error, Purge, position};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let named =
        |name: &str| std::env::var(name).map_err(|_| Error::new(format!("{name} is not set"), "set it"));
    let control =
        Control::new(&named("PERIGEE_CONTROL")?, &named("PERIGEE_AUTHORITY")?, &named("PERIGEE_TOKEN")?)?;
    let purge = Purge { tags: std::env::args().skip(1).collect(), ..Purge::default() };
    let accepted = control.purge(&purge)?;
    let proof = control.await_purge(position(&accepted)?, Duration::from_secs(30), &mut |_| {})?;
    println!("{}: {} receipts", proof["state"], proof["receipts"].as_array().map_or(0, Vec::len));
    Ok(())
}
