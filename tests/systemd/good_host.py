"""A host that is as it should be: the service, its engine, its card, its files."""

import contextlib
import http.client
import json
import pathlib
import shutil
import sys

from guest import NVML, SOCKET, UNIT, card, configure, eventually, get, must, shown, systemctl

ENGINE = "invokeai.service"
LIKE = pathlib.Path("/opt/ada2-test/engine.json")
PROGRAM = pathlib.Path(shutil.which("ada2-sidecar"))
UNITS = pathlib.Path("/etc/systemd/system")
ENV = pathlib.Path("/etc/ada2-sidecar/env")
UUID = "GPU-6adaf00d-1234-5678-9abc-def012345678"
GOOD = f"engine: invokeai\nnvml_lib: {NVML}/libnvidia-ml.so.1\nmin_free_memory: 0\n"
ENGINE_UNIT = f"""[Unit]
Description=A stand-in engine
[Service]
ExecStart={sys.executable} -B /opt/ada2-test/engine.py
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""
HOSTS = pathlib.Path("/etc/hosts")


# Processes that hold something, and what takes back the rest.
HELD = []
UNDO = []


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def engine(**like):
    """What the engine is like from now on; by renaming, because a request may be reading it."""
    new = LIKE.with_suffix(".new")
    new.write_text(json.dumps(like))
    new.rename(LIKE)


def restart_engine():
    must("systemctl", "restart", ENGINE)
    port = json.loads(LIKE.read_text()).get("port", 9090)
    eventually("the engine listens", lambda: answers(port))


def answers(port):
    with contextlib.suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/api/v1/app/version")
        return connection.getresponse().status == 200
    return False


def restart():
    systemctl("restart", UNIT)


def fails():
    """Starts the service with what it cannot start with."""
    systemctl("restart", "--no-block", UNIT)
    eventually("it ended", lambda: shown(UNIT, "MainPID") == "0" and shown(UNIT, "ExecMainStatus") != "0")


def ready():
    eventually("ready", lambda: get("/readyz")[0] == 200)


def set_up():
    """A host that is as it should be."""
    write(UNITS / ENGINE, ENGINE_UNIT)
    pathlib.Path("/var/log/journal").mkdir(parents=True, exist_ok=True)
    host = must("hostname").strip()
    # The addresses of the hosts file that this machine has may be any.
    write(HOSTS, f"127.0.0.1 localhost\n127.0.1.1 {host}\n")
    must("systemctl", "daemon-reload")
    must("systemctl", "enable", "--quiet", ENGINE, UNIT, SOCKET)
    good()


def good():
    """Makes it so again."""
    for unit in (UNIT, SOCKET):
        shutil.rmtree(UNITS / f"{unit}.d", ignore_errors=True)
    ENV.unlink(missing_ok=True)
    card()
    configure(GOOD)
    must("systemctl", "daemon-reload")
    # A service that waits after a broken configuration is not waited for.
    systemctl("kill", "--signal=KILL", UNIT)
    systemctl("stop", UNIT, SOCKET)
    systemctl("reset-failed", UNIT, SOCKET)
    if not all(shown(unit, "UnitFileState") == "enabled" for unit in (ENGINE, UNIT, SOCKET)):
        must("systemctl", "enable", "--quiet", ENGINE, UNIT, SOCKET)
    if not LIKE.exists() or LIKE.read_text() != "{}" or shown(ENGINE, "ActiveState") != "active":
        engine()
        restart_engine()
    must("systemctl", "start", SOCKET, UNIT)
    ready()


def changed(text):
    """Another configuration, in force."""
    configure(GOOD + text)
    restart()


def refused(text):
    """Another configuration, which the service ends because of."""
    configure(GOOD + text)
    fails()
