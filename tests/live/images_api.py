"""The whole Images API against a real engine, through the sidecar and the gateway. Prints a line for each check.

ENGINE=invokeai|comfyui ENGINE_URL=http://… BIN_DIR=… images_api.py [NAME...]

The engine must be idle, with an SD 1.5 model; its images show noise where its models know nothing.
"""

import base64
import json
import struct
import sys
import time
import traceback
import uuid
import zlib

from client import Answer, pixels, wait_until
from main_path import Report
from programs import Programs

WIDTH, HEIGHT = 128, 96


def png(pixel, alpha=False):
    """A PNG of WIDTH x HEIGHT; pixel(x, y) gives its bytes."""
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(WIDTH)) for y in range(HEIGHT))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 6 if alpha else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rgb(image):
    """The pixels of an 8-bit RGB PNG, row by row."""
    (width, height), data = pixels(image)
    stride, rows, before = width * 3, [], bytes(width * 3)
    for y in range(height):
        kind, line = data[y * (stride + 1)], bytearray(data[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for x in range(stride):
            left, up, corner = (line[x - 3] if x > 2 else 0), before[x], (before[x - 3] if x > 2 else 0)
            guess = left + up - corner
            nearest = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            line[x] = (line[x] + [0, left, up, (left + up) // 2, nearest][kind]) % 256
        before = bytes(line)
        rows.append(before)
    return rows


SOURCE = png(lambda x, y: (x * 2 % 256, y * 2 % 256, 128))
MASK = png(lambda x, y: (0, 0, 0, 0 if x < WIDTH // 2 else 255), alpha=True)


class ImagesApi:
    def __init__(self, programs, report):
        self.it, self.report = programs, report
        self.sidecar, self.gateway, self.engine = programs.sidecar, programs.gateway, programs.engine

    # Helpers.

    def make(self, server, **more):
        request = {"prompt": "a red cat", "model": "sd-v1-5", "size": "64x64", "steps": 4, "seed": 7, **more}
        return server.ask("POST", "/v1/images/generations", request)

    def edit(self, server, mask=None, **texts):
        boundary = uuid.uuid4().hex
        parts = [(f'name="{name}"', str(text).encode()) for name, text in texts.items()]
        parts.append(('name="image"; filename="a.png"', SOURCE))
        if mask:
            parts.append(('name="mask"; filename="m.png"', mask))
        body = b"".join(f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
                        for head, content in parts) + f"--{boundary}--\r\n".encode()
        connection = server.connect(120)
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if server.token:
            headers["Authorization"] = f"Bearer {server.token}"
        connection.request("POST", "/v1/images/edits", body, headers)
        try:
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def images(self, answer):
        if answer.status != 200:
            raise AssertionError(f"expected images, got {answer}")
        return [base64.b64decode(one["b64_json"]) for one in answer.json["data"]]

    def keep(self, name, image):
        (self.it.images / f"{name}.png").write_bytes(image)

    def active(self):
        """Jobs that wait or run in the engine, and whether its worker is at work."""
        if self.it.kind == "comfyui":
            queue = self.engine.get("/queue").json
            return len(queue["queue_running"]) + len(queue["queue_pending"])
        status = self.engine.get("/api/v1/queue/default/status").json
        return status["queue"]["pending"] + status["queue"]["in_progress"] + status["processor"]["is_processing"]

    def slots_free(self):
        return self.sidecar.get("/readyz/slots").json["observed"].startswith("0 ")

    # Steps.

    def becomes_ready(self):
        ready = wait_until(lambda: self.sidecar.get("/readyz").status == 200, 60)
        self.report.took("the sidecar is ready", ready, 30)
        backend = lambda: self.gateway.get("/v1/gateway/status").json["backend_health"]["gpu_heavy"]["ready"]
        self.report.took("the gateway knows it", wait_until(backend, 30), 30)

    def txt2img(self):
        first, again = (self.images(self.make(self.sidecar))[0] for _ in range(2))
        self.keep("txt2img", first)
        self.report.check("txt2img: 64x64", pixels(first)[0] == (64, 64))
        self.report.check("the same request gives the same pixels", pixels(first)[1] == pixels(again)[1])
        self.report.check("another seed gives others", pixels(self.images(self.make(self.sidecar, seed=8))[0])[1] != pixels(first)[1])
        for kind, magic in (("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")):
            made = self.images(self.make(self.sidecar, output_format=kind))[0]
            self.report.check(f"output_format {kind}", made.startswith(magic))

    def three(self):
        answer = self.make(self.sidecar, n=3, seed=100)
        made = self.images(answer)
        self.report.check("n=3: seeds count up", [one["seed"] for one in answer.json["data"]] == [100, 101, 102], answer)
        self.report.check("n=3: three different images", len({pixels(one)[1] for one in made}) == 3)
        single = self.images(self.make(self.sidecar, seed=101))[0]
        self.report.check("the second is what its seed gives alone", pixels(single)[1] == pixels(made[1])[1])

    def img2img(self):
        made = self.images(self.edit(self.sidecar, prompt="a red cat", model="sd-v1-5", steps=4, strength=0.5))[0]
        self.keep("img2img", made)
        self.report.check("img2img: the image's own size", pixels(made)[0] == (WIDTH, HEIGHT))
        self.report.check("img2img: another image", rgb(made) != rgb(SOURCE))

    def inpaint(self):
        for server, name in ((self.sidecar, "sidecar"), (self.gateway, "gateway")):
            answer = self.edit(server, MASK, prompt="a red cat", model="sd-v1-5", steps=4, response_format="b64_json")
            made, source = rgb(self.images(answer)[0]), rgb(SOURCE)
            half = WIDTH // 2 * 3
            self.report.check(f"inpaint at the {name}: pixels that the mask keeps are the source's to the byte",
                              all(new[half:] == old[half:] for new, old in zip(made, source)))
            self.report.check(f"inpaint at the {name}: the rest is repainted",
                              any(new[:half] != old[:half] for new, old in zip(made, source)))
            self.keep(f"inpaint-{name}", self.images(answer)[0])

    def stream(self):
        for server, name in ((self.sidecar, "sidecar"), (self.gateway, "gateway")):
            answer = self.make(server, steps=12, stream=True, partial_images=3, seed=int(time.time()))
            events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: ")]
            kinds = [event["type"].rsplit(".")[-1] for event in events]
            self.report.check(f"stream at the {name}: at least two partials, then the image ({len(kinds) - 1} partials)",
                              kinds.count("partial_image") >= 2 and kinds[-1] == "completed", kinds)
        self.report.check("the gateway adds the stored image's url", "url" in events[-1])

    def cancel_running(self):
        connection = self.sidecar.send("POST", "/v1/images/generations",
                                       {"prompt": "long", "model": "sd-v1-5", "size": "256x256", "steps": 150})
        running = wait_until(lambda: self.active() > 0, 20)
        time.sleep(2)
        connection.close()
        idle = wait_until(lambda: self.active() == 0, 30)
        self.report.check("the job ran", running is not None)
        self.report.took("left in mid-job: the engine's worker is idle", idle, 1)
        self.report.took("and the slot is free", wait_until(self.slots_free, 5), 1)

    def cancel_queued(self):
        send = lambda: self.sidecar.send("POST", "/v1/images/generations",
                                         {"prompt": "long", "model": "sd-v1-5", "size": "256x256", "steps": 100})
        first = send()
        wait_until(lambda: self.active() > 0, 20)
        second = send()
        both = wait_until(lambda: self.active() >= 2, 10)
        second.close()
        self.report.check("two jobs were in the engine", both is not None)
        cancelled = wait_until(lambda: self.active() in (1, 2) and "1 of" in self.sidecar.get("/readyz/slots").json["observed"], 5)
        self.report.took("disconnected while queued: only the first is left", cancelled, 1)
        first.close()
        self.report.took("then the first, too", wait_until(lambda: self.active() == 0, 20), 2)

    def refusals(self):
        unknown = self.make(self.sidecar, model="no-such-model")
        self.report.check("a wrong model is 404 and lists what exists",
                          unknown.code == "model_not_found" and "Available" in unknown.json["error"]["message"], unknown)
        large = self.make(self.sidecar, size="4096x4096")
        self.report.check("a size out of range is 400", large.status == 400 and large.code == "invalid_size", large)
        self.report.check("the engine heard of neither", self.active() == 0)


def main():
    programs, report = Programs(), Report()
    api = ImagesApi(programs, report)
    steps = [api.becomes_ready, api.txt2img, api.three, api.img2img, api.inpaint, api.stream, api.cancel_running,
             api.cancel_queued, api.refusals]
    steps = [step for step in steps if not sys.argv[1:] or step.__name__ in ("becomes_ready", *sys.argv[1:])]
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
    print(f"{programs.kind}: {report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
