// What the four charts show. Values of a sample, their axis, and how they read as text. Pure.
import {memory} from '../format.js';
import {range, roundUp} from './scale.js';

const used = (sample) => sample.memory_used ?? sum(sample.memory_engine, sample.memory_others);
const sum = (one, other) => (one == null || other == null ? null : one + other);
/** What the driver keeps counts as others', as in the card. */
const held = (sample) => {
  const all = used(sample);
  return all == null ? null : all + (sample.memory_reserved ?? 0);
};
const free = (sample) => sample.memory_free ?? (held(sample) == null ? null : sample.memory_total - held(sample));

const gib = (mib) => `${Number((mib / 1024).toFixed(1))} GiB`;

function memoryParts(sample) {
  if (sample.memory_total == null || held(sample) == null) return null;
  const parts = [['Free', free(sample), 'free']];
  if (sample.memory_engine == null) return [['Used', held(sample), 'others'], ...parts];
  return [['Engine', sample.memory_engine, 'engine'], ['Others', held(sample) - sample.memory_engine, 'others'], ...parts];
}

const simple = (key, unit) => ({
  value: (sample) => sample[key],
  text: (sample) => (sample[key] == null ? null : `${Math.round(sample[key])} ${unit}`),
  figure: (value) => `${Math.round(value)} ${unit}`,
});

/**
 * `value` is what lowest and highest are said of; `parts` are the areas of a stack, from the bottom; `axis` the ends, ticks and
 * limit for these samples.
 */
export const SERIES = [
  {
    key: 'memory',
    name: 'VRAM',
    value: free,
    noun: 'free',
    figure: memory,
    text: (sample) => memoryParts(sample)?.map(([name, mib]) => `${name} ${memory(mib)}`).join(', ') ?? null,
    parts: memoryParts,
    // Each from the bottom, the lowest drawn last, over the others.
    areas: {
      free: (sample) => (held(sample) == null ? null : sample.memory_total),
      others: held,
      engine: (sample) => sample.memory_engine,
    },
    axis(samples) {
      const total = samples.findLast((sample) => sample.memory_total)?.memory_total ?? 1024;
      return {low: 0, high: total, ticks: [0, total / 2, total].map((at) => [at, gib(at)])};
    },
    missing: 'This card has no memory of its own to show: it shares the machine’s.',
  },
  {
    key: 'temperature',
    name: 'Temperature',
    ...simple('temperature', '°C'),
    axis: () => ({low: 20, high: 100, ticks: [[20, '20 °C'], [60, '60 °C'], [100, '100 °C']]}),
    missing: 'The driver tells no temperature.',
  },
  {
    key: 'power',
    name: 'Power',
    ...simple('power', 'W'),
    axis(samples) {
      const limit = samples.findLast((sample) => sample.power_limit)?.power_limit ?? null;
      const most = range(samples, (sample) => sample.power)?.high ?? 0;
      // The line of the limit must not lie on the edge.
      const high = roundUp(Math.max(most, (limit ?? 0) * 1.05, 10));
      const ticks = [[0, '0 W'], [high / 2, `${high / 2} W`], [high, `${high} W`]];
      return {low: 0, high, limit, limitText: limit && `limit ${Math.round(limit)} W`, ticks};
    },
    missing: 'The driver tells no power draw.',
  },
  {
    key: 'utilization',
    name: 'Utilisation',
    ...simple('utilization', '%'),
    axis: () => ({low: 0, high: 100, ticks: [[0, '0 %'], [50, '50 %'], [100, '100 %']]}),
    missing: 'The driver tells no utilisation.',
  },
];

/** One sentence for people who do not see the chart. */
export function sentence(series, samples) {
  const found = range(samples, series.value);
  if (!found) return null;
  const noun = series.noun ? ` ${series.noun}` : '';
  const [now, low, high] = [found.last, found.low, found.high].map(series.figure);
  return `${series.name}: now ${now}${noun}, lowest ${low}, highest ${high} in the last ten minutes.`;
}

/** Why a chart is empty, in words; null if it is not. */
export function emptyReason(series, samples, readiness) {
  if (samples.some((sample) => series.value(sample) != null)) return null;
  if (readiness && !readiness.gpu) return 'No GPU is reported, so there is nothing to draw.';
  if (!samples.length || !readiness) return 'No readings yet.';
  return series.missing;
}
