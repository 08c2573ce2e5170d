// A page of another origin uses both programs; one that is not allowed reads nothing. And what a person sees who types the
// gateway's address into a browser. Both programs are started here, with the builtin engine.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";

import { check, inBrowser } from "./browser.js";

const TOKEN = "browser-test-token-0123456789";
const folder = mkdtempSync(path.join(os.tmpdir(), "ada2-cors-"));
const running = [];

// Starts a program that logs in JSON; gives the address at which it listens.
function start(name, flags, env = {}) {
  const program = spawn(path.join(process.env.BIN_DIR, name), flags, {
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "pipe"],
  });
  running.push(program);
  return new Promise((found, failed) => {
    let log = "";
    program.stderr.on("data", (piece) => {
      log += piece;
      const listens = log.match(/"listen":"([^"]+)"/);
      if (listens) found(listens[1].replace(/\/$/, ""));
    });
    program.on("exit", () => failed(new Error(`${name} ended:\n${log}`)));
  });
}

// What the page does: the name of each request, and what it could read of the answer.
async function uses(gateway, sidecar, token) {
  const seen = {};
  const authorized = { Authorization: `Bearer ${token}` };
  const json = (body) => ({
    method: "POST",
    headers: { ...authorized, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const read = async (name, url, options) => {
    try {
      const answer = await fetch(url, options);
      const body = await answer.text();
      seen[name] = `${answer.status} ${answer.headers.get("x-request-id") ? "id" : "no id"} ${body.length > 0}`;
      return body;
    } catch (error) {
      seen[name] = `${error}`;
      return "{}";
    }
  };
  const form = new FormData();
  form.append("prompt", "x");
  form.append("image", new Blob(["x"]), "a.png");
  const small = { prompt: "x", size: "64x64", steps: 1 };
  await read("gateway: models", `${gateway}/v1/models`, { headers: authorized });
  const made = await read("gateway: an image", `${gateway}/v1/images/generations`, json(small));
  await read("gateway: a refused edit", `${gateway}/v1/images/edits`, { method: "POST", headers: authorized, body: form });
  await read("gateway: a refused token", `${gateway}/v1/models`, { headers: { Authorization: "Bearer wrong" } });
  await read("gateway: a path that is not there", `${gateway}/v1/nothing`, { headers: authorized });
  await read("gateway: a stream", `${gateway}/v1/images/generations`, json({ ...small, stream: true }));
  const stored = JSON.parse(made).data?.[0].url ?? "/ui/images/1736697234_0123456789abcdef.png";
  await read("gateway: the image itself", `${gateway}${stored}`);
  await read("gateway: health", `${gateway}/healthz`);
  await read("sidecar: models", `${sidecar}/v1/models`);
  await read("sidecar: an image", `${sidecar}/v1/images/generations`, json({ ...small, response_format: "b64_json" }));
  await read("sidecar: a stream", `${sidecar}/v1/images/generations`, json({ ...small, stream: true }));
  const kept = await read("sidecar: an image's address", `${sidecar}/v1/images/generations`, json({ ...small, response_format: "url" }));
  await read("sidecar: the image itself", JSON.parse(kept).data?.[0].url ?? `${sidecar}/v1/images/files/x.png`);
  await read("sidecar: a refused image", `${sidecar}/v1/images/generations`, json({ ...small, n: 99 }));
  await read("sidecar: readiness", `${sidecar}/readyz`);
  return seen;
}

const expected = {
  "gateway: a refused edit": 400,
  "gateway: a refused token": 401,
  "gateway: a path that is not there": 404,
  "sidecar: a refused image": 400,
};

async function site() {
  const server = http.createServer((_, answer) => {
    answer.setHeader("content-type", "text/html");
    answer.end("<!doctype html><link rel=icon href=data:,><title>a page</title>");
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return server;
}

const sites = [await site(), await site()];
const [allowed, foreign] = sites.map((server) => `http://localhost:${server.address().port}`);
try {
  const state = path.join(folder, "sidecar");
  const sidecar = await start("ada2-sidecar", [
    "--listen", "127.0.0.1:0", "--gpu", "optional", "--engine", "builtin", "--state-dir", state, "--log-format", "json",
    "--allowed-origins", allowed,
  ]);
  const backends = path.join(folder, "backends.yaml");
  writeFileSync(backends, `backends:
  gpu_heavy: {base_url: "${sidecar}", supported_capabilities: [images], concurrency_limits: {images: 2}}
`);
  const gatewayWith = (name, more) => {
    const own = path.join(folder, name);
    mkdirSync(own);
    return start("gateway", [], {
      GATEWAY_HOST: "127.0.0.1", GATEWAY_PORT: "0", GATEWAY_BEARER_TOKEN: TOKEN, GATEWAY_DATA_DIR: own,
      UI_IMAGE_DIR: path.join(own, "pictures"), BACKENDS_CONFIG: backends, GATEWAY_LOG_FORMAT: "json",
      GATEWAY_ALLOWED_ORIGINS: allowed, ...more,
    });
  };
  const gateway = await gatewayWith("plain", { GATEWAY_TLS: "off" });
  const secure = await gatewayWith("tls", {});

  await inBrowser(async (page) => {
    await page.goto(allowed);
    const read = await page.evaluate(([gateway, sidecar, token, work]) => eval(`(${work})`)(gateway, sidecar, token), [
      gateway, sidecar, TOKEN, String(uses),
    ]);
    for (const [name, seen] of Object.entries(read)) {
      check(`an allowed origin reads ${name}`, seen === `${expected[name] ?? 200} id true`, seen);
    }
    await page.goto(foreign);
    const closed = await page.evaluate(([gateway, sidecar, token, work]) => eval(`(${work})`)(gateway, sidecar, token), [
      gateway, sidecar, TOKEN, String(uses),
    ]);
    for (const [name, seen] of Object.entries(closed)) {
      check(`another origin does not read ${name}`, seen === "TypeError: Failed to fetch", seen);
    }

    const messages = [];
    page.on("console", (message) => messages.push(message.text()));
    for (const address of [gateway, secure]) {
      const opened = await page.goto(`${address}/`);
      check(`${address}/ leads to the page`, page.url() === `${address}/ui` && opened.status() === 200, page.url());
      check("which says what this is", (await page.getByRole("heading", { level: 1 }).innerText()) === "AI gateway");
    }
    check("without a word in the console", messages.length === 0, messages.join(", "));
    const plain = await page.goto(`${secure.replace("https:", "http:")}/`);
    const hasHint = (await plain.text()).includes(`Use ${secure} instead`);
    check("plain HTTP on the HTTPS port gets the HTTPS URL", plain.status() === 400 && hasHint, plain.status());
  });
} finally {
  for (const program of running) {
    program.removeAllListeners("exit");
    const ended = new Promise((exit) => program.on("exit", exit));
    program.kill();
    await ended;
  }
  for (const server of sites) {
    server.closeAllConnections();
    server.close();
  }
  rmSync(folder, { recursive: true });
}
