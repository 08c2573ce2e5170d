// The place Make: the form with the card, and the pictures beside it.
import {ApiError} from './api.js';
import {cardRegion} from './card.js';
import {h, setText, toast} from './dom.js';
import {bytes} from './format.js';
import {live} from './live.js';
import {imageModels, loadModels, modelById} from './models.js';
import {abilities} from './make/abilities.js';
import {Form} from './make/form.js';
import {makeAgain, receiveHandoffs, useAsReference} from './make/handoff.js';
import {Jobs} from './make/jobs.js';
import {latestPictures} from './make/latest.js';
import {RUNNING, fullText, slots} from './make/jobstate.js';
import {takeDropsAndPastes} from './make/references.js';
import {fields, formOf} from './make/request.js';
import {Tile} from './make/tile.js';

const tiles = new Map();
let form;
let jobs;
let list;
let empty;
let latest;
let said;
let timer = null;
let shown = false;

export function mount(root) {
  form = new Form({generate: () => generate()});
  list = h('ol.results', {'aria-label': 'Results'});
  latest = latestPictures();
  empty = h('div', {}, h('div.empty', {}, h('p', {}, 'Your pictures appear here.'),
    h('p.note.keys', {}, 'Press ', h('kbd', {}, /Mac|iP/.test(navigator.platform) ? '⌘' : 'Ctrl'), ' ', h('kbd', {}, 'Enter'), ' in the form to generate.')),
  latest.element);
  said = h('p.visually-hidden', {'aria-live': 'polite'});
  const side = h('div.make-side', {}, h('div.panel', {}, cardRegion()), form.element);
  root.append(h('h1.visually-hidden', {}, 'Make'), side, h('div.make-results', {}, said, empty, list));
  jobs = new Jobs({added, changed, removed, refused});
  jobs.recall();
  takeDropsAndPastes(root, form.references);
  for (const key of ['status', 'jobs', 'hello']) live.on(key, drawFull);
  receiveHandoffs(take);
  drawFull();
}

export function show() {
  shown = true;
  settle();
  tickWhileNeeded();
}

/** The fields follow the model: they are shown once it is known, or the gateway does not say. */
async function settle() {
  if (!imageModels().length) await loadModels();
  form.element.removeAttribute('aria-busy');
  if (!tiles.size) latest.load();
}

export function hide() {
  shown = false;
  tickWhileNeeded();
}

/** The clocks of running requests go once a second, while somebody may look. */
function tickWhileNeeded() {
  const needed = shown && jobs.entries.some(({job}) => job.state === RUNNING);
  if (needed && !timer) {
    timer = setInterval(() => {
      if (!document.hidden) for (const tile of tiles.values()) tile.tick();
    }, 1000);
  } else if (!needed) {
    clearInterval(timer);
    timer = null;
  }
}

function added(entry) {
  const tile = new Tile(entry, {
    cancel: (one) => jobs.cancel(one).catch((error) => toast(`Not cancelled: ${error.message}`)),
    again: (one, settings) => again(one, settings, true),
    use: (one, settings) => again(one, settings, false),
    reference: useAsReference,
    retry,
    remove: (one) => jobs.remove(one),
    shown: (one) => jobs.dropPreview(one),
  });
  tiles.set(entry, tile);
  list.prepend(tile.element);
  empty.hidden = true;
  drawFull();
  tickWhileNeeded();
}

function changed(entry) {
  const tile = tiles.get(entry);
  if (!tile) return;
  const {state, pictures} = entry.job;
  if (state !== RUNNING && entry.told !== state) {
    entry.told = state;
    if (state === 'done') {
      setText(said, pictures.length > 1 ? `${pictures.length} pictures are ready` : 'The picture is ready');
      form.lastSeed = pictures[0]?.settings?.seed;
    }
    if (state === 'cancelled') setText(said, 'Cancelled');
    if (state !== 'done') jobs.dropPreview(entry);
    const hadFocus = tile.element.contains(document.activeElement);
    tile.update();
    // The button that was pressed is gone.
    if (hadFocus && !tile.element.contains(document.activeElement)) tile.element.querySelector('button, a')?.focus();
    drawFull();
    tickWhileNeeded();
    return;
  }
  tile.update();
}

function removed(entry) {
  const tile = tiles.get(entry);
  const next = tile.element.nextElementSibling ?? tile.element.previousElementSibling;
  const hadFocus = tile.element.contains(document.activeElement);
  tile.element.remove();
  tiles.delete(entry);
  empty.hidden = tiles.size > 0;
  if (hadFocus) (next?.querySelector('button, a') ?? form.controls.prompt).focus();
  drawFull();
  tickWhileNeeded();
}

/** The gateway names a field: that is shown where the field is. */
function refused(field, message) {
  form.showProblem({field, message});
}

/** Says at the form that all slots are taken, before anybody asks for another. */
function drawFull() {
  const now = slots(live.status, live.hello?.images_class, jobs.entries.map(({job}) => job));
  form.setFull(fullText(now));
}

function generate() {
  if (form.check()) return;
  const {items, mask} = form.references.used();
  const tooMuch = oversize(items, mask);
  if (tooMuch) {
    form.showProblem({field: 'references', message: tooMuch});
    return;
  }
  const values = form.read();
  form.rememberModel();
  send(fields(values, form.able), form.able, {form: values, references: items.map((item) => ({...item})), mask});
}

function send(asked, able, source) {
  const entry = jobs.start(asked, able, source, (signal) => withBytes(source.references, signal));
  entry.able = able;
  tiles.get(entry).element.scrollIntoView({block: 'nearest'});
}

/** The same request once more, as it was: the form may have changed since. */
function retry(entry) {
  const {job: {asked}, source} = entry;
  const able = entry.able ?? abilities(modelById(asked.model) ?? null);
  form.clearProblems();
  if (jobs.entries.includes(entry)) jobs.remove(entry);
  send(asked, able, source);
}

function oversize(items, mask) {
  const most = live.hello?.max_request_bytes;
  const sum = [...items.map(({blob}) => blob), mask].reduce((total, blob) => total + (blob?.size ?? 0), 0);
  if (!most || sum <= most) return null;
  return `The references have ${bytes(sum)} together; the gateway takes ${bytes(most)}. Use smaller or fewer ones.`;
}

/** References of the store are fetched when they are sent. */
function withBytes(references, signal) {
  return Promise.all(references.map(async ({name, blob, stored}) => {
    if (blob) return {name, blob};
    const response = await fetch(`/ui/images/${stored}`, {signal}).catch(() => null);
    if (response?.ok) return {name, blob: await response.blob()};
    throw new ApiError(response?.status === 404 ? `The reference ${name} is not in the store any more. Remove it, or add another.`
      : `The reference ${name} could not be loaded from the gateway.`, {status: response?.status ?? 400});
  }));
}

/** A picture of this page again: its references are still at hand. */
function again(entry, settings, run) {
  const {source} = entry;
  if (!source) {
    makeAgain({...settings, references: entry.job.references, mask: entry.job.mask}, {run});
    return;
  }
  const {form: values} = formOf(settings, imageModels().map(({id}) => id));
  form.references.replace(source.references.map((item, index) => ({...item, mask: index ? null : source.mask})));
  form.note();
  form.fill(values);
  if (run) form.element.requestSubmit();
  else form.controls.prompt.focus();
}

/** What another place hands over. */
async function take({reference, settings, run}) {
  if (!imageModels().length) await loadModels();
  if (reference) {
    form.references.addStored(reference);
    toast('Added to the references.');
    return;
  }
  // The files of an edit may still be at hand.
  const entry = jobs.entries.find(({job, source}) => source && job.id === settings.request_id);
  if (entry) {
    again(entry, settings, run);
    return;
  }
  const {form: values, references, missing} = formOf(settings, imageModels().map(({id}) => id));
  form.references.replace([]);
  for (const name of references) form.references.addStored(name);
  form.fill(values);
  form.note(...missing);
  form.clearProblems();
  if (run && !missing.length) form.element.requestSubmit();
  else form.controls.prompt.focus();
}
