#!/usr/bin/env bash
# A real InvokeAI on the CPU with two tiny models, kept in $LIVE_DIR (default ~/.cache/ada2-live).
#
#   invokeai.sh start    install (once), make the models (once), start, register the models (once)
#   invokeai.sh stop     stop the server that was started from this directory
#   invokeai.sh pid      print its process id
#
# PORT (9190), PYTHON (a Python 3.11 or 3.12), INVOKEAI_VERSION (6.14.2).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${LIVE_DIR:-$HOME/.cache/ada2-live}
port=${PORT:-9190}
version=${INVOKEAI_VERSION:-6.14.2}
url=http://127.0.0.1:$port
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

note() { echo "invokeai: $*" >&2; }
fail() { note "$*"; exit 1; }
answers() { curl --noproxy '*' -fsS -m 5 "$url/api/v1/app/version" 2>/dev/null | grep -q version; }

# The server's process id, if it is still that server: ids are used again.
running() {
    local pid
    pid=$(cat "$dir/pid" 2>/dev/null) && ps -o args= -p "$pid" 2>/dev/null | grep -qF -- "--root $dir/home" &&
        echo "$pid"
}

install() {
    local wanted python
    wanted="$version $(cksum <"$here/constraints.txt")"
    [ "$(cat "$dir/installed" 2>/dev/null)" = "$wanted" ] && return
    python=${PYTHON:-}
    for candidate in python3.11 python3.12 python3; do
        [ -n "$python" ] && break
        "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null &&
            python=$candidate
    done
    [ -n "$python" ] || fail "no Python 3.11 or 3.12 found: set PYTHON"
    note "installing InvokeAI $version into $dir (7 GB, a minute or two; log: $dir/install.log)"
    {
        "$python" -m venv "$dir/venv"
        "$dir/venv/bin/pip" install -q uv
        # The constraints were tried together; without them the newest of everything is taken, and that changes.
        UV_CACHE_DIR=$dir/downloads "$dir/venv/bin/uv" pip install --python "$dir/venv/bin/python" \
            "invokeai==$version" -c "$here/constraints.txt"
        rm -rf "$dir/downloads"
    } >"$dir/install.log" 2>&1 || { tail -15 "$dir/install.log" >&2; fail "the installation failed"; }
    echo "$wanted" >"$dir/installed"
}

make_models() {
    [ -f "$dir/models/tiny-sdxl/model_index.json" ] && return
    note "making two tiny models"
    "$dir/venv/bin/python" "$here/tiny_models.py" "$dir/models" >"$dir/models.log" 2>&1 ||
        { tail -15 "$dir/models.log" >&2; fail "the models could not be made"; }
}

start() {
    running >/dev/null && answers && return
    # InvokeAI silently takes the next port if its own is in use.
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "port $port is in use: set PORT"; fi
    mkdir -p "$dir/home"
    printf '%s\n' 'schema_version: 4.0.3' 'host: 127.0.0.1' "port: $port" 'device: cpu' 'precision: float32' \
        'log_format: plain' >"$dir/home/invokeai.yaml"
    note "starting on $url (half a minute; log: $dir/server.log)"
    # One thread: torch's threads wait for each other on a busy machine, and images take five times as long.
    (cd "$dir" && exec setsid nohup "$dir/venv/bin/invokeai-web" --root "$dir/home") \
        >>"$dir/server.log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    for _ in $(seq 480); do
        answers && return
        sleep 0.5
        running >/dev/null || { tail -15 "$dir/server.log" >&2; fail "it ended while starting"; }
    done
    fail "no answer after four minutes"
}

register() {
    "$dir/venv/bin/python" - "$url" "$dir/models" <<'PY'
import json, sys, time, urllib.parse, urllib.request
url, directory = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    return json.load(opener.open(request, timeout=60))

known = {model["name"] for model in ask("/api/v2/models/")["models"]}
for name in {"tiny-sd1", "tiny-sdxl"} - known:
    query = urllib.parse.urlencode({"source": f"{directory}/{name}", "inplace": "true"})
    job = ask(f"/api/v2/models/install?{query}", {"name": name})
    while job["status"] not in ("completed", "error", "cancelled"):
        time.sleep(0.5)
        job = ask(f"/api/v2/models/install/{job['id']}")
    if job["status"] != "completed":
        sys.exit(f"invokeai: {name} was not registered: {job.get('error')}")
PY
}

stop() {
    local pid
    pid=$(running) || return 0
    kill -CONT "$pid"
    kill -INT "$pid"
    for _ in $(seq 60); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.5; done
    kill -KILL "$pid"
}

export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=1
case "${1:-}" in
    start) install && make_models && start && register ;;
    stop) stop ;;
    pid) running ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
