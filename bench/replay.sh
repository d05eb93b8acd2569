#!/usr/bin/env bash
# How well `perigee replay` predicts hit ratios, and how fast it reads; see replay.py. Usage: bench/replay.sh [--quick]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run replay xz:xz-utils -- "$@"
