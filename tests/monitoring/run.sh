#!/usr/bin/env bash
# Checks ada2-sidecar/docs/monitoring: the alerts and their unit tests with promtool, and that alerts and dashboard use only what both
# programs really export. Takes about 15 seconds; listens on loopback only.
#
#   tests/monitoring/run.sh
#
# BIN_DIR      take ada2-sidecar and gateway from there; nothing is built
# FAKE_NVML    the fake driver library (default: target/debug/deps/libfake_nvml.so)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
if command -v promtool >/dev/null; then
    cd "$root/ada2-sidecar/docs/monitoring"
    promtool check rules alerts.yaml
    promtool test rules alerts.test.yaml
    promtool check config --syntax-only prometheus.yml
else
    echo "skipped: there is no promtool here (apt-get install prometheus)"
fi
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --release --bins
    BIN_DIR=$target/release
fi
FAKE_NVML=${FAKE_NVML:-$target/debug/deps/libfake_nvml.so}
if [ ! -e "$FAKE_NVML" ]; then
    cargo build --manifest-path "$root/Cargo.toml" -p fake-nvml
fi
exec python3 -B "$here/check.py" "$BIN_DIR" "$FAKE_NVML"
