#!/usr/bin/env bash
# CPU time per cache hit with statistics and without, or (--sink) p99 with a dead collector; see stats.py. Usage: bench/stats.sh [--quick] [--sink] [--rounds N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run stats nginx wrk -- "$@"
