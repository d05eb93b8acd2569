#!/usr/bin/env bash
# Rewriting of pages of 50 KB beside the HTML rewriter that does nothing, and memory on a page of 100 MB; see
# crates/website/examples/rewriting.rs. Usage: bench/rewrite.sh [--quick]
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/setup.sh"
seconds=10 mib=100
case " $* " in *' --quick '*) seconds=1 mib=10 ;; esac
(cd "$top" && cargo build --release --quiet -p website --example rewriting)
rewriting=${CARGO_TARGET_DIR:-$top/target}/release/examples/rewriting
memory=$("$rewriting" memory "$mib")
echo "$memory" | sed 's/^RESULT/memory/'
speed=$("$rewriting" speed "$seconds")
echo "$speed $(echo "$memory" | grep -o 'grown_kib=[0-9]*')"
