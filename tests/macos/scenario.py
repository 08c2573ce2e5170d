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
import urllib.request

from doctor import doctor

MAC = pathlib.Path("/opt/mac")
PACKAGE = MAC / "package"
BINARY = pathlib.Path("/usr/local/bin/gateway")
PREVIOUS = pathlib.Path("/usr/local/bin/gateway.previous")
ENV_FILE = pathlib.Path("/var/lib/gateway/app/.env")
BACKENDS = pathlib.Path("/var/lib/gateway/app/backends_config.yaml")
LABEL = "com.ai.gateway"
OLD = "com.example.old-gateway"
COMMANDS = ["launchctl", "sysadminctl", "sudo", "dscl", "plutil", "scutil", "lsof", "install", "xattr", "sw_vers", "pmset", "fdesetup",
            "socketfilterfw", "systemsetup", "security"]

failed = 0


def check(name, right, seen=""):
    global failed
    failed += not right
    print(f"{'ok  ' if right else 'FAIL'}  {name}{'' if right else f': {seen}'}", flush=True)


def run(script, *arguments):
    environment = {"PATH": f"{MAC}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GATEWAY_READY_TIME": "8", "GATEWAY_STOP_TIME": "45",
                   "SUDO_UID": "501", "SUDO_USER": "root"}
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


def answers_as_old():
    """The old gateway speaks plain HTTP."""
    try:
        return urllib.request.urlopen("http://127.0.0.1:8800/", timeout=5).status == 200
    except OSError:
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
    # A probe that is given up is no fault.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def binary(name, text):
    """Another version of the gateway."""
    path = MAC / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def bad_binary(serve):
    """A new version that accepts the configuration and then does this."""
    return binary("bad-gateway", f'[ "$1" = serve ] || exec /opt/mac/real "$@"\n{serve}')


def prepare():
    (MAC / "bin").mkdir()
    for name in COMMANDS:
        shutil.copy(MAC / "commands.py", MAC / "bin" / name)
        (MAC / "bin" / name).chmod(0o755)
    shutil.copy(PACKAGE / "gateway", MAC / "real")
    for directory in ("/Library/LaunchDaemons", "/etc/newsyslog.d"):
        pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    shutil.rmtree("/var/lib/gateway", ignore_errors=True)
    BINARY.unlink(missing_ok=True)
    for group in ("wheel", "admin"):
        subprocess.run(["groupadd", "-f", group], check=True)
    # What Bonjour does on a Mac; another address than loopback's first, as a Mac in a network has.
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"\n127.0.0.2 {socket.gethostname().split('.')[0]}.local\n")
    return sidecar()


def old_gateway():
    script = MAC / "old.py"
    script.write_text("import http.server\nhttp.server.HTTPServer(('0.0.0.0', 8800), "
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

    good = ENV_FILE.read_text() + "HEALTH_CHECK_INTERVAL_SEC=1\n"
    ENV_FILE.write_text(good + "GATEWAY_PORT=what\n")
    code, text = run("install.sh", "--replace", OLD)
    check("a configuration that is not accepted stops nothing", code == 1 and "GATEWAY_PORT" in text and listens(), text)
    ENV_FILE.write_text(good.replace("GATEWAY_HOST=", "#"))
    code, text = run("install.sh", "--replace", OLD)
    check("a gateway that other machines reach is not replaced by one that they do not",
          code == 1 and "GATEWAY_HOST=0.0.0.0" in text and not BINARY.exists() and listens(), text)
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
    check("no step uses load, unload or kickstart -k",
          not [line for line in made if re.match(r"launchctl (load|unload|kickstart -k)", line)], made)
    check("the man page is where man looks", pathlib.Path("/usr/local/share/man/man8/gateway.8").exists())
    directories = [pathlib.Path(directory) for directory in ("/usr/local/bin", "/usr/local/share", "/usr/local/share/man/man8", "/var/lib")]
    check("every account may pass the directories that a new Mac has not", all(
        directory.stat().st_mode & 0o777 == 0o755 for directory in directories), directories)
    log = pathlib.Path("/var/lib/gateway/logs/gateway.log")
    check("it logs where newsyslog rotates", log.exists() and str(log) in
          pathlib.Path("/etc/newsyslog.d/com.ai.gateway.conf").read_text())
    code, text = run("install.sh")
    check("installing again changes nothing that is there", code == 0 and ENV_FILE.read_text() == good, text)

    previous = PREVIOUS.read_bytes() if PREVIOUS.exists() else None
    subprocess.run([MAC / "bin/launchctl", "bootout", f"system/{LABEL}"], check=True)
    while subprocess.run([MAC / "bin/launchctl", "print", f"system/{LABEL}"], capture_output=True).returncode == 0:
        time.sleep(0.05)
    shutil.copy(bad_binary("exit 1"), PACKAGE / "gateway")
    code, text = run("install.sh")
    check("over a gateway that was stopped, one that does not come up is reported", code == 1 and "did not start" in text, text)
    shutil.copy(MAC / "real", PACKAGE / "gateway")
    code, text = run("install.sh")
    check("and one that does is verified", code == 0 and "0 failed" in text, text)
    if previous is None:
        PREVIOUS.unlink()
    else:
        PREVIOUS.write_bytes(previous)


def deploy():
    calls()
    before = PREVIOUS.read_bytes()
    code, text = run("deploy.sh")
    check("deploy.sh restarts the installed binary by SIGTERM, and keeps the previous one",
          code == 0 and f"launchctl kill SIGTERM system/{LABEL}" in calls() and PREVIOUS.read_bytes() == before, text)
    code, text = run("deploy.sh", binary("next", 'exec /opt/mac/real "$@"'))
    made = calls()
    check("deploy.sh replaces the binary and keeps the one before",
          code == 0 and PREVIOUS.read_bytes() == (MAC / "real").read_bytes() != BINARY.read_bytes(), text)
    tried = next(number for number, call in enumerate(made) if call.startswith("sudo"))
    check("the quarantine is taken off before the new binary runs",
          f"xattr -d com.apple.quarantine {MAC}/next" in made[:tried], made)
    run("deploy.sh", f"{MAC}/next")
    check("deploying the same again does not lose the one before", PREVIOUS.read_bytes() == (MAC / "real").read_bytes())
    (MAC / "other.env").write_text(re.sub("BEARER_TOKEN=.*", "BEARER_TOKEN=another-token-0123456789", ENV_FILE.read_text()))
    (MAC / "other.env").chmod(0o644)
    for name, serve in (
            ("ends at once", "exit 1"), ("hangs", "exec sleep 600"),
            ("serves and does not pass verify", "exec /opt/mac/real serve --env-file /opt/mac/other.env"),
            ("only this Mac reaches", "exec /opt/mac/real serve --gateway-host 127.0.0.1")):
        code, text = run("deploy.sh", bad_binary(serve))
        check(f"a new binary that {name} is taken back", code == 1 and "previous gateway runs again" in text, text)
        check("and the one before serves", listens() and BINARY.read_bytes() == (MAC / "next").read_bytes())
    check("and the address is named", "cannot be reached at https://" in text, text)
    refuses = binary("refuses", '[ "$1" = check-config ] && { echo "GATEWAY_X: not known" >&2; exit 78; }\n'
                                'exec /opt/mac/real "$@"')
    calls()
    code, text = run("deploy.sh", refuses)
    check("a new binary that refuses the configuration touches nothing",
          code == 1 and "GATEWAY_X" in text and not [c for c in calls() if c.startswith("launchctl kill")], text)


def failing_deploy(graphics_host):
    """What was wrong before a deployment is no reason to take it back."""
    graphics_host.shutdown()
    graphics_host.server_close()
    verify = ["sudo", "-u", "_gateway", "-H", BINARY, "verify", "--env-file", ENV_FILE, "--backends", BACKENDS]
    for _ in range(300):
        if "FAIL  images backend" in subprocess.run([MAC / "bin" / verify[0], *verify[1:]], capture_output=True, text=True).stdout:
            break
        time.sleep(0.05)
    hosts = pathlib.Path("/etc/hosts")
    original = hosts.read_text()
    hosts.write_text(original.replace(".local\n", ".elsewhere\n"))
    code, text = run("deploy.sh", binary("later", 'exec  /opt/mac/real "$@"'))
    check("neither a graphics host that is off nor an unresolvable name rolls a deployment back", code == 0, text)
    subprocess.run([MAC / "bin/launchctl", "bootout", f"system/{LABEL}"], check=True)
    hosts.write_text(original)
    code, text = run("deploy.sh", binary("last", 'exec   /opt/mac/real "$@"'))
    check("nor does a gateway that was stopped", code == 0, text)


def rollback():
    code, text = run("rollback.sh", "mock")
    check("rollback.sh mock sets it in the env file and restarts",
          code == 0 and "IMAGES_BACKEND=mock" in ENV_FILE.read_text(), text)
    check("the env file keeps owner and mode", ENV_FILE.stat().st_uid == pwd.getpwnam("_gateway").pw_uid
          and ENV_FILE.stat().st_mode & 0o777 == 0o600)
    code, text = run("rollback.sh", "http")
    check("rollback.sh http takes it back", code == 0 and "IMAGES_BACKEND=mock" not in ENV_FILE.read_text(), text)
    now, before = BINARY.read_bytes(), PREVIOUS.read_bytes()
    code, text = run("rollback.sh", "previous")
    check("rollback.sh previous swaps the binary with the previous one",
          code == 0 and (BINARY.read_bytes(), PREVIOUS.read_bytes()) == (before, now), text)
    code, text = run("rollback.sh", "old")
    check("rollback.sh old brings the old gateway back", code == 0 and answers_as_old(), text)
    # From now on it is an agent of the person who uses the Mac.
    subprocess.run([MAC / "bin/launchctl", "bootout", f"system/{OLD}"], check=True)
    agent = pathlib.Path(f"/root/Library/LaunchAgents/{OLD}.plist")
    agent.parent.mkdir(parents=True)
    shutil.move(f"/Library/LaunchDaemons/{OLD}.plist", agent)
    while listens():
        time.sleep(0.05)
    subprocess.run([MAC / "bin/launchctl", "bootstrap", "gui/501", agent], check=True)
    check("the old gateway as an agent", comes_up())
    code, text = run("install.sh", "--replace", OLD)
    check("install.sh --replace finds an agent, too", code == 0 and not answers_as_old(), text)
    notes = pathlib.Path("/Library/Application Support") / LABEL
    owners = {path.stat().st_uid for path in [notes, *notes.rglob("*")]}
    check("what root notes for the way back is root's alone", owners == {0}, owners)
    shutil.rmtree(notes)
    code, text = run("rollback.sh", "old")
    check("without the record a plist is required", code == 1 and "rollback.sh old PLIST" in text, text)
    code, text = run("rollback.sh", "old", str(agent))
    check("rollback.sh old PLIST starts that one", code == 0 and answers_as_old(), text)
    check("usage for anything else", run("rollback.sh", "what")[0] == 1)


def remove_jobs():
    """A job of the system, one of the person who uses the Mac, and one that is not loaded."""
    agents = pathlib.Path("/root/Library/LaunchAgents")
    for domain, directory, label in (("system", pathlib.Path("/Library/LaunchDaemons"), "com.example.pictures"),
                                  ("gui/501", agents, "com.example.agent"), (None, agents, "com.example.idle")):
        path = directory / f"{label}.plist"
        path.write_text(f'<?xml version="1.0"?><plist version="1.0"><dict><key>Label</key><string>{label}</string>'
                        "<key>ProgramArguments</key><array><string>/usr/bin/sleep</string><string>600</string></array>"
                        "</dict></plist>")
        runs = lambda: subprocess.run([MAC / "bin/launchctl", "print", f"{domain}/{label}"], capture_output=True).returncode == 0
        if domain:
            subprocess.run([MAC / "bin/launchctl", "bootstrap", domain, path], check=True)
        code, text = run("install.sh", "--remove-job", label)
        check(f"--remove-job stops {label} and keeps its plist", code == 0 and not (domain and runs()) and not path.exists()
              and path.with_name(path.name + ".removed").exists() and f"rollback.sh job {label}" in text, text)
        check("and does nothing a second time", run("install.sh", "--remove-job", label)[0] == 1)
        code, text = run("rollback.sh", "job", label)
        check(f"rollback.sh job brings {label} back", code == 0 and path.exists() and (runs() or not domain), text)
        check("and does nothing a second time", run("rollback.sh", "job", label)[0] == 1)
    for label in (LABEL, "com.apple.mDNSResponder", "../etc/x", "com.example.unknown"):
        code, text = run("install.sh", "--remove-job", label)
        check(f"--remove-job {label} is refused", code == 1, text)


os.chdir("/")
graphics_host = prepare()
install()
doctor(check)
deploy()
rollback()
remove_jobs()
run("install.sh", "--replace", OLD)
failing_deploy(graphics_host)
for file in (MAC / "state").glob("*"):
    subprocess.run([MAC / "bin/launchctl", "bootout", file.name.replace("_", "/", 1)], capture_output=True)
print("all passed" if not failed else f"{failed} failed")
sys.exit(bool(failed))
