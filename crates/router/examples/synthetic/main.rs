//! What measurements are worth, and how load is spread, on a synthetic internet. See `internet` for the model.
//!
//! `cargo run --release -p router --example synthetic -- beacons [ROUNDS [SEED]]` or `… load [SEED]`; called by `bench/`.

mod beacons;
mod internet;
mod load;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments.iter().skip(1).filter_map(|text| text.parse().ok()).collect();
    match arguments.first().map(String::as_str) {
        Some("beacons") => beacons::run(&numbers),
        Some("load") => load::run(&numbers),
        _ => {
            eprintln!("usage: synthetic beacons [ROUNDS [SEED]] | load [SEED]");
            return std::process::ExitCode::from(2);
        }
    }
    std::process::ExitCode::SUCCESS
}
