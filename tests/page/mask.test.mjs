// Masks: painted by hand and placed by keyboard. What is not painted stays as it was, pixel for pixel.

import assert from 'node:assert/strict';
import {difference} from './pixels.mjs';
import {pictureMaker} from './png.mjs';
import {until} from './until.mjs';
import {says, startWorld} from './world.mjs';

const [WIDTH, HEIGHT] = [256, 192];
const picture = pictureMaker(WIDTH, HEIGHT)(0.15);
const reference = {name: 'harbour.png', mimeType: 'image/png', buffer: picture};
const world = await startWorld();
const {pair} = world;

/** The dialog over a new reference. */
async function open(person) {
  await person.choose(person.addReference, reference);
  await person.paintMask.click();
  const dialog = person.page.getByRole('dialog', {name: 'Paint mask'});
  await dialog.waitFor();
  const button = (name) => dialog.getByRole('button', {name, exact: true});
  return {dialog, button, field: (name) => dialog.getByRole('spinbutton', {name, exact: true})};
}

/** Makes the edit; what of the picture it changed. */
async function changes(person, mask) {
  await mask.button('Use mask').click();
  await mask.dialog.waitFor({state: 'hidden'});
  await person.ask('a red boat', {steps: 2, size: null});
  await person.generate.click();
  await person.openPicture.first().waitFor();
  const name = await person.nameOf(person.openPicture.first());
  const {body} = await pair.ask('GET', `/v1/gateway/images/${name}`);
  assert.equal(body.task, 'inpaint');
  assert.equal(body.mask, true);
  return difference(world.browser, picture, await pair.picture(name));
}

/** The picture on the screen, and how many of the screen's pixels one of its own has. */
async function canvas(mask) {
  const box = await mask.dialog.locator('canvas').first().boundingBox();
  const place = (x, y) => [box.x + (x / WIDTH) * box.width, box.y + (y / HEIGHT) * box.height];
  const size = async () => Number(/\d+/.exec(await mask.dialog.getByRole('slider', {name: 'Size'}).getAttribute('aria-valuetext')));
  return {place, size};
}

async function stroke({page}, from, to) {
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move(...to, {steps: 12});
  await page.mouse.up();
}

const near = (seen, wanted, what) => assert.ok(Math.abs(seen - wanted) <= 3, `${what}: ${seen}, not ${wanted}`);

world.walk('a rectangle by keyboard: exactly its pixels are made anew', {}, async (person) => {
  const mask = await open(person);
  const {keyboard} = person.page;
  await mask.button('Rectangle').focus();
  await keyboard.press('Enter');
  const read = async () => Promise.all(['Left', 'Top', 'Width', 'Height'].map(async (name) => Number(await mask.field(name).inputValue())));
  const before = await read();
  await keyboard.press('ArrowLeft');
  await keyboard.press('ArrowUp');
  const moved = await read();
  assert.ok(moved[0] < before[0] && moved[1] < before[1], `${before} to ${moved}`);
  await keyboard.press('Shift+ArrowRight');
  await keyboard.press('Shift+ArrowDown');
  const sized = await read();
  assert.ok(sized[2] > moved[2] && sized[3] > moved[3], `${moved} to ${sized}`);
  for (const [name, value] of [['Left', 64], ['Top', 48], ['Width', 96], ['Height', 80]]) {
    await mask.field(name).focus();
    await keyboard.press('Control+A');
    await keyboard.type(String(value));
  }
  await keyboard.press('Enter');
  await says(mask.dialog.getByRole('status'), /painted/);
  const {sizes, count, box} = await changes(person, mask);
  assert.equal(sizes[1], `${WIDTH}x${HEIGHT}`);
  assert.deepEqual(box, {left: 64, top: 48, right: 64 + 96 - 1, bottom: 48 + 80 - 1});
  assert.ok(count > 96 * 80 * 0.9, `${count} pixels`);
});

world.walk('a stroke of the brush: what is beside it stays', {}, async (person) => {
  const mask = await open(person);
  const {place, size} = await canvas(mask);
  const radius = await size() / 2;
  await stroke(person, place(70, 96), place(180, 96));
  const {box} = await changes(person, mask);
  near(box.left, 70 - radius, 'left');
  near(box.right, 180 + radius, 'right');
  near(box.top, 96 - radius, 'top');
  near(box.bottom, 96 + radius, 'bottom');
});

world.walk('past the border, erased, undone and done again', {}, async (person) => {
  const mask = await open(person);
  const {place, size} = await canvas(mask);
  // All that is painted is undone: nothing is left to use.
  await stroke(person, place(100, 100), place(150, 100));
  await mask.button('Undo').click();
  await mask.button('Use mask').click();
  await says(mask.dialog.getByRole('status'), /Nothing is painted/);
  // From outside over the left border, then the right half of it erased.
  await person.page.keyboard.press(']');
  const radius = await size() / 2;
  await stroke(person, place(-8, 60), place(120, 60));
  await mask.button('Eraser').click();
  await stroke(person, place(90, 60), place(200, 60));
  await person.page.keyboard.press('Control+Z');
  await person.page.keyboard.press('Control+Shift+Z');
  const {box} = await changes(person, mask);
  assert.equal(box.left, 0);
  // The eraser's round end leaves corners beside it, up to its middle.
  assert.ok(box.right <= 90, `right: ${box.right}`);
  near(box.top, 60 - radius, 'top');
  near(box.bottom, 60 + radius, 'bottom');
});

world.walk('zoomed in, strokes land where they are seen; inverted, the rest is made anew', {}, async (person) => {
  const mask = await open(person);
  await mask.button('Zoom in').click();
  await mask.button('Zoom in').click();
  const {place, size} = await canvas(mask);
  const radius = await size() / 2;
  await stroke(person, place(128, 96), place(129, 96));
  await mask.button('Fit').click();
  await mask.button('Invert').click();
  const {count, box} = await changes(person, mask);
  assert.deepEqual(box, {left: 0, top: 0, right: WIDTH - 1, bottom: HEIGHT - 1});
  const kept = WIDTH * HEIGHT - count;
  assert.ok(kept > Math.PI * radius ** 2 * 0.9, `${kept} pixels kept`);
});

world.walk('leaving keeps what was painted only if it is wanted', {}, async (person) => {
  const mask = await open(person);
  const {place} = await canvas(mask);
  await stroke(person, place(40, 40), place(90, 60));
  await person.page.keyboard.press('Escape');
  await says(mask.dialog.getByRole('status'), /again/);
  await person.page.keyboard.press('Escape');
  await mask.dialog.waitFor({state: 'hidden'});
  await until('the focus is back', () => person.paintMask.evaluate((button) => button === document.activeElement));
  await person.paintMask.click();
  await mask.button('Clear').click();
  await mask.button('Cancel').click();
  await mask.dialog.waitFor({state: 'hidden'});
  assert.equal(await person.page.getByRole('button', {name: 'Remove mask'}).count(), 0);
});
