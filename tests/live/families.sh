#!/usr/bin/env bash
# Today's families of models on a real InvokeAI and a real ComfyUI, both on the CPU, through both programs. See README.md.
#
#   tests/live/families.sh [accepted] [runs] [--slow] [MODEL...]     what families.py takes
#
# ENGINES         only these of "invokeai comfyui"
# COMFYUI_DIR     a checkout of ComfyUI to use
# BIN_DIR         take ada2-sidecar and gateway from there; nothing is built
# LIVE_DIR        where the engines are kept (default ~/.cache/ada2-live)
# KEEP_ENGINES=1  leave them running for the next run
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${LIVE_DIR:-$HOME/.cache/ada2-live}
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --manifest-path "$here/../../Cargo.toml" -p ada2-sidecar -p gateway
    BIN_DIR=${CARGO_TARGET_DIR:-$here/../../target}/debug
fi
export BIN_DIR
[ -n "${KEEP_ENGINES:-}" ] || trap '"$here/invokeai.sh" stop; "$here/comfyui.sh" stop' EXIT

code=0
for ENGINE in ${ENGINES:-invokeai comfyui}; do
    case $ENGINE in
        invokeai)
            "$here/invokeai.sh" start
            ENGINE_URL=http://127.0.0.1:9190
            HF_HUB_OFFLINE=1 "$dir/venv/bin/python" "$here/tiny_families_invokeai.py" "$dir/models" "$ENGINE_URL" \
                >"$dir/families.log" 2>&1 || { tail -15 "$dir/families.log" >&2; exit 1; }
            ;;
        comfyui) ENGINE_URL=$(FAMILIES=1 "$here/comfyui.sh" start) ;;
        *) echo "ENGINES has \"$ENGINE\": it is of \"invokeai comfyui\"" >&2; exit 2 ;;
    esac
    export ENGINE ENGINE_URL
    python3 -B "$here/families.py" "$@" || code=1
done
exit "$code"
