// Waiting for what has no event of its own: asked again and again, up to a limit.

const BETWEEN_MS = 50;

/** What `wanted` gives as soon as it is true; an error that says what was waited for after `seconds`. */
export async function until(what, wanted, seconds = 20) {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const found = await wanted();
    if (found) return found;
    if (performance.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((done) => setTimeout(done, BETWEEN_MS));
  }
}
