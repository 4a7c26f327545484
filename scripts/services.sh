#!/usr/bin/env bash
# The real parts behind the tests: Kafka, PostgreSQL, Redis and Prometheus.
#
#   scripts/services.sh up            start all four; a second time: start what is missing
#   scripts/services.sh down          end what `up` started and remove its data
#   scripts/services.sh env           print their addresses as `export` lines
#   scripts/services.sh run COMMAND…  start what is missing, run the command with the addresses, end what was started
#   scripts/services.sh PART VERB     stop (asks it to), kill (SIGKILL), start (same data), pause, continue;
#                                     PART is kafka, postgres, redis or prometheus; returns once it is so
#   scripts/services.sh tools NAME…   see that commands exist, through apt where that is allowed
#   scripts/services.sh fetch NAME…   see that `kafka` (its jars) and `toxiproxy` are in the cache, and print where, as
#                                     `export` lines: for tests that start brokers and networks of their own
#
# Containers of docker-compose.kafka.yml where an engine runs, else processes of this machine;
# SERVICES_ENGINE=compose|local decides by hand. SERVICES_DIR (default .services) keeps state and logs.
# KAFKA_PORT, POSTGRES_PORT, REDIS_PORT and PROMETHEUS_PORT are free ones unless given to the first `up`;
# the local Prometheus scrapes 127.0.0.1:$SERVICE_PORT (18088). With POSTGRES_FSYNC=on the local PostgreSQL waits for the
# disk, as in production; by default it does not.
set -euo pipefail

readonly parts=(kafka postgres redis prometheus)
readonly kafka_version=4.1.0 log4j_version=2.24.3 toxiproxy_version=2.5.0
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/notification-service
readonly kafka_jars=$cache/kafka-$kafka_version toxiproxy=$cache/toxiproxy-$toxiproxy_version/server
readonly start_deadline=90 stop_deadline=45 # seconds; a fault test must fail, not hang

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=$(realpath -m -- "${SERVICES_DIR:-$root/.services}")
started_in=$PWD
readonly root dir started_in
cd / # servers inherit it, and PostgreSQL's user may not be able to enter the checkout

say() { printf 'services: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}
fail() { # PART MESSAGE: with the end of its log
  tail -n 20 "$dir/log/$1.log" >&2 || true
  die "$1: $2"
}
usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//p}' "$root/scripts/services.sh" >&2
  exit 2
}

# wait_until SECONDS COMMAND…: asks ten times a second.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# ---- Tools ----

# The newest PostgreSQL of Debian's layout, which keeps its programs off the PATH; else that of the PATH.
postgres_programs() {
  local found
  found=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
  [[ -x $found ]] || found=$(command -v initdb) || return 1
  dirname "$(realpath "$found")"
}

has() {
  case $1 in
    # Kafka 4 needs Java 17.
    java) (($(java -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p') >= 17)) ;;
    # The core of perl that every Debian has lacks what OpenSSL's build uses.
    perl) perl -MFindBin -MIPC::Cmd -e 1 ;;
    initdb) postgres_programs ;;
    *) command -v "$1" ;;
  esac >/dev/null 2>&1
}

knows() { apt-cache show "$1" >/dev/null 2>&1; }

packages_of() {
  case $1 in
    java) if has apt-cache && ! knows openjdk-17-jre-headless; then echo default-jre-headless; else echo openjdk-17-jre-headless; fi ;;
    mvn) echo maven ;;
    initdb) echo postgresql ;;
    cc) echo gcc libc6-dev ;;
    go) echo golang-go ;;
    setpriv | flock | setsid) echo util-linux ;;
    *) echo "$1" ;;
  esac
}

# Packages start their servers at once, and PostgreSQL's makes a cluster of its own: neither is wanted here.
# Runs as root, in a shell of its own.
# shellcheck disable=SC2016
readonly quiet_install='
  set -eu
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap "rm -f /usr/sbin/policy-rc.d" EXIT
    printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
  fi
  case " $* " in *" postgresql "*)
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
      mkdir -p /etc/postgresql-common
      echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    fi
  esac
  export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1
  apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
    install -y --no-install-recommends "$@"'

install_packages() {
  local as_root=() log started=$SECONDS
  ((EUID == 0)) || as_root=(sudo -n)
  log=$(mktemp)
  say "installing $*"
  if ! "${as_root[@]}" sh -c "$quiet_install" sh "$@" </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "apt-get could not install $*"
  else
    say "installed $* ($((SECONDS - started)) s)"
  fi
  rm -f "$log"
}

may_install() { has apt-get && { ((EUID == 0)) || sudo -n true 2>/dev/null; }; }

update_package_lists() {
  local as_root=()
  ((EUID == 0)) || as_root=(sudo -n)
  # Old lists may still do: the installation tells.
  "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=600 update </dev/null >/dev/null 2>&1 || say "apt-get update failed"
}

need() {
  local name names=() missing=()
  for name; do has "$name" || missing+=("$name"); done
  ((${#missing[@]})) || return 0
  for name in "${missing[@]}"; do [[ $name == cargo ]] || names+=("$name"); done
  if ((${#names[@]})) && may_install; then
    update_package_lists
    local packages=()
    for name in "${names[@]}"; do read -ra packages <<<"${packages[*]} $(packages_of "$name")"; done
    install_packages "${packages[@]}"
  fi
  local lacking=0
  for name in "${missing[@]}"; do
    has "$name" && continue
    lacking=1
    case $name in
      cargo) say "cargo is missing: install Rust with rustup" ;;
      java) say "Java 17 or newer is missing: install $(packages_of java)" ;;
      *) say "$name is missing: install the package $(packages_of "$name")" ;;
    esac
  done
  return "$lacking"
}

# The jars come into place by one rename: an interrupted download is never taken for a whole one.
fetch_kafka() {
  [[ ! -d $kafka_jars ]] || return 0
  local started=$SECONDS
  say "kafka: fetching $kafka_version through Maven"
  mkdir -p "${kafka_jars%/*}"
  scratch=$(mktemp -d "$kafka_jars.XXXXXX")
  # log4j-slf4j-impl: without it Kafka runs, but logs nothing.
  cat >"$scratch/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$kafka_version</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>$log4j_version</version>
    </dependency>
  </dependencies>
</project>
POM
  mvn -q -B --strict-checksums -f "$scratch/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$scratch/jars" </dev/null >"$dir/log/kafka.log" 2>&1 ||
    fail kafka "Maven could not fetch it"
  # Another run may have been faster: its jars are the same.
  mv -T "$scratch/jars" "$kafka_jars" 2>/dev/null || [[ -d $kafka_jars ]]
  rm -rf "$scratch"
  say "kafka: fetched ($((SECONDS - started)) s)"
}

fetch_toxiproxy() {
  [[ ! -x $toxiproxy ]] || return 0
  local started=$SECONDS
  say "toxiproxy: building $toxiproxy_version with Go"
  mkdir -p "$cache"
  scratch=$(mktemp -d "${toxiproxy%/*}.XXXXXX")
  GOBIN=$scratch go install "github.com/Shopify/toxiproxy/v2/cmd/server@v$toxiproxy_version" \
    </dev/null >"$dir/log/toxiproxy.log" 2>&1 || fail toxiproxy "Go could not build it"
  mv -T "$scratch" "${toxiproxy%/*}" 2>/dev/null || [[ -x $toxiproxy ]]
  rm -rf "$scratch" "$dir/log/toxiproxy.log"
  say "toxiproxy: built ($((SECONDS - started)) s)"
}

fetch() {
  local name
  mkdir -p "$dir/log"
  trap 'rm -rf "${scratch:-}"' EXIT
  for name; do
    case $name in
      kafka) need java mvn ;;
      toxiproxy) [[ -x $toxiproxy ]] || need go ;;
      *) usage ;;
    esac || exit
    "fetch_$name"
  done
  rmdir --ignore-fail-on-non-empty "$dir/log" "$dir"
  print_fetched
}

print_fetched() {
  [[ ! -d $kafka_jars ]] || printf 'export TEST_KAFKA_JARS=%q\n' "$kafka_jars"
  [[ ! -x $toxiproxy ]] || printf 'export TEST_TOXIPROXY=%q\n' "$toxiproxy"
}

# ---- Processes ----

# read_stat PID: the fields of /proc/PID/stat behind the name, which may hold blanks:
# [0] state, [1] parent, [19] start time.
read_stat() {
  local line=
  { read -rd '' line <"/proc/$1/stat" || true; } 2>/dev/null
  [[ $line ]] && read -ra stat <<<"${line##*) }"
}

# A process is known by its number and its start time together: numbers are used again.
is_alive() { read_stat "$1" && [[ ${stat[19]} == "$2" && ${stat[0]} != [ZX] ]]; }

is_running() {
  local pid born
  [[ -f $dir/pid/$1 ]] && read -r pid born <"$dir/pid/$1" && is_alive "$pid" "$born"
}

# spawn PART COMMAND…: a session of its own, so that it outlives this script and its terminal.
spawn() {
  local part=$1
  shift
  setsid "$@" </dev/null >>"$dir/log/$part.log" 2>&1 9>&- &
  read_stat $! || fail "$part" "ended at once"
  echo "$! ${stat[19]}" >"$dir/pid/$part"
  disown $! # or the shell would comment on its end
}

# The process of a part and its children, each as `PID START`, the parent first.
family_of() {
  local pid born entry
  read -r pid born <"$dir/pid/$1"
  echo "$pid $born"
  for entry in /proc/[0-9]*; do
    ! read_stat "${entry#/proc/}" || [[ ${stat[1]} != "$pid" ]] || echo "${entry#/proc/} ${stat[19]}"
  done
}

# send SIGNAL FAMILY
send() {
  local pid born
  while read -r pid born; do
    ! is_alive "$pid" "$born" || kill -s "$1" "$pid" 2>/dev/null || ! is_alive "$pid" "$born"
  done <<<"$2"
}

# all_in PATTERN FAMILY: whether each member's state matches; `-` stands for a process that is gone.
all_in() {
  local pid born state
  while read -r pid born; do
    is_alive "$pid" "$born" && state=${stat[0]} || state=-
    # shellcheck disable=SC2053
    [[ $state == $1 ]] || return 1
  done <<<"$2"
}

end_local() { # PART TERM|KILL
  local family signal=$2
  family=$(family_of "$1")
  # PostgreSQL's SIGTERM would wait for its clients; SIGINT is its orderly stop.
  [[ $1/$signal != postgres/TERM ]] || signal=INT
  if [[ $signal == KILL ]]; then
    send KILL "$family"
  else
    send "$signal" "${family%%$'\n'*}"
    send CONT "$family"
  fi
  wait_until $stop_deadline all_in - "$family" || {
    say "$1: still running $stop_deadline s after SIG$signal"
    return 1
  }
  rm -f "$dir/pid/$1"
}

# ---- What each part is ----

# Kafka's answer counts only with itself among the live brokers; PostgreSQL's only when it would let a client in.
# The questions are asked in the servers' own protocols: no client has to be installed, and containers answer alike.
answers() {
  case $1 in
    kafka) [[ $(ask "$KAFKA_PORT" '\0\0\0\x0e\0\x03\0\x01\0\0\0\x07\xff\xff\0\0\0\0' 12) == ????????00000007000000[0-9a-f][1-9a-f] ]] ;;
    postgres) [[ $(ask "$POSTGRES_PORT" '\0\0\0\x2d\0\x03\0\0user\0notification\0database\0postgres\0\0' 1) == 52 ]] ;;
    redis) [[ $(ask "$REDIS_PORT" 'PING\r\n' 5) == 2b504f4e47 ]] ;;
    prometheus) [[ $(ask "$PROMETHEUS_PORT" 'GET /-/ready HTTP/1.0\r\n\r\n' 12) == 485454502f312e3020323030 ]] ;;
  esac
}

# ask PORT REQUEST COUNT: the first COUNT bytes of the answer, in hexadecimal.
ask() {
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return
    # shellcheck disable=SC2059
    printf "$2" >&3
    timeout 2 head -c "$3" <&3 | od -An -v -tx1 | tr -d ' \n'
  } 2>/dev/null
}

start_kafka() {
  local home=$dir/kafka
  if [[ ! -f $home/data/meta.properties ]]; then
    mkdir -p "$home/data"
    configure_kafka "$home"
    java -cp "$home:$kafka_jars/*" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c "$home/server.properties" \
      </dev/null >>"$dir/log/kafka.log" 2>&1 || fail kafka "its data folder could not be formatted"
  fi
  spawn kafka java -Xms256m -Xmx768m -XX:+ExitOnOutOfMemoryError -cp "$home:$kafka_jars/*" kafka.Kafka "$home/server.properties"
}

configure_kafka() {
  cat >"$1/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$CONTROLLER_PORT
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$1/data
log.retention.hours=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
PROPERTIES
  cat >"$1/log4j2.yaml" <<'LOG4J'
Configuration:
  status: ERROR
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "%d %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: out
LOG4J
}

start_postgres() {
  local programs as_postgres=()
  programs=$(postgres_programs)
  if ((EUID == 0)); then
    # PostgreSQL refuses to run as root. setpriv becomes its command, so the recorded process is the server.
    as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups --reset-env --)
  fi
  if [[ ! -d $POSTGRES_DIR/data ]]; then
    rm -rf "$POSTGRES_DIR/new" # of an interrupted run
    echo notification >"$POSTGRES_DIR/password"
    ((EUID != 0)) || chown -R postgres: "$POSTGRES_DIR"
    "${as_postgres[@]}" "$programs/initdb" -D "$POSTGRES_DIR/new" -U notification --auth-host=scram-sha-256 --auth-local=trust \
      --pwfile="$POSTGRES_DIR/password" -E UTF8 --locale=C.UTF-8 --no-sync </dev/null >>"$dir/log/postgres.log" 2>&1 ||
      fail postgres "initdb failed"
    mv "$POSTGRES_DIR/new" "$POSTGRES_DIR/data"
  fi
  # Lock files of a killed server: its number, while not yet reaped, would pass for a running one.
  rm -f "$POSTGRES_DIR/data/postmaster.pid" "$POSTGRES_DIR"/.s.PGSQL.*
  # Without fsync it survives a kill of the process, which is what tests do. synchronous_commit has to stay on for that.
  local fsync=${POSTGRES_FSYNC:-off}
  spawn postgres "${as_postgres[@]}" "$programs/postgres" -D "$POSTGRES_DIR/data" -p "$POSTGRES_PORT" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories="$POSTGRES_DIR" -c fsync="$fsync" -c full_page_writes="$fsync" \
    -c dynamic_shared_memory_type=mmap # in its folder, so that a kill leaves nothing outside
}

create_database() {
  local client=(psql -X -q -h "$POSTGRES_DIR" -p "$POSTGRES_PORT" -U notification -d postgres)
  [[ -n $("${client[@]}" -Atc "SELECT 1 FROM pg_database WHERE datname = 'notification'") ]] ||
    "${client[@]}" -c "CREATE DATABASE notification"
}

start_redis() {
  mkdir -p "$dir/redis"
  spawn redis redis-server --bind 127.0.0.1 --port "$REDIS_PORT" --dir "$dir/redis" --save '' --appendonly no
}

start_prometheus() {
  mkdir -p "$dir/prometheus"
  cat >"$dir/prometheus/prometheus.yml" <<YAML
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files: ["$root/monitoring/alerts.yml"]
scrape_configs:
  - job_name: notification-service
    static_configs:
      - targets: ["127.0.0.1:$SERVICE_PORT"]
YAML
  spawn prometheus prometheus --config.file="$dir/prometheus/prometheus.yml" --storage.tsdb.path="$dir/prometheus/data" \
    --web.listen-address="127.0.0.1:$PROMETHEUS_PORT" --log.level=warn
}

answers_or_ended() { answers "$1" || ! is_running "$1"; }

await_local() {
  wait_until $start_deadline answers_or_ended "$1" || fail "$1" "no answer within $start_deadline s"
  is_running "$1" || fail "$1" "ended while starting"
}

port_of() {
  local name=${1^^}_PORT
  echo "${!name}"
}

# A stranger on the port would answer in the part's place.
launch() {
  ! is_listening "$(port_of "$1")" || die "$1: port $(port_of "$1") is in use"
  "start_$1"
}

# ---- State ----

has_compose() { docker info && docker compose version; } >/dev/null 2>&1

is_listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the range of outgoing connections, which take any port there at any time.
free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    [[ " ${taken[*]} " == *" $port "* ]] || is_listening "$port" || break
  done
  taken+=("$port")
  printf -v "$1" %s "$port"
}

settle_state() {
  local name taken=("${KAFKA_PORT:-}" "${POSTGRES_PORT:-}" "${REDIS_PORT:-}" "${PROMETHEUS_PORT:-}")
  engine=${SERVICES_ENGINE:-$(has_compose && echo compose || echo local)}
  [[ $engine == compose || $engine == local ]] || die "SERVICES_ENGINE is $engine: compose or local is meant"
  for name in KAFKA_PORT CONTROLLER_PORT POSTGRES_PORT REDIS_PORT PROMETHEUS_PORT; do
    [[ -n ${!name:-} ]] || free_port "$name"
  done
  SERVICE_PORT=${SERVICE_PORT:-18088}
  # Not under $dir: the checkout may lie in a folder that PostgreSQL's user cannot enter.
  POSTGRES_DIR=
  [[ $engine == compose ]] || POSTGRES_DIR=$(mktemp -d /tmp/notification-service-postgres.XXXXXX)
  for name in engine KAFKA_PORT CONTROLLER_PORT POSTGRES_PORT REDIS_PORT PROMETHEUS_PORT SERVICE_PORT POSTGRES_DIR; do
    printf '%s=%q\n' "$name" "${!name}"
  done >"$dir/state.new"
  mv "$dir/state.new" "$dir/state"
}

load_state() {
  [[ -f $dir/state ]] || return 1
  # shellcheck source=/dev/null
  source "$dir/state"
  export KAFKA_PORT POSTGRES_PORT REDIS_PORT PROMETHEUS_PORT # for the compose file
}

# One run at a time for each state folder; servers must not inherit the lock.
lock() {
  has flock || need flock
  exec 9<"$dir"
  flock -w 600 9 || die "another run has held $dir for 10 minutes"
}

# Only what is ours, as SERVICES_DIR may name a folder that holds more. The logs outlive a failure.
wipe() {
  local lock_file=${POSTGRES_DIR:-}/data/postmaster.pid
  # A killed PostgreSQL leaves a shared memory segment, which its lock file names.
  [[ ! -f $lock_file ]] || ipcrm -m "$(awk 'NR == 7 { print $2 }' "$lock_file")" 2>/dev/null || true
  [[ ${POSTGRES_DIR:-} != /tmp/notification-service-postgres.* ]] || rm -rf "$POSTGRES_DIR"
  rm -rf "${dir:?}"/{kafka,redis,prometheus,pid,state,state.new}
}

compose() { POSTGRES_PASSWORD=notification docker compose -p notification-service-test -f "$root/docker-compose.kafka.yml" "$@" >&2; }

# ---- Commands ----

started=() # by this run
fresh=     # set when this run began from nothing

# Runs when `up` ends early, by a failure or a signal: ends what it started, and nothing else.
undo() {
  local status=$? part
  trap - EXIT
  rm -rf "${scratch:-}"
  for part in "${started[@]}"; do
    ! is_running "$part" || end_local "$part" KILL || true
  done
  if [[ $fresh ]]; then
    if [[ $engine == compose ]]; then
      compose logs --tail 20 || true
      compose down -v || true
    fi
    wipe
  fi
  say "up failed; what it had started is ended, logs of processes are in $dir/log"
  exit "$status"
}

up() {
  local began=$SECONDS
  mkdir -p "$dir"
  lock
  trap undo EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  mkdir -p "$dir"/{log,pid}
  if ! load_state; then
    settle_state
    fresh=1
    load_state
  fi
  "up_$engine"
  trap - EXIT
  say "up ($((SECONDS - began)) s)"
}

up_compose() {
  # Some tests start brokers of their own.
  need java mvn openssl || exit
  fetch_kafka
  say "starting containers"
  compose up -d --wait "${parts[@]}"
}

up_local() {
  local part began
  [[ -r /proc/self/stat ]] || die "this system has no /proc: a container engine is needed"
  need java mvn openssl initdb redis-server prometheus setsid setpriv || exit
  fetch_kafka
  began=$SECONDS
  for part in "${parts[@]}"; do
    if is_running "$part"; then
      say "$part: is running"
    else
      say "$part: starting on port $(port_of "$part")"
      started+=("$part")
      launch "$part"
    fi
  done
  # Kafka last: the others are ready while it still starts.
  for part in postgres redis prometheus kafka; do
    await_local "$part"
    say "$part: answers ($((SECONDS - began)) s)"
  done
  create_database || fail postgres "the database could not be created"
}

down() {
  [[ -d $dir ]] || return 0
  lock
  if load_state; then
    local part began=$SECONDS
    if [[ $engine == compose ]]; then
      compose down -v
    else
      for part in "${parts[@]}"; do
        ! is_running "$part" || end_local "$part" TERM || end_local "$part" KILL
      done
    fi
    wipe
    say "down ($((SECONDS - began)) s)"
  fi
  rm -rf "${dir:?}/log"
  rmdir --ignore-fail-on-non-empty "$dir"
}

print_env() {
  load_state || die "nothing is up: run scripts/services.sh up"
  cat <<ENV
export TEST_KAFKA_BROKERS=127.0.0.1:$KAFKA_PORT
export TEST_DATABASE_URL=postgres://notification:notification@127.0.0.1:$POSTGRES_PORT/notification
export TEST_REDIS_URL=redis://127.0.0.1:$REDIS_PORT
export TEST_PROMETHEUS_URL=http://127.0.0.1:$PROMETHEUS_PORT
export TEST_SERVICE_PORT=$SERVICE_PORT
export TEST_KAFKA_JARS=$(printf %q "$kafka_jars")
export SERVICES_DIR=$(printf %q "$dir")
ENV
  print_fetched
}

# What was running before stays up. The command is a process group of its own: a signal to this script reaches all of it.
run_with() {
  job='' found=()
  local part
  # In a shell of its own: the state belongs to `up`.
  for part in "${parts[@]}"; do
    ! (load_state && { [[ $engine == compose ]] || is_running "$part"; }) || found+=("$part")
  done
  trap end_run EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  set -m
  as_job "$root/scripts/services.sh" up
  eval "$(print_env)"
  cd "$started_in"
  as_job "$@"
}

as_job() {
  local status=0
  "$@" </dev/null &
  job=$!
  wait "$job" || status=$?
  job=''
  ((status == 0)) || exit "$status"
}

# shellcheck disable=SC2317
end_run() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  [[ ! $job ]] || end_group "$job"
  local part
  if ((${#found[@]} == 0)); then
    "$root/scripts/services.sh" down || true
  else
    for part in "${parts[@]}"; do
      [[ " ${found[*]} " == *" $part "* ]] || "$root/scripts/services.sh" "$part" stop || true
    done
  fi
  exit "$status"
}

# Asks a process group to end, and ends it after 30 s: a benchmark first ends its own service and deletes its topics.
end_group() {
  kill -TERM -- "-$1" 2>/dev/null || return 0
  wait_until 30 eval "! kill -0 -- -$1 2>/dev/null" || kill -KILL -- "-$1" 2>/dev/null || true
}

control() { # PART VERB
  local began=$SECONDS
  [[ -d $dir ]] || die "nothing is up: run scripts/services.sh up"
  lock
  load_state || die "nothing is up: run scripts/services.sh up"
  "control_$engine" "$@"
  say "$1: $2 done ($((SECONDS - began)) s)"
}

control_local() {
  local family
  case $2 in
    start)
      if ! is_running "$1"; then launch "$1"; fi
      await_local "$1"
      ;;
    stop) ! is_running "$1" || end_local "$1" TERM ;;
    kill) ! is_running "$1" || end_local "$1" KILL ;;
    pause | continue)
      is_running "$1" || die "$1: is not running"
      family=$(family_of "$1")
      if [[ $2 == pause ]]; then
        send STOP "$family"
        wait_until $stop_deadline all_in '[T-]' "$family" || die "$1: not paused within $stop_deadline s"
      else
        send CONT "$family"
        await_local "$1"
      fi
      ;;
  esac
}

control_compose() {
  case $2 in
    stop | kill | pause) compose "$2" "$1" ;;
    continue) compose unpause "$1" ;;
    start) compose start "$1" ;;
  esac
  case $2 in
    start | continue) wait_until $start_deadline answers "$1" || die "$1: no answer within $start_deadline s" ;;
    *) wait_until $stop_deadline falls_silent "$1" || die "$1: still answers after $stop_deadline s" ;;
  esac
}

falls_silent() { ! answers "$1"; }

case ${1:-} in
  up | down | env) (($# == 1)) || usage ;;
  tools | fetch | run) (($# > 1)) || usage ;;
  kafka | postgres | redis | prometheus) [[ "$#:$2" =~ ^2:(start|stop|kill|pause|continue)$ ]] || usage ;;
  *) usage ;;
esac
case $1 in
  up | down) "$1" ;;
  env) print_env ;;
  run) run_with "${@:2}" ;;
  tools) need "${@:2}" ;;
  fetch) fetch "${@:2}" ;;
  *) control "$1" "$2" ;;
esac
