"""What the hosts are like before a guide begins."""

import plistlib
import re
import shutil

from hosts import HERE, ROOT, must

OLD, IMAGE_JOB = "com.ai.gateway", "com.example.nexa-images"
STAND_INS = HERE / "stand_ins"


class Programs:
    """What is installed: the built programs, and the packages made of them."""

    def __init__(self, directory, built, nvml, deb):
        gateway = built / "gateway"
        self.sidecar, self.engine, self.nvml, self.deb = built / "ada2-sidecar", built / "fake-invokeai", nvml, deb
        self.version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
        self.tarball = directory / f"gateway-{self.version}-macos-arm64.tar.gz"
        must("sh", ROOT / "launchd/package.sh", gateway, self.tarball)


def setup(gpu_host, mac, programs):
    """A GPU host with a driver and nothing else. The package lies in `me`'s home, an engine where its unit expects it."""
    engine(gpu_host, programs)
    shutil.copy(programs.deb, gpu_host.root / "home/me" / programs.deb.name)


def installed(gpu_host, mac, programs):
    """Both programs in place, the sidecar with the engine that it has built in."""
    sidecar(gpu_host, programs)
    service(mac, "com.example.mlx", "mlx.py", "10240")
    (mac.root / "home/me" / programs.tarball.name).write_bytes(programs.tarball.read_bytes())
    mac.run("sh", "-euc", f"cd /home/me; tar xzf {programs.tarball.name}; cd gateway-*-arm64; "
            "sh ./install.sh >/home/me/install.log 2>&1 || { cat /home/me/install.log; exit 1; }; chown -R me: /home/me")
    inherit_directory_groups(mac)


def sidecar(host, programs):
    """From the package if there is one, else its files by hand."""
    if programs.deb:
        shutil.copy(programs.deb, host.root / "root" / programs.deb.name)
        host.run("dpkg", "-i", f"/root/{programs.deb.name}")
    else:
        unit = (ROOT / "systemd/ada2-sidecar.service").read_text()
        place = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)[1]
        shutil.copy(programs.sidecar, host.root / place.lstrip("/"))
        for name in ("ada2-sidecar.service", "ada2-sidecar.socket"):
            shutil.copy(ROOT / "systemd" / name, host.root / "usr/lib/systemd/system" / name)
        host.run("systemctl", "daemon-reload")
    config = host.root / "etc/ada2-sidecar/config.yaml"
    config.parent.mkdir(exist_ok=True)
    text = config.read_text() if config.exists() else ""
    config.write_text(text + "\nengine: builtin\nmin_free_memory: 0\n")
    config.chmod(0o644)
    host.run("systemctl", "enable", "--now", "ada2-sidecar.socket", "ada2-sidecar.service")


def migration(gpu_host, mac, programs):
    """The old set-up: nginx and a shim in front of the engine; on the Mac the old gateway and an image job."""
    engine(gpu_host, programs)
    install_unit(gpu_host, ROOT / "systemd/examples/invokeai.service")
    install_unit(gpu_host, STAND_INS / "images-shim.service")
    shutil.copy(STAND_INS / "nginx-site", gpu_host.root / "etc/nginx/sites-available/ada2")
    sites = gpu_host.root / "etc/nginx/sites-enabled"
    (sites / "default").unlink(missing_ok=True)
    (sites / "ada2").symlink_to("../sites-available/ada2")
    gpu_host.run("systemctl", "enable", "--now", "nginx.service")
    shutil.copy(programs.deb, gpu_host.root / "home/me" / programs.deb.name)

    shutil.copy(programs.tarball, mac.root / "home/me" / programs.tarball.name)
    mac.run("useradd", "-r", "-s", "/usr/sbin/nologin", "gateway")
    home = mac.root / "var/lib/gateway"
    for name in ("app", "data", "logs"):
        (home / name).mkdir(parents=True)
    shutil.copy(STAND_INS / "env", home / "app/.env")
    shutil.copy(STAND_INS / "backends_config.yaml", home / "app/backends_config.yaml")
    (home / "app/.env").chmod(0o600)
    mac.run("chown", "-R", "gateway:admin", "/var/lib/gateway")
    inherit_directory_groups(mac)
    service(mac, OLD, "old_gateway.py", "--port", "8800", user="gateway")
    service(mac, IMAGE_JOB, "mlx.py", "18181")
    service(mac, "com.example.mlx", "mlx.py", "10240")


def inherit_directory_groups(mac):
    """As every directory on macOS does, and on Linux those with this bit."""
    mac.run("sh", "-euc", "find /var/lib/gateway -type d -exec chmod 2750 {} +; chgrp -R admin /var/lib/gateway")


def service(mac, label, script, *arguments, user="root"):
    """A launchd job on the Mac that runs one of the stand-ins."""
    shutil.copy(STAND_INS / script, mac.root / "opt/mac" / script)
    file = mac.root / f"Library/LaunchDaemons/{label}.plist"
    command = ["/usr/bin/python3", f"/opt/mac/{script}", *arguments]
    file.write_bytes(plistlib.dumps({"Label": label, "ProgramArguments": command, "UserName": user, "KeepAlive": True}))
    mac.run("launchctl", "bootstrap", "system", f"/Library/LaunchDaemons/{label}.plist")


def install_unit(host, file):
    shutil.copy(file, host.root / "etc/systemd/system" / file.name)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "enable", "--now", file.name)


def engine(host, programs):
    """The stand-in for InvokeAI, where the example unit expects the real one, with the account that the unit names."""
    unit = (ROOT / "systemd/examples/invokeai.service").read_text()
    program = host.root / re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)[1].lstrip("/")
    program.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(programs.engine, host.root / "opt/fake-invokeai")
    program.write_text('#!/bin/sh\nexec /opt/fake-invokeai --port 9090 "$@"\n')
    program.chmod(0o755)
    host.run("useradd", "--system", "--home-dir", "/var/lib/invokeai", "--create-home", "invokeai")
