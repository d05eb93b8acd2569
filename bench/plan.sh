#!/usr/bin/env bash
# How far the plans of `perigee plan` are from the optimum, on 15 markets; see plan.py. Usage: bench/plan.sh [--quick] [--seed N]
# Takes numpy and scipy, whose HiGHS is the other solver, from PyPI once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
case " $* " in *' --help '*|*' -h '*) exec python3 "$here/plan.py" --help ;; esac
"$top/.ci/packages" python3 >&2
venv=${CARGO_TARGET_DIR:-$top/target}/plan-venv
if ! "$venv/bin/python" -c 'import scipy' 2>/dev/null; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q numpy==2.2.6 scipy==1.15.3
fi
if [ -z "${PERIGEE:-}" ]; then
  (cd "$top" && cargo build --release --quiet -p perigee)
  PERIGEE=${CARGO_TARGET_DIR:-$top/target}/release/perigee
fi
export PERIGEE
exec "$venv/bin/python" "$here/plan.py" "$@"
