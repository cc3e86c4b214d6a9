#!/usr/bin/env bash
# A Flink cluster on this machine, on loopback only and without Docker: one JobManager, two TaskManagers, and the pool
# of Python workers.
#   cluster.sh up [2.2|1.20]   cluster.sh status   cluster.sh down
# What belongs to it is in one folder, SORBUS_FLINK_RUN (default .flink/run): pids, logs, state, and `env` for submit.sh.
# Ports are free ones, or FLINK_REST_PORT, FLINK_RPC_PORT, FLINK_POOL_PORT.
# Exit code 69: something it needs cannot be had here; the line says what.
set -euo pipefail
set -m  # each process leads a group of its own, which can be ended with all that it has started
cd "$(dirname "$0")/../.."

COMMAND=${1:?up, status or down}
VERSION=${2:-2.2}
RUN=${SORBUS_FLINK_RUN:-$PWD/.flink/run}
export SORBUS_PYTHON=${SORBUS_PYTHON:-$PWD/.venv/bin/python}
TASK_MANAGERS=2

unavailable() { echo "$*" >&2; exit 69; }

up() {
  [ ! -s "$RUN/pids" ] || { echo "$RUN: a cluster is up there already; deploy/flink/cluster.sh down" >&2; exit 1; }
  check_java
  local home
  home=$(deploy/flink/fetch.sh flink "$VERSION")
  rm -rf "$RUN"
  mkdir -p "$RUN/conf" "$RUN/log" "$RUN/tmp"
  choose_ports
  configure "$home"
  trap 'down; echo "the cluster did not come up; logs: $RUN/log" >&2' ERR
  export FLINK_CONF_DIR=$RUN/conf FLINK_LOG_DIR=$RUN/log FLINK_PID_DIR=$RUN/tmp
  start jobmanager "$home/bin/jobmanager.sh" start-foreground
  for number in $(seq "$TASK_MANAGERS"); do start "taskmanager-$number" "$home/bin/taskmanager.sh" start-foreground; done
  PATH=$PWD/deploy/flink/bin:$PATH start worker-pool "$SORBUS_PYTHON" deploy/flink/worker_pool.py "$POOL_PORT"
  wait_until_up
  trap - ERR
  echo "Flink $VERSION: http://localhost:$REST_PORT, workers at localhost:$POOL_PORT; deploy/flink/submit.sh takes the arguments of sorbus embed"
}

check_java() {
  command -v java > /dev/null || unavailable "needs Java 11 or 17 (apt-get install openjdk-17-jre-headless)"
  local version
  version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
  [ "${version:-0}" -ge 11 ] || unavailable "needs Java 11 or 17, and java is version $version"
}

choose_ports() {
  local free
  read -ra free < <("$SORBUS_PYTHON" -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in held))')
  REST_PORT=${FLINK_REST_PORT:-${free[0]}} RPC_PORT=${FLINK_RPC_PORT:-${free[1]}} POOL_PORT=${FLINK_POOL_PORT:-${free[2]}}
}

# The common configuration, and what is this machine's own. Java 17 wants its modules opened by a line of flags, which
# the distribution's own configuration has.
configure() {
  local home=$1
  cp "$home"/conf/log4j* "$RUN/conf/"
  {
    cat deploy/flink/config.yaml
    sed -n 's/^ *all: /env.java.opts.all: /p' "$home/conf/config.yaml"
    for key in jobmanager.rpc.address jobmanager.bind-host taskmanager.host taskmanager.bind-host rest.address \
      rest.bind-address; do echo "$key: localhost"; done
    echo "jobmanager.rpc.port: $RPC_PORT"
    echo "rest.port: $REST_PORT"
    echo "io.tmp.dirs: $RUN/tmp"
  } > "$RUN/conf/config.yaml"
  {
    echo "FLINK_VERSION=$VERSION"
    echo "FLINK_MASTER=localhost:$REST_PORT"
    echo "WORKER_POOL=localhost:$POOL_PORT"
  } > "$RUN/env"
}

start() {
  local name=$1
  shift
  "$@" > "$RUN/log/$name.out" 2>&1 < /dev/null &
  echo "$! $name $(started "$!")" >> "$RUN/pids"
}

started() { ps -o lstart= -p "$1"; }  # with it, a pid that was given to another process since is not taken for ours

alive() {  # a line of pids
  local pid name when
  read -r pid name when <<< "$1"
  [ "$(started "$pid" | xargs)" = "$(xargs <<< "$when")" ]
}

ask() { "$SORBUS_PYTHON" -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())' "$1" 2> /dev/null; }

is_up() {
  local overview
  overview=$(ask "http://localhost:$REST_PORT/v1/overview") && [[ $overview == *"\"taskmanagers\":$TASK_MANAGERS,"* ]] &&
    (: < "/dev/tcp/127.0.0.1/$POOL_PORT") 2> /dev/null
}

wait_until_up() {
  for _ in $(seq 120); do
    ! is_up || return 0
    while read -r line; do
      alive "$line" || { echo "$(cut -d' ' -f2 <<< "$line") ended: $(tail -n 1 "$RUN/log/$(cut -d' ' -f2 <<< "$line").out")" >&2; return 1; }
    done < "$RUN/pids"
    sleep 0.5
  done
  echo "no $TASK_MANAGERS TaskManagers after 60 s" >&2
  return 1
}

status() {
  [ -s "$RUN/pids" ] || { echo "no cluster: $RUN"; exit 1; }
  while read -r line; do
    read -r pid name _ <<< "$line"
    echo "$name: pid $pid, $(alive "$line" && echo up || echo gone)"
  done < "$RUN/pids"
  cat "$RUN/env"
}

# Asks all of them to end, and after ten seconds does not ask. Logs stay, state does not.
down() {
  [ -s "$RUN/pids" ] || { echo "no cluster: $RUN"; return 0; }
  signal_all TERM
  for _ in $(seq 20); do
    [ -n "$(groups_alive)" ] || break
    sleep 0.5
  done
  signal_all KILL
  rm -rf "$RUN/pids" "$RUN/env" "$RUN/tmp"
}

# By groups: a pool that was killed leaves workers behind. A group whose leader is gone and whose number was given to
# another since would have a leader that started later.
groups_alive() {
  while read -r line; do
    read -r pid _ <<< "$line"
    if alive "$line" || { [ -z "$(started "$pid")" ] && kill -0 -- "-$pid" 2> /dev/null; }; then echo "$pid"; fi
  done < "$RUN/pids"
}

signal_all() {
  for pid in $(groups_alive); do kill "-$1" -- "-$pid" 2> /dev/null || true; done
}

case $COMMAND in
  up | status | down) "$COMMAND" ;;
  *) echo "$COMMAND: up, status or down" >&2; exit 2 ;;
esac
