"""The main path against a real InvokeAI, through both programs. Prints a line for each check; exit code 0 or 1.

main_path.py [--faults] [NAME...]   only the steps of these names, for example a_paused_queue
"""

import base64
import hashlib
import os
import re
import sys
import threading
import time
import traceback

from client import pixels, wait_until
from programs import Programs

LONG = {"steps": 150}
URL = re.compile(r"^/ui/images/\d+_([0-9a-f]{16})\.png$")


class Report:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, true, seen=""):
        self.passed, self.failed = self.passed + bool(true), self.failed + (not true)
        print(f"{'pass' if true else 'FAIL'}  {what}{f': {seen}' if seen and not true else ''}", flush=True)
        return true

    def took(self, what, seconds, most):
        """A check of a time that `wait_until` measured."""
        measured = "never" if seconds is None else f"{seconds:.2f} s"
        return self.check(f"{what} ({measured}, at most {most} s)", seconds is not None and seconds <= most)


class MainPath:
    def __init__(self, programs, report):
        self.it, self.report = programs, report
        self.sidecar, self.gateway = programs.sidecar, programs.gateway

    # Helpers.

    def ready(self):
        return self.sidecar.get("/readyz").status == 200 and self.gateway_health()["ready"]

    def gateway_health(self):
        return self.gateway.get("/v1/gateway/status").json["backend_health"]["gpu_heavy"]

    def gateway_slots(self):
        return self.gateway.get("/v1/gateway/status").json["admission_control"]["gpu_heavy.images"]

    def slots_free(self):
        return self.sidecar.get("/readyz/slots").json["observed"].startswith("0 ")

    def failing(self):
        """The sidecar's failing checks, by name."""
        checks = self.sidecar.get("/readyz").json["checks"]
        return {check["name"]: check.get("message") for check in checks if check["status"] == "fail"}

    def fails(self, check):
        return check in self.failing()

    def inline(self, answer):
        """The images of a b64_json answer."""
        if answer.status != 200:
            raise AssertionError(f"expected images, got {answer}")
        return [base64.b64decode(one["b64_json"]) for one in answer.json["data"]]

    def keep(self, name, image):
        (self.it.images / f"{name}.png").write_bytes(image)

    def in_background(self, work):
        """Runs it aside; the function that comes back waits for the result and says when it came."""
        result = []

        def run():
            try:
                result.append((work(), time.monotonic()))
            except OSError as error:
                result.append((error, time.monotonic()))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def wait():
            thread.join(120)
            return result[0] if result else (None, time.monotonic())

        return wait

    # The checks, in the order in which they run.

    def becomes_ready(self):
        self.report.took("both programs are ready", wait_until(self.ready, 30), 30)
        report = self.sidecar.get("/readyz").json
        self.report.check("/readyz names the engine", report["engine"]["version"], report["engine"])

    def images_through_the_gateway(self):
        for model in ("sd-v1-5", "sd-xl-base-1.0"):
            answer = self.gateway.image(model=model, seed=42)
            if not self.report.check(f"gateway: {model} gives an image", answer.status == 200, answer):
                continue
            self.report.check("X-Backend-Used is gpu_heavy", answer.headers["X-Backend-Used"] == "gpu_heavy")
            url = answer.json["data"][0].get("url", "")
            name = URL.match(url)
            self.report.check("the answer is a URL of the store", name and "created" in answer.json, answer)
            image = self.gateway.get(url)
            self.report.check("it serves a 512x512 PNG", pixels(image.body)[0] == (512, 512))
            self.report.check("its name is its hash", hashlib.sha256(image.body).hexdigest()[:16] == name[1])
            self.keep(f"gateway-{model}", image.body)

    def images_of_the_sidecar(self):
        for model in ("sd-v1-5", "sd-xl-base-1.0"):
            first, second = (self.sidecar.image(model=model, seed=7) for _ in range(2))
            shown = [pixels(self.inline(answer)[0]) for answer in (first, second)]
            self.report.check(f"sidecar: {model} gives a 512x512 PNG as b64_json", shown[0][0] == (512, 512))
            self.report.check("the same seed gives the same pixels", shown[0] == shown[1])
            other = pixels(self.inline(self.sidecar.image(model=model, seed=8))[0])
            self.report.check("another seed gives others", shown[0] != other)
            self.keep(f"sidecar-{model}", self.inline(first)[0])

        answer = self.sidecar.image(n=2, seed=100)
        first, second = self.inline(answer)
        seeds = [one["seed"] for one in answer.json["data"]]
        self.report.check("n=2 gives two images with seeds 100 and 101", seeds == [100, 101], seeds)
        self.report.check("they differ", pixels(first) != pixels(second))
        alone = self.inline(self.sidecar.image(seed=101))[0]
        self.report.check("seed 101 alone gives the second of them", pixels(alone) == pixels(second))

    def models(self):
        installed = self.it.engine.get("/api/v2/models/?model_type=main").json["models"]
        for model in installed:
            for how in ("name", "key"):
                answer = self.sidecar.image(model=model[how])
                self.report.check(f"{model['name']} by {how}", answer.status == 200, answer)
        for server, where in ((self.sidecar, "sidecar"), (self.gateway, "gateway")):
            answer = server.image(model="no-such-model")
            named = all(model["name"] in answer.body.decode() for model in installed)
            found = answer.status == 404 and answer.code == "model_not_found"
            self.report.check(f"{where}: an unknown model is 404 and lists what exists", found and named, answer)

    def refusals(self):
        answer = self.gateway.image(headers={"X-Backend": "local_mlx"})
        says = "Backend local_mlx does not support images" in answer.body.decode()
        self.report.check("X-Backend: local_mlx is 400 and says why", answer.status == 400 and says, answer)
        self.gateway.token, token = None, self.gateway.token
        self.report.check("no token is 401", self.gateway.image().status == 401)
        self.gateway.token = token

    def three_at_once(self):
        waiting = [self.in_background(lambda: self.gateway.image(steps=40)) for _ in range(3)]
        answers = [wait()[0] for wait in waiting]
        statuses = sorted(answer.status for answer in answers)
        self.report.check("three at once: two images, one 429", statuses == [200, 200, 429], statuses)
        refused = [answer for answer in answers if answer.status == 429]
        wait = [answer.headers["Retry-After"] for answer in refused]
        self.report.check("Retry-After is 5", wait == ["5"], wait)

    def a_client_disconnects(self):
        for server, where in ((self.sidecar, "sidecar"), (self.gateway, "gateway")):
            request = {"prompt": "a red cat", "size": "512x512", **LONG}
            connection = server.send("POST", "/v1/images/generations", request)
            item = self.it.await_item()
            self.report.check(f"{where}: its slot is taken", not self.slots_free())
            connection.close()
            self.report.took(f"{where}: the client leaves, the engine is idle", wait_until(self.it.engine_idle, 10), 5)
            status = self.it.engine_status_of(item)
            self.report.check("its item is canceled", status == "canceled", status)
            self.report.took("the sidecar's slot is free", wait_until(self.slots_free, 10), 5)
            free = wait_until(lambda: self.gateway_slots()["inflight"] == 0, 10)
            self.report.took("the gateway's slot is free", free, 5)

    def a_paused_queue(self):
        self.it.engine.ask("PUT", "/api/v1/queue/default/processor/pause")
        try:
            self.report.took("a paused queue is not ready", wait_until(lambda: self.fails("engine_queue"), 10), 5)
            message = self.failing().get("engine_queue") or "(no message)"
            # The gateway still believes in it: the first answer is the sidecar's, the second its own.
            servers = ((self.sidecar, "sidecar"), (self.gateway, "gateway"), (self.gateway, "gateway again"))
            for server, where in servers:
                answer = server.image()
                says = answer.status == 503 and answer.code == "backend_not_ready" and message in answer.json["detail"]
                self.report.check(f"{where}: 503 with the check's message", says, f"{message!r} in {answer}")
            self.report.check("the gateway has learnt it from that", not self.gateway_health()["ready"])
            self.report.check("nothing was enqueued", self.it.engine_idle())
        finally:
            self.it.engine.ask("PUT", "/api/v1/queue/default/processor/resume")
        self.report.took("resumed, both are ready by themselves", wait_until(self.ready, 15), 10)
        self.report.check("and make images", self.gateway.image().status == 200)

    # Only where InvokeAI is ours.

    def the_engine_is_killed(self):
        answer = self.in_background(lambda: self.sidecar.image(**LONG))
        self.it.await_item()
        self.it.engine_signal("SIGKILL")
        killed = time.monotonic()
        answered, when = answer()
        status = getattr(answered, "status", None)
        self.report.took(f"the engine is killed in mid-job: {status}", when - killed, 2)
        self.report.check("it is 503 engine_unavailable", getattr(answered, "code", None) == "engine_unavailable",
                          answered)
        self.report.took("engine_reachable fails", wait_until(lambda: self.fails("engine_reachable"), 10), 5)
        self.report.took("the slot is free", wait_until(self.slots_free, 10), 5)
        self.it.start_engine()
        self.report.took("it is back, both are ready by themselves", wait_until(self.ready, 40), 15)
        self.report.check("and make images", self.gateway.image().status == 200)

    def the_engine_hangs(self):
        answer = self.in_background(lambda: self.sidecar.image(**LONG))
        self.it.await_item()
        self.it.engine_signal("SIGSTOP")
        try:
            failed = wait_until(lambda: self.fails("engine_reachable"), 40)
            self.report.took("the engine hangs in mid-job: engine_reachable fails", failed, 20)
            self.report.check("the slot is held", not self.slots_free())
            self.report.check("/healthz still answers", self.sidecar.get("/healthz", timeout=2).status == 200)
        finally:
            self.it.engine_signal("SIGCONT")
        self.report.took("it goes on: ready by itself", wait_until(self.ready, 40), 15)
        answered, _ = answer()
        self.report.check("the job is finished as if nothing had been", getattr(answered, "status", 0) == 200, answered)

    def the_sidecar_is_killed(self):
        answer = self.in_background(lambda: self.gateway.image(**LONG))
        item = self.it.await_item()
        self.it.kill("ada2-sidecar")
        answered, _ = answer()
        self.report.check("the sidecar is killed in mid-job: the gateway answers 502", answered.status == 502, answered)
        self.report.check("the job goes on without us", self.it.engine_status_of(item) == "in_progress")
        self.it.start_sidecar()
        cancelled = wait_until(lambda: self.it.engine_status_of(item) == "canceled", 10)
        self.report.took("started again, it cancels what it left behind", cancelled, 5)
        self.report.took("both are ready by themselves", wait_until(self.ready, 40), 15)
        self.report.check("and make images", self.gateway.image().status == 200)


def main():
    faults = "--faults" in sys.argv[1:]
    if faults and "INVOKEAI_SH" not in os.environ:
        sys.exit("--faults kills InvokeAI: it needs one that run.sh started, without INVOKEAI_URL")
    programs, report = Programs(), Report()
    path = MainPath(programs, report)
    steps = [path.becomes_ready, path.images_through_the_gateway, path.images_of_the_sidecar, path.models,
             path.refusals, path.three_at_once, path.a_client_disconnects, path.a_paused_queue]
    if faults:
        steps += [path.the_engine_is_killed, path.the_engine_hangs, path.the_sidecar_is_killed]
    named = [name for name in sys.argv[1:] if not name.startswith("--")]
    steps = [step for step in steps if not named or step.__name__ in ("becomes_ready", *named)]
    start = time.monotonic()
    try:
        programs.start_sidecar()
        programs.start_gateway()
        for step in steps:
            try:
                step()
            except Exception:  # One broken step must not hide the others.
                report.check(step.__name__.replace("_", " "), False, traceback.format_exc())
    finally:
        codes = programs.stop_all()
    report.check("both programs end with 0 on SIGTERM", set(codes.values()) == {0}, codes)
    print(f"images: {programs.images}   logs: {programs.log('ada2-sidecar')}, {programs.log('gateway')}")
    print(f"{report.passed} passed, {report.failed} failed, {time.monotonic() - start:.0f} s")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
