#!/bin/sh
# Records the shop again: shop.ndjson.zst and shop.labels.ndjson, from real programs on this machine.
#
#   record.sh                             the whole recording (about 43 minutes), into this folder
#   record.sh --scale 0.1 --out /tmp/try  a rehearsal: the same faults, ten times shorter
#
# Installs nginx, haproxy, wrk and zstd from Debian where they are missing. Listens on loopback only.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

missing=
for program in nginx haproxy wrk zstd; do
    command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ] || missing="$missing $program"
done
if [ -n "$missing" ]; then
    # The packages would start services of their own on port 80; runlevel 1 keeps invoke-rc.d from doing so.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    apt-get install -y -qq --no-install-recommends $missing
fi

PATH="$PATH:/usr/sbin"
export PATH

# A busy machine must not colour the response times. Who may not raise a priority records without.
if [ "$(nice -n -15 nice 2>/dev/null)" = -15 ]; then
    exec nice -n -15 python3 -B "$here/record_shop.py" "$@"
fi
exec python3 -B "$here/record_shop.py" "$@"
