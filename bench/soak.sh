#!/usr/bin/env bash
# A whole CDN under fire: processes killed, frozen, cut off, narrowed, filled and damaged while visitors browse and a shop purges.
# Usage: bench/soak.sh [--quick] [--debug] [--minutes N] [--seed S] [--etcd N] [--visitors N]
# Three etcd servers, two controls, a relay, four edges in three PoPs, two routers, an origin with a budget, visitors: see
# crates/world/src/soak.rs, which has what is watched. As root each process is in a network namespace of its own. An hour without
# --minutes; --quick takes two minutes. It exits with 1 when anything happened that must not, and keeps logs and state.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=release options=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) options+=(--minutes 2); shift ;;
    --debug) profile=dev; shift ;;
    --minutes | --seed | --etcd | --visitors) options+=("$1" "$2"); shift 2 ;;
    *) sed -n '2,6s/^# //p' "$0" >&2; exit 2 ;;
  esac
done
cargo build --profile "$profile" --quiet -p perigee
cargo build --profile "$profile" --quiet -p world --bin perigee-world
exec "${CARGO_TARGET_DIR:-target}/${profile/dev/debug}/perigee-world" soak "${options[@]}"
