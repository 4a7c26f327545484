#!/usr/bin/env bash
# Measures how fast the service routes a backlog, beside a bare librdkafka loop that copies the same records, on a real
# Kafka that it starts and ends; one that is up already is used and stays up.
#
#   scripts/bench-routing.sh [--events N] [--rounds R] [--guarantee exactly_once]     defaults: 300000 events, 3 rounds
#   scripts/bench-routing.sh --latency [--rate R] [--seconds S] [--guarantee exactly_once]     150 a second, 60 s
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /{s/^# \{0,1\}//p}' scripts/bench-routing.sh
    exit
    ;;
esac

scripts/services.sh tools cargo cc make perl pkg-config
cargo build --release
exec scripts/services.sh run cargo bench --bench routing_backlog -- "$@"
