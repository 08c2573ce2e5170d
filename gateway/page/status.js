// The place Status: what the gateway and the card do, live. All of it comes from live.js; nothing is fetched beside.
import {h, setText} from './dom.js';
import {duration} from './format.js';
import {live} from './live.js';
import {backendsPanel, gatewayPanel, storePanel} from './status/backends.js';
import {chartsPanel} from './status/charts.js';
import {checksPanel} from './status/checks.js';
import {requestsPanel} from './status/requests.js';

let place = null;
let shown = false;
let timer = null;
/** When anything, and when the status, was last received. */
let heard = 0;
let statusHeard = 0;

export function mount(root) {
  const checks = checksPanel();
  const charts = chartsPanel();
  const backends = backendsPanel();
  const requests = requestsPanel();
  const gateway = gatewayPanel();
  const store = storePanel();
  const age = h('p.note.age', {hidden: true});
  root.append(h('h1.visually-hidden', {}, 'Status'), age, h('div.status-grid', {},
    h('div.status-column', {}, checks.root, backends.root, store.root),
    h('div.status-column', {}, charts.root, h('div.status-pair', {}, requests.root, gateway.root))));
  const drawGateway = () => gateway.draw(statusHeard);
  place = {
    root,
    age,
    // What is drawn again when a property of `live` changes.
    parts: {
      readiness: [checks.draw, charts.draw],
      status: [checks.draw, backends.draw, store.draw, drawGateway],
      samples: [checks.draw, charts.draw, backends.draw, requests.draw, drawGateway],
      jobs: [requests.draw],
      hello: [backends.draw, drawGateway],
      state: [checks.draw],
    },
  };
  for (const key of Object.keys(place.parts)) live.on(key, () => receive(key));
  if (live.status) heard = statusHeard = Date.now() / 1000;
  document.addEventListener('visibilitychange', drawAll);
}

export function show() {
  shown = true;
  drawAll();
}

export function hide() {
  shown = false;
  clearInterval(timer);
  timer = null;
}

const isSeen = () => shown && !document.hidden;

function receive(key) {
  if (key !== 'state') heard = Date.now() / 1000;
  if (key === 'status') statusHeard = heard;
  if (!isSeen()) return;
  // At once: a fault of the card must not wait for the next second.
  for (const draw of place.parts[key]) draw();
  if (key === 'state') drawAge();
}

function drawAll() {
  if (!isSeen()) return;
  for (const draw of new Set(Object.values(place.parts).flat())) draw();
  drawAge();
}

/** While the gateway does not answer, what is shown is old, and says so. */
function drawAge() {
  const isLost = live.state === 'lost' || (live.state === 'connecting' && heard > 0);
  place.root.classList.toggle('stale', isLost);
  place.age.hidden = !isLost;
  if (!isLost) {
    clearInterval(timer);
    timer = null;
    return;
  }
  setText(place.age, heard ? `Not live: last heard from the gateway ${duration(Date.now() / 1000 - heard)} ago.` : 'Nothing has been received yet.');
  timer ??= setInterval(() => isSeen() && drawAge(), 1000);
}
