#!/usr/bin/env bash
# Runs chat, completions and embeddings through the real gateway, from OpenAI's own Python and Node libraries, against a real
# mlx_lm.server on the CPU. See README.md.
#
#   tests/live/chat.sh [STEP...]
#
# STEP      only these steps of chat.py, for example a_client_that_disconnects
# BIN_DIR   take gateway from there; nothing is built
# LIVE_DIR  where mlx_lm and the model are kept (default ~/.cache/ada2-live; all is in its directory chat)
# PYTHON    the Python to install for
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$here/../../Cargo.toml" -p gateway
    BIN_DIR=${CARGO_TARGET_DIR:-$here/../../target}/debug
fi
home=${LIVE_DIR:-$HOME/.cache/ada2-live}/chat
if [ ! -f "$home/installed" ]; then
    mkdir -p "$home"
    "${PYTHON:-python3}" -m venv "$home/venv"
    # Apple's machines have their own build of MLX; elsewhere the one for the CPU is asked for.
    [ "$(uname)" = Darwin ] && mlx=mlx==0.32.4 || mlx="mlx[cpu]==0.32.4"
    "$home/venv/bin/pip" install -q --disable-pip-version-check mlx-lm==0.32.2 "$mlx" openai==3.54.0
    "$home/venv/bin/python" -B "$here/tiny_chat_model.py" "$home/model"
    touch "$home/installed"
fi
if [ ! -d "$home/node_modules/openai" ]; then
    npm install --silent --no-package-lock --prefix "$home" openai@7
fi
export BIN_DIR MODEL=$home/model NODE_MODULES=$home
exec "$home/venv/bin/python" -B "$here/chat.py" "$@"
