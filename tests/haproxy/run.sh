#!/usr/bin/env bash
# Runs ada2-sidecar/docs/haproxy/haproxy.cfg in front of three sidecars and breaks one after the other. See README.md.
#
#   tests/haproxy/run.sh [--rate 50] [--seconds 10] [--restarts 10]
#
# BIN_DIR      take ada2-sidecar and gateway from there; nothing is built
# FAKE_NVML    the fake driver library (default: target/debug/deps/libfake_nvml.so)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
if ! command -v haproxy >/dev/null; then
    echo "skipped: there is no haproxy here (apt-get install haproxy; 2.6 or newer)"
    exit 0
fi
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --release --bins
    BIN_DIR=$target/release
fi
FAKE_NVML=${FAKE_NVML:-$target/debug/deps/libfake_nvml.so}
if [ ! -e "$FAKE_NVML" ]; then
    cargo build --manifest-path "$root/Cargo.toml" -p fake-nvml
fi
exec python3 -B "$here/drills.py" "$BIN_DIR" "$FAKE_NVML" "$@"
