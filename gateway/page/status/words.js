// What the place Status says, decided without the page: which checks come first, which requests count as failures.
import {dateTime, duration, memory} from '../format.js';

export const READINESS = {
  ready: 'Ready',
  degraded: 'Ready, with warnings',
  not_ready: 'Not ready',
  unreachable: 'Not reachable',
};

/** Why, and what to do, first; then what could not be told; what passes last. Order within each as the sidecar has it. */
export function sortChecks(checks = []) {
  const of = (...statuses) => statuses.flatMap((status) => checks.filter((check) => check.status === status));
  const known = new Set(['pass', 'warn', 'fail']);
  return {bad: of('fail', 'warn'), unknown: checks.filter(({status}) => !known.has(status)), passing: of('pass')};
}

/** Running, failed, and otherwise ended requests, newest first. */
export function sortJobs(jobs) {
  const ended = jobs.filter(({state}) => state !== 'running').sort((one, other) => (other.ended_at ?? 0) - (one.ended_at ?? 0));
  return {
    running: jobs.filter(({state}) => state === 'running'),
    failed: ended.filter(({state}) => state === 'failed'),
    rest: ended.filter(({state}) => state !== 'failed'),
  };
}

const TASKS = {generate: 'Generate', edit: 'Edit', inpaint: 'Inpaint'};

/** As in `Edit · sd-xl-base-1.0 · 1024 × 1024 · 4 pictures · kid`. */
export function jobFacts(job) {
  const count = job.n > 1 ? `${job.n} pictures` : null;
  return [TASKS[job.task] ?? job.task, job.model, job.size?.replace('x', ' × '), count, job.token].filter(Boolean).join(' · ');
}

export function jobEnd(job, now) {
  const took = job.ended_at && job.started_at ? ` after ${duration(job.ended_at - job.started_at)}` : '';
  if (job.state === 'running') return `${duration(now - job.started_at)} so far`;
  return `${{done: 'Done', failed: 'Failed', cancelled: 'Cancelled'}[job.state] ?? job.state}${took}`;
}

/** As in `1 of 2 slots taken`. */
export function slots({limit, inflight}) {
  if (limit === 0) return 'no slots';
  return inflight ? `${inflight} of ${limit} ${limit === 1 ? 'slot' : 'slots'} taken` : `${limit} ${limit === 1 ? 'slot' : 'slots'}, all free`;
}

/** The limits of a class: `[capability, usage]`. Keys are `class.capability`, and a class may have dots of its own. */
export function limitsOf(name, admission = {}) {
  return Object.entries(admission)
    .filter(([key]) => key.slice(0, key.lastIndexOf('.')) === name)
    .map(([key, usage]) => [key.slice(key.lastIndexOf('.') + 1), usage]);
}

/**
 * Facts of the engine and the card: `[term, text]`, only those that are known. `queue` is of the newest sample: the report
 * comes only when a verdict changes, so none of its readings is shown.
 */
export function facts({engine, gpu} = {}, queue = null) {
  const all = [];
  const add = (term, text) => text && all.push([term, String(text)]);
  if (engine?.kind) {
    add('Engine', [engine.kind, engine.version].filter(Boolean).join(' '));
    add('Queue', queue == null ? null : queue ? `${queue} waiting or running` : 'empty');
    add('Models', engine.models);
    add('Address', engine.url);
  }
  if (!gpu) return all;
  add('Card', `${gpu.name} (${gpu.index})`);
  add('Memory', gpu['memory.total'] ? memory(gpu['memory.total']) : 'shared with the host');
  add('Driver', [gpu.driver_version, gpu.cuda_version && `CUDA ${gpu.cuda_version}`].filter(Boolean).join(', '));
  add('UUID', gpu.uuid);
  return all;
}

/** Since when and for how long the gateway runs; `heard` is when this page was told. */
export function uptime(seconds, heard, now) {
  const up = seconds + (now - heard);
  return `${duration(up)}, since ${dateTime(now - up)}`;
}
