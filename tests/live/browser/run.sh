#!/usr/bin/env bash
# The engine's own web page through the sidecar in headless Chromium, pages of other sites that attack it, and pages of
# other origins that use both programs.
#
#   tests/live/browser/run.sh        # the last alone, with the builtin engine
#   ENGINE=invokeai ENGINE_URL=http://127.0.0.1:9190 tests/live/browser/run.sh
#   ENGINE=comfyui  ENGINE_URL=http://127.0.0.1:9288 tests/live/browser/run.sh
#
# The engine runs with its page. BIN_DIR: take both programs from there, nothing is built. SHOTS: where screenshots go.
# CHROMIUM (default chromium). Needs Node.js 20 and, at the first run, the npm registry.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$here/../../../Cargo.toml" -p ada2-sidecar -p gateway
    BIN_DIR=${CARGO_TARGET_DIR:-$here/../../../target}/debug
fi
BIN_DIR=$(cd "$BIN_DIR" && pwd)
export BIN_DIR
cd "$here"
[ -d node_modules/playwright-core ] || npm install --silent --no-package-lock
CHROMIUM=$(command -v "${CHROMIUM:-chromium}")
export CHROMIUM
failed=0
node cors.js || failed=1
[ -n "${ENGINE:-}" ] || exit $failed
state=$(mktemp -d)
log=$state/log
: >"$log"
"$BIN_DIR/ada2-sidecar" --listen 127.0.0.1:0 --gpu optional --engine "$ENGINE" --engine-url "$ENGINE_URL" \
    --state-dir "$state" --log-format json 2>"$log" &
sidecar=$!
trap 'kill $sidecar; wait $sidecar || true; rm -rf "$state"' EXIT
for _ in $(seq 100); do
    url=$(sed -n 's/.*"listen":"\([^"]*\)".*/\1/p' "$log")
    [ -n "$url" ] && break
    sleep 0.1
done
export SHOTS=${SHOTS:-$(mktemp -d)} SIDECAR=$url
node "$ENGINE.js" || failed=1
node attacks.js || failed=1
exit $failed
