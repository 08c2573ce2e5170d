"""A gateway as one writes it with FastAPI: the same work as ours, for the bench of both.

A token, slots for each class of backends, images stored under a hash of their bytes, chat relayed as a stream.
One process, because the slots are counted in it.
"""

import asyncio
import base64
import hashlib
import os
import pathlib
import secrets
import time
from contextlib import asynccontextmanager

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles

UPSTREAM = os.environ["UPSTREAM"]
TOKEN = os.environ["TOKEN"]
IMAGE_DIR = pathlib.Path(os.environ["WORK_DIR"]) / "pictures"
FLUSHED = os.environ.get("FLUSH") != "no"
SLOTS = {name: asyncio.Semaphore(int(os.environ["SLOTS"])) for name in ("images", "chat")}


@asynccontextmanager
async def lifespan(app):
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=UPSTREAM, timeout=280, limits=limits) as client:
        app.state.client = client
        yield


async def authorize(given: HTTPAuthorizationCredentials = Depends(HTTPBearer())):
    if not secrets.compare_digest(given.credentials.encode(), TOKEN.encode()):
        raise HTTPException(401, "invalid token")


def slot(name):
    """A slot of this class, or 429 at once."""

    async def taken():
        if SLOTS[name].locked():
            raise HTTPException(429, f"all slots for {name} are taken", {"Retry-After": "5"})
        async with SLOTS[name]:
            yield

    return taken


IMAGE_DIR.mkdir(parents=True, exist_ok=True)
app = FastAPI(lifespan=lifespan)
app.mount("/ui/images", StaticFiles(directory=IMAGE_DIR))


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}


def flush(descriptor):
    if FLUSHED:
        os.fsync(descriptor)


def keep(encoded):
    """Stores an image under a hash of its bytes; returns its URL."""
    image = base64.b64decode(encoded)
    name = f"{int(time.time())}_{hashlib.sha256(image).hexdigest()[:16]}.png"
    unnamed = IMAGE_DIR / f".{name}.{secrets.token_hex(4)}"
    with unnamed.open("wb") as file:
        file.write(image)
        file.flush()
        flush(file.fileno())
    unnamed.rename(IMAGE_DIR / name)
    directory = os.open(IMAGE_DIR, os.O_RDONLY)
    try:
        flush(directory)
    finally:
        os.close(directory)
    return f"/ui/images/{name}"


@app.post("/v1/images/generations", dependencies=[Depends(authorize), Depends(slot("images"))])
async def generations(request: Request):
    body = {**await request.json(), "response_format": "b64_json"}
    answer = await request.app.state.client.post("/v1/images/generations", json=body)
    body = answer.json()
    if answer.is_error:
        return JSONResponse(body, answer.status_code)
    # In a thread: hashing and writing leave the interpreter to others meanwhile.
    body["data"] = [{"url": await asyncio.to_thread(keep, image["b64_json"])} for image in body["data"]]
    return JSONResponse(body)


@app.post("/v1/chat/completions", dependencies=[Depends(authorize), Depends(slot("chat"))])
async def chat(request: Request):
    client = request.app.state.client
    headers = {"content-type": "application/json"}
    passed = client.build_request("POST", "/v1/chat/completions", content=await request.body(), headers=headers)
    answer = await client.send(passed, stream=True)

    async def pieces():
        try:
            async for piece in answer.aiter_raw():
                yield piece
        finally:
            await answer.aclose()

    return StreamingResponse(pieces(), answer.status_code, media_type=answer.headers.get("content-type"))
