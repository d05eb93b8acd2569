#!/usr/bin/env bash
# How near the spreading of load comes to the optimum; see load.py. Usage: bench/load.sh [ROUNDS [SEED]]
# Takes scipy from PyPI, once.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${CARGO_TARGET_DIR:-$PWD/target}/load
if [ ! -x "$cache/venv/bin/python" ]; then
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install -q scipy==1.17.1
fi
cargo build --release --quiet -p router --example synthetic
exec "$cache/venv/bin/python" bench/load.py "${CARGO_TARGET_DIR:-$PWD/target}/release/examples/synthetic" "$@"
