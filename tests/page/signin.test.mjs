// Who may use the page: tokens right and wrong, kept and forgotten, in an address, withdrawn.

import assert from 'node:assert/strict';
import {TOKENS} from './programs.mjs';
import {failed} from './watch.mjs';
import {says, startWorld} from './world.mjs';

const world = await startWorld();
const {pair} = world;
const refused = failed(401);

world.walk('a wrong token is said at once, the right one opens the page', {as: null}, async (person) => {
  person.watch.expect(refused);
  await person.token.fill('not-a-token-of-this-gateway');
  await person.signInButton.click();
  await says(person.alert, /token/i);
  assert.ok(await person.token.isVisible());
  await person.token.fill(TOKENS.kid);
  await person.signInButton.click();
  await person.signOutButton.waitFor();
  assert.equal(await person.alert.count(), 0);
  assert.deepEqual(await person.page.evaluate(() => Object.values(localStorage)), []);
});

world.walk('a pasted token brings spaces and a line break', {as: null}, async (person) => {
  await person.token.fill(`  ${TOKENS.kid}\n`);
  await person.signInButton.click();
  await person.signOutButton.waitFor();
});

world.walk('a token stays in its tab', {}, async (person) => {
  await person.page.reload();
  await person.signOutButton.waitFor();
  const other = await person.newTab();
  await other.token.waitFor();
});

world.walk('a remembered token is there in a new tab, and gone everywhere after signing out', {as: null}, async (person) => {
  await person.signIn(TOKENS.kid, {remember: true});
  const other = await person.newTab();
  await other.signOutButton.waitFor();
  await other.signOutButton.click();
  await other.token.waitFor();
  await person.token.waitFor();
  const kept = await person.page.evaluate(() => [...Object.values(localStorage), ...Object.values(sessionStorage)]);
  assert.deepEqual(kept, []);
});

world.walk('signing out leaves nothing of the person', {}, async (person) => {
  await person.prompt.fill('a secret garden');
  await person.signOutButton.click();
  await person.token.waitFor();
  assert.equal(await person.token.inputValue(), '');
  await person.signIn(TOKENS.guest);
  assert.equal(await person.prompt.inputValue(), '');
});

world.walk('the address of a scanned code signs in, and loses the token', {as: null, at: `/ui#token=${TOKENS.kid}`}, async (person) => {
  await person.signOutButton.waitFor();
  assert.ok(!person.page.url().includes(TOKENS.kid), person.page.url());
  await person.page.goBack();
  assert.ok(!person.page.url().includes(TOKENS.kid), person.page.url());
});

world.walk('a code that does not count any more says so', {as: null, at: '/ui#token=an-old-token-0123456789'}, async (person) => {
  person.watch.expect(refused);
  await says(person.alert, /token/i);
  assert.ok(await person.token.isVisible());
  assert.ok(!person.page.url().includes('an-old-token'), person.page.url());
});

world.walk('the bare address leads to the page', {as: null, at: '/'}, async (person) => {
  assert.equal(new URL(person.page.url()).pathname, '/ui');
  await person.token.waitFor();
});

world.walk('a token that a reload withdraws is asked for again', {as: 'guest'}, async (person) => {
  person.watch.expect(refused);
  await person.signOutButton.waitFor();
  const {guest, ...others} = TOKENS;
  pair.setTokens(others);
  pair.gateway.signal('SIGHUP');
  await person.token.waitFor();
  await says(person.alert, /token/i);
  pair.setTokens({...others, guest});
  pair.gateway.signal('SIGHUP');
  await person.signIn(TOKENS.kid);
  await person.signOutButton.waitFor();
});
