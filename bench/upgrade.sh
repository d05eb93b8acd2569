#!/usr/bin/env bash
# Upgrades in place under load; see upgrade.py. Usage: bench/upgrade.sh [--quick] [--share N] [--seconds N] [--protocol NAME] [--disk]
# VISITORS=PATH takes another binary of those who speak HTTP/2 and HTTP/3 instead of building it.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
if [ -z "${VISITORS:-}" ]; then
  (cd "$top" && cargo build --release --quiet -p world --bin visitors)
  VISITORS=${CARGO_TARGET_DIR:-$top/target}/release/visitors
fi
export VISITORS
bench_run upgrade -- "$@"
