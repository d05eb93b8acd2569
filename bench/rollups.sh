#!/usr/bin/env bash
# How large thirteen months of statistics are, and how long a dashboard waits for them; see crates/control/examples/rollups.rs.
# Usage: bench/rollups.sh [--quick] [--sites N] [--pops N] [--days N]. Writes to TMPDIR (/tmp) what it prints as its size.
set -euo pipefail
cd "$(dirname "$0")/.."
sites=100 pops=50 days=396
while [ $# -gt 0 ]; do
  case $1 in
    --quick) sites=20 pops=10 days=40; shift ;;
    --sites) sites=$2; shift 2 ;;
    --pops) pops=$2; shift 2 ;;
    --days) days=$2; shift 2 ;;
    *) echo "$1: unknown; see the head of $0" >&2; exit 2 ;;
  esac
done
cargo build --release --quiet -p control --example rollups
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${CARGO_TARGET_DIR:-target}/release/examples/rollups" "$work" "$sites" "$pops" "$days"
