// What the scripts of the Node clients share: runs the operations, keeps the images, and reports errors as the client
// raised them. Expectations are in expectations.py.
//
// A script's class has one method per operation. It returns images (bytes), names, or what `atOnce` gives.

import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const PROMPT = "a lighthouse in a storm";

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What each of several calls at once gave: images or an error. */
export async function atOnce(work, times) {
  const settled = await Promise.allSettled(Array.from({ length: times }, () => work()));
  return settled.map((one) => (one.status === "fulfilled" ? one.value : one.reason));
}

/** One after the other. */
export async function each(values, work) {
  const given = [];
  for (const value of values) given.push(await work(value));
  return given;
}

/** As a user's program fetches an image: by its address alone. */
export async function fetched(url) {
  const answer = await fetch(url);
  const kind = answer.headers.get("content-type");
  if (!answer.ok || !kind?.startsWith("image/")) throw new Error(`GET ${url} gave ${answer.status}, ${kind}`);
  return Buffer.from(await answer.arrayBuffer());
}

export async function main(Script) {
  const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
  const report = join(config.out, "report.jsonl");
  writeFileSync(report, "");
  const script = new Script(config);
  for (const operation of config.operations) {
    const outcome = await carryOut(script, operation, config.out);
    appendFileSync(report, JSON.stringify({ operation, ...outcome }) + "\n");
  }
}

async function carryOut(script, operation, out) {
  const cannot = script.cannot[operation];
  if (cannot) return { cannot };
  const start = performance.now();
  const given = await script[operation]().catch((error) => {
    console.error(operation, error);
    return error;
  });
  const seconds = (performance.now() - start) / 1000;
  const outcome = { images: [], refusals: [], names: [], seconds, note: script.notes[operation] };
  for (const one of [given].flat(Infinity)) {
    if (one instanceof Uint8Array) {
      const file = join(out, `${operation}-${outcome.images.length}`);
      writeFileSync(file, one);
      outcome.images.push(file);
    } else if (typeof one === "string") {
      outcome.names.push(one);
    } else {
      outcome.refusals.push(refusal(one));
    }
  }
  return outcome;
}

/** The SDKs disagree on where an error says what. */
function refusal(error) {
  const named = error.name && error.name !== "Error" ? error.name : error.constructor.name;
  return {
    class: named,
    status: error.status ?? error.statusCode ?? null,
    code: (typeof error.code === "string" ? error.code : null) ?? error.data?.error?.code ?? null,
    message: String(error.message).slice(0, 400),
  };
}
