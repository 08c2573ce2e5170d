// Scales, paths and sums of the charts. Numbers in, text out: nothing here knows the page.

/** All charts are drawn on this grid and stretched to their place. Whole numbers on it are fine enough, and quick to write. */
export const WIDTH = 1200;
export const HEIGHT = 500;
export const SPAN_SECONDS = 600;
/** With a page open the card is read every second; one reading may be late, but a line across more would be invented. */
const MAX_STEP_SECONDS = 3.5;

/** Where a time lies, from the left edge; `end` is the right one. */
export const xAt = (at, end) => Math.round(WIDTH * (1 + (at - end) / SPAN_SECONDS));

/** Where a value lies, from the top. */
export function yAt(value, {low = 0, high}) {
  const share = (value - low) / (high - low);
  return Math.round(HEIGHT * (1 - Math.min(1, Math.max(0, share))));
}

/** A round end of an axis that holds `value`, and whose half is round as well. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].find((step) => step * unit >= value) * unit;
}

/** Readings that follow each other without a gap. Those without the value are gaps as well. */
export function runs(samples, valueOf, end) {
  const all = [];
  let current = null;
  let last = -Infinity;
  for (const sample of samples) {
    const value = valueOf(sample);
    if (value == null || sample.at < end - SPAN_SECONDS) {
      current = null;
      continue;
    }
    if (!current || sample.at - last > MAX_STEP_SECONDS) all.push(current = []);
    current.push([sample.at, value]);
    last = sample.at;
  }
  return all;
}

/** The points of a run; those in the middle of a level stretch are left out. */
function points(part, axis, end) {
  let path = '';
  let level = null;
  let skipped = null;
  for (const [at, value] of part) {
    const [x, y] = [xAt(at, end), yAt(value, axis)];
    if (y === level) {
      skipped = x;
      continue;
    }
    if (skipped !== null) path += `H${skipped}`;
    path += level === null ? `${x} ${y}` : `L${x} ${y}`;
    level = y;
    skipped = null;
  }
  return skipped === null ? path : `${path}H${skipped}`;
}

/** A line through each run of two and more. */
export function linePath(parts, axis, end) {
  let path = '';
  for (const part of parts) if (part.length > 1) path += `M${points(part, axis, end)}`;
  return path;
}

/** A dot for each reading on its own: a line of no length, which round ends make visible. */
export function dotPath(parts, axis, end) {
  return parts.filter(({length}) => length === 1)
    .map(([[at, value]]) => `M${xAt(at, end)} ${yAt(value, axis)}h0`).join('');
}

/** The area from the bottom to each value. A reading on its own is a thin bar. */
export function areaPath(parts, axis, end) {
  let path = '';
  for (const part of parts) {
    const [first, last] = [xAt(part[0][0], end), xAt(part.at(-1)[0], end)];
    if (part.length > 1) path += `M${points(part, axis, end)}V${HEIGHT}H${first}Z`;
    else path += `M${last - 4} ${yAt(part[0][1], axis)}H${last}V${HEIGHT}h-4Z`;
  }
  return path;
}

const takesNone = ({status}) => status === 'not_ready' || status === 'unreachable';

/** The times in which no pictures were taken, over the whole height. */
export function notReadyPath(samples, end) {
  let path = '';
  let from = null;
  const close = (to) => {
    if (from !== null) path += `M${from} 0H${Math.max(to, from + 2)}V${HEIGHT}H${from}Z`;
    from = null;
  };
  let previous = null;
  for (const sample of samples) {
    if (sample.at < end - SPAN_SECONDS) continue;
    const x = xAt(sample.at, end);
    if (previous && sample.at - previous.at > MAX_STEP_SECONDS) close(xAt(previous.at, end));
    if (takesNone(sample)) from ??= x;
    else close(x);
    previous = sample;
  }
  if (previous) close(xAt(previous.at, end));
  return path;
}

/** The sample nearest to a time, or null if the nearest is far from it. */
export function nearest(samples, at, within = MAX_STEP_SECONDS) {
  let low = 0;
  let high = samples.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (samples[middle].at < at) low = middle + 1;
    else high = middle;
  }
  const near = [samples[low - 1], samples[low]].filter((sample) => sample && Math.abs(sample.at - at) <= within);
  return near.sort((one, other) => Math.abs(one.at - at) - Math.abs(other.at - at))[0] ?? null;
}

/** The newest, lowest and highest value; null if there is none. */
export function range(samples, valueOf) {
  let found = null;
  for (const sample of samples) {
    const value = valueOf(sample);
    if (value == null) continue;
    found ??= {low: value, high: value};
    if (value < found.low) found.low = value;
    if (value > found.high) found.high = value;
    found.last = value;
  }
  return found;
}

/** Samples for a table: the newest, and one for each step of time before it. */
export function thinned(samples, step = 30) {
  const kept = [];
  for (let i = samples.length - 1; i >= 0; i -= 1) {
    if (!kept.length || kept.at(-1).at - samples[i].at >= step - 0.5) kept.push(samples[i]);
  }
  return kept;
}
