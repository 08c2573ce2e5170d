"""Starts and stops what is tested: the sidecar, the gateway and, where it is ours, InvokeAI."""

import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from client import Server, wait_until

TOKEN = "live-test-token-0123456789"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Programs:
    def __init__(self):
        self.bin = Path(os.environ["BIN_DIR"])
        self.dir = Path(tempfile.mkdtemp(prefix="ada2-live-"))
        self.images = self.dir / "pictures"
        self.images.mkdir()
        self.running = {}
        self.kind = os.environ.get("ENGINE", "invokeai")
        self.engine = Server(os.environ.get("ENGINE_URL") or os.environ["INVOKEAI_URL"])
        self.sidecar = Server(f"http://127.0.0.1:{free_port()}")
        self.gateway = Server(f"https://127.0.0.1:{free_port()}", TOKEN, self.dir / "gateway/gateway-ca.pem")

    def start_sidecar(self):
        listen = self.sidecar.url.removeprefix("http://")
        self._start("ada2-sidecar", "--listen", listen, "--engine", self.kind, "--engine-url", self.engine.url, "--gpu", "optional",
                    "--state-dir", self.dir / "sidecar")

    def start_gateway(self):
        backends = {
            "local_mlx": {"class": "local_mlx", "base_url": f"http://127.0.0.1:{free_port()}/v1",
                          "supported_capabilities": ["chat", "embeddings"],
                          "concurrency_limits": {"chat": 2, "embeddings": 2}},
            "gpu_heavy": {"class": "gpu_heavy", "base_url": self.sidecar.url, "supported_capabilities": ["images"],
                          "concurrency_limits": {"images": 2},
                          "health": {"liveness": "/healthz", "readiness": "/readyz"},
                          "payload_policy": {"images_format": "url", "images_allow_base64": True}},
        }
        file = self.dir / "backends.yaml"  # JSON is YAML.
        file.write_text(json.dumps({"backends": backends}))
        self._start("gateway", GATEWAY_HOST="127.0.0.1", GATEWAY_PORT=self.gateway.url.rsplit(":", 1)[1],
                    GATEWAY_BEARER_TOKEN=TOKEN, GATEWAY_DATA_DIR=self.dir / "gateway",
                    UI_IMAGE_DIR=self.dir / "store", BACKENDS_CONFIG=file)

    def kill(self, name):
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def stop_all(self):
        """Ends both as a service manager would; gives the exit codes."""
        for process in self.running.values():
            process.terminate()
        codes = {}
        for name, process in self.running.items():
            try:
                codes[name] = process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = "killed after 40 s"
        return codes

    def log(self, name):
        return self.dir / f"{name}.log"

    def _start(self, name, *flags, **environment):
        environment = {**os.environ, **{key: str(value) for key, value in environment.items()}}
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen([self.bin / name, *map(str, flags)], env=environment,
                                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    # InvokeAI, where run.sh started it.

    @staticmethod
    def engine_signal(name):
        script = os.environ["INVOKEAI_SH"]
        pid = int(subprocess.run([script, "pid"], check=True, capture_output=True, text=True).stdout)
        os.kill(pid, getattr(signal, name))

    @staticmethod
    def start_engine():
        subprocess.run([os.environ["INVOKEAI_SH"], "start"], check=True)

    # What InvokeAI says of itself.

    def engine_item(self):
        """The item that runs, or None."""
        return (self.engine.get("/api/v1/queue/default/current").json or {}).get("item_id")

    def engine_idle(self):
        status = self.engine.get("/api/v1/queue/default/status").json
        waiting = status["queue"]["pending"] + status["queue"]["in_progress"]
        return waiting == 0 and not status["processor"]["is_processing"]

    def engine_status_of(self, item):
        return self.engine.get(f"/api/v1/queue/default/i/{item}").json["status"]

    def await_item(self, previous=None):
        """Waits until an item runs that is not the previous one."""
        wait_until(lambda: self.engine_item() not in (None, previous), 30)
        return self.engine_item()
