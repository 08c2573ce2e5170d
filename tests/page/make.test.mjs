// Making pictures: previews, progress, cancelling, several at once, references, the same again, and what is said when it
// cannot be.

import assert from 'node:assert/strict';
import {pictureMaker} from './png.mjs';
import {TOKENS} from './programs.mjs';
import {until} from './until.mjs';
import {failed} from './watch.mjs';
import {assertAtMost, says, startWorld} from './world.mjs';

const SLOTS = 2;
/** The engine takes 20 ms for a step, so this long for the most there can be, four times. */
const LONG = {steps: 150, pictures: 4};
const world = await startWorld({slots: SLOTS});
// A sidecar that takes fewer than the gateway lets in: the page cannot know, and is refused.
const narrow = await world.another({slots: SLOTS, sidecar: ['--max-inflight', '1']});
const {pair} = world;

const allFree = () => until('all places are free again', async () => (await pair.slots()).available === SLOTS);
/** The engine's own jobs, as the sidecar counts them. */
const engineJobs = async () => Number(/^(\d+) of/.exec((await pair.checks()).slots.observed)[1]);

world.walk('a picture forms in previews, and is there', {}, async (person) => {
  await watchPreviews(person.page);
  await person.ask('a lighthouse at dusk', {steps: 80});
  await person.generate.click();
  await person.progress.waitFor();
  const seen = await until('progress between nothing and all', () => person.progress.evaluate((bar) => bar.position).then((at) => at > 0 && at < 1));
  assert.ok(seen);
  await person.openPicture.first().waitFor();
  await person.progress.waitFor({state: 'hidden'});
  const previews = await person.page.evaluate(() => window.previews.size);
  assert.ok(previews >= 1, `${previews} previews`);
  const picture = person.openPicture.first().locator('img');
  await until('the picture is drawn', () => picture.evaluate((image) => image.complete && image.naturalWidth === 512));
});

world.walk('before the first result the newest pictures are shown, and open', {}, async (person) => {
  const [name] = await pair.makePicture({prompt: 'the newest of all'});
  await person.page.reload();
  const latest = person.page.getByRole('list', {name: 'Latest pictures'});
  await latest.locator(`a[href="#gallery/${name}"]`).click();
  await says(person.dialog, /the newest of all/);
  await person.page.keyboard.press('Escape');
  await person.make.click();
  await latest.waitFor();
  await person.ask('a result', {steps: 2});
  await person.generate.click();
  await latest.waitFor({state: 'hidden'});
  await person.openPicture.first().waitFor();
});

world.walk('the settings that were used stand beside the picture', {}, async (person) => {
  await person.ask('a harbour', {steps: 3, seed: 77});
  await person.generate.click();
  await person.openPicture.first().waitFor();
  const words = await person.results.getByRole('listitem').first().innerText();
  for (const wanted of [/a harbour/, /sd-xl-base-1\.0/, /512 × 512/, /\b77\b/, /Steps\s*3\b/]) assert.match(words, wanted);
});

for (const pictures of [1, LONG.pictures]) {
  world.walk(`cancelling stops the engine: ${pictures} at once`, {}, async (person) => {
    const before = await pair.stored();
    await person.ask('a slow lighthouse', {steps: LONG.steps, pictures});
    await person.generate.click();
    await until('the engine works', async () => await engineJobs() === 1);
    const asked = performance.now();
    await person.cancel.click();
    await until('the engine has stopped', async () => await engineJobs() === 0);
    await allFree();
    assertAtMost(2, (performance.now() - asked) / 1000, `seconds until the engine is free of ${pictures}`);
    await person.progress.waitFor({state: 'hidden'});
    await says(person.results, /cancelled/i);
    assert.equal(await pair.stored(), before);
    await person.generate.waitFor();
  });
}

world.walk('four pictures at once, each with a seed of its own', {}, async (person) => {
  await person.ask('four lighthouses', {steps: 2, pictures: 4, seed: 1000});
  await person.generate.click();
  const pictures = person.page.getByRole('link', {name: /^Open picture \d$/});
  await pictures.nth(3).waitFor();
  assert.equal(await pictures.count(), 4);
  const names = await pictures.evaluateAll((links) => links.map((link) => link.hash.split('/').at(-1)));
  assert.equal(new Set(names.map((name) => name.split('_')[1])).size, 4);
  const words = await person.results.innerText();
  for (const seed of [1000, 1001, 1002, 1003]) assert.match(words, new RegExp(`${seed}`));
});

world.walk('requests run side by side up to the limit, which is said in words', {}, async (person) => {
  for (const prompt of ['the first', 'the second']) {
    await person.ask(prompt, LONG);
    await person.generate.click();
    await person.results.getByText(prompt, {exact: true}).waitFor();
  }
  await until('both have begun', async () => (await pair.slots()).inflight === SLOTS);
  assert.equal(await person.progress.count(), SLOTS);
  await says(person.card, /Both slots taken/);
  await until('nothing more can be asked for', () => person.generate.evaluate((button) => button.disabled || button.ariaDisabled === 'true'));
  await person.page.getByText(/slots are taken, by your requests/).waitFor();
  // The second ends, the first goes on.
  await person.cancel.first().click();
  await until('one place is free', async () => (await pair.slots()).available === 1);
  await until('another can be asked for', () => person.generate.evaluate((button) => !button.disabled && button.ariaDisabled !== 'true'));
  assert.equal(await person.progress.count(), 1);
  await person.cancel.click();
  await allFree();
});

world.walk('three references, each of them sent', {}, async (person) => {
  const make = pictureMaker(256, 192);
  const files = [0.1, 0.4, 0.8].map((hue, index) => ({name: `reference ${index + 1}.png`, mimeType: 'image/png', buffer: make(hue)}));
  await person.choose(person.addReference, files.slice(0, 2));
  await person.choose(person.addReference, files.slice(2));
  await person.page.getByText('reference 3.png').waitFor();
  await person.ask('all three together', {steps: 2, size: null});
  await person.generate.click();
  await person.openPicture.first().waitFor();
  const name = await person.nameOf(person.openPicture.first());
  const {body} = await pair.ask('GET', `/v1/gateway/images/${name}`);
  assert.equal(body.task, 'edit');
  assert.deepEqual(body.references, files.map((file) => file.name));
});

world.walk('a reference is pasted, and dropped', {}, async (person) => {
  const bytes = pictureMaker(64, 64)(0.3).toString('base64');
  for (const [kind, name] of [['paste', 'pasted.png'], ['drop', 'dropped.png']]) {
    await person.prompt.evaluate((target, [type, file, base64]) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], file, {type: 'image/png'}));
      const event = type === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})
        : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
      target.dispatchEvent(event);
    }, [kind, name, bytes]);
    await person.page.getByText(name).waitFor();
  }
});

world.walk('made again, the pixels are the same', {}, async (person) => {
  await person.ask('the same lighthouse', {steps: 2});
  await person.generate.click();
  await person.openPicture.first().waitFor();
  const first = await person.nameOf(person.openPicture.first());
  await person.openPicture.first().click();
  await person.dialog.waitFor();
  await person.makeAgain.click();
  await person.dialog.waitFor({state: 'hidden'});
  await person.openPicture.nth(1).waitFor();
  const second = await person.nameOf(person.openPicture.first());
  assert.ok((await pair.picture(first)).equals(await pair.picture(second)));
});

world.walk('fields are there although nobody says what models there are', {as: null}, async (person) => {
  let answer;
  const asked = new Promise((done) => { answer = done; });
  await person.context.route('**/v1/models', async (route) => {
    await asked;
    await route.continue();
  });
  await person.signIn(TOKENS.owner);
  await person.steps.waitFor();
  assert.equal(await person.model.locator('option').count(), 1);
  answer();
  await until('models can be chosen', async () => await person.model.locator('option').count() > 1);
});

world.walk('what cannot be is said at its field', {}, async (person) => {
  person.watch.expect(failed(400, '/v1/images/generations'));
  await person.generate.click();
  await says(person.alert, /prompt/i);
  await person.ask('too many steps', {steps: 1000});
  await person.generate.click();
  await says(person.alert, /steps/i);
  assert.equal((await pair.slots()).inflight, 0);
});

world.walk('a file that is no picture is named, and is not among the references', {}, async (person) => {
  const text = {mimeType: 'image/png', buffer: Buffer.from('no picture')};
  const picture = {name: 'picture.png', mimeType: 'image/png', buffer: pictureMaker(64, 64)(0.2)};
  await person.choose(person.addReference, [{...text, name: 'one.png'}, picture, {...text, name: 'two.png'}]);
  await says(person.alert, /“one.png”, “two.png” are no pictures/);
  const remove = person.page.getByRole('list', {name: 'References'}).getByRole('button', {name: /^Remove/});
  assert.equal(await remove.count(), 1);
  await remove.click();
  assert.equal(await person.alert.count(), 0, 'what was said is about what is there no more');
});

world.walk('a card that falls off the bus: 503 in the words of the sidecar, and what to do', {}, async (person) => {
  person.watch.expect(failed(503, '/v1/images/generations'));
  await person.ask('no card to make it', {steps: 2});
  pair.card.set({lost: true});
  try {
    await pair.ready(false);
    await says(person.readiness, /not ready/i);
    await person.generate.click();
    const words = await says(person.alert, /gpu_heavy is not ready/);
    assert.match(words, /lost|fallen off|GPU/i);
    await says(person.card, /lost|fallen off|reset|reboot/i);
    await says(person.page.locator('#model-note'), /^Makes/);
  } finally {
    pair.card.set({});
    await pair.ready();
  }
  await says(person.readiness, /^Ready/);
  await person.page.getByRole('button', {name: 'Try again'}).click();
  await person.openPicture.first().waitFor();
});

world.walk('a place that was taken meanwhile: 429 in words, and the request is kept', {pair: narrow}, async (person) => {
  person.watch.expect(failed(429, '/v1/images/generations'));
  const cancel = new AbortController();
  const other = narrow.ask('POST', '/v1/images/generations', {json: {prompt: 'by others', steps: 150, n: 4}, signal: cancel.signal});
  other.catch(() => {});
  await until('the other runs', async () => (await narrow.slots()).inflight === 1);
  await person.ask('one too many', {steps: 2});
  await person.generate.click();
  const words = await says(person.alert, /slots? (is|are) taken/i);
  assert.match(words, /again/i);
  cancel.abort();
  await until('the place is free', async () => (await narrow.slots()).inflight === 0);
  await person.page.getByRole('button', {name: 'Try again'}).click();
  await person.openPicture.first().waitFor();
});

/** Keeps the addresses of all previews that are ever shown. */
function watchPreviews(page) {
  return page.evaluate(() => {
    window.previews = new Set();
    const look = () => {
      for (const image of document.images) if (image.src.startsWith('blob:')) window.previews.add(image.src);
    };
    new MutationObserver(look).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ['src']});
  });
}
