"""A chat server that streams a recorded answer slowly."""

import asyncio
import json
from pathlib import Path

RECORDED = Path(__file__).resolve().parents[1] / "fixtures/mlx_lm"


class ChatServer:
    def __init__(self, port):
        self.port, self.server = port, None
        self.stream = (RECORDED / "chat-stream.http").read_bytes()
        self.recorded = {name: (RECORDED / f"{name}.http").read_bytes() for name in ("health", "models", "not-found")}

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")), 0)
            json.loads(await reader.readexactly(length) or b"{}")
            await self.answer(head.split(" ")[1], writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, path, writer):
        if path.startswith("/v1/chat"):
            for event in self.stream.split(b"\n\n"):
                writer.write(event + b"\n\n")
                await writer.drain()
                await asyncio.sleep(0.02)
            return
        name = "health" if path == "/health" else "models" if path == "/v1/models" else "not-found"
        writer.write(self.recorded[name])
        await writer.drain()

    def stop(self):
        self.server.close()
