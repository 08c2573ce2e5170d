"""The checks of the units, run inside the machine: the docstring says what holds, the result is its figures."""

import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from guest import (
    CONFIG, GOOD, PORT, SOCKET, UNIT, Client, Load, card, configure, drop_in, eventually, get, journal, must, now,
    opened_in_unit, generate, run, shown, systemctl, well,
)


def late_driver():
    """a driver that is loaded after the start is reached without a restart, a foreign device is refused"""
    nvidia, foreign = pathlib.Path("/dev/nvidia0"), pathlib.Path("/dev/foreign")
    card(init_error=9)
    must("systemctl", "restart", UNIT)
    pid = shown(UNIT, "MainPID")
    assert get("/readyz")[0] == 503
    os.mknod(nvidia, 0o020666, os.makedev(195, 0))
    os.mknod(foreign, 0o020666, os.makedev(10, 200))
    try:
        # Nobody serves the device here: whoever may open it meets that, everybody else the filter.
        reached, refused = opened_in_unit(nvidia), opened_in_unit(foreign)
    finally:
        nvidia.unlink()
        foreign.unlink()
    assert reached in (0, errno.ENXIO, errno.ENODEV), errno.errorcode.get(reached, reached)
    assert refused == errno.EPERM, errno.errorcode.get(refused, refused)
    card()
    begun = time.monotonic()
    eventually("ready", lambda: get("/readyz")[0] == 200)
    assert shown(UNIT, "MainPID") == pid
    return f"{errno.errorcode.get(reached, 'open')} and EPERM; ready {time.monotonic() - begun:.1f} s after the driver"


def broken_configuration():
    """a configuration error does not cost the socket, and a restart serves those who wait"""
    since = now()
    configure("max_inflight: many\n")
    assert systemctl("restart", UNIT)[0] != 0
    waiting = [Client() for _ in range(8)]
    time.sleep(8)
    starts = journal(UNIT, since).count("max_inflight: expected")
    assert shown(SOCKET, "ActiveState") == "active", shown(SOCKET, "Result")
    assert starts <= 4, starts
    configure(GOOD)
    begun = time.monotonic()
    must("systemctl", "restart", UNIT)
    answers = [client.answer() for client in waiting]
    assert answers == [200] * len(waiting), answers
    return f"{starts} starts in 8 s; {len(waiting)} waiting clients served {time.monotonic() - begun:.1f} s after `restart`"


def failed_socket():
    """a socket that has given up comes back with a restart of the service"""
    drop_in(UNIT, "[Service]\nExecStopPost=\n")
    configure("max_inflight: many\n")
    systemctl("restart", UNIT)
    client = Client()
    eventually("the socket gives up", lambda: shown(SOCKET, "ActiveState") == "failed")
    result = shown(SOCKET, "Result")
    drop_in(UNIT, "")
    configure(GOOD)
    must("systemctl", "restart", UNIT)
    client.answer()
    assert shown(SOCKET, "ActiveState") == "active" and get("/healthz")[0] == 200
    return f"after {result}"


def restart_under_load():
    """a restart fails no request, with a driver that takes 0.8 s to start"""
    configure(GOOD + "max_inflight: 16\n")
    card(delay_ms={"nvmlInit_v2": 800})
    must("systemctl", "restart", UNIT)
    load = Load(8)
    for _ in range(3):
        time.sleep(1)
        must("systemctl", "restart", UNIT)
    time.sleep(1)
    load.end()
    assert not load.failed, f"{len(load.failed)} of {len(load.times)}: {load.failed[:3]}"
    return f"{len(load.times)} image requests during 3 restarts, 0 failed, worst {max(load.times):.2f} s"


def reload_outcomes():
    """systemctl reload of a broken file fails with every problem, of a good one succeeds"""
    since = now()
    configure(GOOD + "max_n: many\nmax_pixels: few\n")
    begun = time.monotonic()
    code, text = systemctl("reload", UNIT)
    took = time.monotonic() - begun
    assert code != 0, text
    said = journal(UNIT, since)
    for part in ("max_n: expected", "max_pixels: expected", "the one before stays in force"):
        assert part in said, said
    code, text = run("ada2-sidecar", "reload")
    assert code == 1 and "max_n: expected" in text and "max_pixels: expected" in text, text
    assert generate()[0] == 200 and "last reload refused" in shown(UNIT, "StatusText")
    configure(GOOD + "max_n: 2\n")
    code, text = run("runuser", "-u", "nobody", "--", "ada2-sidecar", "reload")
    assert code == 1 and "use sudo" in text, text
    must("systemctl", "reload", UNIT)
    assert get("/v1/images/generations", body={"prompt": "a", "size": "64x64", "n": 3})[0] == 400
    must("systemctl", "kill", "-s", "HUP", UNIT)
    eventually("active", lambda: shown(UNIT, "ActiveState") == "active")
    return f"refused within {took:.1f} s"


def taken_port():
    """a port that somebody holds is said with his name, a restart is the way back, and our own socket is no such thing"""
    must("systemctl", "stop", UNIT, SOCKET)
    since = now()
    hold = (
        "import socket, time; open('/proc/self/comm', 'w').write('nginx'); s = socket.socket();"
        f"s.setsockopt(1, 2, 1); s.bind(('0.0.0.0', {PORT})); s.listen(); print('up', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "up\n"
        code, _ = systemctl("restart", UNIT)
        assert code != 0
        said = journal(SOCKET, since)
        assert f"0.0.0.0:{PORT}: the port is held by nginx (pid {holder.pid}" in said, said
        assert "sudo systemctl restart ada2-sidecar" in said, said
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    must("systemctl", "restart", UNIT)
    assert shown(SOCKET, "ActiveState") == "active" and get("/healthz")[0] == 200
    for user in ("root", "nobody"):
        code, text = run("runuser", "-u", user, "--", "ada2-sidecar", "check-port")
        assert code == 0 and text == f"0.0.0.0:{PORT}: held by {SOCKET}, as it should be\n", f"{user}: {code}: {text}"
    return "named, and back after `restart`"


def hidden_files():
    """what the sandbox hides names the setting, and the advice works"""
    outputs, token = pathlib.Path("/home/somebody/outputs"), CONFIG.parent / "token"
    outputs.mkdir(parents=True, exist_ok=True)
    outputs.parent.chmod(0o700)
    configure(GOOD + f"engine_output_dir: {outputs}\n")
    must("systemctl", "restart", UNIT)
    text = get("/readyz/disk")[1]
    advice = f"ProtectHome=tmpfs and BindReadOnlyPaths={outputs}"
    assert advice in text, text
    token.write_text("sesame-sesame-1\n")
    token.chmod(0o600)
    since = now()
    configure(GOOD + f"engine_output_dir: {outputs}\ntoken_file: {token}\n")
    systemctl("restart", UNIT)
    credential = f"LoadCredential=token:{token}"
    eventually("the token is missed", lambda: credential in journal(UNIT, since))
    drop_in(UNIT, f"[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths={outputs}\n{credential}\n")
    must("systemctl", "restart", UNIT)
    assert generate()[0] == 401, "the token is in force"
    text = get("/readyz/disk")[1]
    assert "is not visible" not in text and "MiB on" in text, text
    return "disk and token"


def moved_socket():
    """readyz asks where the socket unit listens, for everybody, and a listen without effect is said"""
    since = now()
    configure(GOOD + "listen: 127.0.0.1:7999\n")
    drop_in(SOCKET, "[Socket]\nListenStream=\nListenStream=127.0.0.1:7998\n")
    must("systemctl", "restart", SOCKET, UNIT)
    eventually("ready", lambda: get("/readyz", port=7998)[0] == 200)
    code, text = run("runuser", "-u", "nobody", "--", "ada2-sidecar", "readyz")
    assert code == 0 and text.startswith("asked the sidecar at 127.0.0.1:7998\n"), text
    assert "has no effect" in journal(UNIT, since)
    must("systemctl", "stop", SOCKET, UNIT)
    for as_json in ([], ["--json"]):
        code, text = run("ada2-sidecar", "readyz", *as_json)
        assert code == 1 and "no sidecar runs" in text and "readyz check passed" not in text, text
    return "127.0.0.1:7998"


def exposure():
    """systemd-analyze security gives at most 2.0"""
    score = lambda text: float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", text).group(1))
    live = score(run("systemd-analyze", "security", "--no-pager", UNIT)[1])
    code, text = run("systemd-analyze", "security", "--no-pager", "--offline=true", shown(UNIT, "FragmentPath"))
    if code != 0 and "unrecognized option" in text:
        return f"{live} live; --offline= needs systemd 250"
    offline = score(text)
    assert max(live, offline) <= 2.0, f"{live} live, {offline} offline"
    return f"{live} live, {offline} --offline=true"


CHECKS = [
    late_driver, broken_configuration, failed_socket, restart_under_load, reload_outcomes, taken_port, hidden_files, moved_socket,
    exposure,
]


def main(names):
    failed = 0
    begun = time.monotonic()
    for check in CHECKS:
        if names and check.__name__ not in names:
            continue
        try:
            well()
            print(f"ok    {check.__doc__}: {check()}", flush=True)
        except (AssertionError, OSError, subprocess.TimeoutExpired) as fault:
            failed += 1
            print(f"FAIL  {check.__doc__} ({check.__name__}): {fault!r}", flush=True)
    print(f"{failed} failed; {time.monotonic() - begun:.0f} s", flush=True)
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
