// The images backend: whether it takes pictures, why not and what to do, and the facts of engine and card.
import {engineJobs, whyNot} from '../card.js';
import {h, setText} from '../dom.js';
import {live} from '../live.js';
import {READINESS, facts, sortChecks} from './words.js';
import {disclosure, reason, rebuilt, termList} from './parts.js';

export function checksPanel() {
  const name = h('h2', {id: 'checks-title', dir: 'auto'}, 'Pictures');
  const pill = h('p.pill', {role: 'status', 'aria-label': 'Readiness'}, 'Connecting');
  const bad = h('ul.reasons');
  const fine = h('p.note');
  const unknown = disclosure('');
  const passing = disclosure('');
  const known = h('div.facts');
  const root = h('section.panel.checks', {'aria-labelledby': 'checks-title'},
    h('div.card-head', {}, name, pill), bad, fine, unknown.root, passing.root, known);
  return {
    root,
    draw() {
      const {readiness, state, status} = live;
      drawHead({name, pill}, readiness, state, status);
      const checks = sortChecks(readiness?.checks);
      rebuilt(bad, [checks.bad, readiness?.error, readiness?.status], () => badChecks(checks.bad, readiness));
      setText(fine, state === 'lost' ? '' : note(checks, readiness, status));
      fine.hidden = !fine.textContent;
      drawRest(unknown, checks.unknown, 'unknown');
      drawRest(passing, checks.passing, 'passed');
      const entries = facts(readiness ?? undefined, engineJobs());
      rebuilt(known, entries, () => (entries.length ? termList(entries) : null));
    },
  };
}

function drawHead({name, pill}, readiness, state, status) {
  const isMock = status?.gateway.images_backend === 'mock';
  const shown = state === 'lost' ? 'unreachable' : isMock ? 'ready' : readiness?.status;
  setText(pill, state === 'lost' ? 'Gateway not reachable' : READINESS[shown] ?? 'Connecting');
  pill.dataset.status = shown ?? 'unknown';
  setText(name, isMock ? 'Placeholder pictures' : live.cardName ?? readiness?.class ?? 'Pictures');
}

function badChecks(bad, readiness) {
  const items = bad.map((check) => withFigures(check, reason(check.status, check.message || check.name)));
  const takesSome = readiness?.status === 'ready' || readiness?.status === 'degraded';
  // Without a report of checks the error is all there is.
  if (readiness?.error && !takesSome && !bad.some(({status}) => status === 'fail')) items.unshift(reason('fail', whyNot(readiness)));
  return items;
}

/** The message says what to do; below it what was seen and what should be. */
function withFigures(check, item) {
  item.lastChild.append(h('span.figures', {}, h('b', {}, check.name), ` ${figures(check)}`));
  return item;
}

const figures = ({observed, expected}) => [observed && `is: ${observed}`, expected && `expected: ${expected}`].filter(Boolean).join(' · ');

function note({bad, passing}, readiness, status) {
  if (status?.gateway.images_backend === 'mock') return 'The gateway draws placeholder pictures itself (IMAGES_BACKEND=mock). No card is used.';
  if (!readiness || bad.length) return '';
  if (!readiness.checks?.length) return readiness.error ? '' : 'This backend reports no checks of its own.';
  return passing.length ? 'No problems found.' : '';
}

function drawRest({root, body, name}, checks, what) {
  root.hidden = !checks.length;
  name(`${checks.length} ${checks.length === 1 ? 'check' : 'checks'} ${what}`);
  rebuilt(body, checks, () => h('ul.check-list', {}, checks.map((check) => h('li', {dir: 'auto'},
    h('b', {}, check.name), ' ', h('span', {}, check.message || figures(check)),
    check.message ? h('span.figures', {}, figures(check)) : null))));
}
