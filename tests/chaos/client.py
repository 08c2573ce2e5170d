"""An HTTP client that sees every byte: one request on a connection of its own, and whatever comes after the answer."""

import asyncio
import contextlib
import json
import ssl
import time
from dataclasses import dataclass, field

UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE


class Malformed(Exception):
    """The answer breaks HTTP."""


@dataclass
class Answer:
    status: int = 0
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    error: str = ""  # why there is no whole answer
    malformed: str = ""
    left: bool = False  # the client disconnected, as it was meant to
    seconds: float = 0.0

    @property
    def json(self):
        with contextlib.suppress(ValueError):
            return json.loads(self.body)
        return None

    @property
    def code(self):
        document = self.json
        error = document.get("error") if isinstance(document, dict) else None
        return error.get("code") if isinstance(error, dict) else None


async def open_connection(address, tls):
    return await asyncio.open_connection(*address, ssl=UNVERIFIED if tls else None, limit=1 << 20)


async def read_head(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
        raise Malformed(f"status line {lines[0][:80]!r}")
    headers = {}
    for line in filter(None, lines[1:]):
        name, colon, value = line.partition(":")
        if not colon:
            raise Malformed(f"header line {line[:80]!r}")
        headers[name.lower()] = value.strip()
    return int(rest[:3]), headers


async def read_chunks(reader, answer):
    while True:
        size = (await reader.readuntil(b"\r\n")).strip().split(b";")[0]
        try:
            length = int(size, 16)
        except ValueError:
            raise Malformed(f"chunk size {size[:40]!r}") from None
        if length == 0:
            await reader.readuntil(b"\r\n")
            return
        answer.body += await reader.readexactly(length)
        if await reader.readexactly(2) != b"\r\n":
            raise Malformed("a chunk without its line end")


async def read_answer(reader, method, answer):
    answer.status, answer.headers = await read_head(reader)
    if answer.status == 101:
        return
    if method != "HEAD" and answer.status not in (204, 304):
        if answer.headers.get("transfer-encoding", "").lower() == "chunked":
            await read_chunks(reader, answer)
        elif "content-length" in answer.headers:
            answer.body = await reader.readexactly(int(answer.headers["content-length"]))
        else:
            answer.body = await reader.read(-1)
            return
    # One request, one answer: anything else before the end is a second one.
    more = b""
    with contextlib.suppress(OSError):
        more = await reader.read(256)
    if more:
        raise Malformed(f"bytes after the answer: {more[:60]!r}")


def head(method, path, address, headers, body):
    lines = {"Host": f"{address[0]}:{address[1]}", "Connection": "close", **headers}
    if body or method == "POST":
        lines["Content-Length"] = str(len(body))
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + body


async def exchange(address, method, path, *, tls=False, headers=None, body=b"", bound=30.0, leave_after=None, raw=None):
    """One request. `leave_after` seconds the client disconnects; `raw` is sent as it is."""
    answer, began = Answer(), time.monotonic()
    writer = None
    try:
        async with asyncio.timeout(leave_after if leave_after is not None else bound):
            reader, writer = await open_connection(address, tls)
            writer.write(head(method, path, address, headers or {}, body) if raw is None else raw)
            await writer.drain()
            await read_answer(reader, method, answer)
    except TimeoutError:
        answer.left = leave_after is not None
        answer.error = "" if answer.left else f"no whole answer within {bound:.0f} s"
    except Malformed as why:
        answer.malformed = str(why)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as why:
        answer.error = f"{type(why).__name__}: {why}"
    finally:
        if writer is not None:
            writer.transport.abort()
    answer.seconds = time.monotonic() - began
    return answer


async def certificate(address):
    """What the server shows, as DER."""
    async with asyncio.timeout(10):
        _, writer = await open_connection(address, True)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return shown
