#!/usr/bin/env bash
# A Flink cluster on this machine, on loopback only and without Docker: one JobManager, two TaskManagers, and the pool
# of Python workers.
#   cluster.sh up [2.2|1.20]   cluster.sh status   cluster.sh mend   cluster.sh down
# `mend` starts again what has died: a standalone Flink replaces nothing by itself.
# What belongs to it is in one folder, SORBUS_FLINK_RUN (default .flink/run): pids, logs, state, `env` for submit.sh.
# Ports are free ones, or FLINK_REST_PORT, FLINK_RPC_PORT, FLINK_POOL_PORT.
# Exit code 69: something it needs cannot be had here; the line says what.
set -euo pipefail
set -m  # each process leads a group of its own, which can be ended with all that it has started
cd "$(dirname "$0")/../.."

COMMAND=${1:?up, status, mend or down}
VERSION=${2:-2.2}
RUN=${SORBUS_FLINK_RUN:-$PWD/.flink/run}
export SORBUS_PYTHON=${SORBUS_PYTHON:-$PWD/.venv/bin/python}
PARTS=(jobmanager taskmanager-1 taskmanager-2 worker-pool)

unavailable() { echo "$*" >&2; exit 69; }

up() {
  [ ! -s "$RUN/pids" ] || { echo "$RUN: a cluster is up there already; deploy/flink/cluster.sh down" >&2; exit 1; }
  check_java
  FLINK_HOME=$(deploy/flink/fetch.sh flink "$VERSION")
  rm -rf "$RUN"
  mkdir -p "$RUN/conf" "$RUN/log" "$RUN/tmp"
  choose_ports
  configure
  trap 'down; echo "the cluster did not come up; logs: $RUN/log" >&2' ERR
  for name in "${PARTS[@]}"; do start "$name"; done
  wait_until_up
  trap - ERR
  echo "Flink $VERSION: http://$FLINK_MASTER, workers at $WORKER_POOL"
  echo "deploy/flink/submit.sh takes what sorbus embed takes, and deploy/flink/cluster.sh down ends it"
}

mend() {
  [ -s "$RUN/pids" ] || { echo "no cluster: $RUN" >&2; exit 1; }
  # shellcheck source=/dev/null
  source "$RUN/env"
  local lines name
  mapfile -t lines < "$RUN/pids"
  for line in "${lines[@]}"; do
    name=$(name_of "$line")
    alive "$line" && continue
    kill -KILL -- "-${line%% *}" 2> /dev/null || true  # workers whose pool is gone
    sed -i "/ $name /d" "$RUN/pids"
    mv "$RUN/log/$name.out" "$RUN/log/$name.$(date +%s).out"
    start "$name"
    echo "$name: started again"
  done
  wait_until_up
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
  FLINK_MASTER=localhost:${FLINK_REST_PORT:-${free[0]}} RPC_PORT=${FLINK_RPC_PORT:-${free[1]}}
  WORKER_POOL=localhost:${FLINK_POOL_PORT:-${free[2]}}
}

# The common configuration, and what is this machine's own. Java 17 wants its modules opened by a line of flags, which
# the distribution's own configuration has.
configure() {
  cp "$FLINK_HOME"/conf/log4j* "$RUN/conf/"
  {
    cat deploy/flink/config.yaml
    sed -n 's/^ *all: /env.java.opts.all: /p' "$FLINK_HOME/conf/config.yaml"
    for key in jobmanager.rpc.address jobmanager.bind-host taskmanager.host taskmanager.bind-host rest.address \
      rest.bind-address; do echo "$key: localhost"; done
    echo "jobmanager.rpc.port: $RPC_PORT"
    echo "rest.port: ${FLINK_MASTER#*:}"
    echo "io.tmp.dirs: $RUN/tmp"
  } > "$RUN/conf/config.yaml"
  {
    echo "FLINK_VERSION=$VERSION"
    echo "FLINK_MASTER=$FLINK_MASTER"
    echo "WORKER_POOL=$WORKER_POOL"
    echo "FLINK_HOME=$FLINK_HOME"
  } > "$RUN/env"
}

start() {
  local name=$1 command
  case $name in
    worker-pool) command=("$SORBUS_PYTHON" deploy/flink/worker_pool.py "${WORKER_POOL#*:}") ;;
    *) command=("$FLINK_HOME/bin/${name%-*}.sh" start-foreground) ;;
  esac
  PATH=$PWD/deploy/flink/bin:$PATH FLINK_CONF_DIR=$RUN/conf FLINK_LOG_DIR=$RUN/log FLINK_PID_DIR=$RUN/tmp \
    "${command[@]}" > "$RUN/log/$name.out" 2>&1 < /dev/null &
  echo "$! $name $(started "$!")" >> "$RUN/pids"
}

name_of() { cut -d' ' -f2 <<< "$1"; }

# When a process started: with that, a number that was given to another process since is not taken for ours. In ticks
# since the machine started where there is /proc, for `ps` reckons from a clock that may be set meanwhile. Nothing for
# one that is gone, or of which only the exit code is left.
started() {
  if [ ! -d /proc/self ]; then ps -o lstart= -p "$1"; return; fi
  sed 's/.*) //' "/proc/$1/stat" 2> /dev/null | awk '$1 != "Z" {print $20}'
}

alive() {  # a line of pids
  local pid name when
  read -r pid name when <<< "$1"
  [ "$(started "$pid" | xargs)" = "$(xargs <<< "$when")" ]
}

ask() {
  "$SORBUS_PYTHON" -c '
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())' "$1" 2> /dev/null
}

# Each TaskManager has said that it is registered, and no dead one, whose slots count for a while, is with them.
is_up() {
  local overview name
  for name in "${PARTS[@]:1:2}"; do
    grep -q "Successful registration at resource manager" "$RUN/log/$name.out" || return 1
  done
  overview=$(ask "http://$FLINK_MASTER/v1/overview") &&
    [[ $overview == *'"taskmanagers":2,"slots-total":4,"slots-available":4,'* ]] &&
    (: < "/dev/tcp/${WORKER_POOL/://}") 2> /dev/null
}

wait_until_up() {
  for _ in $(seq 120); do
    ! is_up || return 0
    while read -r line; do
      alive "$line" && continue
      echo "$(name_of "$line") ended: $(tail -n 1 "$RUN/log/$(name_of "$line").out")" >&2
      return 1
    done < "$RUN/pids"
    sleep 0.5
  done
  echo "not two TaskManagers with free slots after 60 s" >&2
  return 1
}

status() {
  [ -s "$RUN/pids" ] || { echo "no cluster: $RUN"; exit 1; }
  while read -r line; do
    echo "$(name_of "$line"): pid ${line%% *}, $(alive "$line" && echo up || echo gone)"
  done < "$RUN/pids"
  cat "$RUN/env"
}

# Asks all of them to end, and after ten seconds does not ask. Logs stay, state does not.
down() {
  [ -s "$RUN/pids" ] || return 0
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
  up | status | mend | down) "$COMMAND" ;;
  *) echo "$COMMAND: up, status, mend or down" >&2; exit 2 ;;
esac
