// The list of pictures: loaded page by page, without those that are being deleted. No DOM.
import {MOST_PICTURES} from './layout.js';
import {listQuery, newerFirst} from './query.js';

const PAGE = 100;
/** The most that the gateway gives at once, for those who went far ahead. */
const LONG_PAGE = 200;
/** A prompt in the list is a name, not a text to read: kept short, since thousands are. */
const NAME_LENGTH = 160;

/** `request(query, signal)` answers a page as `GET /v1/gateway/images` does; `changed()` is called after each change. */
export class PictureList {
  #request;
  #changed;
  #abort = new AbortController();
  #loading = null;
  #wanted = 0;
  /** Names that are deleted, or about to be. */
  #hidden = new Set();
  /** Those of them that the gateway's total still counts. */
  #counted = new Set();
  #next = null;
  #total = 0;

  constructor(request, changed) {
    this.#request = request;
    this.#changed = changed;
    this.#clear({});
  }

  #clear(filter) {
    this.filter = filter;
    this.items = [];
    this.#next = null;
    this.#wanted = 0;
    this.#total = 0;
    this.#counted.clear();
    /** Whether the first page has come. */
    this.ready = false;
    this.complete = false;
    this.error = null;
  }

  /** How many there are to show, loaded or not. */
  get count() {
    return this.complete ? this.items.length : Math.min(Math.max(this.total, this.items.length), MOST_PICTURES);
  }

  get total() {
    return this.#total - this.#counted.size;
  }

  /** There are more than are listed. */
  get isCut() {
    return this.total > MOST_PICTURES && this.items.length >= MOST_PICTURES;
  }

  indexOf(name) {
    return this.items.findIndex((item) => item.name === name);
  }

  /** Starts anew with this filter. What is shown stays until the answer is there. */
  async restart(filter) {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#loading = null;
    const {signal} = this.#abort;
    try {
      const page = await this.#request(listQuery(filter, {limit: PAGE}), signal);
      if (signal.aborted) return;
      this.#clear(filter);
      this.#take(page);
    } catch (error) {
      if (signal.aborted) return;
      this.#clear(filter);
      this.error = error;
    }
    this.ready = true;
    this.#changed();
  }

  /** After an error: goes on where it stopped. */
  retry() {
    if (!this.error) return;
    if (!this.items.length) {
      this.restart(this.filter);
      return;
    }
    this.error = null;
    this.reach(this.items.length);
  }

  /** Loads until there is an item `index`, or no more. */
  reach(index) {
    this.#wanted = Math.max(this.#wanted, Math.min(index, MOST_PICTURES - 1));
    this.#loading ??= this.#load(this.#abort.signal);
    return this.#loading;
  }

  async #load(signal) {
    try {
      while (this.ready && !this.complete && this.#wanted >= this.items.length && !signal.aborted) {
        const limit = this.#wanted - this.items.length > PAGE ? LONG_PAGE : PAGE;
        const page = await this.#request(listQuery(this.filter, {limit, before: this.#next}), signal);
        if (signal.aborted) return;
        this.error = null;
        this.#take(page);
        this.#changed();
      }
    } catch (error) {
      if (signal.aborted) return;
      this.error = error;
      this.#wanted = 0;
      this.#changed();
    } finally {
      if (!signal.aborted) this.#loading = null;
    }
  }

  #take({data, has_more: more, next_before: next, total}) {
    const before = this.items.length;
    const known = new Set(this.items.slice(-LONG_PAGE).map((item) => item.name));
    for (const entry of data) {
      if (this.#hidden.has(entry.name)) this.#counted.add(entry.name);
      else if (!known.has(entry.name)) this.items.push(toItem(entry));
    }
    // A deletion that was taken back while its page was on the way.
    if (before && this.items.length > before && newerFirst(this.items[before - 1].name, this.items[before].name) > 0) {
      this.items.sort((one, other) => newerFirst(one.name, other.name));
    }
    this.#next = next ?? data.at(-1)?.name ?? this.#next;
    this.complete = !more || this.items.length >= MOST_PICTURES;
    this.items.length = Math.min(this.items.length, MOST_PICTURES);
    this.#total = total?.pictures ?? this.items.length + this.#counted.size;
  }

  /** Asks for pictures that are newer than those shown; null if there are too many to put before the others. */
  async newer() {
    const {signal} = this.#abort;
    const page = await this.#request(listQuery(this.filter, {limit: PAGE}), signal);
    const first = this.items[0]?.name;
    const fresh = page.data.filter(({name}) => !this.#hidden.has(name) && (!first || newerFirst(name, first) < 0));
    if (signal.aborted) return [];
    return fresh.length === page.data.length && page.has_more ? null : fresh.map(toItem);
  }

  /** Puts these before the others. */
  prepend(items) {
    const known = new Set(this.items.slice(0, LONG_PAGE).map((item) => item.name));
    const fresh = items.filter(({name}) => !known.has(name) && !this.#hidden.has(name));
    if (!fresh.length) return;
    this.items = [...fresh, ...this.items].sort((one, other) => newerFirst(one.name, other.name));
    this.#total += fresh.length;
    this.#changed();
  }

  /** Takes a picture out; returns a function that puts it back. */
  hide(name) {
    const index = this.indexOf(name);
    const [item] = index < 0 ? [] : this.items.splice(index, 1);
    const {filter} = this;
    this.#hidden.add(name);
    if (item) this.#counted.add(name);
    this.#changed();
    return () => {
      this.#hidden.delete(name);
      this.#counted.delete(name);
      // Another filter, or perhaps a page that came meanwhile: ask anew.
      if (!item || filter !== this.filter) return this.restart(this.filter);
      this.items = [...this.items, item].sort((one, other) => newerFirst(one.name, other.name));
      return this.#changed();
    };
  }

  /** The gateway has deleted it, and counts it no more. */
  forget(name) {
    if (this.#counted.delete(name)) this.#total -= 1;
  }
}

function toItem({name, prompt, model, thumbnail}) {
  const short = prompt && prompt.length > NAME_LENGTH ? `${prompt.slice(0, NAME_LENGTH - 1).trimEnd()}…` : prompt;
  // Only the name is used: an address may be of another host, seen from here.
  return {name, prompt: short || '', model: model ?? '', thumbnail: Boolean(thumbnail)};
}
