// Making and changing elements. Nothing here, or anywhere in the page, parses text as HTML.

/** An element: `h('a.big', {href: '#x', onclick: f}, 'text', child)`. Null and false children are left out. */
export function h(selector, properties = {}, ...children) {
  const [tag, ...classes] = selector.split('.');
  const element = document.createElement(tag || 'div');
  if (classes.length) element.className = classes.join(' ');
  for (const [name, value] of Object.entries(properties)) set(element, name, value);
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

function set(element, name, value) {
  if (value == null || value === false) return;
  if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
  else if (name === 'class') element.className = value;
  else element.setAttribute(name, value === true ? '' : String(value));
}

const SVG = 'http://www.w3.org/2000/svg';

/** The same for SVG; attributes only. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Paths on a 24 x 24 grid, drawn as lines.
const ICONS = {
  add: 'M12 5v14M5 12h14',
  brush: 'M14 5l5 5L9.500 19.500H4.500v-5zM12 7l5 5',
  cancel: 'M6 6l12 12M18 6L6 18',
  check: 'M5 12.500l4.500 4.500L19 7.500',
  clear: 'M5 7h14M9 7V4.500h6V7M7 7l1 12.500h8L17 7',
  copy: 'M9 9h10v10H9zM5 15V5h10',
  download: 'M12 4v11m-4.500-4.500L12 15l4.500-4.500M5 19.500h14',
  dice: 'M5 5h14v14H5zM9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01',
  eraser: 'M8 19h11M4.500 14.500l9-9 6 6-7.500 7.500H8z',
  lock: 'M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 017 0v3',
  next: 'M9 5l7 7-7 7',
  previous: 'M15 5l-7 7 7 7',
  redo: 'M19 8v5h-5M18.500 13a7 7 0 10-2 5',
  repeat: 'M4 12a8 8 0 0114-5.300L20 9M20 4v5h-5M20 12a8 8 0 01-14 5.300L4 15M4 20v-5h5',
  rectangle: 'M4 6h16v12H4zM2.500 4.500h3v3h-3zM18.500 16.500h3v3h-3z',
  unlock: 'M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 016.700-1.400',
  undo: 'M5 8v5h5M5.500 13a7 7 0 112 5',
  warning: 'M12 4l9 16H3zM12 10v4M12 17h.01',
  zoomIn: 'M10.500 4a6.500 6.500 0 100 13 6.500 6.500 0 000-13zM15.500 15.500L20 20M10.500 7.500v6M7.500 10.500h6',
  zoomOut: 'M10.500 4a6.500 6.500 0 100 13 6.500 6.500 0 000-13zM15.500 15.500L20 20M7.500 10.500h6',
};

/** A decorative icon. The button around it has the name. */
export function icon(name) {
  return svg('svg', {class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true'}, svg('path', {d: ICONS[name]}));
}

/** Changes an element's text only if it differs, so that screen readers are not told the same twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows a message for a few seconds, with an optional button. Returns a function that removes it. */
export function toast(message, {action, onaction, seconds = 6} = {}) {
  const remove = () => {
    clearTimeout(timer);
    element.remove();
  };
  const button = action && h('button', {type: 'button', onclick: () => { remove(); onaction(); }}, action);
  const element = h('div.toast', {}, h('span', {dir: 'auto'}, message), button);
  const timer = setTimeout(remove, seconds * 1000);
  document.getElementById('toasts').append(element);
  return remove;
}

/** An alert with the message of an error, what else is known, and a button to close it. */
export function alertBox(error, extra = []) {
  const box = h('div.alert', {role: 'alert'},
    icon('warning'),
    h('div', {}, h('p', {dir: 'auto'}, error.message), ...extra),
    h('button.quiet', {type: 'button', 'aria-label': 'Close message', onclick: () => box.remove()}, icon('cancel')));
  return box;
}
