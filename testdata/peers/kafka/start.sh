#!/bin/sh
# Starts one Apache Kafka broker on loopback and prints its process id; `kill` that to stop it.
#
#   start.sh [CACHE_DIR [DATA_DIR [PORT]]]
#
# CACHE_DIR keeps the jars (54 MB, fetched once from Maven Central by ../fetch.sh; default $RELIGHT_PEERS_CACHE or
# ~/.cache/relight-peers). DATA_DIR is formatted if it is new (default: a temporary folder). PORT is the plain listener,
# PORT+1 the controller's, PORT+2 takes SCRAM-SHA-512 (user relight, password relight), PORT+3 is for a proxy that
# listens on PORT+4: who connects there is sent there again. Default 29092.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-${RELIGHT_PEERS_CACHE:-$HOME/.cache/relight-peers}}
data=${2:-$(mktemp -d)}
port=${3:-29092}
lib=$cache/kafka-4.3.0

RELIGHT_PEERS_CACHE=$cache "$here/../fetch.sh" kafka

mkdir -p "$data"
data=$(cd "$data" && pwd)
if [ ! -e "$data/server.properties" ]; then
    sed -e "s|CONTROLLER_PORT|$((port + 1))|g; s|PLAIN_PORT|$port|g; s|SASL_PORT|$((port + 2))|g; s|DATA_DIR|$data|g" \
        -e "s|PROXIED_PORT|$((port + 3))|g; s|PROXY_PORT|$((port + 4))|g" \
        "$here/server.properties" > "$data/new.properties"
    id=$(java -cp "$lib/*" kafka.tools.StorageTool random-uuid)
    java -cp "$lib/*" kafka.tools.StorageTool format -t "$id" -c "$data/new.properties" \
        --add-scram 'SCRAM-SHA-512=[name=relight,password=relight]' >&2
    mv "$data/new.properties" "$data/server.properties"
fi

java -Xms128m -Xmx512m -XX:+UseSerialGC -cp "$lib/*" kafka.Kafka "$data/server.properties" > "$data/server.log" 2>&1 &
pid=$!
tries=0
until java -cp "$lib/*" org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" --list > /dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -ge 30 ] || ! kill -0 "$pid" 2> /dev/null; then
        echo "the broker does not answer; see $data/server.log" >&2
        kill "$pid" 2> /dev/null || true
        exit 1
    fi
    sleep 1
done
echo "$pid"
