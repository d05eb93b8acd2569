#!/usr/bin/env bash
# Runs every bench one after the other, and prints what each found: its RESULT line, or that it could not measure.
# Usage: bench/all.sh [--quick] [NAME...]      what they print else is left in target/bench/NAME.log
# The whole takes hours on two cores, and wants a machine that does nothing else; with --quick half an hour.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
case ${1:-} in -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;; esac
quick=() names=()
for word in "$@"; do
  case $word in
    --quick) quick=(--quick) ;;
    *) names+=("$word") ;;
  esac
done
if [ "${#names[@]}" -eq 0 ]; then
  for script in bench/*.sh; do
    name=$(basename "$script" .sh)
    case $name in all | setup) ;; *) names+=("$name") ;; esac
  done
fi
for name in "${names[@]}"; do
  [ -x "bench/$name.sh" ] || { echo "bench/all.sh: there is no bench/$name.sh" >&2; exit 2; }
done
logs=${CARGO_TARGET_DIR:-target}/bench
mkdir -p "$logs"
failed=0
for name in "${names[@]}"; do
  # These take no --quick.
  case $name in load) options=() ;; *) options=("${quick[@]}") ;; esac
  "bench/$name.sh" "${options[@]}" >"$logs/$name.log" 2>&1 </dev/null
  status=$?
  if [ "$status" -eq 0 ] && result=$(grep '^RESULT ' "$logs/$name.log" | tail -n 1) && [ -n "$result" ]; then
    echo "$name: $result"
  else
    failed=$((failed + 1))
    echo "$name: could not measure (exit $status); see $logs/$name.log"
  fi
done
[ "$failed" -eq 0 ]
