#!/usr/bin/env bash
# What an edge does with too little memory, and with twice what it can answer; see overload.py. Usage: bench/overload.sh [--quick]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run overload -- "$@"
