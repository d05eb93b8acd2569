#!/usr/bin/env bash
# Commits per second of the journal's engines, and how soon a reader has them, by the journal's own example.
# Usage: bench/journal.sh [--quick]
set -euo pipefail
top=$(dirname "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)")
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
usage='Usage: bench/journal.sh [--quick]
Builds and runs the example "commits" of the crate journal: on a file below TMPDIR (/tmp), which must be on the disk that
is meant, and on three members of etcd on free ports of loopback, with their data in the same place.'

seconds=10
while [ $# -gt 0 ]; do
  case $1 in
    --quick) seconds=2 ;;
    -h|--help) echo "$usage"; exit ;;
    *) echo "$usage" >&2; exit 1 ;;
  esac
  shift
done

"$top/.ci/packages" etcd:etcd-server
dir=$(mktemp -d "${TMPDIR:-/tmp}/perigee-bench-XXXXXXXX")
children=()
clean() {
  trap - EXIT INT TERM
  for child in "${children[@]}"; do kill "$child" 2>/dev/null && wait "$child" || true; done
  rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$top"
cargo build --release --quiet -p journal --example commits

# The settings of a system's etcd are not for these.
for name in "${!ETCD_@}"; do unset "$name"; done
read -r -a ports < <(python3 - <<'END'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
print(*(s.getsockname()[1] for s in held))
END
)
cluster= endpoints=
for n in 0 1 2; do
  cluster+=${cluster:+,}m$n=http://127.0.0.1:${ports[n + 3]}
  endpoints+=${endpoints:+,}http://127.0.0.1:${ports[n]}
done
for n in 0 1 2; do
  client=http://127.0.0.1:${ports[n]} peer=http://127.0.0.1:${ports[n + 3]}
  etcd --name "m$n" --data-dir "$dir/m$n" --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "$cluster" >"$dir/m$n.log" 2>&1 &
  children+=($!)
done

# In the background, because only then does a signal to this script end the example at once.
"${CARGO_TARGET_DIR:-$top/target}/release/examples/commits" --seconds "$seconds" --dir "$dir" --etcd "$endpoints" &
example=$!
children+=("$example")
code=0
wait "$example" || code=$?
if [ "$code" -ne 0 ]; then tail -n 5 "$dir"/m?.log >&2; fi
exit "$code"
