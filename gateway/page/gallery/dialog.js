// The dialog `Picture`: one picture large, how it was made, and what can be done with it.
import {api, ApiError} from '../api.js';
import {copyText} from '../copy.js';
import {alertBox, h, icon, setText} from '../dom.js';
import {makeAgain, useAsReference} from '../make/handoff.js';
import {dateTime} from '../format.js';
import {rows} from './details.js';
import {isStoreName, madeAt} from './query.js';
import {curl, javascript, python} from './snippets.js';
import {pictureStage} from './stage.js';

const COPIED_MS = 2_000;

export class PictureDialog {
  #actions;
  #stage;
  #name = null;
  #settings = null;
  #abort = null;
  #toasts = document.getElementById('toasts');

  /** `actions`: `neighbour(name, by)` → name or null (a promise), `item(name)`, `place(name)` → `{index, count}`, `go(name)`, `remove(name)`, `closed(name)`. */
  constructor(actions) {
    this.#actions = actions;
    this.#stage = pictureStage({step: (by) => this.#step(by), zoomed: (on) => this.#zoomed(on)});
    this.#build();
    this.dialog.addEventListener('close', () => this.#closed());
    this.dialog.addEventListener('keydown', (event) => this.#key(event));
  }

  #build() {
    this.position = h('p.note.picture-position');
    this.previous = iconButton('Previous picture', 'previous', () => this.#step(-1));
    this.next = iconButton('Next picture', 'next', () => this.#step(1));
    this.zoomButton = iconButton('Actual size', 'zoomIn', () => this.#stage.zoom(!this.#stage.isZoomed));
    this.zoomButton.setAttribute('aria-pressed', 'false');
    this.said = h('p.visually-hidden', {role: 'status'});
    this.alerts = h('div.alerts');
    this.prompt = h('div.picture-prompt');
    this.buttons = h('div.picture-buttons');
    this.details = h('dl.picture-details');
    this.panel = h('div.picture-panel', {}, this.alerts, this.prompt, this.buttons, this.details, this.said);
    this.dialog = h('dialog.picture', {'aria-label': 'Picture', tabindex: -1},
      h('div.picture-bar', {}, this.previous, this.next, this.position, this.zoomButton,
        iconButton('Close', 'cancel', () => this.dialog.close())),
      this.#stage.stage, this.panel);
  }

  get isOpen() {
    return this.dialog.open;
  }

  get name() {
    return this.#name;
  }

  /** Shows this picture. */
  open(name) {
    if (!this.dialog.open) {
      this.dialog.showModal();
      // No button is meant first, and arrow keys work at once.
      this.dialog.focus();
      // Everything outside an open dialog is out of reach: a way back from a deletion has to be in it.
      this.dialog.append(this.#toasts);
    }
    if (name === this.#name) return;
    this.#name = name;
    this.#settings = null;
    this.alerts.replaceChildren();
    this.dialog.classList.remove('missing');
    this.#stage.clear();
    this.#drawPosition();
    if (!isStoreName(name)) {
      this.#drawMissing();
      return;
    }
    const item = this.#actions.item(name);
    this.#stage.show({name, label: item?.prompt || `Picture of ${dateTime(madeAt(name))}`, thumbnail: Boolean(item?.thumbnail)});
    this.zoomButton.disabled = false;
    this.#draw({prompt: item?.prompt, model: item?.model}, false);
    this.#load(name);
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  #closed() {
    const name = this.#name;
    this.#abort?.abort();
    this.#name = null;
    this.#settings = null;
    this.#stage.clear();
    document.body.append(this.#toasts);
    this.#actions.closed(name);
  }

  async #load(name) {
    this.#abort?.abort();
    this.#abort = new AbortController();
    const {signal} = this.#abort;
    try {
      const settings = await api(`/v1/gateway/images/${name}`, {signal});
      if (signal.aborted) return;
      this.#settings = settings;
      this.alerts.replaceChildren();
      this.#draw(settings, true);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status === 404) this.#drawMissing();
      else this.#alert(error, [h('button', {type: 'button', onclick: () => this.#load(name)}, icon('repeat'), 'Try again')]);
    }
  }

  /** A picture may be listed after it was opened. */
  refresh() {
    if (this.isOpen) this.#drawPosition();
  }

  #drawPosition() {
    const {index, count} = this.#actions.place(this.#name);
    this.previous.disabled = index <= 0;
    this.next.disabled = index < 0 || index >= count - 1;
    // A button that became disabled has lost the focus, and keys with it.
    if (this.dialog.open && (document.activeElement === document.body || document.activeElement?.disabled)) this.dialog.focus();
    setText(this.position, index < 0 ? '' : `${(index + 1).toLocaleString()} of ${count.toLocaleString()}`);
  }

  #drawMissing() {
    this.#stage.clear('This picture is not here. It was deleted, or it was made with another token.');
    this.dialog.classList.add('missing');
    this.zoomButton.disabled = true;
    this.prompt.replaceChildren();
    this.buttons.replaceChildren();
    this.details.replaceChildren();
  }

  #draw(settings, whole) {
    const {prompt, negative_prompt: negative, references = []} = settings;
    this.prompt.replaceChildren(...[
      prompt ? h('p.prompt', {dir: 'auto'}, prompt) : h('p.note', {}, whole ? 'The prompt was not kept.' : 'Loading…'),
      prompt && this.#copyButton('Copy prompt', () => prompt, {quiet: true}),
      negative && h('div', {}, h('h3', {}, 'Negative prompt'), h('p.prompt', {dir: 'auto'}, negative)),
      references.length > 0 && h('div', {}, h('h3', {}, 'References'), h('ul.picture-references', {}, references.map(reference))),
    ].filter(Boolean));
    this.#drawButtons(settings, whole);
    this.details.replaceChildren(...(whole ? rows(settings) : []).map(({label, value, asked}) => h('div', {},
      h('dt', {}, label),
      h('dd', {}, h('span', {dir: 'auto'}, value), asked != null && h('span.asked', {dir: 'auto'}, `${value ? ' ' : ''}requested: ${asked}`)))));
  }

  #drawButtons(settings, whole) {
    const name = this.#name;
    // Without a prompt there is nothing to ask for anew.
    const off = !whole || !settings.prompt;
    const address = () => `${location.origin}/ui/images/${name}`;
    const copy = (label, text, disabled) => this.#copyButton(label, text, {disabled});
    const focused = this.buttons.contains(document.activeElement) ? document.activeElement.textContent : null;
    this.buttons.replaceChildren(
      h('button.primary', {type: 'button', disabled: off, onclick: () => this.#leave(() => makeAgain(this.#settings, {run: true}))}, icon('repeat'), 'Make again'),
      h('button', {type: 'button', onclick: () => this.#leave(() => useAsReference(name))}, icon('add'), 'Use as reference'),
      h('a.button', {href: `/ui/images/${name}`, download: name}, icon('download'), 'Download'),
      h('button.danger', {type: 'button', onclick: () => this.#remove(name)}, icon('clear'), 'Delete'),
      copy('Copy address', address, false),
      copy('Copy as curl', () => curl(settings, location.origin), off),
      copy('Copy as Python', () => python(settings, location.origin), off),
      copy('Copy as JavaScript', () => javascript(settings, location.origin), off),
    );
    if (focused) [...this.buttons.children].find((button) => button.textContent === focused)?.focus();
  }

  #copyButton(label, text, {disabled = false, quiet = false}) {
    const button = h(quiet ? 'button.quiet' : 'button', {type: 'button', disabled, onclick: () => this.#copy(button, text())}, icon('copy'), label);
    return button;
  }

  async #copy(button, text) {
    if (!await copyText(text, this.dialog)) {
      this.#alert(new Error('The browser did not allow copying. Allow this page to use the clipboard, or mark the text and copy it.'));
      return;
    }
    button.querySelector('svg').replaceWith(icon('check'));
    this.said.textContent = 'Copied';
    setTimeout(() => {
      button.querySelector('svg').replaceWith(icon('copy'));
      this.said.textContent = '';
    }, COPIED_MS);
  }

  #remove(name) {
    this.#actions.remove(name);
    this.close();
  }

  /** Goes to another place with this picture. */
  async #leave(handOff) {
    try {
      await handOff();
    } catch (error) {
      this.#alert(error);
    }
  }

  #alert(error, extra) {
    this.alerts.replaceChildren(alertBox(error, extra));
  }

  #zoomed(on) {
    this.zoomButton.setAttribute('aria-pressed', String(on));
  }

  async #step(by) {
    const name = this.#name;
    const next = await this.#actions.neighbour(name, by);
    if (!next || this.#name !== name) return;
    this.#actions.go(next);
    // The focus stays, so that nothing else would tell.
    this.said.textContent = [this.position.textContent, this.#actions.item(next)?.prompt].filter(Boolean).join(': ');
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key === 'Delete' && this.buttons.childElementCount) {
      event.preventDefault();
      this.#remove(this.#name);
    }
    // In its own size, arrows move the picture.
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by || this.#stage.isZoomed) return;
    event.preventDefault();
    this.#step(by);
  }
}

function iconButton(label, name, onclick) {
  return h('button.quiet.square', {type: 'button', 'aria-label': label, title: label, onclick}, icon(name));
}

function reference(name) {
  if (!isStoreName(name)) return h('li', {}, h('span', {dir: 'auto'}, name));
  const picture = h('img', {src: `/ui/thumbnails/${name}`, alt: '', width: 64, height: 64, loading: 'lazy'});
  picture.addEventListener('error', () => { picture.src = `/ui/images/${name}`; }, {once: true});
  return h('li', {}, h('a', {href: `#gallery/${name}`, 'aria-label': `Reference of ${dateTime(madeAt(name))}`}, picture));
}
