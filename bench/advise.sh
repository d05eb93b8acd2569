#!/usr/bin/env bash
# How well `perigee advise` predicts, and what it finds; see advise.py. Usage: bench/advise.sh [--quick]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run advise xz:xz-utils -- "$@"
