"""Runs every client against both programs and prints the table; exit code 0 or 1.

matrix.py [CLIENT...]   only these
"""

import json
import os
import shutil
import subprocess
import sys

import expectations
from clients import CLIENTS, HOME
from expectations import KNOWN, OPERATIONS, fault
from servers import Pair

# For one client against one server; it takes half a minute.
PATIENCE = 300


class Column:
    """What one client could do with one server."""

    def __init__(self, client, cells):
        self.client, self.cells = client, cells


class Notes:
    """The reasons under a table, each once."""

    def __init__(self):
        self.reasons = []

    def mark(self, cell, reason):
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"{cell} [{self.reasons.index(reason) + 1}]"


def main():
    selected = sys.argv[1:]
    if selected == ["--list"]:
        print("\n".join(client.name for client in CLIENTS))
        return 0
    unknown = set(selected) - {client.name for client in CLIENTS}
    if unknown:
        sys.exit(f"no such client: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in CLIENTS)}")
    chosen = [client for client in CLIENTS if not selected or client.name in selected]
    able = [client for client in chosen if not client.lacks()]
    for client in able:
        client.install()
    run = HOME / "last-run"
    shutil.rmtree(run, ignore_errors=True)
    # One certificate for both: two of the same name in one file of authorities confuse OpenSSL.
    certificate = run / "healthy/gateway"
    healthy, sick = Pair(run / "healthy", True, certificate), Pair(run / "not-ready", False, certificate)
    source = expectations.make_source(run)
    try:
        healthy.start()
        sick.start()
        tables = {name: [Column(client, ask(client, getattr(healthy, name), getattr(sick, name), run, source))
                         for client in able] for name in ("sidecar", "gateway")}
    finally:
        healthy.stop()
        sick.stop()
    failed = sum(table(name, columns) for name, columns in tables.items())
    for client in chosen:
        print(f"{client.name}: {client.versions() if client in able else 'not run, ' + client.lacks()}")
    print(f"\n{'FAILED: ' + str(failed) if failed else 'All as expected'}. Images, logs and reports: {run}")
    return 1 if failed or not able else 0


def ask(client, server, sick, run, source):
    """Runs the client's script; returns (verdict, reason) for each operation."""
    print(f"{client.name} at the {server.name}", file=sys.stderr, flush=True)
    out = run / server.name / client.name
    out.mkdir(parents=True)
    config = {"url": f"{server.url}/v1", "token": server.token, "not_ready_url": f"{sick.url}/v1", "out": str(out),
              "source": str(run / "source.png"), "mask": str(run / "mask.png"), "operations": operations(),
              "variant": client.variant}
    (out / "config.json").write_text(json.dumps(config))
    before = sick.image_requests()
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    if server.certificate:
        own = str(server.certificate)
        environment |= {"SSL_CERT_FILE": own, "NODE_EXTRA_CA_CERTS": own}
    with (out / "log").open("w") as log:
        try:
            subprocess.run([*map(str, client.command()), str(out / "config.json")], env=environment, stdout=log,
                           stderr=log, stdin=subprocess.DEVNULL, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            log.write(f"killed after {PATIENCE} s\n")
    requests = sick.image_requests() - before
    report = out / "report.jsonl"
    outcomes = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    outcomes = {outcome["operation"]: outcome for outcome in outcomes}
    return {name: judged(client, server, name, outcomes.get(name), requests, source) for name in operations()}


def operations():
    only = os.environ.get("ONLY")
    return [name for name in OPERATIONS if not only or name in only.split(",")]


def judged(client, server, name, outcome, not_ready_requests, source):
    if outcome is None:
        return "FAILS", f"{client.name} did not reach {name}: its log is in last-run/{server.name}/{client.name}/log"
    if "cannot" in outcome:
        return "n/a", outcome["cannot"]
    operation = OPERATIONS[name]
    wrong = fault(operation, outcome, source)
    if not wrong and operation.requests_not_ready and not_ready_requests != operation.requests_not_ready:
        wrong = f"{not_ready_requests} requests reached the {server.name}, not {operation.requests_not_ready}"
    if not wrong:
        instead = operation.instead and any(map(operation.instead.fits, outcome["refusals"]))
        return "works", operation.why_instead if instead else outcome.get("note")
    known, complaint, reason = KNOWN.get((server.name, client.variant or client.script), ((), "", None))
    if name in known and any(complaint in one["message"] for one in outcome["refusals"]):
        return "refused", reason
    return "FAILS", f"{client.name}, {name}: {wrong}"


def table(server, columns):
    """Prints it; gives the number of failures."""
    notes = Notes()
    print(f"\n## {server}\n")
    print(f"| | {' | '.join(column.client.name for column in columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for name in operations():
        cells = [notes.mark(verdict, why) if why else verdict for verdict, why in (column.cells[name] for column in columns)]
        print(f"| {OPERATIONS[name].title} | {' | '.join(cells)} |")
    print()
    for nth, reason in enumerate(notes.reasons, 1):
        print(f"{nth}. {reason}")
    print()
    return sum(verdict == "FAILS" for column in columns for verdict, _ in column.cells.values())


if __name__ == "__main__":
    sys.exit(main())
