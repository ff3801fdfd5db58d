#!/usr/bin/env bash
# Runs the long campaigns, each a target nightly-PART of the Makefile that ends
# within an hour, and prints how long each took:
#
#   scripts/nightly.sh PART...                       one after another, e.g. kills damage
#   scripts/nightly.sh PART... -- PART... -- PART... in three groups
#
# The first group measures, so its parts have the machine for themselves. Those of the
# second wait for clocks, networks and kills most of the time and must be on time: two at
# a time. Those of the third only compute: on one core each, two at a time, and give way
# to the second.
#
# A part that fails does not hide the others: all are run, and the command fails
# at the end. The whole output of a part is in bin/nightly/PART.log; of one that
# failed the last lines are shown. NIGHTLY_LIMIT=20s shows that each part begins.
#
# It goes on where it was stopped: a part that was ok at this commit, in a checkout
# without changes, is not run again, unless it is named alone or NIGHTLY_FRESH is set.
set -uo pipefail
cd "$(dirname "$0")/.."

limit=${NIGHTLY_LIMIT:-60m}
logs=bin/nightly
mkdir -p "$logs"
queue=$(mktemp -d)
trap 'rm -rf "$queue"' EXIT
# One group of processes, so that Ctrl-C ends all lanes and what they run.
trap 'trap "" TERM; kill 0; exit 130' INT TERM
begin=$SECONDS
clock() { printf '%d:%02d:%02d' $(($1 / 3600)) $(($1 % 3600 / 60)) $(($1 % 60)); }

# What a part that is ok leaves in PART.ok; nothing if the checkout is no commit.
commit=$(git rev-parse HEAD 2>/dev/null)
[ -z "$(git status --porcelain 2>/dev/null)" ] || commit=

# run PART NICENESS CORES
run() {
  local at=$SECONDS from status said
  from=$(date +%H:%M:%S)
  if [ -n "$again" ] && [ "$(head -n 1 "$logs/$1.ok" 2>/dev/null)" = "${commit:-none}" ]; then
    printf '%s  %-12s ok      before, %s\n' "$from" "$1" "$(tail -n 1 "$logs/$1.ok")"
    return
  fi
  rm -f "$logs/$1.ok"
  GOMAXPROCS=$3 timeout --foreground --kill-after=10s "$limit" nice -n "$2" "${MAKE:-make}" --no-print-directory "nightly-$1" >"$logs/$1.log" 2>&1 &
  if wait $!; then # a trap is not run before a command in the foreground ends
    printf '%s  %-12s ok      %s\n' "$from" "$1" "$(clock $((SECONDS - at)))"
    [ -z "$commit" ] || printf '%s\n%s in %s\n' "$commit" "$(date '+%F %H:%M')" "$(clock $((SECONDS - at)))" >"$logs/$1.ok"
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

again=
[ -n "${NIGHTLY_FRESH:-}" ] || case " $* " in *' -- '*) again=yes ;; esac
groups=(alone waits works) group=0 parts=0
touch "$queue/alone" "$queue/waits" "$queue/works" "$queue/failed"
for part in "$@"; do
  if [ "$part" = -- ]; then
    group=$((group + 1))
  else
    echo "$part" >>"$queue/${groups[$group]}"
    parts=$((parts + 1))
  fi
done

works() {
  local part
  while part=$(take "$queue/works"); do run "$part" 10 1; done
}
waits() {
  local part
  while part=$(take "$queue/waits"); do run "$part" 0 ''; done
}
while part=$(take "$queue/alone"); do run "$part" 0 ''; done
waits &
waits &
works &
works &
wait

echo "$parts parts in $(clock $((SECONDS - begin))), output in $logs"
if [ -s "$queue/failed" ]; then
  echo "failed:" $(cat "$queue/failed")
  exit 1
fi
