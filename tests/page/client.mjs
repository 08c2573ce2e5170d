// A plain client: what other programs do while a person has the page open.

import http from 'node:http';
import https from 'node:https';

/** `{status, headers, body}`; the body is JSON where it is JSON, bytes with `raw`. */
export function request(url, {method = 'GET', headers = {}, json, ca, raw = false, signal} = {}) {
  const body = json === undefined ? undefined : JSON.stringify(json);
  const all = {...headers, ...(body ? {'content-type': 'application/json', 'content-length': Buffer.byteLength(body)} : {})};
  return new Promise((done, failed) => {
    const sent = (url.protocol === 'https:' ? https : http).request(url, {method, headers: all, ca, signal}, (answer) => {
      const pieces = [];
      answer.on('data', (piece) => pieces.push(piece));
      answer.on('error', failed);
      answer.on('end', () => done({status: answer.statusCode, headers: answer.headers, body: read(pieces, raw)}));
    });
    sent.on('error', failed);
    sent.end(body);
  });
}

function read(pieces, raw) {
  const bytes = Buffer.concat(pieces);
  if (raw) return bytes;
  try {
    return JSON.parse(bytes);
  } catch {
    return bytes.toString();
  }
}
