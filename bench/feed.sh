#!/usr/bin/env bash
# What following the journal costs, and how nodes come back after their control has died; see crates/journal/examples/feed.rs.
# Usage: bench/feed.sh [--quick] [--nodes N] [--records N]
set -euo pipefail
cd "$(dirname "$0")/.."
nodes=200 records=100000
while [ $# -gt 0 ]; do
  case $1 in
    --quick) nodes=50 records=10000; shift ;;
    --nodes) nodes=$2; shift 2 ;;
    --records) records=$2; shift 2 ;;
    *) echo "$1: unknown; see the head of $0" >&2; exit 2 ;;
  esac
done
cargo build --release --quiet -p journal --example feed
exec "${CARGO_TARGET_DIR:-target}/release/examples/feed" "$nodes" "$records"
