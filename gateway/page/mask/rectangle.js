// A rectangle that is placed by arrows, numbers or a pointer, and painted when it is applied.
import {h, icon} from '../dom.js';
import {clampRectangle, newRectangle, nudge} from './geometry.js';

const FIELDS = [['left', 'Left'], ['top', 'Top'], ['width', 'Width'], ['height', 'Height']];
/** A key held down is not announced each time. */
const ANNOUNCE_MS = 250;

export class RectangleTool {
  /** Null while there is none. */
  value = null;
  #timer = null;

  /** `apply` gets the rectangle; `announce` is read to people who cannot see it. */
  constructor(surface, {apply, announce, changed}) {
    Object.assign(this, {surface, apply, announce, changed});
    this.inputs = FIELDS.map(([key, name]) => h('input', {
      type: 'number', id: `mask-${key}`, inputmode: 'numeric', step: 1, min: key === 'left' || key === 'top' ? 0 : 1,
      'aria-label': name, onchange: () => this.#typed(),
    }));
    this.form = h('form.mask-rectangle', {hidden: true, 'aria-label': 'Rectangle in pixels', onsubmit: (event) => {
      event.preventDefault();
      this.applyNow();
    }},
    FIELDS.map(([key, name], nth) => h('div.field', {}, h('label', {for: `mask-${key}`}, name), this.inputs[nth])),
    h('button', {}, icon('check'), 'Apply'),
    h('button.quiet', {type: 'button', onclick: () => this.close()}, 'Drop'));
    this.box = h('div.mask-box', {
      hidden: true, tabindex: 0, role: 'application', 'aria-roledescription': 'movable rectangle', 'aria-label': 'Rectangle',
      'aria-description': 'Arrow keys move it, with Shift they size it, with Alt by single pixels. Enter applies it.',
    }, h('span.mask-handle'));
    surface.stage.append(this.box);
    this.#listen();
  }

  open() {
    const {view, viewport, picture} = this.surface;
    this.value ??= newRectangle(view, viewport, picture);
    this.form.hidden = this.box.hidden = false;
    this.#show();
    this.changed(true);
    this.box.focus();
    this.#say();
  }

  close() {
    if (!this.value) return;
    clearTimeout(this.#timer);
    this.value = null;
    this.form.hidden = this.box.hidden = true;
    this.changed(false);
  }

  /** The view has changed. */
  place() {
    if (!this.value) return;
    const {scale} = this.surface.view;
    for (const [key, side] of Object.entries({left: 'left', top: 'top', width: 'width', height: 'height'})) {
      this.box.style[side] = `${this.value[key] * scale}px`;
    }
  }

  #show() {
    const {picture} = this.surface;
    FIELDS.forEach(([key], nth) => {
      this.inputs[nth].value = this.value[key];
      this.inputs[nth].max = key === 'left' || key === 'width' ? picture.width : picture.height;
    });
    this.place();
  }

  #set(value) {
    this.value = clampRectangle(value, this.surface.picture);
    this.#show();
  }

  #typed() {
    if (!this.value) return;
    const value = Object.fromEntries(FIELDS.map(([key], nth) => [key, this.inputs[nth].valueAsNumber]));
    for (const key of Object.keys(value)) if (Number.isNaN(value[key])) value[key] = this.value[key];
    this.#set(value);
  }

  applyNow() {
    this.#typed();
    const {value} = this;
    if (!value) return;
    this.close();
    this.apply(value);
  }

  #say() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const {left, top, width, height} = this.value;
      this.announce(`Rectangle: left ${left}, top ${top}, width ${width}, height ${height}`);
    }, ANNOUNCE_MS);
  }

  #listen() {
    this.box.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey) return;
      const moved = nudge(this.value, event, this.surface.picture);
      if (moved) {
        this.#set(moved);
        this.#say();
      } else if (event.key === 'Enter') {
        this.applyNow();
      } else {
        return;
      }
      // With Alt, arrows go back in the history of the browser.
      event.preventDefault();
      event.stopPropagation();
    });
    let grip = null;
    this.box.addEventListener('pointerdown', (event) => {
      if (event.button) return;
      event.stopPropagation();
      this.box.setPointerCapture(event.pointerId);
      grip = {at: this.surface.at(event), value: this.value, sizes: event.target !== this.box};
    });
    this.box.addEventListener('pointermove', (event) => {
      event.stopPropagation();
      this.surface.showRing(null);
      if (grip) this.#drag(grip, this.surface.at(event));
    });
    for (const type of ['pointerup', 'pointercancel']) this.box.addEventListener(type, () => { grip = null; });
  }

  #drag({at, value, sizes}, point) {
    const [x, y] = [point.x - at.x, point.y - at.y];
    if (!sizes) return this.#set({...value, left: value.left + x, top: value.top + y});
    const {picture} = this.surface;
    return this.#set({...value, width: Math.min(value.width + x, picture.width - value.left), height: Math.min(value.height + y, picture.height - value.top)});
  }
}
