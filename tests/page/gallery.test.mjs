// The gallery with a few pictures: opening, copying, reusing, filtering, deleting with a way back.

import assert from 'node:assert/strict';
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {promisify} from 'node:util';
import {TOKENS} from './programs.mjs';
import {fillStore} from './store.mjs';
import {until} from './until.mjs';
import {says, startWorld} from './world.mjs';

const COUNT = 60;
let stored;
const world = await startWorld({pictures: (folder) => { stored = fillStore(folder, COUNT); }});
const {pair} = world;
const isThere = (name) => fs.existsSync(path.join(pair.store, name));
const CLIPBOARD = {permissions: ['clipboard-read', 'clipboard-write']};
const copied = (person) => person.page.evaluate(() => navigator.clipboard.readText());

async function open(person, name) {
  await person.page.goto(new URL(`/ui#gallery/${name}`, pair.url).href);
  await person.dialog.waitFor();
}

world.walk('newest first, and each opens large with all that is known about it', {at: '/ui#gallery'}, async (person) => {
  await person.links.first().waitFor();
  const shown = await person.links.evaluateAll((links) => links.slice(0, 12).map((link) => link.hash.split('/').at(-1)));
  assert.deepEqual(shown, stored.slice(0, 12));
  await person.links.nth(2).click();
  await person.dialog.waitFor();
  for (const wanted of [/number 2/, /sd-xl-base-1\.0/, /30/, /256 × 384/, /4\.2 s/, /owner/]) await says(person.dialog, wanted);
  await until('it is drawn', () => person.dialog.locator('img').last().evaluate((image) => image.naturalWidth === 256));
  await person.page.keyboard.press('ArrowRight');
  await says(person.dialog, /number 3/);
  await person.page.keyboard.press('Escape');
  await person.dialog.waitFor({state: 'hidden'});
  await until('the focus is on its link', () => person.page.evaluate(() => document.activeElement.closest('li') !== null));
});

world.walk('an address opens its picture', {}, async (person) => {
  await open(person, stored[40]);
  await says(person.dialog, /number 40/);
  await person.page.goBack();
  await person.dialog.waitFor({state: 'hidden'});
});

world.walk('an address of a picture that is not there says so', {}, async (person) => {
  person.watch.expect(/^console error: Failed to load resource: .* 404 /);
  await open(person, '1700000000_0123456789abcdef.png');
  await says(person.dialog, /not here|deleted/i);
});

world.walk('filters by words, model and day', {at: '/ui#gallery'}, async (person) => {
  await person.links.first().waitFor();
  const count = person.page.getByRole('search').getByRole('status');
  await says(count, /^60 pictures/);
  await person.page.getByRole('searchbox', {name: 'Search'}).fill('GLACIER');
  await says(count, /^12 /);
  await person.page.getByRole('combobox', {name: 'Model'}).selectOption('sd-v1-5');
  await says(count, /^6 /);
  await person.page.getByRole('button', {name: 'Clear filter'}).click();
  await says(count, /^60 pictures/);
  const madeAt = Number(stored[50].split('_')[0]) * 1000;
  const day = await person.page.evaluate((at) => new Date(at).toLocaleDateString('sv-SE'), madeAt);
  await person.page.getByLabel('Day').fill(day);
  const sameDay = await person.page.evaluate(([all, wanted]) => all.filter((name) =>
    new Date(Number(name.split('_')[0]) * 1000).toLocaleDateString('sv-SE') === wanted).length, [stored, day]);
  await says(count, new RegExp(`^${sameDay} `));
  await person.page.getByRole('searchbox', {name: 'Search'}).fill('nothing has this');
  await says(count, /^No pictures/);
});

world.walk('deleting has a way back', {at: '/ui#gallery'}, async (person) => {
  const [name] = stored;
  const link = person.list.locator(`a[href$="${name}"]`);
  await link.click();
  await person.remove.click();
  await link.waitFor({state: 'detached'});
  await person.page.getByRole('button', {name: 'Undo'}).click();
  await link.waitFor();
  assert.ok(isThere(name));
  assert.ok(!person.watch.requests.some(({method}) => method === 'DELETE'), 'nothing was asked to be deleted');
});

world.walk('deleted for good after some seconds, and by the key', {at: '/ui#gallery'}, async (person) => {
  const [, byButton, byKey] = stored;
  await person.list.locator(`a[href$="${byButton}"]`).click();
  await person.remove.click();
  await person.list.locator(`a[href$="${byKey}"]`).focus();
  await person.page.keyboard.press('Delete');
  await until('both files are gone', () => !isThere(byButton) && !isThere(byKey));
  assert.ok(!isThere(`${byKey}.json`), 'and what is known about them');
  assert.ok(isThere(stored[0]));
});

world.walk('leaving the page deletes what was deleted', {at: '/ui#gallery'}, async (person) => {
  const name = stored[3];
  await person.list.locator(`a[href$="${name}"]`).click();
  await person.remove.click();
  await person.list.locator(`a[href$="${name}"]`).waitFor({state: 'detached'});
  await person.page.reload();
  await until('the file is gone', () => !isThere(name));
});

world.walk('a picture becomes a reference', {}, async (person) => {
  await open(person, stored[5]);
  await person.useAsReference.click();
  await person.prompt.waitFor();
  await person.page.getByRole('button', {name: /^Remove Picture of /}).waitFor();
  await person.ask('with a reference of the store', {steps: 2, size: null});
  await person.generate.click();
  await person.openPicture.first().waitFor();
  const made = await person.nameOf(person.openPicture.first());
  const {body} = await pair.ask('GET', `/v1/gateway/images/${made}`);
  assert.deepEqual(body.references, [stored[5]]);
});

world.walk('commands that are copied work as they are', CLIPBOARD, async (person) => {
  const prompt = 'it\'s "quoted" `uname` $(uname) \\ %s @file; a\nb';
  const [name] = await pair.makePicture({prompt, seed: 42, steps: 2});
  await open(person, name);
  const run = async (command, flags, input) => {
    const before = await pair.stored();
    const env = {PATH: process.env.PATH, GATEWAY_TOKEN: TOKENS.owner, CURL_CA_BUNDLE: pair.authorityFile, NODE_EXTRA_CA_CERTS: pair.authorityFile};
    const running = promisify(execFile)(command, flags, {env, cwd: pair.folder});
    running.child.stdin.end(input);
    await running;
    assert.ok(await pair.stored() >= before);
    const {body} = await pair.ask('GET', '/v1/gateway/images?limit=1');
    const {body: settings} = await pair.ask('GET', `/v1/gateway/images/${body.data[0].name}`);
    assert.equal(settings.prompt, prompt, command);
    assert.equal(settings.seed, 42, command);
  };
  await person.copyAsCurl.click();
  await until('it is copied', async () => /^curl /.test(await copied(person)));
  await run('sh', [], await copied(person));
  await person.dialog.getByRole('button', {name: 'Copy as JavaScript', exact: true}).click();
  await until('it is copied', async () => /fetch\(/.test(await copied(person)));
  await run('node', ['--input-type=module', '-'], await copied(person));
  await person.dialog.getByRole('button', {name: 'Copy as Python', exact: true}).click();
  await until('it is copied', async () => /import os/.test(await copied(person)));
  await promisify(execFile)('python3', ['-c', `import ast, sys\nast.parse(${JSON.stringify(await copied(person))})`]).catch((error) => {
    if (error.code !== 'ENOENT') throw error;
  });
  await person.dialog.getByRole('button', {name: 'Copy address', exact: true}).click();
  await until('it is copied', async () => await copied(person) === new URL(`/ui/images/${name}`, pair.url).href);
  assert.ok(!(await copied(person)).includes(TOKENS.owner));
});

world.walk('a token sees its own pictures only', {as: 'kid', at: '/ui#gallery'}, async (person) => {
  await person.page.getByText('No pictures yet').waitFor();
  const [own] = await pair.makePicture({prompt: 'of the kid'}, 'kid');
  await person.list.locator(`a[href$="${own}"]`).waitFor();
  assert.equal(await person.links.count(), 1);
});
