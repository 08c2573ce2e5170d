"""What the drills start and stop: sidecars with a fake card, a gateway, stand-in servers, and HAProxy in front."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "ada2-sidecar/docs/haproxy/haproxy.cfg"
HOSTS = ["g1", "g2", "g3"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, timeout=5):
    with contextlib.suppress(OSError):
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    return 0, ""


async def until(what, holds, seconds=20):
    """Waits until it holds; that long at most."""
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        if time.monotonic() > end:
            raise SystemExit(f"gave up after {seconds} s waiting for {what}")
        await asyncio.sleep(0.05)


class Program:
    def __init__(self, directory, name):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.name, self.process = directory, name, None
        self.log = directory / f"{name}.log"

    def spawn(self, *command, **more):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, **more)

    async def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            await asyncio.to_thread(self.process.wait, 60)


class Sidecar(Program):
    """A sidecar with the builtin engine and a card that can be lost."""

    def __init__(self, name, directory, programs, fake_nvml):
        super().__init__(directory / name, name)
        self.port, self.programs, self.socket = free_port(), programs, None
        self.library = self.directory / "libnvidia-ml.so.1"
        shutil.copy(fake_nvml, self.library)
        self.card(lost=False)

    def card(self, lost):
        """By renaming: the fake library may be reading the file."""
        new = self.directory / "scenario.new"
        new.write_text(json.dumps({"gpus": [{"lost": lost}]}))
        new.rename(self.directory / "scenario.json")

    def hold_socket(self):
        """Keeps the listening socket in this process, as systemd does with ada2-sidecar.socket."""
        self.socket = socket.create_server(("127.0.0.1", self.port), backlog=1024)

    def start(self):
        command = [self.programs / "ada2-sidecar", "--engine", "builtin", "--gpu", "required",
                   "--nvml-lib", self.library, "--state-dir", self.directory / "state", "--log-format", "json",
                   "--trusted-proxies", "127.0.0.1/32", "--min-free-memory", "0"]
        if self.socket is None:
            self.spawn(*command, "--listen", f"127.0.0.1:{self.port}")
            return
        # systemd hands sockets over from descriptor 3 on, to the process whose id is in LISTEN_PID.
        held = self.socket.fileno()
        hand_over = f'exec 3<&{held}; [ {held} = 3 ] || exec {held}<&-; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
        self.spawn("bash", "-c", hand_over, "bash", *command, pass_fds=[held])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ready(self):
        return get(f"{self.url}/readyz")[0] == 200

    def metric(self, series):
        found = re.search(rf"^{re.escape(series)} (\S+)$", get(f"{self.url}/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def requests(self):
        """The lines of its log that are about a request: what happened, and its fields."""
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if "request_id" in entry:
                    yield entry


class Gateway(Program):
    def __init__(self, directory, programs, backend):
        super().__init__(directory / "gateway", "gateway")
        self.port, self.token = free_port(), "haproxy-drill-token-0123456789"
        file = self.directory / "backends.yaml"  # JSON is YAML.
        file.write_text(json.dumps({"backends": {"gpu_heavy": {
            "class": "gpu_heavy", "base_url": backend, "supported_capabilities": ["images"],
            "concurrency_limits": {"images": 12}, "health": {"liveness": "/healthz", "readiness": "/readyz"},
        }}}))
        self.spawn(programs / "gateway", "--env-file", "/dev/null", "--backends", file, "--gateway-tls", "off",
                   "--gateway-port", self.port, "--ui-image-dir", self.directory / "pictures",
                   "--gateway-data-dir", self.directory / "data",
                   env={**os.environ, "GATEWAY_BEARER_TOKEN": self.token})

    def ready(self):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/gateway/status",
                                         headers={"Authorization": f"Bearer {self.token}"})
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)["backend_health"]["gpu_heavy"]["ready"]
        return False


class HAProxy(Program):
    """The documented example: only addresses, ports and the names of sockets are replaced."""

    def __init__(self, directory, ports):
        super().__init__(directory, "haproxy")
        self.port, self.page_port, self.admin = free_port(), free_port(), directory / "admin.sock"
        text = EXAMPLE.read_text()
        for number, port in enumerate(ports, 1):
            text = text.replace(f"192.0.2.{number}:7860", f"127.0.0.1:{port}")
        text = text.replace("bind 127.0.0.1:7860", f"bind 127.0.0.1:{self.port}")
        text = text.replace("bind 127.0.0.1:7861", f"bind 127.0.0.1:{self.page_port}")
        text = text.replace("/run/haproxy/admin.sock", str(self.admin)).replace("abns@", f"abns@{self.port}-")
        self.file = directory / "haproxy.cfg"
        self.file.write_text(text)
        subprocess.run(["haproxy", "-q", "-c", "-f", str(self.file)], check=True)
        self.spawn("haproxy", "-db", "-f", self.file)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, command):
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.admin))
            admin.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode()

    def server(self, name):
        """Its line in `show stat`, by column."""
        lines = self.ask("show stat").splitlines()
        columns = lines[0].lstrip("# ").split(",")
        rows = (dict(zip(columns, line.split(","))) for line in lines[1:] if line)
        return next(row for row in rows if row["pxname"] == "cards" and row["svname"] == name)

    def up(self):
        with contextlib.suppress(OSError):
            return all(self.server(name)["status"] == "UP" for name in HOSTS)
        return False

    def repeats(self):
        rows = [self.server(name) for name in HOSTS]
        return sum(int(row["wretr"]) for row in rows)
