#!/usr/bin/env bash
# How often the origin is asked when thousands of clients of five edges want the same; see one_fetch.py.
# Usage: bench/one_fetch.sh [--quick] [--no-whole] [--clients N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run one_fetch openssl -- "$@"
