// The picture in the dialog: fitted, or in its own size to be moved about; swiped to the next one.
import {h} from '../dom.js';

const SWIPE = 48;

/** `step(by)` goes to another picture; `zoomed(on)` tells when that changed. */
export function pictureStage({step, zoomed}) {
  const stage = h('div.stage');
  let image = null;
  let isZoomed = false;
  let drag = null;
  let moved = false;

  function show({name, label, thumbnail}) {
    zoom(false);
    // Made anew each time: an element that exists shows its old picture until the new one has come.
    image = h('img.full', {alt: label, draggable: 'false'});
    const preview = thumbnail ? h('img.preview', {alt: '', 'aria-hidden': 'true', src: `/ui/thumbnails/${name}`}) : null;
    const own = image;
    const message = h('p.note', {hidden: true}, 'The picture could not be loaded. Close it and open it again.');
    image.addEventListener('load', () => own.parentElement?.querySelector('.preview')?.remove());
    image.addEventListener('error', () => {
      preview?.remove();
      own.hidden = true;
      message.hidden = false;
    });
    preview?.addEventListener('error', () => preview.remove());
    image.src = `/ui/images/${name}`;
    stage.replaceChildren(...[preview, image, message].filter(Boolean));
  }

  /** Nothing to see, or words instead. */
  function clear(words) {
    zoom(false);
    image = null;
    stage.replaceChildren(...(words ? [h('p', {}, words)] : []));
  }

  function zoom(on, x = 0.5, y = 0.5) {
    if (on === isZoomed || (on && !image?.naturalWidth)) return;
    isZoomed = on;
    stage.classList.toggle('zoomed', on);
    if (on) {
      image.style.width = `${image.naturalWidth}px`;
      image.style.height = `${image.naturalHeight}px`;
      stage.scrollTo({left: x * stage.scrollWidth - stage.clientWidth / 2, top: y * stage.scrollHeight - stage.clientHeight / 2, behavior: 'instant'});
      stage.tabIndex = 0;
      stage.setAttribute('role', 'region');
      stage.setAttribute('aria-label', 'Picture in its own size');
    } else {
      if (image) Object.assign(image.style, {width: '', height: ''});
      for (const name of ['tabindex', 'role', 'aria-label']) stage.removeAttribute(name);
    }
    zoomed(on);
  }

  stage.addEventListener('click', (event) => {
    if (!image || moved || event.target !== image) return;
    const box = image.getBoundingClientRect();
    zoom(!isZoomed, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  stage.addEventListener('pointerdown', (event) => {
    moved = false;
    if (!event.isPrimary) {
      // A second finger: a pinch, no swipe.
      drag = null;
      return;
    }
    if (event.button !== 0) return;
    drag = {id: event.pointerId, touch: event.pointerType !== 'mouse', x: event.clientX, y: event.clientY, left: stage.scrollLeft, top: stage.scrollTop};
  });
  stage.addEventListener('pointermove', (event) => {
    if (drag?.id !== event.pointerId) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!moved && Math.hypot(dx, dy) < 6) return;
    moved = true;
    // Fingers scroll by themselves.
    if (!isZoomed || drag.touch) return;
    stage.setPointerCapture(event.pointerId);
    stage.scrollTo({left: drag.left - dx, top: drag.top - dy, behavior: 'instant'});
  });
  stage.addEventListener('pointerup', (event) => {
    if (drag?.id !== event.pointerId) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    const isSwipe = drag.touch && !isZoomed && Math.abs(dx) > SWIPE && Math.abs(dx) > 2 * Math.abs(dy);
    drag = null;
    // A picture that the browser itself enlarged is moved about, too.
    if (isSwipe && !(globalThis.visualViewport?.scale > 1.05)) step(dx < 0 ? 1 : -1);
  });
  stage.addEventListener('pointercancel', () => { drag = null; });

  return {stage, show, clear, zoom, get isZoomed() { return isZoomed; }};
}
