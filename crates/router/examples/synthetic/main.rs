//! A synthetic internet, and how load is spread on it. See `internet` for the model.
//!
//! `cargo run --release -p router --example synthetic -- internet SEED TOWNS` prints it as JSON, `… load [SEED]` measures; called by `bench/`.

mod beacons;
mod internet;
mod load;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments.iter().skip(1).filter_map(|text| text.parse().ok()).collect();
    match arguments.first().map(String::as_str) {
        Some("internet") => {
            let number = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
            let mut chance = internet::Chance(number(0, 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
            println!("{}", internet::Internet::new(&mut chance, number(1, 1_500) as usize).as_json());
        }
        Some("load") => load::run(&numbers),
        Some("beacons") => beacons::run(&numbers),
        _ => {
            eprintln!(
                "usage: synthetic internet [SEED [TOWNS]] | load [SEED] | beacons [SEEDS [TOWNS [SYSTEMS [RESTLESS]]]]"
            );
            return std::process::ExitCode::from(2);
        }
    }
    std::process::ExitCode::SUCCESS
}
