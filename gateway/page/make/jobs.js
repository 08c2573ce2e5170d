// The requests of this tab: sending, following after a broken connection or a reload, cancelling.
import {api, apiEvents, newRequestId} from '../api.js';
import {live} from '../live.js';
import {expect, learn, workOf} from './estimate.js';
import {RUNNING, fieldOf, newJob, nextToBegin, picturesOf, recall, remember, withLive, withProgress} from './jobstate.js';
import {recallObject, recallText, rememberText} from './memory.js';
import {multipart, sendable, storeNameOf} from './request.js';

const JOBS = 'make.jobs';
const TIMES = 'make.times';
/** How many requests the page shows; older pictures are in the gallery. */
const SHOWN = 40;
/** When a job that the gateway does not list is looked for among the pictures, in seconds after the last time. */
const LOOK_AFTER = [0.5, 2, 4, 8];
/** How long an answer may be late after the gateway has told that the job ended. */
const LATE_MS = 4_000;

const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });

/** Resolves when the gateway is heard. */
function heard() {
  if (live.state === 'open') return Promise.resolve();
  return new Promise((resolve) => {
    const end = live.on('state', (state) => {
      if (state !== 'open') return;
      end();
      resolve();
    });
  });
}

export class Jobs {
  /** Newest first: `{job, source, preview, following, cancelling, abort}`. `source` is what sends it again. */
  entries = [];
  #show;

  /** `show.added(entry)`, `.changed(entry)`, `.removed(entry)`, `.refused(field, message)`. */
  constructor(show) {
    this.#show = show;
    live.on('jobs', (jobs) => this.#news(jobs));
    live.on('hello', (hello) => this.#restarted(hello));
  }

  /** Those of before the reload. */
  recall() {
    for (const job of recall(recallText('sessionStorage', JOBS)).reverse()) {
      // The files of an edit are gone.
      const source = job.task === 'generate' ? {references: [], mask: null} : null;
      const entry = {job, source, preview: null};
      this.entries.unshift(entry);
      this.#show.added(entry);
      if (job.state === RUNNING) this.#follow(entry);
      else this.#describe(entry);
    }
    this.#begin();
  }

  #set(entry, changes) {
    const before = entry.job.state;
    entry.job = {...entry.job, ...changes};
    if (before !== entry.job.state) {
      this.#begin();
      this.#save();
    }
    this.#show.changed(entry);
  }

  #expect(work) {
    return work ? expect(recallObject('localStorage', TIMES), work) : null;
  }

  /** One has ended: the engine begins with the next. */
  #begin() {
    const next = nextToBegin(this.entries.map(({job}) => job));
    const entry = this.entries.find(({job}) => job === next);
    if (entry) this.#set(entry, {begun: Date.now(), expected: this.#expect(next.work)});
  }

  #save() {
    rememberText('sessionStorage', JOBS, remember(this.entries.map(({job}) => job)));
  }

  /** Sends a request. `source`: `{form, references, mask}`; `files()` gives its references with their bytes. */
  start(asked, able, source, files) {
    // What an edit has if nothing else was asked for: the shape of its first reference.
    const size = asked.size ?? (source.references.length ? source.references[0].size : able.defaults.size) ?? null;
    const work = workOf(asked, able, size);
    const at = Date.now();
    const job = newJob(newRequestId(), asked, {
      task: able.task,
      references: source.references.map(({name}) => name),
      mask: Boolean(source.mask),
      expected: this.#expect(work),
      size,
      work,
      at,
      begun: this.entries.some((other) => other.job.state === RUNNING) ? null : at,
    });
    const entry = {job, source, preview: null, abort: new AbortController(), gateway: live.hello?.started_at};
    this.entries.unshift(entry);
    for (const old of this.entries.slice(SHOWN)) if (old.job.state !== RUNNING) this.remove(old);
    this.#save();
    this.#show.added(entry);
    this.#send(entry, files);
    return entry;
  }

  async #send(entry, files) {
    const {job: {id, asked, task}, source, abort: {signal}} = entry;
    const path = task === 'generate' ? '/v1/images/generations' : '/v1/images/edits';
    const unreachable = live.state === 'lost';
    const headers = {'X-Request-Id': id, 'X-On-Disconnect': 'finish'};
    try {
      const fields = sendable(asked);
      const body = task === 'generate' ? fields : multipart(fields, await files(signal), source.mask);
      const options = {method: 'POST', body, headers, signal};
      if (asked.n > 1) this.#completed(entry, await api(path, options));
      else await this.#stream(entry, path, options);
      // An answer without an end.
      if (entry.job.state === RUNNING) this.#follow(entry);
    } catch (error) {
      if (entry.job.state !== RUNNING) return;
      if (signal.aborted || (error.isNetwork && !unreachable)) this.#follow(entry);
      else this.#fail(entry, error);
    }
  }

  async #stream(entry, path, options) {
    for await (const {event, data, comment} of apiEvents(path, options)) {
      const progress = /^progress (\d(?:\.\d+)?)$/.exec(comment ?? '');
      if (progress) this.#set(entry, withProgress(entry.job, Number(progress[1]), Date.now()));
      else if (event === 'error') throw Object.assign(new Error(), JSON.parse(data).error);
      else if (event?.endsWith('.partial_image')) this.#preview(entry, JSON.parse(data));
      else if (event?.endsWith('.completed')) {
        const {ignored, ...picture} = JSON.parse(data);
        this.#completed(entry, {data: [picture], ignored});
      }
    }
  }

  #preview(entry, {b64_json: base64, size}) {
    const old = entry.preview;
    entry.preview = URL.createObjectURL(toBlob(base64));
    this.#set(entry, {size: size ?? entry.job.size});
    if (old) URL.revokeObjectURL(old);
  }

  #completed(entry, {data, ignored = []}) {
    const now = Date.now();
    const {work, startedAt, begun} = entry.job;
    const took = (now - startedAt) / 1000;
    // Another one waits as long for what is before it, or not at all.
    const made = (now - (begun ?? startedAt)) / 1000;
    rememberText('localStorage', TIMES, JSON.stringify(learn(recallObject('localStorage', TIMES), work, made)));
    const keep = (base64) => URL.createObjectURL(toBlob(base64));
    const pictures = picturesOf(data, storeNameOf, keep);
    this.#set(entry, {state: 'done', pictures, ignored, took, size: pictures[0]?.settings.size ?? entry.job.size});
  }

  #fail(entry, error) {
    const {status = 0, code = null, param = null} = error;
    if (code === 'cancelled' || code === 'request_cancelled') return this.#set(entry, {state: 'cancelled'});
    const field = fieldOf({status, param});
    if (field) {
      this.remove(entry);
      return this.#show.refused(field, error.message);
    }
    const message = error.message || 'The gateway gives no reason.';
    return this.#set(entry, {state: 'failed', error: {message, status, code}});
  }

  /** The answer will not come over its connection: the gateway's list of jobs tells how it goes on. */
  #follow(entry) {
    entry.following = true;
    this.#show.changed(entry);
    this.#news(live.jobs);
    if (entry.job.state === RUNNING) this.#look(entry);
  }

  #news(jobs) {
    for (const entry of this.entries) {
      if (entry.job.state !== RUNNING) continue;
      const news = jobs.find(({id}) => id === entry.job.id);
      if (news && (entry.following || news.state === RUNNING)) {
        const job = withLive(entry.job, news, Date.now());
        if (job === entry.job) continue;
        this.#set(entry, job);
        if (job.state === 'done') this.#describe(entry);
      } else if (news) {
        this.#late(entry);
      } else if (entry.following) {
        this.#look(entry);
      }
    }
  }

  /** The job has ended and its answer has not come: its connection may be dead without saying so. */
  #late(entry) {
    entry.late ??= setTimeout(() => {
      if (entry.job.state === RUNNING) entry.abort?.abort();
    }, LATE_MS);
  }

  /** Connections to the gateway of before are dead, even if a proxy does not say so. */
  #restarted({started_at: now}) {
    for (const {job, gateway, abort} of this.entries) {
      if (job.state === RUNNING && gateway && gateway !== now) abort?.abort();
    }
  }

  /** Looks among the pictures for a job that the gateway does not list, then says that it is lost. */
  async #look(entry) {
    if (entry.looking) return;
    entry.looking = true;
    const known = () => live.jobs.some(({id}) => id === entry.job.id);
    for (const seconds of LOOK_AFTER) {
      await pause(seconds);
      await heard();
      if (entry.job.state !== RUNNING || known()) break;
      const names = await this.#stored(entry.job.id);
      // Its gateway is not there any more: whatever it stored, it had stored before.
      if (names && !names.length && entry.gateway && entry.gateway !== live.hello?.started_at) break;
      if (!names?.length) continue;
      this.#set(entry, {state: 'done', pictures: names.map((name) => ({name}))});
      this.#describe(entry);
    }
    entry.looking = false;
    if (entry.job.state === RUNNING && !known()) this.#set(entry, {state: 'lost'});
  }

  async #stored(id) {
    try {
      const {data} = await api(`/v1/gateway/images?request_id=${id}`);
      // Newest first, and a batch counts its seeds up.
      return data.map(({name, seed}) => ({name, seed})).reverse().sort((one, other) => one.seed - other.seed || 0).map(({name}) => name);
    } catch {
      return null;
    }
  }

  /** Asks for the settings of pictures that came without. */
  async #describe(entry) {
    const pictures = await Promise.all(entry.job.pictures.map(async (picture) => {
      if (picture.settings || !picture.name) return picture;
      try {
        return {...picture, settings: await api(`/v1/gateway/images/${picture.name}`)};
      } catch {
        return {...picture, settings: {}};
      }
    }));
    if (pictures.every((picture, index) => picture === entry.job.pictures[index])) return;
    const {size, duration_seconds: took} = pictures[0].settings;
    this.#set(entry, {pictures, size: size ?? entry.job.size, took: entry.job.took ?? took ?? null});
    this.#save();
  }

  /** Cancels in the engine. Throws `ApiError` if that could not be asked. */
  async cancel(entry) {
    entry.cancelling = true;
    this.#show.changed(entry);
    // First: the answer to a cancelled request is an error, which browsers write to their console. The job stays (`finish`).
    entry.abort?.abort();
    try {
      for (const seconds of [0.5, 0]) {
        try {
          await api(`/v1/gateway/jobs/${entry.job.id}`, {method: 'DELETE'});
          break;
        } catch (error) {
          if (error.status !== 404) throw error;
          // Just ended, or not arrived yet.
          await pause(seconds);
          if (entry.job.state !== RUNNING) return;
        }
      }
      if (entry.job.state === RUNNING) this.#set(entry, {state: 'cancelled'});
    } finally {
      entry.cancelling = false;
      this.#show.changed(entry);
    }
  }

  remove(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    clearTimeout(entry.late);
    this.dropPreview(entry);
    for (const {address} of entry.job.pictures) if (address) URL.revokeObjectURL(address);
    this.#save();
    this.#show.removed(entry);
  }

  /** The preview is not shown any more. */
  dropPreview(entry) {
    if (entry.preview) URL.revokeObjectURL(entry.preview);
    entry.preview = null;
  }
}

function toBlob(base64) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))]);
}
