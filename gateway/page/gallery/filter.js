// The filter above the pictures: words, model and day. It lives as long as the page.
import {h, icon, setText} from '../dom.js';
import {imageModels, onModels} from '../models.js';
import {isFiltering} from './query.js';

const DEBOUNCE_MS = 250;

/** `changed(filter)` is called some time after the person changed it. */
export function filterBar(changed) {
  const search = h('input', {type: 'search', id: 'gallery-search', autocomplete: 'off', spellcheck: 'false', dir: 'auto', maxlength: 200,
    placeholder: 'Words of the prompt'});
  const model = h('select', {id: 'gallery-model'}, h('option', {value: ''}, 'All models'));
  const day = h('input', {type: 'date', id: 'gallery-day'});
  const clear = h('button.quiet', {type: 'button', hidden: true, onclick: reset}, icon('cancel'), 'Clear filter');
  const count = h('p.note', {role: 'status'});
  const bar = h('form.gallery-filter', {role: 'search', 'aria-label': 'Pictures', onsubmit: now},
    field('Search', search), field('Model', model), field('Day', day), h('div.gallery-count', {}, clear, count));
  let timer = null;
  let last = '';

  const value = () => ({text: search.value, model: model.value, day: day.value});
  function tell() {
    clearTimeout(timer);
    const key = JSON.stringify(value());
    clear.hidden = !isFiltering(value());
    if (key === last) return;
    last = key;
    changed(value());
  }
  function now(event) {
    event.preventDefault();
    tell();
  }
  function later() {
    clearTimeout(timer);
    timer = setTimeout(tell, DEBOUNCE_MS);
  }
  function reset() {
    search.value = '';
    model.value = '';
    day.value = '';
    tell();
    search.focus();
  }
  search.addEventListener('input', later);
  day.addEventListener('input', later);
  model.addEventListener('change', tell);

  last = JSON.stringify(value());
  const models = new Set();
  /** Pictures may be of models that are there no more. */
  const offer = (names) => {
    const fresh = names.filter((name) => name && !models.has(name) && models.size < 200);
    if (!fresh.length) return;
    for (const name of fresh) models.add(name);
    const options = [...models].sort((one, other) => one.localeCompare(other)).map((name) => h('option', {value: name, dir: 'auto'}, name));
    const chosen = model.value;
    model.replaceChildren(model.firstChild, ...options);
    model.value = chosen;
  };
  offer(imageModels().map(({id}) => id));
  onModels((all) => offer(all.map(({id}) => id)));
  return {bar, reset, offer, value, say: (text) => setText(count, text)};
}

const field = (name, control) => h('div.field', {}, h('label', {for: control.id}, name), control);
