// The card: what of its memory is free, and why it takes no pictures if it does not.
import {h, icon, setText} from './dom.js';
import {live} from './live.js';
import {memory} from './format.js';

const FRESH_SECONDS = 10;
const STATUS = {
  ready: 'Ready',
  degraded: 'Ready, with warnings',
  not_ready: 'Not ready',
  unreachable: 'Not reachable',
};

/** Why a backend without checks of its own takes no pictures, and what to do. */
export function whyNot({class: name, status, error}) {
  if (status !== 'unreachable') return error;
  return `${name} cannot be reached (${error}): check that its host is on and that its service runs there.`;
}

/** Jobs in the engine, whoever has sent them: it has a page of its own. Null while it does not answer. */
export function engineJobs() {
  const sample = live.samples.at(-1);
  return ['ready', 'degraded'].includes(sample?.status) ? sample.queue_depth ?? null : null;
}

/** The region `Card`. */
export function cardRegion() {
  const name = h('span.card-name', {dir: 'auto'}, 'Graphics card');
  const readiness = h('p.pill', {role: 'status', 'aria-label': 'Readiness'}, 'Connecting');
  const parts = ['engine', 'others', 'free'].map((kind) => part(kind));
  const bar = h('div.vram-bar', {'aria-hidden': 'true'}, parts.map(({segment}) => segment));
  const legend = h('dl.vram-legend', {}, parts.map(({entry}) => entry));
  const vram = h('div.vram', {hidden: true}, bar, legend);
  const reasons = h('ul.reasons');
  const slots = h('p.note.slots');
  const region = h('section.card', {'aria-label': 'Card'}, h('div.card-head', {}, name, readiness), vram, reasons, slots);

  const draw = () => {
    drawReadiness(readiness, reasons, name);
    drawMemory(vram, parts);
    drawSlots(slots);
  };
  for (const key of ['state', 'readiness', 'samples', 'status']) live.on(key, draw);
  draw();
  return region;
}

function part(kind) {
  const value = h('dd');
  return {
    kind,
    value,
    segment: h(`div.segment.${kind}`),
    entry: h('div', {}, h('dt', {}, h(`span.swatch.${kind}`, {'aria-hidden': 'true'}), label(kind)), value),
  };
}

const label = (kind) => ({engine: 'Engine', others: 'Others', free: 'Free'})[kind];

function drawReadiness(pill, list, name) {
  const {readiness, state} = live;
  const status = state === 'lost' ? 'unreachable' : readiness?.status;
  setText(pill, state === 'lost' ? 'Gateway not reachable' : STATUS[status] ?? 'Connecting');
  pill.dataset.status = status ?? 'unknown';
  const title = live.cardName ?? readiness?.engine?.kind;
  if (title) setText(name, title);
  const checks = (readiness?.checks ?? []).filter((check) => check.status === 'fail' || check.status === 'warn');
  // Failing ones first: they are why.
  checks.sort((one, other) => (one.status === 'fail' ? 0 : 1) - (other.status === 'fail' ? 0 : 1));
  const messages = checks.map((check) => ({kind: check.status, text: check.message || check.name}));
  if (!messages.some(({kind}) => kind === 'fail') && readiness?.error && status !== 'ready' && status !== 'degraded') {
    messages.unshift({kind: 'fail', text: whyNot(readiness)});
  }
  const key = JSON.stringify(messages);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...messages.map(({kind, text}) => h(`li.${kind}`, {dir: 'auto'}, icon('warning'), h('span', {}, text))));
}

function drawMemory(vram, parts) {
  // Of a card that no longer answers, the last figures say nothing.
  const newest = live.samples.at(-1)?.at;
  const sample = live.samples.findLast((one) => one.memory_total && newest - one.at < FRESH_SECONDS);
  vram.hidden = !sample;
  if (!sample) return;
  const {memory_total: total, memory_reserved: reserved = 0} = sample;
  // Where the engine's own share cannot be told, all that is used counts as others'.
  const engine = sample.memory_engine ?? 0;
  const others = sample.memory_others ?? sample.memory_used ?? 0;
  const amounts = {engine, others: others + reserved, free: sample.memory_free ?? total - engine - others - reserved};
  for (const {kind, segment, value} of parts) {
    segment.style.flexGrow = Math.max(0, amounts[kind]);
    setText(value, memory(amounts[kind]));
  }
}

function drawSlots(note) {
  const usage = live.status?.admission_control?.[`${live.hello?.images_class}.images`];
  const jobs = engineJobs() ?? 0;
  const parts = [];
  if (usage) parts.push(usage.available ? `${usage.available} of ${usage.limit} ${usage.limit === 1 ? 'slot' : 'slots'} free` : {1: 'The only slot is taken', 2: 'Both slots taken'}[usage.limit] ?? `All ${usage.limit} slots taken`);
  if (jobs) parts.push(`${jobs} ${jobs === 1 ? 'job' : 'jobs'} in the engine`);
  setText(note, parts.join(' · '));
}
