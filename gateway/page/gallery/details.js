// What is told about a picture: rows of name, value and what was asked for where that differs. No DOM.
import {bytes, dateTime, duration} from '../format.js';
import {lorasText} from '../make/loras.js';
import {sizeText} from '../make/sizes.js';

const NAMES = {
  task: 'Task', model: 'Model', size: 'Size', steps: 'Steps', cfg_scale: 'Guidance', seed: 'Seed', scheduler: 'Scheduler',
  strength: 'Strength', loras: 'LoRAs', mask: 'Mask', quality: 'Quality', n: 'Pictures', ignored: 'Not used',
};
const TASKS = {generate: 'Text to image', edit: 'Edit', inpaint: 'Inpainting'};
/** Shown elsewhere, or of no use to people. */
const ELSEWHERE = new Set(['name', 'url', 'bytes', 'created', 'content_type', 'thumbnail', 'owners', 'request_id',
  'request_ids', 'prompt', 'negative_prompt', 'references', 'requested', 'duration_seconds', 'object']);

/** `[{label, value, asked}]`, in a steady order, with whatever other settings there are behind the known ones. */
export function rows(settings) {
  const asked = settings.requested ?? {};
  const known = Object.keys(NAMES);
  const others = [...new Set([...Object.keys(settings), ...Object.keys(asked)])]
    .filter((key) => !known.includes(key) && !ELSEWHERE.has(key));
  return [...[...known, ...others].map((key) => setting(key, settings[key], asked[key])).filter(Boolean), ...about(settings)];
}

function setting(key, value, asked) {
  const label = NAMES[key] ?? humanName(key);
  // One picture of several is one picture.
  if (value == null && (asked == null || (key === 'n' && Number(asked) === 1))) return null;
  if (value == null && key === 'n') return {label, value: `one of ${asked}`, asked: null};
  if (value == null) return {label, value: '', asked: text(key, asked)};
  return {label, value: text(key, value), asked: asked == null || same(asked, value) ? null : text(key, asked)};
}

function about({created, duration_seconds: seconds, owners, content_type: type, bytes: size, request_id: id, request_ids: ids}) {
  const file = [type?.replace(/^image\//, '').replace('+xml', '').toUpperCase(), size && bytes(size)].filter(Boolean);
  return [
    ['Made', created && dateTime(created)],
    ['Took', seconds != null && (seconds < 10 ? `${Number(seconds).toFixed(1)} s` : duration(seconds))],
    ['By', owners?.join(', ')],
    ['File', file.join(', ')],
    ['Request id', id ?? ids?.at(-1)],
  ].filter(([, value]) => value).map(([label, value]) => ({label, value, asked: null}));
}

function text(key, value) {
  if (key === 'task') return TASKS[value] ?? String(value);
  if (key === 'loras') return lorasText(value);
  if (key === 'size') return sizeText(String(value));
  if (key === 'seed' && Number(value) === -1) return 'any';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value) && value.every((one) => typeof one !== 'object')) return value.map(label).join(', ');
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

const label = (key) => NAMES[key] ?? String(key).replaceAll('_', ' ');

function humanName(key) {
  const words = key.replaceAll('_', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function same(one, other) {
  if (typeof one === 'object' || typeof other === 'object') return JSON.stringify(one) === JSON.stringify(other);
  return String(one) === String(other) || (one !== '' && Number(one) === Number(other));
}
