// A pair of programs and a browser for the tests of one file, and a person who visits the page in it.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import test, {after} from 'node:test';
import {names} from './names.mjs';
import {TOKENS, startPair} from './programs.mjs';
import {Watch} from './watch.mjs';
import {useFilesOf} from './working_tree.mjs';

/** Where npm has put playwright-core and axe-core, and where results go. */
const tools = process.env.PAGE_TOOLS;
export const require = createRequire(path.join(tools, 'package.json'));
const {chromium} = require('playwright-core');

const BROWSER = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--no-proxy-server',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
export const DESKTOP = {width: 1280, height: 860};
export const ON_PHONE = {viewport: {width: 390, height: 844}, isMobile: true, hasTouch: true};
const QUICK = Boolean(process.env.PAGE_QUICK);
/** For whatever a person waits for; a busy machine takes its time. */
const PATIENCE_MS = 15_000;
/** Whatever hangs: for one walk. */
const WALK_MS = 180_000;

/** The programs and the browser; they end with the file's tests. */
export async function startWorld(options) {
  const pair = await startPair(options);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    // As if the authority were trusted on this device: certificate errors that are clicked away would turn caching off.
    args: [...BROWSER, `--ignore-certificate-errors-spki-list=${pair.keyHash}`],
  });
  const world = new World(pair, browser);
  after(() => world.end());
  return world;
}

class World {
  constructor(pair, browser) {
    this.pair = pair;
    this.browser = browser;
    this.pairs = [pair];
  }

  /** Another pair, in another state than the first. */
  async another(options) {
    const pair = await startPair(options);
    this.pairs.push(pair);
    return pair;
  }

  async end() {
    await this.browser.close();
    await Promise.all(this.pairs.map((pair) => pair.stop()));
  }

  /**
   * A test with one person. Nothing may be said in the console, violate the policy, or be asked of another origin, but for
   * what the test itself provokes and names with `person.watch.expect`. `slow` ones are left out of a quick run; `skip` says
   * why one cannot run at all, `timeout` in how many milliseconds it must end.
   */
  walk(name, {slow = false, skip = false, timeout = WALK_MS, ...options}, work) {
    test(name, {timeout, skip: slow && QUICK ? 'slow' : skip}, async (t) => {
      const person = await this.visit(options);
      try {
        await work(person, t);
        person.watch.assertQuiet();
      } catch (error) {
        await person.keepEvidence(name);
        throw error;
      } finally {
        await person.leave();
      }
    });
  }

  /** Opens the page; `as` signs in with that name's token by the form. */
  async visit({as = 'owner', at = '/ui', viewport = DESKTOP, scheme = 'light', pair = this.pair, ...context} = {}) {
    // Another pair than the world's has a certificate of its own.
    const trusts = {ignoreHTTPSErrors: pair !== this.pair || Boolean(process.env.PAGE_FILES)};
    const own = await this.browser.newContext({viewport, colorScheme: scheme, locale: 'en-GB', ...trusts, ...context});
    own.setDefaultTimeout(PATIENCE_MS);
    const watch = new Watch(pair.url, Object.values(TOKENS));
    await watch.over(own);
    if (process.env.PAGE_FILES) {
      const {headers} = await pair.ask('GET', '/ui', {as: null});
      await useFilesOf(own, process.env.PAGE_FILES, headers['content-security-policy']);
    }
    const person = new Person(pair, await own.newPage(), watch);
    await person.page.goto(new URL(at, pair.url).href);
    if (as) await person.signIn(TOKENS[as]);
    return person;
  }
}

/** One page, by the names that a screen reader says. */
class Person {
  constructor(pair, page, watch) {
    Object.assign(this, {pair, page, watch, context: page.context()}, names(page));
  }

  async signIn(token, {remember = false} = {}) {
    await this.token.fill(token);
    if (remember) await this.remember.check();
    await this.signInButton.click();
    await this.token.waitFor({state: 'hidden'});
  }

  /** Fills in the form of Make; small pictures unless told otherwise. */
  async ask(prompt, {steps, seed, pictures, size = '512x512'} = {}) {
    await this.prompt.fill(prompt);
    if (steps !== undefined) await this.steps.fill(String(steps));
    if (seed !== undefined) await this.seed.fill(String(seed));
    if (pictures !== undefined) await this.pictures.fill(String(pictures));
    if (size) await this.chooseSize(size);
  }

  /** A size of the list, or one of one's own. */
  async chooseSize(size) {
    if (await this.size.locator(`option[value="${size}"]`).count()) {
      await this.size.selectOption(size);
      return;
    }
    const [width, height] = size.split('x');
    await this.size.selectOption({label: 'Custom…'});
    await this.page.getByRole('spinbutton', {name: 'Width', exact: true}).fill(width);
    await this.page.getByRole('spinbutton', {name: 'Height', exact: true}).fill(height);
  }

  /** The store's name of the picture that a link opens. */
  async nameOf(link) {
    return (await link.getAttribute('href')).split('/').at(-1);
  }

  /** Another tab of the same browser. */
  async newTab(at = '/ui') {
    const page = await this.context.newPage();
    await page.goto(new URL(at, this.pair.url).href);
    return new Person(this.pair, page, this.watch);
  }

  /** The bytes of a file for a file chooser. */
  async choose(button, files) {
    const [chooser] = await Promise.all([this.page.waitForEvent('filechooser'), button.click()]);
    await chooser.setFiles(files);
  }

  async keepEvidence(name) {
    const folder = path.join(tools, 'failures');
    fs.mkdirSync(folder, {recursive: true});
    const file = path.join(folder, `${name.replace(/\W+/g, '-')}.png`);
    await this.page.screenshot({path: file}).catch(() => {});
    console.error(`what the page looked like: ${file}`);
  }

  async leave() {
    // Requests that the test answers itself end with it, answered or not.
    await this.context.unrouteAll({behavior: 'ignoreErrors'});
    await this.context.close();
  }
}

/** Speed is judged in the whole run only: a quick one may share its machine. `seen` in the unit of `most`. */
export function assertAtMost(most, seen, what) {
  console.log(`${what}: ${seen.toFixed(2)}, at most ${most}`);
  if (!QUICK) assert.ok(seen <= most, `${what}: ${seen.toFixed(2)}, at most ${most}`);
}

/** As `expect(locator).toHaveText`, for one element that changes by itself. */
export async function says(locator, wanted) {
  let seen;
  const holds = async () => {
    seen = await locator.innerText().catch(() => '');
    return wanted.test(seen);
  };
  const end = performance.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(performance.now() < end, `${locator} says ${JSON.stringify(seen)}, not ${wanted}`);
    await new Promise((done) => setTimeout(done, 50));
  }
  return seen;
}
