// Painting a mask: what of a picture is to be made anew.
import {h} from './dom.js';
import {MaskDialog} from './mask/dialog.js';

/**
 * Opens the editor over a picture (a Blob, or an address of this page). `previous` is a mask made before, or null.
 * Resolves to a PNG of the picture's size, transparent where painted; to null if the person cancels; to 'clear' if the mask is
 * to go. Rejects if the picture cannot be shown.
 */
export async function paintMask(source, previous = null) {
  const image = await load(source);
  const earlier = previous && await load(previous).catch(() => null);
  try {
    return await new Promise((resolve) => {
      const dialog = new MaskDialog(image.element, earlier?.element, (result) => {
        removeEventListener('hashchange', leave);
        resolve(result);
        // Closing tells of itself; it is settled by then.
        if (dialog.root.isConnected) dialog.close();
      });
      // Another place is shown: nobody is left to take the mask.
      const leave = () => dialog.finish(null);
      addEventListener('hashchange', leave);
      dialog.open();
    });
  } finally {
    image.release();
    earlier?.release();
  }
}

async function load(source) {
  const address = typeof source === 'string' ? source : URL.createObjectURL(source);
  const release = () => {
    element.removeAttribute('src');
    if (address !== source) URL.revokeObjectURL(address);
  };
  const element = h('img', {alt: '', draggable: 'false', src: address});
  try {
    await element.decode();
    if (!element.naturalWidth) throw new Error();
    return {element, release};
  } catch {
    release();
    throw new Error('this browser cannot show the picture.');
  }
}
