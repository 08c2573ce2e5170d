// Starts the page: who is signed in, and which of the three places is shown.
import {api} from './api.js';
import {alertBox, setText, toast} from './dom.js';
import {live} from './live.js';
import {session, takeTokenFromAddress} from './session.js';

const PLACES = {
  make: () => import('./make.js'),
  gallery: () => import('./gallery.js'),
  status: () => import('./status.js'),
};
const CONNECTION = {
  closed: '',
  connecting: '',
  open: '',
  paused: '',
  lost: 'The gateway does not answer. Retrying…',
  refused: '',
};

const element = (id) => document.getElementById(id);
const mounted = new Map();
let current = null;

/** The place and what comes behind it: `#gallery/NAME`. */
function address() {
  const [place, ...rest] = location.hash.slice(1).split('/');
  return place in PLACES ? {place, argument: rest.join('/') || null} : {place: 'make', argument: null};
}

async function show() {
  // The link that skips the navigation is no place.
  if (location.hash === '#main' && current) return;
  const signedIn = session.signedIn;
  element('sign-in').hidden = signedIn;
  element('sign-out').hidden = !signedIn || session.open;
  document.body.classList.toggle('signed-out', !signedIn);
  if (!signedIn) {
    for (const place of Object.keys(PLACES)) element(place).hidden = true;
    await leave();
    element('token').focus();
    return;
  }
  const {place, argument} = address();
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === `#${place}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${place[0].toUpperCase()}${place.slice(1)} · Pictures`;
  if (current !== place) {
    await leave();
    for (const other of Object.keys(PLACES)) element(other).hidden = other !== place;
    current = place;
  }
  if (!mounted.has(place)) mounted.set(place, mount(place));
  const module = await mounted.get(place);
  if (current === place) module?.show?.(argument);
}

async function mount(place) {
  try {
    const module = await PLACES[place]();
    module.mount(element(place));
    return module;
  } catch (error) {
    mounted.delete(place);
    // A new version may have replaced the files of this page.
    toast(`This part of the page could not be loaded: ${error.message}`, {
      action: 'Reload',
      onaction: () => location.reload(),
      seconds: 60,
    });
    return null;
  }
}

async function leave() {
  if (current) (await mounted.get(current))?.hide?.();
  current = null;
}

/** Checks a token before it is kept, so that a wrong one is said at once. */
async function signIn(token, remember) {
  const form = element('sign-in-form');
  const alerts = element('sign-in-alerts');
  const button = element('sign-in-button');
  alerts.replaceChildren();
  // A pasted token often brings a line break, or quotes.
  const clean = token.trim().replace(/^(["'])(.*)\1$/, '$2');
  const sendable = /^[\x21-\x7e]+$/.test(clean);
  button.disabled = true;
  try {
    if (!sendable) throw new Error('This is not a token: tokens have no spaces and only ASCII characters.');
    await api('/v1/gateway/status', {headers: {Authorization: `Bearer ${clean}`}});
    form.reset();
    session.signIn(clean, remember);
    live.start();
    await show();
  } catch (error) {
    const message = error.status === 401
      ? 'The gateway does not know this token. Check that it was copied whole, or make one with “gateway token new NAME”.'
      : error.message;
    alerts.append(alertBox({message}));
    element('token').focus();
  } finally {
    button.disabled = false;
  }
}

function listen() {
  element('sign-in-form').addEventListener('submit', (event) => {
    event.preventDefault();
    signIn(element('token').value, element('remember').checked);
  });
  element('show-token').addEventListener('click', ({currentTarget}) => {
    const shown = !element('token').classList.toggle('masked');
    currentTarget.setAttribute('aria-pressed', shown);
  });
  element('sign-out').addEventListener('click', () => session.signOut());
  live.on('state', (state) => {
    setText(element('connection'), CONNECTION[state]);
    element('connection').classList.toggle('lost', state === 'lost');
    if (state === 'refused' && !session.open) {
      session.signOut('The gateway does not accept this token any more. Sign in with another one.');
    }
  });
  addEventListener('hashchange', () => {
    // A code that was scanned while the page is open.
    if (location.hash.startsWith('#token=')) location.reload();
    else show();
  });
}

listen();
const token = takeTokenFromAddress();
if (token) session.forget();
if (session.signedIn) live.start();
await show();
if (token) await signIn(token, false);
const notice = session.takeNotice();
if (notice) element('sign-in-alerts').replaceChildren(alertBox({message: notice}));
