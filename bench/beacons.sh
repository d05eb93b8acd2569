#!/usr/bin/env bash
# What measured round trips are worth, on a synthetic internet, by a running router; see beacons.py.
# Usage: bench/beacons.sh [--quick] [--prefixes | --blocks] [--rounds N] [--seed N]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
case " $* " in *' --help '*|*' -h '*) exec python3 "$here/beacons.py" --help ;; esac
target=${CARGO_TARGET_DIR:-$top/target}
if [ -z "${PERIGEE:-}" ]; then
  (cd "$top" && cargo build --release --quiet -p perigee)
  PERIGEE=$target/release/perigee
fi
if [ -z "${SYNTHETIC:-}" ]; then
  (cd "$top" && cargo build --release --quiet -p router --example synthetic)
  SYNTHETIC=$target/release/examples/synthetic
fi
export PERIGEE SYNTHETIC
exec python3 "$here/beacons.py" "$@"
