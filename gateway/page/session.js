// The token. It lives in this tab, or, if the person asks for it, in this browser; never in an address that is sent.

const KEY = 'token';
const NOTICE = 'notice';
let token = read();

function read() {
  return storage('sessionStorage')?.getItem(KEY) ?? storage('localStorage')?.getItem(KEY) ?? null;
}

/** Browsers may refuse storage; the token then lives as long as the page. */
function storage(name) {
  try {
    return window[name];
  } catch {
    return null;
  }
}

export const session = {
  /** No token is needed: the gateway runs without. */
  open: document.documentElement.dataset.auth === 'off',
  get token() {
    return token;
  },
  get signedIn() {
    return this.open || token !== null;
  },
  signIn(value, remember) {
    token = value;
    storage(remember ? 'localStorage' : 'sessionStorage')?.setItem(KEY, value);
  },
  /** Another token is about to take its place. */
  forget() {
    token = null;
    storage('sessionStorage')?.clear();
    storage('localStorage')?.clear();
  },
  /** Forgets everything and starts the page anew: what is on it was this token's. `notice` is shown by the form. */
  signOut(notice) {
    this.forget();
    if (notice) storage('sessionStorage')?.setItem(NOTICE, notice);
    location.reload();
  },
  /** Why the form is shown again; once. */
  takeNotice() {
    const notice = storage('sessionStorage')?.getItem(NOTICE) ?? null;
    storage('sessionStorage')?.removeItem(NOTICE);
    return notice;
  },
};

// Another tab signed in or out: what this one keeps is of the token before.
addEventListener('storage', (event) => {
  if (event.storageArea === storage('localStorage') && (event.key === KEY || event.key === null) && read() !== token) {
    storage('sessionStorage')?.clear();
    location.reload();
  }
});

/** The token in the address (`#token=…`, as in the code that `gateway token new` shows), which is taken out at once. */
export function takeTokenFromAddress() {
  const match = /^#token=([^&]+)$/.exec(location.hash);
  if (!match) return null;
  history.replaceState(null, '', location.pathname);
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return match[1];
  }
}
