"""The hosts that guides are walked through on: a GPU host with a real systemd, and a Mac whose commands are stand-ins,
joined by a network of their own. Somebody called `me`, who may use sudo, sits at each."""

import base64
import json
import pathlib
import platform
import queue
import shutil
import subprocess
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOST = ROOT / "tests/systemd/host.sh"
GPU_ADDRESS, MAC_ADDRESS = "192.168.1.20", "192.168.1.10"
NAMES = f"127.0.0.1 localhost\n{GPU_ADDRESS} ada2 ada2.local\n{MAC_ADDRESS} ai2 ai2.local\n"
COMMANDS = ("launchctl", "sysadminctl", "dscl", "plutil", "scutil", "lsof", "xattr")
# Nothing that a guide's reader would wait for takes longer.
PATIENCE = 90


def must(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, **more)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, command))}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class Terminal:
    """A shell that stays open, as the reader's does: directory and variables are kept from block to block."""

    def __init__(self, command):
        self.shell = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.shell.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def paste(self, text):
        """The exit status of the last command, what was printed, and which command failed before the last, if one did."""
        encoded = base64.b64encode(text.encode()).decode()
        self.shell.stdin.write(
            ("failed=; trap 'failed=\"$? of $BASH_COMMAND\"' ERR; "
             f'eval "$(echo {encoded} | base64 -d)" </dev/null; '
             "printf '\\036%s\\036%s\\n' \"$?\" \"${failed%%$'\\n'*}\"; trap - ERR\n").encode())
        self.shell.stdin.flush()
        printed, end = "", time.monotonic() + PATIENCE
        while True:
            try:
                line = self.lines.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                return 124, printed, f"nothing more within {PATIENCE} s"
            if line is None:
                return 1, printed, "the shell ended"
            before, mark, rest = line.decode(errors="replace").partition("\x1e")
            printed += before
            if mark:
                status, _, failed = rest.rstrip("\n").partition("\x1e")
                return int(status), printed, failed

    def close(self):
        self.shell.stdin.close()
        self.shell.kill()
        self.shell.wait()


class GpuHost:
    """A systemd in namespaces, with nginx, a driver library and a card that are made up."""

    def __init__(self, directory):
        self.directory = directory / "gpu-host"
        self.directory.mkdir()
        log = open(self.directory / "start", "w+")
        subprocess.run(["bash", HOST, self.directory, "start"], stdout=log, stderr=log, timeout=60, check=True)
        self.leader = int((self.directory / "leader").read_text())
        self.root = pathlib.Path(f"/proc/{self.leader}/root")
        (self.root / "etc/hosts").write_text(NAMES)
        self.run("hostname", "ada2")
        self.run("useradd", "-m", "-s", "/bin/bash", "-G", "adm,systemd-journal", "me")
        sudoer(self.root, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")

    def run(self, *command):
        """As root."""
        return must("bash", HOST, self.directory, "run", *command)

    def cards(self, library):
        """Two of them, where the system looks for the driver's library."""
        directory = self.root / "usr/lib" / f"{platform.machine()}-linux-gnu"
        shutil.copy(library, directory / "libnvidia-ml.so.1")
        second = {"index": 1, "uuid": "GPU-5ec0nd00-1234-5678-9abc-def012345678"}
        (directory / "scenario.json").write_text(json.dumps({"gpus": [{}, second]}))

    def terminal(self):
        return Terminal(["bash", HOST, self.directory, "run", "runuser", "-u", "me", "--", "env", "HOME=/home/me", "USER=me",
                         "bash", "-c", "cd; exec bash --norc"])

    def stop(self):
        subprocess.run(["bash", HOST, self.directory, "stop"], capture_output=True, timeout=60)


class Mac:
    """A copy-on-write root in namespaces, on the GPU host's network."""

    def __init__(self, directory, gpu_host):
        self.directory = directory / "mac"
        self.directory.mkdir()
        # `exec`: the sleeper is the first process, whose end is everybody's.
        # Everything else is done through its root.
        self.outer = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--net", "sh", "-euc", """
             mount --make-rprivate /
             mkdir "$1/layers"
             mount -t tmpfs -o mode=755 tmpfs "$1/layers"
             mkdir "$1/layers/upper" "$1/layers/work" "$1/layers/root"
             mount -t overlay overlay -o "lowerdir=/,upperdir=$1/layers/upper,workdir=$1/layers/work" "$1/layers/root"
             cd "$1/layers/root"
             mount -t proc proc proc
             mount -t devtmpfs dev dev 2>/dev/null || mount --rbind /dev dev
             mount -t tmpfs -o mode=1777 tmpfs tmp
             hostname ai2
             ip link set lo up
             exec chroot . sh -c 'touch /tmp/up; exec sleep infinity'
             """, "sh", self.directory], stdin=subprocess.DEVNULL, stdout=open(self.directory / "log", "w"), stderr=subprocess.STDOUT)
        try:
            self.start(gpu_host)
        except BaseException:
            self.stop()
            raise

    def start(self, gpu_host):
        self.leader = wait_for("the Mac's first process", self.first_process)
        self.root = pathlib.Path(f"/proc/{self.leader}/root")
        wait_for("the Mac", (self.root / "tmp/up").exists)
        (self.root / "tmp/up").unlink()
        # From outside, where both first processes have a number.
        must("nsenter", "-t", self.leader, "-n", "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns",
             gpu_host.leader)
        for host, address in ((self, MAC_ADDRESS), (gpu_host, GPU_ADDRESS)):
            host.run("ip", "address", "add", f"{address}/24", "dev", "lan0")
            host.run("ip", "link", "set", "lan0", "up")
        self.prepare()

    def first_process(self):
        children = pathlib.Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        if self.outer.poll() is not None:
            raise OSError("the Mac does not start")
        return int(children[0]) if children else None

    def prepare(self):
        (self.root / "etc/hosts").write_text(NAMES)
        mac = self.root / "opt/mac"
        (mac / "bin").mkdir(parents=True)
        shutil.copy(ROOT / "tests/macos/commands.py", mac / "commands.py")
        (mac / "calls").touch()
        (mac / "calls").chmod(0o666)
        for name in COMMANDS:
            shutil.copy(HERE / "mac_commands.py", mac / "bin" / name)
            (mac / "bin" / name).chmod(0o755)
        shutil.rmtree(self.root / "var/lib/gateway", ignore_errors=True)
        for path in ("usr/local/bin/gateway", "etc/newsyslog.d/com.ai.gateway.conf"):
            (self.root / path).unlink(missing_ok=True)
        for path in ("Library/LaunchDaemons", "etc/newsyslog.d"):
            (self.root / path).mkdir(parents=True, exist_ok=True)
        for group in ("wheel", "admin"):
            self.run("groupadd", "-f", group)
        self.run("useradd", "-m", "-s", "/bin/bash", "-G", "admin", "me")
        sudoer(self.root, "/opt/mac/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")

    def run(self, *command):
        """As root."""
        return must(*self.inside(), "env", "-i", "LANG=C.UTF-8",
                    "PATH=/opt/mac/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", *command)

    def inside(self):
        return ["nsenter", "-t", str(self.leader), "-m", "-u", "-n", "-p", "-r", "-w"]

    def terminal(self):
        return Terminal([*self.inside(), "setpriv", "--reuid=me", "--regid=me", "--init-groups", "env", "-i", "HOME=/home/me",
                         "USER=me", "LANG=C.UTF-8", "GATEWAY_READY_TIME=20",
                         "PATH=/opt/mac/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                         "bash", "-c", "cd; exec bash --norc"])

    def stop(self):
        self.outer.kill()
        self.outer.wait()


def sudoer(root, path):
    """Lets `me` use sudo without a password, as nobody types one here."""
    file = root / "etc/sudoers.d/guides"
    file.write_text(f'Defaults secure_path="{path}"\nDefaults !use_pty\nme ALL=(ALL) NOPASSWD: ALL\n')
    file.chmod(0o440)


def wait_for(what, ask, seconds=20):
    end = time.monotonic() + seconds
    while True:
        found = ask()
        if found:
            return found
        if time.monotonic() > end:
            raise OSError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
