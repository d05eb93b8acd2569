#!/usr/bin/env bash
# What page views that browsers tell of cost an edge; see rum.py. Usage: bench/rum.sh [--quick] [--rounds N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run rum nginx -- "$@"
