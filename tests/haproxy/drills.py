"""Runs the drills of README.md beside this file; exit code 0 if every claim holds, else 1."""

import argparse
import asyncio
import json
import shutil
import signal
import tempfile
import time
from pathlib import Path

import load
from load import Client
from programs import HOSTS, Gateway, HAProxy, Sidecar, get, until
from stand_ins import OK, StandIn, refusal

FAILURES = []


def claim(holds, what):
    print(f"  {'ok  ' if holds else 'FAIL'} {what}", flush=True)
    if not holds:
        FAILURES.append(what)


class Drills:
    def __init__(self, options, directory):
        self.options, self.directory, self.answers = options, directory, []

    async def run(self):
        self.sidecars = [Sidecar(name, self.directory, self.options.programs, self.options.fake_nvml) for name in HOSTS]
        for sidecar in self.sidecars:
            sidecar.start()
        self.proxy = HAProxy(self.directory, [sidecar.port for sidecar in self.sidecars])
        self.client = Client(self.proxy.port)
        self.gateway = None
        try:
            await until("three cards that are up", self.proxy.up)
            await self.all()
        finally:
            self.client.close()
            for program in [self.gateway, self.proxy, *self.sidecars]:
                if program:
                    await program.stop()

    async def all(self):
        first, second, third = self.sidecars
        await self.drill("nothing happens", None)
        await self.drill("card of g1 lost, and back", self.lose_card(first))
        await self.drill("g2 restarted (SIGTERM, then a new process)", self.restart(second))
        await self.drill("g3 killed (SIGKILL), new process after 2 s", self.kill(third), killed=third)
        await self.drill("g1 drained in HAProxy, upgraded, put back", self.upgrade(first))
        await second.stop()
        second.hold_socket()
        second.start()
        await until("g2, which this process holds the socket of", self.proxy.up)
        await self.drill("g2 restarted, its socket held as by systemd", self.restart(second))
        await self.restarts_in_a_row(second, third)
        self.nothing_ran_twice()
        await self.disconnect()
        await self.stream()
        await self.addresses()
        await self.none_ready()
        await self.all_killed()
        await self.through_the_gateway(first)

    async def drill(self, name, event, killed=None):
        """Load for a while, with the event two seconds after its start."""
        print(f"{name}", flush=True)
        repeats = self.proxy.repeats()
        running = asyncio.create_task(load.load(self.client, self.options.rate, self.options.seconds))
        if event:
            await asyncio.sleep(2)
            await event
        answers = await running
        self.answers += answers
        slowest = max(answer.seconds for answer in answers)
        print(f"  {len(answers)} requests: {load.tally(answers)}; slowest {slowest:.2f} s; "
              f"HAProxy repeated {self.proxy.repeats() - repeats}")
        honest = {(200, None), (429, "backend_overloaded")} | ({(502, "backend_error")} if killed else set())
        others = [answer for answer in answers if (answer.status, answer.code) not in honest]
        claim(not others, f"nothing else failed ({load.tally(others) or 'none'})")
        await until("three cards that are up again", self.proxy.up)

    async def lose_card(self, sidecar):
        sidecar.card(lost=True)
        await until("HAProxy to see it", lambda: self.proxy.server(sidecar.name)["status"] == "DOWN")
        claim(get(f"{sidecar.url}/healthz")[0] == 200, "/healthz says 200 with the card lost: it is no check for routing")
        await asyncio.sleep(2)
        sidecar.card(lost=False)

    async def restart(self, sidecar):
        await sidecar.stop()
        sidecar.start()

    async def kill(self, sidecar):
        # A long one that is on it for sure: the others take none while it is sent.
        others = [name for name in HOSTS if name != sidecar.name]
        for name in others:
            self.proxy.ask(f"set server cards/{name} state drain")
        here = asyncio.create_task(self.client.image(steps=50))
        await asyncio.sleep(0.1)
        for name in others:
            self.proxy.ask(f"set server cards/{name} state ready")
        await sidecar.stop(signal.SIGKILL)
        lost = await here
        self.answers.append(lost)
        claim((lost.status, lost.code, lost.headers.get("x-should-retry")) == (502, "backend_error", "false"),
              f"what ran on it is {lost.status} {lost.code} with x-should-retry: {lost.headers.get('x-should-retry')}")
        await asyncio.sleep(2)
        sidecar.start()

    async def upgrade(self, sidecar):
        self.proxy.ask(f"set server cards/{sidecar.name} state drain")
        await until("its requests to end", lambda: self.proxy.server(sidecar.name)["scur"] == "0")
        await sidecar.stop()
        sidecar.start()
        await until("the new version", sidecar.ready)
        self.proxy.ask(f"set server cards/{sidecar.name} state ready")

    async def restarts_in_a_row(self, held, bare):
        """A listening socket that closes resets what waits in it, unless somebody takes it in: seldom, so many times."""
        for sidecar, how in [(held, "socket held as by systemd"), (bare, "without")]:
            count = self.options.restarts
            print(f"{count} restarts under load, {how}", flush=True)
            running = asyncio.create_task(load.load(self.client, self.options.rate, count * 1.5))
            for _ in range(count):
                await self.restart(sidecar)
                await until("it to be ready", sidecar.ready)
                await asyncio.sleep(0.5)
            answers = await running
            self.answers += answers
            failed = [answer for answer in answers if answer.status not in (200, 429)]
            print(f"  {len(answers)} requests: {load.tally(answers)}")
            claim(not failed, f"none failed ({load.tally(failed) or 'none'})")
            await until("three cards that are up again", self.proxy.up)

    def nothing_ran_twice(self):
        print("what the sidecars' logs say of these requests")
        done = [entry["request_id"] for sidecar in self.sidecars for entry in sidecar.requests()
                if entry["message"] == "job done"]
        claim(len(done) == len(set(done)), f"no request was painted twice ({len(done)} jobs)")
        made = {answer.request_id for answer in self.answers if answer.status == 200}
        claim(made == set(done), f"every image painted was delivered ({len(made)}; {len(set(done) - made)} not)")

    async def disconnect(self):
        print("a client that disconnects")
        cancelled = lambda: sum(one.metric('ada2_sidecar_jobs_total{result="cancelled"}') for one in self.sidecars)
        busy = lambda: sum(one.metric("ada2_sidecar_slots_inflight") for one in self.sidecars)
        before = cancelled()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        body = load.image_body(150)
        writer.write(self.client.head("POST", load.PATH, body, "leaves", {}) + body)
        await until("its job", lambda: busy() == 1)
        began = time.monotonic()
        writer.close()
        await until("the cancel", lambda: cancelled() == before + 1, 5)
        took = time.monotonic() - began
        claim(took < 1, f"its job of 3 s was cancelled in the engine after {took:.2f} s")

    async def stream(self):
        print("a stream of events")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        body = load.image_body(75, stream=True, partial_images=2)
        began = time.monotonic()
        writer.write(self.client.head("POST", load.PATH, body, "streams", {}) + body)
        seen = {}
        while line := await asyncio.wait_for(reader.readline(), 10):
            if line.startswith(b"event:"):
                seen.setdefault(line.split()[1].decode(), time.monotonic() - began)
            if seen.keys() >= {"image_generation.completed"}:
                break
        writer.close()
        first, last = seen["image_generation.partial_image"], seen["image_generation.completed"]
        claim(last - first > 0.5, f"the first preview came after {first:.2f} s, the image after {last:.2f} s")

    async def addresses(self):
        print("response_format url, through HAProxy")
        found = 0
        for _ in range(6):
            answer = await self.client.image(response_format="url")
            path = "/" + json.loads(answer.body)["data"][0]["url"].split("/", 3)[3]
            found += (await self.client.request("GET", path)).status == 200
        print(f"  info {found} of 6 images were found: the image is in the memory of the card that made it")

    async def none_ready(self):
        print("no card left")
        for sidecar in self.sidecars:
            sidecar.card(lost=True)
        down = lambda: all(self.proxy.server(name)["status"] == "DOWN" for name in HOSTS)
        # At once, before HAProxy sees it: with the error of the sidecars.
        await until("the sidecars to see it", lambda: not any(sidecar.ready() for sidecar in self.sidecars))
        answer = await self.client.image()
        claim((answer.status, answer.code) == (503, "backend_not_ready"), f"503 backend_not_ready ({answer.body[:90]!r})")
        await until("HAProxy to see it", down)
        answer = await self.client.image()
        claim((answer.status, answer.code) == (503, "backend_not_ready") and answer.headers["retry-after"] == "30",
              f"then HAProxy's own, in the same shape ({answer.body[:70]!r})")
        for sidecar in self.sidecars:
            sidecar.card(lost=False)
        await until("three cards that are up again", self.proxy.up)

    async def all_killed(self):
        print("all three killed at once")
        running = asyncio.create_task(load.load(self.client, self.options.rate, 4))
        await asyncio.sleep(1)
        await asyncio.gather(*(sidecar.stop(signal.SIGKILL) for sidecar in self.sidecars))
        await asyncio.sleep(1)
        for sidecar in self.sidecars:
            sidecar.start()
        answers = await running
        print(f"  {len(answers)} requests: {load.tally(answers)}")
        kinds = {(answer.status, answer.code) for answer in answers}
        claim(kinds <= {(200, None), (502, "backend_error"), (503, "backend_not_ready"), (429, "backend_overloaded")},
              "each answer says what it is")
        await until("three cards that are up again", self.proxy.up)

    async def through_the_gateway(self, sidecar):
        print("a gateway in front, card of g1 lost and back")
        self.gateway = Gateway(self.directory, self.options.programs, self.proxy.url)
        await until("the gateway to be ready", self.gateway.ready)
        client = Client(self.gateway.port, self.gateway.token)
        running = asyncio.create_task(load.load(client, self.options.rate, self.options.seconds))
        await asyncio.sleep(2)
        await self.lose_card(sidecar)
        answers = await running
        print(f"  {len(answers)} requests: {load.tally(answers)}")
        others = [answer for answer in answers if answer.status not in (200, 429)]
        claim(not others, f"nothing else failed ({load.tally(others) or 'none'})")
        found = 0
        for _ in range(6):
            answer = await client.image()
            found += (await client.request("GET", json.loads(answer.body)["data"][0]["url"])).status == 200
        claim(found == 6, f"{found} of 6 images were found at their addresses")
        client.close()


async def answers(directory):
    """Which answers HAProxy sends on, and which it asks another card about."""
    print("answers that the builtin engine does not give, from stand-ins for the sidecars")
    cards = [StandIn() for _ in HOSTS]
    for card in cards:
        await card.listen()
    proxy = HAProxy(directory, [card.port for card in cards])
    client = Client(proxy.port, pause=0.02)
    try:
        await until("three cards that are up", proxy.up)
        await requested_once(client, cards)
        await retried_on_another_card(client, cards)
        await upgraded(proxy.page_port)
    finally:
        client.close()
        await proxy.stop()


async def requested_once(client, cards):
    kinds = [
        (503, "gpu_out_of_memory", {"Retry-After": 10}), (503, "engine_unavailable", {"Retry-After": 30}),
        (502, "engine_error", {}), (504, "engine_timeout", {}), (429, "backend_overloaded", {"Retry-After": 5}),
        (500, "internal", {}), (425, "drill", {}),
    ]
    for status, code, headers in kinds:
        for card in cards:
            card.answer, card.requests = refusal(status, code, **headers), 0
        answer = await client.image()
        requests = sum(card.requests for card in cards)
        if status == 425:
            print(f"  info a 425 of a sidecar's own (there is none) is requested {requests} times and stays {answer.status}")
            continue
        claim((requests, answer.status, answer.code) == (1, status, code), f"{status} {code}: one card got a request, not {requests}")
    for card in cards:
        card.answer, card.requests = None, 0
    answer = await client.image()
    requests = sum(card.requests for card in cards)
    claim((requests, answer.status, answer.code) == (1, 502, "backend_error"),
          f"closed without an answer: {answer.status} {answer.code}, and {requests} requests reached a card")


async def retried_on_another_card(client, cards):
    not_ready = refusal(503, "backend_not_ready", **{"Retry-After": 30})
    for card in cards:
        card.answer, card.requests = not_ready, 0
    answer = await client.image()
    claim((answer.status, answer.code) == (503, "backend_not_ready") and "x-not-started" not in answer.headers
          and answer.headers.get("retry-after") == "30",
          f"503 backend_not_ready of all: as the sidecar sent it, after {sum(card.requests for card in cards)} tries")
    cards[2].answer = OK
    statuses = [(await client.image()).status for _ in range(6)]
    claim(statuses == [200] * 6, f"503 backend_not_ready of two: the third makes the image ({statuses})")
    long = await client.image(user="u" * 40_000)
    others = [(await client.image(user="u" * 40_000)) for _ in range(5)]
    codes = sorted({(answer.status, answer.code) for answer in [long, *others]}, key=str)
    print(f"  info with a body of 40 kB, which is not repeated: {codes}")
    claim(all(answer.status in (200, 503) for answer in [long, *others]), "and 425 reaches no client")
    for card in cards[:2]:
        card.get_answer = refusal(503, "any")
    statuses = [(await client.request("GET", "/v1/models")).status for _ in range(6)]
    claim(statuses == [200] * 6, f"a GET that two cards answer with 503: the third answers ({statuses})")


async def upgraded(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.write(b"there and back")
    echo = await asyncio.wait_for(reader.readexactly(14), 5)
    writer.close()
    claim(b" 101 " in head and echo == b"there and back", "a WebSocket to the first engine's page passes")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=Path, help="directory with ada2-sidecar and gateway")
    parser.add_argument("fake_nvml", type=Path, help="libfake_nvml.so")
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10, help="of each drill")
    parser.add_argument("--restarts", type=int, default=10, help="restarts in a row")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="haproxy-drill-"))
    try:
        asyncio.run(answers(directory / "answers"))
        asyncio.run(Drills(options, directory).run())
    finally:
        if FAILURES:
            print(f"logs are in {directory}")
        else:
            shutil.rmtree(directory)
    print(f"{len(FAILURES)} claims do not hold" if FAILURES else "every claim holds")
    raise SystemExit(1 if FAILURES else 0)


if __name__ == "__main__":
    main()
