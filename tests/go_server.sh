#!/usr/bin/env bash
# go_server.sh PACKAGE@VERSION SUM: builds a server that tests run against into .go/bin. No part of Sorbus.
# From source: Go holds what it needs to its checksum database, and we the module to SUM, also one that is there already.
# Exit code 69: it cannot be had here, and the line says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

package=$1 sum=$2
name=$(basename "${package%@*}")
program=.go/bin/$name

missing() { echo "$name: $1; its tests are skipped" >&2; exit 69; }

command -v go > /dev/null || missing "needs Go, which builds it"
[ -x "$program" ] || GOBIN="$PWD/.go/bin" go install "$package" || missing "needs Go's module proxy, for $package"
if ! go version -m "$program" | grep -qF "$sum"; then
  echo "$program is not $package: remove it" >&2
  exit 1
fi
