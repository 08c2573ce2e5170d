#!/usr/bin/env python3
"""The stand-ins of tests/macos, with what people type besides: `launchctl list`, signals, `lsof` for reading."""

import os
import pathlib
import re
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, "/opt/mac")
import commands  # noqa: E402


def launchctl(verb, *arguments):
    if verb == "list":
        print("PID\tStatus\tLabel")
        for file in sorted(commands.STATE.glob("system_*")):
            job = commands.job(file.name)
            if job:
                print(f"{job.get('pid', '-')}\t0\t{file.name.removeprefix('system_')}")
        return 0
    if verb == "kill":
        job = commands.job(arguments[1])
        if not job or "pid" not in job:
            print("Could not find service", file=sys.stderr)
            return 113
        os.kill(job["pid"], signal.Signals[f"SIG{arguments[0].upper().removeprefix('SIG')}"])
        return 0
    if verb not in ("print", "bootstrap", "bootout", "enable", "disable", "kickstart"):
        print(f"Unrecognized subcommand: {verb}", file=sys.stderr)
        return 64
    return commands.launchctl(verb, *arguments)


def lsof(*arguments):
    """As people read it, where no fields (-F) are asked for."""
    if any(argument.startswith("-F") for argument in arguments):
        return commands.lsof(*arguments)
    port = next(argument for argument in arguments if argument.startswith("-iTCP:")).removeprefix("-iTCP:")
    found = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    print("COMMAND   PID USER   FD   TYPE DEVICE SIZE/OFF NODE NAME")
    for name, process in re.findall(r'"([^"]+)",pid=(\d+)', found):
        print(f"{name}  {process}  -  -  IPv4  -  0t0  TCP *:{port} (LISTEN)")
    return 0 if found else 1


if __name__ == "__main__":
    name = pathlib.Path(sys.argv[0]).name
    commands.record(name, sys.argv[1:])
    sys.exit(globals().get(name, getattr(commands, name, None))(*sys.argv[1:]))
