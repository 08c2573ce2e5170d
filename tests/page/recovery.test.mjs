// What happens to a request when its page is loaded anew, when the gateway is restarted or dies, and in two tabs.

import assert from 'node:assert/strict';
import {TOKENS} from './programs.mjs';
import {until} from './until.mjs';
import {unreachable} from './watch.mjs';
import {says, startWorld} from './world.mjs';

const world = await startWorld();
const {pair} = world;

async function begin(person, prompt, {steps = 150, pictures = 1} = {}) {
  await person.ask(prompt, {steps, pictures});
  await person.generate.click();
  await until('it has begun', async () => (await pair.slots()).inflight > 0);
}

for (const pictures of [1, 2]) {
  world.walk(`a page that is loaded anew finds its request: ${pictures} pictures`, {}, async (person) => {
    const before = await pair.stored();
    await begin(person, 'reloaded', {pictures});
    await person.page.reload();
    await person.progress.waitFor();
    assert.equal((await pair.slots()).inflight, 1, 'the request goes on');
    await person.page.getByRole('link', {name: /^Open picture/}).nth(pictures - 1).waitFor();
    await says(person.results, /reloaded/);
    assert.equal(await pair.stored(), before + pictures);
  });
}

world.walk('a request that ended while the page was away is there, too', {}, async (person) => {
  await begin(person, 'ended meanwhile', {steps: 40});
  await person.page.goto('about:blank');
  await until('it has ended', async () => (await pair.slots()).inflight === 0);
  await person.page.goto(new URL('/ui', pair.url).href);
  await person.openPicture.waitFor();
});

world.walk('after a reload a request can still be cancelled', {}, async (person) => {
  await begin(person, 'cancelled after all', {pictures: 4});
  await person.page.reload();
  await person.cancel.click();
  await until('the place is free', async () => (await pair.slots()).inflight === 0);
  await says(person.results, /cancelled/i);
});

world.walk('a gateway that is restarted ends the request first; the page goes on by itself', {}, async (person) => {
  person.watch.expect(unreachable);
  await begin(person, 'through a restart');
  const ended = pair.gateway.stop('SIGTERM');
  await says(person.connection, /does not answer/);
  assert.equal(await ended, 0);
  await says(person.readiness, /not reachable/i);
  await pair.startGateway();
  await says(person.readiness, /^Ready/);
  assert.equal((await person.connection.innerText()).trim(), '');
  await person.openPicture.waitFor();
  await until('the picture is drawn', () => person.openPicture.locator('img').evaluate((image) => image.naturalWidth === 512));
  await person.ask('and another', {steps: 2});
  await person.generate.click();
  await person.openPicture.nth(1).waitFor();
});

world.walk('a gateway that dies takes the request with it, and the page says so', {slow: true}, async (person) => {
  person.watch.expect(unreachable);
  await begin(person, 'lost in a crash', {pictures: 4});
  await pair.gateway.stop('SIGKILL');
  await pair.startGateway();
  await says(person.readiness, /^Ready/);
  await says(person.alert, /restarted|does not know/);
  await until('the engine has stopped', async () => /^0 of/.test((await pair.checks()).slots.observed));
  await person.page.getByRole('button', {name: 'Try again'}).click();
  await person.progress.waitFor();
  await person.cancel.click();
});

world.walk('two tabs: each has its own requests, and both see the card and the pictures', {as: null}, async (person) => {
  await person.signIn(TOKENS.kid, {remember: true});
  const other = await person.newTab('/ui#gallery');
  await other.list.waitFor({state: 'attached'});
  await begin(person, 'of the first tab', {steps: 30});
  await other.make.click();
  await says(other.card, /1 of 2 slots free/);
  assert.equal(await other.progress.count(), 0);
  await other.gallery.click();
  await person.openPicture.waitFor();
  const name = await person.nameOf(person.openPicture);
  await other.list.locator(`a[href$="${name}"]`).waitFor();
});
