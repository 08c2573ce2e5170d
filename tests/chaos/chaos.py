"""Runs episodes and prints what broke, with the seed that runs it again. See README.md."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path

import faults
from episode import Episode
from programs import Pair


class Table:
    """By kind of fault. An episode with three faults counts for each of them."""

    def __init__(self):
        self.episodes, self.requests, self.refused, self.broken = Counter(), Counter(), Counter(), Counter()
        self.recovery, self.codes, self.kinds = defaultdict(float), Counter(), Counter()
        self.ran, self.failed = 0, []

    def add(self, episode):
        self.ran += 1
        self.codes.update(episode.refusals)
        self.kinds.update(episode.counts)
        if episode.violations:
            self.failed.append(episode.seed)
        for fault in episode.plan.faults:
            self.episodes[fault.name] += 1
            self.requests[fault.name] += episode.counts.total()
            self.refused[fault.name] += episode.refusals.total()
            self.broken[fault.name] += len(episode.violations)
            self.recovery[fault.name] = max(self.recovery[fault.name], episode.recovery or 0)

    def print(self):
        print(f"\n{'fault':18} {'episodes':>8} {'requests':>8} {'refused':>8} {'ready after':>11} {'broken':>6}")
        for name in sorted(self.episodes):
            print(f"{name:18} {self.episodes[name]:8} {self.requests[name]:8} {self.refused[name]:8} "
                  f"{self.recovery[name]:9.1f} s {self.broken[name]:6}")
        print("\nrequests:", ", ".join(f"{kind} {count}" for kind, count in self.kinds.most_common()))
        print("refused:", ", ".join(f"{code} {count}" for code, count in self.codes.most_common()))
        print(f"{self.ran} episodes, {self.kinds.total()} requests, {len(self.failed)} episodes with broken invariants")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries", type=Path)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=0, help="ends after so many, however many episodes are left")
    parser.add_argument("--seed", type=int, default=None, help="of the first episode; the next ones count on")
    parser.add_argument("--pairs", type=int, choices=(1, 2), default=1, help="how many episodes at a time")
    parser.add_argument("--slack", type=float, default=1.0, help="factor on every bound, for a loaded machine")
    parser.add_argument("--faults", default="", help="these kinds in every episode, comma-separated")
    parser.add_argument("--keep", action="store_true", help="keeps the folder with the logs")
    options = parser.parse_args()
    options.only = [name for name in options.faults.split(",") if name]
    unknown = set(options.only) - set(faults.KINDS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(sorted(faults.KINDS))}")
    return options


async def run_episode(pair, seed, options):
    episode = Episode(pair, seed, options.only, options.slack)
    try:
        await episode.run()
    except Exception:
        episode.broken(f"the episode itself failed: {traceback.format_exc(limit=-4)}")
    refused = episode.refusals.total()
    sent = episode.counts.total()
    print(f"{time.strftime('%H:%M:%S')} {seed}: {episode.plan}: {sent} requests, {refused} refused", flush=True)
    if episode.violations:
        for what, times in Counter(episode.violations).items():
            print(f"    BROKEN{f' {times} times' if times > 1 else ''}: {what}", flush=True)
        only = f" --faults {options.faults}" if options.only else ""
        print(f"    again: sh tests/chaos/run.sh --episodes 1 --seed {seed}{only}", flush=True)
    return episode


async def work(folder, seeds, table, options):
    """Episodes on one pair; a new pair after one that broke an invariant, so that nothing is blamed twice."""
    pair = None
    number = 0
    try:
        for seed in seeds:
            if pair is None:
                number += 1
                place = folder / f"pair-{number}"
                place.mkdir(parents=True)
                pair = Pair(place, options.binaries, options.engine)
                await pair.start()
            episode = await run_episode(pair, seed, options)
            table.add(episode)
            if episode.violations:
                await pair.stop()
                pair = None
    finally:
        if pair:
            await pair.stop()


def seeds(options):
    first = options.seed if options.seed is not None else int(time.time())
    end = time.monotonic() + 60 * options.minutes if options.minutes else None
    for seed in range(first, first + options.episodes):
        if end and time.monotonic() > end:
            return
        yield seed


async def main():
    options, table = arguments(), Table()
    # So that programs and mounts do not outlive a run that is ended from outside.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    shared = seeds(options)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(options.pairs):
                group.create_task(work(folder / str(number), shared, table, options))
    finally:
        table.print()
        if table.failed or options.keep:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
