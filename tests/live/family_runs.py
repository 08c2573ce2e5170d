"""What each model that has weights makes on a real engine, through the sidecar and the gateway."""

import json
import re
import time
import traceback

from client import pixels, wait_until
from family_requests import MASK, PICTURES, PROMPT, SIDE, Requests
from images_api import rgb

# These graphs encode their pictures at one megapixel.
SLOW = {"comfyui": re.compile("^(qwen-image-edit|flux1-kontext|krea-2-style)"), "invokeai": re.compile("^$")}
# InvokeAI encodes the picture with noise of no seed.
UNSEEDED = {("invokeai", family) for family in ("sd-1", "sdxl", "sd-3", "z-image")}
NOTHING = "–"


class Runs(Requests):
    def __init__(self, programs, report, only):
        super().__init__(programs, report, only)
        self.table = []

    def all(self, slow):
        self.report.took("the sidecar is ready", wait_until(self.is_ready, 60), 30)
        self.report.took("the gateway knows it", wait_until(self.gateway_knows, 30), 30)
        try:
            for model in self.models():
                if 0 in self.file_sizes(model):
                    print(f"skip  {model['id']}: no weights, its files are empty")
                elif SLOW[self.it.kind].match(model["id"]) and not slow:
                    print(f"skip  {model['id']}: minutes on a CPU (--slow)")
                else:
                    self.run_model(model)
        finally:  # What ran is told even if the run is ended.
            self.print_table()

    def run_model(self, model):
        row = {"model": model["id"]}
        self.table.append(row)
        for step in (self.draws, self.streams, self.edits, self.inpaints, self.uses_loras, self.recalls,
                     self.is_cancelled):
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

    def recalls(self, model):
        """What the page of InvokeAI reads when it recalls an image of the gallery, of each task's image."""
        tasks = model["capabilities"]["tasks"] if self.it.kind == "invokeai" else []
        for task in tasks:
            self.recalls_image(model, task)
        return "yes" if tasks else NOTHING

    def recalls_image(self, model, task):
        can = model["capabilities"]
        asked = {"negative_prompt": "fog", "cfg_scale": 1.5, "scheduler": (can.get("schedulers") or [None])[-1]}
        asked = {name: value for name, value in asked.items() if name in can["parameters"]}
        ours = [name for name in self.loras(model) if name.startswith("tiny-")]
        loras = {"loras": [{"name": ours[0], "weight": 0.5}]} if ours else {}
        if task == "generate":
            mode, answer = "txt2img", self.make(self.gateway, model, steps=4, **asked, **loras)
        elif task == "edit" and can["max_images"] > 1:  # By reference.
            mode, answer = "txt2img", self.edit(self.gateway, model, PICTURES[:1], steps=4, **asked, **loras)
        else:
            asked["strength"] = 0.5
            mode, mask = ("inpaint", MASK) if task == "inpaint" else ("img2img", None)
            answer = self.edit(self.gateway, model, PICTURES[:1], mask, steps=4, **asked, **loras)
        made, what = self.image(answer), f"{model['id']}: the gallery's metadata of {task}"
        newest = "/api/v1/images/?is_intermediate=false&limit=1&order_dir=DESC&starred_first=false"
        image = f"/api/v1/images/i/{self.it.engine.get(newest).json['items'][0]['image_name']}"
        self.report.check(f"{what}: it is that image", pixels(self.it.engine.get(f"{image}/full").body) == pixels(made))
        told = self.it.engine.get(f"{image}/metadata").json or {}
        if "cfg_scale" in asked and "guidance" in told:
            asked["guidance"] = asked.pop("cfg_scale")
        asked |= {"positive_prompt": PROMPT["prompt"], "seed": 7, "steps": 4, "width": SIDE, "height": SIDE}
        wrong = {name: told.get(name) for name, value in asked.items() if told.get(name) != value}
        wrong |= {name: told.get(name) for name in ("generation_mode",) if not str(told.get(name)).endswith(mode)}
        used = [(lora["model"]["name"], lora["weight"]) for lora in told.get("loras") or []]
        self.report.check(f"{what}: {', '.join(asked)}", not wrong, f"{wrong} instead of {asked}, {mode}")
        self.report.check(f"{what}: the model", (told.get("model") or {}).get("name") == self.files_of(model)["model"], told)
        self.report.check(f"{what}: LoRAs {used}", used == [(name, 0.5) for name in ours[:1]], told)

    def is_cancelled(self, model):
        name = model["id"]
        connection = self.send_any(self.gateway, model, size="256x256", steps=150, seed=int(time.time()))
        running = wait_until(lambda: self.active() > 0, 30)
        time.sleep(1)
        self.report.check(f"{name}: a long job runs", running is not None and self.active() > 0)
        connection.close()
        idle = wait_until(lambda: self.active() == 0, 60)
        # An engine stops between steps, not while it encodes a picture at one megapixel.
        most = 10 if "generate" in model["capabilities"]["tasks"] else 40
        self.report.took(f"{name}: the client leaves, the engine is idle", idle, most)
        free = lambda: self.sidecar.get("/readyz/slots").json["observed"].startswith("0 ")
        self.report.took(f"{name}: and the slot is free", wait_until(free, 10), 5)
        return f"{idle:.1f} s; all" if idle is not None else NOTHING

    def print_table(self):
        columns = {"model": "model", "draws": "generate", "streams": "previews", "edits": "edit", "inpaints": "inpaint",
                   "uses_loras": "LoRAs", "recalls": "recalled", "is_cancelled": "cancelled after"}
        lines = [f"| {' | '.join(columns.values())} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(row.get(key, NOTHING) for key in columns)} |" for row in self.table]
        print("\n".join(["", f"{self.it.kind}: {SIDE}x{SIDE}, 2 steps; seconds are of all requests of the step", "", *lines, ""]))
