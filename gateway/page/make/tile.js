// One request in the results: its previews, its progress, its pictures or its error.
import {alertBox, h, icon, setText} from '../dom.js';
import {duration} from '../format.js';
import {live, whenOpen} from '../live.js';
import {judge, leftText} from './estimate.js';
import {RUNNING, advice, settingRows} from './jobstate.js';
import {parseSize, sizeText} from './sizes.js';

const LOST = 'The gateway has no record of this request: it was restarted, or the request never arrived. '
  + 'There is no picture of it. ';

export class Tile {
  #entry;
  #act;
  #shown = '';

  /** `act`: `cancel(entry)`, `again(entry)`, `retry(entry)`, `use(settings)`, `reference(name)`, `remove(entry)`. */
  constructor(entry, act) {
    this.#entry = entry;
    this.#act = act;
    const {job} = entry;
    this.prompt = h('p.tile-prompt', {dir: 'auto', title: job.asked.prompt.slice(0, 1000)}, job.asked.prompt.slice(0, 1000));
    this.preview = h('img.preview', {alt: 'Preview', hidden: true});
    this.frames = h('div.frames', {});
    this.progress = h('progress', {'aria-label': 'Progress', max: 1});
    this.time = h('p.note.time');
    this.cancel = h('button', {type: 'button', onclick: () => act.cancel(entry)}, icon('cancel'), 'Cancel');
    this.running = h('div.running', {}, this.progress, h('div.running-row', {}, this.time, this.cancel));
    this.details = h('div.details', {}, this.prompt, this.running);
    this.element = h('li.tile', {}, this.frames, this.details);
    this.update();
  }

  update() {
    const {job, preview} = this.#entry;
    if (job.state === RUNNING) {
      this.#frame(job);
      if (preview && this.preview.getAttribute('src') !== preview) {
        this.preview.src = preview;
        this.preview.hidden = false;
      }
      this.cancel.disabled = Boolean(this.#entry.cancelling);
      this.tick();
      return;
    }
    // Settings come after the pictures when these were looked for.
    const key = JSON.stringify([job.state, job.pictures, job.ignored]);
    if (key === this.#shown) return;
    this.#shown = key;
    this.running.remove();
    if (job.state === 'done') this.#drawDone(job);
    else this.#drawEnd(job);
  }

  /** The places of the pictures, before there are any: what comes shifts nothing. */
  #frame(job) {
    const {width, height} = parseSize(job.size) ?? {width: 1, height: 1};
    const several = job.asked.n > 1;
    if (!this.frames.firstChild) {
      this.frames.classList.toggle('several', several);
      const frame = (child) => h('div.frame.waiting', {}, child);
      this.frames.append(...(several ? Array.from({length: job.asked.n}, () => h('figure', {}, frame(null), h('figcaption'))) : [frame(this.preview)]));
    }
    this.frames.style.setProperty('--ratio', width / height);
    this.frames.style.setProperty('--rows', job.asked.n > 2 ? 2 : 1);
  }

  /** Once a second: the time. */
  tick(now = Date.now()) {
    const {job, following, cancelling} = this.#entry;
    if (job.state !== RUNNING) return;
    const since = (at) => (at - (job.begun ?? now)) / 1000;
    const first = job.first && {progress: job.first.progress, elapsed: since(job.first.at)};
    const judged = judge({elapsed: since(now), expected: job.begun && job.expected, progress: job.progress, first});
    // Of one picture the engine tells each step: until the first, it may be at another client's job.
    const unheard = !job.progress && !(job.asked.n > 1);
    const fraction = unheard ? null : judged.fraction;
    if (fraction == null) this.progress.removeAttribute('value');
    else this.progress.value = Math.max(fraction, this.progress.hasAttribute('value') ? this.progress.value : 0);
    let rest = unheard && judged.overdue ? 'waiting for the engine' : leftText(judged);
    if (cancelling) rest = 'cancelling';
    else if (following && live.state !== 'open') rest = 'no connection; it is looked for when the gateway answers';
    else if (following && !live.jobs.some(({id}) => id === job.id)) rest = 'looking for it on the gateway';
    else if (!job.begun) rest = 'waiting for the request before it';
    setText(this.time, [duration((now - job.startedAt) / 1000), rest].filter(Boolean).join(' · '));
  }

  #drawDone(job) {
    const several = job.pictures.length > 1;
    this.frames.style.setProperty('--rows', job.pictures.length > 2 ? 2 : 1);
    const figures = job.pictures.map((picture, index) => this.#figure(job, picture, index, several));
    this.frames.classList.toggle('several', several);
    const old = this.frames.firstChild;
    if (several || !old) this.frames.replaceChildren(...figures);
    else this.#replaceWhenLoaded(old, figures[0]);
    const [first] = job.pictures;
    this.details.replaceChildren(this.prompt, settings(job, several),
      ...(several || !first ? [] : [this.#buttons(job, first, false)]));
    if (several) this.#act.shown(this.#entry);
  }

  /** The preview stays until the picture is there, so that nothing flickers. */
  async #replaceWhenLoaded(old, figure) {
    await figure.querySelector('img').decode().catch(() => {});
    if (old.parentNode === this.frames) this.frames.replaceChildren(figure);
    this.#act.shown(this.#entry);
  }

  #figure(job, picture, index, several) {
    const {width, height} = parseSize(picture.settings?.size ?? job.size) ?? {width: 1, height: 1};
    const prompt = job.asked.prompt.slice(0, 200);
    // After a reload there may be many.
    const loading = this.frames.firstChild ? null : 'lazy';
    const image = h('img', {src: picture.address ?? `/ui/images/${picture.name}`, alt: prompt, dir: 'auto', decoding: 'async', loading});
    if (!parseSize(picture.settings?.size ?? job.size)) {
      image.addEventListener('load', () => this.frames.style.setProperty('--ratio', image.naturalWidth / image.naturalHeight));
    } else this.frames.style.setProperty('--ratio', width / height);
    image.addEventListener('error', () => {
      // While the gateway restarts it says nothing about its store.
      if (live.state === 'open') frame.classList.add('gone');
      else whenOpen(() => { image.src = image.getAttribute('src'); });
    });
    const label = several ? `Open picture ${index + 1}` : 'Open picture';
    const frame = picture.name ? h('a.frame', {href: `#gallery/${picture.name}`, 'aria-label': label}, image) : h('div.frame', {}, image);
    if (!several) return frame;
    const {seed} = picture.settings ?? {};
    return h('figure', {}, frame, h('figcaption', {}, seed == null ? '' : h('span.note', {}, `Seed ${seed}`), this.#buttons(job, picture, true)));
  }

  #buttons(job, picture, small) {
    const {name, address, settings: of} = picture;
    const make = (label, symbol, action, quiet) => h(`button${small ? '.square.quiet' : quiet ? '.quiet' : ''}`, {
      type: 'button', onclick: action, ...(small ? {'aria-label': label, title: label} : {}),
    }, icon(symbol), !small && label);
    const again = {prompt: job.asked.prompt, negative_prompt: job.asked.negative_prompt, task: job.task, requested: job.asked, ...of};
    return h('div.actions', {},
      make('Make again', 'repeat', () => this.#act.again(this.#entry, again)),
      name && make('Use as reference', 'add', () => this.#act.reference(name)),
      h(`a.button${small ? '.square.quiet' : ''}`, {
        href: address ?? `/ui/images/${name}`, download: name ?? 'picture.png', ...(small ? {'aria-label': 'Download', title: 'Download'} : {}),
      }, icon('download'), !small && 'Download'),
      !small && make('Use settings', 'copy', () => this.#act.use(this.#entry, again), true));
  }

  #drawEnd(job) {
    const retry = this.#entry.source && h('button', {type: 'button', onclick: () => this.#act.retry(this.#entry)}, icon('repeat'), 'Try again');
    this.frames.replaceChildren();
    this.element.classList.add('ended');
    if (job.state === 'cancelled') {
      const close = h('button.quiet', {type: 'button', 'aria-label': 'Close message', onclick: () => this.#act.remove(this.#entry)}, icon('cancel'));
      this.details.replaceChildren(this.prompt, h('div.running-row', {}, h('p.note', {}, 'Cancelled.'), retry, close));
      return;
    }
    const error = job.state === 'lost' ? {message: LOST + (retry ? 'Try again.' : 'Add its references, then generate again.')} : job.error;
    const todo = advice(error);
    const box = alertBox(error, [todo && h('p.note', {}, todo), retry].filter(Boolean));
    // Before the box is gone: what had the focus must be known.
    const close = box.lastElementChild;
    box.addEventListener('click', ({target}) => { if (close.contains(target)) this.#act.remove(this.#entry); }, {capture: true});
    this.details.replaceChildren(this.prompt, box);
  }
}

function settings(job, several) {
  const actual = {...job.pictures[0]?.settings};
  if (several) delete actual.seed;
  const rows = settingRows(actual, job.asked).map(([label, value, asked]) => h('div', {},
    h('dt', {}, label), h('dd', {dir: 'auto'}, value, asked && h('span.asked', {}, ` requested: ${sizeText(asked)}`))));
  if (job.took != null) rows.push(h('div', {}, h('dt', {}, 'Took'), h('dd', {}, job.took < 10 ? `${job.took.toFixed(1)} s` : duration(job.took))));
  const ignored = job.ignored ?? [];
  return h('div.settings', {}, h('dl', {}, rows),
    ignored.length > 0 && h('p.note', {dir: 'auto'}, `Not used by this model: ${ignored.map((name) => name.replaceAll('_', ' ')).join(', ')}.`));
}
