// What must not happen while a person uses the page: a word in the console, an error that nobody caught, a violation of the
// page's policy, a request to another origin, a token in an address.

import assert from 'node:assert/strict';

export class Watch {
  constructor(origin, secrets) {
    this.origin = origin;
    this.secrets = secrets;
    this.seen = [];
    this.requests = [];
    this.expected = [];
  }

  async over(context) {
    await context.exposeBinding('reportViolation', (_, words) => this.seen.push(`policy: ${words}`));
    await context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => {
        window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
      });
    });
    context.on('console', (message) => this.seen.push(`console ${message.type()}: ${message.text()} (${message.location().url})`));
    context.on('weberror', (error) => this.seen.push(`error: ${error.error().stack}`));
    context.on('request', (request) => this.request(request));
  }

  request(request) {
    const url = request.url();
    this.requests.push({url, type: request.resourceType(), method: request.method()});
    const isOwn = url.startsWith(`${this.origin}/`) || url.startsWith(`blob:${this.origin}/`);
    if (!isOwn) this.seen.push(`another origin: ${url}`);
    if (this.secrets.some((secret) => url.includes(secret))) this.seen.push(`a token in an address: ${url}`);
  }

  /** The test provokes this: the browser writes a line about each failed request, whatever the page does about it. */
  expect(...patterns) {
    this.expected.push(...patterns);
  }

  assertQuiet() {
    const unexpected = this.seen.filter((words) => !this.expected.some((pattern) => pattern.test(words)));
    assert.deepEqual(unexpected, []);
  }
}

/** The browser's line about an answer with this status. */
export const failed = (status, address = '') =>
  new RegExp(`^console error: Failed to load resource: the server responded with a status of ${status} .*${address}`);

/** Its lines about a gateway that is not there. */
export const unreachable = /^console error: Failed to load resource: net::ERR_/;
