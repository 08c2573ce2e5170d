#!/usr/bin/env bash
# Runs the main path against a real InvokeAI on the CPU, through both real programs. See README.md.
#
#   tests/live/run.sh [--faults] [STEP...]
#
# --faults        also kill and stop InvokeAI and the sidecar in mid-job (only where this script starts InvokeAI)
# STEP            only these steps of main_path.py, for example a_paused_queue
# INVOKEAI_URL    use the InvokeAI that runs there; nothing is installed or started
# BIN_DIR         take ada2-sidecar and gateway from there; nothing is built
# LIVE_DIR        where InvokeAI is kept (default ~/.cache/ada2-live), PORT where it listens (9190)
# KEEP_INVOKEAI=1 leave InvokeAI running for the next run
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$here/../../Cargo.toml" -p ada2-sidecar -p gateway
    BIN_DIR=${CARGO_TARGET_DIR:-$here/../../target}/debug
fi
if [ -z "${INVOKEAI_URL:-}" ]; then
    export PORT=${PORT:-9190} INVOKEAI_SH=$here/invokeai.sh
    [ -n "${KEEP_INVOKEAI:-}" ] || trap '"$here/invokeai.sh" stop' EXIT
    "$here/invokeai.sh" start
    INVOKEAI_URL=http://127.0.0.1:$PORT
fi
export BIN_DIR INVOKEAI_URL
python3 -B "$here/main_path.py" "$@"
