// What others write must stay text: prompts, names of models and files, pictures that are documents. And what is given to whom.

import assert from 'node:assert/strict';
import {pictureMaker} from './png.mjs';
import {TOKENS} from './programs.mjs';
import {store} from './store.mjs';
import {until} from './until.mjs';
import {failed} from './watch.mjs';
import {says, startWorld} from './world.mjs';

const HOSTILE = [
  '<img src=x onerror="window.hit=1"><script>window.hit=2</script>',
  '"><svg onload=window.hit=3></svg><b>bold</b>&lt;i&gt; {{7*7}} ${7*7}',
  'javascript:window.hit=4//\u202egnp.exe\u202c \u200b\u0007\u001b[31mred\u001b[0m',
  '\u05e9\u05dc\u05d5\u05dd, \u0645\u0631\u062d\u0628\u0627 <a href="javascript:window.hit=5">x</a>',
];
const SVG = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64" onload="parent.hit=6"><script>parent.hit=7;'
  + 'fetch("https://evil.invalid/")</script><image href="https://evil.invalid/x.png"/><rect width="64" height="64" fill="teal"/></svg>');
const make = pictureMaker(96, 96);
let names;
let drawing;

const world = await startWorld({
  pictures: (folder) => {
    names = HOSTILE.map((words, index) => store(folder, make(index / 7), {
      task: 'edit', prompt: words, negative_prompt: words, model: words, scheduler: words, references: [`${words}.png`],
      size: '96x96', requested: {model: `${words}!`}, [words]: words,
    }));
    drawing = store(folder, SVG, {prompt: 'a drawing', model: 'x'}, {extension: 'svg'});
  },
});
const {pair} = world;

/** Nothing was run, and no element came out of a text. */
async function assertOnlyText(person) {
  const {hit, scripts, made} = await person.page.evaluate(() => ({
    hit: window.hit,
    scripts: document.querySelectorAll('script').length,
    made: document.querySelectorAll('[onerror], [onload], main b:not([class]) > i, a[href^="javascript"], img[src="x"]').length,
  }));
  assert.deepEqual({hit, scripts, made}, {hit: undefined, scripts: 1, made: 0});
}

/** An element whose text is this, to the letter. */
const exactly = (scope, words) => scope.evaluate((root, wanted) =>
  [...root.querySelectorAll('*')].some((element) => element.textContent === wanted || element.alt === wanted), words);

for (const [index, words] of HOSTILE.entries()) {
  world.walk(`a stored picture's words are text: ${index + 1}`, {at: '/ui#gallery'}, async (person) => {
    const link = person.list.locator(`a[href$="${names[index]}"]`);
    await link.waitFor();
    await link.click();
    await person.makeAgain.waitFor();
    await until('the prompt is there, to the letter', () => exactly(person.dialog, words));
    assert.ok(await exactly(person.dialog, `${words}.png`), 'the name of its reference');
    await assertOnlyText(person);
    await person.makeAgain.click();
    await until('the form has the prompt, to the letter', async () => await person.prompt.inputValue() === words);
    await says(person.page.getByRole('main'), /does not keep/);
    await assertOnlyText(person);
  });

  world.walk(`what a person writes and adds is text: ${index + 1}`, {}, async (person) => {
    person.watch.expect(failed(400), failed(404));
    const file = `${words.replaceAll('/', '_')}.png`;
    await person.choose(person.addReference, {name: file, mimeType: 'image/png', buffer: make(0.9)});
    await until('its name is there', () => exactly(person.page.locator('form').first(), file).then((found) => found || exactly(person.page.locator('main'), file)));
    await person.ask(words, {steps: 1, size: null});
    await person.generate.click();
    await person.openPicture.or(person.alert).first().waitFor();
    await assertOnlyText(person);
  });
}

world.walk('names of models are text', {as: null}, async (person) => {
  const {body} = await pair.ask('GET', '/v1/models');
  const data = HOSTILE.map((words) => ({...body.data[0], id: words}));
  await person.context.route('**/v1/models', (route) => route.fulfill({json: {...body, data}}));
  await person.signIn(TOKENS.owner);
  await until('they can be chosen', async () => await person.model.locator('option').count() >= HOSTILE.length);
  const options = await person.model.locator('option').evaluateAll((all) => all.map(({textContent}) => textContent));
  for (const words of HOSTILE) assert.ok(options.includes(words), words);
  await person.model.selectOption({index: 0});
  await assertOnlyText(person);
  await person.status.click();
  await person.gallery.click();
  await person.links.first().waitFor();
  await assertOnlyText(person);
});

world.walk('a drawing with scripts is a picture', {at: '/ui#gallery'}, async (person) => {
  await person.list.locator(`a[href$="${drawing}"]`).click();
  await says(person.dialog, /a drawing/);
  await until('it is drawn', () => person.dialog.locator('img').last().evaluate((image) => image.complete && image.naturalWidth > 0));
  await assertOnlyText(person);
});

world.walk('these tests notice what must not be', {as: null}, async (person) => {
  const {page, watch} = person;
  await page.evaluate(async (token) => {
    console.info('a word');
    setTimeout(() => { throw new Error('an error'); });
    await fetch('https://evil.invalid/').catch(() => {});
    await fetch(`/ui?token=${token}`);
    try {
      document.body.innerHTML = '<b>bold</b>';
    } catch {
      // The policy forbids it.
    }
    const style = document.createElement('style');
    style.textContent = 'b { color: red }';
    document.head.append(style);
  }, TOKENS.owner);
  const wanted = [/^console info: a word/, /^error: .*an error/, /^policy: connect-src https:\/\/evil/, /^a token in an address/,
    /^policy: require-trusted-types-for/, /^policy: style-src/];
  await until('all of it is noticed', () => wanted.every((pattern) => watch.seen.some((words) => pattern.test(words))))
    .catch((error) => assert.fail(`${error.message}\n${watch.seen.join('\n')}`));
  watch.seen.length = 0;
  await page.evaluate(() => { location.href = 'http://127.0.0.1:9/'; });
  await until('so is another origin', () => watch.seen.some((words) => /^another origin: http:\/\/127\.0\.0\.1:9/.test(words)));
  watch.expect(/./);
});

world.walk('the page: a strict policy, no token, no data', {as: null}, async (person) => {
  const page = await pair.ask('GET', '/ui', {as: null});
  const policy = page.headers['content-security-policy'];
  for (const wanted of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]) {
    assert.ok(policy.includes(wanted), policy);
  }
  assert.doesNotMatch(policy, /unsafe|\*|https?:|data:/);
  assert.equal(page.headers['x-content-type-options'], 'nosniff');
  assert.equal(page.headers['referrer-policy'], 'no-referrer');
  assert.equal(page.body, (await pair.ask('GET', '/ui')).body, 'the same with and without a token');
  await person.token.waitFor();
  assert.ok(!person.watch.requests.some(({url}) => url.includes('/v1/')), 'nothing is asked for before signing in');
});

world.walk('settings, lists, events and jobs need the token', {as: null}, async () => {
  const addresses = [`/v1/gateway/images/${names[0]}`, '/v1/gateway/images', '/v1/gateway/events', '/v1/gateway/status', `/ui/images/${names[0]}.json`];
  for (const address of addresses) {
    const {status} = await pair.ask('GET', address, {as: null});
    assert.equal(status, address.startsWith('/ui/') ? 404 : 401, address);
  }
  const {status} = await pair.ask('GET', `/v1/gateway/images/${names[0]}`, {as: 'kid'});
  assert.equal(status, 404, "another's picture is not there");
  assert.equal((await pair.ask('DELETE', '/v1/gateway/jobs/x', {as: null})).status, 401);
});
