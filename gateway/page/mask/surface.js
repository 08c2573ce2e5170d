// The picture with the layer that is painted, zoomed and moved. What a pointer does to them.
import {h} from '../dom.js';
import {addPoint, arrow, clampView, fit, pinch, toPicture, workScale, zoomAt} from './geometry.js';
import {draw, replay, stroke} from './paint.js';

/** As on the screen; the mask itself has no colour. */
const COLOR = '#ff2d8f';
/** A second finger that soon follows means to zoom: what the first began is taken back. */
const BRIEF_POINTS = 24;
const PAN_STEP = 64;

export class Surface {
  erase = false;
  size = 1;
  /** Called with a finished stroke. */
  onstroke = () => {};
  onview = () => {};
  #pointers = new Map();
  #stroke = null;
  #pan = false;
  #space = false;
  /** As large as fits: stays so when the viewport changes. */
  #isWhole = true;

  constructor(image) {
    this.picture = {width: image.naturalWidth, height: image.naturalHeight};
    this.scale = workScale(this.picture);
    this.canvas = h('canvas', {width: Math.ceil(this.picture.width * this.scale), height: Math.ceil(this.picture.height * this.scale)});
    this.context = this.canvas.getContext('2d');
    this.stage = h('div.mask-stage', {}, image, this.canvas);
    this.ring = h('div.mask-ring', {hidden: true});
    this.root = h('div.mask-view', {tabindex: 0, role: 'group', 'aria-label': 'Picture, arrow keys move what is seen'}, this.stage, this.ring);
    this.#listen();
    this.observer = new ResizeObserver(() => this.#resized());
    this.observer.observe(this.root);
  }

  get viewport() {
    return {width: this.root.clientWidth, height: this.root.clientHeight};
  }

  get isPainting() {
    return this.#stroke !== null;
  }

  destroy() {
    this.observer.disconnect();
    // Safari keeps canvases for long.
    this.canvas.width = 0;
  }

  redraw(operations) {
    this.#prepare();
    replay(this.context, operations, this.picture);
  }

  draw(operation) {
    this.#prepare();
    draw(this.context, operation, this.picture);
  }

  fit() {
    this.#see(fit(this.picture, this.viewport));
    this.#isWhole = true;
  }

  zoom(factor, point = {x: this.viewport.width / 2, y: this.viewport.height / 2}) {
    this.#see(zoomAt(this.view, factor, point, this.picture, this.viewport));
  }

  pan(x, y) {
    this.#see(clampView({...this.view, x: this.view.x + x, y: this.view.y + y}, this.picture, this.viewport));
  }

  /** Where an event is, in pixels of the picture. */
  at(event) {
    return toPicture(this.view, this.#point(event));
  }

  showRing(point) {
    this.ring.hidden = !point;
    if (!point) return;
    const {style} = this.ring;
    style.width = style.height = `${this.size * this.view.scale}px`;
    style.transform = `translate(${point.x}px, ${point.y}px) translate(-50%, -50%)`;
  }

  #prepare() {
    this.context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    this.context.fillStyle = this.context.strokeStyle = COLOR;
  }

  #see(view) {
    this.view = view;
    this.#isWhole = false;
    const {style} = this.stage;
    style.width = `${this.picture.width * view.scale}px`;
    style.height = `${this.picture.height * view.scale}px`;
    style.transform = `translate(${view.x}px, ${view.y}px)`;
    this.onview(view);
  }

  #resized() {
    if (!this.viewport.width) return;
    if (this.view && !this.#isWhole) this.#see(clampView(this.view, this.picture, this.viewport));
    else this.fit();
  }

  #point({clientX, clientY}) {
    const box = this.root.getBoundingClientRect();
    return {x: clientX - box.left, y: clientY - box.top};
  }

  #listen() {
    const on = (type, handler, options) => this.root.addEventListener(type, handler.bind(this), options);
    on('pointerdown', this.#down);
    on('pointermove', this.#move);
    on('pointerup', this.#up);
    on('pointercancel', this.#up);
    on('pointerleave', () => this.showRing(null));
    on('wheel', this.#wheel, {passive: false});
    on('keydown', this.#key);
    on('keyup', ({key}) => { if (key === ' ') this.#holdSpace(false); });
    on('blur', () => this.#holdSpace(false));
  }

  #holdSpace(held) {
    this.#space = held;
    this.root.classList.toggle('panning', held);
  }

  #down(event) {
    if (event.button > 1 || !this.view) return;
    // The middle button would start to scroll.
    if (event.button === 1) event.preventDefault();
    this.root.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#point(event));
    if (this.#pointers.size === 2) {
      if (this.#stroke?.points.length < BRIEF_POINTS) this.#drop();
      else this.#finish();
    }
    this.#pan = this.#pointers.size > 1 || event.button === 1 || this.#space;
    if (!this.#pan) this.#begin(event);
  }

  #begin(event) {
    this.#stroke = {kind: 'stroke', erase: this.erase, size: this.size, points: []};
    this.#extend(this.at(event));
  }

  #move(event) {
    const point = this.#point(event);
    if (event.pointerType !== 'touch') this.showRing(this.#space ? null : point);
    if (!this.#pointers.has(event.pointerId)) return;
    if (this.#pan) {
      this.#drag(event.pointerId, point);
      return;
    }
    this.#pointers.set(event.pointerId, point);
    if (!this.#stroke) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.#extend(this.at(one));
  }

  /** One pointer moves the picture, two zoom it as well. */
  #drag(id, point) {
    const before = [...this.#pointers.values()];
    this.#pointers.set(id, point);
    const after = [...this.#pointers.values()];
    if (after.length === 1) {
      this.pan(after[0].x - before[0].x, after[0].y - before[0].y);
      return;
    }
    const [from, to] = [pinch(before), pinch(after)];
    this.zoom(to.distance / from.distance, from);
    this.pan(to.x - from.x, to.y - from.y);
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    this.#finish();
    if (!this.#pointers.size) this.#pan = false;
    if (event.pointerType === 'touch') this.showRing(null);
  }

  #extend(point) {
    const {points, erase} = this.#stroke;
    const from = points.length;
    if (!addPoint(points, point, Math.max(0.5, 1 / this.view.scale))) return;
    this.#prepare();
    this.context.globalCompositeOperation = erase ? 'destination-out' : 'source-over';
    stroke(this.context, this.#stroke, from);
    this.context.globalCompositeOperation = 'source-over';
  }

  #finish() {
    const done = this.#stroke;
    this.#stroke = null;
    if (done) this.onstroke(done);
  }

  #drop() {
    this.#stroke = null;
    this.onstroke(null);
  }

  #wheel(event) {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 16 : 1;
    if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(-event.deltaY * unit * 0.005), this.#point(event));
    else this.pan(-(event.shiftKey ? event.deltaX || event.deltaY : event.deltaX) * unit, event.shiftKey ? 0 : -event.deltaY * unit);
  }

  #key(event) {
    if (event.target !== this.root || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === ' ') this.#holdSpace(true);
    const way = arrow(event.key);
    if (way) this.pan(-way[0] * PAN_STEP, -way[1] * PAN_STEP);
    if (way || event.key === ' ') event.preventDefault();
  }
}
