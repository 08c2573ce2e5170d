#!/usr/bin/env python3
"""The stand-ins of tests/macos, with what people type besides: `launchctl list` and other verbs, `lsof` for any port."""

import os
import pathlib
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, "/opt/mac")
import commands  # noqa: E402


def launchctl(verb, *arguments):
    commands.STATE.mkdir(exist_ok=True)
    jobs = {file.name: commands.job(file.name) for file in commands.STATE.glob("*") if file.suffix != ".out"}
    if verb == "list":
        print("PID\tStatus\tLabel")
        for label, job in sorted(jobs.items()):
            if isinstance(job, dict):
                print(f"{job.get('pid', '-')}\t0\t{label}")
        return 0
    if verb == "kill":
        job = jobs.get(arguments[1].removeprefix("system/"))
        if not job:
            print("Could not find service", file=sys.stderr)
            return 113
        name = arguments[0].upper().removeprefix("SIG")
        os.kill(job["pid"], signal.Signals[f"SIG{name}"])
        return 0
    if verb == "kickstart":
        job = jobs.get(arguments[-1].removeprefix("system/"))
        if not job:
            return 113
        os.kill(job["pid"], signal.SIGTERM)
        return 0
    if verb not in ("print", "bootstrap", "bootout", "enable", "disable"):
        print(f"Unrecognized subcommand: {verb}\nUsage: launchctl <subcommand> ... | help [subcommand]", file=sys.stderr)
        return 64
    return commands.launchctl(verb, *arguments)


def lsof(*arguments):
    """Who listens on the port, as `lsof -nP -iTCP:PORT -sTCP:LISTEN [-F…]` says it."""
    port = next(word for word in arguments if word.startswith("-iTCP:")).removeprefix("-iTCP:")
    listed = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True).stdout
    if 'users:(("' not in listed:
        return 1
    name, rest = listed.split('users:(("')[1].split('"', 1)
    pid = rest.split("pid=")[1].split(",")[0]
    if any(word.startswith("-F") for word in arguments):
        print(f"p{pid}\nc{name}")
    else:
        print(f"COMMAND   PID USER   FD   TYPE DEVICE SIZE/OFF NODE NAME\n{name}  {pid}  -  TCP *:{port} (LISTEN)")
    return 0


if __name__ == "__main__":
    name = pathlib.Path(sys.argv[0]).name
    commands.record(name, sys.argv[1:])
    sys.exit(globals().get(name, getattr(commands, name, None))(*sys.argv[1:]))
