// axe-core over what is shown: all its default rules, no violation is accepted.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import {require} from './world.mjs';

const source = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

export async function assertAccessible(page, where) {
  // What fades or grows is judged when it is there.
  await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => {}))));
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(source);
  const {violations} = await page.evaluate(() => window.axe.run());
  const words = violations.map(({id, help, nodes}) => `${id}: ${help}\n${nodes.map(({html, failureSummary}) => `  ${html.slice(0, 200)}\n  ${failureSummary}`).join('\n')}`);
  assert.deepEqual(words, [], where);
}
