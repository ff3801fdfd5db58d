#!/usr/bin/env bash
# Runs every native fuzz target of the module, one after another, each for the
# given time, and stops at the first finding:
#
#   scripts/fuzz.sh [FUZZTIME] [PACKAGE...]    e.g. scripts/fuzz.sh 1m ./services/node
#
# The failing input is left in the package's testdata/fuzz folder, where every
# later "go test" runs it: commit it with the fix. Inputs that reach new code are
# kept in Go's cache, and the next run begins with them.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-15s}
shift || true
go=${GO:-go}
cache=$("$go" env GOCACHE)/fuzz

# Packages that have a target, found in their sources: no need to build the others.
listed=$("$go" list -f '{{.ImportPath}} {{.Dir}}' "${@:-./...}")
packages=()
while read -r pkg dir; do
  if grep -qsE '^func Fuzz[A-Za-z0-9_]*\(' "$dir"/*_test.go; then packages+=("$pkg $dir"); fi
done <<<"$listed"
if [ ${#packages[@]} -eq 0 ]; then
  echo "there is no fuzz target in ${*:-./...}" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
targets=0

# fuzz PACKAGE DIR TARGET
fuzz() {
  printf '%-24s %-28s' "${1#*/}" "$3"
  # Left alone, Go spends a minute on making one input smaller before the next.
  if (cd "$2" && exec "$work/test" -test.run '^$' -test.fuzz "^$3\$" -test.fuzztime "$time" \
    -test.fuzzminimizetime 0x -test.fuzzcachedir "$cache/$1") >"$work/log" 2>&1; then
    :
  # Go reports the end of the time as a failure now and then (golang/go#75804).
  elif ! grep -qE 'Failing input|fuzzing process|panic|DATA RACE|baseline coverage: .*failed' "$work/log" &&
    grep -qx '    context deadline exceeded' "$work/log"; then
    :
  else
    echo "FAILED"
    cat "$work/log"
    exit 1
  fi
  # The last line that counts, or a word if the time was over before one.
  { grep -oE '(execs: [0-9]+|baseline coverage: [0-9]+/[0-9]+)' "$work/log" || echo "not one input was run"; } | tail -n 1
}

for entry in "${packages[@]}"; do
  read -r pkg dir <<<"$entry"
  # With -fuzz the binary is built with the counters that guide the search.
  "$go" test -c -fuzz . -o "$work/test" "$pkg"
  for target in $(cd "$dir" && "$work/test" -test.list '^Fuzz' | grep '^Fuzz'); do
    fuzz "$pkg" "$dir" "$target"
    targets=$((targets + 1))
  done
done
echo "$targets fuzz targets, $time each: nothing found"
