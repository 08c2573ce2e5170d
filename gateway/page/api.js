// Requests to the gateway, with the token, and its errors.
import {session} from './session.js';

/** An error of the gateway or the sidecar behind it, in its own words. */
export class ApiError extends Error {
  constructor(message, {status = 0, code = null, param = null, retryAfter = null, requestId = null} = {}) {
    super(message);
    Object.assign(this, {status, code, param, retryAfter, requestId});
  }

  /** The request never got an answer. */
  get isNetwork() {
    return this.status === 0;
  }
}

const UNREACHABLE = 'The gateway cannot be reached. Check that this device is on the network and that the gateway runs; '
  + 'the page reconnects by itself.';

async function send(path, {method = 'GET', body, headers = {}, signal} = {}) {
  const request = {method, headers: {...headers}, signal, cache: 'no-store', redirect: 'error'};
  if (session.token) request.headers.Authorization = `Bearer ${session.token}`;
  if (body instanceof FormData) {
    request.body = body;
  } else if (body !== undefined) {
    request.headers['Content-Type'] = 'application/json';
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(UNREACHABLE);
  }
  if (!response.ok) throw await toError(response);
  return response;
}

async function toError(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not one of ours: a proxy between.
  }
  return new ApiError(error.message || `The gateway answered with status ${response.status} and no reason.`, {
    status: response.status,
    code: error.code ?? null,
    param: error.param ?? null,
    retryAfter: Number(response.headers.get('retry-after')) || null,
    requestId: response.headers.get('x-request-id'),
  });
}

/** The JSON of an answer; null if it has none. Throws `ApiError`. */
export async function api(path, options) {
  const response = await send(path, options);
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new ApiError('The response ended early.');
  }
}

/** The events of an answer: `{event, data}`, and `{comment}` for comment lines. Throws `ApiError`. */
export async function* apiEvents(path, options) {
  const response = await send(path, {...options, headers: {Accept: 'text/event-stream', ...options?.headers}});
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    yield* parseEvents(reader);
  } catch (error) {
    if (options?.signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError('The connection to the gateway was lost.');
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function* parseEvents(reader) {
  let rest = '';
  let event = 'message';
  let data = [];
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (data.length) yield {event, data: data.join('\n')};
        event = 'message';
        data = [];
      } else if (line.startsWith(':')) {
        yield {comment: line.slice(1).trim()};
      } else if (line.startsWith('event:')) {
        event = line.slice(6).trim();
      } else if (line.startsWith('data:')) {
        data.push(line.slice(5).replace(/^ /, ''));
      }
    }
  }
}

/** 32 hexadecimal digits: `crypto.randomUUID` is missing on plain http. */
export function newRequestId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
