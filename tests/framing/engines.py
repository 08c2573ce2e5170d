"""The engines' servers with an application that answers what it was asked, and a record of both: bytes and requests."""

import asyncio
import contextlib
import itertools
import logging
from dataclasses import dataclass, field

import uvicorn
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Answers before it has read the body.
EARLY = b"/early"


@dataclass
class Seen:
    number: int
    method: bytes
    target: bytes
    forwarded_for: bytes
    body: bytes = b""
    # None if the application did not read the body.
    complete: bool = False


@dataclass
class Connection:
    peer: tuple
    received: bytearray = field(default_factory=bytearray)
    seen: list = field(default_factory=list)


class Engine:
    """One parser, listening. `connections` is what it received, and what its application saw of that."""

    def __init__(self, name, listen):
        self.name, self._listen = name, listen
        self.connections, self._open, self._numbers = [], {}, itertools.count(1)
        self.port, self._close = 0, None

    async def start(self):
        self.port, self._close = await self._listen(self)

    async def stop(self):
        await self._close()

    def opened(self, peer):
        self._open[peer] = Connection(peer)
        self.connections.append(self._open[peer])

    def received(self, peer, data):
        self._open[peer].received += data

    @staticmethod
    def client(connection, seen):
        """What the front says, without one the connection's own address."""
        return seen.forwarded_for.partition(b",")[0].decode("latin1").strip() or connection.peer[0]

    def by_client(self):
        """What it saw, in that order, by the client's address."""
        found = {}
        for connection in self.connections:
            for seen in connection.seen:
                found.setdefault(self.client(connection, seen), []).append(seen)
        for of_one in found.values():
            of_one.sort(key=lambda seen: seen.number)
        return found

    def saw(self, peer, method, target, headers):
        forwarded = [value for name, value in headers if name.lower() == b"x-forwarded-for"]
        seen = Seen(next(self._numbers), method, target, b",".join(forwarded))
        self._open[peer].seen.append(seen)
        return seen


def tapped(protocol, engine):
    """The protocol, with its bytes recorded."""

    class Tapped(protocol):
        __slots__ = ("_peer",)

        def connection_made(self, transport):
            self._peer = transport.get_extra_info("peername")
            engine.opened(self._peer)
            super().connection_made(transport)

        def data_received(self, data):
            engine.received(self._peer, data)
            super().data_received(data)

    return Tapped


async def listen_aiohttp(engine):
    async def answer(request):
        peer = request.transport.get_extra_info("peername")
        target = request.raw_path if isinstance(request.raw_path, bytes) else request.raw_path.encode("utf-8", "surrogateescape")
        seen = engine.saw(peer, request.method.encode(), target, request.raw_headers)
        if EARLY in target:
            seen.complete = None
        else:
            seen.body = await request.read()
            seen.complete = True
        return web.Response(text=f"seen {seen.number}\n", headers={"X-Seen": str(seen.number)})

    loop = asyncio.get_running_loop()
    server = web.Server(answer)
    protocol = tapped(RequestHandler, engine)
    listener = await loop.create_server(lambda: protocol(server, loop=loop, access_log=None), "127.0.0.1", 0)

    async def close():
        listener.close()
        await server.shutdown(1)

    return listener.sockets[0].getsockname()[1], close


def asgi_application(engine):
    async def answer(scope, receive, send):
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        method, target = scope.get("method", "GET").encode(), scope["raw_path"] + query
        seen = engine.saw(scope["client"], method, target, scope["headers"])
        if scope["type"] == "websocket":
            seen.complete = None
            await receive()
            return await send({"type": "websocket.close"})
        seen.complete = None if EARLY in seen.target else False
        while seen.complete is False:
            event = await receive()
            if event["type"] == "http.disconnect":
                return None
            seen.body += event.get("body", b"")
            seen.complete = not event.get("more_body", False)
        text = b"seen %d\n" % seen.number
        headers = [(b"content-length", b"%d" % len(text)), (b"x-seen", b"%d" % seen.number)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return answer


async def listen_uvicorn(engine, protocol):
    config = uvicorn.Config(
        asgi_application(engine), host="127.0.0.1", port=0, http=tapped(protocol, engine), lifespan="off",
        log_config=None, log_level="critical", access_log=False, proxy_headers=False,
    )
    server = uvicorn.Server(config)
    # Signals are the harness's own.
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)

    async def close():
        server.should_exit = server.force_exit = True
        await serving

    return server.servers[0].sockets[0].getsockname()[1], close


def engines():
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    return [
        Engine("aiohttp", listen_aiohttp),
        Engine("httptools", lambda engine: listen_uvicorn(engine, HttpToolsProtocol)),
        Engine("h11", lambda engine: listen_uvicorn(engine, H11Protocol)),
    ]
