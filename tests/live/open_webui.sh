#!/usr/bin/env bash
# A real Open WebUI in front of the gateway: it trusts the gateway's own authority as the guide says, makes an image,
# edits one image, and is told errors it can show. Installed once into $LIVE_DIR/open-webui.
#
#   open_webui.sh       BIN_DIR (programs that are built already), OPEN_WEBUI_VERSION (0.12.4), PYTHON (3.11 or 3.12)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${LIVE_DIR:-$HOME/.cache/ada2-live}/open-webui
version=${OPEN_WEBUI_VERSION:-0.12.4}
mkdir -p "$dir"

note() { echo "open-webui: $*" >&2; }
fail() { note "$*"; exit 1; }

if [ "$(cat "$dir/installed" 2>/dev/null)" != "$version" ]; then
    python=${PYTHON:-}
    for candidate in python3.11 python3.12 python3; do
        [ -n "$python" ] && break
        "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null &&
            python=$candidate
    done
    [ -n "$python" ] || fail "no Python 3.11 or 3.12 found: set PYTHON"
    note "installing Open WebUI $version into $dir (8 GB, some minutes; log: $dir/install.log)"
    {
        "$python" -m venv "$dir/venv"
        "$dir/venv/bin/pip" install -q uv
        UV_CACHE_DIR=$dir/downloads "$dir/venv/bin/uv" pip install --python "$dir/venv/bin/python" \
            "open-webui==$version"
        rm -rf "$dir/downloads"
    } >"$dir/install.log" 2>&1 || { tail -15 "$dir/install.log" >&2; fail "the installation failed"; }
    echo "$version" >"$dir/installed"
fi
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$here/../../Cargo.toml" -p ada2-sidecar -p gateway
    BIN_DIR=${CARGO_TARGET_DIR:-$here/../../target}/debug
fi
export BIN_DIR
exec "$dir/venv/bin/python" -B "$here/open_webui.py"
