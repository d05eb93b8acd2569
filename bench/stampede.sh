#!/usr/bin/env bash
# Origin requests when thousands of clients miss one key at once; see stampede.py. Usage: bench/stampede.sh [--quick]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run stampede nginx varnishd:varnish -- "$@"
