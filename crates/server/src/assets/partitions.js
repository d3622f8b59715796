// The partitions: how far the log goes, and how much of it each layer holds.

import { h, fill } from './dom.js';
import { count, exact } from './format.js';

const MAX_ROWS = 100;

export function partitions(box) {
  return {
    update(log, boundary) {
      if (!log) return;
      if (log.partitions.length === 0) return fill(box, h('p', { class: 'empty' }, 'No topic yet: the first post creates one.'));
      const shown = log.partitions.slice(0, MAX_ROWS);
      const rest = log.partitions.length - shown.length;
      fill(box, table(shown, boundary), rest > 0 && h('p', { class: 'small' }, `and ${rest} more`));
    },
  };
}

/** How a partition's records divide; without a boundary nothing is known but the ends. */
export function layersOf(partition, boundary) {
  if (!boundary) return null;
  const id = `${partition.topic}-${partition.partition}`;
  // The view on show reads only some of the streams; nothing is known of the others.
  const known = [boundary.batch_through, boundary.realtime_through, boundary.tail_through];
  if (!known.some((through) => id in through)) return null;
  const batch = boundary.batch_through[id] ?? 0;
  const realtime = Math.max(batch, boundary.realtime_through[id] ?? 0);
  const reached = Math.max(realtime, boundary.tail_through[id] ?? 0);
  // The log may have moved since the boundary was taken.
  return { batch, realtime, reached, end: Math.max(partition.end, reached) };
}

function table(partitions, boundary) {
  const counted = ['Counted in ', legend('batch', 'batch view'), legend('realtime', 'real-time view'), legend('tail', 'tail')];
  const head = ['Partition', 'Stream', 'Log end offset', counted, 'Batch lag', 'Real-time lag'];
  const numeric = new Set([2, 4, 5]);
  return h(
    'table',
    { class: 'partitions' },
    h('thead', {}, h('tr', {}, head.map((name, i) => h('th', { scope: 'col', class: numeric.has(i) && 'number' }, [name].flat())))),
    h('tbody', {}, partitions.map((p) => row(p, boundary))),
  );
}

function legend(layer, name) {
  return h('span', { class: 'legend' }, h('span', { class: `swatch part-${layer}` }), name);
}

function row(partition, boundary) {
  const layers = layersOf(partition, boundary);
  const trimmed = partition.start > 0 ? `records below ${exact(partition.start)} have been trimmed` : null;
  return h(
    'tr',
    {},
    h('th', { scope: 'row' }, partition.topic, h('span', { class: 'muted' }, ` · ${partition.partition}`)),
    h('td', {}, partition.stream ? h('span', { class: 'chip' }, partition.stream) : h('span', { class: 'muted' }, 'none takes it')),
    h('td', { class: 'number', title: trimmed }, exact(partition.end)),
    h('td', {}, layers && coverage(layers)),
    h('td', { class: 'number' }, layers ? count(layers.end - layers.batch) : '–'),
    h('td', { class: 'number' }, layers ? count(layers.end - layers.realtime) : '–'),
  );
}

/** A bar of three parts: batch view, real-time view, tail. */
export function coverage({ batch, realtime, end }) {
  const parts = [
    ['batch', batch],
    ['realtime', realtime - batch],
    ['tail', end - realtime],
  ];
  const bar = h('div', { class: 'coverage' });
  bar.title = parts.map(([name, n]) => `${name} ${exact(n)}`).join(' · ');
  for (const [name, n] of parts) {
    if (n <= 0) continue;
    const part = h('span', { class: `part part-${name}` });
    part.style.flexGrow = String(n / Math.max(1, end));
    bar.append(part);
  }
  return bar;
}
