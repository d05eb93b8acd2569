#!/usr/bin/env bash
# What measured round trips are worth, on a synthetic internet; see crates/router/examples/synthetic.
# Usage: bench/beacons.sh [ROUNDS [SEED]]
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --release --quiet -p router --example synthetic -- beacons "$@"
