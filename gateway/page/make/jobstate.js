// What is known about a request that this tab sent, and how news change it. Pure.
import {lorasText} from './loras.js';

/** How many requests, and how many bytes, a tab remembers over a reload. */
const REMEMBER = 24;
const REMEMBER_BYTES = 300_000;
export const RUNNING = 'running';

/** A request that is being sent. `begun`: when the engine could begin with it; null while others of this tab are before it. */
export function newJob(id, asked, {task, references = [], mask = false, size = null, expected = null, work, at, begun = at}) {
  return {id, asked, task, references, mask, size, expected, work, startedAt: at, begun, first: null, state: RUNNING, progress: null,
    pictures: [], ignored: [], error: null, took: null};
}

/** The job with how far it is at `now`; the same object if that is nothing new. */
export function withProgress(job, progress, now) {
  if (progress == null || progress <= (job.progress ?? 0)) return job;
  return {...job, progress, begun: job.begun ?? now, first: job.first ?? {progress, at: now}};
}

/** The job whose turn comes next: engines make one at a time. Null while one is being made, and without any. */
export function nextToBegin(jobs) {
  const running = jobs.filter((job) => job.state === RUNNING);
  if (running.some(({begun}) => begun != null)) return null;
  return running.reduce((first, job) => (first && first.startedAt <= job.startedAt ? first : job), null);
}

/** The job with what the gateway says of it; the same object if that is nothing new. */
export function withLive(job, news, now) {
  if (job.state !== RUNNING) return job;
  if (news.state === 'running') return withProgress(job, news.progress, now);
  const ended = {...job, took: news.ended_at ? news.ended_at - news.started_at : null};
  if (news.state === 'done' && !news.pictures?.length) {
    return {...ended, state: 'failed', error: {message: 'The request has ended, but its picture is not in the store. Generate it again.'}};
  }
  if (news.state === 'done') return {...ended, state: 'done', pictures: news.pictures.map((name) => ({name}))};
  if (news.state === 'cancelled') return {...ended, state: 'cancelled'};
  return {...ended, state: 'failed', error: news.error ?? {message: 'The gateway gives no reason.'}};
}

/** The pictures of an answer: `{name, blob address, seed, settings}`; `base64` ones are handed to `keep`. */
export function picturesOf(entries, nameOf, keep) {
  return entries.map((entry) => ({
    name: nameOf(entry.url),
    ...(entry.url ? {} : {address: keep(entry.b64_json)}),
    settings: {...entry.settings, ...(entry.seed == null ? {} : {seed: entry.seed}),
      ...(entry.size && !entry.settings?.size ? {size: entry.size} : {})},
  }));
}

/** What is worth keeping over a reload, as text: the newest that fit. */
export function remember(jobs) {
  const kept = [];
  let length = 0;
  for (const job of jobs.slice(0, REMEMBER)) {
    if (job.state !== RUNNING && job.state !== 'done') continue;
    const text = JSON.stringify({...job, pictures: job.pictures.filter(({name}) => name).map(({name, settings}) => ({name, settings}))});
    length += text.length;
    if (length > REMEMBER_BYTES) break;
    kept.push(text);
  }
  return `[${kept.join(',')}]`;
}

export function recall(text) {
  try {
    const jobs = JSON.parse(text);
    return Array.isArray(jobs) ? jobs.filter((job) => job?.id && job.asked && Array.isArray(job.pictures)) : [];
  } catch {
    return [];
  }
}

/** The slots for pictures: how many, how many are free, how many of this tab's requests run. */
export function slots(status, imagesClass, jobs) {
  const usage = status?.admission_control?.[`${imagesClass}.images`];
  const own = jobs.filter((job) => job.state === RUNNING).length;
  if (!usage) return {limit: null, free: null, own};
  // What was just sent is not in the status yet.
  return {limit: usage.limit, free: Math.max(0, Math.min(usage.available, usage.limit - own)), own};
}

/** Why nothing can be sent right now; null if it can. */
export function fullText({limit, free, own}) {
  if (free !== 0) return null;
  const all = {1: 'The only slot is taken', 2: 'Both slots are taken'}[limit] ?? `All ${limit} slots are taken`;
  const whose = own >= limit ? 'by your requests' : own ? `${own} by yours` : 'by others';
  return `${all}, ${whose}. You can generate again when one is free.`;
}

/** `[name, actual, asked]` of settings to show; `asked` only where it differs. */
export function settingRows(settings, asked) {
  const rows = [];
  const add = (label, name, text = (value) => String(value)) => {
    const actual = settings[name];
    if (actual == null || actual === '') return;
    const other = asked[name] != null && text(asked[name]).toLowerCase() !== text(actual).toLowerCase();
    rows.push([label, text(actual), other ? text(asked[name]) : null]);
  };
  add('Model', 'model');
  add('Size', 'size', (size) => size.replace('x', ' × '));
  add('Steps', 'steps');
  add('Guidance', 'cfg_scale');
  add('Scheduler', 'scheduler');
  add('Strength', 'strength');
  add('LoRAs', 'loras', lorasText);
  add('Seed', 'seed');
  return rows;
}

/** What can be done about an error, in words; null where its message says it. */
export function advice({status, code}) {
  if (status === 429 || code === 'backend_overloaded') return 'Your request is kept here: try again when a slot is free.';
  if (code === 'gpu_out_of_memory') return 'Try a smaller size or fewer pictures.';
  if (code === 'engine_unavailable' || code === 'backend_error') return 'The picture was not finished. Try again when the card is ready.';
  if (status === 503 || code === 'backend_not_ready') return 'Nothing was started. Try again when the card is ready.';
  if (status === 504 || code === 'engine_timeout' || code === 'backend_timeout') return 'Try fewer steps, a smaller size or fewer pictures.';
  if (status === 507 || code === 'storage_full') return 'Delete pictures in the gallery, or free space on the gateway’s disk.';
  if (status === 413) return 'Use smaller or fewer references.';
  return null;
}

const FIELDS = {
  negative: 'negative_prompt', num_inference_steps: 'steps', guidance_scale: 'cfg_scale', sampler: 'scheduler',
  image: 'references', 'image[]': 'references', images: 'references', mask: 'references',
};

/** The field of the form that an error names; null if none. */
export function fieldOf({status, param}) {
  if (!param || (status !== 400 && status !== 404)) return null;
  const name = param.replace(/\[\d*\]$/, '');
  return FIELDS[param] ?? FIELDS[name] ?? name;
}
