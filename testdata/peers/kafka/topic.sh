#!/bin/sh
# Makes a topic on the broker that start.sh started.
#
#   topic.sh TOPIC [PORT [PARTITIONS]]      default 29092 and 1
set -eu
lib=${RELIGHT_PEERS_CACHE:-$HOME/.cache/relight-peers}/kafka-4.3.0
exec java -cp "$lib/*" org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:${2:-29092}" \
    --create --topic "$1" --partitions "${3:-1}"
