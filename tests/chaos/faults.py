"""What can be done to a pair, and what must follow from it. Faults of one group exclude each other."""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Awaitable, Callable

import programs
from client import exchange

MEMORY = "nvmlDeviceGetMemoryInfo_v2"
KINDS = {}
# Codes with which an image or chat request may be refused, by the group of a fault in the episode.
OF_ENGINE = {"backend_not_ready", "backend_error", "backend_timeout", "engine_error", "engine_unavailable", "engine_timeout"}
CODES = {
    "engine": OF_ENGINE, "net": OF_ENGINE, "program": OF_ENGINE | {"shutting_down"},
    "gpu": {"backend_not_ready"}, "clock": {"backend_not_ready"}, "config": {"backend_not_ready"},
    "disk": {"storage_full"}, "descriptors": OF_ENGINE | {"storage_full", "gateway_overloaded"},
}
ALWAYS = {"backend_overloaded", "cancelled", "not_found"}
# A fault's own time; a call that hangs is noticed only after 5 s.
SHORTEST, LONGEST, HANG = 0.5, 4.5, 8.0
FATAL_XIDS = [48, 79, 95, 119]


@dataclass
class Fault:
    name: str
    group: str
    inject: Callable[..., Awaitable[None]]
    heal: Callable[..., Awaitable[None]]
    # Within so many seconds the sidecar must not be ready any more, while the fault lasts.
    gates: float | None = None
    # Whose connections may break because of it: gateway, sidecar.
    breaks: tuple = ()
    # Codes that it explains beside those of its group.
    codes: frozenset = frozenset()
    seconds: float | None = None
    needs: Callable[[object], bool] = lambda pair: True
    faketime: bool = False


async def nothing(pair, dice):
    pass


def kind(name, group, heal=nothing, **more):
    def keep(inject):
        KINDS[name] = Fault(name, group, inject, heal, **more)
        return inject

    return keep


def of_engine(name, command, undo, **more):
    async def inject(pair, dice):
        await pair.engine.tell(command)

    async def heal(pair, dice):
        if undo:
            await pair.engine.tell(undo)

    KINDS[name] = Fault(name, "engine", inject, heal, **more)


of_engine("engine_error", "fail Simulated failure of a node", "fail")
of_engine("engine_hang", "hang on", "hang off")
of_engine("queue_paused", "pause on", "pause off", gates=1.5)
of_engine("sockets_lost", "drop-sockets", None)
of_engine("answer_lost", "lose-answer on", "lose-answer off")
of_engine("events_withheld", "withhold on", "withhold off")
of_engine("image_cut", "image cut", "image complete")
of_engine("image_hollow", "image hollow", "image complete")
of_engine("image_html", "image html", "image complete")


async def start_engine(pair, dice):
    pair.engine.start()


# The relay accepts before it knows that nobody listens. To the sidecar that is silence, which counts only after 10 s if the
# engine had a job; a refused connection counts at once.
@kind("engine_kill", "engine", start_engine, breaks=("sidecar",))
async def kill_engine(pair, dice):
    await pair.engine.end(signal.SIGKILL)


@kind("engine_restart", "engine", breaks=("sidecar",))
async def restart_engine(pair, dice):
    await kill_engine(pair, dice)
    await start_engine(pair, dice)


def stopped(name, group):
    """SIGSTOP of a program, SIGCONT at the end."""

    async def inject(pair, dice):
        pair.stopped.add(name)
        getattr(pair, name).signal(signal.SIGSTOP)

    async def heal(pair, dice):
        getattr(pair, name).signal(signal.SIGCONT)
        pair.stopped.discard(name)

    KINDS[f"pause_{name}"] = Fault(f"pause_{name}", group, inject, heal)


stopped("engine", "engine")
stopped("gateway", "program")
stopped("sidecar", "program")


def of_card(name, gpu=None, heal=None, machine=None, **more):
    async def inject(pair, dice):
        pair.card.set(gpu, **(machine or {}))

    async def well(pair, dice):
        pair.card.set()
        if heal:
            await heal(pair, dice)

    KINDS[name] = Fault(name, "gpu", inject, well, **more)


async def acknowledge(pair, dice):
    """As an operator does: after reading what happened. A sidecar that is stopped meanwhile hears of it only afterwards."""
    async def is_told():
        checks = await exchange(pair.sidecar_address, "GET", "/readyz?verbose", bound=5)
        text = checks.body.decode("utf-8", "replace")
        return any(f"[-]{check} " in text for check in ("xid", "ecc"))

    await programs.until(is_told, 10)
    (pair.folder / "state" / "ack").touch()


of_card("gpu_lost", {"lost": True}, gates=2.0)
of_card("gpu_999", {"errors": {MEMORY: 999}}, gates=2.0)
of_card("gpu_ecc", {"ecc": {"uncorrected": {"volatile": 1}}}, acknowledge, gates=2.0)
of_card("gpu_hang", machine={"hang": [MEMORY]}, gates=6.5, seconds=HANG)
of_card("gpu_vram", {"memory": {"used": 44_000}, "processes": [{"pid": 4_194_305, "used_mib": 44_000}]})
of_card("gpu_throttle", {"throttle_reasons": 0x40})


@kind("gpu_xid", "gpu", acknowledge, gates=2.0)
async def report_xid(pair, dice):
    pair.card.xid(dice.choice(FATAL_XIDS))


def of_network(mode):
    async def inject(pair, dice):
        pair.relays[dice.choice(["upstream", "engine"])].set(mode)

    async def heal(pair, dice):
        for relay in pair.relays.values():
            relay.set("pass")

    KINDS[f"net_{mode}"] = Fault(f"net_{mode}", "net", inject, heal, breaks=("sidecar",))


for mode in ("delay", "throttle", "cut", "blackhole", "reset"):
    of_network(mode)


def is_mounted(pair):
    return pair.mounted


def filler(pair):
    return pair.disk / "filler"


async def empty_disk(pair, dice):
    filler(pair).unlink(missing_ok=True)


@kind("disk_full", "disk", empty_disk, needs=is_mounted)
async def fill_disk(pair, dice):
    free = os.statvfs(pair.disk)
    with open(filler(pair), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - dice.choice([0, 4096, 100_000])))


async def free_inodes(pair, dice):
    for number in range(5000):
        (pair.disk / f"empty-{number}").unlink(missing_ok=True)


@kind("disk_inodes", "disk", free_inodes, needs=is_mounted)
async def use_inodes(pair, dice):
    for number in range(os.statvfs(pair.disk).f_favail):
        try:
            (pair.disk / f"empty-{number}").touch()
        except OSError:
            return


async def attribute(pair, change):
    command = ["chattr", change, str(pair.store)]
    await (await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)).wait()


async def writable(pair, dice):
    await attribute(pair, "-i")


@kind("disk_read_only", "disk", writable, needs=is_mounted, codes=frozenset({"internal_error"}))
async def read_only(pair, dice):
    """The folder is immutable: a file that is open for writing, as the store's lock is, keeps a mount from read-only."""
    await attribute(pair, "+i")


async def true_clock(pair, dice):
    pair.clock(0)


def of_clock(name, seconds):
    async def inject(pair, dice):
        pair.clock(seconds)

    KINDS[name] = Fault(name, "clock", inject, true_clock, faketime=True, needs=lambda pair: Path(programs.FAKETIME).exists())


of_clock("clock_forward", 2 * programs.HOUR)
of_clock("clock_back", -programs.HOUR)


async def lift_limits(pair, dice):
    for program in (pair.gateway, pair.sidecar):
        if program.alive():
            program.limit_descriptors(None)
    pair.stopped.discard("descriptors")


@kind("descriptors", "descriptors", lift_limits, breaks=("gateway", "sidecar"))
async def limit_descriptors(pair, dice):
    program = dice.choice([pair.gateway, pair.sidecar])
    pair.stopped.add("descriptors")
    if program.alive():
        program.limit_descriptors(dice.randrange(0, 6))


def restarted(name, how, which):
    async def inject(pair, dice):
        program = getattr(pair, name)
        pair.stopped.add(name)
        code = await program.end(which)
        wanted = 0 if which == signal.SIGTERM else -which
        if code != wanted:
            pair.violations.append(f"{name} ended with {code} after {which.name}, not {wanted}")

    async def heal(pair, dice):
        # A storm of reloads keeps the configuration valid meanwhile: a start with an invalid one rightly ends with 78.
        await asyncio.sleep(0.1)
        getattr(pair, f"start_{name}")()
        await pair.listens(name)
        pair.stopped.discard(name)

    breaks = ("gateway",) if name == "gateway" else ("gateway", "sidecar")
    KINDS[f"{how}_{name}"] = Fault(f"{how}_{name}", "program", inject, heal, breaks=breaks)


for program in ("gateway", "sidecar"):
    restarted(program, "kill", signal.SIGKILL)
    restarted(program, "drain", signal.SIGTERM)


async def first_certificate(pair, dice):
    pair.use_certificate(0)
    await pair.gateway.reload()


async def expect_certificate(pair, number):
    """Whatever certificate is in force, it is shown soon: here nobody verifies it."""
    if pair.stopped or await programs.until(lambda: pair.shows_certificate(number), 6) is not None:
        return
    pair.violations.append(f"the gateway does not show certificate {number} (2 is out of date) after a reload")


@kind("certificate", "config", first_certificate)
async def next_certificate(pair, dice):
    number = dice.choice([1, programs.EXPIRED])
    pair.use_certificate(number)
    await pair.gateway.reload()
    await expect_certificate(pair, number)


@kind("certificate_mismatch", "config", first_certificate)
async def mismatched_certificate(pair, dice):
    """The key of another one: the reload must be refused, and the old pair stay."""
    pair.use_certificate(1, key=0)
    await pair.gateway.reload()
    await asyncio.sleep(SHORTEST)
    await expect_certificate(pair, 0)


async def reload_good(pair, dice):
    pair.write_settings()
    for program in (pair.gateway, pair.sidecar):
        await program.reload()


@kind("dns", "config", reload_good)
async def lose_name(pair, dice):
    pair.write_settings(upstream="chaos.invalid")
    await pair.gateway.reload()


@kind("reloads", "config", reload_good)
async def reload_storm(pair, dice):
    for number in range(50):
        if number % 2 or pair.stopped:
            pair.write_settings()
        else:
            pair.write_settings(sidecar="max_inflight: plenty\n", backends="backends: [\n")
        for program in (pair.gateway, pair.sidecar):
            await program.reload()
        await asyncio.sleep(0.02)
