"""A plain HTTP client and a PNG reader, of the standard library only."""

import http.client
import json
import ssl
import struct
import time
import zlib
from urllib.parse import urlsplit


class Server:
    """An address, with what every request to it carries."""

    def __init__(self, url, token=None, certificate=None):
        self.url, self.token, self.certificate = url, token, certificate

    def connect(self, timeout):
        address = urlsplit(self.url)
        if address.scheme == "http":
            return http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
        # The gateway's own authority is the one that is trusted: the certificate's names are checked as well.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.certificate)
        return http.client.HTTPSConnection(address.hostname, address.port, timeout=timeout, context=context)

    def send(self, method, path, body=None, timeout=120, **headers):
        """Sends and returns the connection: who closes it leaves."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        connection = self.connect(timeout)
        connection.request(method, path, body, headers)
        return connection

    def ask(self, method, path, body=None, **more):
        connection = self.send(method, path, body, **more)
        try:
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def image(self, timeout=120, headers=None, **request):
        request = {"prompt": "a red cat", "size": "512x512", "steps": 4, **request}
        return self.ask("POST", "/v1/images/generations", request, timeout=timeout, **(headers or {}))


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The error's code, or nothing."""
        try:
            return self.json["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None

    def __str__(self):
        return f"{self.status} {self.body[:300].decode(errors='replace')}"


def wait_until(true, seconds, every=0.05):
    """How long it took, or None when the time was up. What fails to answer is not true."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        try:
            if true():
                return time.monotonic() - start
        except OSError:
            pass
        except http.client.HTTPException:
            pass
        time.sleep(every)
    return None


def pixels(png):
    """Size and pixel rows, without what else is in the file."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"not a PNG: {png[:40]!r}")
    at, size, data = 8, None, b""
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        content = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            size = struct.unpack(">II", content[:8])
        if kind == b"IDAT":
            data += content
        at += length + 12
    return size, zlib.decompress(data)
