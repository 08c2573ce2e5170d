// The list `Pictures`: of thousands only the rows near the viewport are in the document.
import {h} from '../dom.js';
import {dateTime, day as dayOf} from '../format.js';
import {cellPosition, cellRange, gridHeight, gridLayout, keyTarget} from './layout.js';
import {madeAt} from './query.js';

const GAP = 6;
/** Rows beyond the viewport, in viewports: what a turn of the wheel brings is there already. */
const AHEAD = 0.75;
/** Scrolling faster than this (viewports per frame) asks for no pictures: they would be gone before they come. */
const FAST = 0.5;
const SETTLED_MS = 90;

export class PictureGrid {
  #list;
  #actions;
  #layout = gridLayout(1, 1, GAP);
  #cells = new Map();
  #spare = [];
  #frame = null;
  #settle = null;
  #lastTop = 0;
  #offset = 0;
  #active = false;
  #sizes;
  #isResized = false;
  /** The index that the focus goes to when it is loaded. */
  #pending = null;
  /** What the document shows; null: to be drawn anew. */
  #drawn = null;

  /** `actions`: `open(name)` before a link is followed, `remove(name)`, `scrolled(atTop)`. */
  constructor(list, actions) {
    this.#list = list;
    this.#actions = actions;
    this.ul = h('ul.pictures', {'aria-label': 'Pictures', role: 'list'});
    this.label = h('p.gallery-day', {hidden: true});
    this.element = h('div.gallery-grid', {}, this.label, this.ul);
    this.ul.addEventListener('keydown', (event) => this.#key(event));
    this.ul.addEventListener('focusin', () => this.update());
    this.ul.addEventListener('click', (event) => {
      const link = event.target.closest('a');
      if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) actions.open(link.dataset.name);
    });
    // In the next frame: a size that is changed while sizes are told is an error of the page.
    this.#sizes = new ResizeObserver(() => {
      this.#isResized = true;
      this.#schedule();
    });
    this.#sizes.observe(this.ul);
    addEventListener('scroll', () => this.#schedule(), {passive: true});
    addEventListener('resize', () => this.#schedule());
    // Who scrolls on by hand waits for nothing.
    for (const name of ['wheel', 'pointerdown']) addEventListener(name, () => { this.#pending = null; }, {passive: true});
  }

  show() {
    this.#active = true;
    // What comes above the list moves it.
    this.#sizes.observe(this.element.parentElement);
    this.#resize();
  }

  hide() {
    this.#active = false;
    this.#pending = null;
    clearTimeout(this.#settle);
  }

  #schedule() {
    if (!this.#active || this.#frame !== null) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = null;
      if (this.#isResized) this.#resize();
      else if (this.#active) this.#draw();
    });
  }

  /** Keeps the first row in view where it is. */
  #resize() {
    this.#isResized = false;
    const width = this.ul.clientWidth;
    if (!this.#active || !width) return;
    const {columns, cell} = this.#layout;
    const layout = gridLayout(width, innerWidth < 640 ? 104 : 176, GAP);
    this.#offset = this.ul.getBoundingClientRect().top + scrollY;
    const above = scrollY - this.#offset;
    const first = above > 0 ? Math.floor(above / (cell + GAP)) * columns : 0;
    const changed = layout.columns !== columns || layout.cell !== cell;
    this.#layout = layout;
    if (changed) {
      for (const one of this.#cells.values()) one.index = -1;
      this.ul.style.setProperty('--cell', `${layout.cell}px`);
    }
    this.update();
    if (changed && first) scrollTo({top: this.#offset + cellPosition(layout, first).y + (above % (cell + GAP)), behavior: 'instant'});
  }

  /** The list has changed, or what else the rows depend on. */
  update() {
    this.#drawn = null;
    if (this.#active) this.#draw();
  }

  /** Brings the document in line with the list and the scroll position. */
  #draw() {
    const {count, items} = this.#list;
    const height = `${gridHeight(this.#layout, count)}px`;
    if (this.ul.style.height !== height) this.ul.style.height = height;
    const top = scrollY - this.#offset;
    const isFast = Math.abs(top - this.#lastTop) > innerHeight * FAST;
    this.#lastTop = top;
    const {from, until} = cellRange(this.#layout, count, top - innerHeight * AHEAD, top + innerHeight * (1 + AHEAD));
    // Most frames bring no new row.
    if (this.#drawn?.from !== from || this.#drawn.until !== until) {
      this.#drawn = {from, until};
      this.#render(from, until, count, isFast);
    }
    this.#dayLabel(top, items);
    if (until > items.length && !this.#list.complete && !this.#list.error) this.#list.reach(until - 1);
    if (this.#pending !== null) this.focusIndex(Math.min(this.#pending, count - 1));
    this.#actions.scrolled(top < this.#layout.cell);
  }

  #render(from, until, count, isFast) {
    const {items} = this.#list;
    const wanted = new Map();
    for (let index = from; index < until; index += 1) wanted.set(items[index]?.name ?? `#${index}`, index);
    const focused = document.activeElement?.dataset?.name;
    // The focus stays where it is, though its row be far away.
    if (focused && this.#cells.has(focused) && !wanted.has(focused)) {
      const index = this.#list.indexOf(focused);
      if (index >= 0) wanted.set(focused, index);
    }
    for (const [key, cell] of this.#cells) if (!wanted.has(key)) this.#release(key, cell);
    let later = false;
    const order = [...wanted].sort(([, one], [, other]) => one - other);
    let place = this.ul.firstChild;
    for (const [key, index] of order) {
      const cell = this.#cells.get(key) ?? this.#make(key, items[index]);
      if (cell.li === place) place = place.nextSibling;
      else this.ul.insertBefore(cell.li, place);
      this.#put(cell, index, count);
      if (cell.item && !cell.shown) {
        if (isFast) later = true;
        else showImage(cell);
      }
    }
    clearTimeout(this.#settle);
    if (later) this.#settle = setTimeout(() => this.update(), SETTLED_MS);
  }

  #make(key, item) {
    const cell = this.#spare.pop() ?? makeCell();
    Object.assign(cell, {item: item ?? null, index: -1, shown: false});
    cell.li.classList.toggle('waiting', !item);
    if (item) {
      cell.link.href = `#gallery/${item.name}`;
      cell.link.dataset.name = item.name;
      cell.image.alt = item.prompt || `Picture of ${dateTime(madeAt(item.name))}`;
      cell.caption.textContent = item.prompt;
      cell.li.removeAttribute('aria-hidden');
    } else {
      cell.li.setAttribute('aria-hidden', 'true');
    }
    cell.link.hidden = !item;
    this.#cells.set(key, cell);
    return cell;
  }

  #release(key, cell) {
    this.#cells.delete(key);
    cell.li.remove();
    cell.image.removeAttribute('src');
    cell.li.classList.remove('loaded', 'broken');
    cell.item = null;
    if (this.#spare.length < 200) this.#spare.push(cell);
  }

  #put(cell, index, count) {
    if (cell.count !== count) {
      cell.count = count;
      cell.li.setAttribute('aria-setsize', count);
    }
    if (cell.index === index) return;
    cell.index = index;
    cell.li.setAttribute('aria-posinset', index + 1);
    const {x, y} = cellPosition(this.#layout, index);
    cell.li.style.transform = `translate(${x}px, ${y}px)`;
  }

  #dayLabel(top, items) {
    const {columns, cell} = this.#layout;
    const item = items[Math.max(0, Math.floor((top + 64) / (cell + GAP))) * columns];
    this.label.hidden = !item;
    if (!item) return;
    const text = dayOf(madeAt(item.name));
    if (this.label.textContent !== text) this.label.textContent = text;
  }

  #key(event) {
    const link = event.target.closest('a');
    if (!link || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const index = this.#list.indexOf(link.dataset.name);
    if (event.key === 'Delete' && index >= 0) {
      event.preventDefault();
      this.#actions.remove(link.dataset.name);
      return;
    }
    const from = this.#pending ?? index;
    const target = keyTarget(event.key, from, this.#layout, this.#list.count, innerHeight - 160);
    if (target === null) return;
    event.preventDefault();
    this.focusIndex(target);
  }

  /** Moves the focus, and the view if need be; later if it is not loaded yet. */
  focusIndex(index) {
    if (index < 0) return;
    const item = this.#list.items[index];
    this.#pending = item || this.#list.error ? null : index;
    this.#intoView(index);
    if (!item) {
      this.#list.reach(index);
      return;
    }
    if (!this.#cells.has(item.name)) this.update();
    this.#cells.get(item.name)?.link.focus({preventScroll: true});
  }

  #intoView(index) {
    const {cell} = this.#layout;
    const y = this.#offset + cellPosition(this.#layout, index).y;
    const header = 112;
    let top = scrollY;
    if (y < scrollY + header) top = Math.max(0, index < this.#layout.columns ? 0 : y - header);
    else if (y + cell > scrollY + innerHeight - 16) top = y + cell - innerHeight + 16;
    if (top !== scrollY) scrollTo({top, behavior: 'instant'});
  }
}

function makeCell() {
  const image = h('img', {alt: '', width: 384, height: 384, loading: 'lazy', decoding: 'async', draggable: 'false'});
  const caption = h('span.caption', {'aria-hidden': 'true', dir: 'auto'});
  const link = h('a', {}, image, caption);
  const li = h('li', {}, link);
  const cell = {li, link, image, caption, item: null, index: -1, count: -1, shown: false};
  image.addEventListener('load', () => li.classList.add('loaded'));
  image.addEventListener('error', () => {
    if (!cell.item) return;
    const original = `/ui/images/${cell.item.name}`;
    if (image.getAttribute('src') === original) li.classList.add('broken');
    else image.src = original;
  });
  return cell;
}

function showImage(cell) {
  cell.shown = true;
  cell.image.src = `/ui/${cell.item.thumbnail ? 'thumbnails' : 'images'}/${cell.item.name}`;
}
