#!/usr/bin/env bash
# CPU per hit over TLS and per handshake, beside nginx; see tls.py. Usage: bench/tls.sh [--quick] [--rounds N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
if [ -z "${H3LOAD:-}" ]; then
  (cd "$top" && cargo build --release --quiet -p world --bin h3load)
  H3LOAD=${CARGO_TARGET_DIR:-$top/target}/release/h3load
fi
export H3LOAD
bench_run tls nginx wrk h2load:nghttp2-client openssl caddy -- "$@"
