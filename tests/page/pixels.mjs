// Pictures compared as they are seen: decoded by the browser, pixel for pixel.

/** How two pictures differ: sizes, the number of pixels that do, and the box around these (null if none). */
export async function difference(browser, one, other) {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    return await page.evaluate(compare, [one, other].map((bytes) => bytes.toString('base64')));
  } finally {
    await context.close();
  }
}

async function compare(pictures) {
  const decode = async (base64) => {
    const blob = new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))]);
    const picture = await createImageBitmap(blob, {colorSpaceConversion: 'none', premultiplyAlpha: 'none'});
    const canvas = new OffscreenCanvas(picture.width, picture.height);
    const drawing = canvas.getContext('2d');
    drawing.drawImage(picture, 0, 0);
    return drawing.getImageData(0, 0, picture.width, picture.height);
  };
  const [a, b] = await Promise.all(pictures.map(decode));
  const sizes = [a, b].map(({width, height}) => `${width}x${height}`);
  if (sizes[0] !== sizes[1]) return {sizes, count: Infinity, box: null};
  let count = 0;
  const box = {left: Infinity, top: Infinity, right: -1, bottom: -1};
  for (let pixel = 0; pixel < a.width * a.height; pixel += 1) {
    const at = pixel * 4;
    if (a.data[at] === b.data[at] && a.data[at + 1] === b.data[at + 1] && a.data[at + 2] === b.data[at + 2]) continue;
    const [x, y] = [pixel % a.width, Math.floor(pixel / a.width)];
    count += 1;
    Object.assign(box, {left: Math.min(box.left, x), top: Math.min(box.top, y), right: Math.max(box.right, x), bottom: Math.max(box.bottom, y)});
  }
  return {sizes, count, box: count ? box : null};
}
