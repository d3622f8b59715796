// Numbers, sizes and times for people.

const GROUPED = new Intl.NumberFormat('en');
const COMPACT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

/** 12,345; long ones as 1.2M. */
export function count(n) {
  return Math.abs(n) < 1e7 ? GROUPED.format(n) : COMPACT.format(n);
}

export function exact(n) {
  return GROUPED.format(n);
}

export function short(n) {
  return Math.abs(n) < 10000 ? GROUPED.format(n) : COMPACT.format(n);
}

/** Records per second: one decimal while it is small. */
export function rate(n) {
  return n > 0 && n < 10 ? n.toFixed(1) : count(Math.round(n));
}

export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function size(bytes) {
  let [n, unit] = [bytes, 'B'];
  for (const larger of ['kB', 'MB', 'GB', 'TB']) {
    if (n < 1000) break;
    [n, unit] = [n / 1000, larger];
  }
  return `${n < 10 && unit !== 'B' ? n.toFixed(1) : Math.round(n)} ${unit}`;
}

/** 250 ms, 3.2 s, 4 min, 5 h, 6 days. */
export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} days`;
}

/** For times that are looked at every second: below a second it is just now. */
export function ago(ms) {
  return ms < 1000 ? 'just now' : `${duration(Math.floor(ms / 1000) * 1000)} ago`.replace('.0 s', ' s');
}

/** `written_bytes` 1200 → `written 1.2 kB`; `n_records` 5 → `5 records`. */
export function figure(name, n) {
  const words = name.replace(/^n_/, '').replaceAll('_', ' ');
  if (name.endsWith('_bytes')) return `${words.replace(/ bytes$/, '')} ${size(n)}`;
  if (name.endsWith('_ms')) return `${words.replace(/ ms$/, '')} ${duration(n)}`;
  return `${count(n)} ${words}`;
}

export function column(name) {
  return name.replaceAll('_', ' ');
}

/** One cell. Years are names, not amounts. */
export function cell(name, value) {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'object') return JSON.stringify(value);
  if (typeof value !== 'number') return String(value);
  if (/year$|^ind$/.test(name)) return String(value);
  return Number.isInteger(value) ? GROUPED.format(value) : value.toLocaleString('en', { maximumFractionDigits: 3 });
}
