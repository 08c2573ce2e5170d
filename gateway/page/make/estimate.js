// How long a picture takes, from what the same model took before. Pure.
import {duration} from '../format.js';
import {parseSize} from './sizes.js';

const KEEP = 60;

/** What decides how long it takes. `size` is what it has if none was asked for. */
export function workOf(asked, able, size = able.defaults.size) {
  const {width, height} = parseSize(asked.size ?? size) ?? {width: 0, height: 0};
  return {
    model: asked.model ?? '',
    task: able.task,
    pixels: Math.min(width * height, able.maxPixels),
    steps: asked.steps ?? able.defaults.steps ?? 0,
    n: asked.n ?? 1,
  };
}

const keyOf = ({model, task, pixels, steps}) => [model, task, pixels, steps].join('|');

/** The times with one more; the oldest go first. Newer ones count more: a model is loaded only once. */
export function learn(times, work, seconds) {
  const key = keyOf(work);
  const each = seconds / work.n;
  const old = times[key];
  const entries = Object.entries(times).filter(([other]) => other !== key).slice(1 - KEEP);
  entries.push([key, {model: work.model, task: work.task, pixels: work.pixels, steps: work.steps,
    seconds: old ? old.seconds * 0.4 + each * 0.6 : each}]);
  return Object.fromEntries(entries);
}

/** The seconds that this will take: as before, or in proportion to another size of the same model; null if unknown. */
export function expect(times, work) {
  const exact = times[keyOf(work)];
  if (exact) return exact.seconds * work.n;
  const alike = Object.values(times).findLast((one) => one.model === work.model && one.task === work.task
    && one.pixels && work.pixels && one.steps && work.steps);
  return alike ? alike.seconds * work.n * (work.pixels * work.steps) / (alike.pixels * alike.steps) : null;
}

/** What is left, in words; '' where it cannot be told. */
export function leftText({fraction, left, overdue = false}) {
  if (overdue) return 'longer than usual';
  if (left == null) return '';
  // A short job has little left from the beginning.
  return left < 1.5 && fraction >= 0.75 ? 'nearly done' : `about ${duration(Math.max(1, left))} left`;
}

/**
 * How far a job is: `{fraction, left}`, null where it cannot be told. `elapsed` counts from when the engine could begin,
 * `first` is when the engine told its progress for the first time. What the engine says outweighs what was expected the
 * more, the further it is.
 */
export function judge({elapsed, expected, progress, first}) {
  if (progress >= 1) return {fraction: 1, left: 0};
  if (!progress) {
    if (expected == null) return {fraction: null, left: null};
    const overdue = elapsed >= expected;
    return {fraction: Math.min(0.95, elapsed / expected), left: overdue ? null : expected - elapsed, ...(overdue && {overdue})};
  }
  const paced = pace({elapsed, progress, first});
  const total = paced == null ? expected : expected == null ? paced : expected * (1 - progress) + paced * progress;
  return {fraction: progress, left: total == null ? null : total * (1 - progress)};
}

/** Seconds for the whole at the engine's pace; null while it tells little. Loading a model before the first step is no part of it. */
function pace({elapsed, progress, first}) {
  const {progress: before, elapsed: until} = first ?? {progress: 0, elapsed: 0};
  const made = progress - before;
  return made >= 0.1 ? (elapsed - until) / made : null;
}
