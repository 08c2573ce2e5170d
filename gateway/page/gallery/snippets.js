// Requests that make a picture anew, as text for a shell, Python and JavaScript. No DOM. Whatever a prompt holds stays
// within its quotes, and no token is ever in the text: it comes from the environment variable `GATEWAY_TOKEN`.
import {isStoreName} from './query.js';

const FIELDS = ['model', 'prompt', 'negative_prompt', 'size', 'steps', 'cfg_scale', 'scheduler', 'seed', 'strength', 'loras'];
/** Parameters of the OpenAI SDK's own; the others are `extra_body`. */
const SDK_FIELDS = ['model', 'prompt', 'size'];

/** What to send, and which reference pictures with it, as `{path, fields, references, mask}`. */
export function requestOf(settings) {
  const references = (settings.references ?? []).filter((name) => typeof name === 'string' && name !== '');
  const isEdit = references.length > 0 || settings.task === 'edit' || settings.task === 'inpaint';
  const ignored = new Set(settings.ignored ?? []);
  const fields = FIELDS
    .filter((name) => settings[name] != null && settings[name] !== '' && !ignored.has(name))
    .filter((name) => name !== 'strength' || isEdit)
    .map((name) => [name, settings[name]]);
  return {
    path: isEdit ? '/v1/images/edits' : '/v1/images/generations',
    fields,
    // Sent as `data:`, a picture has no name: one is to be put in.
    references: isEdit && !references.length ? ['picture.png'] : references,
    isEdit,
    mask: isEdit && settings.mask === true,
  };
}

// Control characters beyond ASCII's, and what ends a line in JavaScript.
const UNSEEN = /[\u007f-\u009f\u2028\u2029]/g;
const escaped = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** A string or other value as JSON, which both JavaScript and (strings, numbers) Python read. */
const literal = (value, indent) => JSON.stringify(value, null, indent).replace(UNSEEN, escaped);

/** The same for Python. */
export function pythonLiteral(value) {
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (value === null) return 'None';
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(', ')}]`;
  if (typeof value === 'object') {
    return `{${Object.entries(value).map(([key, one]) => `${literal(key)}: ${pythonLiteral(one)}`).join(', ')}}`;
  }
  return literal(value);
}

/** A word of a POSIX shell. Control characters are written as numbers: raw ones would reach the terminal on pasting. */
export function shellQuote(text) {
  const plain = (part) => `'${part.replaceAll("'", "'\\''")}'`;
  // eslint-disable-next-line no-control-regex -- these are what is looked for
  if (!/[\0-\x08\x0b-\x1f\x7f-\x9f]/.test(text)) return plain(text);
  // A command's result loses the line ends at its end.
  const [, body, end] = /^(.*?)(\n*)$/s.exec(text);
  const octal = [...new TextEncoder().encode(body)]
    .map((byte) => (byte < 0x20 || byte > 0x7e || byte === 0x5c ? `\\0${byte.toString(8).padStart(3, '0')}` : String.fromCharCode(byte)))
    .join('');
  return `"$(printf %b ${plain(octal)})"${end && plain(end)}`;
}

const fileName = (reference) => reference.replace(/[\\/]/g, '_');

const formText = (value) => (typeof value === 'object' ? JSON.stringify(value) : String(value));

/** As commands for a POSIX shell. */
export function curl(settings, origin) {
  const {path, fields, references, isEdit, mask} = requestOf(settings);
  const lines = [`curl ${shellQuote(origin + path)}`, '-H "Authorization: Bearer $GATEWAY_TOKEN"'];
  if (!isEdit) {
    lines.push("-H 'Content-Type: application/json'", `--data-raw ${shellQuote(literal(Object.fromEntries(fields)))}`);
    return `${lines.join(' \\\n  ')}\n`;
  }
  // `--form-string` takes a leading @ or < as it is. In a file name curl reads ; and , itself, unless it is quoted.
  const file = (name) => shellQuote(`image[]=@"${name.replace(/["\\]/g, '\\$&')}"`);
  lines.push(...references.map((name) => `-F ${file(fileName(name))}`));
  if (mask) lines.push("-F 'mask=@\"mask.png\"'");
  lines.push(...fields.map(([name, value]) => `--form-string ${shellQuote(`${name}=${formText(value)}`)}`));
  const stored = references.filter(isStoreName);
  const first = stored.map((name) => `curl -O ${shellQuote(`${origin}/ui/images/${name}`)}\n`).join('');
  return `${first}${mask ? '# The mask was not kept: put yours in mask.png.\n' : ''}${lines.join(' \\\n  ')}\n`;
}

/** With the OpenAI SDK. */
export function python(settings, origin) {
  const {fields, references, isEdit, mask} = requestOf(settings);
  const own = fields.filter(([name]) => SDK_FIELDS.includes(name));
  // In a form there are only texts.
  const further = fields.filter(([name]) => !SDK_FIELDS.includes(name))
    .map(([name, value]) => [name, isEdit && typeof value === 'object' ? JSON.stringify(value) : value]);
  const stored = references.some(isStoreName);
  const read = (name) => (isStoreName(name)
    ? `(${pythonLiteral(name)}, urlopen(f"{ORIGIN}/ui/images/${name}").read())`
    : `open(${pythonLiteral(fileName(name))}, "rb")`);
  const parameters = [
    ...(isEdit ? [`image=[${references.map(read).join(', ')}],`] : []),
    ...(mask ? ['mask=open("mask.png", "rb"),  # was not kept: put yours there'] : []),
    ...own.map(([name, value]) => `${name}=${pythonLiteral(value)},`),
    'response_format="url",',
    ...(further.length ? [`extra_body=${pythonLiteral(Object.fromEntries(further))},`] : []),
  ];
  return `# pip install openai
import os
from urllib.parse import urljoin
${stored ? 'from urllib.request import urlopen\n' : ''}
from openai import OpenAI

ORIGIN = ${pythonLiteral(origin)}
client = OpenAI(base_url=f"{ORIGIN}/v1", api_key=os.environ["GATEWAY_TOKEN"])
answer = client.images.${isEdit ? 'edit' : 'generate'}(
    ${parameters.join('\n    ')}
)
print(urljoin(ORIGIN, answer.data[0].url))
`;
}

/** With nothing but Node.js 20, as a module. */
export function javascript(settings, origin) {
  const {path, fields, references, isEdit, mask} = requestOf(settings);
  const tail = `if (!response.ok) throw new Error(await response.text());
const answer = await response.json();
console.log(new URL(answer.data[0].url, origin).href);
`;
  if (!isEdit) {
    const body = literal({...Object.fromEntries(fields), response_format: 'url'}, 2);
    return `const origin = ${literal(origin)};
const response = await fetch(origin + ${literal(path)}, {
  method: 'POST',
  headers: {Authorization: \`Bearer \${process.env.GATEWAY_TOKEN}\`, 'Content-Type': 'application/json'},
  body: JSON.stringify(${body.replaceAll('\n', '\n  ')}),
});
${tail}`;
  }
  const read = (name) => (isStoreName(name)
    ? `await (await fetch(origin + ${literal(`/ui/images/${name}`)})).blob()`
    : `new Blob([await readFile(${literal(fileName(name))})])`);
  const needsFiles = mask || references.some((name) => !isStoreName(name));
  return `${needsFiles ? "import {readFile} from 'node:fs/promises';\n\n" : ''}const origin = ${literal(origin)};
const form = new FormData();
${references.map((name) => `form.append('image[]', ${read(name)}, ${literal(fileName(name))});\n`).join('')}${mask
    ? "// The mask was not kept: put yours in mask.png.\nform.append('mask', new Blob([await readFile('mask.png')]), 'mask.png');\n" : ''}${fields
    .map(([name, value]) => `form.append(${literal(name)}, ${literal(formText(value))});\n`).join('')}form.append('response_format', 'url');
const response = await fetch(origin + ${literal(path)}, {
  method: 'POST',
  headers: {Authorization: \`Bearer \${process.env.GATEWAY_TOKEN}\`},
  body: form,
});
${tail}`;
}
