#!/usr/bin/env bash
# Sends the payloads of request smuggling through both programs to the HTTP parsers of the engines. See README.md.
#
#   tests/framing/run.sh [--fuzz CASES] [--seed SEED] [--only WORDS]
#
# BIN_DIR      take ada2-sidecar and gateway from there; nothing is built
# FRAMING_DIR  where the parsers are installed and the table is written (default target/framing)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
export FRAMING_DIR=${FRAMING_DIR:-$target/framing}
if [ "$(uname)" != Linux ]; then
    echo "skipped: only Linux gives every client an address of its own in 127.0.0.0/8"
    exit 77
fi
if ! cmp -s "$here/constraints.txt" "$FRAMING_DIR/installed"; then
    mkdir -p "$FRAMING_DIR"
    python3 -m venv --clear "$FRAMING_DIR/venv"
    if ! "$FRAMING_DIR/venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 -r "$here/constraints.txt"; then
        echo "skipped: the parsers cannot be had: the Python package index cannot be reached"
        exit 77
    fi
    cp "$here/constraints.txt" "$FRAMING_DIR/installed"
fi
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" -p ada2-sidecar -p gateway
    BIN_DIR=$target/debug
fi
exec "$FRAMING_DIR/venv/bin/python" -B "$here/framing.py" "$BIN_DIR" "$@"
