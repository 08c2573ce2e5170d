// The mask at the picture's own size, made of its strokes, strip by strip.
import {h} from '../dom.js';
import {replay} from './paint.js';
import {maskRows, png} from './png.js';

const STRIP_PIXELS = 1 << 20;

/** A PNG that is transparent where painted; null if nothing is. */
export async function exportMask(operations, picture) {
  let count = 0;
  const parts = async function* strips() {
    const rows = Math.max(1, Math.floor(STRIP_PIXELS / picture.width));
    const canvas = h('canvas', {width: picture.width, height: Math.min(rows, picture.height)});
    const context = canvas.getContext('2d', {willReadFrequently: true});
    for (let top = 0; top < picture.height; top += rows) {
      const height = Math.min(rows, picture.height - top);
      context.setTransform(1, 0, 0, 1, 0, -top);
      replay(context, operations, picture);
      const strip = maskRows(context.getImageData(0, 0, picture.width, height).data, picture.width);
      count += strip.count;
      yield strip.rows;
      // The page stays alive meanwhile.
      await new Promise((resolve) => { setTimeout(resolve); });
    }
    canvas.width = 0;
  };
  const file = await png(picture.width, picture.height, parts());
  return count ? file : null;
}
