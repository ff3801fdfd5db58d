#!/usr/bin/env bash
# Runs the long campaigns, one after another, each a target nightly-PART of the
# Makefile that ends within an hour, and prints how long each took:
#
#   scripts/nightly.sh PART...     e.g. scripts/nightly.sh kills damage
#
# A part that fails does not hide the others: all are run, and the command fails
# at the end. The whole output of a part is in bin/nightly/PART.log; of one that
# failed the last lines are shown. NIGHTLY_LIMIT=20s shows that each part begins.
set -uo pipefail
cd "$(dirname "$0")/.."

limit=${NIGHTLY_LIMIT:-60m}
logs=bin/nightly
mkdir -p "$logs"
failed=()
begin=$SECONDS
clock() { printf '%d:%02d:%02d' $(($1 / 3600)) $(($1 % 3600 / 60)) $(($1 % 60)); }

for part in "$@"; do
  printf '%s  %-12s ' "$(date +%H:%M:%S)" "$part"
  at=$SECONDS
  if timeout --kill-after=10s "$limit" "${MAKE:-make}" --no-print-directory "nightly-$part" >"$logs/$part.log" 2>&1; then
    echo "ok      $(clock $((SECONDS - at)))"
  else
    status=$?
    failed+=("$part")
    echo "FAILED  $(clock $((SECONDS - at)))"
    [ "$status" -ne 124 ] || echo "    it took longer than $limit"
    tail -n 40 "$logs/$part.log" | sed 's/^/    /'
  fi
done

echo "$# parts in $(clock $((SECONDS - begin))), output in $logs"
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
