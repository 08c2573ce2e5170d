"""A pair of both programs with its engine, its card, its chat server and the relays between them, each a process or a server
of its own, in a folder of its own."""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import time

from client import certificate
from relay import Relay
from stand_ins import ChatServer

TOKEN = "chaos-owner-token-0123456789abcdef"
SIDECAR_TOKEN = "chaos-sidecar-token-0123456789abcdef"
STORE_BYTES = 96 << 20
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
HOUR = 3600
# The number of the certificate that is out of date.
EXPIRED = 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def replace(file, text):
    """By renaming, since it may be read meanwhile."""
    new = file.with_name(file.name + ".new")
    new.write_text(text)
    new.rename(file)


class Program:
    """One process. `ended` collects how it ended where nobody had ended it."""

    def __init__(self, name, log):
        self.name, self.log, self.process, self.logged = name, log, None, 0
        self.command, self.env = [], {}
        self.baseline = None

    def start(self):
        with open(self.log, "ab") as log:
            own = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **self.env}
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own)
        self.baseline = None

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def signal(self, which):
        if self.alive():
            self.process.send_signal(which)

    def catches(self, which):
        """Whether it handles this signal already: between its first instruction and that, a signal ends it."""
        with open(f"/proc/{self.pid}/status") as status:
            caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (which - 1) & 1)

    async def reload(self):
        async def reloadable():
            return not self.alive() or self.catches(signal.SIGHUP)

        await until(reloadable, 10)
        self.signal(signal.SIGHUP)

    async def end(self, which, seconds=30):
        """Its exit code; None if it did not end in time."""
        self.signal(which)
        self.signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return await asyncio.to_thread(self.process.wait, seconds)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def limit_descriptors(self, more):
        """So many more than it has; None lifts the limit."""
        hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)[1]
        soft = hard if more is None else self.descriptors() + more
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (min(soft, hard), hard))

    def footprint(self):
        """Descriptors, threads and resident MiB."""
        with open(f"/proc/{self.pid}/status") as status:
            lines = dict(line.split(":", 1) for line in status)
        return self.descriptors(), int(lines["Threads"]), int(lines["VmRSS"].split()[0]) >> 10

    def new_lines(self):
        """What it has logged since this was asked last; an unfinished line waits."""
        with open(self.log, "rb") as log:
            log.seek(self.logged)
            content = log.read()
        whole = content.rfind(b"\n") + 1
        self.logged += whole
        return content[:whole].decode("utf-8", "replace").splitlines()


class Engine(Program):
    """The fake InvokeAI, told what to do through its standard input."""

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        return json.loads(self.process.stdout.readline())

    async def tell(self, command):
        """Its answer; None if there is no process that could give one."""
        with contextlib.suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(5):
                return await asyncio.to_thread(self.ask, command)
        return None


class Card:
    """The fake NVML library and its scenario: what several faults make of one card."""

    def __init__(self, folder, library):
        self.folder, self.library = folder, folder / "libnvidia-ml.so.1"
        folder.mkdir()
        shutil.copy(library, self.library)
        self.xids = []
        self.set()

    def set(self, gpu=None, **machine):
        replace(self.folder / "scenario.json", json.dumps({**machine, "gpus": [{"xids": self.xids, **(gpu or {})}]}))

    def xid(self, code):
        self.xids.append({"sequence": len(self.xids) + 1, "xid": code})
        self.set()


class Pair:
    def __init__(self, folder, binaries, engine):
        self.folder, self.binaries = folder, binaries
        self.ports = {name: free_port() for name in ("gateway", "sidecar", "engine", "upstream", "engine_relay", "chat")}
        self.disk = folder / "disk"
        self.store = self.disk / "pictures"
        self.faketime = False
        self.mounted = False
        self.stopped, self.violations = set(), []  # what does not answer as usual, by intent; what broke
        self.card = Card(folder / "card", binaries / "libfake_nvml.so")
        self.gateway = Program("gateway", folder / "gateway.log")
        self.sidecar = Program("sidecar", folder / "sidecar.log")
        self.engine = Engine("engine", folder / "engine.log")
        self.engine.command = [engine, "--port", str(self.ports["engine"]), "--item-ms", "60", "--control"]
        here = "127.0.0.1"
        self.relays = {
            "upstream": Relay(self.ports["upstream"], (here, self.ports["sidecar"])),
            "engine": Relay(self.ports["engine_relay"], (here, self.ports["engine"])),
        }
        self.chat = ChatServer(self.ports["chat"])
        self.gateway_address, self.sidecar_address = (here, self.ports["gateway"]), (here, self.ports["sidecar"])

    async def start(self):
        self.disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={STORE_BYTES},nr_inodes=2000", "chaos", str(self.disk)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0
        self.store.mkdir()
        for number in (0, 1, EXPIRED):
            self.make_certificate(number)
        self.use_certificate(0)
        self.write_settings()
        self.clock(0)
        for server in (*self.relays.values(), self.chat):
            await server.start()
        self.engine.start()
        self.start_programs()

    def make_certificate(self, number):
        # Ten days ago by libfaketime, where there is one; else it is just another certificate.
        past = {"LD_PRELOAD": FAKETIME, "FAKETIME": "-10d"} if number == EXPIRED and os.path.exists(FAKETIME) else {}
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN=chaos-{number}", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", str(self.folder / f"key-{number}.pem"), "-out", str(self.folder / f"certificate-{number}.pem")],
            check=True, stderr=subprocess.DEVNULL, env={**os.environ, **past})

    def use_certificate(self, number, key=None):
        for what, one in (("key", number if key is None else key), ("certificate", number)):
            replace(self.folder / f"{what}.pem", (self.folder / f"{what}-{one}.pem").read_text())
            (self.folder / f"{what}.pem").chmod(0o600)

    async def listens(self, name):
        async def connected():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.ports[name])
            except OSError:
                return False
            writer.transport.abort()
            return True

        await until(connected, 10)

    async def shows_certificate(self, number):
        try:
            shown = await certificate(self.gateway_address)
        except (OSError, TimeoutError):
            return False
        return shown == ssl.PEM_cert_to_DER_cert((self.folder / f"certificate-{number}.pem").read_text())

    def write_settings(self, sidecar=None, backends=None, upstream="127.0.0.1"):
        replace(self.folder / "sidecar.yaml", sidecar or "max_inflight: 4\n")
        replace(self.folder / "backends.yaml", backends or json.dumps({"backends": {
            "gpu_heavy": {
                "base_url": f"http://{upstream}:{self.ports['upstream']}", "supported_capabilities": ["images"],
                "concurrency_limits": {"images": 3}, "auth": {"bearer_env": "CHAOS_SIDECAR_TOKEN"},
                "health": {"liveness": "/healthz", "readiness": "/readyz"}},
            "local_mlx": {
                "base_url": f"http://127.0.0.1:{self.ports['chat']}/v1", "supported_capabilities": ["chat"],
                "concurrency_limits": {"chat": 4}, "health": {"liveness": "/health", "readiness": "/health"}},
        }}))

    def clock(self, seconds):
        replace(self.folder / "clock", f"{seconds:+d}\n")

    def start_programs(self):
        self.start_sidecar()
        self.start_gateway()

    def common_env(self):
        env = {"RUST_BACKTRACE": "1"}
        if self.faketime:
            env |= {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"), "FAKETIME_NO_CACHE": "1",
                    "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        return env

    def start_sidecar(self):
        self.sidecar.env = {**self.common_env(), "ADA2_TOKEN": SIDECAR_TOKEN}
        self.sidecar.command = [
            self.binaries / "ada2-sidecar", "--config", self.folder / "sidecar.yaml", "--engine", "invokeai",
            "--listen", f"127.0.0.1:{self.ports['sidecar']}", "--engine-url", f"http://127.0.0.1:{self.ports['engine_relay']}",
            "--nvml-lib", self.card.library, "--state-dir", self.folder / "state", "--log-format", "json",
            "--request-timeout", "8s", "--shutdown-grace", "4s", "--min-free-memory", "0", "--min-free-disk", "0"]
        self.sidecar.start()

    def start_gateway(self):
        folder = self.folder
        self.gateway.env = {**self.common_env(), "GATEWAY_BEARER_TOKENS": f"owner={TOKEN}",
                            "CHAOS_SIDECAR_TOKEN": SIDECAR_TOKEN}
        self.gateway.command = [
            self.binaries / "gateway", "--env-file", "/dev/null", "--backends", folder / "backends.yaml",
            "--gateway-port", str(self.ports["gateway"]), "--gateway-tls-cert-path", folder / "certificate.pem",
            "--gateway-tls-key-path", folder / "key.pem", "--ui-image-dir", self.store, "--gateway-data-dir", folder / "data",
            "--gateway-log-format", "json", "--images-http-timeout-sec", "10", "--gateway-shutdown-grace", "4s",
            "--health-check-interval-sec", "1", "--health-check-timeout-sec", "2"]
        self.gateway.start()

    async def stop(self):
        for program in (self.gateway, self.sidecar, self.engine):
            if program.process:
                await program.end(signal.SIGKILL)
        for server in (*self.relays.values(), self.chat):
            server.stop()
        self.unmount()

    def unmount(self):
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)
            self.mounted = False


async def until(holds, seconds):
    """Seconds that it took; None if it does not hold in that time."""
    began = time.monotonic()
    while not await holds():
        if time.monotonic() > began + seconds:
            return None
        await asyncio.sleep(0.1)
    return time.monotonic() - began
