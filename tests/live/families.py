"""Today's families of models on a real engine, through the sidecar and the gateway. Prints a line for each check.

ENGINE=invokeai|comfyui ENGINE_URL=http://… BIN_DIR=… families.py [accepted] [runs] [--slow] [MODEL...]

accepted   the engine's own check takes every graph: each model and task, with 1 and 3 images, with 0 and 2 LoRAs
runs       each model that has weights: generate, edit, inpaint, LoRAs, previews, a client that leaves; ends with a table
--slow     also what takes minutes on a CPU
MODEL      only these names of /v1/models

The engine must be idle. See README.md for the weights.
"""

import base64
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import uuid
from pathlib import Path
from urllib.parse import quote

import images_api
from client import Answer, pixels, wait_until
from images_api import png, rgb
from main_path import Report
from programs import Programs
from verdicts import Verdicts

SIDE = 64
images_api.WIDTH = images_api.HEIGHT = SIDE
PICTURES = [png(lambda x, y, n=n: (x * 4 % 256, y * 4 % 256, 40 + 80 * n)) for n in range(3)]
MASK = png(lambda x, y: (0, 0, 0, 0 if x < SIDE // 2 else 255), alpha=True)
PROMPT = {"prompt": "a red cat", "size": f"{SIDE}x{SIDE}", "steps": 2, "seed": 7, "response_format": "b64_json"}
GRAPHS = Path(__file__).resolve().parents[2] / "ada2-sidecar/src/engine"
# These graphs encode their pictures at one megapixel.
SLOW = {"comfyui": re.compile("^qwen-image-edit"), "invokeai": re.compile("^$")}
# InvokeAI encodes the picture with noise of no seed.
UNSEEDED = {("invokeai", family) for family in ("sd-1", "sdxl", "sd-3", "z-image")}
NOTHING = "–"


def form(fields, pictures, mask):
    boundary = uuid.uuid4().hex
    parts = [(f'name="{name}"', text if isinstance(text, str) else json.dumps(text)) for name, text in fields.items()]
    parts += [(f'name="image[]"; filename="{n}.png"', picture) for n, picture in enumerate(pictures)]
    if mask:
        parts.append(('name="mask"; filename="m.png"', mask))
    lines = [f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
             + (content.encode() if isinstance(content, str) else content) + b"\r\n" for head, content in parts]
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def answer_of(connection):
    try:
        return Answer(connection.getresponse())
    finally:
        connection.close()


class Families:
    def __init__(self, programs, report, only):
        self.it, self.report, self.only = programs, report, only
        self.sidecar, self.gateway = programs.sidecar, programs.gateway
        self.table = []

    # Requests.

    def make(self, server, model, **more):
        return answer_of(self.send(server, model, **more))

    def edit(self, server, model, pictures, mask=None, **more):
        return answer_of(self.send_edit(server, model, pictures, mask, **more))

    def draw(self, server, model, **more):
        """An image by the first thing that the model can do."""
        return answer_of(self.send_any(server, model, **more))

    def send(self, server, model, **more):
        return server.send("POST", "/v1/images/generations", {**PROMPT, "model": model["id"], **more}, timeout=900)

    def send_edit(self, server, model, pictures, mask=None, **more):
        # With two steps, rounding makes most strengths 1.
        steps = 4 if "strength" in model["capabilities"]["parameters"] else 2
        body, kind = form({**PROMPT, "steps": steps, "model": model["id"], **more}, pictures, mask)
        connection = server.connect(900)
        headers = {"Content-Type": kind}
        if server.token:
            headers["Authorization"] = f"Bearer {server.token}"
        connection.request("POST", "/v1/images/edits", body, headers)
        return connection

    def send_any(self, server, model, **more):
        task = model["capabilities"]["tasks"][0]
        if task == "generate":
            return self.send(server, model, **more)
        return self.send_edit(server, model, PICTURES[:1], MASK if task == "inpaint" else None, **more)

    def image(self, answer):
        if answer.status != 200:
            raise AssertionError(f"expected an image, got {answer}")
        return base64.b64decode(answer.json["data"][0]["b64_json"])

    # What there is.

    def models(self):
        """Of the engine: aliases name no family of their own."""
        listed = self.sidecar.get("/v1/models").json["data"]
        return [model for model in listed if "capabilities" in model and (not self.only or model["id"] in self.only)]

    def loras(self, model):
        """Two names that fit, ours first."""
        names = self.sidecar.get(f"/v1/models/{quote(model['id'])}").json["loras"]["names"]
        ours = f"tiny-{model['family']}-lora" if self.it.kind == "comfyui" else "tiny-"
        return sorted(names, key=lambda name: (not name.startswith(ours), name))[:2]

    def files(self, model):
        """The sizes of a model's files, where the engine tells them."""
        if self.it.kind != "comfyui":
            return []
        names = json.dumps(self.sidecar.get(f"/v1/models/{quote(model['id'])}").json.get("files"))
        return [file["size"] for folder in ("diffusion_models", "text_encoders", "vae", "checkpoints")
                for file in self.it.engine.get(f"/experiment/models/{folder}").json
                if f'"{file["name"]}"' in names]

    def active(self):
        if self.it.kind == "comfyui":
            queue = self.it.engine.get("/queue").json
            return len(queue["queue_running"]) + len(queue["queue_pending"])
        status = self.it.engine.get("/api/v1/queue/default/status").json
        return status["queue"]["pending"] + status["queue"]["in_progress"] + status["processor"]["is_processing"]

    # Accepted.

    def accepted(self, verdicts):
        self.report.took("the sidecar is ready", wait_until(self.is_ready, 60), 30)
        self.check_config()
        seen = []
        for model in self.models():
            seen.append(model)
            self.accepted_model(verdicts, model)
        if not self.only:
            self.all_shipped(seen)

    def accepted_model(self, verdicts, model):
        can, name = model["capabilities"], model["id"]
        loras = [{"name": lora, "weight": 0.5} for lora in self.loras(model)]
        done, wrong = [], []
        verdicts.taken()
        most = can.get("max_images") or 1
        for task, used in itertools.product(can["tasks"], ([], loras)):
            counts = [0] if task == "generate" else sorted({1, min(3, most)}) if task == "edit" else [1]
            for count in counts:
                more = {"loras": used} if used else {}
                if task == "generate":
                    answer = self.make(self.sidecar, model, **more)
                else:
                    mask = MASK if task == "inpaint" else None
                    answer = self.edit(self.sidecar, model, PICTURES[:count], mask, **more)
                judged = verdicts.taken()
                what = f"{task}{f' {count}' if count > 1 else ''}{' LoRAs' if used else ''}"
                if not judged and used and '"loras"' in answer.body.decode():
                    continue  # It takes none, and says so.
                pictures = count + (task == "inpaint")
                fault = self.fault(judged[0], pictures, used) if judged else str(answer)
                (wrong if fault else done).append(f"{what}: {fault}" if fault else what)
        self.report.check(f"{name}: {len(done)} graphs accepted ({', '.join(done)})", done and not wrong, "; ".join(wrong))

    @staticmethod
    def fault(verdict, pictures, loras):
        """Why a graph is not as it should be; None: it is accepted and has all that was asked for."""
        if not verdict.accepted:
            return str(verdict)
        text = json.dumps(verdict.graph)
        used = {node["inputs"]["image"] for node in verdict.graph.get("prompt", {}).values()
                if node["class_type"].startswith("LoadImage")} | set(re.findall(r'"image_name": "([^"]+)"', text))
        if len(used) != pictures:
            return f"{len(used)} pictures in the graph, not {pictures}"
        absent = [lora["name"] for lora in loras if lora["name"] not in text]
        return f"not in the graph: {absent}" if absent else None

    def all_shipped(self, models):
        """Each built-in family must have been among them, else nothing is said about it."""
        for file in sorted((GRAPHS / self.it.kind / "graphs").glob("*.yaml")):
            text = file.read_text()
            name, base, chosen = (next(iter(re.findall(rf"^  {key}: (.+)", text, re.M)), "") for key in ("name", "base", "models"))
            words = lambda key: next(iter(re.findall(rf"{key}: \[(.*?)\]", chosen)), "").split(", ")
            fits = lambda model: model["id"] == name if not chosen else (
                model.get("family") == base
                and (words("variants") == [""] or model.get("variant") in words("variants"))
                and any(word in model["id"].lower() for word in words("words"))
                and (words("kinds") != ["edit"] or "edit" in str(model.get("variant")) or "kontext" in model["id"].lower()))
            self.report.check(f"{self.it.kind}/{file.name}: a model of it is here", any(map(fits, models)))

    def check_config(self):
        """The sidecar's own check of classes, inputs and values."""
        command = [self.it.bin / "ada2-sidecar", "check-config", "--live", "--engine", self.it.kind, "--engine-url",
                   self.it.engine.url, "--state-dir", self.it.dir / "check"]
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
        lines = (ended.stdout + ended.stderr).splitlines()
        said = next((line for line in lines if "accepts all" in line), None)
        self.report.check(f"check-config --live: {said or 'does not accept'}", ended.returncode == 0 and said, ended.stderr[-800:])

    # Runs.

    def runs(self, slow):
        self.report.took("the sidecar is ready", wait_until(self.is_ready, 60), 30)
        self.report.took("the gateway knows it", wait_until(self.gateway_knows, 30), 30)
        for model in self.models():
            if 0 in self.files(model):
                print(f"skip  {model['id']}: no weights, its files are empty")
            elif SLOW[self.it.kind].match(model["id"]) and not slow:
                print(f"skip  {model['id']}: minutes on a CPU (--slow)")
            else:
                self.run_model(model)
        self.print_table()

    def run_model(self, model):
        row = {"model": model["id"]}
        self.table.append(row)
        for step in (self.draws, self.streams, self.edits, self.inpaints, self.uses_loras, self.is_cancelled):
            start, failed = time.monotonic(), self.report.failed
            try:
                row[step.__name__] = step(model)
            except Exception:  # One broken step must not hide the others.
                self.report.check(f"{model['id']}: {step.__name__}", False, traceback.format_exc())
            if self.report.failed > failed:
                row[step.__name__] = "FAIL"
            elif row[step.__name__] != NOTHING:
                row[step.__name__] += f" {time.monotonic() - start:.0f} s"

    def draws(self, model):
        """Whatever it makes, from the prompt alone if it can."""
        name, task = model["id"], model["capabilities"]["tasks"][0]
        answer = self.draw(self.sidecar, model)
        first = self.image(answer)
        self.keep(name, task, first)
        told, (width, height) = answer.json.get("size"), pixels(first)[0]
        self.report.check(f"{name}: the image's size is told ({width}x{height})", told == f"{width}x{height}", told)
        if task == "generate":
            self.report.check(f"{name}: and is the one that was asked for", (width, height) == (SIDE, SIDE))
        settings = answer.json["data"][0].get("settings", {})
        self.report.check(f"{name}: its settings have model and seed", settings.get("model") and settings.get("seed") == 7, settings)
        again = self.image(self.draw(self.gateway, model))
        self.report.check(f"{name}: the same seed at the gateway gives the same pixels", pixels(again) == pixels(first))
        other = self.image(self.draw(self.sidecar, model, seed=8))
        self.report.check(f"{name}: another seed gives others", pixels(other) != pixels(first))
        other = self.image(self.draw(self.sidecar, model, prompt="a blue house by the sea"))
        self.report.check(f"{name}: another prompt gives others", pixels(other) != pixels(first))
        return "yes" if task == "generate" else NOTHING

    def streams(self, model):
        answer = self.draw(self.gateway, model, stream=True, partial_images=2, steps=6, seed=int(time.time()))
        events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
        kinds = [event.get("type", "").rsplit(".")[-1] for event in events]
        self.report.check(f"{model['id']}: a stream has previews and the image", kinds and kinds[0] == "partial_image"
                          and kinds[-1] == "completed", kinds or answer)
        return str(kinds.count("partial_image"))

    def edits(self, model):
        if "edit" not in model["capabilities"]["tasks"]:
            return NOTHING
        name = model["id"]
        answers = [self.edit(server, model, PICTURES[:1]) for server in (self.sidecar, self.gateway)]
        one = self.image(answers[0])
        self.keep(name, "edit", one)
        width, height = pixels(one)[0]
        told = answers[0].json.get("size")
        self.report.check(f"{name}: an edit's size is told ({width}x{height})", told == f"{width}x{height}", told)
        if (self.it.kind, model.get("family")) not in UNSEEDED:
            self.report.check(f"{name}: it is the same at the gateway", pixels(self.image(answers[1])) == pixels(one))
        other = self.image(self.edit(self.sidecar, model, PICTURES[1:2]))
        self.report.check(f"{name}: another picture gives another", pixels(other) != pixels(one))
        return self.several(model, one)

    def several(self, model, one):
        name, most = model["id"], model["capabilities"]["max_images"]
        if most > 1:
            two = self.image(self.edit(self.gateway, model, PICTURES[:2]))
            self.keep(name, "edit-2", two)
            self.report.check(f"{name}: a second picture counts", pixels(two) != pixels(one))
            turned = self.image(self.edit(self.sidecar, model, PICTURES[1::-1]))
            self.report.check(f"{name}: and so does their order", pixels(turned) != pixels(two))
        answer = self.edit(self.sidecar, model, (PICTURES * 6)[:most + 1])
        self.report.check(f"{name}: {most + 1} pictures are 400 with the number", answer.status == 400
                          and str(most) in answer.body.decode(), answer)
        weak, strong = (self.edit(self.sidecar, model, PICTURES[:1], strength=strength) for strength in (0.2, 0.9))
        if "strength" in weak.json.get("ignored", []):
            return f"{most} by reference"
        self.report.check(f"{name}: strength counts", pixels(self.image(weak)) != pixels(self.image(strong)))
        return "by strength"

    def inpaints(self, model):
        if "inpaint" not in model["capabilities"]["tasks"]:
            return NOTHING
        name, half = model["id"], SIDE // 2 * 3
        made = self.image(self.edit(self.gateway, model, PICTURES[:1], MASK))
        self.keep(name, "inpaint", made)
        made, source = rgb(made), rgb(PICTURES[0])
        self.report.check(f"{name}: what the mask keeps is the source's to the byte",
                          all(new[half:] == old[half:] for new, old in zip(made, source, strict=True)))
        self.report.check(f"{name}: the rest is repainted", any(new[:half] != old[:half] for new, old in zip(made, source)))
        return "yes"

    def uses_loras(self, model):
        ours = f"tiny-{model['family']}" if self.it.kind == "comfyui" else "tiny-"
        names = [name for name in self.loras(model) if name.startswith(ours)]
        if not names:
            return NOTHING
        name, first = model["id"], {"name": names[0], "weight": 0.8}
        without, made = (self.image(self.draw(self.sidecar, model, loras=loras)) for loras in ([], [first]))
        self.report.check(f"{name}: a LoRA changes the image", pixels(without) != pixels(made))
        for more in names[1:]:
            both = self.image(self.draw(self.gateway, model, loras=[first, {"name": more, "weight": 0.8}]))
            self.report.check(f"{name}: a second one, too", pixels(both) != pixels(made))
        return str(len(names))

    def is_cancelled(self, model):
        name = model["id"]
        connection = self.send_any(self.gateway, model, size="256x256", steps=150, seed=int(time.time()))
        running = wait_until(lambda: self.active() > 0, 30)
        time.sleep(1)
        self.report.check(f"{name}: a long job runs", running is not None and self.active() > 0)
        connection.close()
        idle = wait_until(lambda: self.active() == 0, 60)
        self.report.took(f"{name}: the client leaves, the engine is idle", idle, 10)
        free = lambda: self.sidecar.get("/readyz/slots").json["observed"].startswith("0 ")
        self.report.took(f"{name}: and the slot is free", wait_until(free, 10), 5)
        return f"{idle:.1f} s; all" if idle is not None else NOTHING

    def print_table(self):
        columns = {"model": "model", "draws": "generate", "streams": "previews", "edits": "edit", "inpaints": "inpaint",
                   "uses_loras": "LoRAs", "is_cancelled": "cancelled after"}
        lines = [f"| {' | '.join(columns.values())} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(row.get(key, NOTHING) for key in columns)} |" for row in self.table]
        print("\n".join(["", f"{self.it.kind}: {SIDE}x{SIDE}, 2 steps; seconds are of all requests of the step", "", *lines, ""]))

    # Helpers.

    def is_ready(self):
        return self.sidecar.get("/readyz").status == 200

    def gateway_knows(self):
        return self.gateway.get("/v1/gateway/status").json["backend_health"]["gpu_heavy"]["ready"]

    def keep(self, model, what, image):
        safe = re.sub(r"[^\w.-]", "_", model)
        (self.it.images / f"{safe}-{what}.png").write_bytes(image)


def judge(programs, families):
    """With the judging server in the engine's place."""
    engine = programs.engine.url
    with Verdicts(programs.kind, engine) as verdicts:
        programs.engine.url = verdicts.url
        try:
            programs.start_sidecar()
            families.accepted(verdicts)
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
    families = Families(programs, report, only)
    start = time.monotonic()
    codes = {}
    try:
        if "accepted" in parts:
            judge(programs, families)
        if "runs" in parts:
            programs.start_sidecar()
            programs.start_gateway()
            families.runs("--slow" in sys.argv[1:])
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
