// What the page costs: bytes and requests of the first view, how soon it is there, that it does not shift, and what an open
// page costs the gateway.

import assert from 'node:assert/strict';
import {TOKENS} from './programs.mjs';
import {ON_PHONE, assertAtMost, says, startWorld} from './world.mjs';

const KB = 1000;
const MOST_BYTES = 60 * KB;
const MOST_SCRIPT_BYTES = 45 * KB;
const MOST_REQUESTS = 40;
/** Of a build without optimisations on a machine that does other things, too. */
const MOST_PAINT_MS = 2_000;
const IDLE_SECONDS = 20;
/** Files that the gateway does not serve are neither compressed nor kept by the browser. */
const BYTES = {skip: process.env.PAGE_FILES ? 'the files are not those of the gateway' : false};

const world = await startWorld();
const {pair} = world;

/** The page's own files, as they were transferred. */
async function files(person, work) {
  const sizes = [];
  const pending = [];
  person.page.on('requestfinished', (request) => {
    const {pathname} = new URL(request.url());
    if (!/\/ui(\/page\/.*)?$/.test(pathname)) return;
    pending.push(request.sizes().then(({responseBodySize: bytes}) => sizes.push({pathname, type: request.resourceType(), bytes})));
  });
  await work();
  await Promise.all(pending);
  const sum = (wanted) => sizes.filter(wanted).reduce((total, {bytes}) => total + bytes, 0);
  return {sizes, bytes: sum(() => true), scripts: sum(({type}) => type === 'script')};
}

/** What is there when a place is. */
const SHOWN = {
  make: ({prompt}) => prompt,
  gallery: ({page}) => page.getByRole('searchbox', {name: 'Search'}),
  status: ({page}) => page.getByRole('heading', {name: 'The last ten minutes'}),
};

for (const place of ['make', 'gallery', 'status']) {
  world.walk(`bytes and requests of the first view: ${place}`, {...BYTES, as: null, at: 'about:blank'}, async (person) => {
    const seen = await files(person, async () => {
      await person.page.goto(new URL(`/ui#${place}`, pair.url).href);
      await person.signIn(TOKENS.owner);
      await SHOWN[place](person).waitFor();
    });
    const requests = person.watch.requests.length;
    console.log(`${place}: ${requests} requests, ${(seen.bytes / KB).toFixed(1)} kB, of which scripts ${(seen.scripts / KB).toFixed(1)} kB`);
    assert.ok(seen.bytes > 10 * KB, 'they were counted');
    assert.ok(seen.bytes <= MOST_BYTES, `${seen.bytes} bytes`);
    assert.ok(seen.scripts <= MOST_SCRIPT_BYTES, `${seen.scripts} bytes of scripts`);
    assert.ok(requests <= MOST_REQUESTS, `${requests} requests`);
  });
}

world.walk('no script or style is fetched twice', {...BYTES, as: null, at: 'about:blank'}, async (person) => {
  const seen = await files(person, async () => {
    await person.page.goto(new URL('/ui', pair.url).href);
    await person.signIn(TOKENS.owner);
    for (const place of ['make', 'gallery', 'status']) {
      await person[place].click();
      await SHOWN[place](person).waitFor();
    }
  });
  console.log(`all three places: ${seen.sizes.length} files, ${(seen.bytes / KB).toFixed(1)} kB, of which scripts ${(seen.scripts / KB).toFixed(1)} kB`);
  const names = seen.sizes.filter(({type}) => /script|stylesheet/.test(type)).map(({pathname}) => pathname);
  assert.deepEqual(names, [...new Set(names)]);
});

world.walk('a second visit asks again only whether anything is new', BYTES, async (person) => {
  await person.prompt.waitFor();
  const {bytes} = await files(person, async () => {
    await person.page.reload();
    await person.prompt.waitFor();
  });
  assert.ok(bytes < 15 * KB, `${bytes} bytes`);
});

/** Keeps count of shifts, also of those from before this was called. */
const watchShifts = (page) => page.evaluate(() => {
  window.shifts = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if (entry.hadRecentInput) continue;
      const what = entry.sources.map(({node, previousRect: from, currentRect: to}) =>
        `${node?.outerHTML?.slice(0, 80) ?? '?'} from ${from.x},${from.y} ${from.width}x${from.height} to ${to.x},${to.y} ${to.width}x${to.height}`);
      window.shifts.push(`${entry.value.toFixed(4)} ${what.join('; ')}`);
    }
  }).observe({type: 'layout-shift', buffered: true});
});

for (const [place, screen] of ['make', 'gallery', 'status'].flatMap((one) => [[one, 'desktop'], [one, 'phone']])) {
  const options = {slow: place !== 'make', ...(screen === 'phone' ? ON_PHONE : {})};
  world.walk(`the first view is soon there, and stays where it is: ${place}, ${screen}`, options, async (person) => {
    await person.prompt.waitFor();
    await pair.makePicture({prompt: 'for the gallery', size: '512x512'});
    await person.page.goto('about:blank');
    await person.page.goto(new URL(`/ui#${place}`, pair.url).href);
    await watchShifts(person.page);
    if (place !== 'gallery') await says(person.readiness, /^Ready/);
    else await person.links.first().waitFor();
    await person.page.waitForFunction(() => [...document.images].filter((image) => image.checkVisibility()).every((image) => image.complete));
    // Two samples more: what comes later must not shift either.
    await person.page.waitForTimeout(2_000);
    const {paint, shifts} = await person.page.evaluate(() => ({
      paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime,
      shifts: window.shifts,
    }));
    assert.deepEqual(shifts, []);
    assertAtMost(MOST_PAINT_MS, paint, `ms until the first contentful paint: ${place}, ${screen}`);
  });
}

world.walk('nothing shifts when a picture forms and arrives', {}, async (person) => {
  await person.ask('a lighthouse', {steps: 120});
  await person.generate.click();
  await person.progress.waitFor();
  // Beyond what the browser takes for the click's own doing.
  await person.page.waitForFunction(() => document.querySelector('progress').position > 0.3);
  await watchShifts(person.page);
  await person.page.evaluate(() => { window.shifts.length = 0; });
  await person.openPicture.first().waitFor();
  await person.page.waitForFunction(() => [...document.images].every((image) => !image.checkVisibility() || image.complete));
  await person.page.waitForTimeout(500);
  assert.deepEqual(await person.page.evaluate(() => window.shifts), []);
});

world.walk('an open page costs the gateway next to nothing', {slow: true, at: '/ui#status'}, async (person) => {
  await says(person.readiness, /^Ready/);
  const [gateway, sidecar] = [pair.gateway.cpuSeconds(), pair.sidecar.cpuSeconds()];
  const began = performance.now();
  await person.page.waitForTimeout(IDLE_SECONDS * 1000);
  const seconds = (performance.now() - began) / 1000;
  const share = (pair.gateway.cpuSeconds() - gateway) / seconds;
  const other = (pair.sidecar.cpuSeconds() - sidecar) / seconds;
  console.log(`an open page: gateway ${(share * 100).toFixed(2)} %, sidecar ${(other * 100).toFixed(2)} % of a core`);
  assert.ok(share < 0.01, `${(share * 100).toFixed(2)} % of a core`);
});
