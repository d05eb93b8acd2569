#!/usr/bin/env bash
# kill -9 at seeded moments under load; see crash.py. Usage: bench/crash.sh [--quick] [--kills N] [--seed N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run crash nginx wrk -- "$@"
