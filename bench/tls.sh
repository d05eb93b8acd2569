#!/usr/bin/env bash
# CPU per hit over TLS and per handshake, beside nginx; see tls.py. Usage: bench/tls.sh [--quick] [--rounds N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run tls nginx wrk h2load:nghttp2-client openssl -- "$@"
