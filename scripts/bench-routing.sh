#!/usr/bin/env bash
# Measures how fast the service routes a backlog, beside a bare librdkafka loop that copies the same records, on a real
# Kafka that it starts and ends; one that is up already is used and stays up.
#
#   scripts/bench-routing.sh [--events N] [--rounds R]     defaults: 300000 events, 3 rounds
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
services=scripts/services.sh

case ${1:-} in
  -h | --help)
    sed -n '2,/^set /{s/^# \{0,1\}//p}' scripts/bench-routing.sh
    exit
    ;;
esac

job='' ours=''

# Each command is a process group of its own: a signal to this script reaches cargo, the benchmark and its service.
set -m
run() {
  "$@" </dev/null &
  job=$!
  local status=0
  wait "$job" || status=$?
  job=''
  return "$status"
}

# cargo is gone at once; the benchmark first ends its service and deletes its topics.
end_job() {
  local _
  kill -TERM -- "-$job" 2>/dev/null || return 0
  for _ in {1..300}; do
    kill -0 -- "-$job" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$job" 2>/dev/null || true
}

finish() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  [[ ! $job ]] || end_job
  [[ ! $ours ]] || "$services" down || true
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run "$services" tools cargo cc make perl pkg-config
# What was up before stays up.
were_up=''
! "$services" env >/dev/null 2>&1 || were_up=1
run "$services" up
[[ $were_up ]] || ours=1
addresses=$("$services" env)
eval "$addresses"

run cargo build --release
run cargo bench --bench routing_backlog -- "$@"
