"""Requests for any model of /v1/models, whatever its tasks are, and what the engine tells of it."""

import base64
import json
import re
import uuid
from urllib.parse import quote

import images_api
from client import Answer, wait_until
from images_api import png

SIDE = 64
images_api.WIDTH = images_api.HEIGHT = SIDE
PICTURES = [png(lambda x, y, n=n: (x * 4 % 256, y * 4 % 256, 40 + 80 * n)) for n in range(3)]
MASK = png(lambda x, y: (0, 0, 0, 0 if x < SIDE // 2 else 255), alpha=True)
PROMPT = {"prompt": "a red cat", "size": f"{SIDE}x{SIDE}", "steps": 2, "seed": 7, "response_format": "b64_json"}


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


class Requests:
    def __init__(self, programs, report, only):
        self.it, self.report, self.only = programs, report, only
        self.sidecar, self.gateway = programs.sidecar, programs.gateway

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
        """Of the engine, and the aliases that stand for one."""
        listed = self.sidecar.get("/v1/models").json["data"]
        return [model for model in listed if "capabilities" in model and (not self.only or model["id"] in self.only)]

    def loras(self, model):
        """Two names that fit, ours first."""
        names = self.sidecar.get(f"/v1/models/{quote(model['id'])}").json["loras"]["names"]
        ours = f"tiny-{model['family']}-lora" if self.it.kind == "comfyui" else "tiny-"
        return sorted(names, key=lambda name: (not name.startswith(ours), name))[:2]

    def files_of(self, model):
        """What it consists of, by input."""
        return self.sidecar.get(f"/v1/models/{quote(model['id'])}").json.get("files")

    def file_sizes(self, model):
        """The sizes of a model's files, where the engine tells them."""
        if self.it.kind != "comfyui":
            return []
        names = json.dumps(self.files_of(model))
        return [file["size"] for folder in ("diffusion_models", "text_encoders", "vae", "checkpoints")
                for file in self.it.engine.get(f"/experiment/models/{folder}").json
                if f'"{file["name"]}"' in names]

    def active(self):
        if self.it.kind == "comfyui":
            queue = self.it.engine.get("/queue").json
            return len(queue["queue_running"]) + len(queue["queue_pending"])
        status = self.it.engine.get("/api/v1/queue/default/status").json
        return status["queue"]["pending"] + status["queue"]["in_progress"] + status["processor"]["is_processing"]

    # Of the programs.

    def is_ready(self):
        return self.sidecar.get("/readyz").status == 200

    def gateway_knows(self):
        return self.gateway.get("/v1/gateway/status").json["backend_health"]["gpu_heavy"]["ready"]

    def keep(self, model, what, image):
        safe = re.sub(r"[^\w.-]", "_", model)
        (self.it.images / f"{safe}-{what}.png").write_bytes(image)
