"""What must hold: while faults last (readiness tells the truth) and after them (nothing is lost, nothing is left)."""

import asyncio
import re
import time

import pictures
from client import exchange
from programs import SIDECAR_TOKEN, TOKEN, until

BETWEEN_LOOKS = 0.1
# How long the gateway may take longer than the sidecar: a probe each second, and its answer.
GATEWAY_PROBE = 1.5
# Beside the baseline: pooled connections; threads for files; what the allocator keeps.
DESCRIPTORS, THREADS, MEGABYTES = 24, 24, 96
SETTLE = 25.0
NAME = re.compile(r"\d+_([0-9a-f]{16})\.(png|jpg|webp)")


class Watch:
    """Readiness of both programs against the faults that are in force."""

    def __init__(self, episode):
        self.episode, self.pair = episode, episode.pair
        self.active, self.calm_since, self.said = {}, time.monotonic(), set()

    def began(self, fault):
        self.active[fault.name] = (fault, time.monotonic())
        if fault.group in ("program", "net", "clock", "config", "descriptors"):
            self.disturbed()

    def ended(self, fault):
        del self.active[fault.name]

    def disturbed(self):
        """What a program notices is late where it was stopped, away or out of reach itself."""
        self.calm_since = time.monotonic()

    def overdue(self, sent, more=0.0):
        """Faults that must be noticed by now."""
        if any(fault.group in ("program", "descriptors", "clock", "config", "net") for fault, _ in self.active.values()):
            return set()
        bounds = [(fault, (fault.gates + more) * self.episode.slack, since)
                  for fault, since in self.active.values() if fault.gates]
        return {fault.name for fault, bound, since in bounds if sent - max(since, self.calm_since) > bound}

    async def run(self):
        while True:
            for name, look, more in (("sidecar", self.sidecar, 0.0), ("gateway", self.gateway, GATEWAY_PROBE)):
                sent = time.monotonic()
                ready = await look()
                # Still in force when the answer came.
                untrue = self.overdue(sent, more) & set(self.active) if ready else ()
                for fault in set(untrue) - {one for who, one in self.said if who == name}:
                    self.said.add((name, fault))
                    self.episode.broken(f"the {name} is ready {sent - self.active[fault][1]:.1f} s into {fault}")
            await asyncio.sleep(BETWEEN_LOOKS)

    async def sidecar(self):
        return (await exchange(self.pair.sidecar_address, "GET", "/readyz", bound=5)).status == 200

    async def gateway(self):
        _, status = await self.episode.status()
        return (status or {}).get("backend_health", {}).get("gpu_heavy", {}).get("ready", False)


async def check_afterwards(episode):
    await check_slots(episode)
    await check_pictures(episode)
    await check_certificate(episode)
    for program in (episode.pair.gateway, episode.pair.sidecar):
        if not program.alive():
            episode.broken(f"the {program.name} ended by itself with {program.process.returncode}")
            program.start()
        else:
            await check_footprint(episode, program)
        check_log(episode, program)


async def check_slots(episode):
    pair, last = episode.pair, {}

    async def free():
        _, status = await episode.status()
        slots = (status or {}).get("admission_control", {})
        metrics = await exchange(pair.sidecar_address, "GET", "/metrics", bound=5)
        found = re.search(r"^ada2_sidecar_slots_inflight (\S+)$", metrics.body.decode(), re.MULTILINE)
        jobs = await pair.engine.tell("jobs")
        last.update(gateway=slots, sidecar=found and found[1], engine=jobs and jobs.get("open"))
        return (bool(slots) and all(place["inflight"] == 0 and place["available"] == place["limit"] for place in slots.values())
                and slots["gpu_heavy.images"]["limit"] == 3 and last["sidecar"] == "0" and last["engine"] == [])

    if await until(free, SETTLE * episode.slack) is None:
        episode.broken(f"places or jobs are left: {last}")


async def check_pictures(episode):
    """Every address that was given out is served, and every file is what its name says."""
    for url in episode.urls:
        answer = await exchange(episode.pair.gateway_address, "GET", url, tls=True, bound=10)
        name = NAME.search(url)
        if answer.status != 200 or not name:
            episode.broken(f"{url} is not served: {answer.status} {answer.error} {answer.body[:100]!r}")
        elif pictures.hash_of(answer.body) != name[1] or pictures.fault(answer.body):
            episode.broken(f"{url} is served with other bytes: {pictures.fault(answer.body)}")
    for file in episode.pair.store.iterdir():
        name = NAME.fullmatch(file.name)
        if name:
            content = file.read_bytes()
            if pictures.hash_of(content) != name[1] or pictures.fault(content):
                episode.broken(f"the stored {file.name} has other bytes: {pictures.fault(content)}")


async def check_certificate(episode):
    """The one in force is shown, soon after a reload."""
    if await until(lambda: episode.pair.shows_certificate(0), 5 * episode.slack) is None:
        episode.broken("the gateway does not show the certificate in force")


async def check_footprint(episode, program):
    if program.baseline is None:
        program.baseline = program.footprint()
        return
    last = ()

    async def small():
        nonlocal last
        last = program.footprint()
        most = (DESCRIPTORS, THREADS, MEGABYTES)
        return all(now <= base + more for now, base, more in zip(last, program.baseline, most))

    if await until(small, SETTLE) is None:
        episode.broken(f"the {program.name} grew from {program.baseline} to {last} descriptors, threads, MiB")


def check_log(episode, program):
    secrets = {"the token": TOKEN, "the sidecar's token": SIDECAR_TOKEN, "a prompt": "chaos-prompt-"}
    for line in program.new_lines():
        if "panicked" in line:
            episode.broken(f"the {program.name} panicked: {line[:300]}")
        for what, secret in secrets.items():
            if secret in line:
                episode.broken(f"{what} is in the {program.name}'s log: {line[:300]}")
