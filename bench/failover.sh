#!/usr/bin/env bash
# How soon a PoP that dies gets no new answers, and one that is back does; see failover.py. Usage: bench/failover.sh [--quick] [--kills N]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
bench_run failover -- "$@"
