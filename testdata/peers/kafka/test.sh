#!/bin/sh
# The tests of the Kafka source against a real broker: starts one on loopback, runs them, stops it by its process id.
#
#   test.sh [CACHE_DIR]
#
# CACHE_DIR as in start.sh. RELIGHT_KILLS=50 and RELIGHT_SEED=N choose how often and when the daemon is killed.
# Takes 3 minutes beside the build; the first time 10 s more, for the jars.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-${RELIGHT_PEERS_CACHE:-$HOME/.cache/relight-peers}}
for tool in java mvn; do
    command -v "$tool" > /dev/null || { echo "no $tool: apt-get install openjdk-17-jre-headless maven" >&2; exit 1; }
done
data=$(mktemp -d)
# Below the ports that the system hands out by itself.
port=$((10000 + $$ % 4000 * 5))
pid=$("$here/start.sh" "$cache" "$data" "$port")
trap 'kill "$pid"; while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done; rm -rf "$data"' EXIT
trap 'exit 1' INT TERM
export RELIGHT_KAFKA="127.0.0.1:$port"

cd "$here/../../.."
# One set of features for both, so that nothing is built twice.
cargo test --workspace --locked --features relight/kafka-tests --test kafka
cargo test --workspace --locked --features relight/kafka-tests --lib kafka:: -- --include-ignored --skip b05_
