"""Servers that stand in for sidecars, to give answers that the builtin engine cannot be brought to give."""

import asyncio
import json


def refusal(status, code, **headers):
    body = json.dumps({"error": {"message": "a drill", "type": "server_error", "param": None, "code": code},
                       "detail": "a drill"}).encode()
    lines = {"Content-Type": "application/json", "Content-Length": len(body), "X-Should-Retry": "false", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Drill\r\n{head}\r\n".encode() + body


OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"data":[]}'


class StandIn:
    """Ready at every check; to a POST it gives `answer`, or none and closes."""

    def __init__(self):
        self.answer, self.requests, self.reads = OK, 0, 0
        self.get_answer = OK

    async def listen(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if "upgrade: websocket" in head:
                await self.echo(reader, writer)
            elif head.startswith("post"):
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                await reader.readexactly(length)
                self.requests += 1
                writer.write(self.answer or b"")
            elif head.startswith("get /readyz http/1.0"):
                writer.write(OK)
            else:
                self.reads += 1
                writer.write(self.get_answer)
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def echo(self, reader, writer):
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        while piece := await reader.read(1024):
            writer.write(piece)
            await writer.drain()
