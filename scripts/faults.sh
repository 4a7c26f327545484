#!/usr/bin/env bash
# Runs the real service on real brokers under a seeded schedule of faults, and counts what was lost, repeated, out of
# order, wrongly dead-lettered or late. It starts brokers, a network that can be spoilt, and instances of its own, and
# ends them.
#
#   scripts/faults.sh [OPTIONS]
#
#   --seed S          the same seed gives the same faults and the same input; default: one that is printed
#   --minutes M       faults go on for so long; default: 10
#   --events N        at least so many events; the rate follows. Default: 1000000 from 10 minutes on, else 0 (400 a second)
#   --brokers 1|3     with three each partition has three replicas, of which two must be in sync; default: 3
#   --guarantee G     at_least_once or exactly_once; default: both, one after the other
#
# FAULTS_DEDUP=redis adds a Redis that the service de-duplicates with, and its faults.
# Tables go to the standard output; target/faults has each run's figures as JSON, and the logs of its processes.
# Exit code 0 only if every promise was kept and every kind of fault took effect.
set -euo pipefail
shopt -s extglob

cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' scripts/faults.sh
  exit "$1"
}

seed=$((RANDOM * 32768 + RANDOM)) minutes=10 events='' brokers=3 guarantees=(at_least_once exactly_once)
while (($#)); do
  [[ $1 != -h && $1 != --help ]] || usage 0
  (($# > 1)) || usage 2 >&2
  case $1=$2 in
    --seed=+([0-9])) seed=$2 ;;
    --minutes=+([0-9])) minutes=$2 ;;
    --events=+([0-9])) events=$2 ;;
    --brokers=[13]) brokers=$2 ;;
    --guarantee=at_least_once | --guarantee=exactly_once) guarantees=("$2") ;;
    *) usage 2 >&2 ;;
  esac
  shift 2
done
((minutes > 0)) || usage 2 >&2
[[ $events ]] || events=$((minutes < 10 ? 0 : 1000000))

declare -rA tests=(
  [at_least_once]=faults::at_least_once_loses_nothing
  [exactly_once]=faults::exactly_once_loses_and_repeats_nothing
)
results=$PWD/target/faults/$(date +%Y%m%d-%H%M%S)-seed-$seed
job=''

# Each command is a process group of its own: a signal to this script reaches the tests and all that they started.
set -m
run() {
  local status=0
  "$@" </dev/null &
  job=$!
  wait "$job" || status=$?
  job=''
  return "$status"
}

gone() { ! kill -0 -- "-$1" 2>/dev/null; }

finish() {
  local status=$? waited
  trap - EXIT
  trap '' INT TERM
  if [[ $job ]]; then
    kill -TERM -- "-$job" 2>/dev/null || true
    # Frozen instances, too.
    kill -CONT -- "-$job" 2>/dev/null || true
    for ((waited = 0; waited < 300; waited++)); do
      ! gone "$job" || break
      sleep 0.1
    done
    gone "$job" || kill -KILL -- "-$job" 2>/dev/null || true
  fi
  # The logs stay.
  rm -rf "$results"/*/broker-*/data
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

tools=(cargo cc make perl pkg-config)
[[ ${FAULTS_DEDUP:-} != redis ]] || tools+=(redis-server)
scripts/services.sh tools "${tools[@]}"
fetched=$(scripts/services.sh fetch kafka toxiproxy)
eval "$fetched"
run cargo build --release
run cargo test --release --test it --no-run

failed=0
for guarantee in "${guarantees[@]}"; do
  mkdir -p "$results/$guarantee"
  export FAULTS_SEED=$seed FAULTS_MINUTES=$minutes FAULTS_EVENTS=$events FAULTS_BROKERS=$brokers
  export FAULTS_FOLDER=$results/$guarantee FAULTS_REPORT=$results/$guarantee.json
  echo "== $guarantee, seed $seed, $minutes minutes of faults"
  run cargo test --release --test it -- --exact "${tests[$guarantee]}" --ignored --nocapture || failed=1
done
echo "== figures and logs: $results"
((failed == 0))
