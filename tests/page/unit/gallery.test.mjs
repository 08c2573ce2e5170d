// What the gallery decides: where cells are, where keys lead, what is listed, and how a picture's settings are told.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {rows} from '../../../gateway/page/gallery/details.js';
import {cellPosition, cellRange, gridHeight, gridLayout, keyTarget} from '../../../gateway/page/gallery/layout.js';
import {PictureList} from '../../../gateway/page/gallery/list.js';
import {daySeconds, isStoreName, listQuery, newerFirst} from '../../../gateway/page/gallery/query.js';

const name = (unix) => `${unix}_0123456789abcdef.png`;

test('cells are square, fill the width and are where the height says', () => {
  const layout = gridLayout(1000, 176, 6);
  assert.equal(layout.columns, 5);
  assert.equal(layout.cell * 5 + 6 * 4, 1000);
  assert.equal(gridLayout(50, 176, 6).columns, 1);
  assert.equal(gridHeight(layout, 0), 0);
  assert.equal(gridHeight(layout, 11), 3 * layout.cell + 12);
  assert.deepEqual(cellPosition(layout, 6), {x: layout.cell + 6, y: layout.cell + 6});
});

test('only rows that touch the view are drawn, and none beyond the last', () => {
  const layout = {columns: 4, cell: 94, gap: 6};
  assert.deepEqual(cellRange(layout, 5000, -500, 250), {from: 0, until: 12});
  assert.deepEqual(cellRange(layout, 5000, 1000, 1100), {from: 40, until: 48});
  assert.deepEqual(cellRange(layout, 10, 0, 5000), {from: 0, until: 10});
  assert.deepEqual(cellRange(layout, 10, 90000, 95000), {from: 10, until: 10});
});

test('keys reach each picture and stop at the ends', () => {
  const layout = {columns: 4, cell: 94, gap: 6};
  const to = (key, index) => keyTarget(key, index, layout, 10, 200);
  assert.equal(to('ArrowRight', 3), 4);
  assert.equal(to('ArrowLeft', 0), null);
  assert.equal(to('ArrowDown', 7), null);
  assert.equal(to('ArrowDown', 5), 9);
  assert.equal(to('ArrowUp', 9), 5);
  assert.equal(to('Home', 9), 0);
  assert.equal(to('End', 0), 9);
  assert.equal(to('PageDown', 1), 9);
  assert.equal(to('PageDown', 3), 7);
  assert.equal(to('PageUp', 9), 1);
  assert.equal(to('x', 1), null);
});

test('a day is local, and may have 23 hours', () => {
  process.env.TZ = 'Europe/Berlin';
  assert.deepEqual(daySeconds('2026-03-29'), {from: 1774738800, until: 1774821599});
  assert.equal(daySeconds('2026-12-'), null);
  assert.equal(daySeconds(''), null);
});

test('the query says what is meant in percent', () => {
  assert.equal(listQuery({}, {limit: 100}), 'limit=100');
  const query = listQuery({text: ' a+b &c=ü ', model: 'm', day: ''}, {limit: 5, before: name(7)});
  assert.equal(query, `limit=5&before=${name(7)}&text=a%2Bb%20%26c%3D%C3%BC&model=m`);
  assert.ok(isStoreName(name(1)));
  for (const wrong of ['../x', '1_0123456789abcdef.gif', `${name(1)}.json`, '']) assert.ok(!isStoreName(wrong));
  // By time, not by letters.
  assert.ok(newerFirst(name(1000), name(999)) < 0);
});

/** A gateway with pictures of these seconds. */
function gateway(seconds) {
  const store = {names: seconds.map(name), queries: []};
  store.request = async (text) => {
    store.queries.push(text);
    if (store.error) throw new Error(store.error);
    const query = new URLSearchParams(text);
    const [limit, before] = [Number(query.get('limit')), query.get('before')];
    const all = store.names.toSorted(newerFirst).filter((one) => !query.get('text') || one.startsWith(query.get('text')));
    const older = before ? all.filter((one) => newerFirst(one, before) > 0) : all;
    const data = older.slice(0, limit).map((one) => ({name: one, prompt: 'p'.repeat(300), thumbnail: 'x'}));
    const more = older.length > limit;
    return {data, has_more: more, next_before: more ? data.at(-1).name : null, total: {pictures: all.length}};
  };
  return store;
}

const many = (count) => Array.from({length: count}, (_, index) => 1000 + index);

test('pages come as they are needed, longer ones for who goes far', async () => {
  const store = gateway(many(1000));
  const list = new PictureList(store.request, () => {});
  await list.restart({});
  assert.equal(list.items.length, 100);
  assert.equal(list.count, 1000);
  await list.reach(120);
  assert.equal(list.items.length, 200);
  await Promise.all([list.reach(500), list.reach(999)]);
  assert.equal(list.items.length, 1000);
  assert.ok(list.complete);
  assert.equal(store.queries.length, 6);
  assert.equal(list.items[0].prompt.length, 160);
});

test('a deleted picture is gone at once, is counted no more, and can come back to its place', async () => {
  const store = gateway(many(250));
  const list = new PictureList(store.request, () => {});
  await list.restart({});
  const back = list.hide(name(1240));
  list.hide(name(1239));
  assert.equal(list.count, 248);
  await list.reach(249);
  assert.equal(list.count, 248);
  assert.equal(list.indexOf(name(1240)), -1);
  back();
  assert.equal(list.indexOf(name(1240)), 9);
  store.names = store.names.filter((one) => one !== name(1239));
  list.forget(name(1239));
  assert.equal(list.total, 249);
  await list.restart({});
  assert.equal(list.total, 249);
});

test('a deletion taken back under another filter asks anew', async () => {
  const store = gateway(many(50));
  const list = new PictureList(store.request, () => {});
  await list.restart({});
  const back = list.hide(name(1010));
  await list.restart({text: '1010'});
  assert.equal(list.count, 0);
  await back();
  assert.deepEqual(list.items.map((item) => item.name), [name(1010)]);
});

test('new pictures are found, and too many ask for a new list', async () => {
  const store = gateway(many(150));
  const list = new PictureList(store.request, () => {});
  await list.restart({});
  assert.deepEqual(await list.newer(), []);
  store.names.push(name(2000), name(2001));
  const fresh = await list.newer();
  list.prepend(fresh);
  list.prepend(fresh);
  assert.deepEqual(list.items.slice(0, 3).map((item) => item.name), [name(2001), name(2000), name(1149)]);
  assert.equal(list.total, 152);
  store.names.push(...many(120).map((unix) => name(unix + 5000)));
  assert.equal(await list.newer(), null);
});

test('a failed page is told, is not asked for again by itself, and goes on when retried', async () => {
  const store = gateway(many(300));
  let changes = 0;
  const list = new PictureList(store.request, () => { changes += 1; });
  await list.restart({});
  store.error = 'no';
  await list.reach(150);
  assert.equal(list.error.message, 'no');
  assert.equal(changes, 2);
  store.error = null;
  list.retry();
  await list.reach(150);
  assert.equal(list.error, null);
  assert.equal(list.items.length, 200);
  store.error = 'no';
  await list.restart({});
  assert.equal(list.items.length, 0);
  assert.ok(list.ready);
});

test('settings are told with what was asked where it differs', () => {
  const told = rows({name: 'x', created: 1, prompt: 'p', model: 'm', steps: 20, seed: 7, mask: true, ignored: ['negative_prompt'],
    shift: 3, loras: [{name: 'l', weight: 0.5}], owners: ['kid'], duration_seconds: 4.26, content_type: 'image/png', bytes: 2048,
    request_ids: ['a', 'b'], requested: {model: 'gpt-image-1', steps: '20', seed: -1, quality: 'high', n: 1}});
  const by = Object.fromEntries(told.map(({label, value, asked}) => [label, [value, asked]]));
  assert.deepEqual(by.Model, ['m', 'gpt-image-1']);
  assert.deepEqual(by.Steps, ['20', null]);
  assert.deepEqual(by.Seed, ['7', 'any']);
  assert.deepEqual(by.Quality, ['', 'high']);
  assert.deepEqual(by.Mask, ['yes', null]);
  assert.deepEqual(by['Not used'], ['negative prompt', null]);
  assert.deepEqual(by.Shift, ['3', null]);
  assert.deepEqual(by.LoRAs, ['l (0.5)', null]);
  assert.deepEqual(by.Took, ['4.3 s', null]);
  assert.deepEqual(by.File, ['PNG, 2.0 KiB', null]);
  assert.deepEqual(by['Request id'], ['b', null]);
  assert.deepEqual(rows({size: '512x768', requested: {n: 2}}).map(({label, value}) => [label, value]), [['Size', '512 × 768'], ['Pictures', 'one of 2']]);
  assert.ok(!('Pictures' in by) && !('Prompt' in by));
});
