"""What stands between client and engine: nothing, a proxy that is naive on purpose, the sidecar, the gateway before it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

TOKEN = b"framing-token-0123456789"
STARTS_WITHIN = 20
# Where the naive proxies connect from. Our programs connect from 127.0.0.1, every client from an address of its own.
NAIVE = "127.0.0.2"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Front:
    """`port` listens; `tls` is how; `proves` is false for one that must fail."""

    tls, proves = None, True

    def __init__(self, name, port):
        self.name, self.port = name, port

    async def stop(self):
        pass


class Direct(Front):
    """The engine's server itself."""

    proves = False

    def __init__(self, engine):
        super().__init__("direct", engine.port)


class Program(Front):
    def __init__(self, name, directory, *command, **environment):
        super().__init__(name, free_port())
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(part).replace("{port}", str(self.port)) for part in command],
                stdout=log, stderr=log, env={**os.environ, **environment},
            )

    async def wait(self):
        """Until it accepts connections."""
        end = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            await asyncio.sleep(0.05)
        raise SystemExit(f"{self.name} did not start; {self.log}:\n{self.log.read_text()}")

    async def stop(self):
        self.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)


def sidecar(programs, directory, engine):
    # A gateway before it connects from here; clients connect from addresses of their own.
    return Program(
        "sidecar", directory, programs / "ada2-sidecar", "--listen", "127.0.0.1:{port}",
        "--engine", "comfyui" if engine.name == "aiohttp" else "invokeai", "--engine-url", f"http://127.0.0.1:{engine.port}",
        "--gpu", "optional", "--nvml-lib", "/nonexistent", "--state-dir", directory / "state",
        "--trusted-proxies", "127.0.0.1/32",
    )


def gateway(programs, directory, upstream):
    """With TLS and a token. What is not the gateway's own path goes to the upstream."""
    backends = directory / "backends.yaml"  # JSON is YAML.
    backends.write_text(json.dumps({"backends": {"gpu_heavy": {
        "class": "gpu_heavy", "base_url": f"http://127.0.0.1:{upstream.port}", "supported_capabilities": ["images"],
    }}}))
    front = Program(
        "gateway", directory, programs / "gateway", "--env-file", "/dev/null", "--backends", backends,
        "--gateway-port", "{port}", "--gateway-data-dir", directory / "data", "--ui-image-dir", directory / "pictures",
        GATEWAY_BEARER_TOKEN=TOKEN.decode(), GATEWAY_LEGACY_UPSTREAM=f"http://127.0.0.1:{upstream.port}",
    )
    front.tls = ssl.create_default_context()
    front.tls.check_hostname, front.tls.verify_mode = False, ssl.CERT_NONE
    return front


class Naive(Front):
    """Makes the mistakes that smuggling lives on: believes `Content-Length` before `Transfer-Encoding`, or the reverse, reads
    numbers and names as they come, thinks that GET has no body, and sends everything on as it is, over one connection.
    """

    proves = False

    def __init__(self, name, engine, length_first):
        super().__init__(name, 0)
        self._engine, self._length_first, self._server = engine, length_first, None

    async def wait(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self):
        self._server.close()

    async def _serve(self, client, answer):
        reader, writer = await asyncio.open_connection("127.0.0.1", self._engine.port, local_addr=(NAIVE, 0))
        back = asyncio.create_task(self._copy(reader, answer))
        with contextlib.suppress(asyncio.IncompleteReadError, ValueError, OSError):
            while True:
                await self._forward(client, writer, answer.get_extra_info("peername")[0])
        # What it does not understand ends the connection, once the engine has answered what came before.
        await asyncio.wait([back], timeout=0.3)
        back.cancel()
        for stream in (writer, answer):
            stream.close()

    @staticmethod
    async def _copy(reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
            writer.close()

    async def _forward(self, client, writer, address):
        lines = [await client.readuntil(b"\n")]
        while lines[-1].strip():
            lines.append(await client.readuntil(b"\n"))
        names = {}
        for line in lines[1:-1]:
            name, _, value = line.partition(b":")
            names[name.strip().lower()] = value.strip().lower()
        writer.write(lines[0] + b"X-Forwarded-For: " + address.encode() + b"\r\n" + b"".join(lines[1:]))
        length, chunked = names.get(b"content-length"), b"chunked" in names.get(b"transfer-encoding", b"")
        if lines[0].split(b" ")[0] in (b"GET", b"HEAD"):
            pass
        elif length is not None and (self._length_first or not chunked):
            writer.write(await client.readexactly(int(length)))
        elif chunked:
            await self._forward_chunks(client, writer)
        await writer.drain()

    @staticmethod
    async def _forward_chunks(client, writer):
        size = 1
        while size:
            line = await client.readuntil(b"\n")
            size = int(line.split(b";")[0], 16)
            # Any two bytes end a chunk.
            writer.write(line + await client.readexactly(size + 2))
