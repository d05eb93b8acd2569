#!/usr/bin/env bash
# Throughput on one and two cores, and hit cost by objects stored; see scale.py. Usage: bench/scale.sh [--quick] [--rounds N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run scale nginx wrk -- "$@"
