"""What the scripts of the Python clients share: runs the operations, keeps the images, and reports errors as the client
raised them. Expectations are in expectations.py.

A script's class has one method per operation. It returns images (bytes), names, or what `at_once` gives.
"""

import json
import sys
import time
import traceback
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROMPT = "a lighthouse in a storm"


class Script:
    """What a script knows: the servers, an image and a mask to edit it with."""

    # Operations that the client has no call for, and why.
    CANNOT = {}
    # What to know where it works.
    NOTES = {}

    def __init__(self, config):
        self.url, self.token, self.not_ready_url = config["url"], config["token"], config["not_ready_url"]
        self.source, self.mask = config["source"], config["mask"]


def at_once(work, times):
    """What each of several calls at once gave: images or an error."""
    def caught():
        try:
            return work()
        except Exception as error:  # Every client has classes of its own.
            return error

    with ThreadPoolExecutor(times) as pool:
        return [future.result() for future in [pool.submit(caught) for _ in range(times)]]


def fetched(url):
    """As a user's program fetches an image: by its address alone."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        kind = answer.headers["Content-Type"]
        if not kind.startswith("image/"):
            raise AssertionError(f"{url} is {kind}")
        return answer.read()


def main(script_class):
    config = json.loads(Path(sys.argv[1]).read_text())
    script, out = script_class(config), Path(config["out"])
    with (out / "report.jsonl").open("w") as report:
        for operation in config["operations"]:
            line = {"operation": operation, **carry_out(script, operation, out)}
            report.write(json.dumps(line) + "\n")
            report.flush()


def carry_out(script, operation, out):
    if operation in script.CANNOT:
        return {"cannot": script.CANNOT[operation]}
    start = time.monotonic()
    try:
        given = getattr(script, operation)()
    except Exception as error:
        traceback.print_exc()
        given = error
    seconds = time.monotonic() - start
    outcome = {"images": [], "refusals": [], "names": [], "seconds": seconds,
               "note": script.NOTES.get(operation)}
    for one in flat(given):
        if isinstance(one, bytes):
            file = out / f"{operation}-{len(outcome['images'])}"
            file.write_bytes(one)
            outcome["images"].append(str(file))
        elif isinstance(one, str):
            outcome["names"].append(one)
        else:
            outcome["refusals"].append(refusal(one))
    return outcome


def flat(given):
    if not isinstance(given, list):
        return [given]
    return [one for part in given for one in flat(part)]


def refusal(error):
    return {"class": type(error).__name__, "status": getattr(error, "status_code", None),
            "code": getattr(error, "code", None), "message": str(error)[:400]}
