#!/usr/bin/env bash
# Runs the long campaigns, each a target nightly-PART of the Makefile that ends
# within an hour, and prints how long each took:
#
#   scripts/nightly.sh PART...                 one after another, e.g. kills damage
#   scripts/nightly.sh PART... -- PART...      in lanes, side by side
#
# Parts before the dashes wait for clocks, networks and kills most of the time and must
# be on time; they have a lane. Those after them only compute: on one core each, two at a
# time, and give way to the first. A lane that has done its own parts helps with them.
#
# A part that fails does not hide the others: all are run, and the command fails
# at the end. The whole output of a part is in bin/nightly/PART.log; of one that
# failed the last lines are shown. NIGHTLY_LIMIT=20s shows that each part begins.
set -uo pipefail
cd "$(dirname "$0")/.."

limit=${NIGHTLY_LIMIT:-60m}
logs=bin/nightly
mkdir -p "$logs"
queue=$(mktemp -d)
trap 'rm -rf "$queue"' EXIT
# One group of processes, so that Ctrl-C ends both lanes and what they run.
trap 'trap "" TERM; kill 0; exit 130' INT TERM
begin=$SECONDS
clock() { printf '%d:%02d:%02d' $(($1 / 3600)) $(($1 % 3600 / 60)) $(($1 % 60)); }

# run PART NICENESS CORES
run() {
  local at=$SECONDS from status said
  from=$(date +%H:%M:%S)
  GOMAXPROCS=$3 timeout --foreground --kill-after=10s "$limit" nice -n "$2" "${MAKE:-make}" --no-print-directory "nightly-$1" >"$logs/$1.log" 2>&1 &
  if wait $!; then # a trap is not run before a command in the foreground ends
    printf '%s  %-12s ok      %s\n' "$from" "$1" "$(clock $((SECONDS - at)))"
    return
  else
    status=$?
  fi
  echo "$1" >>"$queue/failed"
  said=$(tail -n 40 "$logs/$1.log" | sed 's/^/    /')
  [ "$status" -ne 124 ] || said="    it took longer than $limit"$'\n'$said
  printf '%s  %-12s FAILED  %s\n%s\n' "$from" "$1" "$(clock $((SECONDS - at)))" "$said"
}

# take prints the next part of a list, and takes it off; it fails at the end.
take() {
  local part
  part=$(flock "$queue/lock" sh -c 'head -n 1 "$1" && sed -i 1d "$1"' sh "$1")
  [ -n "$part" ] && echo "$part"
}

list=$queue/waits
touch "$queue/waits" "$queue/works" "$queue/failed"
parts=0
for part in "$@"; do
  if [ "$part" = -- ]; then
    list=$queue/works
  else
    echo "$part" >>"$list"
    parts=$((parts + 1))
  fi
done

works() {
  local part
  while part=$(take "$queue/works"); do run "$part" 10 1; done
}
if [ "$list" = "$queue/works" ]; then
  works &
  works &
fi
while part=$(take "$queue/waits"); do run "$part" 0 ''; done
works
wait

echo "$parts parts in $(clock $((SECONDS - begin))), output in $logs"
if [ -s "$queue/failed" ]; then
  echo "failed:" $(cat "$queue/failed")
  exit 1
fi
