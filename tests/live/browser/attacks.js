// Pages of other sites in the same browser: whatever they try, the engine hears nothing of it.

import http from "node:http";

import { check, engine, inBrowser, sidecar } from "./browser.js";

const port = new URL(sidecar).port;
// Paths that only the attacks request; the engine's own response would differ from the sidecar's.
const attacks = {
  "a simple POST": (url) => fetch(`${url}/prompt`, { method: "POST", mode: "no-cors", body: "{}" }).then((a) => a.type),
  "a readable GET": (url) => fetch(`${url}/`).then((a) => a.status),
  "a preflighted POST": (url) =>
    fetch(`${url}/prompt`, { method: "POST", headers: { "content-type": "application/json" }, body: "{}" }).then((a) => a.status),
  "a WebSocket": (url) =>
    new Promise((done) => {
      const socket = new WebSocket(`${url.replace("http:", "ws:")}/ws?clientId=evil`);
      socket.onopen = () => done("open");
      socket.onerror = () => done("refused");
    }),
  "an image": (url) =>
    new Promise((done) => {
      const image = new Image();
      image.onload = () => done("loaded");
      image.onerror = () => done("refused");
      image.src = `${url}/favicon.ico`;
    }),
};

const site = http.createServer((_, answer) => {
  answer.setHeader("content-type", "text/html");
  answer.end("<!doctype html><title>evil</title><iframe name=frame></iframe>");
});
await new Promise((listening) => site.listen(0, "127.0.0.1", listening));
const evil = `http://evil.example:${site.address().port}`;

await inBrowser(async (page) => {
  const statuses = new Map();
  page.on("response", (answer) => statuses.set(new URL(answer.url()).pathname, answer.status()));
  await page.goto(evil);
  for (const [name, attack] of Object.entries(attacks)) {
    const seen = await page.evaluate(`(${attack})(${JSON.stringify(sidecar)}).catch(() => "refused")`);
    check(`${name} from another site is refused`, !["open", "loaded", 200].includes(seen), seen);
  }
  check("the POST was answered 403", statuses.get("/prompt") === 403, statuses.get("/prompt"));
  await page.evaluate((url) => (document.querySelector("iframe").src = url), `${sidecar}/`);
  await page.waitForTimeout(2_000);
  check("the page in a frame is answered 403", statuses.get("/") === 403, statuses.get("/"));
  const rebound = await page.goto(`http://rebound.example:${port}/`);
  check("a name that was mapped to this address is 421", rebound.status() === 421, rebound.status());
  const followed = await page.goto(evil).then(() => page.evaluate((url) => (location.href = url), `${sidecar}/`));
  await page.waitForURL(`${sidecar}/**`);
  check("a link that a person follows works", followed !== undefined && statuses.get("/") === 200, statuses.get("/"));
}, "MAP *.example 127.0.0.1");
site.close();
console.log(`     engine: ${engine}`);
