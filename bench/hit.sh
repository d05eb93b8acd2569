#!/usr/bin/env bash
# CPU time per cache hit, Perigee against nginx proxy_cache; see hit.py. Usage: bench/hit.sh [--quick] [--rounds N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run hit nginx wrk varnishd:varnish haproxy -- "$@"
