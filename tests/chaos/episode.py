"""One episode: a plan that its seed decides, traffic and faults at once, then what must hold."""

import asyncio
import base64
import json
import random
import time
from collections import Counter

import faults
import pictures
from client import exchange
from invariants import Watch, check_afterwards
from programs import TOKEN, until
from traffic import BEARER, JSON, Client

MOST_CLIENTS, MOST_FAULTS = 4, 3
BEFORE, AFTER = 0.4, 0.3
# A probe, a model list, a driver that is asked again after ten times what the last try took.
RECOVERY = 20.0


class Plan:
    """Equal for equal seeds, whatever the machine does."""

    def __init__(self, seed, only=None):
        dice = random.Random(seed)
        self.clients, self.seconds = dice.randint(1, MOST_CLIENTS), dice.uniform(2, 5)
        # Every kind as often as every other; the first of a group excludes the rest of it.
        chosen = {}
        for name in dice.sample(sorted(faults.KINDS), len(faults.KINDS)):
            chosen.setdefault(faults.KINDS[name].group, faults.KINDS[name])
        self.faults = list(chosen.values())[: dice.randint(1, MOST_FAULTS)]
        if only:
            self.faults = [faults.KINDS[name] for name in only]
        self.times = []
        for fault in self.faults:
            start = BEFORE + dice.uniform(0, 1)
            self.times.append((start, fault.seconds or dice.uniform(faults.SHORTEST, faults.LONGEST)))

    def __str__(self):
        parts = [f"{fault.name} {start:.1f}-{start + seconds:.1f} s"
                 for fault, (start, seconds) in zip(self.faults, self.times)]
        return f"{self.clients} clients, {', '.join(parts)}"


class Episode:
    def __init__(self, pair, seed, only=None, slack=1.0):
        self.pair, self.seed, self.slack = pair, seed, slack
        self.plan = Plan(seed, only)
        self.prompt = f"chaos-prompt-{seed}-lighthouse"
        self.violations = pair.violations = []
        self.counts, self.refusals = Counter(), Counter()
        self.breaks, self.urls, self.recovery = set(), set(), None
        self.harmed, self.expected = False, set(faults.ALWAYS)

    def broken(self, what):
        self.violations.append(what)

    def count(self, what):
        self.counts[what] += 1

    async def run(self):
        pair, over = self.pair, asyncio.Event()
        self.plan.faults = [fault for fault in self.plan.faults if fault.needs(pair)]
        if any(fault.faketime for fault in self.plan.faults) != pair.faketime:
            await self.restart_programs()
        await self.until_ready("before the episode")
        watch = Watch(self)
        clients = [Client(self, random.Random(f"{self.seed} {number}"), number) for number in range(self.plan.clients)]
        watching = asyncio.create_task(watch.run())
        traffic = [asyncio.create_task(client.run(over)) for client in clients]
        await asyncio.gather(asyncio.sleep(self.plan.seconds), *(
            self.fault(watch, fault, *when) for fault, when in zip(self.plan.faults, self.plan.times)))
        await asyncio.sleep(AFTER)
        over.set()
        await asyncio.gather(*traffic)
        watching.cancel()
        began = time.monotonic()
        if await self.until_ready("after the episode"):
            self.recovery = time.monotonic() - began
            await self.last_picture()
        await check_afterwards(self)

    async def restart_programs(self):
        pair = self.pair
        pair.faketime = not pair.faketime
        for program in (pair.gateway, pair.sidecar):
            await program.end(9)
        pair.clock(0)
        pair.start_programs()

    async def fault(self, watch, fault, start, seconds):
        dice = random.Random(f"{self.seed} {fault.name}")
        await asyncio.sleep(start)
        self.breaks |= set(fault.breaks)
        self.harmed = True
        self.expected |= faults.CODES[fault.group] | fault.codes
        await fault.inject(self.pair, dice)
        watch.began(fault)
        await asyncio.sleep(seconds)
        watch.ended(fault)
        await fault.heal(self.pair, dice)
        watch.disturbed()

    async def until_ready(self, when):
        if await until(self.ready, RECOVERY * self.slack) is not None:
            return True
        _, status = await self.status()
        checks = await exchange(self.pair.sidecar_address, "GET", "/readyz?verbose", bound=5)
        failed = [line for line in checks.body.decode("utf-8", "replace").splitlines() if line.startswith("[-]")]
        health = (status or {}).get("backend_health", {}).get("gpu_heavy", {})
        self.broken(f"not ready {RECOVERY * self.slack:.0f} s {when}: gateway {health.get('error')!r}, sidecar {failed}")
        return False

    async def status(self):
        answer = await exchange(self.pair.gateway_address, "GET", "/v1/gateway/status", tls=True, headers=BEARER, bound=5)
        return answer.status, answer.json

    async def ready(self):
        sidecar = await exchange(self.pair.sidecar_address, "GET", "/readyz", bound=5)
        if sidecar.status != 200:
            return False
        own = await exchange(self.pair.gateway_address, "GET", "/readyz", tls=True, bound=5)
        _, status = await self.status()
        health = (status or {}).get("backend_health", {})
        return own.status == 200 and all(health.get(name, {}).get("ready") for name in ("gpu_heavy", "local_mlx"))

    async def last_picture(self):
        """Once all is well a picture must come, whatever happened."""
        fields = {"prompt": self.prompt, "size": "64x64", "steps": 2, "model": "sd-v1-5", "response_format": "url"}
        answer = None

        async def made():
            nonlocal answer
            answer = await exchange(self.pair.gateway_address, "POST", "/v1/images/generations", tls=True,
                                    headers={**BEARER, **JSON}, body=json.dumps(fields).encode(), bound=25)
            # Places of jobs whose cancel is not confirmed yet.
            return answer.status == 200 or answer.code != "backend_overloaded"

        await until(made, 15 * self.slack)
        if answer.status != 200:
            self.broken(f"no picture once all is well: {answer.status} {answer.error} {answer.body[:300]!r}")
        self.keep_pictures(answer, 1)

    def judge(self, what, at, answer):
        """Exactly one well-formed answer, or a broken connection that a fault explains."""
        self.counts[what] += 1
        if answer.malformed:
            self.broken(f"{what}: {answer.malformed}")
        elif answer.left:
            return
        elif answer.error:
            self.refusals["connection"] += 1
            if at not in self.breaks and not (answer.status and self.harmed and what in ("stream", "pass-through")):
                self.broken(f"{what} at the {at}: {answer.error} after {answer.seconds:.1f} s (status {answer.status})")
        elif answer.status >= 400:
            self.refusal(what, at, answer)

    def refusal(self, what, at, answer):
        code = answer.code
        self.refusals[code or str(answer.status)] += 1
        if what in ("probe", "gpu") or (what in ("pass-through", "socket") and answer.status < 500):
            return
        if not code or "detail" not in (answer.json or {}):
            self.broken(f"{what}: {answer.status} without the envelope: {answer.body[:200]!r}")
        elif code not in self.expected and (answer.status >= 429 or code.startswith("invalid_")):
            self.broken(f"{what}: no fault so far explains {answer.status} {answer.body[:300]!r}")
        elif TOKEN in answer.body.decode("latin-1"):
            self.broken(f"{what}: the token is in the answer")

    def keep_pictures(self, answer, n):
        if answer.status != 200 or answer.error or answer.left:
            return
        data = (answer.json or {}).get("data")
        if not isinstance(data, list) or len(data) != n:
            self.broken(f"{n} pictures asked for, answered {answer.body[:200]!r}")
            return
        for one in data:
            if "url" in one:
                self.urls.add(one["url"])
            elif wrong := pictures.fault(base64.b64decode(one.get("b64_json", ""))):
                self.broken(f"a picture in base64: {wrong}")

    def keep_stream(self, answer):
        """A stream ends with its picture or with an error, never with both or neither."""
        if answer.status != 200 or answer.error:
            return
        events = [json.loads(line[5:]) for line in answer.body.split(b"\n") if line.startswith(b"data:") and b"[DONE]" not in line]
        ends = [event for event in events if event.get("type") in ("image_generation.completed", "error") or "error" in event]
        if len(ends) != 1:
            self.broken(f"a stream of {len(events)} events with {len(ends)} ends: {answer.body[-200:]!r}")
        elif "b64_json" in ends[0]:
            wrong = pictures.fault(base64.b64decode(ends[0]["b64_json"]))
            if wrong:
                self.broken(f"a streamed picture: {wrong}")
            if "url" in ends[0]:
                self.urls.add(ends[0]["url"])
