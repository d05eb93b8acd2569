#!/usr/bin/env bash
# Upgrades in place under load; see upgrade.py. Usage: bench/upgrade.sh [--quick] [--protocol NAME]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run upgrade -- "$@"
