// The tasks: what each is doing, what its last run brought, and a button to run it now.
// Rows stay and only their cells change, so that a button under the pointer stays put.

import { h, s, fill, say } from './dom.js';
import { ago, duration, figure } from './format.js';

const STATES = { idle: 'idle', running: 'running', backing_off: 'failed, will retry', stopped: 'stopped' };
const MAX_ERROR = 400;

export function tasks(box, runNow) {
  const rows = new Map();
  const body = h('tbody');
  const head = ['Task', 'Starts', 'State', 'Last work', 'It brought', 'Runs', ''];
  fill(box, h('table', { class: 'tasks' }, h('thead', {}, h('tr', {}, head.map((n) => h('th', { scope: 'col' }, n)))), body));
  return {
    update(list) {
      if (list.size === 0) return fill(body, h('tr', {}, h('td', { colspan: head.length, class: 'empty' }, 'This process runs no tasks.')));
      for (const task of list.values()) {
        if (!rows.has(task.name)) {
          rows.set(task.name, newRow(task, runNow));
          body.append(rows.get(task.name).element);
        }
        show(rows.get(task.name), task);
      }
    },
  };
}

function newRow(task, runNow) {
  const cells = Object.fromEntries(['state', 'worked', 'brought', 'history'].map((name) => [name, h('td')]));
  const button = h('button', { type: 'button', class: 'run', click: () => run(button, task.name, runNow) }, 'Run now');
  const element = h(
    'tr',
    {},
    h('th', { scope: 'row' }, task.name),
    h('td', { class: 'muted' }, schedule(task.schedule)),
    cells.state,
    cells.worked,
    cells.brought,
    cells.history,
    h('td', { class: 'action' }, button),
  );
  return { element, ...cells };
}

async function run(button, name, runNow) {
  button.disabled = true;
  const problem = await runNow(name);
  say(button, problem ?? 'Queued');
  setTimeout(() => {
    button.disabled = false;
    say(button, 'Run now');
  }, 1200);
}

function show(row, task) {
  const isFailing = task.n_failures_in_a_row > 0;
  const state = STATES[task.state] ?? task.state;
  const dot = h('span', { class: `dot dot-${task.state}` });
  const next = task.state === 'running' ? `for ${duration(task.running_ms)}` : nextRun(task);
  fill(row.state, h('span', { class: 'state' }, dot, state), next && h('div', { class: 'small' }, next));

  const worked = [...task.history].reverse().find((r) => r.report);
  fill(
    row.worked,
    worked ? ago(task.now_ms - worked.ended_ms) : h('span', { class: 'muted' }, task.n_runs > 0 ? 'none yet' : 'not run yet'),
    worked && h('div', { class: 'small' }, `took ${duration(worked.duration_ms)}`),
  );

  const figures = Object.entries(worked?.report.figures ?? {}).filter(([name, n]) => n > 0 && !name.startsWith('lag_'));
  const notices = (task.last_run?.report ?? worked?.report)?.notices ?? [];
  fill(
    row.brought,
    h('div', { class: 'chips' }, figures.map(([name, n]) => h('span', { class: 'chip' }, figure(name, n)))),
    notices.slice(0, 3).map((n) => h('p', { class: 'warning' }, n)),
    isFailing && task.last_error && h('p', { class: 'error' }, clipped(task.last_error.error)),
  );

  const failures = task.n_failures > 0 ? `, ${task.n_failures} failed` : '';
  fill(row.history, runs(task.history), h('div', { class: 'small' }, `${task.n_runs.toLocaleString('en')}${failures}`));
}

function nextRun(task) {
  if (task.next_run_ms === null) return null;
  const wait = task.next_run_ms - task.now_ms;
  return wait > 1500 ? `next in ${duration(wait)}` : null;
}

function schedule({ every_ms, cron, on_append, after }) {
  const parts = [
    on_append && 'when the log moves',
    every_ms && `every ${duration(every_ms).replace('.0 s', ' s')}`,
    cron && (cron === '0 0 * * *' ? 'at midnight UTC' : `cron ${cron} UTC`),
    after?.length > 0 && `after ${after.join(', ')}`,
  ].filter(Boolean);
  return parts.length > 0 ? parts.join(' · ') : 'when asked';
}

/** The runs that did work or failed, as bars: height for how long they took. */
function runs(history) {
  const shown = history.slice(-40);
  const longest = Math.max(1, ...shown.map((r) => r.duration_ms));
  const bars = shown.map((run, i) => {
    const height = 3 + Math.sqrt(run.duration_ms / longest) * 19;
    const what = run.error ? 'failed' : 'worked';
    const shape = { class: run.error ? 'run-failed' : 'run-worked', x: i * 4, y: 22 - height, width: 3, height, rx: 1 };
    return s('rect', shape, s('title', {}, `${what} for ${duration(run.duration_ms)}, woken by ${run.woken_by}`));
  });
  return s('svg', { class: 'runs', width: 160, height: 22, viewBox: '0 0 160 22' }, bars);
}

function clipped(text) {
  return text.length > MAX_ERROR ? `${text.slice(0, MAX_ERROR)} …` : text;
}
