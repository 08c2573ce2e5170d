// PNG files as the tests need them: patterns of two hundred colours, in no time, each with bytes of its own.

import zlib from 'node:zlib';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const PALETTE = 3;

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(zlib.crc32(body));
  return Buffer.concat([length, body, sum]);
}

/** Makes pictures of one size and pattern: `(hue) => bytes`, each in colours of its own. */
export function pictureMaker(width, height) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, PALETTE, 0, 0, 0], 8);
  const rows = Buffer.alloc((width + 1) * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const [dx, dy] = [x / width - 0.5, y / height - 0.62];
      const ring = Math.hypot(dx, dy) * 2;
      rows[y * (width + 1) + 1 + x] = 127.5 + 127.5 * Math.sin(ring * 9 + Math.atan2(dy, dx) * 2);
    }
  }
  const body = chunk('IDAT', zlib.deflateSync(rows));
  const head = Buffer.concat([SIGNATURE, chunk('IHDR', header)]);
  const end = chunk('IEND', Buffer.alloc(0));
  return (hue) => Buffer.concat([head, chunk('PLTE', palette(hue)), body, end]);
}

function palette(hue) {
  const colours = Buffer.alloc(256 * 3);
  for (let index = 0; index < 256; index += 1) {
    const light = 0.25 + 0.6 * (index / 255);
    for (const [part, shift] of [0, 1 / 3, 2 / 3].entries()) {
      const turn = (hue + shift + index / 900) * 2 * Math.PI;
      colours[index * 3 + part] = Math.round(255 * light * (0.72 + 0.28 * Math.sin(turn)));
    }
  }
  // What tells pictures of nearly the same hue apart.
  colours.writeUInt16BE(Math.floor(hue * 65_521) % 65_536, 0);
  return colours;
}
