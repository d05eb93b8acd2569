#!/usr/bin/env bash
# Hit ratios of the eviction policies on generated and real traffic; see crates/store/examples/policy/main.rs.
# Usage: bench/policy.sh [--quick]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
"$top/.ci/packages" xz:xz-utils || echo "Going on without what is missing." >&2
(cd "$top" && cargo build --release --quiet -p store --example policy)
exec "${CARGO_TARGET_DIR:-$top/target}/release/examples/policy" "$@"
