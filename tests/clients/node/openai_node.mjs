// OpenAI's own library for Node.

import assert from "node:assert";
import { createReadStream } from "node:fs";
import OpenAI, { toFile } from "openai";

import { PROMPT, atOnce, each, fetched, main, sleep } from "./checks.mjs";

const MODEL = "sd-xl-base-1.0";

const decoded = (answer) => answer.data.map((one) => Buffer.from(one.b64_json, "base64"));

class OpenAINode {
  cannot = {};
  notes = {};

  constructor(config) {
    Object.assign(this, config);
  }

  client(settings) {
    return new OpenAI({ baseURL: this.url, apiKey: this.token, ...settings });
  }

  async generate(more, client = this.client()) {
    const request = { model: MODEL, prompt: PROMPT, size: "512x512", response_format: "b64_json", ...more };
    return decoded(await client.images.generate(request));
  }

  sourceFile = () => toFile(createReadStream(this.source), "source.png", { type: "image/png" });

  async models() {
    const names = [];
    for await (const model of this.client().models.list()) names.push(model.id);
    return names;
  }

  async model() {
    return (await this.client().models.retrieve("sd-v1-5")).id;
  }

  one_sourceFile = () => this.generate();

  two_images = () => this.generate({ n: 2 });

  sizes = () => each(["768x512", "512x768", "1024x1024"], (size) => this.generate({ size }));

  async openai_model_name() {
    const request = { model: "gpt-image-1", prompt: PROMPT, size: "512x512", quality: "low" };
    return decoded(await this.client().images.generate(request));
  }

  async address() {
    const request = { model: MODEL, prompt: PROMPT, size: "512x512", response_format: "url" };
    const answer = await this.client().images.generate(request);
    return Promise.all(answer.data.map((one) => fetched(one.url)));
  }

  jpeg_and_webp = () =>
    each(["jpeg", "webp"], (output_format) => this.generate({ output_format, output_compression: 80 }));

  seed = () => each([1, 2], () => this.generate({ seed: 7, steps: 5 }));

  async edit() {
    // A list of one, which the library sends as `image[]`.
    const image = [await this.sourceFile()];
    return decoded(await this.client().images.edit({ model: "gpt-image-1", prompt: PROMPT, image }));
  }

  async edit_with_mask() {
    // Streams, which the library sends in chunks, with the files before the text fields.
    const [image, mask] = [createReadStream(this.source), createReadStream(this.mask)];
    const request = { image, mask, model: MODEL, prompt: PROMPT, response_format: "b64_json" };
    return decoded(await this.client().images.edit(request));
  }

  async edit_by_engine_model() {
    const request = { model: "sd-v1-5", prompt: PROMPT, image: await this.sourceFile() };
    const answer = await this.client().images.edit(request);
    return Promise.all(
      answer.data.map((one) => (one.b64_json ? Buffer.from(one.b64_json, "base64") : fetched(one.url))),
    );
  }

  async stream() {
    const request = { model: MODEL, prompt: PROMPT, size: "512x512", stream: true, partial_images: 2 };
    return streamed(await this.client().images.generate(request), "image_generation");
  }

  async stream_edit() {
    const request = { model: MODEL, prompt: PROMPT, image: await this.sourceFile(), stream: true, partial_images: 2 };
    return streamed(await this.client().images.edit(request), "image_edit");
  }

  wrong_token = () => this.generate({}, this.client({ apiKey: "not-the-token" }));

  unknown_model = () => this.generate({ model: "no-such-model" });

  bad_size = () => this.generate({ size: "513x512" });

  over_capacity = () => atOnce(() => this.generate({ model: "slow" }, this.client({ maxRetries: 0 })), 3);

  busy_then_served = () => atOnce(() => this.generate(), 3);

  not_ready = () => this.generate({}, this.client({ baseURL: this.not_ready_url }));

  soon_enough = () => this.generate({ model: "quick" }, this.client({ timeout: 2000, maxRetries: 0 }));

  async timeout() {
    const hasty = this.client({ timeout: 2000, maxRetries: 0 });
    const left = await atOnce(() => this.generate({ model: "slow" }, hasty), 1);
    await sleep(1000);
    // Both slots are free again, or one of these would be refused.
    return [left, await atOnce(() => this.generate({}, this.client({ maxRetries: 0 })), 2)];
  }
}

async function streamed(events, kind) {
  const seen = [];
  for await (const event of events) seen.push(event);
  const types = seen.map((event) => event.type);
  assert.deepEqual(types, [`${kind}.partial_image`, `${kind}.partial_image`, `${kind}.completed`]);
  assert.deepEqual([seen[0].partial_image_index, seen[1].partial_image_index], [0, 1]);
  assert(seen[2].usage.total_tokens !== undefined && seen[2].size === "512x512");
  return seen.map((event) => Buffer.from(event.b64_json, "base64"));
}

await main(OpenAINode);
