#!/usr/bin/env bash
# Installs the peers, the newest of each, once; prints which. See README.md.
#
# PEERS_DIR   where they are kept (default ~/.cache/ada2-peers)
set -euo pipefail

venv=${PEERS_DIR:-$HOME/.cache/ada2-peers}/venv
if [ ! -f "$venv/installed" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install -q fastapi 'uvicorn[standard]' httpx 'litellm[proxy]'
    touch "$venv/installed"
fi
"$venv/bin/pip" list --format=freeze 2>/dev/null | grep -E '^(fastapi|uvicorn|uvloop|httptools|httpx|litellm)=='
