"""Chat, completions and embeddings as people use them: openai-python and openai-node → gateway → mlx_lm.server. One line for each check.
mlx_lm has no embeddings; a stand-in here gives them in the form of mlx-openai-server."""

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai

TOKEN = "live-test-token-0123456789"
ASK = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 12}
FLOATS = [0.5, -1.25, 3.0]


class Embeddings(BaseHTTPRequestHandler):
    """The stand-in. HTTP/1.0 as mlx_lm; no probe path of its own."""

    def do_GET(self):
        models = {"object": "list", "data": [{"id": "tiny-embedder", "object": "model"}]}
        self._say(models if self.path == "/v1/models" else None)

    def do_POST(self):
        ask = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        packed = base64.b64encode(struct.pack(f"<{len(FLOATS)}f", *FLOATS)).decode()
        vector = packed if ask.get("encoding_format") == "base64" else FLOATS
        texts = ask["input"] if isinstance(ask["input"], list) else [ask["input"]]
        data = [{"object": "embedding", "index": nth, "embedding": vector} for nth in range(len(texts))]
        self._say({"object": "list", "data": data, "model": ask["model"], "asked": ask.get("encoding_format"),
                   "usage": {"prompt_tokens": 1, "total_tokens": 1}})

    def _say(self, body):
        text = json.dumps(body or {"detail": "Not Found"}).encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Setting:
    """All that runs."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="ada2-chat-"))
        self.model = os.environ["MODEL"]
        self.stand_in = ThreadingHTTPServer(("127.0.0.1", 0), Embeddings)
        mlx, gateway, unused = free_ports(3)
        threading.Thread(target=self.stand_in.serve_forever, daemon=True).start()
        hub = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.dir / "hub")}
        server = Path(sys.executable).with_name("mlx_lm.server")
        self.running = [self._start([server, "--model", self.model, "--host", "127.0.0.1", "--port", mlx], hub)]
        speaks = {"supported_capabilities": ["chat"], "concurrency_limits": {"chat": 1}}
        backends = {
            # No health: the usual paths, which mlx_lm does not have.
            "local_mlx": {"base_url": f"http://127.0.0.1:{mlx}/v1", **speaks},
            "embedder": {"base_url": f"http://127.0.0.1:{self.stand_in.server_port}", "default_model": "tiny-embedder",
                         "supported_capabilities": ["embeddings"]},
            "gpu_heavy": {"base_url": f"http://127.0.0.1:{unused}", "supported_capabilities": ["images"]},
        }
        file = self.dir / "backends.yaml"  # JSON is YAML.
        file.write_text(json.dumps({"backends": backends, "legacy_mapping": {"mlx": "local_mlx"}}))
        aliases = {"tiny": {"backend": "mlx", "model": self.model}}
        settings = {"GATEWAY_TLS": "off", "GATEWAY_PORT": gateway, "GATEWAY_BEARER_TOKEN": TOKEN,
                    "GATEWAY_DATA_DIR": self.dir / "data", "UI_IMAGE_DIR": self.dir / "pictures",
                    "BACKENDS_CONFIG": file, "MODEL_ALIASES_JSON": json.dumps(aliases)}
        self.running.append(self._start([f"{os.environ['BIN_DIR']}/gateway", "--env-file", "/dev/null"], settings))
        client = {"api_key": TOKEN, "max_retries": 0, "timeout": 60}
        self.direct = openai.OpenAI(base_url=f"http://127.0.0.1:{mlx}/v1", **client)
        self.openai = openai.OpenAI(base_url=f"http://127.0.0.1:{gateway}/v1", **client)

    def _start(self, command, more):
        environment = {**os.environ, **{name: str(value) for name, value in more.items()}}
        name = Path(command[0]).name
        with (self.dir / f"{name}.log").open("wb") as log:
            return subprocess.Popen(list(map(str, command)), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def status(self):
        return self.openai.get("/gateway/status", cast_to=object)

    def stop(self):
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(40)


def free_ports(count):
    """All at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def until(look, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if look():
                return
        except openai.APIConnectionError:
            pass
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def text_of(stream):
    chunks = list(stream)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12, chunks[-1]
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def wrong_probes_are_named_and_do_not_gate(live):
    until(lambda: all(live.status()["backend_health"][name]["ready"] for name in ("local_mlx", "embedder")))
    health = live.status()["backend_health"]["local_mlx"]
    assert health["healthy"] and "wrong probe" in str(health["warnings"]), health


def a_stream_with_its_usage(live):
    ask = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    direct = text_of(live.direct.chat.completions.create(model=live.model, **ask))
    through = text_of(live.openai.chat.completions.create(model="tiny", **ask))
    assert direct == through, (direct, through)


def a_complete_response(live):
    direct = live.direct.chat.completions.create(model=live.model, **ASK)
    raw = live.openai.chat.completions.with_raw_response.create(model="tiny", **ASK)
    routing = [raw.headers.get(name) for name in ("x-backend-used", "x-model-used", "x-router-reason")]
    assert routing == ["local_mlx", live.model, "alias"] and raw.headers["x-request-id"], routing
    assert raw.parse().choices[0].message.content == direct.choices[0].message.content


def class_header_and_default(live):
    for model, headers, reason in (("mlx", {}, "model"), ("local_mlx", {"X-Backend": "mlx"}, "header:x-backend"),
                                   ("default_model", {}, "default")):
        raw = live.openai.chat.completions.with_raw_response.create(model=model, extra_headers=headers, **ASK)
        routing = raw.headers["x-backend-used"], raw.headers["x-router-reason"]
        assert routing == ("local_mlx", reason) and raw.parse().choices, routing


def a_completion(live):
    answer = live.openai.completions.create(model="tiny", prompt="hi", max_tokens=3, temperature=0)
    assert answer.usage.completion_tokens == 3 and answer.choices[0].text, answer


def embeddings_as_base64_and_as_floats(live):
    answer = live.openai.embeddings.create(model="tiny-embedder", input=["a", "b"])
    assert answer.asked == "base64", "the library's own default"
    assert [one.embedding for one in answer.data] == [FLOATS, FLOATS], answer
    answer = live.openai.embeddings.create(model="embedder", input="a", encoding_format="float")
    assert (answer.data[0].embedding, answer.model) == (FLOATS, "tiny-embedder"), answer


def the_same_from_node(live):
    script = Path(__file__).with_name("chat_node.mjs")
    command = ["node", script, os.environ["NODE_MODULES"], str(live.openai.base_url), TOKEN]
    results = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    ask = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    direct = text_of(live.direct.chat.completions.create(model=live.model, **ask))
    assert results == {"text": direct, "tokens": 12, "vectors": [FLOATS, FLOATS]}, results


def the_list_of_models(live):
    models = {model.id: model.owned_by for model in live.openai.models.list()}
    assert models == {"tiny": "local_mlx", "tiny-embedder": "embedder"}, models


def refusals(live):
    try:
        live.openai.chat.completions.create(model="no/such-model", **ASK)
        raise AssertionError("not refused")
    except openai.NotFoundError as error:
        assert error.code == "backend_error" and "Cannot find" in error.message, error
    try:
        live.openai.embeddings.create(model="tiny", input="a")
        raise AssertionError("not refused")
    except openai.BadRequestError as error:
        assert error.code == "capability_not_supported", error


def a_client_that_disconnects(live):
    slots = lambda: live.status()["admission_control"]["local_mlx.chat"]
    # The last token of the vocabulary is the one that ends an answer.
    endless = {**ASK, "max_tokens": 100_000, "stream": True, "logit_bias": {"256": -100}}
    stream = live.openai.chat.completions.create(model="tiny", **endless)
    next(stream)
    assert slots()["inflight"] == 1, slots()
    try:
        live.openai.chat.completions.create(model="tiny", **ASK)
        raise AssertionError("not refused")
    except openai.RateLimitError as error:
        assert error.code == "backend_overloaded" and error.response.headers["retry-after"] == "5", error
    stream.close()
    until(lambda: slots()["inflight"] == 0, 5)
    assert live.openai.chat.completions.create(model="tiny", **ASK).choices


def a_server_that_is_killed_in_a_stream(live):
    """The last step: nobody starts it again. mlx_lm's streams end with their connection, as the kernel closes it here."""
    endless = {**ASK, "max_tokens": 100_000, "stream": True, "logit_bias": {"256": -100}}
    stream = live.openai.chat.completions.create(model="tiny", **endless)
    next(stream)
    live.running[0].kill()
    try:
        for _ in stream:
            pass
        raise AssertionError("it looked finished")
    except openai.APIConnectionError:
        pass
    try:
        live.openai.chat.completions.create(model="tiny", **ASK)
        raise AssertionError("not refused")
    except openai.InternalServerError as error:
        assert (error.status_code, error.code) == (503, "backend_not_ready"), error


STEPS = [wrong_probes_are_named_and_do_not_gate, a_stream_with_its_usage, a_complete_response, class_header_and_default,
         a_completion, embeddings_as_base64_and_as_floats, the_same_from_node, the_list_of_models, refusals, a_client_that_disconnects,
         a_server_that_is_killed_in_a_stream]


def main(names):
    live, failed = Setting(), 0
    try:
        for step in STEPS[:1] + [step for step in STEPS[1:] if not names or step.__name__ in names]:
            begun = time.monotonic()
            try:
                step(live)
                print(f"ok    {step.__name__} ({time.monotonic() - begun:.1f} s)", flush=True)
            except Exception as error:  # Whatever it is, the other steps go on.
                failed += 1
                print(f"FAIL  {step.__name__}: {type(error).__name__}: {error}", flush=True)
    finally:
        live.stop()
    print(f"{failed} failed; logs: {live.dir}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
