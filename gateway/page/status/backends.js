// All backends with their limits, the gateway itself, and what the store holds.
import {h, setText} from '../dom.js';
import {bytes, dateTime, time} from '../format.js';
import {live} from '../live.js';
import {limitsOf, slots, uptime} from './words.js';
import {meter, slotsMeter, reason, rebuilt, termList} from './parts.js';

export function backendsPanel() {
  const list = h('ul.backends');
  const tokens = h('div.tokens');
  const checked = new Map();
  const root = h('section.panel', {'aria-labelledby': 'backends-title'}, h('h2', {id: 'backends-title'}, 'Backends'), list, tokens);
  return {
    root,
    draw() {
      const {status} = live;
      if (!status) return;
      const entries = Object.entries(status.backend_health).map(([name, health]) => {
        const {ready, healthy, error, warnings} = health;
        return {name, ready, healthy, error, warnings, limits: limitsOf(name, status.admission_control)};
      });
      rebuilt(list, entries, () => {
        checked.clear();
        return entries.map((entry) => backend(entry, checked));
      });
      for (const [name, element] of checked) drawChecked(element, name, status.backend_health[name].last_check);
      const limits = Object.entries(status.token_limits ?? {});
      rebuilt(tokens, limits, () => (limits.length ? [h('h3', {}, 'Token limits'), limitList(limits)] : null));
    },
  };
}

/** The images backend's check is news each second; of the others the page hears when something changes. */
function drawChecked(element, name, lastCheck) {
  const isImages = name === live.hello?.images_class;
  const at = (isImages && live.samples.at(-1)?.at) || lastCheck;
  setText(element, at ? `${isImages ? 'Checked' : 'Reported'} at ${time(at)}` : 'Not checked yet');
}

function backend({name, ready, healthy, error, warnings = [], limits}, checked) {
  const line = h('span.note.checked');
  checked.set(name, line);
  const state = ready ? 'ready' : healthy ? 'not_ready' : 'unreachable';
  return h('li', {},
    h('div.card-head', {}, h('h3', {dir: 'auto'}, name),
      h('span.pill', {'data-status': state}, ready ? 'Ready' : healthy ? 'Not ready' : 'Not reachable')),
    error || warnings.length
      ? h('ul.reasons', {}, error && !ready ? reason('fail', error) : null, warnings.map((text) => reason('warn', text)))
      : null,
    limitList(limits), line);
}

function limitList(limits) {
  return h('dl.limits', {}, limits.map(([name, usage]) => h('div', {},
    h('dt', {dir: 'auto'}, name), h('dd', {}, slotsMeter(usage), h('span', {}, slots(usage))))));
}

export function gatewayPanel() {
  const problems = h('ul.reasons');
  const known = h('div.facts');
  const root = h('section.panel', {'aria-labelledby': 'gateway-title'}, h('h2', {id: 'gateway-title'}, 'Gateway'), problems, known);
  let up = null;
  return {
    root,
    /** `heard`: when the status was received, in Unix seconds. */
    draw(heard) {
      const own = live.status?.gateway;
      if (!own) return;
      const {warnings = [], config = {}} = own;
      rebuilt(problems, [warnings, config.last_error], () => [
        config.last_error ? reason('fail', `The configuration could not be reloaded; the previous one stays in force: ${config.last_error}`) : null,
        ...warnings.map((text) => reason('warn', text)),
      ]);
      const entries = [
        ['Version', own.version],
        ['Uptime', ''],
        ['Image backend', own.images_backend],
        ['Configuration', config.loaded_at ? `loaded ${dateTime(config.loaded_at)}${config.reloads ? `, ${config.reloads} reload ${config.reloads === 1 ? 'attempt' : 'attempts'}` : ''}` : '–'],
        ['Signed in as', live.hello?.token?.name ? `${live.hello.token.name}${live.hello.token.sees_all ? ', sees all pictures' : ''}` : '–'],
      ];
      rebuilt(known, entries, () => {
        const list = termList(entries);
        up = list.children[1].lastChild;
        return list;
      });
      if (up) setText(up, uptime(own.uptime_seconds, heard, Date.now() / 1000));
    },
  };
}

export function storePanel() {
  const body = h('div.store');
  const root = h('section.panel.stored', {'aria-labelledby': 'store-title'}, h('h2', {id: 'store-title'}, 'Stored pictures'), body);
  return {
    root,
    draw() {
      const store = live.status?.store;
      if (store) rebuilt(body, store, () => storeBody(store));
    },
  };
}

function storeBody({pictures, bytes: held, max_bytes: most, disk_bytes: disk, disk_free_bytes: free}) {
  const count = pictures === 1 ? '1 picture' : `${pictures.toLocaleString()} pictures`;
  const lines = [h('p', {}, h('b', {}, pictures ? count : 'No pictures yet'), pictures ? `, ${bytes(held)}` : '')];
  if (most) {
    const share = held / most;
    lines.push(meter(share, share > 0.9 ? 'warn' : ''), h('p.note', {}, `${Math.round(share * 100)} % of ${bytes(most)}. The oldest are deleted when it is full.`));
  } else {
    lines.push(h('p.note', {}, 'No size limit is set.'));
  }
  if (disk && free != null) {
    const share = 1 - free / disk;
    const kind = share > 0.95 ? 'bad' : share > 0.9 ? 'warn' : '';
    lines.push(h('h3', {}, 'Disk'), meter(share, kind), h('p.note', {}, `${bytes(free)} of ${bytes(disk)} free`));
  }
  return lines;
}
