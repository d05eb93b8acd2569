#!/usr/bin/env bash
# Twelve kinds of valid but harmful configuration, staged on ten edges that are real processes, and three good ones.
# Usage: bench/harm.sh [--quick] [--debug] [KIND …]
# One control on SQLite, ten edges, origins and visitors: see crates/world/src/bin/harming.rs. Each configuration goes out as `perigee
# apply` has it; what is watched is which edges ever ran it, when harm could first be seen, when it was undone, and what edges fall
# back to. All take 45 minutes, five of them until the first configuration is stable and seven for each good one. --quick runs three kinds.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=release kinds=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) kinds=(errors-on-half crash-at-once personal-shared); shift ;;
    --debug) profile=dev; shift ;;
    -*) sed -n '2,6s/^# //p' "$0" >&2; exit 2 ;;
    *) kinds+=("$1"); shift ;;
  esac
done
cargo build --profile "$profile" --quiet -p perigee
cargo build --profile "$profile" --quiet -p world --bin harming
target=${CARGO_TARGET_DIR:-target}/${profile/dev/debug}
exec "$target/harming" "$target/perigee" "${kinds[@]}"
