// The card and the place Status: what they say, and how soon.

import assert from 'node:assert/strict';
import {until} from './until.mjs';
import {assertAtMost, says, startWorld} from './world.mjs';

const world = await startWorld({engineMemory: true});
const {pair} = world;
const TOTAL = {total: 49_140, reserved: 600};

/** How long the page took to say this after `change`, in seconds. */
async function delay(change, locator, wanted) {
  const began = performance.now();
  change();
  await says(locator, wanted);
  return (performance.now() - began) / 1000;
}

for (const place of ['make', 'status']) {
  world.walk(`a card that falls off the bus is seen within 2 s: ${place}`, {at: `/ui#${place}`}, async (person) => {
    await says(person.readiness, /^Ready/);
    const seconds = await delay(() => pair.card.set({lost: true}), person.readiness, /not ready/i);
    assertAtMost(2, seconds, `seconds until a lost card is seen in ${place}`);
    const {message} = Object.values(await pair.checks()).find(({status}) => status === 'fail');
    assert.match(message, /lost.*reboot/, 'what is the matter, and what to do');
    const region = place === 'make' ? person.card : person.page.getByRole('main');
    await until('the page says so, too', async () => (await region.innerText()).includes(message));
    pair.card.set({});
    await says(person.readiness, /^Ready/);
  });
}

world.walk('memory that others take is said, with who takes it', {}, async (person) => {
  await says(person.readiness, /^Ready/);
  pair.card.set({memory: {...TOTAL, used: 45_000}, processes: [{pid: process.pid, used_mib: 45_000}]});
  await pair.restartSidecar();
  await says(person.readiness, /not ready/i);
  await says(person.card, new RegExp(`${process.pid}`));
  pair.card.set({});
  await pair.restartSidecar();
  await says(person.readiness, /^Ready/);
});

world.walk('the memory is split into engine, others and free', {}, async (person, t) => {
  if (!pair.engine) {
    t.skip('the engine has no control group of its own here: that takes root');
    return;
  }
  pair.card.set({
    memory: {...TOTAL, used: 14_336},
    processes: [{pid: pair.engine.pid, used_mib: 12_288}, {pid: process.pid, used_mib: 2_048}],
  });
  await says(person.card, /Engine\s*12\.0 GiB/);
  const words = await person.card.innerText();
  assert.match(words, /Others\s*2\.6 GiB/);
  assert.match(words, /Free\s*33\.4 GiB/);
  pair.card.set({});
});

world.walk('charts of the last ten minutes, which go on while one looks', {at: '/ui#status'}, async (person) => {
  await person.page.getByRole('heading', {name: 'The last ten minutes'}).waitFor();
  for (const name of [/VRAM/, /temperature/i, /power/i, /utili[sz]ation/i]) {
    await person.page.getByRole('heading', {name}).first().waitFor();
  }
  const main = person.page.getByRole('main');
  pair.card.set({temperature: 71, power_draw_mw: 251_000, utilization: {gpu: 93}});
  for (const wanted of [/71 °C/, /251 W/, /93 %/]) await says(main, wanted);
  await until('lines are drawn', () => person.page.locator('figure path[d*="L"]').count().then((count) => count >= 3));
  pair.card.set({});
});

world.walk('places, the store, and requests that failed', {as: 'owner'}, async (person) => {
  await pair.makePicture();
  const refused = await pair.ask('POST', '/v1/images/generations', {json: {prompt: 'x', model: 'no-such-model'}});
  assert.equal(refused.status, 404);
  await person.status.click();
  const main = person.page.getByRole('main');
  await says(main, /no-such-model/);
  await says(main, /1 picture|1 image/i);
  await says(main, /gpu_heavy/);
});
