#!/usr/bin/env bash
# Tests the page in a browser: over made-up networks, and its actions on a real testnet.
# It needs chromium, node 20 and npm (Debian has all three); where one is not there it says so
# and ends well. CHROMIUM names another browser; PAGE_SHOTS a folder for screenshots.
set -euo pipefail
cd "$(dirname "$0")/.."

chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
for need in "${chromium:-chromium}" node npm; do
  if ! command -v "$need" >/dev/null; then
    echo "NOT CHECKED: the page in a browser, because there is no $need: apt-get install chromium nodejs npm"
    exit 0
  fi
done
export CHROMIUM=$chromium

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
CGO_ENABLED=0 go build -o "$made/" ./cmd/tweedle
(cd watch && CGO_ENABLED=0 go build -o "$made/" ./cmd/tweedle-watch ./page/e2e/fixture)
cd watch/page/e2e
if ! npm ci --no-audit --no-fund --ignore-scripts >"$made/npm.log" 2>&1; then
  echo "NOT CHECKED: the page in a browser, because its tools cannot be had: $(tail -n 1 "$made/npm.log")"
  exit 0
fi
PAGE_BIN=$made PAGE_FIXTURE=$made/fixture node --test --test-concurrency=1 --test-reporter=spec *.test.mjs
