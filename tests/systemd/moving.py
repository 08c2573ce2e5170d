"""The checks of `move-in` and `move-out`, run inside the machine: a real nginx in front of a stand-in engine. The docstring says
what holds, the result is its figures."""

import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

from guest import (
    CONFIG, DROP_INS, NVML, PORT, SOCKET, UNIT, card, eventually, get, must, now, journal, picture, run, shown, systemctl,
)

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
    import http.client
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
        for folder, folders, files in os.walk(top):
            # systemd's own bookkeeping, and what every service of this kind leaves in it.
            if folder == "/var/lib":
                folders[:] = [name for name in folders if name not in ("systemd", "nginx", "dbus", "apt", "dpkg")]
            for name in files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
                path = pathlib.Path(folder, name)
                data = path.lstat()
                text = os.readlink(path) if path.is_symlink() else path.read_bytes()
                found[str(path)] = (data.st_mode, data.st_uid, data.st_gid, text)
            for name in folders:
                found[os.path.join(folder, name) + "/"] = os.lstat(os.path.join(folder, name)).st_mode
    return found


def difference(before, after):
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def as_new():
    """The machine of somebody who has never moved in: nginx on the port, the package's files, nothing enabled."""
    systemctl("stop", MOVE_UNIT, UNIT, SOCKET)
    systemctl("disable", "--quiet", UNIT, SOCKET)
    systemctl("reset-failed", UNIT, SOCKET, MOVE_UNIT, "nginx.service", ENGINE)
    systemctl("clean", "--what=state", UNIT)
    for folder in (RECORD, DROP_INS / f"{UNIT}.d", DROP_INS / f"{SOCKET}.d", CONFIG.parent, SITE.parent, OTHER.parent,
                   NGINX / "sites-enabled.moved-by-ada2-sidecar"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (CONFIG.parent, SITE.parent, OTHER.parent, NGINX / "sites-available", ROOT / "outputs"):
        folder.mkdir(parents=True, exist_ok=True)
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


def whole_way():
    """move-in, the first picture, and move-out within 5 s with a picture under way"""
    before = tree()
    begun = time.monotonic()
    code, text = run("ada2-sidecar", "move-in", "--yes", timeout=90)
    entered = time.monotonic() - begun
    assert code == 0, text
    for line in (rf"^ok +engine +invokeai 6.14.2 at http://127.0.0.1:9090$", rf"^ok +engine unit +{ENGINE}$",
                 rf"^ok +engine outputs +{ROOT}/outputs$", rf"^ok +card +0 = {UUID}",
                 r"^warn +nginx +.*client_max_body_size.*max_upload_bytes", r"^warn +nginx +/v1/ went to 127.0.0.1:8000",
                 r"^ok +picture +\d+ kB after"):
        assert re.search(line, text, re.M), f"{line}: {text}"
    settings = CONFIG.read_text()
    assert settings.startswith("# What this host does otherwise.\n") and "# the test's\n" in settings, settings
    assert f"# gpu_id: 0            # index or UUID\ngpu_id: {UUID}\n" in settings, settings
    assert f"engine_unit: {ENGINE}\n" in settings and f"engine_output_dir: {ROOT}/outputs\n" in settings, settings
    assert (CONFIG.parent / "config.yaml.before-move-in").read_text() == CONFIG_TEXT
    assert "MiB on" in get("/readyz/disk")[1], "the sandbox shows the folder in the home"
    assert picture()[0] == 200 and not nginx_serves() and not GUARD.exists()
    assert shown(UNIT, "UnitFileState") == shown(SOCKET, "UnitFileState") == "enabled"
    code, text = run("ada2-sidecar", "doctor", "--generate")
    assert code == 0 and all(re.search(f"^ok +{name} ", text, re.M) for name in ("move_in", "generate")), text
    code, text = run("ada2-sidecar", "move-in", "--yes")
    assert code == 0 and "has moved in already" in text, text
    engine("--item-ms 60000")
    eventually("ready", lambda: get("/readyz")[0] == 200)
    waiting = subprocess.Popen([sys.executable, "-c", "import sys; sys.path.insert(0, '/opt/ada2-test'); import guest; guest.picture(60)"],
                               stderr=subprocess.DEVNULL)
    eventually("a picture is under way", lambda: "in_progress\":1" in get("/api/v1/queue/default/status")[1])
    since, begun = now(), time.monotonic()
    code, text = run("ada2-sidecar", "move-out", "--yes")
    left = time.monotonic() - begun
    waiting.wait(timeout=10)
    assert code == 0 and left < 5, f"{left:.1f} s: {text}"
    assert nginx_serves()
    status = get("/api/v1/queue/default/status", port=9090)[1]
    assert "in_progress\":0" in status and "canceled\":1" in status, f"cancelled in the engine: {status}: {journal(UNIT, since)}"
    assert shown(UNIT, "UnitFileState") == shown(SOCKET, "UnitFileState") == "disabled"
    stays = [path for path in difference(before, tree()) if not path.startswith((str(ENGINE_FILE), "/var/lib/private"))]
    expected = [str(CONFIG), f"{CONFIG}.before-move-in", f"{DROP_INS}/{UNIT}.d/", f"{DROP_INS}/{UNIT}.d/engine-output.conf",
                "/var/lib/ada2-sidecar", "/var/lib/ada2-sidecar/"]
    assert set(stays) <= set(expected), stays
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 0 and "nothing to do" in text, text
    return f"in within {entered:.1f} s, out within {left:.1f} s"


def again():
    """move-in after move-out, with every setting kept, and nothing written twice"""
    assert run("ada2-sidecar", "move-in", "--yes", timeout=90)[0] == 0
    settings = CONFIG.read_text()
    assert run("ada2-sidecar", "move-out", "--yes")[0] == 0
    code, text = run("ada2-sidecar", "move-in", "--yes", timeout=90)
    assert code == 0 and "nothing to set" in text, text
    assert CONFIG.read_text() == settings
    assert run("ada2-sidecar", "move-out", "--yes")[0] == 0
    assert nginx_serves()
    return "same settings"


def port_of_another():
    """a port that something else holds is left to it, and it is named"""
    must("systemctl", "stop", "nginx")
    hold = f"import http.server as h; print('up', flush=True); h.test(h.SimpleHTTPRequestHandler, port={PORT}, bind='0.0.0.0')"
    holder = subprocess.Popen([sys.executable, "-uc", hold], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert holder.stdout.readline() == "up\n"
        eventually("it answers", lambda: answers(PORT, "/"))
        before = tree()
        code, text = run("ada2-sidecar", "move-in", "--yes")
        assert code == 1 and re.search(rf"^FAIL +port .*python3.*pid {holder.pid}.*; fix: stop it", text, re.M), text
        assert answers(PORT, "/") == 200 and not difference(before, tree())
    finally:
        holder.kill()
        holder.wait()
    return "named"


def no_engine():
    """a dead engine is found before anything changes"""
    must("systemctl", "stop", ENGINE)
    before = tree()
    code, text = run("ada2-sidecar", "move-in", "--yes")
    assert code == 1 and re.search(r"^FAIL +engine +no InvokeAI or ComfyUI answers.*; fix: start it", text, re.M), text
    must("systemctl", "start", ENGINE)
    eventually("the engine answers", lambda: answers(9090))
    back(before)
    return "named"


def broken_configuration():
    """a broken configuration is told before anything changes, every problem of it"""
    CONFIG.write_text(CONFIG_TEXT + "max_inflight: many\nmax_n: few\n")
    return fails("configuration", says="max_inflight: expected.*max_n: expected")


def lost_card():
    """a lost card is told before anything changes, and a host without one needs none with gpu: optional"""
    card(gpus=[{"lost": True}])
    told = fails("card", says="GPU is lost")
    card(init_error=9)
    fails("card", says="--gpu optional")
    CONFIG.write_text(CONFIG_TEXT.replace("nvml_lib", "gpu: optional\nnvml_lib"))
    code, text = run("ada2-sidecar", "move-in", "--yes", timeout=90)
    assert code == 0, text
    return told


def two_cards():
    """of two cards the one is pinned on which the engine holds memory"""
    pid = int(shown(ENGINE, "MainPID"))
    card(gpus=[{}, {"index": 1, "uuid": "GPU-other", "processes": [{"pid": pid, "used_mib": 4096}]}])
    code, text = run("ada2-sidecar", "move-in", "--yes", timeout=90)
    assert code == 0 and re.search(r"^ok +card +1 = GPU-other .*where the engine holds memory", text, re.M), text
    return "1 = GPU-other"


def shared_file():
    """a file of nginx's that serves something else as well is refused with its place"""
    (NGINX / "sites-available" / "ada2").write_text(SITE_TEXT + "server { listen 7861; }\n")
    must("systemctl", "reload", "nginx")
    return fails("nginx", says="sites-enabled/ada2:2 listens on 7860, and .*ada2:8 serves something else")


def nginx_refuses():
    """an nginx that does not take its configuration without the site has it back"""
    OTHER.write_text("server { listen 7861; location / { proxy_pass http://paint; } }\n")
    must("systemctl", "reload", "nginx")
    return fails("nginx", says="nginx -t: .*host not found in upstream")


def service_fails():
    """a service that does not start leaves nginx serving"""
    folder = DROP_INS / f"{UNIT}.d"
    folder.mkdir()
    (folder / "broken.conf").write_text("[Service]\nExecStartPre=/bin/false\nRestart=no\n")
    must("systemctl", "daemon-reload")
    return fails("sidecar", says="systemctl start")


def never_ready():
    """a service that does not get ready leaves nginx serving, and what is missing is said"""
    CONFIG.write_text(CONFIG_TEXT.replace("min_free_memory: 0", "min_free_memory: 100000GiB"))
    return fails("ready", "--wait", "2", says="not ready within 2 s: host_memory: ")


def picture_fails():
    """an engine that makes no picture leaves nginx serving"""
    engine("--fail boom")
    return fails("picture", says="502: .*boom")


def engine_dies():
    """an engine that dies during the first picture leaves nginx serving as before"""
    engine("--item-ms 60000")
    before = tree()
    move = MoveIn().until(r"^ok +ready")
    must("systemctl", "kill", "-s", "KILL", ENGINE)
    code, text = move.end()
    assert code == 1 and re.search("^FAIL +picture", text, re.M), text
    must("systemctl", "restart", ENGINE)
    eventually("the engine answers", lambda: answers(9090))
    back(before)
    return "undone"


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


def killed():
    """SIGKILL of the command: undone"""
    return interrupted(lambda move: move.process.kill())


def killed_at_each_step():
    """SIGKILL of the process that changes things, at each of its steps: undone"""
    took = []
    for step in (r"configuration +/etc.*: engine_unit", "sandbox", "nginx +.* moved aside", "sidecar", "ready"):
        kill = lambda move: os.kill(int(shown(MOVE_UNIT, "MainPID")), signal.SIGKILL)
        took.append(interrupted(kill, f"^ok +{step}"))
    return f"{len(took)} steps"


def interrupted_by_keyboard():
    """Ctrl-C: undone"""
    return interrupted(lambda move: move.process.send_signal(signal.SIGINT))


def lost_connection():
    """SIGHUP, as a lost ssh connection sends it: undone"""
    return interrupted(lambda move: move.process.send_signal(signal.SIGHUP))


def stopped():
    """SIGTERM of the command, and a stop of its unit: undone"""
    first = interrupted(lambda move: move.process.terminate())
    return f"{first}; unit: " + interrupted(lambda move: must("systemctl", "stop", MOVE_UNIT))


def everything_killed():
    """SIGKILL of whatever undoes it, too: the next command finishes"""
    engine("--item-ms 60000")
    before = tree()
    move = MoveIn().until(r"^ok +ready")
    eventually("the first picture", lambda: "in_progress\":1" in get("/api/v1/queue/default/status", port=9090)[1])
    program = pathlib.Path(shutil.which("ada2-sidecar"))
    aside = program.with_name("aside")
    # Nothing can be run at the unit's end.
    program.rename(aside)
    try:
        os.kill(int(shown(MOVE_UNIT, "MainPID")), signal.SIGKILL)
        code, text = move.end()
    finally:
        aside.rename(program)
    assert code != 0 and not nginx_serves() and GUARD.exists(), text
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 0 and "everything is as before" in text, text
    back(before)
    return "by move-out"


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


def at_a_terminal():
    """a person is asked who may come; Ctrl-C, and a terminal that closes, undo everything"""
    engine("--item-ms 60000")
    before = tree()
    move = Terminal().until(r"1 or 2 \[2\]: ", b"3\n1\n").until("address .*: ", b"the Mac\n192.168.1.20\n")
    move.until(r"allow_from: 127.0.0.0/8,::1/128,192.168.1.20/32").until(r"ok +ready", b"\x03")
    move.until("everything is as before")
    assert move.end() == 1
    back(before)
    move = Terminal().until(r"1 or 2 \[2\]: ", b"\n").until(r"ok +ready")
    os.close(move.fd)
    assert move.end() == 1
    back(before)
    return "asked, then undone twice"


def without_nginx():
    """a host without nginx on the port moves in and out"""
    must("systemctl", "stop", "nginx")
    SITE.unlink()
    before = tree()
    code, text = run("ada2-sidecar", "move-in", "--yes", timeout=90)
    assert code == 0 and re.search("^ok +port +0.0.0.0:7860: free$", text, re.M), text
    assert picture()[0] == 200
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 0 and answers(PORT) is None, text
    assert not [path for path in difference(before, tree()) if "nginx" in path]
    return "nothing of nginx's touched"


def two_at_once():
    """a second move-in says that one is at work, and changes nothing"""
    engine("--item-ms 60000")
    before = tree()
    first = MoveIn().until(r"^ok +ready")
    code, text = run("ada2-sidecar", "move-in", "--yes")
    assert code == 1 and "another move-in or move-out is at work" in text, text
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 1 and "another move-in or move-out is at work" in text, text
    first.process.send_signal(signal.SIGINT)
    assert first.end()[0] == 1
    back(before)
    return "both refused"


def asks():
    """without --yes and without a terminal nobody is asked, and --allow-from is written with this host itself"""
    before = tree()
    done = subprocess.run(["ada2-sidecar", "move-in"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "--yes (the addresses of the house), or --allow-from" in done.stdout, done.stdout
    back(before)
    code, text = run("runuser", "-u", "nobody", "--", "ada2-sidecar", "move-in", "--yes")
    assert code == 1 and "fix: sudo ada2-sidecar move-in" in text, text
    code, text = run("ada2-sidecar", "move-in", "--allow-from", "192.168.1.20", timeout=90)
    assert code == 0 and "allow_from: 127.0.0.0/8,::1/128,192.168.1.20/32\n" in CONFIG.read_text(), text
    return "asked nothing"


def out_with_a_broken_site():
    """move-out keeps the sidecar while nginx would not take its site back"""
    assert run("ada2-sidecar", "move-in", "--yes", timeout=90)[0] == 0
    inner = tree()
    (NGINX / "sites-available" / "ada2").write_text("server { listen 7860; nonsense; }\n")
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 1 and re.search("^FAIL +nginx +nginx -t: .*nonsense", text, re.M), text
    assert picture()[0] == 200 and not GUARD.exists()
    (NGINX / "sites-available" / "ada2").write_text(SITE_TEXT)
    assert not difference(inner, tree()), difference(inner, tree())
    assert run("ada2-sidecar", "move-out", "--yes")[0] == 0 and nginx_serves()
    return "still serves, then out"


def by_hand():
    """units that were started without move-in are stopped by move-out"""
    must("systemctl", "stop", "nginx")
    must("systemctl", "enable", "--now", SOCKET, UNIT)
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 0 and shown(SOCKET, "ActiveState") == "inactive" and shown(UNIT, "UnitFileState") == "disabled", text
    return "stopped and disabled"


CHECKS = [
    whole_way, again, port_of_another, no_engine, broken_configuration, lost_card, two_cards, shared_file, nginx_refuses,
    service_fails, never_ready, picture_fails, engine_dies, killed, killed_at_each_step, interrupted_by_keyboard, lost_connection,
    stopped, everything_killed, at_a_terminal, without_nginx, two_at_once, asks, out_with_a_broken_site, by_hand,
]


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


def main(names):
    if names and names[0] in ("before_power_cut", "after_power_cut"):
        {"before_power_cut": before_power_cut, "after_power_cut": after_power_cut}[names[0]](names[1:] == ["leaving"])
        return 0
    failed = 0
    begun = time.monotonic()
    for check in CHECKS:
        if names and check.__name__ not in names:
            continue
        started = time.monotonic()
        try:
            as_new()
            print(f"ok    {check.__doc__}: {check()} ({time.monotonic() - started:.0f} s)", flush=True)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as fault:
            failed += 1
            print(f"FAIL  {check.__doc__} ({check.__name__}): {fault!r}", flush=True)
    print(f"{failed} failed; {time.monotonic() - begun:.0f} s", flush=True)
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
