// Deleting with a way back: the picture goes from view at once, the request is sent some seconds later.
import {api, ApiError} from '../api.js';
import {toast} from '../dom.js';
import {session} from '../session.js';

const SECONDS = 6;
/** Those not sent yet: name → `{token, timer, closeToast}`. */
const waiting = new Map();

const path = (name) => `/v1/gateway/images/${name}`;

/** `hide()` takes the picture out of view and returns what puts it back; `done()` and `failed(error)` tell the end. */
export function deleteLater(name, {hide, restored, done, failed}) {
  if (waiting.has(name)) return;
  const restore = hide();
  const undo = () => {
    clearTimeout(waiting.get(name)?.timer);
    waiting.delete(name);
    restore();
    restored();
  };
  const send = async () => {
    waiting.get(name)?.closeToast();
    waiting.delete(name);
    try {
      await api(path(name), {method: 'DELETE'});
    } catch (error) {
      // Deleted elsewhere meanwhile: what was wanted.
      if (!(error instanceof ApiError && error.status === 404)) {
        restore();
        failed(error);
        return;
      }
    }
    done();
  };
  const closeToast = toast('Deleted', {action: 'Undo', onaction: undo, seconds: SECONDS});
  // The token is kept: signing out forgets it before the page is left.
  waiting.set(name, {token: session.token, timer: setTimeout(send, SECONDS * 1000), closeToast});
}

/** The page is left: there is no way back any more. */
function sendAll() {
  for (const [name, {token, timer, closeToast}] of waiting) {
    clearTimeout(timer);
    closeToast();
    const headers = token ? {Authorization: `Bearer ${token}`} : {};
    fetch(path(name), {method: 'DELETE', headers, keepalive: true, redirect: 'error'}).catch(() => {});
  }
  waiting.clear();
}

addEventListener('pagehide', sendAll);
