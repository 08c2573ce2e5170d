"""The machine that the checks run in: its services, its fake card, its clients."""

import http.client
import json
import os
import pathlib
import subprocess
import threading
import time

UNIT = "ada2-sidecar.service"
SOCKET = "ada2-sidecar.socket"
CONFIG = pathlib.Path("/etc/ada2-sidecar/config.yaml")
DROP_INS = pathlib.Path("/etc/systemd/system")
NVML = pathlib.Path("/opt/ada2-test/nvml")
PORT = 7860
GOOD = f"engine: builtin\nnvml_lib: {NVML}/libnvidia-ml.so.1\nmin_free_memory: 0\nmax_swap_used: 100\n"


def run(*command, timeout=60):
    """Exit code and everything that was printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    return done.returncode, done.stdout


def systemctl(*arguments):
    return run("systemctl", *arguments)


def must(*command):
    code, text = run(*command)
    assert code == 0, f"{' '.join(command)}: {code}: {text}"
    return text


def shown(unit, name):
    return must("systemctl", "show", "--value", f"--property={name}", unit).strip()


def journal(unit, since):
    """What the unit and systemd said of it. `since` is of `now`."""
    must("journalctl", "--sync")
    return must("journalctl", "--no-pager", "-o", "cat", "-u", unit, "--since", since)


def now():
    return f"@{time.time():.6f}"


def configure(text):
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(text)
    CONFIG.chmod(0o644)


def drop_in(unit, text):
    """Replaces ours; none where the text is empty."""
    file = DROP_INS / f"{unit}.d" / "test.conf"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    must("systemctl", "daemon-reload")


def card(**scenario):
    """What the fake card is like from now on; by renaming, because a call may be reading it."""
    new = NVML / "scenario.new"
    new.write_text(json.dumps(scenario))
    new.rename(NVML / "scenario.json")


def get(path, port=PORT, timeout=20, body=None):
    """One request on a connection of its own: status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def generate(timeout=20):
    return get("/v1/images/generations", timeout=timeout, body={"prompt": "a", "size": "64x64", "steps": 1})


def eventually(what, ask, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        found = ask()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def well():
    """Starts everything anew as it should be."""
    for unit in (UNIT, SOCKET):
        drop_in(unit, "")
    card()
    configure(GOOD)
    systemctl("stop", UNIT, SOCKET)
    systemctl("reset-failed", UNIT, SOCKET)
    must("systemctl", "start", SOCKET, UNIT)
    eventually("ready", lambda: get("/readyz")[0] == 200)


def opened_in_unit(path):
    """What a process in the service's control group gets when it opens this device: an errno, or 0."""
    group = pathlib.Path("/sys/fs/cgroup") / shown(UNIT, "ControlGroup").lstrip("/")
    child = os.fork()
    if child == 0:
        code = 255
        try:
            (group / "cgroup.procs").write_text(str(os.getpid()))
            os.close(os.open(path, os.O_RDWR))
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Client:
    """Somebody who asks for the health and waits, beside the check."""

    def __init__(self):
        self.got = None
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self):
        try:
            self.got = get("/healthz", timeout=60)[0]
        except OSError as error:
            self.got = repr(error)

    def answer(self):
        """The status, or why there is none."""
        self.thread.join()
        return self.got


class Load:
    """Clients that request images, each request on a new connection, until they are told to stop."""

    def __init__(self, clients):
        self.failed, self.times, self.over = [], [], threading.Event()
        self.threads = [threading.Thread(target=self.send_requests) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def send_requests(self):
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                status, text = generate()
                if status != 200:
                    self.failed.append(f"{status} {text[:200]}")
            except OSError as error:
                self.failed.append(repr(error))
            self.times.append(time.monotonic() - begun)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


class Traffic:
    """Clients of all sorts, until they are told to stop: 8 that connect anew for each request, two of which request
    images, and 4 that keep their connection."""

    def __init__(self):
        # `lost` are requests that were on their way on a kept connection when the server closed it.
        self.failed, self.answered, self.lost, self.over = [], 0, 0, threading.Event()
        version = "/api/v1/app/version"
        work = [lambda: get(version)] * 3 + [lambda: get("/healthz")] * 3 + [generate] * 2
        self.threads = [threading.Thread(target=self.reconnect, args=[ask]) for ask in work]
        self.threads += [threading.Thread(target=self.keep, args=[path]) for path in [version, "/healthz"] * 2]
        for thread in self.threads:
            thread.start()

    def count(self, status, text):
        self.answered += 1
        if status != 200:
            self.failed.append(f"{status} {text[:200]}")

    def reconnect(self, ask):
        while not self.over.is_set():
            try:
                self.count(*ask())
            except OSError as error:
                self.failed.append(repr(error))

    def keep(self, path):
        connection, used = None, False
        while not self.over.is_set():
            if connection is None:
                connection, used = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20), False
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                self.count(answer.status, answer.read().decode(errors="replace"))
                used = True
                if not answer.will_close:
                    continue
            except OSError as error:
                if used and isinstance(error, ConnectionError):
                    self.lost += 1
                else:
                    self.failed.append(repr(error))
            connection.close()
            connection = None

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
