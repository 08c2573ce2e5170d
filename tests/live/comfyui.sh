#!/usr/bin/env bash
# A real ComfyUI on the CPU with two tiny checkpoints, kept in $LIVE_DIR/comfyui (default ~/.cache/ada2-live/comfyui).
#
#   comfyui.sh start    get and install (once), make the checkpoints (once), start, print the URL
#   comfyui.sh stop     stop the server that was started from this directory
#   comfyui.sh pid      print its process id
#
# PORT (9288), PYTHON (a Python 3.11 or 3.12), COMFYUI_VERSION (0.33.0), COMFYUI_DIR (a checkout to use instead).
# FAMILIES=1 has the small weights of tiny_families_comfyui.py as well, in a base directory of its own.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${LIVE_DIR:-$HOME/.cache/ada2-live}/comfyui
port=${PORT:-9288}
version=${COMFYUI_VERSION:-0.33.0}
url=http://127.0.0.1:$port
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
home=$dir/home
[ -z "${FAMILIES:-}" ] || home=$dir/families
checkout=${COMFYUI_DIR:-$dir/ComfyUI-$version}

note() { echo "comfyui: $*" >&2; }
fail() { note "$*"; exit 1; }
answers() { curl --noproxy '*' -fsS -m 5 "$url/system_stats" 2>/dev/null | grep -q comfyui_version; }

# The server's process id, if it is still that server (of this base directory): ids are used again.
running() {
    local pid
    pid=$(cat "$dir/pid" 2>/dev/null) && ps -o args= -p "$pid" 2>/dev/null | grep -qF -- "--base-directory ${1:-$dir/}" &&
        echo "$pid"
}

get() {
    if [ -z "${COMFYUI_DIR:-}" ] && [ ! -f "$checkout/main.py" ]; then
        note "cloning ComfyUI $version into $checkout"
        rm -rf "$checkout" "$checkout.part"
        git clone -q -c advice.detachedHead=false --depth 1 --branch "v$version" \
            https://github.com/comfyanonymous/ComfyUI "$checkout.part" || fail "the clone failed: set COMFYUI_DIR"
        mv "$checkout.part" "$checkout"
    fi
    [ -f "$checkout/main.py" ] && [ -f "$checkout/requirements.txt" ] || fail "$checkout is no checkout of ComfyUI"
    checkout=$(cd "$checkout" && pwd)
}

install() {
    # Not the browser's part (comfyui-*): the server works without, and it is most of what is not torch.
    grep -v '^comfyui-' "$checkout/requirements.txt" >"$dir/requirements.txt"
    cmp -s "$dir/requirements.txt" "$dir/installed" && return
    local python=${PYTHON:-}
    for candidate in python3.11 python3.12 python3; do
        [ -n "$python" ] && break
        "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null &&
            python=$candidate
    done
    [ -n "$python" ] || fail "no Python 3.11 or 3.12 found: set PYTHON"
    note "installing what ComfyUI needs into $dir (5 GB, a minute or two; log: $dir/install.log)"
    rm -rf "$dir/installed" "$dir/venv"
    {
        "$python" -m venv "$dir/venv"
        "$dir/venv/bin/pip" install -q uv
        # The constraints were tried together; without them the newest of everything is taken, and that changes.
        UV_CACHE_DIR=$dir/downloads "$dir/venv/bin/uv" pip install --python "$dir/venv/bin/python" \
            -r "$dir/requirements.txt" -c "$here/comfyui-constraints.txt"
        rm -rf "$dir/downloads"
    } >"$dir/install.log" 2>&1 || { tail -15 "$dir/install.log" >&2; fail "the installation failed"; }
    cp "$dir/requirements.txt" "$dir/installed"
}

make_checkpoints() {
    # All that the server reads and writes is here and not in the checkout, which may be somebody's own.
    mkdir -p "$home"/{custom_nodes,input,output,user,models/checkpoints} "$dir/home/models/checkpoints" "$dir/no-frontend"
    cp "$checkout/custom_nodes/websocket_image_save.py" "$home/custom_nodes"
    [ -f "$dir/home/models/checkpoints/tiny-sdxl.safetensors" ] && return
    note "making two tiny checkpoints (2 GB)"
    "$dir/venv/bin/python" "$here/tiny_checkpoint.py" "$checkout" "$dir/home/models/checkpoints" \
        >"$dir/checkpoints.log" 2>&1 ||
        { tail -15 "$dir/checkpoints.log" >&2; fail "the checkpoints could not be made"; }
}

make_families() {
    [ -n "${FAMILIES:-}" ] || return 0
    ln -f "$dir"/home/models/checkpoints/*.safetensors "$home/models/checkpoints"
    note "making what is not there of the families' weights (9 GB, two minutes; log: $dir/families.log)"
    "$dir/venv/bin/python" "$here/tiny_families_comfyui.py" "$checkout" "$home" >"$dir/families.log" 2>&1 ||
        { tail -15 "$dir/families.log" >&2; fail "the families' weights could not be made"; }
}

start() {
    running "$home" >/dev/null && answers && { echo "$url"; return; }
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "port $port is in use: set PORT"; fi
    get && install && make_checkpoints && make_families
    note "starting on $url (half a minute; log: $dir/server.log)"
    # One thread: torch's threads wait for each other on a busy machine, and images take five times as long.
    # No API nodes: they call paid services elsewhere.
    (cd "$checkout" && exec setsid nohup "$dir/venv/bin/python" main.py --cpu --listen 127.0.0.1 --port "$port" \
        --preview-method latent2rgb --base-directory "$home" --database-url sqlite:///:memory: \
        --front-end-root "$dir/no-frontend" --disable-api-nodes) >>"$dir/server.log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    for _ in $(seq 480); do
        answers && { echo "$url"; return; }
        sleep 0.5
        running >/dev/null || { tail -15 "$dir/server.log" >&2; fail "it ended while starting"; }
    done
    fail "no answer after four minutes"
}

stop() {
    local pid
    pid=$(running) || return 0
    kill -CONT "$pid"
    # Not INT: a shell's background process ignores it, and so does Python then.
    kill -TERM "$pid"
    for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.5; done
    kill -KILL "$pid"
}

export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=1
case "${1:-}" in
    start) start ;;
    stop) stop ;;
    pid) running ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
