"""What install.sh, deploy.sh and rollback.sh do, step by step, on the stand-in for a Mac. A line for each check; exit
code 0 or 1."""

import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import http.server

from doctor import doctor

MAC = pathlib.Path("/opt/mac")
PACKAGE = MAC / "package"
BINARY = pathlib.Path("/usr/local/bin/gateway")
ENV_FILE = pathlib.Path("/var/lib/gateway/app/.env")
BACKENDS = pathlib.Path("/var/lib/gateway/app/backends_config.yaml")
LABEL = "com.ai.gateway"
OLD = "com.example.old-gateway"
COMMANDS = ["launchctl", "sysadminctl", "sudo", "dscl", "plutil", "scutil", "lsof", "xattr", "sw_vers", "pmset", "fdesetup",
            "socketfilterfw", "systemsetup", "security"]

failed = 0


def check(name, right, seen=""):
    global failed
    failed += not right
    print(f"{'ok  ' if right else 'FAIL'}  {name}{'' if right else f': {seen}'}", flush=True)


def run(script, *arguments):
    environment = {"PATH": f"{MAC}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GATEWAY_READY_TIME": "8", "GATEWAY_STOP_TIME": "45"}
    done = subprocess.run(["sh", str(PACKAGE / script), *arguments], env=environment, capture_output=True, text=True,
                          timeout=180)
    return done.returncode, done.stdout + done.stderr


def calls():
    """What the scripts called since the last time."""
    path = MAC / "calls"
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return text.splitlines()


def listens():
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", 8800)) == 0


def comes_up():
    for _ in range(100):
        if listens():
            return True
        time.sleep(0.05)
    return False


def sidecar():
    """Enough of a graphics host to be ready."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"status":"ready","checks":[]}' if self.path == "/readyz" else b"ok\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 7860), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def bad_binary(serve):
    """A new version that accepts the configuration and then does this."""
    path = MAC / "bad-gateway"
    path.write_text(f'#!/bin/sh\n[ "$1" = serve ] || exec /opt/mac/real "$@"\n{serve}\n')
    path.chmod(0o755)
    return str(path)


def prepare():
    (MAC / "bin").mkdir()
    for name in COMMANDS:
        shutil.copy(MAC / "commands.py", MAC / "bin" / name)
        (MAC / "bin" / name).chmod(0o755)
    shutil.copy(PACKAGE / "gateway", MAC / "real")
    for folder in ("/Library/LaunchDaemons", "/etc/newsyslog.d", "/usr/local/bin"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    shutil.rmtree("/var/lib/gateway", ignore_errors=True)
    BINARY.unlink(missing_ok=True)
    for group in ("wheel", "admin"):
        subprocess.run(["groupadd", "-f", group], check=True)
    # What Bonjour does on a Mac.
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"\n127.0.0.1 {socket.gethostname().split('.')[0]}.local\n")
    sidecar()


def old_gateway():
    script = MAC / "old.py"
    script.write_text("import http.server\nhttp.server.HTTPServer(('127.0.0.1', 8800), "
                      "http.server.SimpleHTTPRequestHandler).serve_forever()\n")
    path = f"/Library/LaunchDaemons/{OLD}.plist"
    pathlib.Path(path).write_text(
        '<?xml version="1.0"?><plist version="1.0"><dict><key>Label</key><string>' + OLD + "</string>"
        "<key>ProgramArguments</key><array><string>/usr/bin/env</string><string>python3</string>"
        f"<string>{script}</string></array></dict></plist>")
    subprocess.run([MAC / "bin/launchctl", "bootstrap", "system", path], check=True)
    if not comes_up():
        raise SystemExit("the stand-in for the old gateway does not listen")


def install():
    old_gateway()
    calls()
    code, text = run("install.sh")
    check("install.sh refuses a port that another service holds, and says how to take it",
          code == 1 and "--replace LABEL" in text and not BINARY.exists(), text)
    account = pwd.getpwnam("_gateway")
    check("the account has a number from 200 to 400", 200 <= account.pw_uid <= 400, account)
    mode = ENV_FILE.stat().st_mode & 0o777
    check("the env file is the account's alone and has a token",
          mode == 0o600 and re.search(r"^GATEWAY_BEARER_TOKEN=[0-9a-f]{48}$", ENV_FILE.read_text(), re.M), oct(mode))
    text = BACKENDS.read_text().replace("${ADA2_HOST:-ada2}", "127.0.0.1")
    BACKENDS.write_text(text.split("  # A server for chat")[0])

    good = ENV_FILE.read_text()
    ENV_FILE.write_text(good + "GATEWAY_PORT=what\n")
    code, text = run("install.sh", "--replace", OLD)
    check("a configuration that is not accepted stops nothing", code == 1 and "GATEWAY_PORT" in text and listens(), text)
    ENV_FILE.write_text(good)

    shutil.copy(bad_binary("exit 1"), PACKAGE / "gateway")
    code, text = run("install.sh", "--replace", OLD)
    names = [line for line in calls() if line.startswith("launchctl b")]
    check("a gateway that does not come up gives the port back to the old one",
          code == 1 and comes_up() and names[-1] == f"launchctl bootstrap system /Library/LaunchDaemons/{OLD}.plist", text)

    shutil.copy(MAC / "real", PACKAGE / "gateway")
    code, text = run("install.sh", "--replace", OLD)
    made = calls()
    check("install.sh --replace ends with a verified gateway", code == 0 and "gateway ca" in text, text)
    check("no step uses load, unload or kickstart",
          not [line for line in made if re.match(r"launchctl (load|unload|kickstart)", line)], made)
    log = pathlib.Path("/var/lib/gateway/logs/gateway.log")
    check("it logs where newsyslog rotates", log.exists() and str(log) in
          pathlib.Path("/etc/newsyslog.d/com.ai.gateway.conf").read_text())
    code, text = run("install.sh")
    check("installing again changes nothing that is there", code == 0 and ENV_FILE.read_text() == good, text)


def deploy():
    calls()
    ENV_FILE.write_text(ENV_FILE.read_text())
    code, text = run("deploy.sh")
    check("deploy.sh replaces the binary and restarts by SIGTERM",
          code == 0 and f"launchctl kill SIGTERM system/{LABEL}" in calls(), text)
    for name, serve in (("ends at once", "exit 1"), ("hangs", "exec sleep 600")):
        code, text = run("deploy.sh", bad_binary(serve))
        check(f"a new binary that {name} is taken back", code == 1 and "previous gateway runs again" in text, text)
        check("and the one before serves", listens() and BINARY.read_bytes() == (MAC / "real").read_bytes())
    refuses = MAC / "refuses"
    refuses.write_text('#!/bin/sh\n[ "$1" = check-config ] && { echo "GATEWAY_X: not known" >&2; exit 78; }\n'
                       'exec /opt/mac/real "$@"\n')
    refuses.chmod(0o755)
    calls()
    code, text = run("deploy.sh", str(refuses))
    check("a new binary that refuses the configuration touches nothing",
          code == 1 and "GATEWAY_X" in text and not [c for c in calls() if c.startswith("launchctl kill")], text)


def rollback():
    code, text = run("rollback.sh", "mock")
    check("rollback.sh mock sets it in the env file and restarts",
          code == 0 and "IMAGES_BACKEND=mock" in ENV_FILE.read_text(), text)
    check("the env file keeps owner and mode", ENV_FILE.stat().st_uid == pwd.getpwnam("_gateway").pw_uid
          and ENV_FILE.stat().st_mode & 0o777 == 0o600)
    code, text = run("rollback.sh", "http")
    check("rollback.sh http takes it back", code == 0 and "IMAGES_BACKEND=mock" not in ENV_FILE.read_text(), text)
    code, text = run("rollback.sh", "previous")
    check("rollback.sh previous runs the binary before", code == 0, text)
    code, text = run("rollback.sh", "old")
    check("rollback.sh old brings the old gateway back", code == 0 and comes_up(), text)
    check("usage for anything else", run("rollback.sh", "what")[0] == 1)


os.chdir("/")
prepare()
install()
doctor(check)
deploy()
rollback()
for file in (MAC / "state").glob("*"):
    label = file.name
    subprocess.run([MAC / "bin/launchctl", "bootout", f"system/{label}"], capture_output=True)
print("all passed" if not failed else f"{failed} failed")
sys.exit(bool(failed))
