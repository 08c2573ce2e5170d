// A headless browser that reaches only the given addresses, and one line for each check.

import { chromium } from "playwright-core";

export const sidecar = process.env.SIDECAR;
export const engine = process.env.ENGINE_URL;

let failed = 0;

export function check(name, holds, seen = "") {
  if (!holds) failed += 1;
  console.log(`${holds ? "ok  " : "FAIL"} ${name}${seen === "" ? "" : `: ${seen}`}`);
}

export async function inBrowser(work, rules = "") {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...(rules === "" ? [] : [`--host-resolver-rules=${rules}`]),
    ],
  });
  try {
    await work(await browser.newPage({ viewport: { width: 1500, height: 950 }, ignoreHTTPSErrors: true }));
  } finally {
    await browser.close();
  }
  process.exitCode = failed === 0 ? 0 : 1;
}

// WebSockets of a page and the frames that they brought.
export function socketsOf(page) {
  const sockets = [];
  page.on("websocket", (socket) => {
    const seen = { url: socket.url(), frames: [], open: true };
    sockets.push(seen);
    socket.on("framereceived", (frame) => seen.frames.push(String(frame.payload)));
    socket.on("close", () => (seen.open = false));
  });
  return sockets;
}

export async function shot(page, name) {
  const path = `${process.env.SHOTS}/${name}.png`;
  await page.screenshot({ path });
  console.log(`     screenshot: ${path}`);
}

export async function until(seconds, wanted) {
  for (let tries = 0; tries < seconds * 2; tries += 1) {
    const found = await wanted();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 500));
  }
  return undefined;
}
