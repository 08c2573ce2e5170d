"""The life of the package, step by step, behind a real nginx. The docstring says what holds, the result is its figures."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback

from debian import BREAKS, BUILT, REFUSES, dpkg, install, packaged, state, version_built
from guest import (
    CONFIG, NVML, PORT, SOCKET, UNIT, Client, Traffic, card, drop_in, eventually, get, journal, must, now, generate, run,
    shown, systemctl,
)
from tree import differences, tree

BINARY = pathlib.Path("/usr/bin/ada2-sidecar")
KEPT = pathlib.Path("/usr/lib/ada2-sidecar")
SITE = pathlib.Path("/etc/nginx/sites-available/images")
LINK = pathlib.Path("/etc/nginx/sites-enabled/images")

NGINX = f"""server {{
    listen {PORT};
    client_max_body_size 0;
    location / {{
        proxy_pass http://127.0.0.1:9090;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }}
}}
"""
ENGINE = """[Unit]
Description=Stand-in for InvokeAI
[Service]
ExecStart=/opt/ada2-test/fake-invokeai --root /var/lib/invokeai --port 9090
[Install]
WantedBy=multi-user.target
"""


class World:
    """What the steps hand on."""

    files = None  # before the package came
    config = None  # as it is once the sidecar serves
    by_hand = False  # the sidecar takes nginx's place without `move-in`


def serves(what):
    """Who answers on the port: nginx names itself, the sidecar has a health page."""
    return (get("/healthz")[1].startswith("ok") if what == "sidecar" else "<title>Invoke" in get("/healthz")[1]) and (
        get("/api/v1/app/version")[0] == 200
    )


def put_site_back():
    LINK.symlink_to(SITE)
    must("systemctl", "reload", "nginx.service")


def socket_id():
    return shown(SOCKET, "InvocationID")


def configure(text):
    CONFIG.write_text(text)


def prepare():
    """nginx serves the stand-in engine"""
    (NVML / "scenario.json").write_text("{}")
    # The fake library is found as the driver's own would be.
    pathlib.Path("/etc/ld.so.conf.d/ada2-test.conf").write_text(f"{NVML}\n")
    must("ldconfig")
    pathlib.Path("/var/lib/invokeai/outputs").mkdir(parents=True)
    pathlib.Path("/etc/systemd/system/invokeai.service").write_text(ENGINE)
    for site in LINK.parent.iterdir():
        site.unlink()
    SITE.write_text(NGINX)
    LINK.symlink_to(SITE)
    must("systemctl", "daemon-reload")
    must("systemctl", "enable", "--now", "invokeai.service", "nginx.service")
    eventually("nginx serves", lambda: serves("nginx"))
    World.files = tree()
    return f"{len(World.files)} files"


def installing():
    """installing changes nothing that runs and says the next command"""
    pid = shown("nginx.service", "MainPID")
    text = install(BUILT)
    assert "Next: sudo ada2-sidecar move-in" in text, text
    for unit in (UNIT, SOCKET):
        assert shown(unit, "ActiveState") == "inactive" and shown(unit, "UnitFileState") == "disabled", unit
        assert shown(unit, "FragmentPath").startswith(("/usr/lib/systemd/system/", "/lib/systemd/system/"))
    assert serves("nginx") and shown("nginx.service", "MainPID") == pid
    must("ada2-sidecar", "check-config")
    return state()


def moving_in():
    """the sidecar takes nginx's place and makes an image"""
    begun = time.monotonic()
    World.by_hand = run("ada2-sidecar", "move-in", "--help")[0] != 0
    if not World.by_hand:
        must("ada2-sidecar", "move-in", "--yes")
    else:
        LINK.unlink()
        must("systemctl", "reload", "nginx.service")
        must("systemctl", "enable", "--now", SOCKET, UNIT)
    eventually("the sidecar is ready", lambda: get("/readyz")[0] == 200)
    status, text = generate()
    assert status == 200, text
    World.config = CONFIG.read_text()
    assert serves("sidecar")
    return f"first image after {time.monotonic() - begun:.1f} s"


def upgrading_under_load():
    """an upgrade fails no request but what a kept connection sends into the restart"""
    file = packaged("1.0.1-1")
    pid, socket = shown(UNIT, "MainPID"), socket_id()
    traffic = Traffic()
    try:
        time.sleep(1)
        begun = time.monotonic()
        install(file)
        took = time.monotonic() - begun
        time.sleep(1)
    finally:
        traffic.end()
    assert not traffic.failed, f"{len(traffic.failed)} of {traffic.answered}: {traffic.failed[:3]}"
    assert traffic.lost <= 4, f"{traffic.lost} requests of 4 kept connections"
    assert shown(UNIT, "MainPID") != pid
    assert socket_id() == socket
    assert os.readlink(f"/proc/{shown(UNIT, 'MainPID')}/exe") == str(BINARY) and not KEPT.exists()
    return f"{traffic.answered} answered, 0 failed, {traffic.lost} of kept connections lost; dpkg took {took:.1f} s"


def configuration_error():
    """a configuration error costs neither the socket nor those who wait in it"""
    socket = socket_id()
    configure(World.config + "\nmax_inflight: many\n")
    assert systemctl("restart", UNIT)[0] != 0
    waiting = [Client() for _ in range(4)]
    configure(World.config)
    begun = time.monotonic()
    must("systemctl", "restart", UNIT)
    answers = [client.answer() for client in waiting]
    assert answers == [200] * 4, answers
    assert socket_id() == socket
    return f"served {time.monotonic() - begun:.1f} s after `restart`"


def refused_upgrade():
    """a version that refuses the configuration replaces nothing, survives a kill, and goes on after the fix"""
    file = packaged("1.0.2-1", REFUSES)
    configure(World.config + "\nmax_n: 2\n")
    must("systemctl", "reload", UNIT)
    pid = shown(UNIT, "MainPID")
    code, text = dpkg("-i", file)
    assert code != 0 and "max_n: this setting is gone" in text and "sudo dpkg --configure ada2-sidecar" in text, text
    assert state() == "iF 1.0.2-1" and shown(UNIT, "MainPID") == pid and generate()[0] == 200
    # Whatever starts the service now must find something that serves.
    os.kill(int(pid), signal.SIGKILL)
    eventually("no thread of it runs", lambda: not runs(pid))
    assert get("/healthz")[0] == 200 and shown(UNIT, "MainPID") != pid
    code, text = dpkg("--configure", "ada2-sidecar")
    assert code != 0 and "max_n" in text, text
    pid = shown(UNIT, "MainPID")
    configure(World.config)
    code, text = dpkg("--configure", "ada2-sidecar")
    assert code == 0 and state() == "ii 1.0.2-1", text
    assert shown(UNIT, "MainPID") != pid and generate()[0] == 200
    assert BINARY.read_text() == REFUSES and not KEPT.exists()
    return "refused twice, killed once, upgraded after the fix"


def environment_file():
    """the environment file and the drop-ins count for the check of the configuration, as for the service"""
    secrets = CONFIG.parent / "env"
    secrets.write_text("ADA2_MAX_INFLIGHT=many\n")
    code, text = dpkg("-i", packaged("1.0.3-1"))
    assert code != 0 and "ADA2_MAX_INFLIGHT" in text, text
    secrets.unlink()
    CONFIG.chmod(0o600)
    code, text = dpkg("--configure", "ada2-sidecar")
    assert code != 0 and "config.yaml" in text, f"the service's user cannot read it: {text}"
    CONFIG.chmod(0o644)
    code, text = dpkg("--configure", "ada2-sidecar")
    assert code == 0, text
    return state()


def broken_upgrade():
    """a version that does not start gives way to the one before"""
    file = packaged("1.0.4-1", BREAKS)
    begun = time.monotonic()
    code, text = dpkg("-i", file)
    assert code != 0 and "the previous version was started again" in text, text
    assert generate()[0] == 200 and state() == "iF 1.0.4-1"
    took = time.monotonic() - begun
    # And a good one after it is installed as if nothing had been.
    install(packaged("1.0.5-1"))
    assert generate()[0] == 200 and state() == "ii 1.0.5-1" and not KEPT.exists()
    return f"back after {took:.1f} s"


def downgrading():
    """a downgrade and a second installation of the same version go as an upgrade does"""
    socket = socket_id()
    for _ in range(2):
        pid = shown(UNIT, "MainPID")
        install(BUILT)
        assert state() == f"ii {version_built()}" and shown(UNIT, "MainPID") != pid and generate()[0] == 200
    assert socket_id() == socket
    return state()


def late_driver():
    """a driver that is loaded after the start is reached without a restart"""
    card(init_error=9)
    must("systemctl", "restart", UNIT)
    pid = shown(UNIT, "MainPID")
    assert get("/readyz")[0] == 503
    card()
    begun = time.monotonic()
    eventually("ready", lambda: get("/readyz")[0] == 200)
    assert shown(UNIT, "MainPID") == pid
    return f"ready {time.monotonic() - begun:.1f} s after the driver"


def runs(pid):
    """Whether one of the process's threads does. A signal reaches them one after the other."""
    states = []
    for file in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.append(file.read_text().rpartition(")")[2].split()[0])
        except OSError:
            pass
    return any(state not in "TZX" for state in states)


def kill_and_stop():
    """a killed process is back and a stopped one is found by the watchdog (3 s here), and nobody is refused"""
    drop_in(UNIT, "[Service]\nWatchdogSec=3\n")
    must("systemctl", "restart", UNIT)
    took = []
    for wanted in (signal.SIGKILL, signal.SIGSTOP):
        pid = shown(UNIT, "MainPID")
        begun = time.monotonic()
        os.kill(int(pid), wanted)
        eventually("no thread of it runs", lambda: not runs(pid))
        assert get("/healthz", timeout=30)[0] == 200
        took.append(time.monotonic() - begun)
        assert shown(UNIT, "MainPID") != pid
    return f"{took[0]:.1f} s and {took[1]:.1f} s"


def moving_out():
    """nginx serves again within 5 s"""
    begun = time.monotonic()
    if not World.by_hand:
        must("ada2-sidecar", "move-out", "--yes")
    else:
        must("systemctl", "disable", "--now", SOCKET, UNIT)
        put_site_back()
    eventually("nginx serves", lambda: serves("nginx"), seconds=5 - (time.monotonic() - begun))
    return f"{time.monotonic() - begun:.1f} s"


def purging():
    """purge leaves nothing"""
    code, text = dpkg("--purge", "ada2-sidecar")
    assert code == 0, text
    if not LINK.exists() and World.by_hand:
        put_site_back()
    assert serves("nginx")
    left = differences(World.files, tree())
    assert not left, "\n".join(left[:40])
    units = must("systemctl", "list-units", "--all", "--plain", "--no-legend", "ada2*")
    assert not units, units
    return "files and units as before the installation"


def purging_while_it_serves():
    """a purge while the sidecar serves, in the middle of a refused upgrade, puts nginx back and leaves nothing, too"""
    installing()
    moving_in()
    configure(World.config + "\nmax_n: 2\n")
    assert dpkg("-i", BUILT.parent / "1.0.2-1.deb")[0] != 0 and KEPT.exists()
    return purging()


def without_systemd():
    """where no systemd runs (a container, an image) the package comes, changes its version and goes, and does nothing else"""
    hidden = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none /run/systemd; exec dpkg "$@"', "dpkg"]
    for arguments in (["-i", BUILT], ["-i", BUILT.parent / "1.0.1-1.deb"], ["--purge", "ada2-sidecar"]):
        must(*hidden, "--force-unsafe-io", *map(str, arguments))
    left = differences(World.files, tree())
    assert not left, "\n".join(left[:40])
    return "installed, upgraded, purged"


STEPS = [
    prepare, installing, moving_in, upgrading_under_load, configuration_error, refused_upgrade, environment_file,
    broken_upgrade, downgrading, late_driver, kill_and_stop, moving_out, purging, purging_while_it_serves,
    without_systemd,
]


def main():
    begun, since = time.monotonic(), now()
    for step in STEPS:
        started = time.monotonic()
        try:
            found = step()
        except (AssertionError, OSError, subprocess.SubprocessError):
            fault = traceback.format_exc(limit=-1)
            print(f"FAIL  {step.__doc__} ({step.__name__}): {fault}\n{journal(UNIT, since)[-3000:]}", flush=True)
            return 1
        print(f"ok    {step.__doc__}: {found} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{len(STEPS)} steps in {time.monotonic() - begun:.0f} s", flush=True)
    return 0


sys.exit(main())
