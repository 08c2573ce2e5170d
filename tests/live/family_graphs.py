"""Whether a real engine's own check takes every graph that the sidecar sends, without running one."""

import itertools
import json
import re
import subprocess
from pathlib import Path
from urllib.parse import quote

from client import wait_until
from family_requests import MASK, PICTURES, Requests

GRAPHS = Path(__file__).resolve().parents[2] / "ada2-sidecar/src/engine"


class Accepted(Requests):
    def all(self, verdicts):
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
        loras = [{"name": lora, "weight": 0.5} for lora in self.loras(model)] if "loras" in can["parameters"] else []
        done, wrong = [], []
        verdicts.taken()
        most = can.get("max_images") or 1
        for task, used in itertools.product(can["tasks"], [[], loras] if loras else [[]]):
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
