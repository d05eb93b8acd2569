#!/bin/sh
# Purges surrogate keys by control's API, with nothing but curl: what any webhook, build or deployment can run, or send itself.
# Usage: PERIGEE_CONTROL=https://… PERIGEE_AUTHORITY=ca.pem PERIGEE_TOKEN=pgt_… clients/webhook/purge.sh KEY…
# The URL's host has to be one of control's `names`. Exits 0 once every edge in service has signed that the purge is in force.
set -eu
: "${PERIGEE_CONTROL:?is the URL of control}" "${PERIGEE_AUTHORITY:?is the file ca.pem of its state directory}" "${PERIGEE_TOKEN:?is the token}"
[ $# -gt 0 ] || { echo "usage: $0 KEY…" >&2; exit 2; }

ask() {
  # The token goes in by standard input, so that no list of processes shows it.
  printf 'header = "Authorization: Bearer %s"\n' "$PERIGEE_TOKEN" |
    curl --config - --silent --show-error --fail-with-body --max-time 70 --cacert "$PERIGEE_AUTHORITY" --header 'Content-Type: application/json' "$@"
}

tags=
for key in "$@"; do
  case $key in *[\"\\]*) echo "a key has neither quotes nor backslashes: $key" >&2; exit 2 ;; esac
  tags="$tags${tags:+,}\"$key\""
done
accepted=$(ask --data "{\"tags\":[$tags],\"reason\":\"webhook\"}" "$PERIGEE_CONTROL/v1/purges")
position=$(printf '%s' "$accepted" | sed -n 's/.*"position": *\([0-9]*\).*/\1/p' | head -n 1)
status=$(ask "$PERIGEE_CONTROL/v1/purges/$position?wait=30s")
printf '%s\n' "$status"
printf '%s' "$status" | grep -q '"state": *"done"'
