// The reference pictures of the form: chosen, dropped, pasted, or from the store.
import {h, icon} from '../dom.js';
import {dateTime} from '../format.js';
import {isStoreName, storeNameOf} from './request.js';

const READABLE = ['image/png', 'image/jpeg', 'image/webp'];
/** Fingers neither drop nor paste. */
const canDrop = matchMedia('(any-pointer: fine)').matches;
/** More than any model takes: a bound for what a careless drop keeps in memory. */
const MOST = 16;

export class References {
  #items = [];
  #able = null;
  #model = '';
  #changed;
  #failed;

  /** `changed(more)` after each change, `more` where some were added; `failed(message)` in words. */
  constructor({changed, failed}) {
    this.#changed = changed;
    this.#failed = failed;
    this.input = h('input', {type: 'file', accept: READABLE.join(), multiple: true, hidden: true, 'aria-label': 'Reference files',
      onchange: () => { this.add([...this.input.files]); this.input.value = ''; }});
    this.button = h('button', {type: 'button', onclick: () => this.input.click()}, icon('add'), 'Add reference');
    this.hint = h('p.note', {id: 'references-note'});
    this.list = h('ol.references', {'aria-label': 'References'});
    this.button.setAttribute('aria-describedby', this.hint.id);
    this.element = h('div.field', {}, this.list, h('div.add-reference', {}, this.button, this.hint), this.input);
  }

  get items() {
    return this.#items;
  }

  get masked() {
    return Boolean(this.#items[0]?.mask);
  }

  /** Those that are sent, and the mask that is sent with them. */
  used() {
    const items = this.#items.slice(0, this.#able?.used ?? 0);
    return {items, mask: this.#able?.takesMask ? items[0]?.mask ?? null : null};
  }

  async add(files) {
    const fresh = [];
    const unreadable = [];
    for (const file of files) {
      const blob = await readable(file);
      if (blob) fresh.push({name: file.name || 'picture.png', blob, stored: null, mask: null});
      else unreadable.push(`“${file.name || 'picture'}”`);
    }
    if (fresh.length) this.#take(fresh);
    // After those that were taken: each change takes back what was said before.
    if (!unreadable.length) return;
    const what = unreadable.length === 1 ? 'is not a picture' : 'are no pictures';
    this.#failed(`${unreadable.join(', ')} ${what} that this browser can read. Use PNG, JPEG or WebP.`);
  }

  addStored(name) {
    if (!isStoreName(name) || this.#items.some((item) => item.stored === name)) return;
    this.#take([{name, blob: null, stored: name, mask: null}]);
  }

  /** Puts others in the place of those there are. */
  replace(items) {
    for (const item of this.#items) this.#release(item);
    this.#items = [];
    this.#take(items.map((item) => ({...item})));
  }

  #take(fresh) {
    const room = MOST - this.#items.length;
    for (const item of fresh.slice(0, Math.max(0, room))) {
      item.address = item.stored ? `/ui/thumbnails/${item.stored}` : URL.createObjectURL(item.blob);
      if (item.mask) item.maskAddress = URL.createObjectURL(item.mask);
      this.#items.push(item);
    }
    this.#changed(fresh.length > 0);
    if (fresh.length > room) this.#failed(`At most ${MOST} references can be added.`);
  }

  #release(item) {
    if (!item.stored) URL.revokeObjectURL(item.address);
    if (item.maskAddress) URL.revokeObjectURL(item.maskAddress);
  }

  /** Draws them as the chosen model takes them. */
  draw(able, model) {
    this.#able = able;
    this.#model = model || 'The model';
    this.list.replaceChildren(...this.#items.map((item, index) => this.#tile(item, index)));
    this.button.disabled = this.#items.length >= Math.max(able.most, 0);
    this.hint.textContent = this.#hintText();
  }

  #hintText() {
    const {most} = this.#able;
    const count = this.#items.length;
    if (!most) return `${this.#model} takes no references.${count ? ' These are kept but not sent.' : ''}`;
    if (count > most) return `${this.#model} takes ${most}: the others are kept but not sent.`;
    if (count === most) return `${count} of ${most}, the most that this model takes.`;
    return count ? `${count} of ${most}.` : `${canDrop ? 'Drop or paste, up to' : 'Up to'} ${most}.`;
  }

  #tile(item, index) {
    const sent = index < this.#able.used;
    const name = item.stored ? `Picture of ${dateTime(parseInt(item.stored, 10))}` : item.name;
    const image = h('img', {
      src: item.address,
      alt: '',
      onload: () => { item.size = `${image.naturalWidth}x${image.naturalHeight}`; },
      // There may be no thumbnail of it, or not yet.
      onerror: () => {
        const whole = `/ui/images/${item.stored}`;
        if (item.stored && item.address !== whole) image.src = item.address = whole;
      },
    });
    const first = index === 0 && sent && this.#able.takesMask;
    if (item.mask && first) {
      // What is to be repainted is cut out of the picture; the colour behind it shows.
      image.style.maskImage = image.style.webkitMaskImage = `url(${item.maskAddress})`;
    }
    const act = (label, symbol, action, disabled = false) => h('button.quiet.square', {
      type: 'button', 'aria-label': `${label} ${name}`, title: label, disabled, onclick: action,
    }, icon(symbol));
    const many = this.#items.length > 1;
    return h(`li${sent ? '' : '.unused'}`, {},
      h('span.thumb', {}, h('span', {}, image)),
      h('div.reference-head', {},
        h('span.reference-name', {dir: 'auto'}, name),
        h('div.reference-actions', {},
          many && act('Move up', 'previous', () => this.#move(index, -1), index === 0),
          many && act('Move down', 'next', () => this.#move(index, 1), index === this.#items.length - 1),
          act('Remove', 'cancel', () => this.#remove(index)))),
      !sent && h('span.note', {}, 'Not sent'),
      item.mask && !first && h('span.note', {}, index ? 'Its mask counts only when it is first' : 'Its mask is not sent'),
      first && h('div.mask-buttons', {},
        h('button', {type: 'button', onclick: () => this.#paint(item)}, icon('brush'), 'Paint mask'),
        item.mask && act('Remove mask of', 'clear', () => this.#setMask(item, null))));
  }

  #move(index, by) {
    const [item] = this.#items.splice(index, 1);
    this.#items.splice(index + by, 0, item);
    this.#changed();
    const buttons = [...this.list.children[index + by].querySelectorAll('.reference-actions button')];
    // At an end only the other direction is left.
    const [up, down] = buttons;
    const wanted = by < 0 ? up : down;
    (wanted.disabled ? (by < 0 ? down : up) : wanted).focus();
  }

  #remove(index) {
    const [item] = this.#items.splice(index, 1);
    this.#release(item);
    this.#changed();
    const next = this.list.children[Math.min(index, this.#items.length - 1)];
    (next?.querySelector('.reference-actions button:last-child') ?? this.button).focus();
  }

  async #paint(item) {
    try {
      const {paintMask} = await import('../mask.js');
      const mask = await paintMask(item.blob ?? `/ui/images/${item.stored}`, item.mask);
      if (mask) this.#setMask(item, mask === 'clear' ? null : mask);
    } catch (error) {
      this.#failed(`The mask could not be painted: ${error.message}`);
    }
    this.list.querySelector('.mask-buttons button')?.focus();
  }

  #setMask(item, mask) {
    if (item.maskAddress) URL.revokeObjectURL(item.maskAddress);
    item.mask = mask;
    item.maskAddress = mask && URL.createObjectURL(mask);
    this.#changed();
    this.list.querySelector('.mask-buttons button')?.focus();
  }
}

/** A file as the gateway takes it: other pictures that this browser can show are made PNGs; null if it cannot. */
async function readable(file) {
  try {
    // A file's type is only that of its name.
    if (READABLE.includes(file.type)) return await decodes(file) ? file : null;
    const picture = await createImageBitmap(file);
    const canvas = h('canvas', {width: picture.width, height: picture.height});
    canvas.getContext('2d').drawImage(picture, 0, 0);
    picture.close();
    return await new Promise((resolve) => { canvas.toBlob(resolve, 'image/png'); });
  } catch {
    return null;
  }
}

/** Whether the browser can show the whole of it. */
async function decodes(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    return true;
  } catch {
    return false;
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

/** References dropped anywhere on `place`, or pasted while it is shown. */
export function takeDropsAndPastes(place, references) {
  const hasPictures = ({dataTransfer}) => dataTransfer.types.includes('Files') || dataTransfer.types.includes('text/uri-list');
  let depth = 0;
  const mark = (by) => {
    depth = by === 0 ? 0 : Math.max(0, depth + by);
    place.classList.toggle('dropping', depth > 0);
  };
  place.addEventListener('dragenter', (event) => { if (hasPictures(event)) mark(1); });
  place.addEventListener('dragleave', (event) => { if (hasPictures(event)) mark(-1); });
  place.addEventListener('dragover', (event) => { if (hasPictures(event)) event.preventDefault(); });
  place.addEventListener('drop', (event) => {
    if (!hasPictures(event)) return;
    event.preventDefault();
    mark(0);
    // A picture of this page is in the store already.
    const stored = storeNameOf(event.dataTransfer.getData('text/uri-list').trim());
    if (stored) references.addStored(stored);
    else references.add([...event.dataTransfer.files]);
  });
  document.addEventListener('paste', (event) => {
    const {clipboardData} = event;
    if (place.closest('[hidden]') || document.querySelector('dialog[open]')) return;
    const files = [...clipboardData.files].filter((file) => file.type.startsWith('image/'));
    // Text processors put a picture of the text beside it.
    if (!files.length || clipboardData.types.includes('text/plain')) return;
    event.preventDefault();
    references.add(files);
  });
}
