// Both programs as processes of their own: a sidecar with the builtin engine and a fake card, and a gateway in front of it
// with its own certificate. Every pair has its own folder and its own ports.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {X509Certificate, createHash} from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {request} from './client.mjs';
import {engineProcess} from './engine_process.mjs';
import {until} from './until.mjs';

/** What a person signs in with; `owner` sees everybody's pictures. */
export const TOKENS = {
  owner: 'owner-token-0123456789',
  kid: 'kid-token-0123456789',
  guest: 'guest-token-0123456789',
};

const binaries = process.env.BIN_DIR;
const alive = new Set();
const folders = new Set();

// However this process ends, its programs end with it, and their files.
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL');
  for (const folder of folders) fs.rmSync(folder, {recursive: true, force: true});
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));

class Program {
  constructor(name, flags, env, log) {
    this.name = name;
    this.log = log;
    const output = fs.openSync(log, 'a');
    // Settings of an installation on this machine must not get in.
    const own = {PATH: process.env.PATH, HOME: process.env.HOME, RUST_BACKTRACE: '1', ...env};
    this.child = spawn(path.join(binaries, name), flags, {env: own, stdio: ['ignore', output, output]});
    fs.closeSync(output);
    alive.add(this.child);
    this.ended = new Promise((done) => {
      this.child.once('exit', (code, signal) => {
        alive.delete(this.child);
        done(code ?? signal);
      });
    });
  }

  get pid() {
    return this.child.pid;
  }

  /** Everything that it has logged. */
  get words() {
    return fs.readFileSync(this.log, 'utf8');
  }

  /** The address at which it listens, as its log says it. */
  async listens(from = 0) {
    return until(`${this.name} listens`, () => {
      assert.equal(this.child.exitCode, null, `${this.name} ended:\n${this.words}`);
      return this.words.slice(from).match(/"listen":"([^"]+)"/)?.[1].replace(/\/$/, '');
    });
  }

  signal(name) {
    this.child.kill(name);
  }

  /** Ends it as a service manager does, or at once; returns what it ended with. */
  async stop(signal = 'SIGTERM') {
    this.child.kill(signal);
    return this.ended;
  }

  /** Seconds of processor time so far, the kernel's share included. */
  cpuSeconds() {
    const fields = fs.readFileSync(`/proc/${this.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    const ticksPerSecond = 100;
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }
}

/** The fake NVML library and its scenario: one RTX 6000 Ada unless told otherwise. */
class Card {
  constructor(folder) {
    this.folder = path.join(folder, 'card');
    fs.mkdirSync(this.folder);
    this.library = path.join(this.folder, 'libnvidia-ml.so.1');
    fs.copyFileSync(path.join(binaries, 'libfake_nvml.so'), this.library);
    this.set({});
  }

  /** What is not said is as it is on a healthy, idle card. */
  set(gpu) {
    const next = path.join(this.folder, 'next.json');
    fs.writeFileSync(next, JSON.stringify({gpus: [gpu]}));
    // By renaming: a call may be reading it.
    fs.renameSync(next, path.join(this.folder, 'scenario.json'));
  }
}

/**
 * Starts a pair. `slots` is what the gateway lets in at once, `engineMemory` whether the card knows an engine's process,
 * `pictures(folder)` may fill the store first.
 */
export async function startPair({slots = 2, sidecar: sidecarFlags = [], gateway: gatewayEnv = {}, pictures, engineMemory = false} = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ada2-page-'));
  folders.add(folder);
  const pair = new Pair(folder);
  try {
    await pair.start({slots, sidecarFlags, gatewayEnv, pictures, engineMemory});
  } catch (error) {
    await pair.stop();
    throw error;
  }
  return pair;
}

class Pair {
  constructor(folder) {
    this.folder = folder;
    this.store = path.join(folder, 'pictures');
  }

  async start({slots, sidecarFlags, gatewayEnv, pictures, engineMemory}) {
    fs.mkdirSync(this.store);
    pictures?.(this.store);
    this.card = new Card(this.folder);
    this.engine = engineMemory ? engineProcess() : null;
    this.sidecarFlags = sidecarFlags;
    await this.startSidecar();
    const backends = path.join(this.folder, 'backends.yaml');
    fs.writeFileSync(backends, `backends:
  gpu_heavy:
    base_url: "${this.sidecarUrl}"
    supported_capabilities: [images]
    concurrency_limits: {images: ${slots}}
    health: {liveness: /healthz, readiness: /readyz}
`);
    this.gatewayEnv = {
      GATEWAY_HOST: '127.0.0.1',
      GATEWAY_PORT: '0',
      GATEWAY_DATA_DIR: path.join(this.folder, 'data'),
      GATEWAY_LOG_FORMAT: 'json',
      UI_IMAGE_DIR: this.store,
      BACKENDS_CONFIG: backends,
      ...gatewayEnv,
    };
    this.setTokens(TOKENS);
    await this.startGateway();
    await this.ready();
  }

  async startSidecar(address = '127.0.0.1:0') {
    const log = path.join(this.folder, 'sidecar.log');
    const from = fs.existsSync(log) ? fs.statSync(log).size : 0;
    const flags = ['serve', '--listen', address, '--engine', 'builtin', '--gpu', 'required', '--nvml-lib', this.card.library,
      '--state-dir', path.join(this.folder, 'sidecar'), '--log-format', 'json',
      ...(this.engine ? ['--engine-unit', this.engine.unit] : []), ...this.sidecarFlags];
    this.sidecar = new Program('ada2-sidecar', flags, {}, log);
    this.sidecarUrl = await this.sidecar.listens(from);
  }

  /** At the same address: what it finds at its start decides at once what it says later only after some seconds. */
  async restartSidecar() {
    await this.sidecar.stop();
    await this.startSidecar(new URL(this.sidecarUrl).host);
  }

  /** Writes the env file; a running gateway reads it again at SIGHUP. */
  setTokens(tokens) {
    const list = Object.entries(tokens).map(([name, token]) => `${name}=${token}`).join(',');
    const file = path.join(this.folder, 'gateway.env');
    fs.writeFileSync(file, `GATEWAY_BEARER_TOKENS='${list}'\nGATEWAY_OWNER_TOKENS=owner\n`, {mode: 0o600});
  }

  async startGateway() {
    const log = path.join(this.folder, 'gateway.log');
    const from = fs.existsSync(log) ? fs.statSync(log).size : 0;
    const flags = ['serve', '--env-file', path.join(this.folder, 'gateway.env')];
    this.gateway = new Program('gateway', flags, this.gatewayEnv, log);
    this.url = await this.gateway.listens(from);
    // Where it was is where it comes back to.
    this.gatewayEnv.GATEWAY_PORT = new URL(this.url).port;
  }

  /** A request with a token's name; the answer's status, headers and JSON (or text). */
  ask(method, address, {as = 'owner', ...options} = {}) {
    const headers = {...options.headers, ...(as ? {authorization: `Bearer ${TOKENS[as]}`} : {})};
    return request(new URL(address, this.url), {method, ca: this.authority, ...options, headers});
  }

  /** Makes a picture as another program would; its name in the store. */
  async makePicture(body = {}, as = 'owner') {
    const json = {prompt: 'a lighthouse', size: '256x256', steps: 1, response_format: 'url', ...body};
    const answer = await this.ask('POST', '/v1/images/generations', {as, json});
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body.data.map(({url}) => url.split('/').pop());
  }

  async picture(name) {
    const answer = await this.ask('GET', `/ui/images/${name}`, {as: null, raw: true});
    assert.equal(answer.status, 200, `the picture ${name}`);
    return answer.body;
  }

  /** How many pictures the store holds. */
  async stored() {
    return (await this.ask('GET', '/v1/gateway/images?limit=1')).body.total.pictures;
  }

  /** The places that image requests have. */
  async slots() {
    const {body} = await this.ask('GET', '/v1/gateway/status');
    return body.admission_control['gpu_heavy.images'];
  }

  async ready(wanted = true) {
    await until(`the backend is ${wanted ? 'ready' : 'not ready'}`, async () => {
      const {body} = await this.ask('GET', '/v1/gateway/status');
      return body.backend_health?.gpu_heavy.ready === wanted;
    });
  }

  /** The checks of the sidecar's own readiness, by name. */
  async checks() {
    const {body} = await request(new URL('/readyz', this.sidecarUrl), {headers: {accept: 'application/json'}});
    return Object.fromEntries(body.checks.map((check) => [check.name, check]));
  }

  get authorityFile() {
    return path.join(this.folder, 'data', 'gateway-ca.pem');
  }

  get authority() {
    return fs.existsSync(this.authorityFile) ? fs.readFileSync(this.authorityFile) : undefined;
  }

  /** What Chromium takes for trusted: the hash of the authority's key. */
  get keyHash() {
    const key = new X509Certificate(this.authority).publicKey.export({type: 'spki', format: 'der'});
    return createHash('sha256').update(key).digest('base64');
  }

  async stop() {
    await Promise.all([this.gateway?.stop('SIGKILL'), this.sidecar?.stop('SIGKILL')]);
    this.engine?.stop();
    fs.rmSync(this.folder, {recursive: true, force: true});
    folders.delete(this.folder);
  }
}
