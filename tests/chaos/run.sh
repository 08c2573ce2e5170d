#!/bin/sh
# Random faults on both programs as processes, invariants checked throughout. See README.md.
#
#   sh tests/chaos/run.sh [--episodes 100] [--seed S] [--minutes M] [--pairs 2] [--slack 2] [--faults gpu_lost,net_cut]
#
# BIN_DIR   take ada2-sidecar, gateway and libfake_nvml.so from there (and fake-invokeai, if it is there)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --bins -p ada2-sidecar -p gateway -p fakes -p fake-nvml
    BIN_DIR=$target/debug
fi
engine=$BIN_DIR/fake-invokeai
if [ ! -e "$engine" ]; then
    engine=$target/debug/fake-invokeai
    [ -e "$engine" ] || cargo build --manifest-path "$root/Cargo.toml" -p fakes --bin fake-invokeai
fi
exec python3 -B "$here/chaos.py" "$BIN_DIR" "$engine" "$@"
