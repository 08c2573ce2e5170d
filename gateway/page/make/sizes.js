// The sizes to choose from. Pure.

/** Width to height. The pixels are the model's own number. */
const SHAPES = [
  ['square', 'Square', 1, 1],
  ['portrait', 'Portrait 3:4', 3, 4],
  ['tall', 'Portrait 2:3', 2, 3],
  ['tallest', 'Portrait 9:16', 9, 16],
  ['landscape', 'Landscape 4:3', 4, 3],
  ['wide', 'Landscape 3:2', 3, 2],
  ['widest', 'Landscape 16:9', 16, 9],
];
export const CUSTOM = 'custom';
const SMALLEST = 64;

/** `{width, height}` of `1024x768`, else null. */
export function parseSize(text) {
  const match = /^(\d{1,5})x(\d{1,5})$/.exec(text ?? '');
  return match && {width: Number(match[1]), height: Number(match[2])};
}

/** As in `1024 × 768`. */
export function sizeText(text) {
  const size = parseSize(text);
  return size ? `${size.width} × ${size.height}` : text;
}

/** The entries of the list: `{value, label, shape}`. The value is what is sent; '' sends none. */
export function sizeChoices({takesSize, multiple, maxPixels, defaults, used}) {
  if (!takesSize) return [{value: '', label: used ? 'Decided by the references' : 'Decided by the model', shape: ''}];
  const usual = parseSize(defaults.size) ?? {width: 1024, height: 1024};
  const pixels = Math.min(usual.width * usual.height, maxPixels);
  const first = used ? 'Same as the picture'
    : `Default${defaults.size ? `: ${sizeText(defaults.size)}` : ''}`;
  const shapes = SHAPES.map(([shape, name, x, y]) => {
    const {width, height} = ofShape(x / y, pixels, multiple, maxPixels);
    return {value: `${width}x${height}`, label: `${name}: ${width} × ${height}`, shape};
  });
  return [{value: '', label: first, shape: ''}, ...shapes, {value: CUSTOM, label: 'Custom…', shape: CUSTOM}];
}

/** The size nearest to a ratio and a number of pixels whose sides are multiples. */
function ofShape(ratio, pixels, multiple, maxPixels) {
  const round = (length) => Math.max(Math.ceil(SMALLEST / multiple), Math.round(length / multiple)) * multiple;
  const size = {width: round(Math.sqrt(pixels * ratio)), height: round(Math.sqrt(pixels / ratio))};
  while (size.width * size.height > maxPixels) size[size.width >= size.height ? 'width' : 'height'] -= multiple;
  return size;
}

/** What to choose in `next` where `value` was chosen in `previous`: another model's size of the same shape. */
export function sameChoice(value, previous, next) {
  if (next.some((choice) => choice.value === value)) return value;
  const shape = previous.find((choice) => choice.value === value)?.shape;
  return (shape && next.find((choice) => choice.shape === shape)?.value) || '';
}

/** What is wrong with a width or a height, in words; null if nothing is. */
export function sideProblem(name, length, {multiple}) {
  if (!Number.isInteger(length) || length < SMALLEST) return `${name} must be a whole number of at least ${SMALLEST}.`;
  if (length % multiple === 0) return null;
  const below = Math.max(Math.ceil(SMALLEST / multiple), Math.floor(length / multiple)) * multiple;
  return `${name} must be a multiple of ${multiple}, such as ${below}${below < length ? ` or ${below + multiple}` : ''}.`;
}

export function areaProblem(width, height, {maxPixels}) {
  if (width * height <= maxPixels) return null;
  const side = Math.floor(Math.sqrt(maxPixels));
  return `${width} × ${height} is too large: at most ${side} × ${side}, or as many pixels in another shape.`;
}
