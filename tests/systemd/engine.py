"""A stand-in InvokeAI, as far as `doctor` asks it: who it is, its models, its nodes, its queue, the first frame of its
WebSocket. What it is like stands in a JSON file beside it, which is read again for every request."""

import base64
import hashlib
import http.server
import json
import pathlib

HERE = pathlib.Path(__file__).parent
LIKE = HERE / "engine.json"
GOOD = {"version": "6.14.2", "host": "127.0.0.1", "port": 9090}
QUEUE = {"pending": 0, "in_progress": 0, "waiting": 0, "completed": 0, "failed": 0, "canceled": 0, "total": 0}


def like():
    return GOOD | (json.loads(LIKE.read_text()) if LIKE.exists() else {})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, now = self.path.split("?")[0], like()
        if path == "/api/v1/app/version":
            return self.answer({"version": now["version"]} if now["version"] else {})
        if now.get("login"):
            return self.answer({"detail": "Authentication required"}, 401)
        if path == "/api/v2/models/":
            models = [] if now.get("no_models") else json.loads((HERE / "models.json").read_text())
            return self.answer({"models": models})
        if path == "/openapi.json":
            return self.answer(self.nodes(now.get("removed")))
        if path == "/api/v1/queue/default/status":
            return self.answer({"queue": QUEUE, "processor": {"is_started": not now.get("paused"), "is_processing": False}})
        if path == "/api/v1/queue/default/counts_by_destination":
            return self.answer(QUEUE)
        if path == "/ws/socket.io/" and not now.get("no_events"):
            return self.greet()
        return self.answer({"detail": "Not Found"}, 404)

    def nodes(self, removed):
        document = json.loads((HERE / "openapi.json").read_text())
        schemas = document["components"]["schemas"]
        supported = {name: schema for name, schema in schemas.items() if schema["properties"]["type"].get("const") != removed}
        document["components"]["schemas"] = supported
        return document

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def greet(self):
        """Opens the WebSocket, says what Socket.IO says first, and listens until the other side leaves."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.frame(b'0{"sid":"a","upgrades":[],"pingTimeout":20000,"pingInterval":25000}')
        self.frame(b'40{"sid":"b"}')
        self.close_connection = True
        while self.rfile.read(1):
            # An event now and then shows that events come.
            self.frame(b'42["queue_cleared",{}]')

    def frame(self, text):
        self.wfile.write(bytes([0x81, len(text)]) + text)
        self.wfile.flush()

    def log_message(self, *_):
        pass


def main():
    now = like()
    http.server.ThreadingHTTPServer((now["host"], now["port"]), Handler).serve_forever()


if __name__ == "__main__":
    main()
