# Sourced by every bench: installs rivals that are missing, builds Perigee, and runs the bench of the same name.
# PERIGEE=PATH measures another binary instead of building one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$here")
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# bench_run NAME PACKAGES… -- ARGUMENTS…
bench_run() {
  local name=$1 packages=()
  shift
  while [ "$1" != -- ]; do packages+=("$1"); shift; done
  shift
  case " $* " in *' --help '*|*' -h '*) exec python3 "$here/$name.py" --help ;; esac
  "$top/.ci/packages" "${packages[@]}" || echo "Going on without what is missing." >&2
  if [ -z "${PERIGEE:-}" ]; then
    (cd "$top" && cargo build --release --quiet -p perigee)
    PERIGEE=${CARGO_TARGET_DIR:-$top/target}/release/perigee
  fi
  export PERIGEE
  exec python3 "$here/$name.py" "$@"
}
