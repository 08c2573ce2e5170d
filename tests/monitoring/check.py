"""Compares the metrics that alerts and dashboard name with those that both programs export.

Every expression is also evaluated by a real Prometheus that reads both programs, where there is one.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "ada2-sidecar/docs/monitoring"
TOKEN = "monitoring-test-token-0123456789"
# Words of PromQL that stand where a metric's name could.
WORDS = {"by", "on", "or", "and", "unless", "without", "ignoring", "offset", "bool", "group_left", "group_right"}
# Made by Prometheus itself.
OF_PROMETHEUS = {"up"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url, body=None, **headers):
    request = urllib.request.Request(url, data=body, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(url, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if fetch(url)[0] == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"{url} did not answer 200 within {seconds} s")


def expressions():
    """Where an expression stands, and the expression."""
    dashboard = json.loads((DOCS / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"dashboard: {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if label := re.match(r"label_values\((\w+),", variable.get("definition", "")):
            yield f"dashboard: variable {variable['name']}", label[1]
    name = None
    lines = iter((DOCS / "alerts.yaml").read_text().splitlines())
    for line in lines:
        if found := re.match(r"      - alert: (\w+)", line):
            name = found[1]
        elif found := re.match(r"        expr: (.*)", line):
            expression = found[1]
            if expression == "|":
                expression = ""
                for line in lines:
                    if not line.startswith("          "):
                        break
                    expression += line + "\n"
            yield f"alert: {name}", expression


def names(expression):
    """The metrics that an expression reads."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\boffset\s+\w+", " ", bare)
    found = re.findall(r"(?<![\w.$])([a-zA-Z_:][\w:]*)(?!\w)(?!\s*\()", bare)
    return {name for name in found if name not in WORDS}


def exported(text):
    """Metrics with the labels that they have, and each label's values."""
    metrics = {}
    for line in text.splitlines():
        if found := re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line):
            labels = metrics.setdefault(found[1], {})
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""):
                labels.setdefault(label, set()).add(value)
    return metrics


def faults(metrics):
    for location, expression in expressions():
        for name in names(expression) - OF_PROMETHEUS:
            if name not in metrics:
                yield f"{location}: {name} is exported by neither program"
        for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression):
            if name in OF_PROMETHEUS or name not in metrics:
                continue
            for label, operator, value in re.findall(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"', matchers):
                if label in ("job", "instance"):
                    continue
                values = metrics[name].get(label)
                if values is None:
                    yield f"{location}: {name} has no label {label}"
                elif label in ("check", "result"):
                    for one in re.split(r"\|", value):
                        if one not in values:
                            yield f'{location}: {name} has no {label}="{one}"'


def dashboard_faults():
    dashboard = json.loads((DOCS / "dashboard.json").read_text())
    if dashboard.get("schemaVersion", 0) < 39:
        yield "dashboard: schemaVersion is below 39"
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        yield "dashboard: two panels have one id"
    for panel in dashboard["panels"]:
        if panel["type"] != "row" and panel["datasource"]["uid"] != "${datasource}":
            yield f"dashboard: {panel['title']} does not use the variable for its data source"


class Stage:
    """Both programs, after one image and one refusal."""

    def __init__(self, programs, fake_nvml, directory):
        self.directory, self.running = directory, []
        self.sidecar, self.gateway, self.metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
        library = directory / "libnvidia-ml.so.1"
        shutil.copy(fake_nvml, library)
        self.scenario({"gpus": [{}]})
        self.spawn("sidecar", [programs / "ada2-sidecar", "--engine", "builtin", "--gpu", "required", "--nvml-lib",
                               library, "--listen", self.sidecar, "--state-dir", directory / "state"])
        backends = directory / "backends.yaml"  # JSON is YAML.
        backends.write_text(json.dumps({"backends": {"gpu_heavy": {
            "class": "gpu_heavy", "base_url": f"http://{self.sidecar}", "supported_capabilities": ["images"],
            "concurrency_limits": {"images": 2}}}}))
        until(f"http://{self.sidecar}/readyz")
        self.spawn("gateway", [programs / "gateway", "--env-file", "/dev/null", "--backends", backends,
                               "--gateway-tls", "off", "--gateway-port", self.gateway.split(":")[1],
                               "--gateway-metrics-listen", self.metrics, "--ui-image-dir", directory / "pictures",
                               "--gateway-data-dir", directory / "data"], GATEWAY_BEARER_TOKEN=TOKEN)
        until(f"http://{self.gateway}/readyz")
        self.image()
        assert fetch(f"http://{self.gateway}/v1/images/generations", b"{}")[0] == 401
        # Each has its series from the first report on.
        self.scenario({"gpus": [{"xids": [{"sequence": 1, "xid": 31}]}]})

    def image(self):
        body = json.dumps({"prompt": "a test", "size": "64x64", "steps": 1}).encode()
        status, answer = fetch(f"http://{self.gateway}/v1/images/generations", body,
                               **{"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
        if status != 200:
            raise SystemExit(f"no image: {status} {answer}")

    def scenario(self, scenario):
        new = self.directory / "scenario.new"
        new.write_text(json.dumps(scenario))
        new.rename(self.directory / "scenario.json")

    def spawn(self, name, command, **environment):
        with open(self.directory / f"{name}.log", "wb") as log:
            self.running.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log,
                                                 env={**os.environ, **environment}))

    def end(self):
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(60)

    def pages(self):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            sidecar = fetch(f"http://{self.sidecar}/metrics")[1]
            if "nvidia_smi_xid_last_timestamp_seconds{" in sidecar:
                break
            time.sleep(0.1)
        return sidecar, fetch(f"http://{self.metrics}/metrics")[1]


def evaluated(stage):
    """What a real Prometheus makes of every expression."""
    if not shutil.which("prometheus"):
        print("skipped: there is no prometheus here, so no expression was evaluated")
        return
    port = free_port()
    file = stage.directory / "prometheus.yml"  # JSON is YAML.
    file.write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(DOCS / "alerts.yaml")],
        "scrape_configs": [
            {"job_name": "ada2-sidecar", "static_configs": [{"targets": [stage.sidecar]}]},
            {"job_name": "gateway", "static_configs": [{"targets": [stage.metrics]}]},
        ]}))
    stage.spawn("prometheus", ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={stage.directory / 'tsdb'}",
                               f"--web.listen-address=127.0.0.1:{port}"])
    until(f"http://127.0.0.1:{port}/-/ready")
    ask = lambda query: fetch(f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
    # A rate needs two samples of both programs.
    end = time.monotonic() + 30
    while time.monotonic() < end:
        stage.image()
        if len(json.loads(ask("count_over_time(up[1m]) >= 3")[1])["data"]["result"]) == 2:
            break
        time.sleep(0.5)
    filled = 0
    for location, expression in expressions():
        status, answer = ask(expression.replace("$__rate_interval", "30s").replace("$sidecar", ".*"))
        if status != 200:
            yield f"{location}: {json.loads(answer)['error']}"
        elif json.loads(answer)["data"]["result"]:
            filled += 1
        elif location.startswith("dashboard:") and not expression.rstrip().endswith("> 0"):
            yield f"{location}: no data for {expression}"
    rules = json.loads(fetch(f"http://127.0.0.1:{port}/api/v1/rules")[1])["data"]["groups"]
    ill = [rule["name"] for group in rules for rule in group["rules"] if rule["health"] == "err"]
    if ill:
        yield f"alerts that Prometheus cannot evaluate: {ill}"
    firing = sorted({rule["name"] for group in rules for rule in group["rules"] if rule["state"] == "firing"})
    if firing != ["GpuXidReported"]:
        yield f"with both programs well and one XID 31 reported only GpuXidReported should fire, not {firing}"
    print(f"a real Prometheus: {filled} expressions have data; firing: {firing}")


def promtool_metrics(pages):
    if shutil.which("promtool"):
        for name, page in zip(["ada2-sidecar", "gateway"], pages):
            result = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True)
            if result.returncode:
                yield f"promtool check metrics, {name}: {result.stdout}{result.stderr}"


def main():
    programs, fake_nvml = map(Path, sys.argv[1:3])
    directory = Path(tempfile.mkdtemp(prefix="monitoring-"))
    stage = None
    try:
        stage = Stage(programs, fake_nvml, directory)
        pages = stage.pages()
        metrics = exported("\n".join(pages))
        used = set().union(*(names(expression) for _, expression in expressions())) - OF_PROMETHEUS
        found = [*dashboard_faults(), *faults(metrics), *promtool_metrics(pages), *evaluated(stage)]
        print(f"{sum(1 for _ in expressions())} expressions name {len(used)} of {len(metrics)} exported metrics")
    finally:
        if stage:
            stage.end()
    for fault in found:
        print(f"FAIL {fault}")
    if not found:
        shutil.rmtree(directory)
        print("alerts and dashboard fit both programs")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
