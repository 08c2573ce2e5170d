"""Starts and stops what is tested: a sidecar with the builtin engine and a gateway in front of it."""

import json
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

TOKEN = "clients-test-token-0123456789"
SIDECAR_TOKEN = "sidecar-test-token-0123456789"
# Image requests at once, of both programs.
SLOTS = 2
TLS = os.environ.get("GATEWAY_TLS", "on") != "off"

# `slow` takes three seconds, `quick` a tenth; every client can ask for them: by their names.
PRESETS = {"slow": {"model": "sd-xl-base-1.0", "steps": 150}, "quick": {"model": "sd-xl-base-1.0", "steps": 1}}


class Server:
    """One of the two programs, as a client sees it."""

    def __init__(self, name, url, token, counter, certificate=None):
        self.name, self.url, self.token = name, url, token
        self.counter, self.certificate = counter, certificate

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        context = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                             urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def image_requests(self):
        """Requests for images that it answered, by its own count."""
        line = re.compile(rf'^{self.counter}{{.*route="/v1/images/.*}} (\d+)', re.MULTILINE)
        return sum(map(int, line.findall(self.get("/metrics")[1])))


class Pair:
    """A gateway and its sidecar; `healthy` or for ever not ready."""

    def __init__(self, directory, healthy, certificate):
        """The certificate's directory is the gateway's own, or that of another one, whose certificate it shares."""
        self.dir, self.healthy, self.running = directory, healthy, {}
        self.pair = [certificate / "gateway-cert.pem", certificate / "gateway-key.pem"]
        self.authority = certificate / "gateway-ca.pem"
        directory.mkdir(parents=True)
        scheme = "https" if TLS else "http"
        self.sidecar = Server("sidecar", f"http://127.0.0.1:{free_port()}", SIDECAR_TOKEN,
                              "ada2_sidecar_requests_total")
        self.gateway = Server("gateway", f"{scheme}://127.0.0.1:{free_port()}", TOKEN,
                              "gateway_requests_total", self.authority if TLS else None)

    def start(self):
        config = self.dir / "sidecar.yaml"  # JSON is YAML.
        config.write_text(json.dumps({"presets": PRESETS}))
        flags = [] if self.healthy else ["--default-model", "a-model-that-nobody-has"]
        self._start("ada2-sidecar", "--config", config, "--engine", "builtin", "--gpu", "optional",
                    "--listen", self.sidecar.url.removeprefix("http://"), "--token", SIDECAR_TOKEN,
                    "--max-inflight", SLOTS, "--min-free-memory", 0, "--state-dir", self.dir / "sidecar", *flags)
        backends = {"gpu_heavy": {
            "class": "gpu_heavy", "base_url": self.sidecar.url, "supported_capabilities": ["images"],
            "concurrency_limits": {"images": SLOTS}, "auth": {"bearer_env": "SIDECAR_TOKEN"},
            "health": {"liveness": "/healthz", "readiness": "/readyz"},
            "payload_policy": {"images_format": "url", "images_allow_base64": True},
        }}
        file = self.dir / "backends_config.yaml"
        file.write_text(json.dumps({"backends": backends}))
        shared = {}
        if TLS and self.pair[0].exists():
            shared = {"GATEWAY_TLS_CERT_PATH": self.pair[0], "GATEWAY_TLS_KEY_PATH": self.pair[1]}
        self._start("gateway", "--env-file", "/dev/null", SIDECAR_TOKEN=SIDECAR_TOKEN, GATEWAY_BEARER_TOKEN=TOKEN,
                    GATEWAY_HOST="127.0.0.1", GATEWAY_PORT=self.gateway.url.rsplit(":", 1)[1],
                    GATEWAY_TLS="on" if TLS else "off", GATEWAY_DATA_DIR=self.dir / "gateway",
                    UI_IMAGE_DIR=self.dir / "store", BACKENDS_CONFIG=file, PUBLIC_BASE_URL=self.gateway.url,
                    **shared)
        self._wait()

    def stop(self):
        """As a service manager would."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, name, *flags, **environment):
        environment = {**os.environ, **{key: str(value) for key, value in environment.items()}}
        with (self.dir / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen([f"{os.environ['BIN_DIR']}/{name}", *map(str, flags)],
                                                  env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _wait(self):
        """Until the gateway knows how its backend is."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended with {process.returncode}: {self.dir / name}.log")
            try:
                health = json.loads(self.gateway.get("/v1/gateway/status")[1])["backend_health"]["gpu_heavy"]
                ready = self.sidecar.get("/readyz")[0] == 200
                if health["last_check"] and health["ready"] == ready == self.healthy:
                    return
            except (OSError, KeyError, ValueError):
                pass
            time.sleep(0.1)
        raise SystemExit(f"not as expected after 30 s: the logs are in {self.dir}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
