#!/usr/bin/env bash
# CPU per DNS query against gdnsd, with client subnets, plain and signed; see dns.py. Usage: bench/dns.sh [--quick] [--rounds N] [--location FILE] [--large]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run dns gdnsd dnsperf dig:bind9-dnsutils -- "$@"
