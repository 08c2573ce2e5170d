// Writes a mask as PNG, some rows at a time: a canvas of 40 megapixels would be too large for a phone.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const RGBA = 6;

const CRC = Uint32Array.from({length: 256}, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

function chunk(type, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set([...type].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, crc(bytes.subarray(4, content.length + 8)));
  return bytes;
}

/**
 * Rows of a PNG in RGBA from how painted each pixel is (RGBA rows, of which the alpha counts): transparent where it is painted
 * by half and more, opaque black elsewhere. Also says how many pixels are painted.
 */
export function maskRows(painted, width) {
  const height = painted.length / 4 / width;
  const rows = new Uint8Array(height * (width * 4 + 1));
  let count = 0;
  for (let y = 0, to = 0, from = 3; y < height; y += 1) {
    // Each row begins with its filter, none.
    to += 1;
    for (let x = 0; x < width; x += 1, from += 4, to += 4) {
      if (painted[from] >= 128) count += 1;
      else rows[to + 3] = 255;
    }
  }
  return {rows, count};
}

/** The file, of rows as `maskRows` makes them. `parts` may be async and makes them one after the other. */
export async function png(width, height, parts) {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, RGBA], 8);
  const deflate = new CompressionStream('deflate');
  const compressed = new Response(deflate.readable).arrayBuffer();
  const writer = deflate.writable.getWriter();
  for await (const rows of parts) await writer.write(rows);
  await writer.close();
  const content = new Uint8Array(await compressed);
  return new Blob([Uint8Array.from(SIGNATURE), chunk('IHDR', header), chunk('IDAT', content), chunk('IEND', [])], {type: 'image/png'});
}
