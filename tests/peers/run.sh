#!/usr/bin/env bash
# The gateway side by side with a FastAPI gateway and LiteLLM's proxy, in one run; prints one table. See README.md.
#
#   tests/peers/run.sh [CONTESTANT...]
#
# CONTESTANT   only these: gateway, fastapi, litellm
# BIN_DIR      take the gateway from there; it is not built
# FLUSH=no     FastAPI does not flush its images to the disk
# PEERS_DIR    where the peers are kept (default ~/.cache/ada2-peers)
# TMPDIR       where the images go: up to 1 GB, gone at the end
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh"
cd "$here/../.."
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --release -p gateway
    BIN_DIR=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
export BIN_DIR VENV=${PEERS_DIR:-$HOME/.cache/ada2-peers}/venv
[ $# -gt 0 ] || set -- gateway fastapi litellm
exec cargo bench -q -p benches --bench images -- peers "$here/start.sh" "$@"
