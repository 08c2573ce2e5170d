"""A server in front of a real engine that lets it judge each graph and run none.

All passes through, but a job: the engine gets it, says whether it takes it, and loses it again; the client hears that it
was not run. Nothing starts meanwhile, for the engine's queue is held: InvokeAI's is paused, which the client is not told,
in ComfyUI's a job waits. InvokeAI's list of models gets invented ones, so that graphs of all families come.
"""

import http.client
import json
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from invented_models import invented

ENQUEUE = ("/prompt", "/api/prompt", "/api/v1/queue/default/enqueue_batch")
NOT_RUN = {"detail": "judged, not run", "error": {"type": "judged", "message": "judged, not run", "details": ""}}
HOLD = {"hold": {"class_type": "HoldQueue", "inputs": {"seconds": 1800}}}
PROCESSOR = "/api/v1/queue/default/processor"
# Of one connection, not of the message.
HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "host")


class Verdict:
    def __init__(self, graph, status, answer):
        self.graph, self.status, self.answer = graph, status, answer

    @property
    def accepted(self):
        """ComfyUI also takes graphs in which one of several outputs is wrong, and says so."""
        return self.status in (200, 201) and not self.answer.get("node_errors")

    def __str__(self):
        return f"{self.status} {json.dumps(self.answer)[:400]}"


class Verdicts:
    """Listens on a free port while it is entered; `taken` are the verdicts since the last look."""

    def __init__(self, kind, engine_url):
        self.kind, self.engine = kind, urlsplit(engine_url)
        self._verdicts, self._lock = [], threading.Lock()
        handler = type("Handler", (_Handler,), {"it": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        if self.kind == "comfyui":
            self._held = json.loads(self.ask_json("POST", "/prompt", {"prompt": HOLD})[2])["prompt_id"]
        else:
            self.ask("PUT", f"{PROCESSOR}/pause")
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        if self.kind == "comfyui":
            self.ask_json("POST", "/interrupt", {"prompt_id": self._held})
        else:
            self.ask("PUT", f"{PROCESSOR}/resume")
        self._server.shutdown()

    def taken(self):
        with self._lock:
            taken, self._verdicts = self._verdicts, []
        return taken

    def add(self, verdict):
        with self._lock:
            self._verdicts.append(verdict)

    def ask(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection(self.engine.hostname, self.engine.port, timeout=120)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def ask_json(self, method, path, body):
        return self.ask(method, path, json.dumps(body), {"Content-Type": "application/json"})

    def withdraw(self, answer):
        if "prompt_id" in answer:
            self.ask_json("POST", "/queue", {"delete": [answer["prompt_id"]]})
        if "batch" in answer:
            self.ask_json("PUT", "/api/v1/queue/default/cancel_by_batch_ids", {"batch_ids": [answer["batch"]["batch_id"]]})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    it = None

    def log_message(self, *_):
        """Nothing: one line for each check is enough."""

    def pass_on(self):
        if self.headers.get("Upgrade"):
            return self.splice()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self.rfile.read(length)
        status, headers, answer = self.it.ask(self.command, self.path, body, self.forwarded())
        path = urlsplit(self.path).path
        if self.command == "POST" and path in ENQUEUE:
            judged = json.loads(answer)
            self.it.add(Verdict(json.loads(body), status, judged))
            self.it.withdraw(judged)
            status, answer = 500, json.dumps(NOT_RUN).encode()
        elif path.rstrip("/") == "/api/v2/models" and status == 200:
            answer = self.with_invented(answer)
        elif path == "/api/v1/queue/default/status" and status == 200:
            answer = json.dumps({**(told := json.loads(answer)), "processor": {**told["processor"], "is_started": True}}).encode()
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        try:
            self.wfile.write(answer)
        except OSError:  # The client has left.
            self.close_connection = True
        return None

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = pass_on

    def chunks(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def forwarded(self):
        return {name: value for name, value in self.headers.items() if name.lower() not in HOP}

    def with_invented(self, answer):
        listed = json.loads(answer)
        kinds = parse_qs(urlsplit(self.path).query).get("model_type")
        listed["models"] += [model for model in invented() if not kinds or model["type"] in kinds]
        return json.dumps(listed).encode()

    def splice(self):
        """A WebSocket: bytes both ways until one side ends."""
        self.close_connection = True
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items() if name.lower() != "host")
        with socket.create_connection((self.it.engine.hostname, self.it.engine.port)) as engine:
            engine.sendall(f"{self.requestline}\r\nHost: {self.it.engine.netloc}\r\n{head}\r\n".encode())
            other = {engine: self.connection, self.connection: engine}
            while True:
                for ready in select.select(list(other), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)
