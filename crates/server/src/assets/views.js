// The views: which are there, and the chosen one's answer as chart, table and plain words.

import { byId, h, fill, say } from './dom.js';
import { draw, parseHint } from './chart.js';
import { ago, cell, column, duration, plural } from './format.js';

const SCOPES = [
  ['merged', 'Merged', 'everything acknowledged until now'],
  ['batch', 'Batch', 'what the last batch run took in'],
  ['realtime', 'Real-time', 'what came since the last batch run'],
];
// A slow view is asked for less often.
const MIN_REFRESH_MS = 2000;
const MAX_REFRESH_MS = 60_000;
const PAUSE_PER_ANSWER = 5;
const SLOW_MS = 1500;
const MAX_ROWS = 50;

export function views(onBoundary) {
  const known = new Map();
  const shown = { view: null, scope: 'merged', all: false, sort: null, answer: null, asked_at: 0 };
  let asking = null;
  let timer = null;

  async function load() {
    const response = await fetch('/api/views');
    const body = await response.json();
    if (!response.ok) return say(byId('answer-state'), body.error);
    for (const view of body.views) known.set(view.name, view);
    if (known.size === 0) return say(byId('answer-state'), 'This pipeline defines no views.');
    fromAddress();
    drawChoices();
    ask();
  }

  function fromAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    shown.view = known.has(wanted.get('view')) ? wanted.get('view') : (shown.view ?? first());
    if (SCOPES.some(([name]) => name === wanted.get('scope'))) shown.scope = wanted.get('scope');
  }

  // A chart says more at first sight than a table.
  function first() {
    const withChart = [...known.values()].filter((v) => parseHint(v.chart).kind !== 'table');
    return (known.get('posts_per_category') ?? withChart[0] ?? [...known.values()][0]).name;
  }

  function choose(change) {
    Object.assign(shown, { all: false, sort: null }, change);
    history.replaceState(null, '', `#${new URLSearchParams({ view: shown.view, scope: shown.scope })}`);
    drawChosen();
    ask();
  }

  // Buttons are made once and pressed later, so that the keyboard stays where it is.
  function drawChoices() {
    const choice = (change, properties, title) => h('button', { type: 'button', click: () => choose(change), ...properties }, title);
    fill(byId('view-list'), [...known.values()].map((v) => choice({ view: v.name }, { class: 'view', 'data-view': v.name }, v.title)));
    fill(byId('scopes'), SCOPES.map(([name, title, meaning]) => choice({ scope: name }, { title: meaning, 'data-scope': name }, title)));
    drawChosen();
  }

  function drawChosen() {
    for (const button of document.querySelectorAll('#view-list button, #scopes button')) {
      const { view, scope } = button.dataset;
      button.setAttribute('aria-pressed', String(view ? view === shown.view : scope === shown.scope));
    }
    say(byId('question'), known.get(shown.view).question);
    const links = ['csv', 'json', 'arrow'].map((format) => {
      const address = `/api/views/${encodeURIComponent(shown.view)}?${new URLSearchParams({ scope: shown.scope, format })}`;
      return h('a', { href: address }, format === 'arrow' ? 'Arrow' : format.toUpperCase());
    });
    fill(byId('links'), 'This answer as ', links);
  }

  /** Whether the page still shows the answer to another question. */
  function isOther() {
    return shown.answer?.view !== shown.view || shown.answer?.boundary.scope !== shown.scope;
  }

  async function ask() {
    clearTimeout(timer);
    asking?.abort();
    asking = new AbortController();
    const mine = asking;
    shown.asked_at = Date.now();
    byId('chart').classList.toggle('stale', isOther());
    byId('rows').classList.toggle('stale', isOther());
    const address = `/api/views/${encodeURIComponent(shown.view)}?${new URLSearchParams({ scope: shown.scope })}`;
    try {
      const response = await fetch(address, { signal: mine.signal });
      const body = await response.json();
      if (mine !== asking) return;
      if (response.ok) accept(body);
      else refuse(body.error);
    } catch (error) {
      if (error.name === 'AbortError' || mine !== asking) return;
      refuse('the server does not answer');
    }
    asking = null;
    const pause_ms = (Date.now() - shown.asked_at) * PAUSE_PER_ANSWER;
    const refresh_ms = Math.min(MAX_REFRESH_MS, Math.max(MIN_REFRESH_MS, pause_ms));
    timer = setTimeout(() => (document.hidden ? waitUntilSeen() : ask()), refresh_ms);
  }

  function waitUntilSeen() {
    document.addEventListener('visibilitychange', ask, { once: true });
  }

  function accept({ view, rows, n_rows, ...boundary }) {
    shown.answer = { view, rows, n_rows, boundary, at: Date.now(), took_ms: Date.now() - shown.asked_at };
    onBoundary(boundary);
    drawAnswer();
  }

  function refuse(error) {
    if (isOther()) {
      shown.answer = null;
      for (const id of ['chart', 'rows', 'boundary']) fill(byId(id));
    }
    fill(byId('answer-state'), h('span', { class: 'error' }, `This view cannot be answered: ${error}`));
  }

  function drawAnswer() {
    const { rows, boundary, took_ms } = shown.answer;
    byId('chart').className = `chart chart-${boundary.scope}`;
    byId('rows').classList.remove('stale');
    say(byId('answer-state'), `${plural(rows.length, 'row')}, answered in ${duration(took_ms)}`);
    const { chart } = known.get(shown.answer.view);
    draw(byId('chart'), chart, rows);
    showTable(!byId('chart').hasChildNodes());
    if (rows.length === 0) fill(byId('rows'), emptiness(boundary));
    else drawRows();
    fill(byId('boundary'), statement(boundary));
  }

  // Beside a chart the table is a detail that the visitor opens, without one it is the answer.
  function showTable(isAnswer) {
    const table = byId('table');
    if (table.classList.contains('is-answer') === isAnswer) return;
    table.classList.toggle('is-answer', isAnswer);
    table.open = isAnswer;
  }

  function drawRows() {
    const { rows } = shown.answer;
    const names = Object.keys(rows[0]);
    const isNumber = new Map(names.map((n) => [n, holdsNumbers(rows.map((r) => r[n]))]));
    const sorted = shown.sort ? [...rows].sort(by(shown.sort)) : rows;
    const few = shown.all ? sorted : sorted.slice(0, MAX_ROWS);
    const head = (name) => {
      const direction = shown.sort?.name === name ? (shown.sort.down ? 'descending' : 'ascending') : null;
      return h(
        'th',
        { scope: 'col', class: isNumber.get(name) && 'number', 'aria-sort': direction },
        h('button', { type: 'button', class: 'sort', click: () => sortBy(name, isNumber.get(name)) }, column(name)),
      );
    };
    const row = (r) => h('tr', {}, names.map((n) => h('td', { class: isNumber.get(n) && 'number' }, cell(n, r[n]))));
    const rest = rows.length - few.length;
    fill(
      byId('rows'),
      h('table', {}, h('thead', {}, h('tr', {}, names.map(head))), h('tbody', {}, few.map(row))),
      rest > 0 && h('button', { type: 'button', class: 'more', click: showAll }, `Show ${rest} more`),
    );
  }

  function showAll() {
    shown.all = true;
    drawRows();
  }

  // First click: largest numbers, or A to Z; second: the other way round; third: as answered.
  function sortBy(name, isNumber) {
    const same = shown.sort?.name === name;
    if (!same) shown.sort = { name, down: isNumber };
    else if (shown.sort.down === isNumber) shown.sort = { name, down: !isNumber };
    else shown.sort = null;
    drawRows();
  }

  window.addEventListener('hashchange', () => {
    if (known.size === 0) return;
    fromAddress();
    choose({});
  });
  new ResizeObserver(() => {
    if (shown.answer) draw(byId('chart'), known.get(shown.answer.view).chart, shown.answer.rows);
  }).observe(byId('answer'));

  return {
    load,
    /** Once a second: a view that takes long says so. */
    tick() {
      const waited = Date.now() - shown.asked_at;
      if (asking && waited > SLOW_MS) say(byId('answer-state'), `asking for ${duration(waited)} …`);
    },
  };
}

function holdsNumbers(values) {
  const known = values.filter((v) => v !== null);
  return known.length > 0 && known.every((v) => typeof v === 'number');
}

function by({ name, down }) {
  const sign = down ? -1 : 1;
  return (a, b) => {
    const [x, y] = [a[name], b[name]];
    if (x === y) return 0;
    if (x === null) return 1;
    if (y === null) return -1;
    return sign * (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y)));
  };
}

/** How many records each layer brought to an answer. */
export function totals(boundary) {
  const sum = (map) => Object.values(map).reduce((a, n) => a + n, 0);
  const [batch, realtime, reached] = [sum(boundary.batch_through), sum(boundary.realtime_through), sum(boundary.tail_through)];
  return { batch, realtime: Math.max(0, realtime - batch), tail: Math.max(0, reached - Math.max(batch, realtime)) };
}

/** The boundary in plain words. */
function statement(boundary) {
  const { batch, realtime, tail } = totals(boundary);
  if (batch + realtime + tail === 0) return [];
  const when = (age) => (age === null || age === undefined ? '' : `, ${ago(age)}`);
  const parts = [
    boundary.scope !== 'realtime' && ['batch', `${plural(batch, 'record')} from the batch view${when(boundary.batch_age_ms)}`],
    boundary.scope !== 'batch' && ['realtime', `${plural(realtime, 'record')} from the real-time view${when(boundary.realtime_age_ms)}`],
    boundary.scope !== 'batch' && ['tail', `${plural(tail, 'record')} straight from the log${when(boundary.tail_age_ms)}`],
  ].filter(Boolean);
  const kinds = new Map(Object.entries(boundary.dedup ?? {}));
  const once = [...kinds].filter(([, kind]) => kind !== 'off').map(([stream]) => stream);
  return [
    h('p', {}, 'This answer counts ', parts.map(([name, text], i) => [i > 0 && (i === parts.length - 1 ? ' and ' : ', '), h('span', { class: `layer layer-${name}` }, text)]).flat(), '. Nothing is counted twice.'),
    !boundary.complete && h('p', { class: 'warning' }, 'The tail of the log is longer than one answer may read, so the newest records are missing until the speed layer has caught up.'),
    once.length > 0 && h('p', { class: 'small' }, `A post that was sent twice counts once (${once.join(', ')}).`),
  ];
}

function emptiness(boundary) {
  const { batch, realtime, tail } = totals(boundary);
  if (boundary.scope === 'batch' && batch === 0) {
    return h('div', { class: 'empty' }, h('p', {}, 'The batch view is empty until the batch task has run: it runs at midnight UTC, or now, with its button below.'));
  }
  if (batch + realtime + tail === 0) {
    return h(
      'div',
      { class: 'empty' },
      h('p', {}, boundary.scope === 'realtime' ? 'Nothing has come since the last batch run.' : 'There are no posts yet. To let some arrive, run in another terminal:'),
      boundary.scope !== 'realtime' && h('code', {}, `corkboard emulate --url ${location.origin} --user-id me --rate 100`),
    );
  }
  return h('div', { class: 'empty' }, h('p', {}, 'No record answers this question yet.'));
}
