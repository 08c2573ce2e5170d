#!/usr/bin/env python3
"""macOS's commands as far as the scripts use them: each call is recorded, launchctl starts and restarts what a plist
says, as launchd does."""

import json
import os
import pathlib
import plistlib
import pwd
import re
import signal
import socket
import subprocess
import sys
import time

STATE = pathlib.Path("/opt/mac/state")


def record(name, arguments):
    with open("/opt/mac/calls", "a") as calls:
        calls.write(" ".join([name, *arguments]) + "\n")


def job(service):
    try:
        return json.loads((STATE / service.replace("/", "_")).read_text())
    except (OSError, ValueError):
        return None


def supervise(service, path):
    """As launchd with KeepAlive: ThrottleInterval counts from start to start, and kickstart does not wait for it."""
    plist = plistlib.loads(pathlib.Path(path).read_bytes())
    user = pwd.getpwnam(plist.get("UserName", "root"))
    environment = {"PATH": "/usr/bin:/bin", **plist.get("EnvironmentVariables", {})}
    state = STATE / service.replace("/", "_")
    out, kick = state.with_name(state.name + ".out"), state.with_name(state.name + ".kick")
    while not out.exists():
        kick.unlink(missing_ok=True)
        errors = open(plist.get("StandardErrorPath", "/dev/null"), "ab")
        process = subprocess.Popen(
            plist["ProgramArguments"], env=environment, cwd=plist.get("WorkingDirectory", "/"), stdout=errors,
            stderr=errors, user=user.pw_uid, group=user.pw_gid, umask=plist.get("Umask", 0o22))
        state.write_text(json.dumps({"pid": process.pid, "path": path}))
        again = time.monotonic() + plist.get("ThrottleInterval", 10)
        process.wait()
        state.write_text(json.dumps({"path": path}))
        while time.monotonic() < again and not kick.exists() and not out.exists():
            time.sleep(0.05)
    state.unlink()
    out.unlink()


def setting(name, default):
    """What a scenario has changed of this Mac."""
    try:
        return json.loads(pathlib.Path("/opt/mac/settings.json").read_text()).get(name, default)
    except OSError:
        return default


def launchctl(verb, *arguments):
    STATE.mkdir(exist_ok=True)
    service = arguments[-1] if arguments else ""
    if verb == "print-disabled":
        print("disabled services = {")
        for name in sorted(disabled()):
            print(f'\t"{name.removeprefix("system/")}" => disabled')
        print("}")
        return 0
    if verb == "bootstrap":
        return bootstrap(*arguments)
    if verb in ("enable", "disable"):
        names = disabled() - {service} if verb == "enable" else disabled() | {service}
        (STATE / "disabled").write_text(json.dumps(sorted(names)))
        return 0
    found = job(service)
    if found is None:
        name = service.removeprefix("system/")
        print(f'Bad request.\nCould not find service "{name}" in domain for system', file=sys.stderr)
        return 113
    if verb == "print":
        print(f"{service} = {{\n\tpath = {found['path']}")
        print(f"\tstate = {'running' if 'pid' in found else 'spawn scheduled'}")
        if "pid" in found:
            print(f"\tpid = {found['pid']}")
        print("}")
    if verb == "kickstart":
        if "pid" in found:
            return 37
        (STATE / f"{service.replace('/', '_')}.kick").touch()
    if verb == "bootout":
        (STATE / f"{service.replace('/', '_')}.out").touch()
    if verb in ("bootout", "kill") and "pid" in found:
        os.kill(found["pid"], signal.SIGTERM)
    return 0


def bootstrap(domain, path):
    service = f"{domain}/{plistlib.loads(pathlib.Path(path).read_bytes())['Label']}"
    if job(service) is not None or service in disabled():
        print("Bootstrap failed: 5: Input/output error", file=sys.stderr)
        return 5
    (STATE / service.replace("/", "_")).write_text(json.dumps({"path": path}))
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            supervise(service, path)
        os._exit(0)
    return 0


def disabled():
    try:
        return set(json.loads((STATE / "disabled").read_text()))
    except OSError:
        return set()


def sysadminctl(*arguments):
    name, number = arguments[1], arguments[arguments.index("-UID") + 1]
    return subprocess.call(["useradd", "-r", "-u", number, "-d", "/var/lib/gateway", "-s", "/usr/sbin/nologin", name])


def sudo(*arguments):
    user, rest = arguments[1], arguments[3:]
    found = pwd.getpwnam(user)
    os.execvp("setpriv", ["setpriv", f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}", "--clear-groups", *rest])


def dscl(*arguments):
    if arguments[1] == "-read":
        print(f"{arguments[3]}: {pwd.getpwnam(pathlib.Path(arguments[2]).name).pw_dir}")
        return 0
    for user in pwd.getpwall():
        print(user.pw_name, user.pw_uid)
    return 0


def plutil(*arguments):
    if arguments[0] == "-convert":
        try:
            print(json.dumps(plistlib.loads(pathlib.Path(arguments[-1]).read_bytes())))
        except Exception:
            print(f"{arguments[-1]}: Property List error: Encountered unexpected EOF / JSON error: JSON text did not start",
                  file=sys.stderr)
            return 1
        return 0
    print(plistlib.loads(pathlib.Path(arguments[-1]).read_bytes())[arguments[1]])
    return 0


def scutil(*_):
    print(socket.gethostname().split(".")[0])
    return 0


def lsof(*arguments):
    """Who listens on the port that is asked for."""
    port = next(argument for argument in arguments if argument.startswith("-iTCP:")).removeprefix("-iTCP:")
    found = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    for address, process in re.findall(r"(\S+):\d+ .*pid=(\d+)", found):
        print(f"p{process}\ncpython\nn{address.replace('0.0.0.0', '*')}:{port}")
    return 0 if found else 1


def install(*arguments):
    """As BSD's: directories above the one that is asked for are made as the umask says."""
    if "-d" in arguments:
        pathlib.Path(arguments[-1]).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.execv("/usr/bin/install", ["install", *arguments])


def xattr(verb, *_):
    # Nothing is quarantined: printing the attribute fails, removing it does not matter.
    return 1 if verb == "-p" else 0


def sw_vers(*_):
    print("ProductName:\t\tmacOS\nProductVersion:\t\t15.7\nBuildVersion:\t\t24G222")
    return 0


def pmset(*_):
    print("System-wide power settings:\n SleepDisabled\t\t0\nCurrently in use:\n Sleep On Power Button 1")
    print(f" autorestart          {setting('autorestart', 1)}\n sleep                {setting('sleep', 0)}\n womp                 1")
    return 0


def fdesetup(*_):
    print(f"FileVault is {setting('filevault', 'Off')}.")
    return 0


def socketfilterfw(verb, *arguments):
    state = setting("firewall", 1)
    if verb == "--getglobalstate":
        print(f"Firewall is {'enabled' if state else 'disabled'}. (State = {state})")
    elif verb == "--getblockall":
        print("Firewall has block all state set to disabled.")
    else:
        print(setting("firewall_app", f"Incoming connection to {arguments[0]} is permitted"))
    return 0


def systemsetup(*_):
    if os.geteuid() != 0:
        print("You need administrator access to run this tool... exiting!")
        return 0
    print(f"Network Time: {setting('network_time', 'On')}")
    return 0


def security(*_):
    if setting("trusted", True):
        print("...certificate verification successful.")
        return 0
    print("Cert Verify Result: CSSMERR_TP_NOT_TRUSTED", file=sys.stderr)
    return 1


if __name__ == "__main__":
    name = os.path.basename(sys.argv[0])
    record(name, sys.argv[1:])
    sys.exit(globals()[name](*sys.argv[1:]))
