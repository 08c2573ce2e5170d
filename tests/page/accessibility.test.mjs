// For whoever uses the page in whatever way: axe-core in every place and dialog, keyboard alone, large type, reduced motion,
// writing from right to left, touch.

import assert from 'node:assert/strict';
import {assertAccessible} from './axe.mjs';
import {pictureMaker} from './png.mjs';
import {TOKENS} from './programs.mjs';
import {fillStore} from './store.mjs';
import {until} from './until.mjs';
import {failed} from './watch.mjs';
import {DESKTOP, ON_PHONE, says, startWorld} from './world.mjs';

let stored;
const world = await startWorld({pictures: (folder) => { stored = fillStore(folder, 24); }});
const {pair} = world;
const make = pictureMaker(320, 240);
const reference = {name: 'reference.png', mimeType: 'image/png', buffer: make(0.2)};

/** Every place and dialog, one after the other. */
async function everywhere(person, look) {
  const {page} = person;
  await person.token.waitFor();
  await look('sign-in');
  await person.token.fill('a-token-that-is-none-0123');
  await person.signInButton.click();
  await person.alert.waitFor();
  await look('sign-in, refused');
  await person.signIn(TOKENS.owner);
  await says(person.readiness, /^Ready/);
  await look('make, empty');
  await person.choose(person.addReference, reference);
  await person.page.getByText('reference.png').waitFor();
  await person.ask('a harbour', {steps: 150, size: null});
  await person.generate.click();
  await person.progress.waitFor();
  await look('make, at work');
  await person.cancel.click();
  await person.progress.waitFor({state: 'hidden'});
  await person.steps.fill('3');
  await person.generate.click();
  await person.openPicture.first().waitFor();
  await person.steps.fill('1000');
  await person.generate.click();
  await person.alert.first().waitFor();
  await look('make, with pictures and an error');
  await person.paintMask.click();
  await page.getByRole('dialog').waitFor();
  await look('mask');
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({state: 'hidden'});
  await person.gallery.click();
  await person.links.first().waitFor();
  await look('gallery');
  await person.links.first().focus();
  await page.keyboard.press('Delete');
  await page.getByRole('button', {name: 'Undo'}).waitFor();
  await look('gallery, one deleted');
  await person.links.first().click();
  await person.makeAgain.waitFor();
  await look('picture');
  await page.keyboard.press('Escape');
  await person.status.click();
  await page.getByRole('heading', {name: 'The last ten minutes'}).waitFor();
  await look('status');
  pair.card.set({lost: true});
  await says(person.readiness, /not ready/i);
  await look('status, card lost');
  await person.make.click();
  await says(person.readiness, /not ready/i);
  await look('make, card lost');
  pair.card.set({});
  await pair.ready();
}

for (const scheme of ['light', 'dark']) {
  for (const [name, device] of [['desktop', {viewport: DESKTOP}], ['phone', ON_PHONE]]) {
    world.walk(`axe-core finds nothing: ${scheme}, ${name}`, {as: null, scheme, slow: (scheme === 'dark') !== (name === 'phone'), ...device}, async (person) => {
      person.watch.expect(failed(401), failed(400, '/v1/images/'));
      await everywhere(person, (where) => assertAccessible(person.page, where));
    });
  }
}

const WIDTHS = {
  '200 % zoom': {viewport: {width: 640, height: 430}, deviceScaleFactor: 2},
  '320 pixels': {viewport: {width: 320, height: 640}},
  'a very wide screen': {viewport: {width: 2560, height: 1300}},
};
for (const [name, context] of Object.entries(WIDTHS)) {
  world.walk(`nothing is cut off or scrolls sideways: ${name}`, {as: null, slow: true, ...context}, async (person) => {
    person.watch.expect(failed(401), failed(400, '/v1/images/'));
    await everywhere(person, async (where) => {
      const {wide, outside} = await person.page.evaluate(() => {
        const root = document.documentElement;
        const reachable = (element) => element.closest('[style*="transform"], .visually-hidden, .skip, [hidden]') === null;
        const cut = [...document.querySelectorAll('button, a, input, select, textarea')]
          .map((element) => [element, element.getBoundingClientRect()])
          .filter(([element, box]) => box.width && reachable(element) && (box.left < -1 || box.right > innerWidth + 1));
        return {
          wide: root.scrollWidth - root.clientWidth,
          outside: cut.map(([element, box]) => `from ${Math.round(box.left)} to ${Math.round(box.right)}: ${element.outerHTML.slice(0, 120)}`),
        };
      });
      assert.ok(wide <= 0, `${where}: ${wide} pixels too wide`);
      assert.deepEqual(outside, [], where);
    });
  });
}

world.walk('reduced motion: nothing moves', {as: null, slow: true, reducedMotion: 'reduce'}, async (person) => {
  person.watch.expect(failed(401), failed(400, '/v1/images/'));
  await everywhere(person, async (where) => {
    const moving = await person.page.evaluate(() => document.getAnimations()
      .filter((animation) => animation.playState === 'running' && animation.effect.getComputedTiming().duration > 20)
      .map((animation) => `${animation.animationName ?? animation.transitionProperty} of ${animation.effect.target.className}`));
    assert.deepEqual(moving, [], where);
  });
});

world.walk('by keyboard alone, from signing in to a picture and back', {as: null}, async (person) => {
  const {keyboard} = person.page;
  const focused = () => person.page.evaluate(() => {
    const {activeElement: element} = document;
    return element.ariaLabel || element.labels?.[0]?.textContent || element.textContent;
  });
  const tabTo = async (wanted) => {
    for (let steps = 0; steps < 60; steps += 1) {
      if (wanted.test(await focused())) return;
      await keyboard.press('Tab');
    }
    assert.fail(`no way by Tab to ${wanted}`);
  };
  await until('the token is asked for', async () => /^Token/.test(await focused()));
  await keyboard.type(TOKENS.owner);
  await keyboard.press('Enter');
  await says(person.readiness, /^Ready/);
  await tabTo(/^Prompt/);
  await keyboard.type('by keyboard');
  await tabTo(/^Steps/);
  await keyboard.type('3');
  await keyboard.press('Control+Enter');
  await person.openPicture.first().waitFor();
  await tabTo(/^Open picture/);
  await keyboard.press('Enter');
  await person.makeAgain.waitFor();
  assert.ok(await person.page.evaluate(() => document.activeElement.closest('dialog') !== null), 'the focus is in the dialog');
  await keyboard.press('Escape');
  await person.dialog.waitFor({state: 'hidden'});
});

world.walk('writing from right to left', {}, async (person) => {
  const words = 'מגדלור בשקיעה';
  await person.ask(words, {steps: 1});
  assert.equal(await person.prompt.evaluate((element) => getComputedStyle(element).direction), 'rtl');
  await person.generate.click();
  await person.openPicture.first().waitFor();
  const shown = person.results.getByText(words, {exact: true});
  assert.equal(await shown.evaluate((element) => getComputedStyle(element).direction), 'rtl');
  assert.equal(await person.page.evaluate(() => getComputedStyle(document.body).direction), 'ltr');
});

world.walk('fingers hit what they aim at', {as: null, slow: true, ...ON_PHONE}, async (person) => {
  person.watch.expect(failed(401), failed(400, '/v1/images/'));
  await everywhere(person, async (where) => {
    const small = await person.page.evaluate(() => [...document.querySelectorAll('button, a, input, select, summary')]
      .filter((element) => element.checkVisibility() && !element.closest('.visually-hidden, .skip') && element.type !== 'checkbox' && element.type !== 'range')
      .map((element) => [element, element.getBoundingClientRect()])
      .filter(([, box]) => box.width > 1 && (box.height < 39.5 || box.width < 39.5))
      .map(([element, box]) => `${Math.round(box.width)}x${Math.round(box.height)} ${element.outerHTML.slice(0, 100)}`));
    assert.deepEqual(small, [], where);
  });
});
