#!/usr/bin/env bash
# Fetch what a cluster or a job needs, once, and print where it is:
#   fetch.sh flink 2.2        the unpacked distribution
#   fetch.sh job-server 2.2   Beam's job server, which makes a Flink job of a pipeline
# Exit code 69: it cannot be had here; the line says what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

WHAT=${1:?flink or job-server} VERSION=${2:?a version of Flink, such as 2.2}
CACHE=${SORBUS_FLINK_CACHE:-$PWD/.flink}
PYTHON=${SORBUS_PYTHON:-$PWD/.venv/bin/python}
PINS=deploy/flink/flink-$VERSION.txt

unavailable() { echo "$*" >&2; exit 69; }

[ -f "$PINS" ] || { echo "Flink $VERSION: no $PINS with its packages; take 2.2 or 1.20" >&2; exit 2; }
[ -x "$PYTHON" ] || unavailable "needs the environment with Sorbus, and $PYTHON is not there: make environment"
mkdir -p "$CACHE"
SCRATCH=$(mktemp -d "$CACHE/fetch-XXXXXX")
trap 'rm -rf "$SCRATCH"' EXIT

fetch_flink() {
  local home="$CACHE/flink-$VERSION"
  if [ ! -d "$home" ]; then
    # One platform for all: only its scripts are used, so one hash does. pip itself holds the files to the hashes.
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
      --python-version 3.11 --implementation cp --abi cp311 --platform manylinux2014_x86_64 \
      --dest "$SCRATCH/files" --requirement "$PINS" >&2 ||
      unavailable "needs apache-flink and apache-flink-libraries of $PINS (300 MB), and pip cannot fetch them"
    for file in "$SCRATCH"/files/*; do unpack "$file"; done
    mv "$SCRATCH/flink" "$home"  # where the folder is, it is complete
  fi
  echo "$home"
}

# The folder is called pyflink/ in a wheel and deps/ in a source distribution. jar files only a Python program needs
# (opt/) and metrics reporters (plugins/) stay behind.
unpack() {
  mkdir -p "$SCRATCH/flink" "$SCRATCH/all"
  case $1 in
    *.whl) "$PYTHON" -m zipfile -e "$1" "$SCRATCH/all" && mv "$SCRATCH/all/pyflink" "$SCRATCH/one" ;;
    *.tar.gz) tar xzf "$1" -C "$SCRATCH/all" && mv "$SCRATCH"/all/*/deps "$SCRATCH/one" ;;
  esac
  for part in bin conf lib; do
    [ ! -d "$SCRATCH/one/$part" ] || cp -r "$SCRATCH/one/$part" "$SCRATCH/flink/"
  done
  rm -rf "$SCRATCH/all" "$SCRATCH/one" "$1"
  chmod +x "$SCRATCH"/flink/bin/*.sh "$SCRATCH/flink/bin/flink" 2>/dev/null || true  # zipfile forgets modes
}

fetch_job_server() {
  # That of the SDK which submits: the two speak a protocol that is not kept between versions.
  local beam name jar url
  beam=$("$PYTHON" -c 'from importlib.metadata import version; print(version("apache-beam"))')
  name=beam-runners-flink-$VERSION-job-server jar=$CACHE/$name-$beam.jar
  if [ -n "${FLINK_JOB_SERVER_JAR:-}" ]; then
    [ -f "$FLINK_JOB_SERVER_JAR" ] || unavailable "FLINK_JOB_SERVER_JAR=$FLINK_JOB_SERVER_JAR: not there"
    jar=$FLINK_JOB_SERVER_JAR
  elif [ ! -f "$jar" ]; then
    if command -v mvn > /dev/null; then  # -C: a file that does not match the repository's checksum is an error
      mvn -B -q -C org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -Dmdep.stripVersion=false \
        -Dartifact="org.apache.beam:$name:$beam" -DoutputDirectory="$SCRATCH" > "$SCRATCH/said" 2>&1 || no_job_server
    else
      # Where Beam itself would take it from.
      url=$("$PYTHON" -c 'import sys; from apache_beam.utils.subprocess_server import JavaJarServer
print(JavaJarServer.path_to_maven_jar(sys.argv[1], "org.apache.beam", sys.argv[2]))' "$name" "$beam" 2> /dev/null)
      curl -fsSL "$url" -o "$SCRATCH/$name-$beam.jar" || no_job_server
      curl -fsSL "$url.sha1" -o "$SCRATCH/sha1" || no_job_server
      echo "$(cut -c1-40 "$SCRATCH/sha1")  $SCRATCH/$name-$beam.jar" | sha1sum --check --quiet >&2
    fi
    mv "$SCRATCH/$name-$beam.jar" "$jar"
  fi
  echo "$jar"
}

no_job_server() {
  unavailable "needs Beam's job server org.apache.beam:$name:$beam, which Maven Central does not give here;" \
    "with a copy of your own: FLINK_JOB_SERVER_JAR=PATH"
}

case $WHAT in
  flink) fetch_flink ;;
  job-server) fetch_job_server ;;
  *) echo "$WHAT: flink or job-server" >&2; exit 2 ;;
esac
