// Pictures put into the store as files, as if they had been made some time ago.

import {createHash} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {pictureMaker} from './png.mjs';

const HOUR = 3600;

/** Puts a file of the store's form, and what is known about it; returns its name. */
export function store(folder, bytes, settings = {}, {at = Math.floor(Date.now() / 1000) - HOUR, extension = 'png'} = {}) {
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
  const name = `${at}_${hash}.${extension}`;
  fs.writeFileSync(path.join(folder, name), bytes);
  const known = {owners: ['owner'], request_ids: [hash.padStart(32, '0')], ...settings};
  fs.writeFileSync(path.join(folder, `${name}.json`), JSON.stringify(known));
  return name;
}

const SUBJECTS = ['a lighthouse', 'a harbour', 'an orchard', 'a glacier', 'a night market'];
const LIGHTS = ['at dawn', 'in the rain', 'under stars', 'at noon'];

/** `count` pictures, two an hour; every second one of another model. */
export function fillStore(folder, count) {
  const now = Math.floor(Date.now() / 1000) - HOUR;
  const makers = [[384, 384], [384, 256], [256, 384]].map(([width, height]) => [pictureMaker(width, height), `${width}x${height}`]);
  return Array.from({length: count}, (_, index) => {
    const [make, size] = makers[index % makers.length];
    const settings = {
      task: 'generate',
      prompt: `${SUBJECTS[index % SUBJECTS.length]} ${LIGHTS[index % LIGHTS.length]}, number ${index}`,
      model: index % 2 ? 'sd-v1-5' : 'sd-xl-base-1.0',
      size,
      steps: 30,
      seed: index,
      duration_seconds: 4.2,
    };
    return store(folder, make(((index * 0.618) % 1) + index / 1e6), settings, {at: now - index * HOUR / 2});
  });
}
