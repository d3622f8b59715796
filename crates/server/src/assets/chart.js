// Charts as SVG, drawn at the width they have. Colours and fonts are the style sheet's.

import { s, fill } from './dom.js';
import { cell, short } from './format.js';

const MAX_BARS = 24;
const MAX_POINTS = 400;

/** The last values as a line with its area; the newest stands at the right edge. */
export function sparkline(box, values, n_places) {
  const [width, height] = [box.clientWidth || 300, box.clientHeight || 48];
  const top = Math.max(1, ...values);
  const x = (i) => width - ((values.length - 1 - i) / (n_places - 1)) * width;
  const y = (v) => height - 2 - (v / top) * (height - 6);
  const points = values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`);
  if (points.length < 2) return fill(box);
  const area = `${x(0).toFixed(1)},${height} ${points.join(' ')} ${width},${height}`;
  const last = values.length - 1;
  fill(
    box,
    s(
      'svg',
      { width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' },
      s('polygon', { class: 'spark-area', points: area }),
      s('polyline', { class: 'spark-line', points: points.join(' ') }),
      s('circle', { class: 'spark-dot', cx: width - 3, cy: y(values[last]), r: 3 }),
    ),
  );
}

/** What a view's hint asks for: `bar <label> <value>`, `line <label> <value>` or `table`. */
export function parseHint(hint) {
  const [kind, label, value] = hint.trim().split(/\s+/);
  return (kind === 'bar' || kind === 'line') && label && value ? { kind, label, value } : { kind: 'table' };
}

/** Draws rows as the hint says; leaves the box empty when there is nothing to draw. */
export function draw(box, hint, rows) {
  const { kind, label, value } = parseHint(hint);
  const items = kind === 'table' ? [] : rows.map((r) => ({ label: cell(label, r[label]), value: amount(r[value]) }));
  const known = items.filter((i) => i.value !== null);
  if (known.length === 0) return fill(box);
  const width = Math.max(280, box.clientWidth || 600);
  const name = `${value} by ${label}`.replaceAll('_', ' ');
  if (kind === 'line') return fill(box, line(items.slice(0, MAX_POINTS), width, name));
  const isShort = items.length <= 12 && items.every((i) => i.label.length <= 9);
  const shown = items.slice(0, MAX_BARS);
  fill(box, isShort ? columns(shown, width, name) : bars(shown, width, name), more(items.length - shown.length));
}

function amount(value) {
  const n = typeof value === 'string' ? Number(value) : value;
  return typeof n === 'number' && Number.isFinite(n) ? n : null;
}

function more(n) {
  if (n <= 0) return null;
  const note = document.createElement('p');
  note.className = 'small';
  note.textContent = `and ${n} more in the table`;
  return note;
}

function frame(width, height, name, ...children) {
  const title = s('title', {}, name);
  return s('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'img' }, title, ...children);
}

function bars(items, width, name) {
  const [step, thickness] = [26, 16];
  const longest = Math.max(...items.map((i) => i.label.length));
  const left = Math.min(width * 0.4, 14 + longest * 7.2);
  const right = width - 64;
  const top = Math.max(1, ...items.map((i) => i.value ?? 0));
  const marks = items.map((item, i) => {
    const y = i * step + (step - thickness) / 2;
    const length = Math.max(2, ((item.value ?? 0) / top) * (right - left));
    return [
      s('text', { class: 'chart-label', x: left - 10, y: y + thickness - 4, 'text-anchor': 'end' }, clipped(item.label, left)),
      s('rect', { class: 'bar', x: left, y, width: length, height: thickness, rx: 4 }, s('title', {}, told(item))),
      s('text', { class: 'chart-value', x: left + length + 8, y: y + thickness - 4 }, item.value === null ? '–' : short(item.value)),
    ];
  });
  return frame(width, items.length * step + 4, name, marks.flat());
}

function columns(items, width, name) {
  const [height, base, head] = [220, 192, 24];
  const step = Math.min(110, width / items.length);
  const left = (width - step * items.length) / 2;
  const thickness = Math.min(56, step * 0.62);
  const top = Math.max(1, ...items.map((i) => i.value ?? 0));
  const marks = items.map((item, i) => {
    const middle = left + step * (i + 0.5);
    const length = Math.max(2, ((item.value ?? 0) / top) * (base - head));
    const bar = { class: 'bar', x: middle - thickness / 2, y: base - length, width: thickness, height: length, rx: 5 };
    return [
      s('rect', bar, s('title', {}, told(item))),
      s('text', { class: 'chart-value', x: middle, y: base - length - 8, 'text-anchor': 'middle' }, item.value === null ? '–' : short(item.value)),
      s('text', { class: 'chart-label', x: middle, y: base + 20, 'text-anchor': 'middle' }, item.label),
    ];
  });
  const ground = s('line', { class: 'axis', x1: 0, x2: width, y1: base + 0.5, y2: base + 0.5 });
  return frame(width, height, name, marks.flat(), ground);
}

function line(items, width, name) {
  const [height, base, head, side] = [220, 188, 20, 36];
  const top = Math.max(1, ...items.map((i) => i.value ?? 0));
  const x = (i) => (items.length === 1 ? width / 2 : side + (i / (items.length - 1)) * (width - 2 * side));
  const y = (v) => base - (v / top) * (base - head);
  const every = Math.ceil(items.length / Math.max(2, Math.floor(width / 80)));
  const placed = items.map((item, i) => ({ ...item, i })).filter((i) => i.value !== null);
  const points = placed.map((p) => `${x(p.i).toFixed(1)},${y(p.value).toFixed(1)}`).join(' ');
  const dots = placed.map((p) => s('circle', { class: 'dot', cx: x(p.i), cy: y(p.value), r: 3.5 }, s('title', {}, told(p))));
  const labels = items.flatMap((item, i) =>
    i % every === 0 ? [s('text', { class: 'chart-label', x: x(i), y: base + 20, 'text-anchor': 'middle' }, item.label)] : [],
  );
  const grid = [0, 0.5, 1].flatMap((part) => [
    s('line', { class: 'axis', x1: 0, x2: width, y1: y(top * part) + 0.5, y2: y(top * part) + 0.5 }),
    part > 0 && s('text', { class: 'chart-label', x: 0, y: y(top * part) - 5 }, short(Math.round(top * part))),
  ]);
  return frame(width, height, name, grid, s('polyline', { class: 'line', points }), dots, labels);
}

function told(item) {
  return `${item.label}: ${item.value === null ? 'unknown' : cell('', item.value)}`;
}

function clipped(text, width_px) {
  const room = Math.max(6, Math.floor((width_px - 14) / 7));
  return text.length > room ? `${text.slice(0, room - 1)}…` : text;
}
