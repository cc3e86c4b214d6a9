#!/usr/bin/env bash
# Run `sorbus embed` on Dataflow; takes its arguments, and Beam's behind `--`:
#   PROJECT=my-project REGION=europe-west1 TEMP=gs://my-bucket/temp IMAGE=…/worker:0.1.0 MAX_WORKERS=10 \
#     submit.sh --input 's3://bucket/*.jsonl' --encoder s3://bucket/encoder --dataset s3://bucket/vectors [-- --labels=a=b]
# It takes no gcloud, but Google's credentials: GOOGLE_APPLICATION_CREDENTIALS names a key, or the machine has a role.
set -euo pipefail
: "${PROJECT:?the Google Cloud project}"
: "${REGION:?where the workers run; near the buckets, or each byte is paid for}"
: "${TEMP:?gs://BUCKET/FOLDER for files of the job}"
: "${IMAGE:?the worker image, which is deploy/worker}"
: "${MAX_WORKERS:?machines at most}"

options=(
  "--project=$PROJECT"
  "--region=$REGION"
  "--temp_location=$TEMP"
  "--sdk_container_image=$IMAGE"
  # What a night costs at most. Dataflow starts with few machines and adds more while that pays.
  "--max_num_workers=$MAX_WORKERS"
  # For people: Beam's own name says who, this says what.
  "--job_name=${JOB_NAME:-sorbus-$(date -u +%Y%m%d-%H%M%S)}"
)
# Who the workers are, for the buckets; the default account of a project may often do too much.
[ -z "${SERVICE_ACCOUNT:-}" ] || options+=("--service_account_email=$SERVICE_ACCOUNT")
# Without it machines have public addresses. They need one to reach S3, unless the network has a gateway.
[ -z "${SUBNETWORK:-}" ] || options+=("--subnetwork=$SUBNETWORK" --no_use_public_ips)
# What is right for every job is not here: pipeline/engines.py gives it (one process a machine, its threads, its size,
# the disk, no pickled session). What is said behind `--` comes last, and wins.

ours=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do ours+=("$1"); shift; done
[ $# -eq 0 ] || shift
exec "${SORBUS:-sorbus}" embed "${ours[@]}" --runner DataflowRunner -- "${options[@]}" "$@"
