// For who writes the page: its files as they are in a folder, without building the gateway again after each change.

import fs from 'node:fs';
import path from 'node:path';

const TYPES = {'.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.html': 'text/html'};

export async function useFilesOf(context, folder) {
  await context.route(/\/ui(\/page\/[^?#]*)?$/, async (route) => {
    const inside = /\/ui\/page\/(.*)$/.exec(new URL(route.request().url()).pathname)?.[1] ?? 'index.html';
    const body = fs.readFileSync(path.join(folder, inside));
    const policy = inside === 'index.html' ? (await route.fetch()).headers()['content-security-policy'] : '';
    const headers = {'content-type': TYPES[path.extname(inside)], ...(policy ? {'content-security-policy': policy} : {})};
    await route.fulfill({body, headers});
  });
}
