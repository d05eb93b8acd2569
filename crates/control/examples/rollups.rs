//! Size and speed of thirteen months of statistics: `rollups DIRECTORY SITES POPS DAYS`. Prints a table and one line `RESULT …`.

use std::path::Path;
use std::time::Instant;

use control::measure::{Shape, Took, ask, fill};

/// Rounds of each question.
const ROUNDS: usize = 5;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, sites, pops, days] = &arguments[..] else {
        return Err("wanted DIRECTORY SITES POPS DAYS".to_owned());
    };
    let number = |text: &String| text.parse::<u32>().map_err(|error| format!("{text}: {error}"));
    let shape = Shape {
        sites: number(sites)?,
        pops: number(pops)?,
        days: i64::from(number(days)?),
        minute_hours: 12,
        second_minutes: 20,
    };
    let path = Path::new(directory).join("statistics.sqlite");
    let begun = Instant::now();
    let bytes = match std::fs::metadata(&path) {
        // Of an earlier run: the same questions, of another program.
        Ok(found) => found.len(),
        Err(_) => fill(&path, shape)?,
    };
    println!("{:.2} GB, there in {:.0} s", bytes as f64 / 1e9, begun.elapsed().as_secs_f64());
    let asked = ask(&path, shape, ROUNDS)?;
    println!("{:<30} {:>8} {:>8}", "slowest answer, ms", "by clock", "CPU");
    for (name, took) in &asked {
        println!("{name:<30} {:>8.1} {:>8.1}", took.wall_ms, took.cpu_ms);
    }
    let slowest = |of: fn(&Took) -> f64| asked.iter().map(|(_, took)| of(took)).fold(0.0, f64::max);
    let (wall, cpu) = (slowest(|took| took.wall_ms), slowest(|took| took.cpu_ms));
    println!("RESULT bytes={bytes} slowest_ms={wall:.1} slowest_cpu_ms={cpu:.1}");
    Ok(())
}
