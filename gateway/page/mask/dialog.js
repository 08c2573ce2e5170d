// The dialog around the surface: tools, history, and what becomes of the mask.
import {h, icon, setText} from '../dom.js';
import {exportMask} from './export.js';
import {brushSizes, usualSize} from './geometry.js';
import {History} from './history.js';
import {RectangleTool} from './rectangle.js';
import {Surface} from './surface.js';

const HINT = 'Paint over what should change. The rest stays as it is.';
const EMPTY = 'Nothing is painted yet. Paint over what should change.';
const ESCAPE_MS = 4000;

export class MaskDialog {
  #escaped = 0;
  #busy = false;

  /** `earlier` is a mask made before, as an image; `finish` gets what comes of it. */
  constructor(image, earlier, finish) {
    this.finish = finish;
    this.history = new History(earlier && {kind: 'mask', image: earlier});
    this.surface = new Surface(image);
    this.sizes = brushSizes(this.surface.picture);
    this.status = h('p.mask-status', {role: 'status'}, HINT);
    this.rectangle = new RectangleTool(this.surface, {
      apply: (value) => {
        const {erase} = this.surface;
        this.#add({kind: 'rectangle', erase, ...value}, erase ? 'The rectangle is erased.' : 'The rectangle is painted.');
      },
      announce: (text) => this.say(text),
      changed: (open) => {
        this.rectangleButton.setAttribute('aria-pressed', open);
        if (!open && this.root.open) this.rectangleButton.focus();
      },
    });
    this.root = h('dialog.mask', {'aria-labelledby': 'mask-title'},
      this.#head(Boolean(earlier)), this.#tools(), this.rectangle.form, this.surface.root);
    this.#listen();
    this.#setSize(usualSize(this.sizes, this.surface.picture));
    this.#changed();
  }

  open() {
    document.body.append(this.root);
    this.root.showModal();
    this.surface.fit();
    this.surface.redraw(this.history.operations);
    this.surface.root.focus();
  }

  close() {
    this.rectangle.close();
    this.root.close();
    this.root.remove();
    this.surface.destroy();
  }

  say(text) {
    setText(this.status, text);
  }

  #head(hasEarlier) {
    this.use = h('button.primary', {type: 'button', onclick: () => this.#use()}, 'Use mask');
    return h('div.mask-head', {},
      h('h2', {id: 'mask-title'}, 'Paint mask'), this.status,
      hasEarlier && h('button.quiet', {type: 'button', onclick: () => this.finish('clear')}, 'Remove mask'),
      h('button', {type: 'button', onclick: () => this.finish(null)}, 'Cancel'), this.use);
  }

  #tools() {
    const tool = (name, symbol, onclick, title) => h('button', {type: 'button', onclick, title}, symbol && icon(symbol), name);
    const small = (name, symbol, onclick, title) => h('button.square', {type: 'button', onclick, 'aria-label': name, title: title ?? name}, icon(symbol));
    this.brush = tool('Brush', 'brush', () => this.#choose(false));
    this.eraser = tool('Eraser', 'eraser', () => this.#choose(true));
    this.rectangleButton = tool('Rectangle', 'rectangle', () => this.rectangle.open());
    this.undoButton = small('Undo', 'undo', () => this.#undo(), 'Undo (Ctrl+Z)');
    this.redoButton = small('Redo', 'redo', () => this.#redo(), 'Redo (Ctrl+Shift+Z)');
    const clear = h('button.mask-clear', {type: 'button', 'aria-label': 'Clear', title: 'Clear', onclick: () => this.#add({kind: 'clear'}, 'Cleared.')},
      icon('clear'), h('span', {}, 'Clear'));
    this.slider = h('input', {type: 'range', id: 'mask-size', min: 0, max: this.sizes.length - 1, step: 1, title: '[ and ]',
      oninput: () => this.#setSize(Number(this.slider.value), true)});
    this.sizeText = h('span.mask-size-text', {'aria-hidden': 'true'});
    return h('div.mask-tools', {role: 'group', 'aria-label': 'Tools'},
      h('div.mask-group', {}, this.brush, this.eraser, this.rectangleButton),
      h('div.mask-group.mask-size', {}, h('label', {for: 'mask-size'}, 'Size'), this.slider, this.sizeText),
      h('div.mask-group', {}, this.undoButton, this.redoButton, clear, tool('Invert', null, () => this.#add({kind: 'invert'}, 'Inverted.'))),
      h('div.mask-group', {}, small('Zoom out', 'zoomOut', () => this.surface.zoom(1 / 1.5)), small('Zoom in', 'zoomIn', () => this.surface.zoom(1.5)),
        tool('Fit', null, () => this.surface.fit())));
  }

  #listen() {
    const {surface} = this;
    surface.onstroke = (stroke) => {
      if (stroke) this.#add(stroke, HINT, true);
      else surface.redraw(this.history.operations);
    };
    surface.onview = () => this.rectangle.place();
    this.root.addEventListener('keydown', (event) => this.#key(event));
    this.root.addEventListener('cancel', (event) => {
      event.preventDefault();
      this.#escape();
    });
    // Browsers may close it without asking when Escape is pressed twice.
    this.root.addEventListener('close', () => this.finish(null));
    this.#choose(false);
  }

  #choose(erase) {
    this.surface.erase = erase;
    this.brush.setAttribute('aria-pressed', !erase);
    this.eraser.setAttribute('aria-pressed', erase);
  }

  #setSize(nth, isSeen = false) {
    const place = Math.min(Math.max(nth, 0), this.sizes.length - 1);
    this.surface.size = this.sizes[place];
    this.slider.value = place;
    this.slider.setAttribute('aria-valuetext', `${this.surface.size} pixels`);
    setText(this.sizeText, `${this.surface.size} px`);
    if (!isSeen) return;
    const {width, height} = this.surface.viewport;
    this.surface.showRing({x: width / 2, y: height / 2});
  }

  #add(operation, text, isDrawn = false) {
    if (this.history.isFull) {
      this.say('This mask has as many strokes as it can hold. Use it, then paint on from there.');
      this.surface.redraw(this.history.operations);
      return;
    }
    this.history.add(operation);
    if (!isDrawn) this.surface.draw(operation);
    this.#changed();
    this.say(text);
  }

  #undo() {
    if (this.surface.isPainting || !this.history.undo()) return;
    this.surface.redraw(this.history.operations);
    this.#changed();
    this.say('Undone.');
  }

  #redo() {
    const operation = this.surface.isPainting ? null : this.history.redo();
    if (!operation) return;
    this.surface.draw(operation);
    this.#changed();
    this.say('Redone.');
  }

  /** A button that is used up keeps the focus: `disabled` would lose it. */
  #changed() {
    this.undoButton.setAttribute('aria-disabled', !this.history.canUndo);
    this.redoButton.setAttribute('aria-disabled', !this.history.canRedo);
  }

  #key(event) {
    const isTyping = event.target.matches('input[type=number]');
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !isTyping) {
      const key = event.key.toLowerCase();
      if (key !== 'z' && key !== 'y') return;
      event.preventDefault();
      if (key === 'y' || event.shiftKey) this.#redo();
      else this.#undo();
    } else if ((event.key === '[' || event.key === ']') && !isTyping) {
      this.#setSize(this.sizes.indexOf(this.surface.size) + (event.key === ']' ? 1 : -1), true);
      event.preventDefault();
    }
  }

  /** Takes back the rectangle first; then asks once, since what was painted would be lost. */
  #escape() {
    if (this.rectangle.value) {
      this.rectangle.close();
    } else if (!this.history.canUndo || Date.now() - this.#escaped < ESCAPE_MS) {
      this.finish(null);
    } else {
      this.#escaped = Date.now();
      this.say('Press Escape again to discard what you painted.');
    }
  }

  async #use() {
    if (this.#busy) return;
    this.#busy = true;
    // Nobody places a rectangle for nothing.
    this.rectangle.applyNow();
    this.say('Making the mask …');
    try {
      const mask = await exportMask(this.history.operations, this.surface.picture);
      if (mask) this.finish(mask);
      else this.say(EMPTY);
    } catch (error) {
      this.say(`The mask could not be made: ${error.message}`);
    } finally {
      this.#busy = false;
    }
  }
}
