#!/usr/bin/env bash
# Provisions the service's six Kafka topics. Safe to run again at any time: a topic that exists is never changed.
set -euo pipefail

# The same names and partition counts as `notification-service topics create`.
readonly topics=(
  order-events:3
  user-events:3
  product-events:3
  notification-events:3
  dead-letter-queue:1
  audit-events:2
)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly root
readonly compose=(docker compose --file "$root/docker-compose.kafka.yml")
readonly brokers=${KAFKA_BROKERS:-localhost:9092}
readonly replication=${REPLICATION_FACTOR:-1}
readonly timeout_seconds=${KAFKA_SETUP_TIMEOUT:-60}

usage() {
  cat <<'TEXT'
Usage: ./kafka-setup.sh

Waits for Kafka, creates the topics that are missing, and lists what is there. An existing topic is never
changed; where its partition count is not the service's, that is said and the exit code is 0 all the same.

Where: the broker of docker-compose.kafka.yml when it runs and KAFKA_BROKERS is not set, else KAFKA_BROKERS.
With:  kafka-topics.sh or kafka-topics on the PATH, else the notification-service binary (on the PATH or
       in target/release), else cargo, which builds it.

  KAFKA_BROKERS         host:port, more than one separated by commas   (default localhost:9092)
  REPLICATION_FACTOR    copies of each new topic                       (default 1)
  KAFKA_SETUP_TIMEOUT   seconds to wait for the broker                 (default 60)
  KAFKA_COMMAND_CONFIG  properties file for kafka-topics, for TLS and SASL
  COMPOSE_PROJECT_NAME  the compose project, where it was started under another name

Exit codes: 0 every topic is there, 1 failed, 2 usage.
TEXT
}

say() { printf 'kafka-setup: %s\n' "$*"; }

die() {
  printf 'kafka-setup: %s\n' "$1" >&2
  exit "${2:-1}"
}

plural() { if (($1 == 1)); then printf '1 %s' "$2"; else printf '%d %ss' "$1" "$2"; fi; }

# Runs a command until it succeeds or the deadline has passed, and leaves its output in $answer.
# Exit code 2 is a mistake in the configuration, which no waiting cures.
answer=
wait_for() {
  local where=$1 status deadline=$((SECONDS + timeout_seconds))
  shift
  while status=0; answer=$(bounded $((deadline - SECONDS)) "$@" 2>&1) || status=$?; ((status != 0)); do
    ((status != 2)) || die "$answer" 2
    if ((SECONDS >= deadline)); then
      printf '%s\n' "$answer" | grep . | tail -n 3 >&2 || true
      die "no usable answer from Kafka at $where within $timeout_seconds s. Is it running, and does KAFKA_BROKERS name it?"
    fi
    sleep 1
  done
}

# Without timeout(1), as on macOS, the deadline is only looked at between two tries.
bounded() {
  local seconds=$(($1 > 0 ? $1 : 1))
  shift
  if command -v timeout >/dev/null; then timeout "$seconds" "$@"; else "$@"; fi
}

# --- with Kafka's own tool --------------------------------------------------------------------------------

# From `kafka-topics --describe` on standard input: the partition count and replication factor of topic $1.
described() {
  sed -n "s/^Topic: $1[[:space:]].*PartitionCount: \([0-9]*\).*ReplicationFactor: \([0-9]*\).*/\1 \2/p"
}

provision_with_kafka_topics() {
  local where=$1 describe=() filter existing topic
  shift
  filter=$(printf '|%s' "${topics[@]%%:*}")
  describe=("$@" --describe --if-exists --topic "${filter#|}")

  say "waiting up to $timeout_seconds s for Kafka at $where"
  wait_for "$where" "${describe[@]}"
  existing=$answer
  for topic in "${topics[@]}"; do
    [[ -z $(described "${topic%:*}" <<<"$existing") ]] || continue
    # --if-not-exists: someone else may provision at the same moment.
    # And the tool prints its errors on standard output.
    answer=$("$@" --create --if-not-exists --topic "${topic%:*}" --partitions "${topic#*:}" \
      --replication-factor "$replication" 2>&1) || die "could not create ${topic%:*}: $answer"
    say "created ${topic%:*}"
  done
  answer=$("${describe[@]}") || die "the topics could not be listed: $answer"
  report
}

report() {
  local topic name wanted partitions replicas missing=0
  say "topics:"
  for topic in "${topics[@]}"; do
    name=${topic%:*} wanted=${topic#*:}
    if ! read -r partitions replicas < <(described "$name" <<<"$answer"); then
      printf '  %-20s missing\n' "$name"
      missing=1
      continue
    fi
    printf '  %-20s %-13s replication factor %d\n' "$name" "$(plural "$partitions" partition)" "$replicas"
    if ((partitions != wanted)); then
      printf '  %-20s   differs: the service expects %s. Left as it is, since keys move when the count changes.\n' \
        '' "$(plural "$wanted" partition)"
    fi
  done
  ((missing == 0)) || die "not every topic is there"
}

# --- with the service itself ------------------------------------------------------------------------------

provision_with_service() {
  export KAFKA_BROKERS=$brokers
  # Unset, the service's own configuration decides.
  [[ -z ${REPLICATION_FACTOR:-} ]] || export NOTIFICATION__KAFKA__REPLICATION_FACTOR=$replication

  say "waiting up to $timeout_seconds s for Kafka at $brokers"
  wait_for "$brokers" "$@" topics create
  printf '%s\n' "$answer"
  "$@" topics describe || say "a topic differs, as said above. It is left as it is."
}

# --- which of them ----------------------------------------------------------------------------------------

# False, without a word, where there is no engine, no compose plugin, or no such service.
kafka_runs_in_compose() {
  local running
  command -v docker >/dev/null || return
  running=$(bounded 10 "${compose[@]}" ps --services --status running 2>/dev/null) || return
  grep -qx kafka <<<"$running"
}

main() {
  case ${1:-} in
    -h | --help) usage; exit ;;
    '') ;;
    *) usage >&2; exit 2 ;;
  esac
  [[ $replication =~ ^[1-9][0-9]*$ ]] || die "REPLICATION_FACTOR is '$replication': a positive number is meant" 2
  [[ $timeout_seconds =~ ^[1-9][0-9]*$ ]] || die "KAFKA_SETUP_TIMEOUT is '$timeout_seconds': a positive number of seconds is meant" 2
  if [[ $brokers == embedded ]]; then
    say "KAFKA_BROKERS is 'embedded': that cluster comes with the service and brings its topics along"
    return
  fi

  if [[ -z ${KAFKA_BROKERS:-} ]] && kafka_runs_in_compose; then
    provision_with_kafka_topics "kafka:29092 (docker compose)" "${compose[@]}" exec -T kafka \
      /opt/kafka/bin/kafka-topics.sh --bootstrap-server kafka:29092
    return
  fi

  local tool
  for tool in kafka-topics.sh kafka-topics; do
    command -v "$tool" >/dev/null || continue
    provision_with_kafka_topics "$brokers" "$tool" --bootstrap-server "$brokers" \
      ${KAFKA_COMMAND_CONFIG:+--command-config "$KAFKA_COMMAND_CONFIG"}
    return
  done
  for tool in notification-service "$root/target/release/notification-service"; do
    command -v "$tool" >/dev/null || continue
    provision_with_service "$tool"
    return
  done
  if command -v cargo >/dev/null; then
    # Built before the clock starts: the deadline is the broker's, not the compiler's.
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" || die "the service could not be built"
    provision_with_service cargo run --release --quiet --manifest-path "$root/Cargo.toml" --
    return
  fi
  die "nothing here can talk to Kafka: put kafka-topics.sh, notification-service or cargo on the PATH, or start docker-compose.kafka.yml"
}

main "$@"
