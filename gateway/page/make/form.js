// The form of Make.
import {alertBox, h, icon, setText} from '../dom.js';
import {imageModels, modelById, onModels} from '../models.js';
import {abilities, describe, firstModel} from './abilities.js';
import {recallObject, recallText, rememberText} from './memory.js';
import {References} from './references.js';
import {EMPTY, problems} from './request.js';
import {CUSTOM, parseSize, sameChoice, sizeChoices, sizeText} from './sizes.js';

const FORM = 'make.form';
const LAST_MODEL = 'make.model';
/** The fields below “More”. */
const IN_MORE = ['cfg_scale', 'scheduler', 'strength', 'loras'];

export class Form {
  #able = abilities(null);
  #choices = [];
  #lastSeed = null;
  /** The field that the alert at the form is about. */
  #problem = null;
  /** What is chosen in the lists, whether it is there right now or not. */
  #wanted = {model: '', size: '', scheduler: ''};

  /** `generate()` is called when the person asks for it. */
  constructor({generate}) {
    this.references = new References({
      changed: (more) => this.#referencesChanged(more),
      failed: (message) => this.showProblem({field: 'references', message}),
    });
    this.controls = controls();
    this.parts = parts(this.controls, this.references.element);
    this.element = this.parts.form;
    this.parts.form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.parts.button.getAttribute('aria-disabled') !== 'true') generate();
    });
    this.#listen();
    this.#restore();
    onModels(() => this.update());
    this.update();
  }

  get able() {
    return this.#able;
  }

  #listen() {
    const {controls: of, parts: {form, keep, shuffle, button}} = this;
    form.addEventListener('input', ({target}) => {
      if (target === this.controls[this.#problem]) this.clearProblems();
      this.#seedChanged();
      this.#save();
    });
    for (const name of ['model', 'size', 'scheduler']) {
      of[name].addEventListener('change', () => {
        this.#wanted[name] = of[name].value;
        if (name === 'size') this.#sizeChosen();
        if (name === 'model') this.clearProblems();
        this.update();
      });
    }
    form.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        form.requestSubmit();
      }
      // An empty field stands for the model's own number: the arrows begin there.
      const {target} = event;
      if (target.type === 'number' && target.value === '' && /^Arrow(Up|Down)$/.test(event.key)) target.value = target.placeholder;
    });
    // A double click is one request.
    button.addEventListener('click', (event) => { if (event.detail > 1) event.preventDefault(); });
    shuffle.addEventListener('click', () => this.#setSeed(crypto.getRandomValues(new Uint32Array(1))[0]));
    keep.addEventListener('click', () => {
      this.#setSeed(of.seed.value !== '' ? '' : this.#lastSeed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
    });
  }

  #setSeed(seed) {
    this.controls.seed.value = seed;
    this.#seedChanged();
    this.#save();
  }

  #seedChanged() {
    const kept = this.controls.seed.value !== '' || this.controls.seed.validity.badInput;
    this.parts.keep.setAttribute('aria-pressed', kept);
    if (this.parts.keep.dataset.kept === String(kept)) return;
    this.parts.keep.dataset.kept = kept;
    this.parts.keep.replaceChildren(icon(kept ? 'lock' : 'unlock'));
  }

  /** The seed of the newest picture: what “Keep the seed” keeps. */
  set lastSeed(seed) {
    if (seed != null) this.#lastSeed = seed;
  }

  #sizeChosen() {
    const {width, height, size} = this.controls;
    if (size.value !== CUSTOM || width.value) return;
    const usual = parseSize(this.#able.defaults.size) ?? {width: 1024, height: 1024};
    width.value = usual.width;
    height.value = usual.height;
  }

  /** What is in the form: as typed, and as chosen. */
  read() {
    const typed = Object.entries(this.controls).map(([name, control]) => [name, control.validity.badInput ? '?' : control.value]);
    return {...Object.fromEntries(typed), ...this.#wanted};
  }

  /** Puts other values in the place of those there are. */
  fill(values) {
    const form = {...EMPTY, ...values};
    for (const name of Object.keys(this.#wanted)) this.#wanted[name] = form[name];
    for (const [name, control] of Object.entries(this.controls)) if (!(name in this.#wanted)) control.value = form[name];
    for (const control of Object.values(this.controls)) unmark(control);
    this.#choices = [];
    this.#seedChanged();
    this.update();
  }

  #restore() {
    const saved = recallObject('sessionStorage', FORM);
    this.fill({model: recallText('localStorage', LAST_MODEL) ?? '', ...saved.form});
    for (const name of saved.stored ?? []) this.references.addStored(name);
    if (!saved.lost) return;
    const what = saved.lost === 1 ? 'the reference' : 'the references';
    this.note({text: `Add ${what} again: files are not kept when the page is reloaded.`, until: 'reference'});
  }

  #save() {
    const {items} = this.references;
    const stored = items.map((item) => item.stored).filter(Boolean);
    rememberText('sessionStorage', FORM, JSON.stringify({form: this.read(), stored, lost: items.length - stored.length}));
  }

  /** The chosen model was used: it is the first choice next time. */
  rememberModel() {
    rememberText('localStorage', LAST_MODEL, this.#wanted.model);
  }

  /** Draws what depends on the model and the references. */
  update() {
    const models = imageModels();
    if (!this.#wanted.model && models.length) this.#wanted.model = firstModel(models);
    const model = modelById(this.#wanted.model) ?? null;
    const {references} = this;
    this.#able = abilities(model, {references: references.items.length, mask: references.masked});
    this.#drawModels(models, model);
    this.#drawSizes(model !== null);
    this.#drawFields(model);
    references.draw(this.#able, this.#wanted.model);
    this.#save();
  }

  #drawModels(models, model) {
    const options = models.map(({id}) => [id, id]);
    const {model: wanted} = this.#wanted;
    if (!options.length && !wanted) options.push(['', 'The gateway’s default']);
    if (wanted && !model) options.unshift([wanted, models.length ? `${wanted} (not available)` : wanted]);
    choose(this.controls.model, options, wanted);
    setText(this.parts.about, this.#able.problem ?? describe(model));
    this.parts.about.classList.toggle('warn', Boolean(this.#able.problem));
  }

  #drawSizes(known) {
    const choices = sizeChoices(this.#able);
    const {size} = this.#wanted;
    if (this.#able.takesSize && !choices.some(({value}) => value === size)) {
      const other = sameChoice(size, this.#choices, choices);
      if (other || !parseSize(size)) this.#wanted.size = other;
      else if (known) this.#custom(parseSize(size));
      else choices.push({value: size, label: sizeText(size)});
    }
    this.#choices = choices;
    choose(this.controls.size, choices.map(({value, label}) => [value, label]), this.#wanted.size);
    this.controls.size.disabled = !this.#able.takesSize;
    this.parts.custom.hidden = !this.#able.takesSize || this.#wanted.size !== CUSTOM;
    for (const name of ['width', 'height']) this.controls[name].step = this.#able.multiple;
  }

  #custom({width, height}) {
    this.#wanted.size = CUSTOM;
    this.controls.width.value = width;
    this.controls.height.value = height;
  }

  #drawFields(model) {
    const {controls: of, parts: {rows, more}} = this;
    const {takes, defaults, schedulers, maxPictures} = this.#able;
    for (const [name, row] of Object.entries(rows)) row.hidden = !takes[name];
    if (!schedulers.length && model) rows.scheduler.hidden = true;
    more.hidden = IN_MORE.every((name) => rows[name].hidden);
    for (const [name, open] of [['steps', 'default'], ['seed', 'random'], ['cfg_scale', 'default'], ['strength', 'default']]) {
      of[name].disabled = !takes[name];
      of[name].placeholder = takes[name] ? defaults[name] ?? open : 'fixed';
    }
    for (const button of [this.parts.keep, this.parts.shuffle]) button.disabled = !takes.seed;
    of.n.max = maxPictures;
    const usual = defaults.scheduler ? `Default: ${defaults.scheduler}` : 'Default';
    const wanted = this.#wanted.scheduler;
    const names = schedulers.length || !wanted ? schedulers : [wanted];
    if (model && !names.includes(wanted)) this.#wanted.scheduler = '';
    choose(of.scheduler, [['', usual], ...names.map((name) => [name, name])], this.#wanted.scheduler);
  }

  /** The first problem of the form, shown at its field; false if there is none. */
  check() {
    this.clearProblems();
    this.note();
    const [first] = problems(this.read(), this.#able);
    if (first) this.showProblem(first);
    return Boolean(first);
  }

  clearProblems() {
    this.#problem = null;
    this.parts.alerts.replaceChildren();
    for (const control of Object.values(this.controls)) unmark(control);
  }

  /** An alert at the form, which marks the field that it is about. */
  showProblem({field, message}) {
    this.clearProblems();
    const box = alertBox({message});
    this.#problem = field;
    this.parts.alerts.replaceChildren(box);
    const control = field === 'references' ? this.references.button : this.controls[field];
    if (!control) return;
    box.id = 'form-problem';
    if (IN_MORE.includes(field)) this.parts.more.open = true;
    if (field !== 'references') {
      control.setAttribute('aria-invalid', 'true');
      control.setAttribute('aria-describedby', [...new Set([...describedBy(control), box.id])].join(' '));
    }
    control.focus();
  }

  /** Something that the person should know about what is in the form; no error. */
  note(...notes) {
    this.parts.notes.replaceChildren(...notes.map(({text, until}) => h('p.notice', {dir: 'auto', 'data-until': until}, text)));
  }

  /** `more`: some were added. */
  #referencesChanged(more) {
    const done = [more && 'reference', this.references.masked && 'mask'];
    for (const note of [...this.parts.notes.children]) if (done.includes(note.dataset.until)) note.remove();
    if (this.#problem === 'references') this.clearProblems();
    this.update();
  }

  /** Says why nothing can be sent right now; null if it can. */
  setFull(reason) {
    setText(this.parts.full, reason ?? '');
    if (reason) this.parts.button.setAttribute('aria-disabled', 'true');
    else this.parts.button.removeAttribute('aria-disabled');
  }
}

const describedBy = (control) => (control.getAttribute('aria-describedby') ?? '').split(' ').filter(Boolean);

function unmark(control) {
  if (control.getAttribute?.('aria-invalid') !== 'true') return;
  control.removeAttribute('aria-invalid');
  const others = describedBy(control).filter((id) => id !== 'form-problem');
  if (others.length) control.setAttribute('aria-describedby', others.join(' '));
  else control.removeAttribute('aria-describedby');
}

/** Fills a list, if it is not so already: an open one would close. */
function choose(select, options, value) {
  const key = JSON.stringify(options);
  if (select.dataset.key !== key) {
    select.dataset.key = key;
    select.replaceChildren(...options.map(([of, label]) => h('option', {value: of}, label)));
  }
  select.value = options.some(([of]) => of === value) ? value : '';
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

function controls() {
  const number = (name, more) => h('input', {id: `make-${name}`, type: 'number', inputmode: 'numeric', min: 0, step: 1, ...more});
  const text = (name, rows) => h('textarea', {id: `make-${name}`, rows, dir: 'auto'});
  const select = (name, more) => h('select', {id: `make-${name}`, ...more});
  return {
    prompt: text('prompt', 4),
    negative_prompt: text('negative', 1),
    model: select('model', {'aria-describedby': 'model-note'}),
    size: select('size'),
    width: number('width', {min: 64}),
    height: number('height', {min: 64}),
    steps: number('steps', {min: 1}),
    seed: number('seed'),
    n: number('n', {min: 1, max: 4}),
    cfg_scale: number('guidance', {inputmode: 'decimal', step: 0.5, min: 1, max: 30}),
    scheduler: select('scheduler'),
    strength: number('strength', {inputmode: 'decimal', step: 0.05, max: 1, 'aria-describedby': 'strength-note'}),
    loras: h('textarea', {id: 'make-loras', rows: 1, dir: 'auto', spellcheck: 'false', autocapitalize: 'none', placeholder: 'name: 0.8',
      'aria-describedby': 'loras-note'}),
  };
}

function parts(of, references) {
  const row = (label, control, ...more) => h('div.field', {}, h('label', {for: control.id}, label), control, ...more);
  const square = (label, name, properties) => h('button.square', {type: 'button', 'aria-label': label, title: label, ...properties}, icon(name));
  const keep = square('Keep the seed', 'unlock', {'aria-pressed': 'false'});
  const shuffle = square('New seed', 'dice');
  const about = h('p.note', {id: 'model-note', dir: 'auto'});
  const custom = h('div.pair', {hidden: true}, row('Width', of.width), row('Height', of.height));
  const rows = {
    negative_prompt: row('Negative prompt', of.negative_prompt),
    cfg_scale: row('Guidance', of.cfg_scale),
    scheduler: row('Scheduler', of.scheduler),
    strength: row('Strength', of.strength, h('p.note', {id: 'strength-note'}, '0 keeps the reference, 1 replaces it.')),
    loras: row('LoRAs', of.loras, h('p.note', {id: 'loras-note'}, 'One per line; the weight is 1 if left out.')),
  };
  const more = h('details.more', {}, h('summary', {}, 'More'),
    h('div.pair', {}, rows.cfg_scale, rows.scheduler), rows.strength, rows.loras);
  const seed = h('div.field', {}, h('label', {for: of.seed.id}, 'Seed'), h('div.with-button', {}, of.seed, keep, shuffle));
  const notes = h('div.notices');
  const alerts = h('div.alerts');
  const full = h('p.note.full', {id: 'full-note', 'aria-live': 'polite'});
  const button = h('button.primary', {'aria-describedby': full.id, title: 'Ctrl or ⌘ and Enter'}, 'Generate');
  const form = h('form.panel.make-form', {'aria-label': 'New picture', 'aria-busy': 'true', novalidate: true, autocomplete: 'off'},
    h('div.fields', {},
      row('Prompt', of.prompt), notes, references, rows.negative_prompt,
      row('Model', of.model, about),
      h('div.pair.size-row', {}, row('Size', of.size), row('Pictures', of.n)), custom,
      h('div.pair.seed-row', {}, row('Steps', of.steps), seed), more),
    h('div.foot', {}, alerts, full, button));
  return {form, rows, keep, shuffle, about, custom, more, notes, alerts, full, button};
}
