// What the gateway tells about itself while the page is open: one connection a tab, `GET /v1/gateway/events`.
import {apiEvents} from './api.js';

const KEEP_SECONDS = 600;
/** A page that nobody looks at closes its connection after this time, unless it waits for a picture. */
const HIDDEN_MS = 60_000;
/** The gateway sends something every 15 s. */
const SILENCE_MS = 40_000;

const listeners = new Map();
let connection = null;
let hiddenTimer = null;

export const live = {
  /** `closed`, `connecting`, `open`, `lost`, or `refused` (the token does not count any more). */
  state: 'closed',
  hello: null,
  status: null,
  readiness: null,
  samples: [],
  jobs: [],
  /** The name of the card; one that is lost keeps it. */
  cardName: null,
  /** Calls `listener` when `key` (a property of this object) has changed; returns a function that ends that. */
  on(key, listener) {
    if (!listeners.has(key)) listeners.set(key, new Set());
    listeners.get(key).add(listener);
    return () => listeners.get(key).delete(listener);
  },
  start() {
    if (!connection) connection = connect();
  },
  stop() {
    connection?.abort();
    connection = null;
    Object.assign(live, {hello: null, status: null, readiness: null, samples: [], jobs: [], cardName: null});
    change('state', 'closed');
  },
};

/** Calls `action` once, when the connection is open again. */
export function whenOpen(action) {
  const end = live.on('state', (state) => {
    if (state !== 'open') return;
    end();
    action();
  });
}

function change(key, value) {
  live[key] = value;
  for (const listener of listeners.get(key) ?? []) listener(value);
}

function connect() {
  const abort = new AbortController();
  run(abort.signal);
  return abort;
}

async function run(signal) {
  let failures = 0;
  while (!signal.aborted) {
    change('state', failures ? 'lost' : 'connecting');
    const refused = await follow(signal, () => { failures = 0; });
    if (signal.aborted) return;
    if (refused) {
      connection = null;
      change('state', 'refused');
      return;
    }
    failures += 1;
    change('state', 'lost');
    // A restart is over in a second or two; a Mac that sleeps is not asked all the time.
    await pause(Math.min(500 * 2 ** Math.min(failures - 1, 4), 5_000), signal);
  }
}

/** Follows one connection to its end; true if the token was refused. */
async function follow(signal, opened) {
  const attempt = new AbortController();
  const end = () => attempt.abort();
  signal.addEventListener('abort', end);
  let silence = setTimeout(end, SILENCE_MS);
  try {
    for await (const {event, data} of apiEvents('/v1/gateway/events', {signal: attempt.signal})) {
      clearTimeout(silence);
      silence = setTimeout(end, SILENCE_MS);
      if (event) receive(event, JSON.parse(data), opened);
    }
  } catch (error) {
    return error.status === 401;
  } finally {
    clearTimeout(silence);
    signal.removeEventListener('abort', end);
  }
  return false;
}

function receive(event, data, opened) {
  if (event === 'hello') {
    opened();
    change('hello', data);
    change('state', 'open');
  } else if (event === 'samples') {
    // Other backends may have a card as well; the page shows the one that makes pictures.
    if (data.class === live.hello?.images_class) change('samples', merge(live.samples, data.samples));
  } else if (event === 'jobs') {
    change('jobs', data.jobs);
  } else if (event === 'status' || event === 'readiness') {
    if (data.gpu?.name) live.cardName = data.gpu.name.replace(/^NVIDIA /, '');
    change(event, data);
  }
}

/** The last ten minutes of both, in order, none twice. */
export function merge(old, fresh) {
  if (!fresh.length) return old;
  const last = old.at(-1)?.at ?? -Infinity;
  const from = fresh[0].at;
  const kept = from > last ? old : old.filter((sample) => sample.at < from);
  const newest = fresh.at(-1).at;
  return [...kept, ...fresh].filter((sample) => sample.at > newest - KEEP_SECONDS);
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const now = () => {
      clearTimeout(timer);
      resolve();
    };
    signal.addEventListener('abort', now, {once: true});
    addEventListener('online', now, {once: true});
  });
}

const waitsForPicture = () => live.jobs.some((job) => job.state === 'running');

document.addEventListener('visibilitychange', () => {
  clearTimeout(hiddenTimer);
  if (!document.hidden) {
    if (live.state === 'paused') live.start();
    return;
  }
  const rest = () => {
    if (!connection) return;
    if (waitsForPicture()) {
      hiddenTimer = setTimeout(rest, HIDDEN_MS);
      return;
    }
    connection.abort();
    connection = null;
    change('state', 'paused');
  };
  hiddenTimer = setTimeout(rest, HIDDEN_MS);
});
