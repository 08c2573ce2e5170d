// The newest pictures of the store, shown until this tab has results of its own.
import {api} from '../api.js';
import {h} from '../dom.js';

const MOST = 12;

/** `{element, load}`: hidden until `load()` has found pictures. */
export function latestPictures() {
  const list = h('ul', {'aria-label': 'Latest pictures', role: 'list'});
  const element = h('section.latest', {'aria-labelledby': 'latest-title', hidden: true},
    h('div.latest-head', {}, h('h2', {id: 'latest-title'}, 'Latest'), h('a.button.quiet', {href: '#gallery'}, 'All pictures')), list);
  return {
    element,
    async load() {
      // Without them nothing is missing: the gallery says what is wrong.
      const found = await api(`/v1/gateway/images?limit=${MOST}`).catch(() => null);
      if (!found) return;
      list.replaceChildren(...found.data.map(entry));
      element.hidden = !found.data.length;
    },
  };
}

function entry({name, prompt, thumbnail}) {
  const image = h('img', {src: thumbnail ?? `/ui/images/${name}`, alt: prompt || 'Picture', title: prompt, dir: 'auto',
    width: 384, height: 384, loading: 'lazy', decoding: 'async'});
  image.addEventListener('error', () => { image.src = `/ui/images/${name}`; }, {once: true});
  return h('li', {}, h('a', {href: `#gallery/${name}`}, image));
}
