// What outlives a reload: in this tab (`sessionStorage`) or in this browser (`localStorage`). Browsers may refuse both.
import {session} from '../session.js';

export function recallText(area, key) {
  try {
    return window[area].getItem(key);
  } catch {
    return null;
  }
}

export function recallObject(area, key) {
  try {
    const value = JSON.parse(recallText(area, key));
    return value && typeof value === 'object' ? value : {};
  } catch {
    return {};
  }
}

export function rememberText(area, key, text) {
  // Signing out has just forgotten everything.
  if (!session.signedIn) return;
  try {
    window[area].setItem(key, text);
  } catch {
    // Full or refused: it is then forgotten with the page.
  }
}
