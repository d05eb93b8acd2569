#!/usr/bin/env bash
# Disk hits against fio and nginx proxy_cache, and write amplification; see disk.py.
# Usage: bench/disk.sh [--quick] [--rounds N] [--writing]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run disk nginx wrk fio -- "$@"
