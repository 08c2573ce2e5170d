// A gallery of 5,000 pictures. How a frame is measured: the page is scrolled from animation frame to animation frame, as fast
// as a person turns a wheel, and the browser's own `long-animation-frame` entries tell each frame that took over 50 ms, from
// its start until its drawing was handed on, with the scripts that took the time.

import assert from 'node:assert/strict';
import {fillStore} from './store.mjs';
import {until} from './until.mjs';
import {says, startWorld} from './world.mjs';

const COUNT = 5_000;
const world = await startWorld({pictures: (folder) => fillStore(folder, COUNT)});

/** Scrolls by `step` pixels each frame for `frames` frames; what took long, in milliseconds. */
function scroll(page, {step, frames}) {
  return page.evaluate(async ([by, count]) => {
    const long = [];
    const observer = new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const scripts = entry.scripts.map((script) => `${script.invoker} ${script.sourceURL.split('/').at(-1)} ${Math.round(script.duration)} ms`);
        long.push({duration: Math.round(entry.duration), blocking: Math.round(entry.blockingDuration), scripts});
      }
    });
    observer.observe({type: 'long-animation-frame'});
    const gaps = [];
    let last = performance.now();
    for (let frame = 0; frame < count; frame += 1) {
      scrollBy({top: by, behavior: 'instant'});
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      gaps.push(now - last);
      last = now;
    }
    await new Promise((done) => { setTimeout(done, 200); });
    observer.disconnect();
    gaps.sort((one, other) => one - other);
    return {long, median: gaps[gaps.length >> 1], longest: gaps.at(-1)};
  }, [step, frames]);
}

async function weigh(person) {
  const session = await person.context.newCDPSession(person.page);
  await session.send('HeapProfiler.collectGarbage');
  const {usedSize} = await session.send('Runtime.getHeapUsage');
  const elements = await person.page.evaluate(() => document.querySelectorAll('*').length);
  await session.detach();
  return {heap: usedSize / 1024 / 1024, elements};
}

world.walk('5,000 pictures are scrolled without a frame over 50 ms, in bounded memory', {at: '/ui#gallery'}, async (person) => {
  await person.links.first().waitFor();
  await says(person.page.getByRole('search').getByRole('status'), /^5,000 pictures/);
  const before = await weigh(person);
  const slow = await scroll(person.page, {step: 60, frames: 300});
  const fast = await scroll(person.page, {step: 900, frames: 200});
  await person.page.evaluate(() => scrollTo({top: document.documentElement.scrollHeight, behavior: 'instant'}));
  const back = await scroll(person.page, {step: -900, frames: 200});
  const after = await weigh(person);
  const words = (name, {median, longest, long}) => `${name}: median ${median.toFixed(1)} ms, longest ${longest.toFixed(0)} ms, over 50 ms: ${long.length}`;
  console.log([words('slow', slow), words('fast', fast), words('back', back)].join('; '));
  console.log(`elements ${before.elements} → ${after.elements}, heap ${before.heap.toFixed(1)} → ${after.heap.toFixed(1)} MiB`);
  await person.page.evaluate(() => scrollTo({top: document.documentElement.scrollHeight, behavior: 'instant'}));
  await person.list.getByRole('link', {name: /number 4999/}).waitFor();
  assert.deepEqual([...slow.long, ...fast.long, ...back.long], []);
  assert.ok(after.elements < 1_500, `${after.elements} elements`);
  assert.ok(after.heap < 24, `${after.heap} MiB`);
  await until('pictures in view are drawn', () => person.page.evaluate(() => [...document.querySelectorAll('[role="list"] img')].filter((image) => {
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
