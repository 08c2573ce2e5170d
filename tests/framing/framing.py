"""Sends every payload, and mutations of them, through each front to each engine's parser. See README.md."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import payloads_lengths  # noqa: F401  (these three fill the list)
import payloads_chunks  # noqa: F401
import payloads_heads  # noqa: F401
import strict
from engines import engines
from exchange import converse, judge, judge_connection, label
from fronts import Direct, Naive, gateway, sidecar
from fuzz import mutations
from payloads import PAYLOADS, Payload

AT_ONCE = 24
# For what the engine has not read yet when the last client has left.
SETTLE = 0.5
# A naive proxy must fail on this many payloads with each parser: else the harness would not notice a proxy that fails.
BITES = 25


def client_address(number):
    """One per case: the engine is told it, so each request there belongs to a case or to nobody."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


@dataclass
class Case:
    payload: Payload
    pieces: list
    reading: strict.Reading
    address: str
    outcome: object = None
    problems: list = None

    @classmethod
    def of(cls, number, payload, cuts=()):
        data = payload.data.replace(b"CASEID", b"%06d" % number)
        edges = [0, *cuts, len(data)]
        pieces = [data[start:end] for start, end in zip(edges, edges[1:])]
        return cls(payload, pieces, strict.requests(data), client_address(number))


class Run:
    """Payloads through one front to one engine."""

    def __init__(self, front, engine, cases):
        self.front, self.engine, self.cases = front, engine, cases

    async def go(self):
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(case):
            async with gate:
                case.outcome = await converse(self.front, case.address, case.pieces, case.reading)

        await asyncio.gather(*map(one, self.cases))
        await asyncio.sleep(SETTLE)
        by_client = self.engine.by_client()
        for case in self.cases:
            case.outcome.seen = by_client.get(case.address, [])
            case.problems = judge(case.reading, case.outcome)
            counted = sum(1 for seen in case.outcome.seen if seen.complete is not False)
            payload = case.payload
            if self.front.proves and payload.least is not None and not case.problems:
                if not payload.least <= counted <= payload.most:
                    case.problems.append(f"the engine saw {counted} requests, not {payload.least} to {payload.most}")

    def broken(self):
        return [case for case in self.cases if case.problems]


def reports(run):
    for case in run.broken():
        yield (f"{run.front.name} to {run.engine.name}: {case.payload.family}, {case.payload.name}: {'; '.join(case.problems)}\n"
               f"    sent     {b''.join(case.pieces)[:1500]!r}\n"
               f"    strictly {case.reading.end} {case.reading.why} {[(m.method, m.target) for m in case.reading.messages]}\n"
               f"    seen     {[(s.method, s.target, s.body[:60], s.complete) for s in case.outcome.seen]}\n"
               f"    answered {case.outcome.statuses()}, {'closed' if case.outcome.closed else 'open'}")


def table(runs):
    rows = [" | ".join(["", "payload", *(f"{run.front.name} to {run.engine.name}" for run in runs), ""]).strip()]
    rows.append("|" + "---|" * (len(runs) + 1))
    for cases in zip(*(run.cases for run in runs)):
        payload = cases[0].payload
        cells = [label(case.outcome, case.problems) for case in cases]
        rows.append("| " + " | ".join([f"{payload.family}: {payload.name}".replace("|", "\\|"), *cells]) + " |")
    return "\n".join(rows) + "\n"


def kind(case):
    if case.problems:
        return "desync"
    if not case.outcome.seen:
        return "refused"
    return "in part" if max(case.outcome.statuses(), default=0) >= 400 else "passed"


def by_family(runs):
    """A row per family: payloads, of how many a parser sees something else behind a naive proxy, what the programs do."""
    families = {}
    for cases in zip(*(run.cases for run in runs)):
        counts = families.setdefault(cases[0].payload.family, Counter())
        counts["payloads"] += 1
        for front in ("first", "sidecar", "gateway"):
            kinds = {kind(case) for run, case in zip(runs, cases) if front in run.front.name}
            counts[front, "desync" if "desync" in kinds else kinds.pop() if len(kinds) == 1 else "in part"] += 1
    yield "| family | payloads | desync behind a naive proxy | sidecar: passed, in part, refused | gateway and sidecar | desync |"
    yield "|---|---|---|---|---|---|"
    for family, counts in families.items():
        outcomes = ("passed", "in part", "refused")
        done = [", ".join(str(counts[front, one]) for one in outcomes) for front in ("sidecar", "gateway")]
        broken = counts["sidecar", "desync"] + counts["gateway", "desync"]
        yield f"| {family} | {counts['payloads']} | {counts['first', 'desync']} | {done[0]} | {done[1]} | {broken} |"


def disagreements(runs):
    """Payloads of which the parsers themselves, asked directly, see different numbers of requests."""
    counts = zip(*([len(case.outcome.seen) for case in run.cases] for run in runs))
    return sum(1 for of_one in counts if len(set(of_one)) > 1)


def summary(runs):
    for run in runs:
        kinds = Counter(map(kind, run.cases))
        yield (f"{run.front.name:9} to {run.engine.name:9} {kinds['passed']:5} passed, {kinds['in part']:5} in part, "
               f"{kinds['refused']:5} refused, {kinds['desync']:5} desync")


class Harness:
    def __init__(self, programs, directory):
        self.programs, self.directory = programs, directory
        self.engines, self.fronts, self.number = engines(), [], 0

    async def start(self):
        for engine in self.engines:
            await engine.start()
        for engine in self.engines:
            near = sidecar(self.programs, self.directory / engine.name, engine)
            far = gateway(self.programs, self.directory / engine.name, near)
            naive = [Naive("CL first", engine, True), Naive("TE first", engine, False)]
            self.fronts.append([Direct(engine), *naive, near, far])
        await asyncio.gather(*(front.wait() for group in self.fronts for front in group[1:]))

    async def stop(self):
        await asyncio.gather(*(front.stop() for group in self.fronts for front in group))
        await asyncio.gather(*(engine.stop() for engine in self.engines))

    def cases(self, payloads):
        for payload, *cuts in payloads:
            self.number += 1
            yield Case.of(self.number, payload, *cuts)

    def strays(self):
        """What the engines got from our programs and belongs to no client."""
        clients = {client_address(number + 1) for number in range(self.number)}
        for engine in self.engines:
            for connection in engine.connections:
                if connection.peer[0] != "127.0.0.1":
                    continue
                yield from (f"{engine.name}: {problem}" for problem in judge_connection(connection))
                for seen in connection.seen:
                    if b"/f/" in seen.target and engine.client(connection, seen) not in clients:
                        yield f"{engine.name}: nobody's request: {seen.method} {seen.target}, from {seen.forwarded_for}"

    async def run(self, payloads, only_proofs=False):
        """By front: a run for each engine. Fronts one after the other, engines beside one another."""
        found = []
        for at, front in enumerate(self.fronts[0]):
            if only_proofs and not front.proves:
                continue
            runs = [Run(group[at], engine, list(self.cases(payloads))) for group, engine in zip(self.fronts, self.engines)]
            await asyncio.gather(*(run.go() for run in runs))
            found += runs
        return found


def check_table():
    """The table of payloads and the strict parser agree; one checks the other."""
    for payload in PAYLOADS:
        reading = strict.requests(payload.data)
        due = sum(1 for message in reading.messages if not message.refuse)
        if not payload.least <= due <= payload.most:
            yield f"{payload.family}, {payload.name}: strictly {due} requests, the table says {payload.least} to {payload.most}"


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("programs", type=Path)
    arguments.add_argument("--fuzz", type=int, default=500, help="so many mutations, to each engine through each program")
    arguments.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    arguments.add_argument("--only", default="", help="payloads whose family or name contains this")
    given = arguments.parse_args()
    began = time.monotonic()
    # uvicorn's parsers raise for some of these bytes: that is their refusal.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    chosen = [payload for payload in PAYLOADS if given.only in f"{payload.family}: {payload.name}"]
    problems = list(check_table())
    directory = Path(tempfile.mkdtemp(prefix="framing-"))
    harness = Harness(given.programs, directory)
    try:
        await harness.start()
        runs = await harness.run([(payload,) for payload in chosen])
        print(f"{len(chosen)} payloads")
        print("\n".join(summary(runs)))
        direct = [run for run in runs if run.front.name == "direct"]
        print(f"asked directly, the three parsers disagree about {disagreements(direct)}")
        written = Path(os.environ.get("FRAMING_DIR", directory)) / "table.md"
        written.write_text("\n".join(by_family(runs)) + "\n\n" + table(runs))
        for run in runs:
            if run.front.proves:
                problems += reports(run)
            elif run.front.name != "direct" and not given.only and len(run.broken()) < BITES:
                problems.append(f"{run.front.name} to {run.engine.name}: a naive proxy fails only {len(run.broken())} payloads")
        if given.fuzz:
            print(f"{given.fuzz} mutations, --seed {given.seed}")
            fuzzed = await harness.run(mutations(given.seed, given.fuzz), only_proofs=True)
            print("\n".join(summary(fuzzed)))
            for run in fuzzed:
                problems += reports(run)
        problems += harness.strays()
    finally:
        await harness.stop()
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problems; logs in {directory}")
        return 1
    shutil.rmtree(directory)
    print(f"every request that an engine saw was sent, in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
