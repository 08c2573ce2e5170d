// InvokeAI's page: it loads, its socket connects, an image that was started in it is made and shows.

import { check, inBrowser, shot, sidecar, socketsOf, until } from "./browser.js";

const newest = async () => (await fetch(`${sidecar}/api/v1/images/?limit=1&is_intermediate=false`)).json();

await inBrowser(async (page) => {
  const sockets = socketsOf(page);
  const bad = [];
  page.on("response", (answer) => answer.status() >= 400 && bad.push(`${answer.status()} ${answer.url()}`));
  await page.goto(`${sidecar}/`);
  const prompt = page.locator("textarea").first();
  await prompt.waitFor({ timeout: 30_000 });
  check("the page loads", true);
  const open = await until(15, () => sockets.find((socket) => socket.open && socket.frames.length > 0));
  check("its socket connects through the sidecar", open?.url.startsWith(sidecar.replace("http:", "ws:")), open?.url);
  const news = page.locator('button[aria-label="Close"]').first();
  if (await news.isVisible()) await news.click();
  await prompt.fill("a lighthouse at dusk");
  const before = await newest();
  await page.getByRole("button", { name: /^invoke/i }).first().click();
  const made = await until(120, async () => {
    const now = await newest();
    return now.total > before.total && now.items[0].image_name;
  });
  check("an image that is started in the page is made", made, made);
  const events = sockets.flatMap((socket) => socket.frames).filter((frame) => frame.includes("invocation_progress"));
  check("its progress comes over the socket", events.length > 0, events.length);
  const shown = await until(10, () => page.locator(`img[src*="${made}"]`).first().isVisible());
  check("the image shows", shown);
  check("nothing on the page failed", bad.length === 0, bad.join(", "));
  await shot(page, "invokeai");
});
