// What the filter asks for, and names of the store. No DOM.

const NAME = /^(\d{1,12})_[0-9a-f]{16}\.(?:png|jpg|webp|svg)$/;

export const isStoreName = (name) => NAME.test(name);

/** When the picture of this name was made, in Unix seconds. */
export const madeAt = (name) => Number(NAME.exec(name)?.[1] ?? 0);

/** Orders names newest first, as the gateway does. */
export function newerFirst(one, other) {
  return madeAt(other) - madeAt(one) || (one < other ? 1 : one > other ? -1 : 0);
}

/** The first and the last second of a local day `2026-12-01`; null if it is none. */
export function daySeconds(text) {
  const match = /^(\d{4,6})-(\d\d)-(\d\d)$/.exec(text);
  if (!match) return null;
  const [year, month, date] = match.slice(1).map(Number);
  // Not 24 hours later: some days have 23 or 25.
  const start = new Date(year, month - 1, date).getTime() / 1000;
  const end = new Date(year, month - 1, date + 1).getTime() / 1000 - 1;
  return Number.isFinite(start) ? {from: Math.max(0, Math.floor(start)), until: Math.max(0, Math.floor(end))} : null;
}

/** The query of a page of the list. */
export function listQuery({text = '', model = '', day = ''} = {}, {limit, before} = {}) {
  const query = new URLSearchParams({limit});
  if (before) query.set('before', before);
  if (text.trim()) query.set('text', text.trim());
  if (model) query.set('model', model);
  const seconds = daySeconds(day);
  if (seconds) {
    query.set('from', seconds.from);
    query.set('until', seconds.until);
  }
  // The gateway decodes per cent, and a plus is a plus.
  return query.toString().replaceAll('+', '%20');
}

export const isFiltering = ({text = '', model = '', day = ''}) => Boolean(text.trim() || model || daySeconds(day));
