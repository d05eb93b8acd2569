#!/usr/bin/env bash
# What floods cost a visitor who behaves; see abuse.py. Usage: bench/abuse.sh [--quick] [--seconds N] [--only WORDS]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
# The floods are those of the HTTP/2 suite, and need its packages.
if ! PATH="$("$top/e2e/http2/packages"):$PATH"; then
  echo "Cannot measure: the packages of e2e/http2/requirements.txt could not be installed" >&2
  exit 1
fi
bench_run abuse openssl -- "$@"
