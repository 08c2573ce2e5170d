"""The machine that `move-in` is tried on: a host that never moved in, with nginx in front of a stand-in engine; the command at
work; and what "as before" means."""

import http.client
import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import time

from guest import CONFIG, DROP_INS, NVML, PORT, SOCKET, UNIT, card, eventually, get, must, run, shown, systemctl

RECORD = pathlib.Path("/var/lib/ada2-sidecar-move-in")
MOVE_UNIT = "ada2-sidecar-move-in.service"
GUARD = DROP_INS / "ada2-sidecar-recover.service"
ENGINE = "paint.service"
ENGINE_FILE = DROP_INS / ENGINE
ROOT = pathlib.Path("/home/artist/invokeai")
NGINX = pathlib.Path("/etc/nginx")
SITE = NGINX / "sites-enabled" / "ada2"
OTHER = NGINX / "conf.d" / "other.conf"
UUID = "GPU-6adaf00d-1234-5678-9abc-def012345678"

CONFIG_TEXT = f"""\
# What this host does otherwise.
nvml_lib: {NVML}/libnvidia-ml.so.1   # the test's
min_free_memory: 0
min_free_vram: 0

# gpu_id: 0            # index or UUID
"""
SITE_TEXT = """\
upstream paint { server 127.0.0.1:9090; }
server {
    listen 7860;
    client_max_body_size 100m;
    location / { proxy_pass http://paint; proxy_read_timeout 300s; }
    location /v1/ { proxy_pass http://127.0.0.1:8000; }
}
"""
ENGINE_TEXT = """\
[Service]
ExecStart=/opt/ada2-test/fake-invokeai --root {root} --port 9090 {more}
"""


def engine(more=""):
    """Starts the engine anew, with these flags."""
    text = ENGINE_TEXT.format(root=ROOT, more=more)
    if not ENGINE_FILE.exists() or ENGINE_FILE.read_text() != text:
        ENGINE_FILE.write_text(text)
        must("systemctl", "daemon-reload")
    must("systemctl", "restart", ENGINE)
    eventually("the engine answers", lambda: answers(9090))


def answers(port, path="/api/v1/app/version"):
    try:
        return get(path, port=port, timeout=5)[0]
    except OSError:
        return None


def nginx_serves():
    """Whether a request to the port is answered as before: by nginx, from the engine."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", "/api/v1/app/version")
        answer = connection.getresponse()
        body = answer.read().decode()
        return "nginx" in answer.getheader("Server", "") and (answer.status, body) == (200, '{"version":"6.14.2"}')
    except OSError:
        return False
    finally:
        connection.close()


def tree():
    """Every file that somebody could miss: what makes it this one, and what is in it."""
    found = {}
    for top in ("/etc", "/var/lib", "/run/systemd/transient"):
        for directory, directories, files in os.walk(top):
            # systemd's own bookkeeping, and what every service of this kind leaves in it.
            if directory == "/var/lib":
                directories[:] = [name for name in directories if name not in ("systemd", "nginx", "dbus", "apt", "dpkg")]
            for name in files + [name for name in directories if os.path.islink(os.path.join(directory, name))]:
                path = pathlib.Path(directory, name)
                data = path.lstat()
                text = os.readlink(path) if path.is_symlink() else path.read_bytes()
                found[str(path)] = (data.st_mode, data.st_uid, data.st_gid, text)
            for name in directories:
                found[os.path.join(directory, name) + "/"] = os.lstat(os.path.join(directory, name)).st_mode
    return found


def difference(before, after):
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def as_new():
    """The machine of somebody who has never moved in: nginx on the port, the package's files, nothing enabled."""
    systemctl("stop", MOVE_UNIT, UNIT, SOCKET)
    systemctl("disable", "--quiet", UNIT, SOCKET)
    systemctl("reset-failed", UNIT, SOCKET, MOVE_UNIT, "nginx.service", ENGINE)
    systemctl("clean", "--what=state", UNIT)
    for directory in (RECORD, DROP_INS / f"{UNIT}.d", DROP_INS / f"{SOCKET}.d", CONFIG.parent, SITE.parent, OTHER.parent,
                   NGINX / "sites-enabled.moved-by-ada2-sidecar"):
        shutil.rmtree(directory, ignore_errors=True)
    for directory in (CONFIG.parent, SITE.parent, OTHER.parent, NGINX / "sites-available", ROOT / "outputs"):
        directory.mkdir(parents=True, exist_ok=True)
    GUARD.unlink(missing_ok=True)
    (NGINX / "sites-available" / "ada2").write_text(SITE_TEXT)
    SITE.symlink_to("../sites-available/ada2")
    CONFIG.write_text(CONFIG_TEXT)
    must("systemctl", "daemon-reload")
    card(gpus=[{}])
    engine()
    must("systemctl", "restart", "nginx")
    eventually("nginx serves", nginx_serves)


class MoveIn:
    """`move-in` at work, whose lines are read as they come."""

    def __init__(self, *arguments):
        self.lines = []
        self.process = subprocess.Popen(["ada2-sidecar", "move-in", "--yes", *arguments], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def until(self, pattern):
        for line in self.process.stdout:
            self.lines.append(line)
            if re.search(pattern, line):
                return self
        raise AssertionError(f"no {pattern!r}: {''.join(self.lines)}")

    def end(self):
        """Exit code and everything that was printed."""
        self.lines += self.process.stdout.readlines()
        return self.process.wait(timeout=60), "".join(self.lines)


def back(before):
    """Everything is as before, and nginx serves."""
    eventually("the unit is gone", lambda: shown(MOVE_UNIT, "ActiveState") in ("inactive", ""))
    assert nginx_serves(), run("systemctl", "status", "nginx", UNIT)[1]
    assert shown(UNIT, "ActiveState") == "inactive" and shown(SOCKET, "ActiveState") == "inactive"
    assert shown(UNIT, "UnitFileState") == "disabled"
    changed = difference(before, tree())
    assert not changed, changed


def fails(step, *arguments, says=""):
    """`move-in` fails at this step, and everything is as before."""
    before = tree()
    begun = time.monotonic()
    code, text = run("ada2-sidecar", "move-in", "--yes", *arguments, timeout=90)
    took = time.monotonic() - begun
    assert code == 1 and re.search(rf"^FAIL +{step}\b.*{says}", text, re.M) and "; fix: " in text, f"{code}: {text}"
    back(before)
    return f"after {took:.1f} s"


def interrupted(act, step=r"^ok +ready"):
    engine("--item-ms 60000")
    before = tree()
    move = MoveIn().until(step)
    begun = time.monotonic()
    act(move)
    eventually("nginx serves again", nginx_serves)
    took = time.monotonic() - begun
    code, text = move.end()
    assert code != 0, text
    back(before)
    queue = get("/api/v1/queue/default/status", port=9090)[1]
    assert "in_progress\":0" in queue, f"nothing is left in the engine: {queue}"
    return f"nginx serves {took:.1f} s later"


class Terminal:
    """`move-in` at a terminal."""

    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execlp("ada2-sidecar", "ada2-sidecar", "move-in")
        self.text = ""

    def until(self, pattern, answer=b""):
        deadline = time.monotonic() + 60
        while not re.search(pattern, self.text):
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r}: {self.text}"
            self.text += os.read(self.fd, 4096).decode(errors="replace")
        os.write(self.fd, answer)
        return self

    def end(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def before_power_cut(leaving):
    """Stays in the middle of a move-in; or in that of a move-out, at its first step: nothing is stopped yet."""
    as_new()
    must("systemctl", "enable", "--quiet", "nginx.service")
    must("systemctl", "add-wants", "multi-user.target", ENGINE)
    engine("--item-ms 3000" if leaving else "--item-ms 60000")
    move = MoveIn().until(r"^ok +ready")
    if not leaving:
        return
    guard = GUARD.read_text()
    code, text = move.end()
    assert code == 0, text
    GUARD.write_text(guard)
    (DROP_INS / "multi-user.target.wants" / GUARD.name).symlink_to(GUARD)
    record = RECORD / "record.json"
    record.write_text(record.read_text().replace('"moved_in"', '"moving_out"'))


def after_power_cut(leaving):
    """The next boot has nginx serve, and has forgotten the rest."""
    eventually("nginx serves", nginx_serves)
    eventually("the guard has gone", lambda: not GUARD.exists())
    assert not RECORD.exists() and SITE.is_symlink() and (CONFIG.read_text() == CONFIG_TEXT) != leaving
    assert shown(SOCKET, "ActiveState") == "inactive" and shown(UNIT, "UnitFileState") == "disabled"
