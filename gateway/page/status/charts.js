// The last ten minutes of the card as four charts with one cursor.
import {h, setText, svg} from '../dom.js';
import {duration, time} from '../format.js';
import {live} from '../live.js';
import {SERIES, emptyReason, sentence} from './series.js';
import {HEIGHT, SPAN_SECONDS, WIDTH, areaPath, dotPath, linePath, nearest, notReadyPath, range, runs, thinned, yAt} from './scale.js';

const element = (tag, name) => svg(tag, {class: name, 'vector-effect': 'non-scaling-stroke'});

const DRAW = {line: linePath, dots: dotPath};

/** The panel. `draw()` is to be called after new samples, while it is seen. */
export function chartsPanel() {
  const charts = SERIES.map(chart);
  const cursor = cursorControl(charts);
  const table = valuesTable();
  const root = h('section.panel.charts', {'aria-labelledby': 'charts-title'},
    h('h2', {id: 'charts-title'}, 'The last ten minutes'),
    h('div.chart-grid', {}, charts.map(({figure}) => figure)),
    cursor.row,
    h('p.note', {}, 'Red marks when the card was not ready. While no page is open there are fewer readings, drawn as dots.'),
    table);
  return {
    root,
    draw() {
      const end = live.samples.at(-1)?.at ?? 0;
      for (const one of charts) one.draw(live.samples, end);
      cursor.draw();
    },
  };
}

function chart(series) {
  const value = h('span.chart-value', {dir: 'auto'});
  const span = h('span.note.chart-range');
  const summary = h('p.visually-hidden');
  const reason = h('p.chart-empty', {hidden: true});
  const line = h('div.chart-cursor', {hidden: true});
  const shade = element('path', 'shade');
  const grid = element('path', 'grid');
  const paths = (series.areas ? Object.keys(series.areas) : ['line', 'dots']).map((kind) => [kind, element('path', `${series.areas ? 'area ' : ''}${kind}`)]);
  const limit = element('path', 'limit');
  const limitText = h('span.limit-text', {hidden: true});
  const ticks = [0, 1, 2].map(() => h('span'));
  const picture = svg('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true'},
    grid, ...paths.map(([, path]) => path), shade, limit);
  const plot = h('div.plot', {}, picture, limitText, line, reason);
  const figure = h(`figure.chart.${series.key}`, {},
    h('figcaption', {}, h('h3', {}, series.name), value, span),
    summary,
    h('div.chart-body', {}, h('div.ticks', {'aria-hidden': 'true'}, ticks), plot,
      h('div.times', {'aria-hidden': 'true'}, h('span', {}, '−10 min'), h('span', {}, '−5 min'), h('span', {}, 'now'))));
  return {
    series,
    figure,
    plot,
    show: (sample, share) => showValue({series, value, line}, sample, share),
    draw(samples, end) {
      const axis = series.axis(samples);
      shade.setAttribute('d', notReadyPath(samples, end));
      for (const [kind, path] of paths) {
        const parts = runs(samples, series.areas?.[kind] ?? series.value, end);
        path.setAttribute('d', (DRAW[kind] ?? areaPath)(parts, axis, end));
      }
      drawAxis({grid, ticks, limit, limitText}, axis);
      const found = range(samples, series.value);
      setText(span, found ? rangeText(found, series) : '');
      setText(summary, sentence(series, samples) ?? '');
      const empty = emptyReason(series, samples, live.readiness);
      reason.hidden = !empty;
      figure.classList.toggle('empty-chart', Boolean(empty));
      setText(reason, empty ?? '');
    },
  };
}

/** As in `48 °C to 71 °C`; one figure where both are the same. */
function rangeText({low, high}, {figure, noun}) {
  const ends = [...new Set([figure(low), figure(high)])].join(' to ');
  return noun ? `${ends} ${noun}` : ends;
}

function drawAxis({grid, ticks, limit, limitText}, axis) {
  const key = JSON.stringify(axis);
  if (grid.dataset.key === key) return;
  grid.dataset.key = key;
  grid.setAttribute('d', axis.ticks.map(([at]) => `M0 ${yAt(at, axis)}H${WIDTH}`).join(''));
  axis.ticks.forEach(([at, text], nth) => {
    setText(ticks[nth], text);
    ticks[nth].style.top = `${yAt(at, axis) / HEIGHT * 100}%`;
  });
  limit.setAttribute('d', axis.limit ? `M0 ${yAt(axis.limit, axis)}H${WIDTH}` : '');
  limitText.hidden = !axis.limit;
  if (!axis.limit) return;
  setText(limitText, axis.limitText);
  limitText.style.top = `${yAt(axis.limit, axis) / HEIGHT * 100}%`;
}

/** The value of a sample as text, with swatches for the parts of a stack; and the line of the cursor. */
function showValue({series, value, line}, sample, share) {
  line.hidden = share === null;
  if (share !== null) line.style.left = `${share * 100}%`;
  const parts = sample && series.parts?.(sample);
  const kinds = parts ? parts.map(([, , kind]) => kind).join() : '';
  if (!parts || value.dataset.kinds !== kinds) {
    value.dataset.kinds = kinds;
    if (!parts) return setText(value, (sample && series.text(sample)) ?? '–');
    value.replaceChildren(...parts.map(([name, , kind]) => h('span.part', {},
      h(`span.swatch.${kind}`, {'aria-hidden': 'true'}), `${name} `, h('b'))));
  }
  parts.forEach(([, amount], nth) => setText(value.children[nth].lastChild, series.figure(amount)));
}

/** One time for all charts: by the slider below them, or by pointing at one. */
function cursorControl(charts) {
  const input = h('input', {type: 'range', id: 'chart-time', min: -SPAN_SECONDS, max: 0, step: 1, value: 0});
  const output = h('span.note.time-text', {'aria-hidden': 'true'});
  const row = h('div.chart-time', {}, h('label', {for: 'chart-time'}, 'Time'), input, output);
  let pointed = null;

  const draw = () => {
    const ago = pointed ?? -Number(input.value);
    const end = live.samples.at(-1)?.at ?? 0;
    const sample = ago ? nearest(live.samples, end - ago) : live.samples.at(-1) ?? null;
    for (const one of charts) one.show(sample, ago ? 1 - ago / SPAN_SECONDS : null);
    setText(output, ago ? `${time(end - ago)}, ${duration(ago)} ago${sample ? '' : ': no reading'}` : 'Now');
    return sample;
  };
  const say = () => {
    const sample = draw();
    const values = sample ? charts.map(({series}) => series.text(sample) && `${series.name} ${series.text(sample)}`) : ['no reading'];
    input.setAttribute('aria-valuetext', `${output.textContent}: ${values.filter(Boolean).join('; ') || 'no figures'}`);
  };
  input.addEventListener('input', say);
  // What was said of a time is old when the slider is come to again.
  input.addEventListener('focus', say);
  input.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    input.value = 0;
    say();
  });
  input.setAttribute('aria-valuetext', 'Now');
  for (const {plot} of charts) {
    plot.addEventListener('pointermove', (event) => {
      const box = plot.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      pointed = Math.round((1 - Math.min(1, Math.max(0, share))) * SPAN_SECONDS);
      draw();
    });
    for (const type of ['pointerleave', 'pointercancel']) {
      plot.addEventListener(type, () => {
        pointed = null;
        draw();
      });
    }
  }
  return {row, draw};
}

/** All values as a table, made when it is asked for. */
function valuesTable() {
  const body = h('tbody');
  const caption = h('caption.note');
  const columns = ['Time', ...SERIES.map(({name}) => name), 'State'];
  const table = h('table', {}, caption, h('thead', {}, h('tr', {}, columns.map((name) => h('th', {scope: 'col'}, name)))), body);
  const details = h('details', {}, h('summary', {}, 'Values as a table'), h('div.table-scroll', {tabindex: 0, role: 'group', 'aria-label': 'Values'}, table));
  details.addEventListener('toggle', () => {
    if (!details.open) return body.replaceChildren();
    setText(caption, `One reading each half minute, as of ${time(live.samples.at(-1)?.at ?? Date.now() / 1000)}. Close and open again for newer ones.`);
    body.replaceChildren(...thinned(live.samples).map((sample) => h('tr', {}, h('th', {scope: 'row'}, time(sample.at)),
      SERIES.map((series) => h('td', {}, series.text(sample) ?? '–')), h('td', {}, (sample.status ?? '').replace('_', ' ')))));
    return undefined;
  });
  return details;
}
