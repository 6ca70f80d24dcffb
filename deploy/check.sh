#!/usr/bin/env bash
# What is deployed, checked by those who will read it: systemd reads the unit, Prometheus the alerts.
#
# `deploy/check.sh`, from anywhere. No container engine is asked: the image is built where there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

for tool in systemd-analyze:systemd promtool:prometheus; do
    command -v "${tool%%:*}" >/dev/null || fail "no ${tool%%:*}: apt-get install ${tool##*:}"
done

# The threshold is ten times the level that systemd prints: at most 1.5.
rating=$(systemd-analyze security --no-pager --offline=true --threshold=15 relight.service 2>/dev/null) ||
    fail "the unit is too open: $(tail -n 1 <<<"$rating")"
tail -n 1 <<<"$rating"

# `verify` exits with 0 whatever it finds: its silence is what counts. It wants the program to be there.
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
sed 's|^ExecStart=/usr/bin/relight |ExecStart=/bin/true |' relight.service >"$folder/relight.service"
found=$(systemd-analyze verify "$folder/relight.service" 2>&1 >/dev/null || true)
[ -z "$found" ] || fail "$found"

promtool check rules alerts.yaml
