// Puts text on the clipboard, on plain http too, where browsers have no `navigator.clipboard`.

/** Whether it worked. `near` is an element of the dialog or place that is in use: nothing else can be selected then. */
export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text, near);
  }
}

function copySelected(text, near) {
  const focused = document.activeElement;
  const area = document.createElement('textarea');
  area.className = 'visually-hidden';
  area.value = text;
  area.readOnly = true;
  near.append(area);
  area.select();
  try {
    return document.execCommand('copy');
  } catch {
    return false;
  } finally {
    area.remove();
    focused?.focus({preventScroll: true});
  }
}
