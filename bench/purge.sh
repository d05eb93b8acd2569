#!/usr/bin/env bash
# From the API call to the last edge's receipt, on a cluster of real processes, and whether anything purged is served afterwards.
# Usage: bench/purge.sh [--quick] [--calls N] [--random N]
# Three etcd servers, two controls, a relay, five edges with disks, one origin, visitors at every edge: see
# crates/world/src/cluster.rs and crates/world/src/bin/purging.rs. First N calls with one purge each, 100 a second at random times, are
# timed from when they were due; then a quarter as many by eight who call again at once; then N purges in calls of fifty go against
# slow fills and edges that are killed, frozen and cut off.
set -euo pipefail
cd "$(dirname "$0")/.."
calls=10000 random=100000
while [ $# -gt 0 ]; do
  case $1 in
    --quick) calls=500 random=5000; shift ;;
    --calls) calls=$2; shift 2 ;;
    --random) random=$2; shift 2 ;;
    *) sed -n '2,7s/^# //p' "$0" >&2; exit 2 ;;
  esac
done
command -v etcd >/dev/null || { echo "etcd is missing: apt-get install etcd-server" >&2; exit 1; }
cargo build --release --quiet -p perigee
cargo build --release --quiet -p world --bin purging
target=${CARGO_TARGET_DIR:-target}/release
exec "$target/purging" "$target/perigee" "$calls" "$random"
