"""What clients send: mixed requests, each judged as soon as it is answered."""

import asyncio
import base64
import contextlib
import json

import pictures
from client import exchange
from programs import SIDECAR_TOKEN, TOKEN

BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
# The programs' own time limit is 8 and 10 s; the rest is for a loaded machine.
IMAGE_BOUND, BOUND = 25.0, 15.0
GARBAGE = [
    b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 300, b"GET /" + b"a" * 20_000,
    b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"GET /v1/models HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


class Client:
    """Sends one request after the other until the episode is over."""

    def __init__(self, episode, dice, number):
        self.episode, self.pair, self.dice, self.number, self.count = episode, episode.pair, dice, number, 0

    async def run(self, over):
        kinds = [self.image] * 5 + [self.edit] * 2 + [self.chat] * 2 + [
            self.stream, self.leaver, self.leaver, self.finisher, self.cancel, self.listing, self.probe, self.gpu,
            self.passthrough, self.socket, self.garbage]
        while not over.is_set():
            await self.dice.choice(kinds)()
            await asyncio.sleep(self.dice.uniform(0, 0.1))

    def request_id(self):
        self.count += 1
        return f"chaos-{self.episode.seed}-{self.number}-{self.count}"

    def body(self, **more):
        prompt = f"{self.episode.prompt} {self.number} {self.count}"
        return {"prompt": prompt, "size": "64x64", "steps": self.dice.randint(2, 6), "seed": self.dice.randrange(1 << 30),
                "model": "sd-v1-5", **more}

    async def send(self, what, method, path, *, at="gateway", headers=None, **more):
        address = self.pair.gateway_address if at == "gateway" else self.pair.sidecar_address
        more.setdefault("bound", BOUND)
        given = BEARER if at == "gateway" else {"Authorization": f"Bearer {SIDECAR_TOKEN}"}
        answer = await exchange(address, method, path, tls=at == "gateway", headers={**given, **(headers or {})}, **more)
        self.episode.judge(what, at, answer)
        return answer

    async def generate(self, what, fields, headers=None, **more):
        headers = {**JSON, "X-Request-Id": self.request_id(), **(headers or {})}
        return await self.send(what, "POST", "/v1/images/generations", headers=headers, body=json.dumps(fields).encode(),
                               bound=IMAGE_BOUND, **more)

    async def image(self):
        n, form = self.dice.randint(1, 4), self.dice.choice(["url", "b64_json"])
        answer = await self.generate(f"image {form}", self.body(n=n, response_format=form))
        self.episode.keep_pictures(answer, n)

    async def edit(self):
        boundary = "chaos-boundary"
        fields = {"prompt": self.body()["prompt"], "response_format": "url", "model": "sd-v1-5", "steps": "2"}
        files = {"image": pictures.make(64, 255), "mask": pictures.make(64, 0)}
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
                 for name, value in fields.items()]
        parts += [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n'
                  "Content-Type: image/png\r\n\r\n".encode() + content + b"\r\n" for name, content in files.items()]
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "X-Request-Id": self.request_id()}
        answer = await self.send("edit", "POST", "/v1/images/edits", headers=headers, body=body, bound=IMAGE_BOUND)
        self.episode.keep_pictures(answer, 1)

    async def stream(self):
        answer = await self.generate("stream", self.body(stream=True, partial_images=2))
        self.episode.keep_stream(answer)

    async def leaver(self):
        await self.generate("disconnect", self.body(n=self.dice.randint(1, 2)), leave_after=self.dice.uniform(0, 0.5))

    async def finisher(self):
        await self.generate("disconnect, finish", self.body(), {"X-On-Disconnect": "finish"},
                            leave_after=self.dice.uniform(0.05, 0.3))

    async def cancel(self):
        name = f"chaos-{self.episode.seed}-{self.number}-cancel-{self.count}"
        request = asyncio.create_task(self.generate("cancelled", self.body(steps=6), {"X-Request-Id": name}))
        await asyncio.sleep(self.dice.uniform(0.02, 0.3))
        await self.send("cancel", "DELETE", f"/v1/gateway/jobs/{name}")
        self.episode.keep_pictures(await request, 1)

    async def chat(self):
        fields = {"model": "local_mlx", "stream": True, "messages": [{"role": "user", "content": self.episode.prompt}]}
        leave = self.dice.choice([None, None, 0.1])
        answer = await self.send("chat", "POST", "/v1/chat/completions", headers=JSON, body=json.dumps(fields).encode(),
                                 leave_after=leave)
        if answer.status == 200 and not answer.left and not answer.error and b"data: [DONE]" not in answer.body:
            self.episode.broken("a chat stream ended well without its end mark")

    async def listing(self):
        await self.send("listing", "GET", self.dice.choice(
            ["/v1/models", "/v1/gateway/images?limit=20", "/v1/gateway/status", "/metrics", "/ui"]))

    async def probe(self):
        at = self.dice.choice(["gateway", "sidecar"])
        await self.send("probe", "GET", self.dice.choice(["/readyz", "/healthz"]), at=at)

    async def gpu(self):
        path = self.dice.choice(["/gpu", "/gpu?query=name,memory.used&format=csv", "/metrics", "/readyz?verbose"])
        await self.send("gpu", "GET", path, at="sidecar")

    async def passthrough(self):
        method, path = self.dice.choice([
            ("GET", "/api/v1/app/version"), ("GET", "/api/v1/queue/default/status"), ("GET", "/api/v1/nothing"),
            ("POST", "/api/v1/nothing")])
        body = b'{"x": 1}' if method == "POST" else b""
        await self.send("pass-through", method, path, at="sidecar", headers=JSON if body else {}, body=body)

    async def socket(self):
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode()}
        path = "/ws/socket.io/?EIO=4&transport=websocket"
        await self.send("socket", "GET", path, at="sidecar", headers=headers)

    async def garbage(self):
        at = self.dice.choice(["gateway", "sidecar"])
        # A head that never ends has 10 s; nobody waits for that here.
        with contextlib.suppress(OSError):
            await exchange(self.pair.gateway_address if at == "gateway" else self.pair.sidecar_address, "GET", "/",
                           tls=at == "gateway", raw=self.dice.choice(GARBAGE), leave_after=self.dice.uniform(0, 1))
        self.episode.count("garbage")
