#!/usr/bin/env bash
# A small CDN through a day of a clock that runs fast: does anything grow? See day.py. Usage: bench/day.sh [--quick] [--rate N] [--hours N] [--seed N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run day cc:gcc openssl -- "$@"
