"""Open WebUI as a household runs it: both programs, Open WebUI's own server and its own routes. Prints a line for each
check; exit code 0 or 1. Needs no network: nothing is downloaded, no model but the gateway's."""

import base64
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import certifi
from PIL import Image

BIN = pathlib.Path(os.environ["BIN_DIR"]).resolve()
TOKEN = "open-webui-test-token-0123456789"
BACKENDS = """backends:
  gpu_heavy:
    base_url: {url}
    supported_capabilities: [images]
    concurrency_limits: {{images: 2}}
    health: {{liveness: /healthz, readiness: /readyz}}
"""

running, failed = [], 0


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(directory, name, command, **environment):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "ADA2_", "IMAGES_"))}
    log = open(directory / f"{name}.log", "wb")
    running.append(subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd=directory,
                                    env={**keep, **{k: str(v) for k, v in environment.items()}}))


def call(url, body=None, token=None, timeout=60):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data, headers), timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def until(what, seconds, probe):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process in running:
            if process.poll() is not None:
                raise SystemExit(f"open-webui: {process.args[0]} ended with {process.returncode}")
        try:
            found = probe()
            if found:
                return found
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"open-webui: no {what} within {seconds} s")


def check(name, right, seen=""):
    global failed
    failed += not right
    print(f"{'ok  ' if right else 'FAIL'}  {name}{'' if right else f': {seen}'}", flush=True)


def main(directory):
    sidecar, gateway, webui = (free_port() for _ in range(3))
    start(directory, "sidecar", [BIN / "ada2-sidecar", "--engine", "builtin", "--gpu", "optional", "--listen",
                              f"127.0.0.1:{sidecar}", "--state-dir", directory / "sidecar", "--min-free-memory", "0"])
    backends = directory / "backends_config.yaml"
    backends.write_text(BACKENDS.format(url=f"http://127.0.0.1:{sidecar}"))
    data = directory / "gateway"
    start(directory, "gateway", [BIN / "gateway", "--env-file", "/dev/null", "--backends", backends],
          GATEWAY_PORT=gateway, GATEWAY_BEARER_TOKEN=TOKEN, GATEWAY_DATA_DIR=data, UI_IMAGE_DIR=data / "ui_images")
    authority = data / "gateway-ca.pem"
    until("authority of the gateway", 15, authority.exists)

    # As the gateway's GUIDE.md says: SSL_CERT_FILE takes the place of the public authorities, so both go into one file.
    bundle = directory / "trusted.pem"
    bundle.write_bytes(pathlib.Path(certifi.where()).read_bytes() + authority.read_bytes())
    (directory / "webui").mkdir()
    api = f"https://localhost:{gateway}/v1"
    start(directory, "open-webui", [pathlib.Path(sys.executable).with_name("open-webui"), "serve", "--host",
                                 "127.0.0.1", "--port", webui],
          SSL_CERT_FILE=bundle, REQUESTS_CA_BUNDLE=bundle, DATA_DIR=directory / "webui",
          WEBUI_SECRET_KEY="for this run", WEBUI_AUTH="true", OFFLINE_MODE="true", HF_HUB_OFFLINE="1",
          RAG_EMBEDDING_ENGINE="openai", RAG_EMBEDDING_MODEL_AUTO_UPDATE="false", ENABLE_OLLAMA_API="false",
          ENABLE_VERSION_UPDATE_CHECK="false", ENABLE_IMAGE_PROMPT_GENERATION="false",
          OPENAI_API_BASE_URL=api, OPENAI_API_KEY=TOKEN,
          ENABLE_IMAGE_GENERATION="true", IMAGE_GENERATION_ENGINE="openai", IMAGE_GENERATION_MODEL="sd-xl-base-1.0",
          IMAGES_OPENAI_API_BASE_URL=api, IMAGES_OPENAI_API_KEY=TOKEN, IMAGE_SIZE="512x512",
          ENABLE_IMAGE_EDIT="true", IMAGE_EDIT_ENGINE="openai", IMAGE_EDIT_MODEL="sd-xl-base-1.0",
          IMAGES_EDIT_OPENAI_API_BASE_URL=api, IMAGES_EDIT_OPENAI_API_KEY=TOKEN)
    base = f"http://127.0.0.1:{webui}"
    until("Open WebUI", 180, lambda: call(f"{base}/health", timeout=5)[0] == 200)
    person = {"name": "A", "email": "a@example.com", "password": "A long enough passw0rd!"}
    status, answer = call(f"{base}/api/v1/auths/signup", person)
    check("signed up", status == 200, answer[:300])
    token = json.loads(answer)["token"]

    status, answer = call(f"{base}/openai/models", token=token)
    names = [model["id"] for model in json.loads(answer).get("data", [])] if status == 200 else []
    check("its list of models has the gateway's", "sd-xl-base-1.0" in names, f"{status} {answer[:300]}")

    def fetch_image(url):
        status, content = call(base + url, token=token)
        return Image.open(io.BytesIO(content)) if status == 200 else None

    status, answer = call(f"{base}/api/v1/images/generations", {"prompt": "a lighthouse"}, token)
    made = json.loads(answer) if status == 200 else []
    shown = fetch_image(made[0]["url"]) if made else None
    check("an image of 512x512 from its own route", shown is not None and shown.size == (512, 512), answer[:400])

    two = {"prompt": "a boat", "n": 2, "size": "256x320"}
    status, answer = call(f"{base}/api/v1/images/generations", two, token)
    sizes = [fetch_image(one["url"]).size for one in json.loads(answer)] if status == 200 else answer[:400]
    check("two of 256x320", sizes == [(256, 320)] * 2, sizes)

    source = io.BytesIO()
    Image.new("RGB", (448, 640), (30, 90, 160)).save(source, "PNG")
    address = "data:image/png;base64," + base64.b64encode(source.getvalue()).decode()
    for name, image in (("one image", address), ("a list of one image", [address]), ("a list of two images", [address] * 2)):
        status, answer = call(f"{base}/api/v1/images/edit", {"image": image, "prompt": "at night"}, token)
        sizes = [fetch_image(one["url"]).size for one in json.loads(answer)] if status == 200 else answer[:400]
        check(f"an edit of {name} has its size", sizes == [(448, 640)], sizes)

    wrong = {"prompt": "a boat", "size": "333x333"}
    status, answer = call(f"{base}/api/v1/images/generations", wrong, token)
    check("a size that cannot be is an error, not an image", status == 400, f"{status} {answer[:400]}")


directory = pathlib.Path(tempfile.mkdtemp(prefix="ada2-open-webui-"))
try:
    main(directory)
finally:
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
if failed:
    print(f"{failed} failed; logs in {directory}")
    sys.exit(1)
shutil.rmtree(directory, ignore_errors=True)
print("all passed")
