// Small things that several panels of the place Status are made of.
import {copyText} from '../copy.js';
import {h, icon, setText, toast} from '../dom.js';

/** Runs `build` only when what it is built from has changed, so that open disclosures and the focus stay. */
export function rebuilt(element, from, build) {
  const key = JSON.stringify(from) ?? '';
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...[build()].flat().filter(Boolean));
}

/** A meter whose text beside it says the same in words. */
export function meter(share, kind = '') {
  const fill = h('span.meter-fill');
  fill.style.width = `${Math.min(1, Math.max(0, share)) * 100}%`;
  return h(`span.meter${kind && `.${kind}`}`, {'aria-hidden': 'true'}, fill);
}

/** Slots of a limit: one box each while they can be counted at a glance. */
export function slotsMeter({limit, inflight}) {
  if (limit > 12 || limit < 1) return meter(limit ? inflight / limit : 0);
  return h('span.slot-boxes', {'aria-hidden': 'true'},
    Array.from({length: limit}, (_, nth) => h(nth < inflight ? 'span.taken' : 'span')));
}

export function termList(entries) {
  return h('dl.terms', {}, entries.map(([term, text]) => h('div', {}, h('dt', {}, term), h('dd', {dir: 'auto'}, text))));
}

export function reason(kind, text) {
  return h(`li.${kind}`, {dir: 'auto'}, icon('warning'), h('span', {}, text));
}

/** A disclosure whose summary can change without closing it. */
export function disclosure(name) {
  const summary = h('summary', {}, name);
  const body = h('div.disclosed');
  return {root: h('details', {}, summary, body), body, name: (text) => setText(summary, text)};
}

export function copyButton(text, what) {
  return h('button.quiet.copy', {type: 'button', 'aria-label': `Copy ${what} ${text}`, onclick: () => copy(text, what)}, icon('copy'));
}

async function copy(text, what) {
  const done = await copyText(text, document.body);
  toast(done ? `Copied the ${what}.` : `This browser does not let the page copy. The ${what} is ${text}`);
}
