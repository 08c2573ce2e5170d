"""Stands for the FastAPI gateway: health, a tool, and images that it asks the GPU host for."""

import argparse
import http.server
import urllib.request


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, b'{"status":"ok"}' if self.path in ("/healthz", "/v1/tools") else b'{"detail":"Not Found"}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = urllib.request.Request("http://ada2:7860" + self.path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            self.answer(reply.status, reply.read())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
http.server.ThreadingHTTPServer(("0.0.0.0", parser.parse_args().port), Handler).serve_forever()
