//! Runs the public HTTP cache-tests definitions against a proxy; see [`world::conformance`].

use std::process::ExitCode;

fn main() -> ExitCode {
    world::conformance::run(std::env::args().skip(1))
}
