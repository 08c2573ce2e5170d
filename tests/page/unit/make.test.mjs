// What Make decides: what a model is offered, what is sent, how long it takes, what became of a request.
import assert from 'node:assert/strict';
import {test} from 'node:test';
import {abilities, describe, firstModel} from '../../../gateway/page/make/abilities.js';
import {expect, judge, leftText, learn, workOf} from '../../../gateway/page/make/estimate.js';
import {
  advice, fieldOf, fullText, newJob, nextToBegin, picturesOf, slots, recall, remember, settingRows, withLive, withProgress,
} from '../../../gateway/page/make/jobstate.js';
import {EMPTY, fields, formOf, multipart, problems, sendable, storeNameOf} from '../../../gateway/page/make/request.js';
import {CUSTOM, areaProblem, parseSize, sameChoice, sideProblem, sizeChoices} from '../../../gateway/page/make/sizes.js';

const task = (parameters, most = 0, size = true) => ({size, min_images: most ? 1 : 0, max_images: most, parameters, defaults: {}});
const model = (id, by_task, more = {}) => ({
  id,
  capabilities: {
    by_task, tasks: Object.keys(by_task), mask: 'inpaint' in by_task, max_n: 4,
    max_images: Math.max(...Object.values(by_task).map((one) => one.max_images)),
    parameters: [...new Set(Object.values(by_task).flatMap((one) => one.parameters))],
    schedulers: ['euler', 'ddim'], defaults: {size: '1024x1024', steps: 30},
    size: {generate: true, edit: true, multiple: 16, max_pixels: 4_194_304}, ...more,
  },
});
const EVERYTHING = ['seed', 'negative_prompt', 'steps', 'cfg_scale', 'scheduler'];
const sdxl = model('sdxl', {
  generate: task(EVERYTHING), edit: task([...EVERYTHING, 'strength'], 16), inpaint: task([...EVERYTHING, 'strength'], 16),
});
const turbo = model('turbo', {generate: task(['seed'])});
const editor = model('editor', {edit: task(['seed', 'steps'], 3, false)});
const filler = model('filler', {inpaint: task(['seed'], 1)});
const NAME = '1796132197_c73691aa9d833154.png';

test('a model is offered what it can do', () => {
  const plain = abilities(sdxl);
  assert.equal(plain.task, 'generate');
  assert.equal(plain.takes.strength, false);
  assert.equal(plain.takesMask, false);
  const edit = abilities(sdxl, {references: 2});
  assert.equal(edit.task, 'edit');
  assert.ok(edit.takes.strength && edit.takesMask);
  assert.equal(abilities(sdxl, {references: 1, mask: true}).task, 'inpaint');
  assert.equal(abilities(turbo).takes.negative_prompt, false);
});

test('references that a model does not take are not counted', () => {
  const able = abilities(turbo, {references: 2, mask: true});
  assert.deepEqual([able.task, able.used, able.most, able.problem], ['generate', 0, 0, null]);
  assert.equal(abilities(editor, {references: 5}).used, 3);
});

test('what a model cannot do without is said', () => {
  assert.match(abilities(editor).problem, /add a reference/);
  assert.match(abilities(filler).problem, /paint a mask/);
  assert.match(abilities(filler, {references: 1}).problem, /paint a mask/);
  assert.equal(abilities(filler, {references: 1, mask: true}).problem, null);
});

test('of an unknown model everything is asked', () => {
  const able = abilities({id: 'x', capabilities: {}}, {references: 1});
  assert.equal(able.problem, null);
  assert.ok(able.takes.strength && able.takesSize);
});

test('a model in one line', () => {
  assert.equal(describe(sdxl), 'Makes and edits · up to 16 references · masks');
  assert.equal(describe(filler), 'Repaints pictures · 1 reference · masks · no negative prompt, choice of steps, guidance or scheduler');
  assert.match(describe({id: 'x'}), /does not say/);
  assert.equal(firstModel([editor, turbo, sdxl]), 'turbo');
  assert.equal(firstModel([]), '');
  assert.equal(firstModel([turbo, {...sdxl, default: true}]), sdxl.id);
});

test('sizes have the pixels of the model, on its multiple', () => {
  for (const [usual, multiple] of [['1024x1024', 8], ['512x512', 8], ['1328x1328', 16], ['2048x2048', 32]]) {
    const able = {...abilities(sdxl), multiple, defaults: {size: usual}};
    const {width, height} = parseSize(usual);
    for (const {value} of sizeChoices(able).filter((choice) => parseSize(choice.value))) {
      const size = parseSize(value);
      assert.ok(size.width % multiple === 0 && size.height % multiple === 0, value);
      assert.ok(size.width * size.height <= able.maxPixels, value);
      assert.ok(Math.abs(size.width * size.height / (width * height) - 1) < 0.06, `${value} of ${usual}`);
    }
  }
});

test('the first size is the default, or the picture’s own', () => {
  assert.equal(sizeChoices(abilities(sdxl))[0].label, 'Default: 1024 × 1024');
  assert.equal(sizeChoices(abilities(sdxl, {references: 1}))[0].label, 'Same as the picture');
  assert.equal(sizeChoices(abilities(editor, {references: 1})).length, 1);
});

test('another model keeps the shape', () => {
  const large = sizeChoices(abilities(sdxl));
  const small = sizeChoices({...abilities(sdxl), multiple: 8, defaults: {size: '512x512'}});
  const wide = large.find(({shape}) => shape === 'widest').value;
  assert.equal(sameChoice(wide, large, small), small.find(({shape}) => shape === 'widest').value);
  assert.equal(sameChoice(CUSTOM, large, small), CUSTOM);
  assert.equal(sameChoice('77x77', [], small), '');
});

test('sides and areas that cannot be made', () => {
  assert.equal(sideProblem('Width', 704, {multiple: 16}), null);
  assert.match(sideProblem('Width', 700, {multiple: 16}), /688 or 704/);
  assert.match(sideProblem('Width', Number.NaN, {multiple: 16}), /whole number/);
  assert.match(areaProblem(4096, 4096, {maxPixels: 4_194_304}), /2048 × 2048/);
});

test('only what the model uses and what was filled in is sent', () => {
  const form = {...EMPTY, prompt: 'a fox', model: 'turbo', negative_prompt: 'x', steps: '9', seed: '5', strength: '0.4', size: '1024x1024'};
  assert.deepEqual(fields(form, abilities(turbo)), {prompt: 'a fox', model: 'turbo', size: '1024x1024', seed: 5});
  assert.deepEqual(fields({...EMPTY, prompt: 'a', n: '3', size: CUSTOM, width: '64', height: '128'}, abilities(sdxl)),
    {prompt: 'a', size: '64x128', n: 3});
  assert.equal('size' in fields(form, abilities(editor, {references: 1})), false);
});

test('one picture is a stream, several are one answer', () => {
  assert.deepEqual(sendable({prompt: 'a'}), {prompt: 'a', stream: true, partial_images: 3});
  assert.deepEqual(sendable({prompt: 'a', n: 2}), {prompt: 'a', n: 2, response_format: 'url'});
});

test('an edit has its pictures in order, under their names', () => {
  const blob = new Blob(['x'], {type: 'image/png'});
  const body = multipart({prompt: 'a', seed: 5}, [{name: 'עץ.png', blob}, {name: 'b.png', blob}], blob);
  assert.deepEqual(body.getAll('image[]').map(({name}) => name), ['עץ.png', 'b.png']);
  assert.equal(body.get('seed'), '5');
  assert.equal(body.get('mask').name, 'mask.png');
});

test('what is wrong with the form, in words', () => {
  const able = abilities(sdxl);
  const first = (values) => problems({...EMPTY, prompt: 'a', ...values}, able)[0]?.field;
  assert.equal(first({}), undefined);
  for (const [field, value] of Object.entries({
    prompt: ' ', steps: '0', seed: '-1', n: '5', cfg_scale: '40',
  })) assert.equal(first({[field]: value}), field);
  assert.equal(first({seed: '4294967296'}), 'seed');
  assert.equal(first({seed: '4294967295'}), undefined);
  assert.equal(first({steps: '?'}), 'steps');
  assert.equal(first({size: CUSTOM, width: '65', height: '64'}), 'width');
  assert.equal(problems({...EMPTY, prompt: 'a', steps: '0'}, abilities(turbo)).length, 0);
});

test('LoRAs are typed one a line, sent as a list, and typed again from settings', () => {
  const withLoras = {...sdxl, capabilities: {...sdxl.capabilities, max_loras: 2,
    by_task: {...sdxl.capabilities.by_task, generate: {...sdxl.capabilities.by_task.generate, parameters: ['seed', 'loras']}}}};
  const able = abilities(withLoras);
  const form = {...EMPTY, prompt: 'a', loras: 'ink wash: 0.8\n\n sketch:v2\nthird : -.5 '};
  assert.equal(able.takes.loras, true);
  assert.equal(abilities(null).takes.loras, false, 'an unknown model');
  const expected = [{name: 'ink wash', weight: 0.8}, {name: 'sketch:v2', weight: 1}, {name: 'third', weight: -0.5}];
  assert.deepEqual(fields(form, able).loras, expected);
  assert.equal('loras' in fields(form, abilities(sdxl)), false);
  assert.match(problems(form, able)[0].message, /at most 2 LoRAs/);
  assert.match(problems({...form, loras: 'a: 5'}, able)[0].message, /from -4 to 4/);
  assert.match(problems({...form, loras: ': 1'}, able)[0].message, /one LoRA per line/);
  assert.equal(multipart({loras: expected}, [], null).get('loras'), JSON.stringify(expected));
  const again = formOf({prompt: 'a', loras: expected}, []).form;
  assert.deepEqual(fields({...again, n: '1'}, able).loras, expected);
  assert.equal(formOf({prompt: 'a', requested: {loras: [{name: 'l'}]}}, []).form.loras, 'l: 1');
  assert.deepEqual(settingRows({loras: [{name: 'l', weight: 0.5}]}, {loras: [{name: 'l', weight: 0.5}]}), [['LoRAs', 'l (0.5)', null]]);
});

test('names of the store', () => {
  assert.equal(storeNameOf(`https://ai2:8800/ui/images/${NAME}?x`), NAME);
  assert.equal(storeNameOf('/ui/images/../secret'), null);
  assert.equal(storeNameOf(undefined), null);
});

test('a form from settings', () => {
  const {form, references, missing} = formOf({
    task: 'inpaint', prompt: 'a', model: 'SDXL base', seed: 7, steps: 20, size: '512x512', references: [NAME, 'cat.jpg'], mask: true,
    requested: {model: 'sdxl', size: '512x512'},
  }, ['sdxl']);
  assert.deepEqual([form.model, form.seed, form.steps, form.size, form.n], ['sdxl', '7', '20', '512x512', '1']);
  assert.deepEqual(references, [NAME]);
  assert.deepEqual(missing.map(({until}) => until), ['reference', 'mask']);
  assert.equal(formOf({task: 'edit', size: '8x8', requested: {}}, []).form.size, '');
  assert.equal(formOf({task: 'generate', size: '8x8', requested: {}}, []).form.size, '8x8');
  assert.equal(formOf({prompt: 'a', model: 'gone'}, ['sdxl']).form.model, 'gone');
  assert.equal(formOf({prompt: 'a', model: 'm', preset: 'fast'}, ['fast', 'm']).form.model, 'fast');
});

test('times are learned, bounded, and scaled to other sizes', () => {
  const able = abilities(sdxl);
  const work = workOf({model: 'sdxl'}, able);
  assert.equal(expect({}, work), null);
  let times = learn({}, work, 10);
  assert.equal(expect(times, work), 10);
  assert.equal(expect(times, {...work, n: 4}), 40);
  assert.equal(expect(times, workOf({model: 'sdxl', steps: 15}, able)), 5);
  assert.equal(expect(times, {...work, model: 'other'}), null);
  assert.equal(workOf({model: 'sdxl'}, able, '640x480').pixels, 640 * 480);
  assert.equal(workOf({model: 'sdxl'}, able, '9000x9000').pixels, able.maxPixels);
  for (let steps = 1; steps < 500; steps += 1) times = learn(times, {...work, steps}, 1);
  assert.ok(Object.keys(times).length <= 60);
  assert.equal(expect(times, {...work, steps: 499}), 1);
});

test('time left is corrected by progress', () => {
  assert.deepEqual(judge({elapsed: 3, expected: null, progress: null}), {fraction: null, left: null});
  assert.deepEqual(judge({elapsed: 5, expected: 10, progress: null}), {fraction: 0.5, left: 5});
  assert.deepEqual(judge({elapsed: 20, expected: 10, progress: null}), {fraction: 0.95, left: null, overdue: true});
  assert.match(leftText(judge({elapsed: 20, expected: 10, progress: null})), /longer/);
  assert.deepEqual(judge({elapsed: 5, expected: null, progress: 0.5}), {fraction: 0.5, left: 5});
  const slow = judge({elapsed: 18, expected: 20, progress: 0.5});
  assert.equal(slow.fraction, 0.5);
  assert.ok(slow.left > 9 && slow.left < 18);
  // A model was loaded for 10 s before the first step.
  const first = {progress: 0.1, elapsed: 11};
  assert.deepEqual(judge({elapsed: 11, expected: null, progress: 0.1, first}), {fraction: 0.1, left: null});
  assert.deepEqual(judge({elapsed: 15, expected: null, progress: 0.5, first}), {fraction: 0.5, left: 5});
  assert.deepEqual(judge({elapsed: 40, expected: null, progress: 1, first}), {fraction: 1, left: 0});
});

const job = (more) => ({...newJob('id', {prompt: 'a'}, {task: 'generate', at: 1000, work: {}}), ...more});

test('news of the gateway change a running job, and no other', () => {
  const running = withLive(job(), {state: 'running', progress: 0.4});
  assert.equal(running.progress, 0.4);
  assert.equal(withLive(running, {state: 'running', progress: 0.3}), running);
  assert.deepEqual(withLive(running, {state: 'done', pictures: [NAME], started_at: 1, ended_at: 3.5}).pictures, [{name: NAME}]);
  assert.equal(withLive(running, {state: 'done', pictures: [], started_at: 1, ended_at: 3.5}).took, 2.5);
  assert.equal(withLive(running, {state: 'failed', error: {message: 'why'}}).error.message, 'why');
  assert.ok(withLive(running, {state: 'failed'}).error.message);
  const done = job({state: 'done'});
  assert.equal(withLive(done, {state: 'running'}), done);
});

test('a job begins when its turn comes, or when the engine says that it has', () => {
  const one = job({id: '1', startedAt: 1000});
  const two = job({id: '2', startedAt: 2000, begun: null});
  const three = job({id: '3', startedAt: 3000, begun: null});
  assert.equal(nextToBegin([three, two, one]), null);
  assert.equal(nextToBegin([three, two, {...one, state: 'done'}]), two);
  assert.equal(nextToBegin([{...one, state: 'done'}]), null);
  const begun = withProgress(two, 0.2, 5000);
  assert.deepEqual([begun.begun, begun.first], [5000, {progress: 0.2, at: 5000}]);
  assert.deepEqual(withProgress(begun, 0.4, 6000).first, begun.first);
  assert.equal(withProgress(two, 0, 5000), two);
});

test('pictures of an answer', () => {
  const kept = [];
  const [stored, bare] = picturesOf([{url: `/ui/images/${NAME}`, seed: 3, settings: {steps: 4}}, {b64_json: 'AA', size: '8x8'}], storeNameOf,
    (base64) => kept.push(base64) && 'blob:1');
  assert.deepEqual(stored, {name: NAME, settings: {steps: 4, seed: 3}});
  assert.deepEqual(bare, {name: null, address: 'blob:1', settings: {size: '8x8'}});
});

test('what is remembered over a reload is bounded', () => {
  const many = Array.from({length: 100}, (_, index) => job({id: String(index)}));
  assert.equal(recall(remember(many)).length, 24);
  const long = many.map((one) => ({...one, asked: {prompt: 'x'.repeat(32_000)}}));
  assert.ok(remember(long).length <= 300_100);
  assert.equal(recall(remember([job({state: 'failed'}), job({state: 'lost'}), job({state: 'cancelled'})])).length, 0);
  assert.deepEqual(recall('nonsense'), []);
  assert.deepEqual(recall(null), []);
});

test('slots, and what is said when there are none', () => {
  const status = (available) => ({admission_control: {'gpu.images': {limit: 2, available}}});
  assert.equal(fullText(slots(null, 'gpu', [])), null);
  assert.equal(fullText(slots(status(1), 'gpu', [job()])), null);
  assert.match(fullText(slots(status(2), 'gpu', [job(), job()])), /Both slots are taken, by your requests/);
  assert.match(fullText(slots(status(0), 'gpu', [])), /by others/);
});

test('settings beside what was asked', () => {
  const rows = settingRows({model: 'a', size: '512x512', steps: 30, seed: 1}, {model: 'A', size: '500x500'});
  assert.deepEqual(rows, [['Model', 'a', null], ['Size', '512 × 512', '500 × 500'], ['Steps', '30', null], ['Seed', '1', null]]);
});

test('errors name their field and what to do', () => {
  assert.equal(fieldOf({status: 400, param: 'num_inference_steps'}), 'steps');
  assert.equal(fieldOf({status: 400, param: 'image[3]'}), 'references');
  assert.equal(fieldOf({status: 404, param: 'model'}), 'model');
  assert.equal(fieldOf({status: 503, param: 'model'}), null);
  assert.match(advice({status: 429}), /try again when a slot is free/);
  assert.match(advice({code: 'gpu_out_of_memory', status: 503}), /smaller size/);
  for (const code of ['engine_unavailable', 'backend_error']) assert.match(advice({code, status: 503}), /not finished/);
  assert.equal(advice({status: 400}), null);
});
