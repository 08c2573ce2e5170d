// ComfyUI's page: it loads, its socket connects, a workflow that was run in it makes an image, which shows.

import { check, inBrowser, shot, sidecar, socketsOf, until } from "./browser.js";

// The model's name is the engine's own.
const models = await (await fetch(`${sidecar}/object_info/CheckpointLoaderSimple`)).json();
const checkpoint = models.CheckpointLoaderSimple.input.required.ckpt_name[0].find((name) => !name.includes("xl"));
const workflow = {
  3: {
    class_type: "KSampler",
    inputs: {
      seed: Math.floor(Math.random() * 1e9), steps: 4, cfg: 7, sampler_name: "euler", scheduler: "normal", denoise: 1,
      model: ["4", 0], positive: ["6", 0], negative: ["7", 0], latent_image: ["5", 0],
    },
  },
  4: { class_type: "CheckpointLoaderSimple", inputs: { ckpt_name: checkpoint } },
  5: { class_type: "EmptyLatentImage", inputs: { width: 256, height: 256, batch_size: 1 } },
  6: { class_type: "CLIPTextEncode", inputs: { text: "a lighthouse at dusk", clip: ["4", 1] } },
  7: { class_type: "CLIPTextEncode", inputs: { text: "", clip: ["4", 1] } },
  8: { class_type: "VAEDecode", inputs: { samples: ["3", 0], vae: ["4", 2] } },
  9: { class_type: "SaveImage", inputs: { filename_prefix: "page", images: ["8", 0] } },
};

await inBrowser(async (page) => {
  const sockets = socketsOf(page);
  await page.goto(`${sidecar}/`);
  await page.waitForFunction(() => window.app?.graph, undefined, { timeout: 60_000 });
  check("the page loads", true);
  const open = await until(15, () => sockets.find((socket) => socket.open && socket.frames.length > 0));
  check("its socket connects through the sidecar", open?.url.startsWith(sidecar.replace("http:", "ws:")), open?.url);
  await page.waitForTimeout(2_000);
  await page.keyboard.press("Escape");
  await page.evaluate((workflow) => window.app.loadApiJson(workflow, "lighthouse"), workflow);
  // Nodes that are not in view load no images: the view is fitted to all.
  await page.mouse.click(700, 800);
  await page.keyboard.press(".");
  await page.getByRole("button", { name: /^run/i }).first().click();
  const done = await until(120, () =>
    sockets.flatMap((socket) => socket.frames).some((frame) => frame.includes('"executed"')),
  );
  check("a workflow that is run in the page makes an image", done);
  const image = await until(10, () =>
    page.evaluate(() => {
      // Previews are blobs; what the engine has saved has an address.
      const images = window.app.graph.nodes.flatMap((node) => node.imgs ?? []);
      const shown = images.filter((image) => image.complete && image.naturalWidth > 0);
      return shown.map((image) => image.src).find((src) => src.includes("/view?filename=page"));
    }),
  );
  check("the image shows", image?.startsWith(sidecar), image);
  await page.waitForTimeout(1_000);
  await shot(page, "comfyui");
});
