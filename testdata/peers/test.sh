#!/bin/sh
# The tests of the daemon beside real programs: fetches them, starts a broker on loopback, runs the tests, stops it by its process id.
#
#   test.sh [ARGUMENT ...]      arguments for the tests, such as a name
#
# Takes 3 minutes beside the build and fetch.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/fetch.sh"
data=$(mktemp -d)
# Five ports below those that the system hands out by itself, and beside those of kafka/test.sh.
port=$((10000 + $$ % 4000 * 5))
pid=$("$here/kafka/start.sh" "${RELIGHT_PEERS_CACHE:-$HOME/.cache/relight-peers}" "$data" "$port")
trap 'kill "$pid"; while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done; rm -rf "$data"' EXIT
trap 'exit 1' INT TERM
export RELIGHT_KAFKA="127.0.0.1:$port"

cd "$here/../.."
cargo test --workspace --locked --features relight/peer-tests --test peers -- "$@"
