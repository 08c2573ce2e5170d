"""The checks of `move-in` and `move-out`, run inside the machine: a real nginx in front of a stand-in engine. The docstring says
what holds, the result is its figures."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

from guest import CONFIG, DROP_INS, PORT, SOCKET, UNIT, card, eventually, get, journal, must, now, generate, run, shown
from moving_host import (
    CONFIG_TEXT, ENGINE, ENGINE_FILE, GUARD, MOVE_UNIT, NGINX, OTHER, ROOT, SITE, SITE_TEXT, UUID, MoveIn, Terminal, after_power_cut,
    answers, as_new, back, before_power_cut, difference, engine, fails, interrupted, nginx_serves, tree,
)


def in_and_out():
    """move-in, the first image, and move-out within 5 s with an image under way"""
    before = tree()
    begun = time.monotonic()
    code, text = run("ada2-sidecar", "move-in", "--yes", timeout=90)
    entered = time.monotonic() - begun
    assert code == 0, text
    for line in (r"^ok +engine +invokeai 6.14.2 at http://127.0.0.1:9090$", rf"^ok +engine unit +{ENGINE}$",
                 rf"^ok +engine outputs +{ROOT}/outputs$", rf"^ok +card +0 = {UUID}",
                 r"^warn +nginx +.*client_max_body_size.*max_upload_bytes", r"^warn +nginx +/v1/ went to 127.0.0.1:8000",
                 r"^ok +picture +\d+ kB after"):
        assert re.search(line, text, re.M), f"{line}: {text}"
    settings = CONFIG.read_text()
    assert settings.startswith("# What this host does otherwise.\n") and "# the test's\n" in settings, settings
    assert f"# gpu_id: 0            # index or UUID\ngpu_id: {UUID}\n" in settings, settings
    assert f"engine_unit: {ENGINE}\n" in settings and f"engine_output_dir: {ROOT}/outputs\n" in settings, settings
    assert (CONFIG.parent / "config.yaml.before-move-in").read_text() == CONFIG_TEXT
    assert "MiB on" in get("/readyz/disk")[1], "the sandbox shows the directory in the home"
    assert generate()[0] == 200 and not nginx_serves() and not GUARD.exists()
    assert shown(UNIT, "UnitFileState") == shown(SOCKET, "UnitFileState") == "enabled"
    code, text = run("ada2-sidecar", "doctor", "--generate")
    assert code == 0 and all(re.search(f"^ok +{name} ", text, re.M) for name in ("move_in", "generate")), text
    code, text = run("ada2-sidecar", "move-in", "--yes")
    assert code == 0 and "has already moved in" in text, text
    settings = CONFIG.read_text()
    code, text = run("ada2-sidecar", "move-in", "--yes", "--gpu-id", "1")
    assert code == 1 and "--gpu-id would change nothing" in text and "sudo ada2-sidecar move-out --yes" in text, text
    assert CONFIG.read_text() == settings
    engine("--item-ms 60000")
    eventually("ready", lambda: get("/readyz")[0] == 200)
    waiting = subprocess.Popen([sys.executable, "-c", "import sys; sys.path.insert(0, '/opt/ada2-test'); import guest; guest.generate(60)"],
                               stderr=subprocess.DEVNULL)
    eventually("an image is under way", lambda: "in_progress\":1" in get("/api/v1/queue/default/status")[1])
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
    assert code == 1 and re.search(r"^FAIL +engine +no engine answers.*; fix: start it", text, re.M), text
    must("systemctl", "start", ENGINE)
    eventually("the engine answers", lambda: answers(9090))
    back(before)
    return "named"


def nginx_answers():
    """readyz and gpu tell nginx from a sidecar, for everybody"""
    for user in ("root", "nobody"):
        for command in (["readyz"], ["readyz", "--json"], ["gpu"], ["gpu", "--json"], ["gpu", "--query", "memory.free"]):
            code, text = run("runuser", "-u", user, "--", "ada2-sidecar", *command)
            assert code == 1 and "not the sidecar" in text and "nginx (pid " in text, f"{user}, {command}: {code}: {text}"
            assert text.endswith("; fix: sudo ada2-sidecar move-in\n") and text.count("\n") == 1, text
    return "named"


def own_port_as_engine():
    """the port that is taken over is refused as the engine's, and what nginx asks is named in its place"""
    told = fails("engine", "--engine-url", f"http://localhost:{PORT}", says="takes over.*--engine-url http://127.0.0.1:9090")
    fails("configuration", "--engine-url", f"127.0.0.1:{PORT}", says="--engine-url .* is not a URL")
    return told


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
    directory = DROP_INS / f"{UNIT}.d"
    directory.mkdir()
    (directory / "broken.conf").write_text("[Service]\nExecStartPre=/bin/false\nRestart=no\n")
    must("systemctl", "daemon-reload")
    return fails("sidecar", says="systemctl start")


def never_ready():
    """a service that does not get ready leaves nginx serving, and what is missing is said"""
    CONFIG.write_text(CONFIG_TEXT.replace("min_free_memory: 0", "min_free_memory: 100000GiB"))
    return fails("ready", "--wait", "2", says="not ready within 2 s: host_memory: ")


def image_fails():
    """an engine that makes no image leaves nginx serving"""
    engine("--fail boom")
    return fails("picture", says="502: .*boom")


def engine_dies():
    """an engine that dies during the first image leaves nginx serving as before"""
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
    eventually("the first image", lambda: "in_progress\":1" in get("/api/v1/queue/default/status", port=9090)[1])
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


def at_a_terminal():
    """a person is asked who has access; Ctrl-C, and a terminal that closes, undo everything"""
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
    assert generate()[0] == 200
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
    assert code == 1 and "another move-in or move-out is running" in text, text
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 1 and "another move-in or move-out is running" in text, text
    first.process.send_signal(signal.SIGINT)
    assert first.end()[0] == 1
    back(before)
    return "both refused"


def asks():
    """without --yes and without a terminal nobody is asked, and --allow-from is written with this host itself"""
    before = tree()
    done = subprocess.run(["ada2-sidecar", "move-in"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "move-in --allow-from ADDRESS` (the Mac's), or `--yes`" in done.stdout, done.stdout
    back(before)
    code, text = run("runuser", "-u", "nobody", "--", "ada2-sidecar", "move-in", "--yes")
    assert code == 1 and "fix: sudo ada2-sidecar move-in" in text, text
    code, text = run("ada2-sidecar", "move-in", "--allow-from", "192.168.1.20", timeout=90)
    assert code == 0 and "allow_from: 127.0.0.0/8,::1/128,192.168.1.20/32\n" in CONFIG.read_text(), text
    return "asked nothing"


def move_out_with_a_broken_site():
    """move-out keeps the sidecar while nginx would not take its site back"""
    assert run("ada2-sidecar", "move-in", "--yes", timeout=90)[0] == 0
    inner = tree()
    (NGINX / "sites-available" / "ada2").write_text("server { listen 7860; nonsense; }\n")
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 1 and re.search("^FAIL +nginx +nginx -t: .*nonsense", text, re.M), text
    assert generate()[0] == 200 and not GUARD.exists()
    (NGINX / "sites-available" / "ada2").write_text(SITE_TEXT)
    assert not difference(inner, tree()), difference(inner, tree())
    assert run("ada2-sidecar", "move-out", "--yes")[0] == 0 and nginx_serves()
    return "still serves, then out"


def by_hand():
    """units that were started without move-in are stopped by move-out"""
    must("systemctl", "stop", "nginx")
    must("systemctl", "enable", "--now", SOCKET, UNIT)
    must("systemctl", "stop", SOCKET, UNIT)
    code, text = run("ada2-sidecar", "readyz")
    assert code == 1 and "no sidecar runs; start it: sudo systemctl start ada2-sidecar" in text, text
    assert "[+]nvml ok" in text and text.endswith("readyz check failed\n"), text
    must("systemctl", "start", SOCKET, UNIT)
    code, text = run("ada2-sidecar", "move-out", "--yes")
    assert code == 0 and shown(SOCKET, "ActiveState") == "inactive" and shown(UNIT, "UnitFileState") == "disabled", text
    return "stopped and disabled"


CHECKS = [
    in_and_out, again, port_of_another, no_engine, nginx_answers, own_port_as_engine, broken_configuration, lost_card,
    two_cards, shared_file, nginx_refuses, service_fails, never_ready, image_fails, engine_dies, killed,
    killed_at_each_step, interrupted_by_keyboard, lost_connection, stopped, everything_killed, at_a_terminal, without_nginx,
    two_at_once, asks, move_out_with_a_broken_site, by_hand,
]


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
