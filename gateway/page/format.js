// Numbers and times for people.

/** As in `11.5 GiB`, from MiB. */
export function memory(mib) {
  return mib >= 1024 ? `${(mib / 1024).toFixed(1)} GiB` : `${Math.round(mib)} MiB`;
}

/** As in `3.2 MiB`, from bytes. */
export function bytes(count) {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** As in `42 s` or `3 min 20 s`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

// Made once: each costs much time and memory, and a gallery writes thousands of days.
const formats = {
  dateTime: new Intl.DateTimeFormat(undefined, {dateStyle: 'medium', timeStyle: 'short'}),
  day: new Intl.DateTimeFormat(undefined, {weekday: 'short', month: 'short', day: 'numeric'}),
  dayAndYear: new Intl.DateTimeFormat(undefined, {weekday: 'short', year: 'numeric', month: 'short', day: 'numeric'}),
  time: new Intl.DateTimeFormat(undefined, {timeStyle: 'medium'}),
};

/** The person's own way to write a day and a time, from Unix seconds. */
export const dateTime = (unix) => formats.dateTime.format(unix * 1000);

/** As in `Today`, `Yesterday`, `Tue, 24 Nov`; days of other years with the year. */
export function day(unix, now = Date.now()) {
  const date = new Date(unix * 1000);
  const today = new Date(now);
  const yesterday = new Date(now);
  yesterday.setDate(today.getDate() - 1);
  if (date.toDateString() === today.toDateString()) return 'Today';
  if (date.toDateString() === yesterday.toDateString()) return 'Yesterday';
  return formats[date.getFullYear() === today.getFullYear() ? 'day' : 'dayAndYear'].format(date);
}

export const time = (unix) => formats.time.format(unix * 1000);
