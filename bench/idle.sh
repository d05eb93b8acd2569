#!/usr/bin/env bash
# User memory per idle connection and per stored object; see idle.py. Usage: bench/idle.sh [--quick]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run idle nginx wrk varnishd:varnish haproxy -- "$@"
