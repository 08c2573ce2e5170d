// Where things lie while a mask is painted. A view is `{scale, x, y}`: pixels of the screen for one of the picture, and where
// the picture's corner lies in the viewport. Pure.

const MARGIN = 16;
const WORK_PIXELS = 4e6;
const NARROWEST = 8;

const between = (low, value, high) => Math.min(Math.max(value, low), Math.max(low, high));

/** The whole picture in the middle of the viewport; small pictures are enlarged, to be painted on. */
export function fit(picture, viewport) {
  const scale = between(0.001, Math.min((viewport.width - 2 * MARGIN) / picture.width, (viewport.height - 2 * MARGIN) / picture.height), 4);
  return {scale, x: (viewport.width - picture.width * scale) / 2, y: (viewport.height - picture.height * scale) / 2};
}

/** Some of the picture stays in the middle, wherever it is moved: its border can be painted past. */
export function clampView(view, picture, viewport) {
  const place = (offset, length, room) => between(room / 2 - length * view.scale, offset, room / 2);
  return {...view, x: place(view.x, picture.width, viewport.width), y: place(view.y, picture.height, viewport.height)};
}

/** Zooms by a factor, with the point of the viewport where it is. */
export function zoomAt(view, factor, point, picture, viewport) {
  const whole = fit(picture, viewport).scale;
  const scale = between(Math.min(whole, 1) / 2, view.scale * factor, Math.max(8, whole));
  const ratio = scale / view.scale;
  const moved = {scale, x: point.x - (point.x - view.x) * ratio, y: point.y - (point.y - view.y) * ratio};
  return clampView(moved, picture, viewport);
}

export const toPicture = (view, point) => ({x: (point.x - view.x) / view.scale, y: (point.y - view.y) / view.scale});

/** How large the layer is while painting, beside the picture: large pictures are exact when they are handed over only. */
export const workScale = ({width, height}) => Math.min(1, Math.sqrt(WORK_PIXELS / (width * height)));

/** Widths of the brush, each somewhat larger than the one before. */
export function brushSizes({width, height}) {
  const most = Math.max(16, Math.round(Math.max(width, height) / 2));
  const sizes = [];
  for (let size = 2; size < most; size = Math.max(size + 1, Math.round(size * 1.12))) sizes.push(size);
  return [...sizes, most];
}

/** The place in `sizes` of the one that is next to a twelfth of the picture. */
export function usualSize(sizes, {width, height}) {
  const wanted = Math.max(width, height) / 12;
  const nth = sizes.findIndex((size) => size >= wanted);
  return nth === -1 ? sizes.length - 1 : nth;
}

/** Adds a point to a stroke unless it lies on the last one. Tenths of a pixel are enough. */
export function addPoint(points, {x, y}, least) {
  const [lastX, lastY] = points.slice(-2);
  if (points.length && Math.hypot(x - lastX, y - lastY) < least) return false;
  points.push(Math.round(x * 10) / 10, Math.round(y * 10) / 10);
  return true;
}

/** The same rectangle in whole pixels, inside the picture. */
export function clampRectangle({left, top, width, height}, picture) {
  const side = (value, most) => between(1, Math.round(value) || 1, most);
  const [w, h] = [side(width, picture.width), side(height, picture.height)];
  const edge = (value, most) => between(0, Math.round(value) || 0, most);
  return {left: edge(left, picture.width - w), top: edge(top, picture.height - h), width: w, height: h};
}

/** A rectangle in the middle of what is seen. */
export function newRectangle(view, viewport, picture) {
  const corner = toPicture(view, {x: 0, y: 0});
  const end = toPicture(view, {x: viewport.width, y: viewport.height});
  const part = (from, to, most) => {
    const [low, high] = [between(0, from, most), between(0, to, most)];
    const length = Math.max(NARROWEST, (high - low) / 2);
    return [(low + high - length) / 2, length];
  };
  const [left, width] = part(corner.x, end.x, picture.width);
  const [top, height] = part(corner.y, end.y, picture.height);
  return clampRectangle({left, top, width, height}, picture);
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

/** The way of an arrow key, or null. */
export const arrow = (key) => ARROWS[key] ?? null;

/** What an arrow does to a rectangle: 8 pixels, with Alt 1; with Shift to its size. Null for other keys. */
export function nudge(rectangle, {key, shiftKey, altKey}, picture) {
  if (!ARROWS[key]) return null;
  const [x, y] = ARROWS[key].map((way) => way * (altKey ? 1 : 8));
  if (!shiftKey) return clampRectangle({...rectangle, left: rectangle.left + x, top: rectangle.top + y}, picture);
  // The corner stays where it is, at the picture's border, too.
  const width = between(1, rectangle.width + x, picture.width - rectangle.left);
  const height = between(1, rectangle.height + y, picture.height - rectangle.top);
  return clampRectangle({...rectangle, width, height}, picture);
}

/** Two fingers: their middle and how far they are from each other. */
export function pinch([one, other]) {
  return {x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, distance: Math.max(1, Math.hypot(one.x - other.x, one.y - other.y))};
}
