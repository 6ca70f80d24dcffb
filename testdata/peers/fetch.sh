#!/bin/sh
# Brings the peers of the tests into the cache, each once: its version is part of its name there.
#
#   fetch.sh [NAME ...]      of kafka, collector, toxiproxy, python, prometheus, alertmanager; all of them if none is named
#
# The cache is $RELIGHT_PEERS_CACHE, or ~/.cache/relight-peers. Nothing is started, and nothing installed but
# Alertmanager's templates. The Collector takes 2 to 3 minutes on two cores, toxiproxy 15 s, all the others together half a minute.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${RELIGHT_PEERS_CACHE:-$HOME/.cache/relight-peers}
mkdir -p "$cache"
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

need() { # TOOL PACKAGE
    command -v "$1" > /dev/null || { echo "no $1: $2" >&2; exit 1; }
}

is_here() { # NAME-VERSION
    if [ -e "$cache/$1" ]; then return 0; fi
    echo "fetching $1" >&2
    return 1
}

kafka() {
    if is_here kafka-4.3.0; then return; fi
    need mvn "apt-get install maven"
    mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/kafka" >&2
    mv "$work/kafka" "$cache/kafka-4.3.0"
}

collector() {
    if is_here collector-0.155.0; then return; fi
    need go "Go 1.25 or newer, from https://go.dev/dl"
    (cd "$here/collector" && go build -trimpath -o "$work/collector" .)
    mv "$work/collector" "$cache/collector-0.155.0"
}

toxiproxy() {
    if is_here toxiproxy-2.5.0; then return; fi
    need go "Go 1.25 or newer, from https://go.dev/dl"
    GOBIN=$work go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0
    mv "$work/server" "$cache/toxiproxy-2.5.0"
}

python() {
    if is_here python-1.45.2; then return; fi
    need python3 "apt-get install python3 python3-venv"
    python3 -m venv "$work/python"
    "$work/python/bin/python" -m pip install -q --disable-pip-version-check -r "$here/python/requirements.txt" >&2
    # `bin/python` works wherever the folder is; the scripts beside it, which nobody uses, do not.
    mv "$work/python" "$cache/python-1.45.2"
}

# Out of its package, without installing it: the system would start it as a service.
debian() { # PACKAGE VERSION BINARY
    need apt-get "this needs Debian 12, or $3 $2 in $cache"
    (cd "$work" && { apt-get download -qq "$1" || { apt-get update -qq && apt-get download -qq "$1"; }; } 2> log || cat log >&2)
    dpkg -x "$work/$1"_*.deb "$work"
    "$work/usr/bin/$3" --version 2>&1 | grep -q "version $2" || { echo "this $1 is not $2" >&2; exit 1; }
}

prometheus() {
    if is_here prometheus-2.42.0; then return; fi
    debian prometheus 2.42.0 prometheus
    # Beside it what deploy/check.sh asks.
    mkdir -p "$cache/bin"
    mv "$work/usr/bin/promtool" "$cache/bin/promtool"
    mv "$work/usr/bin/prometheus" "$cache/prometheus-2.42.0"
}

# Debian's reads its templates where the package would have put them, and nowhere else.
alertmanager() {
    templates=usr/share/prometheus/alertmanager
    if is_here alertmanager-0.25.0 && [ -e "/$templates/email.tmpl" ]; then return; fi
    debian prometheus-alertmanager 0.25.0 prometheus-alertmanager
    mkdir -p "/$templates" && cp "$work/$templates"/*.tmpl "/$templates" ||
        { echo "no templates in /$templates: run this as root once, or apt-get install prometheus-alertmanager" >&2; exit 1; }
    mv "$work/usr/bin/prometheus-alertmanager" "$cache/alertmanager-0.25.0"
}

[ $# -gt 0 ] || set -- kafka collector toxiproxy python prometheus alertmanager
for peer; do
    case $peer in
        kafka | collector | toxiproxy | python | prometheus | alertmanager) $peer ;;
        *) echo "no peer $peer; have: kafka, collector, toxiproxy, python, prometheus, alertmanager" >&2; exit 2 ;;
    esac
done
