#!/usr/bin/env bash
# The flex template: a job that is started from Google's console, its scheduler or `gcloud`, without Python at hand.
#   IMAGE=…/worker:0.1.0 LAUNCHER=…/launcher:0.1.0 LAUNCHER_TAG=… TEMPLATE=gs://my-bucket/sorbus.json \
#     flex_template.sh build
#   PROJECT=my-project REGION=europe-west1 TEMP=gs://my-bucket/temp IMAGE=…/worker:0.1.0 MAX_WORKERS=10 \
#     TEMPLATE=gs://my-bucket/sorbus.json \
#     flex_template.sh run 'input=s3://bucket/*.jsonl' encoder=s3://bucket/encoder dataset=s3://bucket/vectors id_column=id
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)

build() {
  docker build --file "$HERE/Dockerfile" --tag "$LAUNCHER" \
    --build-arg "WORKER_IMAGE=$IMAGE" --build-arg "LAUNCHER_TAG=$LAUNCHER_TAG" "$HERE"
  docker push "$LAUNCHER"
  gcloud dataflow flex-template build "$TEMPLATE" --image "$LAUNCHER" --sdk-language PYTHON \
    --metadata-file "$HERE/metadata.json"
}

run() {
  # Parameters are joined by ~, since a list of ours has commas in it (`gcloud topic escaping`).
  case "$*" in *"~"*) echo "$*: has a ~ in it, by which parameters are told apart; rename it" >&2; exit 2 ;; esac
  parameters="^~^sdk_container_image=$IMAGE~max_num_workers=$MAX_WORKERS"
  for parameter in "$@"; do parameters+="~$parameter"; done
  gcloud dataflow flex-template run "${JOB_NAME:-sorbus-$(date -u +%Y%m%d-%H%M%S)}" \
    --template-file-gcs-location "$TEMPLATE" --project "$PROJECT" --region "$REGION" \
    --temp-location "$TEMP" --staging-location "$TEMP" \
    --parameters "$parameters"
}

case "${1:-}" in
  build) build ;;
  run) shift; run "$@" ;;
  *) echo "flex_template.sh build, or flex_template.sh run NAME=VALUE …" >&2; exit 2 ;;
esac
