// `node --test tests/page/unit`: geometry, history and file of the mask editor.
import assert from 'node:assert/strict';
import test from 'node:test';
import zlib from 'node:zlib';
import * as geometry from '../../../gateway/page/mask/geometry.js';
import {History} from '../../../gateway/page/mask/history.js';
import {replay} from '../../../gateway/page/mask/paint.js';
import {maskRows, png} from '../../../gateway/page/mask/png.js';

const picture = {width: 1000, height: 500};
const viewport = {width: 532, height: 432};

test('the whole picture fits into the viewport, in its middle', () => {
  assert.deepEqual(geometry.fit(picture, viewport), {scale: 0.5, x: 16, y: 91});
  assert.equal(geometry.fit({width: 8, height: 8}, viewport).scale, 4);
});

test('a zoom keeps the point under the pointer', () => {
  const view = geometry.fit(picture, viewport);
  const point = {x: 200, y: 200};
  const before = geometry.toPicture(view, point);
  for (const factor of [1.5, 0.8]) {
    const after = geometry.toPicture(geometry.zoomAt(view, factor, point, picture, viewport), point);
    assert.ok(Math.hypot(after.x - before.x, after.y - before.y) < 1e-6);
  }
  assert.equal(geometry.zoomAt(view, 1e6, point, picture, viewport).scale, 8);
  assert.equal(geometry.zoomAt(view, 1e-6, point, picture, viewport).scale, 0.25);
});

test('the picture cannot be lost beside the viewport', () => {
  const {x, y} = geometry.clampView({scale: 1, x: 9000, y: -9000}, picture, viewport);
  assert.deepEqual([x, y], [266, 216 - 500]);
});

test('brush sizes grow, and cover small and large pictures', () => {
  for (const [width, height] of [[16, 16], [1024, 1024], [7300, 5480]]) {
    const sizes = geometry.brushSizes({width, height});
    assert.ok(sizes.every((size, nth) => !nth || size > sizes[nth - 1]), `${sizes}`);
    assert.ok(sizes.length < 90);
    assert.ok(sizes[geometry.usualSize(sizes, {width, height})] >= width / 12);
  }
  assert.equal(geometry.workScale({width: 1024, height: 1024}), 1);
  assert.ok(geometry.workScale({width: 8000, height: 5000}) < 0.32);
});

test('a stroke takes points that are apart', () => {
  const points = [];
  assert.deepEqual([[1, 1], [1.2, 1], [3.26, 1]].map(([x, y]) => geometry.addPoint(points, {x, y}, 1)), [true, false, true]);
  assert.deepEqual(points, [1, 1, 3.3, 1]);
});

test('arrows move a rectangle by 8 pixels, size it with Shift, and by one with Alt, inside the picture', () => {
  const start = {left: 4, top: 100, width: 50, height: 60};
  const go = (key, more = {}, from = start) => geometry.nudge(from, {key, shiftKey: false, altKey: false, ...more}, picture);
  assert.deepEqual(go('ArrowLeft'), {...start, left: 0});
  assert.deepEqual(go('ArrowDown'), {...start, top: 108});
  assert.deepEqual(go('ArrowRight', {altKey: true}), {...start, left: 5});
  assert.deepEqual(go('ArrowRight', {shiftKey: true}), {...start, width: 58});
  assert.deepEqual(go('ArrowUp', {shiftKey: true, altKey: true}), {...start, height: 59});
  const corner = {left: 950, top: 440, width: 50, height: 60};
  assert.deepEqual(go('ArrowRight', {shiftKey: true}, corner), corner);
  assert.deepEqual(go('ArrowLeft', {shiftKey: true}, {...corner, width: 3}), {...corner, width: 1});
  assert.equal(go('a'), null);
});

test('a rectangle that was typed is brought into the picture', () => {
  assert.deepEqual(geometry.clampRectangle({left: -5, top: 9999, width: 0, height: 1e9}, picture), {left: 0, top: 0, width: 1, height: 500});
  assert.deepEqual(geometry.clampRectangle({left: 990.4, top: 1.6, width: 20, height: 20}, picture), {left: 980, top: 2, width: 20, height: 20});
  const {left, top, width, height} = geometry.newRectangle(geometry.fit(picture, viewport), viewport, picture);
  assert.deepEqual([left, top, width, height], [250, 125, 500, 250]);
});

test('200 steps can be undone, older ones stay, and nothing below a clear is kept', () => {
  const history = new History({kind: 'mask'});
  for (let nth = 0; nth < 250; nth += 1) history.add({kind: nth === 20 ? 'clear' : 'invert', nth});
  assert.equal(history.operations.length, 229, 'of those before the clear none is left');
  let undone = 0;
  while (history.undo()) undone += 1;
  assert.equal(undone, 200);
  assert.equal(history.operations.length, 29);
  assert.equal(history.redo().nth, 50);
  history.add({kind: 'invert'});
  assert.equal(history.canRedo, false);
});

test('the memory of the strokes is bounded', () => {
  const history = new History();
  const points = new Array(400_000).fill(1);
  for (let nth = 0; nth < 3; nth += 1) history.add({kind: 'stroke', points});
  assert.equal(history.isFull, true);
  history.undo();
  assert.equal(history.isFull, false, 'what is undone does not count');
});

test('operations are drawn in their order', () => {
  const calls = [];
  const context = new Proxy({}, {
    get: (_, name) => (...values) => calls.push([name, ...values].join(' ')),
    set: (_, name, value) => calls.push(`${name}=${value}`),
  });
  replay(context, [{kind: 'rectangle', left: 1, top: 2, width: 3, height: 4, erase: true}, {kind: 'clear'}], picture);
  assert.deepEqual(calls.filter((call) => /Rect|=destination/.test(call)),
    ['clearRect 0 0 1000 500', 'globalCompositeOperation=destination-out', 'fillRect 1 2 3 4', 'clearRect 0 0 1000 500']);
});

test('the file is a PNG that is transparent where it is painted', async () => {
  const alphas = [0, 255, 127, 128, 0, 0];
  const painted = Uint8ClampedArray.from(alphas.flatMap((alpha) => [9, 9, 9, alpha]));
  const {rows, count} = maskRows(painted, 3);
  assert.equal(count, 2);
  const file = Buffer.from(await (await png(3, 2, [rows])).arrayBuffer());
  assert.equal(file.subarray(1, 4).toString(), 'PNG');
  let at = 8;
  const chunks = {};
  while (at < file.length) {
    const length = file.readUInt32BE(at);
    chunks[file.toString('latin1', at + 4, at + 8)] = file.subarray(at + 8, at + 8 + length);
    if (zlib.crc32) assert.equal(file.readUInt32BE(at + 8 + length), zlib.crc32(file.subarray(at + 4, at + 8 + length)));
    at += length + 12;
  }
  assert.deepEqual(Object.keys(chunks), ['IHDR', 'IDAT', 'IEND']);
  assert.deepEqual([...chunks.IHDR], [0, 0, 0, 3, 0, 0, 0, 2, 8, 6, 0, 0, 0]);
  const pixels = zlib.inflateSync(chunks.IDAT);
  const alpha = [0, 1].flatMap((y) => [0, 1, 2].map((x) => pixels[y * 13 + 1 + x * 4 + 3]));
  assert.deepEqual(alpha, [255, 0, 255, 0, 255, 255]);
});
