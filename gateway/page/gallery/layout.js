// Where the cells of the grid are, and where keys lead. No DOM.

/** At most this many pictures are listed: beyond, people filter. Bounds the page's memory and height. */
export const MOST_PICTURES = 20_000;

/** Square cells of at least `least` pixels fill the width. */
export function gridLayout(width, least, gap) {
  const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
  return {columns, cell: Math.max(1, (width - gap * (columns - 1)) / columns), gap};
}

export function gridHeight({columns, cell, gap}, count) {
  const rows = Math.ceil(count / columns);
  return rows ? rows * (cell + gap) - gap : 0;
}

export function cellPosition({columns, cell, gap}, index) {
  return {x: (index % columns) * (cell + gap), y: Math.floor(index / columns) * (cell + gap)};
}

/** The cells (`from` up to, not including, `until`) of the rows that touch `top`..`bottom`. */
export function cellRange({columns, cell, gap}, count, top, bottom) {
  const from = Math.max(0, Math.floor(top / (cell + gap))) * columns;
  const until = Math.min(count, Math.max(0, Math.ceil((bottom + gap) / (cell + gap))) * columns);
  return {from: Math.min(from, count), until: Math.max(until, Math.min(from, count))};
}

/** The index that a key leads to from `index`; null if the key leads nowhere. */
export function keyTarget(key, index, {columns, cell, gap}, count, viewHeight) {
  const rows = Math.max(1, Math.floor(viewHeight / (cell + gap))) * columns;
  const targets = {
    ArrowLeft: index - 1,
    ArrowRight: index + 1,
    ArrowUp: index - columns,
    ArrowDown: index + columns,
    Home: 0,
    End: count - 1,
    // The same column as far as there is one.
    PageUp: index - Math.min(rows, Math.floor(index / columns) * columns),
    PageDown: index + Math.min(rows, Math.floor((count - 1 - index) / columns) * columns),
  };
  const target = targets[key];
  return target >= 0 && target < count && target !== index ? target : null;
}
