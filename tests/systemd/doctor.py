"""`ada2-sidecar doctor` on a host that is as it should be, and on hosts that are broken in one thing each: that thing is
named with the way out, and nothing else cries. Run inside the machine: `doctor.py [names of what is broken]`."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from broken import BROKEN
from good_host import ENV, GOOD, HELD, UNDO, good, ready, restart, set_up, write
from guest import UNIT, configure, drop_in, run, shown


def doctor(*arguments, user=None):
    """The exit code, and every finding."""
    behind = ["runuser", "-u", user, "--"] if user else []
    code, text = run(*behind, "ada2-sidecar", "doctor", "--json", *arguments)
    return code, json.loads(text)["checks"]


def open_ones(checks):
    """What is not as it should be."""
    return [check for check in checks if check["status"] in ("warn", "fail")]


def undo():
    while HELD:
        HELD[-1].kill()
        HELD.pop().wait()
    while UNDO:
        UNDO.pop()()
    pid = shown(UNIT, "MainPID")
    if pid != "0":
        os.kill(int(pid), signal.SIGCONT)


def no_alert_fires():
    """as root and as an ordinary user, with an engine, with a token, with an image"""
    begun = time.monotonic()
    code, checks = doctor()
    took = time.monotonic() - begun
    assert code == 0 and not open_ones(checks), open_ones(checks)
    told = {check["name"] for check in checks if check["status"] == "ok"}
    assert len(told) >= 18, sorted(told)
    code, seen = doctor(user="nobody")
    assert code == 0 and not open_ones(seen), open_ones(seen)
    write(ENV, "ADA2_TOKEN=sesame-sesame-1\n", 0o600)
    configure(GOOD.replace("engine: invokeai", "engine: builtin"))
    restart()
    ready()
    code, checks = doctor("--generate")
    made = [check["message"] for check in checks if check["name"] == "generate"]
    assert code == 0 and not open_ones(checks) and made and "(png)" in made[0], checks
    code, seen = doctor(user="nobody")
    skipped = [check for check in seen if check["name"] == "configuration"]
    assert code == 0 and not open_ones(seen) and "sudo" in skipped[0]["message"], seen
    outputs, token = pathlib.Path("/home/somebody/outputs"), ENV.parent / "token"
    outputs.mkdir(parents=True, exist_ok=True)
    write(token, "sesame-sesame-1\n", 0o600)
    ENV.unlink()
    drop_in(UNIT, f"[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=\"-{outputs}\"\nLoadCredential=token:{token}\n")
    configure(GOOD.replace("engine: invokeai", "engine: builtin") + f"engine_output_dir: {outputs}\n")
    restart()
    ready()
    code, checks = doctor("--generate")
    assert code == 0 and not open_ones(checks), open_ones(checks)
    assert {"token", "output_folder", "generate"} <= {check["name"] for check in checks if check["status"] == "ok"}, checks
    code, seen = doctor(user="nobody")
    assert code == 0 and not open_ones(seen), open_ones(seen)
    return f"{len(told)} things are ok, told in {took:.1f} s; {made[0]}"


def expected(check):
    """Of the docstring: name, status, a part of the fix."""
    for line in check.__doc__.splitlines():
        head, fix = line.strip().split(": ", 1)
        yield (*head.split(), fix)


def examine(check):
    check()
    code, checks = doctor()
    found, wanted = open_ones(checks), list(expected(check))
    fits = len(found) == len(wanted) and all(
        one["name"] == name and one["status"] == status and fix in one["fix"]
        for one, (name, status, fix) in zip(found, wanted, strict=True)
    )
    fails = any(status == "fail" for _, status, _ in wanted)
    assert fits and code == int(fails), f"exit code {code}, {json.dumps(found)}"


def main(names):
    begun, failed, seen = time.monotonic(), 0, 0
    if names and not {check.__name__ for check in [no_alert_fires, *BROKEN]} & set(names):
        return 0
    set_up()
    if not names or no_alert_fires.__name__ in names:
        try:
            print(f"ok    doctor reports nothing on a good host, {no_alert_fires.__doc__}: {no_alert_fires()}", flush=True)
        except (AssertionError, OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as fault:
            failed += 1
            print(f"FAIL  doctor on a good host: {fault!r}", flush=True)
    for check in BROKEN:
        if names and check.__name__ not in names:
            continue
        seen += 1
        try:
            good()
            examine(check)
            print(f"ok    doctor names {check.__name__}, and nothing else", flush=True)
        except (AssertionError, OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as fault:
            failed += 1
            print(f"FAIL  doctor, {check.__name__}: {fault!r}", flush=True)
        finally:
            undo()
    took = time.monotonic() - begun
    print(f"{seen} hosts broken in one thing each, {failed} failed; {took:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
