"""Today's families of models on a real engine, through the sidecar and the gateway. Prints a line for each check.

ENGINE=invokeai|comfyui ENGINE_URL=http://… BIN_DIR=… families.py [accepted] [runs] [--slow] [MODEL...]

accepted   the engine's own check takes every graph: each model and task, with 1 and 3 images, with 0 and 2 LoRAs
runs       each model that has weights: generate, edit, inpaint, LoRAs, previews, a client that leaves; ends with a table
--slow     also what takes minutes on a CPU
MODEL      only these names of /v1/models

The engine must be idle. See README.md for the weights.
"""

import os
import signal
import sys
import time
import traceback

from family_graphs import Accepted
from family_runs import Runs
from main_path import Report
from programs import Programs
from verdicts import Verdicts


def judge(programs, accepted):
    """With the judging server in the engine's place."""
    engine = programs.engine.url
    with Verdicts(programs.kind, engine) as verdicts:
        programs.engine.url = verdicts.url
        try:
            programs.start_sidecar()
            accepted.all(verdicts)
        finally:
            programs.engine.url = engine
            programs.stop_all()
            programs.running.clear()


def main():
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    parts = [part for part in ("accepted", "runs") if part in arguments] or ["accepted", "runs"]
    only = [argument for argument in arguments if argument not in ("accepted", "runs")]
    os.environ.setdefault("ADA2_REQUEST_TIMEOUT", "900s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # So that the programs end, too.
    programs, report = Programs(), Report()
    start = time.monotonic()
    codes = {}
    try:
        if "accepted" in parts:
            judge(programs, Accepted(programs, report, only))
        if "runs" in parts:
            programs.start_sidecar()
            programs.start_gateway()
            Runs(programs, report, only).all("--slow" in sys.argv[1:])
    except Exception:
        report.check("the checks themselves", False, traceback.format_exc())
    finally:
        codes = programs.stop_all()
    report.check("the programs end with 0 on SIGTERM", set(codes.values()) <= {0}, codes)
    print(f"images: {programs.images}   logs: {programs.log('ada2-sidecar')}, {programs.log('gateway')}")
    print(f"{programs.kind}: {report.passed} passed, {report.failed} failed, {time.monotonic() - start:.0f} s")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
