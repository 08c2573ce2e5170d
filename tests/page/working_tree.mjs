// For who writes the page: its files as they are in a folder, without building the gateway again after each change.

import fs from 'node:fs';
import path from 'node:path';

const TYPES = {'.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.html': 'text/html'};

/** `policy` is what the gateway sends with the page. */
export async function useFilesOf(context, folder, policy) {
  await context.route(/\/ui(\/page\/[^?#]*)?$/, (route) => {
    const inside = /\/ui\/page\/(.*)$/.exec(new URL(route.request().url()).pathname)?.[1] ?? 'index.html';
    const body = fs.readFileSync(path.join(folder, inside));
    const headers = {'content-type': TYPES[path.extname(inside)], ...(inside === 'index.html' ? {'content-security-policy': policy} : {})};
    return route.fulfill({body, headers});
  });
}
