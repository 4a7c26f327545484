#!/usr/bin/env bash
# Builds the service and runs its tests.
#
#   scripts/test.sh                            every test, against real servers that it starts and ends
#   scripts/test.sh --no-services              only those that need no server
#   scripts/test.sh [--no-services] FILTER…    only those whose names contain a FILTER
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
services=scripts/services.sh

with_services=1
if [[ ${1:-} == --no-services ]]; then
  with_services=''
  shift
fi
[[ ${1:-} != -* ]] || {
  sed -n '2,/^set /{s/^# \{0,1\}//p}' scripts/test.sh >&2
  exit 2
}

# The servers come first: what they lack shows at once, not after the build.
if [[ $with_services && ! ${TEST_KAFKA_BROKERS:-} ]]; then
  exec "$services" run scripts/test.sh "$@"
fi

step='' job=''

# Each command is a process group of its own: a signal to this script reaches cargo and its tests at once.
set -m
run() {
  "$@" </dev/null &
  job=$!
  local status=0
  wait "$job" || status=$?
  job=''
  return "$status"
}

begin() {
  step=$1
  echo "== $step ($SECONDS s)"
}

finish() {
  local status=$?
  trap - EXIT
  if [[ $job ]]; then
    kill -TERM -- "-$job" 2>/dev/null || true
    wait "$job" || true
  fi
  if ((status)); then
    echo "== failed: $step ($SECONDS s)"
  else
    echo "== all tests passed ($SECONDS s)"
  fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

begin "tools"
run "$services" tools cargo cc make perl pkg-config
if [[ $with_services ]]; then
  # What the fault tests start themselves.
  fetched=$("$services" fetch kafka toxiproxy)
  eval "$fetched"
fi

begin "build"
run cargo build --release

begin "plain tests"
run cargo test --release --all-targets -- "$@"

begin "documentation tests"
run cargo test --release --doc -- "$@"

if [[ $with_services ]]; then
  begin "server tests"
  run cargo test --release --lib --test it -- --ignored --test-threads=1 "$@"
fi
