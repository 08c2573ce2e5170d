// The requests that the gallery copies, run for real: whatever is in a prompt arrives as it is, and nothing else is run.
import assert from 'node:assert/strict';
import {execFileSync, spawn} from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {after, before, test} from 'node:test';
import {curl, javascript, python, requestOf, shellQuote} from '../../../gateway/page/gallery/snippets.js';

const NAME = '1736697234_0123456789abcdef.png';
const PROMPTS = [
  'a lighthouse',
  `it's "quoted" \\ $HOME \`id\` $(id) !! %s %d {} \${x} #{y} '''`,
  '@/etc/passwd', '</etc/passwd', 'a;type=text/html', 'a, b; c', '-d x', '"', "'", '\\', '\\\\n', "'; touch pwned; '",
  'first line\nsecond\tline\r\nthird\n\n', 'قطة \u202e تنام', '猫 🐈 e\u0301', '</script><img src=x onerror=alert(1)>',
  'escape \u001b[201~\nid\n \u0007 \u0085 \u009b \u007f \u2028 \u2029 end', 'nothing but \u001b', '%41 + & = ?', '*/ // <!--',
];
let folder;
let server;
let origin;
let seen = [];

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'snippets-'));
  server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    if (request.url.startsWith('/ui/images/')) {
      response.end('picture');
      return;
    }
    seen.push({url: request.url, headers: request.headers, body: Buffer.concat(chunks)});
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({created: 1, data: [{url: `/ui/images/${NAME}`}]}));
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  origin = `http://127.0.0.1:${server.address().port}`;
});
after(() => {
  server.close();
  fs.rmSync(folder, {recursive: true});
});

async function fields({headers, body}) {
  if (headers['content-type'].startsWith('application/json')) return JSON.parse(body);
  const form = await new Response(body, {headers: {'content-type': headers['content-type']}}).formData();
  const all = {};
  for (const [name, value] of form) {
    if (typeof value === 'string') all[name] = value;
    else (all[name] ??= []).push([value.name, await value.text()]);
  }
  return all;
}

async function run(command, parameters) {
  seen = [];
  const child = spawn(command, parameters, {cwd: folder, env: {...process.env, GATEWAY_TOKEN: 'token-of-the-test'}});
  let words = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { words += data; });
  const code = await new Promise((resolve) => { child.on('close', resolve); });
  assert.equal(code, 0, words);
  assert.equal(seen.length, 1, words);
  assert.equal(seen[0].headers.authorization, 'Bearer token-of-the-test');
  return fields(seen[0]);
}

const ways = {
  curl: (settings) => run('sh', ['-c', curl(settings, origin)]),
  javascript: (settings) => run(process.execPath, ['--input-type=module', '-e', javascript(settings, origin)]),
};
const openai = process.env.PYTHON_WITH_OPENAI;
if (openai) ways.python = (settings) => run(openai, ['-c', python(settings, origin)]);

// These take long to start, and a shell minds most what is where: the others get all prompts in one.
const promptsOf = (way) => (way === 'curl' ? PROMPTS : [PROMPTS.join('\n')]);

for (const [way, make] of Object.entries(ways)) {
  test(`${way}: a prompt arrives as it is`, async () => {
    for (const prompt of promptsOf(way)) {
      const settings = {task: 'generate', prompt, negative_prompt: prompt, model: 'm "x"', size: '64x64', steps: 4, seed: 4294967295, cfg_scale: 3.5,
        loras: [{name: prompt, weight: 0.5}]};
      const sent = await make(settings);
      assert.equal(seen[0].url, '/v1/images/generations');
      const {response_format: format, ...rest} = sent;
      const {task, ...expected} = settings;
      assert.deepEqual(rest, expected);
      if (way !== 'curl') assert.equal(format, 'url');
    }
  });
  test(`${way}: an edit is a form with its pictures`, async () => {
    fs.writeFileSync(path.join(folder, 'my "a;b,c\'.png'), 'own');
    fs.writeFileSync(path.join(folder, 'mask.png'), 'mask');
    for (const prompt of promptsOf(way)) {
      const sent = await make({task: 'inpaint', prompt, strength: 0.75, seed: 1, mask: true, loras: [{name: prompt, weight: 1}],
        references: [NAME, 'my "a;b,c\'.png']});
      assert.equal(seen[0].url, '/v1/images/edits');
      // Forms end lines with CR LF; the sidecar is told so by the clients themselves.
      const lines = (text) => text.replace(/\r\n|\r|\n/g, '\n');
      assert.equal(lines(sent.prompt), lines(prompt));
      assert.equal(sent.strength, '0.75');
      assert.deepEqual(JSON.parse(sent.loras), [{name: prompt, weight: 1}]);
      const pictures = sent['image[]'] ?? sent.image;
      assert.deepEqual(pictures.map(([, content]) => content), ['picture', 'own']);
      assert.deepEqual(sent.mask.map(([, content]) => content), ['mask']);
    }
  });
}

test('nothing else was run', () => assert.ok(!fs.existsSync(path.join(folder, 'pwned'))));

test('a word of the shell is one word, whatever the shell', () => {
  for (const prompt of PROMPTS) {
    for (const shell of ['sh', 'bash']) {
      assert.equal(execFileSync(shell, ['-c', `printf %s. ${shellQuote(prompt)}`]).toString(), `${prompt}.`);
    }
    // eslint-disable-next-line no-control-regex -- what no terminal should be given
    assert.doesNotMatch(shellQuote(prompt), /[\0-\x08\x0b-\x1f\x7f-\x9f]/);
  }
});

test('what was left out is not asked for again, and generations take no strength', () => {
  const {fields: asked} = requestOf({prompt: 'p', negative_prompt: 'n', strength: 1, ignored: ['negative_prompt'], references: []});
  assert.deepEqual(asked, [['prompt', 'p']]);
});

test('no snippet has the token in it', () => {
  for (const make of [curl, python, javascript]) assert.match(make({prompt: 'p'}, 'https://ai2:8800'), /GATEWAY_TOKEN/);
});
