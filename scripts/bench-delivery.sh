#!/usr/bin/env bash
# Measures how fast the delivery stage sends notifications, beside a bare loop of batched SQL statements, and how long a
# notification takes, on SQLite and on a real PostgreSQL (and Kafka) that it starts and ends; those that are up already
# are used and stay up.
#
#   scripts/bench-delivery.sh [--drain] [--events N] [--settled N] [--rounds R] [--database postgres|sqlite|both] [--batch N]
#                                              a provider that accepts at once; defaults: 100000 events, 3 rounds, both
#   scripts/bench-delivery.sh --http [--events N] [--rounds R] [--database D]         the http provider to a local server
#   scripts/bench-delivery.sh --latency [--rate R] [--seconds S] [--database D]       200 a second, 20 s
#   scripts/bench-delivery.sh --partition [--rounds R] [--database D]      10,000 events on one partition, 0 to 5 ms each
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /{s/^# \{0,1\}//p}' scripts/bench-delivery.sh
    exit
    ;;
esac

scripts/services.sh tools cargo cc make perl pkg-config
export POSTGRES_FSYNC=on # what is measured writes to its disk
cargo build --release
exec scripts/services.sh run cargo bench --bench delivery_backlog -- "$@"
