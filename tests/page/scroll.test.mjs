// A gallery of 5,000 pictures: scrolled by frames of under 50 ms (frames.mjs says how they are measured), with a document and
// a heap that do not grow.

import assert from 'node:assert/strict';
import {measureFrames} from './frames.mjs';
import {fillStore} from './store.mjs';
import {until} from './until.mjs';
import {says, startWorld} from './world.mjs';

const COUNT = 5_000;
const world = await startWorld({pictures: (folder) => fillStore(folder, COUNT)});

/** Scrolls by so many pixels in each frame, for so many frames. */
const scroll = (page, by, frames) => page.evaluate(async ([top, count]) => {
  for (let frame = 0; frame < count; frame += 1) {
    scrollBy({top, behavior: 'instant'});
    await new Promise(requestAnimationFrame);
  }
}, [by, frames]);

const jumpToEnd = (page) => page.evaluate(() => scrollTo({top: document.documentElement.scrollHeight, behavior: 'instant'}));

async function weigh(person) {
  const session = await person.context.newCDPSession(person.page);
  await session.send('HeapProfiler.collectGarbage');
  const {usedSize} = await session.send('Runtime.getHeapUsage');
  const elements = await person.page.evaluate(() => document.querySelectorAll('*').length);
  await session.detach();
  return {heap: usedSize / 1024 / 1024, elements};
}

world.walk('5,000 pictures are scrolled without a frame over 50 ms, in bounded memory', {at: '/ui#gallery'}, async (person) => {
  const {page} = person;
  await person.links.first().waitFor();
  await says(page.getByRole('search').getByRole('status'), /^5,000 pictures/);
  const before = await weigh(person);
  const walks = [['to the end', 0, 0], ['back', -900, 250], ['slowly', 60, 300], ['fast', 900, 200]];
  const seen = {};
  for (const [name, by, frames] of walks) {
    const from = await page.evaluate(() => scrollY);
    seen[name] = await measureFrames(world.browser, page, async () => {
      if (frames) await scroll(page, by, frames);
      else {
        await jumpToEnd(page);
        await person.list.getByRole('link', {name: /number 4999/}).waitFor();
      }
    });
    assert.ok(Math.abs(await page.evaluate(() => scrollY) - from) > 10_000, `${name}: it has moved`);
    const {longest, clock, tasks} = seen[name];
    console.log(`${name}: longest of ${tasks} tasks ${longest.toFixed(0)} ms of processor time, ${clock.toFixed(0)} ms on the clock`);
  }
  const after = await weigh(person);
  console.log(`elements ${before.elements} → ${after.elements}, heap ${before.heap.toFixed(1)} → ${after.heap.toFixed(1)} MiB`);
  for (const [name, {longest}] of Object.entries(seen)) assert.ok(longest < 50, `${name}: ${longest} ms`);
  assert.ok(after.elements < 1_500, `${after.elements} elements`);
  assert.ok(after.heap < 24, `${after.heap} MiB`);
  await until('pictures in view are drawn', () => page.evaluate(() => [...document.querySelectorAll('[role="list"] img')].filter((image) => {
    const box = image.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  }).every((image) => image.complete && image.naturalWidth > 0)));
});

world.walk('5,000 pictures by keyboard', {at: '/ui#gallery'}, async (person) => {
  await person.links.first().focus();
  await person.page.keyboard.press('End');
  await until('the last has the focus', () => person.page.evaluate(() => document.activeElement.textContent.includes('number 4999')));
  await person.page.keyboard.press('Home');
  await until('the first has the focus', () => person.page.evaluate(() => /number 0$/.test(document.activeElement.textContent)));
});
