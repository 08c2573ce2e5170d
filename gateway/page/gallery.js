// The place Gallery: the pictures of this token, newest first.
import {api} from './api.js';
import {alertBox, h, icon, toast} from './dom.js';
import {live} from './live.js';
import {deleteLater} from './gallery/deletions.js';
import {PictureDialog} from './gallery/dialog.js';
import {filterBar} from './gallery/filter.js';
import {PictureGrid} from './gallery/grid.js';
import {MOST_PICTURES} from './gallery/layout.js';
import {PictureList} from './gallery/list.js';
import {isFiltering, isStoreName, newerFirst} from './gallery/query.js';

const list = new PictureList((query, signal) => api(`/v1/gateway/images?${query}`, {signal}), changed);
const filter = filterBar((value) => {
  fresh = null;
  scrollTo({top: 0, behavior: 'instant'});
  list.restart(value);
});
const grid = new PictureGrid(list, {open: (name) => { followed = name; }, remove, scrolled});
const dialog = new PictureDialog({neighbour, item, place, go, remove, closed});
const alerts = h('div.alerts.gallery-alerts');
const empty = h('div.empty', {hidden: true});
const newer = h('button.gallery-newer', {type: 'button', hidden: true, onclick: showNewer});
const end = h('p.note.gallery-end', {hidden: true}, `These are the newest ${MOST_PICTURES.toLocaleString()} pictures. Choose a day to see older ones.`);

let section = null;
let isShown = false;
let scrollTop = 0;
/** The picture whose link was followed here: closing it is a step back. */
let followed = null;
/** New pictures that wait for the person to come back to the top; `null`: none, `'many'`: ask anew. */
let fresh = null;
let asking = null;
/** Something may have come while nobody looked. */
let isStale = false;
/** Where the focus goes when the dialog closes because its picture was deleted. */
let neighbourIndex = null;
/** The picture whose link gets the focus when the dialog is closed. */
let returnTo = null;
const seenJobs = new Set();

export function mount(root) {
  section = root;
  root.append(h('h1.visually-hidden', {}, 'Gallery'), filter.bar, alerts, newer, grid.element, empty, end, dialog.dialog);
  live.on('jobs', jobsChanged);
  live.on('state', (state) => {
    if (state !== 'open') return;
    // The connection was lost: pictures may have come, and what failed may work now.
    list.retry();
    askNewer();
  });
  list.restart(filter.value());
}

export function show(argument) {
  const wasShown = isShown;
  isShown = true;
  if (!wasShown) {
    grid.show();
    scrollTo({top: scrollTop, behavior: 'instant'});
    if (isStale) askNewer();
  }
  if (argument === null) {
    dialog.close();
    // A step back to `#gallery` takes the focus to the section of that name: it is taken back at once, or in the next frame.
    focusReturn();
    requestAnimationFrame(() => {
      if (document.activeElement === document.body) focusReturn();
      returnTo = null;
    });
    return;
  }
  if (followed !== argument) followed = null;
  dialog.open(argument);
  // The pictures beside it, if it is older than what is loaded.
  reach(argument);
}

export function hide() {
  scrollTop = scrollY;
  isShown = false;
  grid.hide();
  dialog.close();
}

function changed() {
  if (!section) return;
  filter.offer([...new Set(list.items.slice(-200).map(({model}) => model))]);
  drawError();
  drawEmpty();
  end.hidden = !list.isCut;
  const {count} = list;
  const words = isFiltering(list.filter) ? (count === 1 ? 'picture matches' : 'pictures match') : (count === 1 ? 'picture' : 'pictures');
  filter.say(list.error && !count ? '' : count ? `${list.total.toLocaleString()} ${words}` : isFiltering(list.filter) ? `No ${words}` : '');
  grid.update();
  dialog.refresh();
  if (dialog.isOpen) reach(dialog.name);
}

function drawError() {
  if (!list.error) {
    alerts.querySelector('.of-list')?.remove();
    return;
  }
  const again = h('button', {type: 'button', onclick: () => list.retry()}, icon('repeat'), 'Try again');
  const box = alertBox(list.error, [again]);
  box.classList.add('of-list');
  alerts.querySelector('.of-list')?.remove();
  alerts.append(box);
}

function drawEmpty() {
  empty.hidden = !list.ready || list.count > 0 || Boolean(list.error);
  if (empty.hidden) return;
  empty.replaceChildren(...(isFiltering(list.filter)
    ? [h('p', {}, 'No pictures match this filter.'), h('button', {type: 'button', onclick: filter.reset}, 'Show all')]
    : [h('p', {}, 'No pictures yet. Pictures made here or through the API appear in the gallery.'),
      h('a.button', {href: '#make'}, 'Make a picture')]));
}

// New pictures

function jobsChanged(jobs) {
  const done = jobs.filter(({state, pictures}) => state === 'done' && pictures?.length);
  const isNew = done.some(({id}) => !seenJobs.has(id));
  seenJobs.clear();
  for (const {id} of done) seenJobs.add(id);
  if (isNew) askNewer();
}

async function askNewer() {
  if (!list.ready || list.error) return;
  if (!isShown) {
    isStale = true;
    return;
  }
  isStale = false;
  // One at a time; what comes meanwhile is asked for behind it.
  if (asking) {
    asking.again = true;
    return;
  }
  const own = asking = {again: false};
  try {
    fresh = await list.newer() ?? 'many';
  } catch {
    // The next picture, or the next connection, asks again.
  }
  asking = null;
  drawNewer();
  if (own.again) askNewer();
}

/** At the top they appear; further down nothing moves, and a button tells. */
function drawNewer() {
  const count = fresh === 'many' ? fresh : fresh?.length ?? 0;
  if (count && isAtTop()) {
    showNewer();
    return;
  }
  newer.hidden = !count;
  if (count) newer.textContent = count === 'many' ? 'Many new pictures' : count === 1 ? '1 new picture' : `${count} new pictures`;
}

const isAtTop = () => scrollY < 120;

function showNewer(event) {
  const items = fresh;
  fresh = null;
  newer.hidden = true;
  if (items === 'many') list.restart(list.filter);
  else if (items) list.prepend(items);
  if (!event) return;
  scrollTo({top: 0, behavior: 'instant'});
  grid.focusIndex(0);
}

function scrolled() {
  if (fresh && isAtTop()) showNewer();
}

// The dialog's pictures

function item(name) {
  return list.items[list.indexOf(name)];
}

function place(name) {
  return {index: list.indexOf(name), count: list.count};
}

async function neighbour(name, by) {
  const index = list.indexOf(name);
  if (index < 0) return null;
  if (index + by >= list.items.length && !list.complete) await list.reach(index + by);
  return list.items[list.indexOf(name) + by]?.name ?? null;
}

/** Loads the pictures up to this one; called again with each page that comes. */
function reach(name) {
  const last = list.items.at(-1)?.name;
  if (!last || !isStoreName(name) || list.error || newerFirst(last, name) >= 0) return;
  list.reach(list.items.length + 150);
}

/** From picture to picture without a step in the history for each. */
function go(name) {
  history.replaceState(history.state, '', `#gallery/${name}`);
  if (followed) followed = name;
  dialog.open(name);
}

function closed(name) {
  const isHere = location.hash.startsWith('#gallery/');
  const isStepBack = isHere && followed === name;
  if (isStepBack) history.back();
  else if (isHere) history.replaceState(history.state, '', '#gallery');
  followed = null;
  if (!isShown) return;
  const index = neighbourIndex ?? list.indexOf(name);
  neighbourIndex = null;
  grid.focusIndex(index);
  if (isStepBack) returnTo = list.items[index]?.name ?? null;
}

function focusReturn() {
  if (returnTo && isShown && !dialog.isOpen) grid.focusIndex(list.indexOf(returnTo));
}

// Deleting

function remove(name) {
  const index = list.indexOf(name);
  const hadFocus = grid.ul.contains(document.activeElement);
  deleteLater(name, {
    hide: () => list.hide(name),
    restored: () => {
      if (isShown && !dialog.isOpen) grid.focusIndex(list.indexOf(name));
    },
    done: () => list.forget(name),
    failed: (error) => tell(`The picture was not deleted. ${error.message}`),
  });
  const next = Math.min(index, list.items.length - 1);
  if (dialog.isOpen) neighbourIndex = next;
  else if (hadFocus) grid.focusIndex(next);
}

function tell(message) {
  if (!isShown) toast(message, {seconds: 15});
  const box = dialog.isOpen ? dialog.alerts : alerts;
  box.append(alertBox({message}));
  // The gateway is away, and many were deleted: the last ones tell enough.
  if (box.children.length > 3) box.firstChild.remove();
}
