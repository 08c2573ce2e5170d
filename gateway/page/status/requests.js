// Requests that run or ended within the last ten minutes.
import {h, setText} from '../dom.js';
import {time} from '../format.js';
import {live} from '../live.js';
import {jobEnd, jobFacts, sortJobs} from './words.js';
import {copyButton, disclosure, meter, rebuilt} from './parts.js';

const NO_FAILURES = 'No failures in the last ten minutes.';

export function requestsPanel() {
  const running = h('ul.jobs');
  const none = h('p.note', {}, 'No requests are running.');
  const failed = h('ul.jobs');
  const noFailures = h('p.note', {}, NO_FAILURES);
  const rest = disclosure('');
  const root = h('section.panel.requests', {'aria-labelledby': 'requests-title'},
    h('h2', {id: 'requests-title'}, 'Requests'),
    h('h3', {}, 'Running'), running, none,
    h('h3', {}, 'Failures'), failed, noFailures, rest.root);
  const rows = new Map();
  return {
    root,
    draw() {
      const jobs = sortJobs(live.jobs);
      const now = live.samples.at(-1)?.at ?? Date.now() / 1000;
      drawRunning(running, jobs.running, rows, now);
      none.hidden = jobs.running.length > 0;
      rebuilt(failed, jobs.failed, () => jobs.failed.map(failure));
      noFailures.hidden = jobs.failed.length > 0;
      rest.root.hidden = !jobs.rest.length;
      rest.name(`${jobs.rest.length} finished or cancelled`);
      rebuilt(rest.body, jobs.rest, () => h('ul.jobs', {}, jobs.rest.map(ended)));
    },
  };
}

/** Rows stay as long as their job: only their progress changes, up to four times a second. */
function drawRunning(list, jobs, rows, now) {
  const seen = new Set();
  for (const job of jobs) {
    const key = `${job.id} ${job.started_at}`;
    seen.add(key);
    if (!rows.has(key)) rows.set(key, runningRow(job));
    const {root, took, bar} = rows.get(key);
    bar.hidden = job.progress == null;
    bar.firstChild.style.width = `${(job.progress ?? 0) * 100}%`;
    setText(took, [job.progress == null ? null : `${Math.round(job.progress * 100)} %`, jobEnd(job, now)].filter(Boolean).join(' · '));
    if (root.parentNode !== list) list.append(root);
  }
  for (const [key, {root}] of rows) {
    if (seen.has(key)) continue;
    root.remove();
    rows.delete(key);
  }
}

function runningRow(job) {
  const took = h('span.note.took');
  const bar = meter(0);
  return {took, bar, root: h('li', {}, prompt(job), h('p.note', {dir: 'auto'}, jobFacts(job)), bar, took)};
}

const prompt = (job) => h('p.prompt', {dir: 'auto'}, job.prompt || 'No prompt');

function when(job) {
  return h('p.note', {dir: 'auto'}, `${time(job.ended_at ?? job.started_at)} · ${jobEnd(job)} · ${jobFacts(job)}`);
}

function failure(job) {
  const {status, code, message} = job.error ?? {};
  return h('li.failed', {},
    h('p.message', {dir: 'auto'}, message || 'No reason was given.'),
    prompt(job),
    when(job),
    h('p.note.id', {}, h('span', {}, [status, code].filter(Boolean).join(' ')), h('span', {}, h('code', {}, job.id), copyButton(job.id, 'request id'))));
}

const ended = (job) => h('li', {}, prompt(job), when(job));
