// `node --test tests/page/unit`: what the place Status decides without the page.
import assert from 'node:assert/strict';
import test from 'node:test';
import * as scale from '../../../gateway/page/status/scale.js';
import {SERIES, emptyReason, sentence} from '../../../gateway/page/status/series.js';
import * as words from '../../../gateway/page/status/words.js';

const axis = {low: 0, high: 100};
const at = (...times) => times.map((time) => ({at: time, value: time % 100}));
const value = (sample) => sample.value;

test('values outside the axis stay on its ends', () => {
  assert.deepEqual([-5, 0, 50, 100, 700].map((one) => scale.yAt(one, axis)), [500, 500, 250, 0, 0]);
  assert.deepEqual([1000, 700, 400].map((one) => scale.xAt(one, 1000)), [1200, 600, 0]);
});

test('axes end on round numbers with a round half', () => {
  assert.deepEqual([0, 7, 10, 101, 315, 470, 601].map(scale.roundUp), [1, 8, 10, 120, 400, 500, 800]);
});

test('no line goes across a gap, or over a sample without the value', () => {
  const parts = scale.runs([...at(901, 902, 905), {at: 906}, ...at(907, 911, 912)], value, 1000);
  assert.deepEqual(parts.map((part) => part.map(([time]) => time)), [[901, 902, 905], [907], [911, 912]]);
  const [line, dots] = [scale.linePath(parts, axis, 1000), scale.dotPath(parts, axis, 1000)];
  assert.equal(line.match(/M/g).length, 2);
  assert.equal(dots, 'M1014 465h0');
  assert.equal(scale.areaPath(parts, axis, 1000).match(/Z/g).length, 3);
});

test('samples older than ten minutes are left out', () => {
  assert.deepEqual(scale.runs(at(399, 400, 401), value, 1000).map((part) => part.length), [2]);
});

test('the middle of a level stretch costs nothing', () => {
  const level = Array.from({length: 600}, (_, nth) => ({at: 401 + nth, value: 40}));
  assert.equal(scale.linePath(scale.runs(level, value, 1000), axis, 1000), 'M2 300H1200');
});

test('times without pictures are shaded, and not across a gap', () => {
  const states = (...all) => all.map(([time, status]) => ({at: time, status}));
  const path = (...all) => scale.notReadyPath(states(...all), 1000);
  assert.equal(path([990, 'ready'], [991, 'degraded']), '');
  assert.equal(path([990, 'ready'], [991, 'not_ready'], [992, 'unreachable'], [993, 'ready']), 'M1182 0H1186V500H1182Z');
  assert.equal(path([900, 'not_ready'], [950, 'not_ready'], [951, 'ready']).match(/M/g).length, 2);
  assert.equal(path([1000, 'not_ready']), 'M1200 0H1202V500H1200Z');
});

test('the cursor reads the nearest sample, and none where there is none', () => {
  const samples = at(100, 101, 102, 150);
  assert.equal(scale.nearest(samples, 101.4).at, 101);
  assert.equal(scale.nearest(samples, 500), null);
  assert.equal(scale.nearest(samples, 149).at, 150);
  assert.equal(scale.nearest([], 1), null);
});

test('a table has the newest first and one each half minute', () => {
  const all = at(...Array.from({length: 100}, (_, nth) => nth));
  assert.deepEqual(scale.thinned(all).map((sample) => sample.at), [99, 69, 39, 9]);
});

const memory = SERIES.find(({key}) => key === 'memory');
const card = {at: 1, memory_total: 1000, memory_reserved: 20, memory_free: 380, memory_engine: 500, memory_others: 100, status: 'ready'};

test('the memory adds up, and without the engine’s share it is used or free', () => {
  assert.deepEqual(memory.parts(card).map(([name, mib]) => [name, mib]), [['Engine', 500], ['Others', 120], ['Free', 380]]);
  const {memory_engine: _e, memory_others: _o, ...unknown} = card;
  assert.deepEqual(memory.parts({...unknown, memory_used: 600}).map(([name, mib]) => [name, mib]), [['Used', 620], ['Free', 380]]);
  assert.equal(memory.parts({at: 1, status: 'ready', temperature: 46}), null);
  assert.equal(memory.areas.engine(unknown), undefined);
});

test('a chart says in a sentence what it shows, or why it is empty', () => {
  assert.equal(sentence(memory, [card, {...card, memory_free: 300}]), 'VRAM: now 300 MiB free, lowest 300 MiB, highest 380 MiB in the last ten minutes.');
  assert.equal(sentence(memory, []), null);
  assert.equal(emptyReason(memory, [card], {gpu: {}}), null);
  assert.match(emptyReason(memory, [{at: 1}], {gpu: {}}), /no memory of its own/);
  assert.match(emptyReason(memory, [{at: 1}], {gpu: null}), /No GPU is reported/);
  assert.match(emptyReason(memory, [], null), /No readings yet/);
});

test('the power’s limit lies inside its axis', () => {
  const power = SERIES.find(({key}) => key === 'power');
  const {high, limit} = power.axis([{power: 20, power_limit: 300}]);
  assert.ok(high > limit);
  assert.equal(power.axis([]).limit, null);
});

test('what to do comes first, a status that is not known counts as unknown', () => {
  const check = (name, status) => ({name, status});
  const {bad, unknown, passing} = words.sortChecks([check('a', 'pass'), check('b', 'warn'), check('c', 'later'), check('d', 'fail')]);
  assert.deepEqual([bad, unknown, passing].map((all) => all.map(({name}) => name).join()), ['d,b', 'c', 'a']);
});

test('failures are told apart from what ended well, newest first', () => {
  const job = (id, state, ended) => ({id, state, ended_at: ended, started_at: 1});
  const sorted = words.sortJobs([job('a', 'done', 5), job('b', 'failed', 6), job('c', 'failed', 7), job('d', 'running'), job('e', 'cancelled', 9)]);
  assert.deepEqual(Object.values(sorted).map((all) => all.map(({id}) => id).join()), ['d', 'c,b', 'e,a']);
});

test('limits belong to the class before the last dot', () => {
  const limits = words.limitsOf('my.class', {'my.class.images': {limit: 2}, 'my.images': {limit: 1}, 'class.chat': {limit: 3}});
  assert.deepEqual(limits, [['images', {limit: 2}]]);
  assert.equal(words.slots({limit: 1, inflight: 1}), '1 of 1 slot taken');
  assert.equal(words.slots({limit: 2, inflight: 0}), '2 slots, all free');
});

test('the queue is that of the newest sample, and no reading of an old report is shown', () => {
  const report = {engine: {kind: 'invokeai', queue_depth: 7}, gpu: {name: 'RTX', index: 0, pstate: 'P8', 'fan.speed': 30}};
  const shown = (queue) => Object.fromEntries(words.facts(report, queue));
  assert.equal(shown(1).Queue, '1 waiting or running');
  assert.equal(shown(0).Queue, 'empty');
  assert.equal('Queue' in shown(undefined), false);
  assert.deepEqual(Object.keys(shown(0)).filter((term) => /State|Fan/.test(term)), []);
});
