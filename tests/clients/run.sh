#!/usr/bin/env bash
# Runs the clients that people use against both real programs, and prints who can do what. See README.md.
#
#   tests/clients/run.sh [CLIENT...]
#
# CLIENT          only these, for example openai-python; --list prints all
# BIN_DIR         take ada2-sidecar and gateway from there; nothing is built
# CLIENTS_DIR     where the clients and what they made are kept (default ~/.cache/ada2-clients)
# GATEWAY_TLS     off: the gateway speaks plain HTTP
# NEWEST=1        install the newest of each client instead of the versions that were tested
# ONLY            only these operations, comma-separated, for example edit,edit_with_mask
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CLIENTS_DIR=${CLIENTS_DIR:-$HOME/.cache/ada2-clients}
mkdir -p "$CLIENTS_DIR"
checker=$CLIENTS_DIR/checker
if [ ! -f "$checker/installed" ]; then
    "${PYTHON:-python3}" -m venv "$checker"
    "$checker/bin/pip" install -q pillow
    touch "$checker/installed"
fi
if [ "${1:-}" != --list ] && [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$here/../../Cargo.toml" -p ada2-sidecar -p gateway
    BIN_DIR=${CARGO_TARGET_DIR:-$here/../../target}/debug
fi
export BIN_DIR
exec "$checker/bin/python" -B "$here/matrix.py" "$@"
