// From the form to a request. Pure, save that references are files.
import {lorasLines, lorasProblem, readLoras} from './loras.js';
import {CUSTOM, areaProblem, sideProblem} from './sizes.js';

/** An empty form. Numbers are kept as they were typed; '' leaves it to the model. */
export const EMPTY = Object.freeze({
  prompt: '', negative_prompt: '', model: '', size: '', width: '', height: '', steps: '', seed: '', n: '1', cfg_scale: '',
  scheduler: '', strength: '', loras: '',
});
const MAX_PROMPT = 32_000;
const MAX_SEED = 2 ** 32 - 1;

/** What is wrong with the form, first things first: `{field, message}`. */
export function problems(form, able) {
  const found = [];
  const add = (field, message) => message && found.push({field, message});
  if (!form.prompt.trim()) add('prompt', 'Describe the picture in the prompt.');
  if ([...form.prompt].length > MAX_PROMPT) add('prompt', 'The prompt is too long: at most 32,000 characters.');
  add('references', able.problem);
  if (able.takesSize && form.size === CUSTOM) {
    const [width, height] = [Number(form.width), Number(form.height)];
    add('width', sideProblem('Width', width, able));
    add('height', sideProblem('Height', height, able));
    add('width', areaProblem(width, height, able));
  }
  const used = (name) => able.takes[name] && form[name] !== '';
  const whole = (text, least, most = Number.MAX_SAFE_INTEGER) =>
    Number.isSafeInteger(Number(text)) && Number(text) >= least && Number(text) <= most;
  if (used('steps') && !whole(form.steps, 1)) add('steps', 'Steps must be a whole number of at least 1.');
  if (used('seed') && !whole(form.seed, 0, MAX_SEED)) add('seed', `Seed must be a whole number from 0 to ${MAX_SEED}, or empty for any.`);
  if (!whole(form.n, 1, able.maxPictures)) add('n', `Pictures must be a whole number from 1 to ${able.maxPictures}.`);
  if (used('cfg_scale') && !inRange(form.cfg_scale, 1, 30)) add('cfg_scale', 'Guidance must be a number from 1 to 30.');
  if (used('loras')) add('loras', lorasProblem(form.loras, able.maxLoras));
  if (used('strength') && !inRange(form.strength, 0, 1)) add('strength', 'Strength must be a number from 0 to 1.');
  return found;
}

function inRange(text, least, most) {
  return Number(text) >= least && Number(text) <= most;
}

/** The fields to send: what the model ignores and what was left open is not among them. */
export function fields(form, able) {
  const asked = {prompt: form.prompt};
  if (form.model) asked.model = form.model;
  if (able.takes.negative_prompt && form.negative_prompt.trim()) asked.negative_prompt = form.negative_prompt;
  const size = form.size === CUSTOM ? `${Number(form.width)}x${Number(form.height)}` : form.size;
  if (able.takesSize && size) asked.size = size;
  for (const name of ['steps', 'seed', 'cfg_scale', 'strength']) {
    if (able.takes[name] && form[name] !== '') asked[name] = Number(form[name]);
  }
  if (able.takes.scheduler && form.scheduler) asked.scheduler = form.scheduler;
  const loras = able.takes.loras ? readLoras(form.loras) : [];
  if (loras.length) asked.loras = loras;
  if (Number(form.n) > 1) asked.n = Number(form.n);
  return asked;
}

/** How a request of these fields is sent: one picture as a stream with previews, several as one answer. */
export function sendable(asked) {
  return asked.n > 1 ? {...asked, response_format: 'url'} : {...asked, stream: true, partial_images: 3};
}

/** The form of an edit: `pictures` are `{name, blob}` in order, `mask` a blob or null. */
export function multipart(asked, pictures, mask) {
  const body = new FormData();
  for (const [name, value] of Object.entries(asked)) body.append(name, typeof value === 'object' ? JSON.stringify(value) : String(value));
  for (const {name, blob} of pictures) body.append('image[]', blob, name);
  if (mask) body.append('mask', mask, 'mask.png');
  return body;
}

const STORED = /^\d+_[0-9a-f]{16}\.[a-z]{3,4}$/;
export const isStoreName = (name) => STORED.test(name ?? '');

/** The store's name at the end of an address, else null. */
export function storeNameOf(address) {
  const name = (address ?? '').split(/[?#]/)[0].split('/').at(-1);
  return isStoreName(name) ? name : null;
}

/**
 * The form that makes a stored picture again, from its settings: `known` are the names of the models there are.
 * `references` are names; `missing` says in words what cannot be had again, and what ends that: `{text, until}`.
 */
export function formOf(settings, known) {
  const asked = settings.requested ?? {};
  const candidates = [settings.preset, settings.model, asked.model].filter(Boolean);
  const text = (value) => (value == null ? '' : String(value));
  const names = settings.references ?? [];
  const references = names.filter(isStoreName);
  const lost = names.filter((name) => !isStoreName(name));
  const missing = lost.map((name) => ({
    text: `This was made from “${name}”, which the gateway does not keep: add it again.`, until: 'reference',
  }));
  const edited = ['edit', 'inpaint'].includes(settings.task);
  if (edited && !names.length) {
    missing.push({text: 'This was made from a picture that the gateway does not keep: add it again.', until: 'reference'});
  }
  if (settings.mask) missing.push({text: 'This was made with a mask, which the gateway does not keep: paint it again.', until: 'mask'});
  return {
    form: {
      ...EMPTY,
      prompt: text(settings.prompt),
      negative_prompt: text(settings.negative_prompt),
      model: candidates.find((name) => known.includes(name)) ?? candidates[0] ?? '',
      // An edit whose size nobody asked for has its picture's.
      size: edited && settings.requested && !asked.size ? '' : text(settings.size),
      loras: lorasLines(settings.loras ?? asked.loras),
      ...Object.fromEntries(['steps', 'seed', 'cfg_scale', 'scheduler', 'strength'].map((name) => [name, text(settings[name])])),
    },
    references,
    missing,
  };
}
