// Vercel's AI SDK with one of its two providers for servers like ours.

import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";

import { PROMPT, atOnce, each, main, sleep } from "./checks.mjs";

const MODEL = "sd-xl-base-1.0";
const NO_CALL = "the SDK has no such call";
const NO_STREAM = "the SDK has no streamed images";
const NO_FIELD = "the provider sends only the fields that it knows";

class AiSdk {
  notes = {
    not_ready: "with `maxRetries: 0`; by default the SDK asks three times in a minute, as it ignores `x-should-retry`",
  };

  constructor(config) {
    Object.assign(this, config);
    this.compatible = config.variant === "@ai-sdk/openai-compatible";
    this.cannot = {
      models: NO_CALL,
      model: NO_CALL,
      stream: NO_STREAM,
      stream_edit: NO_STREAM,
      address: "the SDK wants bytes: it asks for base64",
      ...(this.compatible ? {} : { seed: NO_FIELD }),
    };
  }

  model(id, settings) {
    const own = { baseURL: this.url, apiKey: this.token, ...settings };
    if (this.compatible) return createOpenAICompatible({ name: "ada2", ...own }).imageModel(id);
    return createOpenAI(own).image(id);
  }

  /** Fields that the SDK itself does not know. */
  options = (compatible, openai) => (this.compatible ? { ada2: compatible } : { openai });

  async generate({ model = MODEL, settings, ...more } = {}) {
    const asked = { model: this.model(model, settings), prompt: PROMPT, size: "512x512", ...more };
    return (await generateImage(asked)).images.map((image) => image.uint8Array);
  }

  alter = (more) => {
    const images = [readFileSync(this.source)];
    return this.generate({ prompt: { text: PROMPT, images, mask: more.mask }, model: more.model });
  };

  one_sourceFile = () => this.generate();

  two_images = () => this.generate({ n: 2 });

  sizes = () => each(["768x512", "512x768", "1024x1024"], (size) => this.generate({ size }));

  openai_model_name = () =>
    this.generate({ model: "gpt-image-1", providerOptions: this.options({ quality: "low" }, { quality: "low" }) });

  jpeg_and_webp = () =>
    each(["jpeg", "webp"], (form) =>
      this.generate({ providerOptions: this.options({ output_format: form }, { outputFormat: form }) }),
    );

  seed = () => each([1, 2], () => this.generate({ providerOptions: this.options({ seed: 7, steps: 5 }) }));

  edit = () => this.alter({ model: "gpt-image-1" });

  edit_with_mask = () => this.alter({ model: "gpt-image-1", mask: readFileSync(this.mask) });

  edit_by_engine_model = () => this.alter({ model: "sd-v1-5" });

  wrong_token = () => this.generate({ settings: { apiKey: "not-the-token" } });

  unknown_model = () => this.generate({ model: "no-such-model" });

  bad_size = () => this.generate({ size: "513x512" });

  over_capacity = () => atOnce(() => this.generate({ model: "slow", maxRetries: 0 }), 3);

  busy_then_served = () => atOnce(() => this.generate(), 3);

  not_ready = () => this.generate({ settings: { baseURL: this.not_ready_url }, maxRetries: 0 });

  hasty = (model) => this.generate({ model, abortSignal: AbortSignal.timeout(2000), maxRetries: 0 });

  soon_enough = () => this.hasty("quick");

  async timeout() {
    const left = await atOnce(() => this.hasty("slow"), 1);
    await sleep(1000);
    return [left, await atOnce(() => this.generate({ maxRetries: 0 }), 2)];
  }
}

await main(AiSdk);
