"""A TCP relay that can harm what passes: on loopback there is no cable to pull."""

import asyncio
import contextlib
import socket
import struct

LINGER_RESET = struct.pack("ii", 1, 0)
DELAY = 0.15
THROTTLED = 4096  # bytes each THROTTLE_PAUSE
THROTTLE_PAUSE = 0.1


class Relay:
    """`mode` is pass, delay, throttle, blackhole (nothing passes, nothing ends), cut or reset (everything ends)."""

    def __init__(self, port, target):
        self.port, self.target, self.mode = port, target, "pass"
        self.ends, self.tasks, self.server = set(), set(), None

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", self.port)

    def set(self, mode):
        """Connections that were stuck end with the fault, as they do when a link was down for long."""
        was, self.mode = self.mode, mode
        if mode in ("cut", "reset") or was == "blackhole":
            for end in list(self.ends):
                self.end(end, reset=mode == "reset")

    def end(self, writer, reset=False):
        self.ends.discard(writer)
        with contextlib.suppress(OSError, AttributeError):
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        writer.transport.abort()

    async def accept(self, reader, writer):
        self.ends.add(writer)
        other = None
        try:
            if self.mode in ("cut", "reset"):
                return
            while self.mode == "blackhole":
                await asyncio.sleep(0.05)
                if writer not in self.ends:
                    return
            there, other = await asyncio.open_connection(*self.target)
            self.ends.add(other)
            await asyncio.gather(self.pump(reader, other), self.pump(there, writer))
        except OSError:
            pass
        finally:
            for end in filter(None, (writer, other)):
                self.end(end, reset=self.mode == "reset")

    async def pump(self, reader, writer):
        while True:
            chunk = await reader.read(THROTTLED if self.mode == "throttle" else 65536)
            while self.mode == "blackhole":
                await asyncio.sleep(0.05)
            if self.mode == "delay":
                await asyncio.sleep(DELAY)
            elif self.mode == "throttle":
                await asyncio.sleep(THROTTLE_PAUSE)
            if not chunk:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()

    def stop(self):
        self.server.close()
        self.set("cut")
