// The pipeline as a picture: drawn once per layout, then only its texts change.

import { s, fill, say } from './dom.js';
import { ago, count, plural, rate } from './format.js';

const [W, H] = [168, 92];

// Where the boxes stand; a narrow page reads from top to bottom.
const WIDE = {
  size: [1080, 300],
  boxes: { posts: [2, 104], log: [218, 104], landing: [448, 4], batch: [680, 4], speed: [564, 204], views: [910, 104] },
  edges: {
    take: 'M170 150 H218',
    land: 'M302 104 C302 60 350 50 448 50',
    clean: 'M616 50 H680',
    count: 'M848 50 C930 50 994 56 994 104',
    speed: 'M302 196 C302 244 380 250 564 250',
    merge: 'M732 250 C900 250 994 246 994 196',
    tail: 'M386 150 H910',
  },
  labels: { land: [362, 40], count: [930, 38], merge: [850, 270], tail: [648, 140] },
};
const NARROW = {
  size: [380, 690],
  boxes: { posts: [106, 2], log: [106, 132], landing: [2, 290], batch: [2, 430], speed: [210, 360], views: [106, 594] },
  edges: {
    take: 'M190 94 V132',
    land: 'M150 224 C150 264 86 250 86 290',
    clean: 'M86 382 V430',
    count: 'M86 522 C86 566 150 556 150 594',
    speed: 'M230 224 C230 300 294 280 294 360',
    merge: 'M294 452 C294 540 230 540 230 594',
    tail: 'M190 224 V594',
  },
  labels: { land: [56, 258], count: [62, 566], merge: [322, 536], tail: [190, 266] },
};

const TITLES = {
  posts: 'Posts',
  log: 'Log',
  landing: 'Landing objects',
  batch: 'Batch view',
  speed: 'Real-time view',
  views: 'Merged views',
};

/** A picture in `box`; its `update` takes what the page knows. */
export function pipeline(box) {
  const narrow = window.matchMedia('(max-width: 720px)');
  let texts = {};
  let latest = null;

  function redraw() {
    texts = {};
    fill(box, picture(narrow.matches ? NARROW : WIDE, texts));
    if (latest) show(texts, latest);
  }
  narrow.addEventListener('change', redraw);
  redraw();
  return {
    update(now) {
      latest = now;
      show(texts, now);
    },
  };
}

function picture(layout, texts) {
  const [width, height] = layout.size;
  const edges = Object.entries(layout.edges).map(([name, d]) => {
    texts[`edge-${name}`] = s('path', { class: `edge edge-${name}`, d });
    return texts[`edge-${name}`];
  });
  const labels = Object.entries(layout.labels).map(([name, [x, y]]) => {
    texts[`label-${name}`] = s('text', { class: 'edge-label', x, y, 'text-anchor': 'middle' });
    return texts[`label-${name}`];
  });
  const boxes = Object.entries(layout.boxes).map(([name, [x, y]]) => {
    const number = s('text', { class: 'box-number', x: 16, y: 56 });
    const note = s('text', { class: 'box-note', x: 16, y: 77 });
    Object.assign(texts, { [name]: number, [`${name}-note`]: note });
    return s(
      'g',
      { class: `box box-${name}`, transform: `translate(${x} ${y})` },
      s('rect', { width: W, height: H, rx: 12 }),
      s('circle', { cx: 20, cy: 21, r: 4 }),
      s('text', { class: 'box-title', x: 31, y: 26 }, TITLES[name]),
      number,
      note,
    );
  });
  const title = 'Posts go to the log; from there to landing objects and the batch view, and to the real-time view; answers join both with the tail of the log';
  return s(
    'svg',
    { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': title },
    edges,
    labels,
    boxes,
  );
}

function show(texts, { perSecond, log, layers, tasks }) {
  const set = (name, text) => texts[name] && say(texts[name], text);
  const flow = (name, flows) => texts[`edge-${name}`]?.classList.toggle('flows', flows);
  const note = (name, task, otherwise) => set(`${name}-note`, taskNote(tasks.get(task)) ?? otherwise);

  set('posts', perSecond === null ? '–' : `${rate(perSecond)} /s`);
  set('posts-note', perSecond > 0 ? 'arriving over HTTP' : 'none arriving now');
  set('log', log ? count(log.total) : '–');
  set('log-note', log ? `${plural(log.partitions.length, 'partition')}, durable` : ' ');

  const landing = tasks.get('landing');
  const landed = landing?.totals.n_records ?? 0;
  set('landing', landing ? count(landed) : '–');
  note('landing', 'landing', landing ? 'records since the start' : 'not run by this process');

  const waiting = landing?.last_run?.report?.figures.lag_records;
  set('label-land', waiting > 0 ? `${count(waiting)} waiting` : '');

  set('batch', layers ? count(layers.batch) : '–');
  note('batch', 'batch', !layers ? ' ' : layers.batch_age === null ? 'no run yet' : `as of ${ago(layers.batch_age)}`);
  set('speed', layers ? count(layers.realtime) : '–');
  note('speed', 'speed', !layers ? ' ' : layers.realtime_age === null ? 'nothing committed yet' : `as of ${ago(layers.realtime_age)}`);
  set('views', layers ? count(layers.reached) : '–');
  set('views-note', layers ? (layers.complete ? 'records of the view below' : 'records; the tail is cut') : ' ');

  set('label-count', layers ? `${plural(layers.behind_batch, 'record')} behind` : '');
  set('label-merge', layers ? `${plural(layers.behind_realtime, 'record')} behind` : '');
  set('label-tail', layers ? `tail: ${plural(layers.tail, 'record')}` : '');

  flow('take', perSecond > 0);
  flow('tail', layers !== null && layers.tail > 0);
  flow('land', works(landing));
  flow('clean', works(tasks.get('batch')));
  flow('count', works(tasks.get('batch')));
  flow('speed', works(tasks.get('speed')));
  flow('merge', works(tasks.get('speed')));
}

/** What is worth more attention than the ordinary note. */
function taskNote(task) {
  if (task?.state === 'running' && task.running_ms > 2000) return `running for ${ago(task.running_ms).replace(' ago', '')}`;
  if (task?.state === 'backing_off') return 'failing, see Tasks';
  return null;
}

/** Running, or did something in the last few seconds. */
function works(task) {
  return task !== undefined && (task.state === 'running' || task.worked_ago < 6000);
}
