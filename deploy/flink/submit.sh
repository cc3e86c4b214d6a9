#!/usr/bin/env bash
# Run `sorbus embed` on Flink; takes its arguments, and Beam's behind `--`:
#   submit.sh --input 'articles/*.jsonl' --encoder encoder --dataset vectors [-- --parallelism=4]
# On the cluster that cluster.sh brought up, or on another one:
#   FLINK_MASTER=flink-rest:8081 FLINK_VERSION=2.2 WORKER_POOL=localhost:50000 submit.sh …
# WORKER_POOL is an address as the TaskManagers see it: their own sidecar's.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
RUN=${SORBUS_FLINK_RUN:-$HERE/../../.flink/run}
PYTHON=${SORBUS_PYTHON:-$HERE/../../.venv/bin/python}

if [ -z "${FLINK_MASTER:-}" ]; then
  [ -f "$RUN/env" ] || { echo "no cluster: deploy/flink/cluster.sh up, or give FLINK_MASTER=HOST:PORT" >&2; exit 2; }
  # shellcheck source=/dev/null
  source "$RUN/env"
  how=()
else
  # All of the job in one jar: the cluster needs no folder in common with this machine, and goes on when we are gone.
  how=(--flink_submit_uber_jar)
fi
JAR=$("$HERE/fetch.sh" job-server "${FLINK_VERSION:-2.2}")

ours=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do ours+=("$1"); shift; done
[ $# -eq 0 ] || shift
exec "$PYTHON" -m pipeline embed "${ours[@]}" --runner FlinkRunner -- \
  "--flink_master=$FLINK_MASTER" "--flink_version=${FLINK_VERSION:-2.2}" "--flink_job_server_jar=$JAR" \
  "--environment_config=${WORKER_POOL:-localhost:50000}" --parallelism=2 "${how[@]}" "$@"
