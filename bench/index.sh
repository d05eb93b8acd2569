#!/usr/bin/env bash
# RAM per object on disk and the warm start of the index, by the store's own example: ten million objects would take too
# long through HTTP. Usage: bench/index.sh [--quick] [--objects N]
set -euo pipefail
top=$(dirname "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)")
usage='Usage: bench/index.sh [--quick] [--objects N]
Builds and runs the example "index" of the crate store with N objects (10000000; 200000 with --quick) in a
temporary directory below TMPDIR (/tmp), which must be on a disk.'

objects=10000000
while [ $# -gt 0 ]; do
  case $1 in
    --quick) objects=200000 ;;
    --objects) objects=${2:?"--objects wants a number"}; shift ;;
    -h|--help) echo "$usage"; exit ;;
    *) echo "$usage" >&2; exit 1 ;;
  esac
  shift
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/perigee-bench-XXXXXXXX")
example=
clean() {
  trap - EXIT INT TERM
  if [ -n "$example" ]; then kill "$example" 2>/dev/null && wait "$example" || true; fi
  rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$top"
cargo build --release --quiet -p store --example index
# In the background, because only then does a signal to this script end the example at once.
"${CARGO_TARGET_DIR:-$top/target}/release/examples/index" --objects "$objects" --dir "$dir" &
example=$!
code=0
wait "$example" || code=$?
example=
exit "$code"
