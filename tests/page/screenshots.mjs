// Pictures of the page, for the documents: both schemes, wide and phone. An hour of work in short: a card that is busy while
// pictures are made, a gallery of them, requests at work. SHOTS is the folder; SHOTS_SECONDS how long the card is watched
// first (600 fill the charts). They are WebP: a tenth of the size of PNG.

import fs from 'node:fs';
import path from 'node:path';
import {until} from './until.mjs';
import {ON_PHONE, says, startWorld} from './world.mjs';

const folder = process.env.SHOTS;
const watched = Number(process.env.SHOTS_SECONDS ?? 40);
const WORKS = [
  ['a lighthouse at dusk, long exposure', '1024x1024'],
  ['an orchard in late snow', '1216x832'],
  ['the harbour before the storm, oil on canvas', '832x1216'],
  ['a night market under paper lanterns', '1024x1024'],
  ['portrait of a clockmaker, window light', '832x1216'],
  ['a glacier from the air', '1216x832'],
  ['tea house in the fog, woodblock print', '1024x1024'],
  ['the last tram, rain on glass', '1216x832'],
  ['a greenhouse full of ferns', '1024x1024'],
  ['salt flats at noon', '1216x832'],
  ['a fox between birches, gouache', '832x1216'],
  ['an observatory above the clouds', '1024x1024'],
];
const SCREENS = [
  ['wide', {viewport: {width: 1440, height: 900}}],
  ['phone', {...ON_PHONE, deviceScaleFactor: 2}],
];

const world = await startWorld({slots: 3, engineMemory: true});
const {pair} = world;

/** The card as it does: warm and loaded while pictures are made, cooler between. */
function liveCard() {
  let temperature = 41;
  let power = 24;
  let memory = 9_800;
  const began = Date.now();
  const step = async () => {
    const busy = (await pair.slots().catch(() => ({inflight: 0}))).inflight;
    // The tests may have ended meanwhile.
    if (!fs.existsSync(pair.card.folder)) return;
    const wobble = Math.sin((Date.now() - began) / 7_000);
    temperature += ((busy ? 76 : 46) - temperature) * 0.06;
    power += ((busy ? 268 : 26) - power) * 0.5;
    memory += ((busy ? 15_900 : 11_800) - memory) * 0.3;
    const engine = Math.round(memory + 120 * wobble);
    const others = 1_380;
    pair.card.set({
      memory: {total: 49_140, reserved: 609, used: engine + others},
      processes: pair.engine ? [{pid: pair.engine.pid, used_mib: engine}, {pid: process.pid, used_mib: others}] : [],
      temperature: Math.round(temperature + wobble),
      power_draw_mw: Math.round(1_000 * (power + 6 * wobble)),
      utilization: {gpu: busy ? Math.round(96 + 3 * wobble) : 0},
      clocks: busy ? {graphics: 2_505, sm: 2_505, memory: 10_001, video: 1_965} : undefined,
      pstate: busy ? 2 : 8,
    });
  };
  const timer = setInterval(step, 500);
  timer.unref();
}

liveCard();

/** Makes the gallery's pictures over the time for which the card is watched. */
async function work() {
  const each = (watched * 1000) / WORKS.length;
  for (const [index, [prompt, size]] of WORKS.entries()) {
    const began = performance.now();
    const n = index % 5 === 3 ? 2 : 1;
    await pair.makePicture({prompt, size, n, seed: 4_000 + index, steps: Math.min(150, Math.max(10, Math.round(each / 80 / n)))});
    const rest = each - (performance.now() - began);
    await new Promise((done) => { setTimeout(done, Math.max(0, rest)); });
  }
}

const QUALITY = 0.88;
/** A page that turns a PNG into a WebP: no other tool is needed for it. */
const converter = await (await world.browser.newContext()).newPage();

async function shot(person, name) {
  const png = await person.page.screenshot();
  const webp = await converter.evaluate(async ([base64, quality]) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const canvas = Object.assign(document.createElement('canvas'), {width: image.naturalWidth, height: image.naturalHeight});
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL('image/webp', quality).split(',')[1];
  }, [png.toString('base64'), QUALITY]);
  fs.writeFileSync(path.join(folder, `${name}.webp`), Buffer.from(webp, 'base64'));
}

const drawn = (person) => person.page.waitForFunction(() => [...document.images]
  .filter((image) => image.checkVisibility() && image.getBoundingClientRect().top < innerHeight).every((image) => image.complete && image.naturalWidth));

world.walk('the hour before', {at: '/ui#status', timeout: (watched + 120) * 1000}, async (person) => {
  await says(person.readiness, /^Ready/);
  await work();
});

for (const [screen, device] of SCREENS) {
  for (const scheme of ['light', 'dark']) {
    const name = (what) => `${what}-${screen}-${scheme}`;
    world.walk(`pictures of it: ${screen}, ${scheme}`, {as: null, scheme, ...device}, async (person) => {
      // Pictures have no scrollbar, so its place stays free.
      await person.page.evaluate(() => { document.documentElement.style.scrollbarGutter = 'auto'; });
      await shot(person, name('sign-in'));
      await person.signIn('owner-token-0123456789');
      await says(person.readiness, /^Ready/);
      await person.ask('a paper boat on a canal at first light, morning mist', {size: '1024x1024', steps: 40, seed: 11});
      await person.generate.click();
      await person.openPicture.first().waitFor();
      await person.steps.fill('150');
      await person.prompt.fill('a glass bridge between two towers, long shadows');
      await person.seed.fill('29');
      await person.generate.click();
      await until('it is half done', () => person.progress.evaluate((bar) => bar.position > 0.45).catch(() => false));
      await drawn(person);
      if (screen === 'phone') await shot(person, name('result'));
      await person.page.evaluate(() => scrollTo({top: 0, behavior: 'instant'}));
      await shot(person, name('make'));
      await person.gallery.click();
      await person.links.first().waitFor();
      await drawn(person);
      await shot(person, name('gallery'));
      await person.links.nth(4).click();
      await person.makeAgain.waitFor();
      await drawn(person);
      await shot(person, name('picture'));
      await person.useAsReference.click();
      await person.paintMask.click();
      const mask = person.page.getByRole('dialog', {name: 'Paint mask'});
      const box = await mask.locator('canvas').boundingBox();
      const at = (x, y) => [box.x + x * box.width, box.y + y * box.height];
      await person.page.mouse.move(...at(0.35, 0.62));
      await person.page.mouse.down();
      for (const [x, y] of [[0.42, 0.5], [0.55, 0.46], [0.66, 0.55], [0.6, 0.66], [0.46, 0.66]]) await person.page.mouse.move(...at(x, y), {steps: 8});
      await person.page.mouse.up();
      await shot(person, name('mask'));
      await person.page.keyboard.press('Escape');
      await person.page.keyboard.press('Escape');
      await person.status.click();
      await says(person.page.getByRole('main'), /ten minutes/);
      await person.page.getByText('Added to the references.').waitFor({state: 'hidden'});
      await shot(person, name('status'));
    });
  }
}
