"""A client that keeps its connections, as the gateway does, and never repeats a request."""

import asyncio
import json
import time
import uuid
from collections import Counter

PATH = "/v1/images/generations"


class Answer:
    def __init__(self, status, headers, body, request_id, seconds):
        self.status, self.headers, self.body = status, headers, body
        self.request_id, self.seconds = request_id, seconds

    @property
    def code(self):
        """The error's code; nothing where the answer is no error of ours."""
        try:
            return json.loads(self.body)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None


class Client:
    def __init__(self, port, token=None, pause=0):
        """`pause` is between the head of a request and its body."""
        self.port, self.token, self.pause, self.idle = port, token, pause, []

    async def request(self, method, path, body=None, **headers):
        request_id = str(uuid.uuid4())
        began = time.monotonic()
        reader, writer = self.idle_connection() or await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self.head(method, path, body, request_id, headers))
            # The body in a packet of its own, as many clients send it.
            await writer.drain()
            await asyncio.sleep(self.pause)
            if body:
                writer.write(body)
            status, answered, got = await asyncio.wait_for(read_answer(reader), 60)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
            writer.close()
            return Answer(0, {}, repr(error).encode(), request_id, time.monotonic() - began)
        if answered.get("connection", "") == "close":
            writer.close()
        else:
            self.idle.append((reader, writer))
        return Answer(status, answered, got, request_id, time.monotonic() - began)

    def idle_connection(self):
        """A connection that is still open; HAProxy closes them after a minute without a request."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    def head(self, method, path, body, request_id, headers):
        lines = {"Host": f"127.0.0.1:{self.port}", "X-Request-Id": request_id, **headers}
        if body:
            lines |= {"Content-Type": "application/json", "Content-Length": len(body)}
        if self.token:
            lines["Authorization"] = f"Bearer {self.token}"
        return f"{method} {path} HTTP/1.1\r\n".encode() + \
            "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode() + b"\r\n"

    async def image(self, steps=2, **more):
        return await self.request("POST", PATH, image_body(steps, **more))

    def close(self):
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()


def image_body(steps, **more):
    return json.dumps({"prompt": "a drill", "size": "64x64", "steps": steps, **more}).encode()


async def read_answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


async def load(client, rate, seconds, steps=2):
    """That many requests a second for that long, whether or not responses arrive."""
    loop, tasks = asyncio.get_running_loop(), []
    began = loop.time()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0, began + number / rate - loop.time()))
        tasks.append(asyncio.create_task(client.image(steps)))
    return await asyncio.gather(*tasks)


def tally(answers):
    """How many of each: status and, for errors, the code."""
    kinds = Counter(f"{answer.status} {answer.code or ''}".strip() if answer.status else answer.body.decode()
                    for answer in answers)
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
