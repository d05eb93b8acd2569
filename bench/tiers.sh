#!/usr/bin/env bash
# What asking another edge costs, and what a hit costs on an edge that has others; see tiers.py.
# Usage: bench/tiers.sh [--quick] [--rounds N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run tiers nginx wrk openssl -- "$@"
