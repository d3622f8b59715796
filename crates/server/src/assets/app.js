// Asks the server again and again, and hands what it knows to the parts of the page.

import { byId, h, fill, say } from './dom.js';
import { sparkline } from './chart.js';
import { ago, count, exact, plural, rate } from './format.js';
import { layersOf, partitions } from './partitions.js';
import { pipeline } from './pipeline.js';
import { tasks } from './tasks.js';
import { views } from './views.js';

const POLL_MS = 1000;
const RATE_SAMPLES = 5;
const SPARK_PLACES = 120;

const page = {
  log: null,
  boundary: null,
  boundary_at: 0,
  tasks: new Map(),
  samples: [],
  rates: [],
};

const parts = {
  pipeline: pipeline(byId('pipeline')),
  partitions: partitions(byId('partitions')),
  tasks: tasks(byId('tasks'), runNow),
  views: views((boundary) => Object.assign(page, { boundary: joined(page.boundary, boundary), boundary_at: Date.now() })),
};

// The batch scope says nothing of the other layers: what they last said stands.
function joined(before, now) {
  return before && now.scope === 'batch' ? { ...before, batch_through: now.batch_through, batch_age_ms: now.batch_age_ms } : now;
}

async function poll() {
  if (!document.hidden) {
    try {
      const [log, list] = await Promise.all([json('/api/log'), json('/api/tasks')]);
      takeLog(log);
      takeTasks(list);
      show();
      connected(true);
    } catch (error) {
      connected(false, error);
    }
    parts.views.tick();
  }
  setTimeout(poll, POLL_MS);
}

async function json(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(10_000) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

function takeLog(log) {
  log.total = log.partitions.reduce((n, p) => n + p.end, 0);
  // Another log, or a server that was started anew: rates start again.
  if (page.log && (page.log.id !== log.id || log.total < page.log.total)) page.samples = [];
  page.log = log;
  const last = page.samples.at(-1);
  page.samples = [...page.samples, { at: log.at_ms, total: log.total }].slice(-(RATE_SAMPLES + 1));
  if (last && log.at_ms > last.at) {
    page.rates = [...page.rates, ((log.total - last.total) * 1000) / (log.at_ms - last.at)].slice(-SPARK_PLACES);
  }
}

function takeTasks({ at_ms, tasks: list }) {
  for (const task of list) {
    const worked = [...task.history].reverse().find((r) => r.report);
    task.now_ms = at_ms;
    task.worked_ago = worked ? at_ms - worked.ended_ms : Infinity;
    task.running_ms = task.running_since_ms === null ? 0 : at_ms - task.running_since_ms;
    page.tasks.set(task.name, task);
  }
}

function show() {
  const perSecond = recentRate();
  const layers = layersNow();
  say(byId('rate'), perSecond === null ? '–' : rate(perSecond));
  sparkline(byId('spark'), page.rates, SPARK_PLACES);
  say(byId('total'), count(page.log.total));
  byId('total').title = exact(page.log.total);
  const n_topics = new Set(page.log.partitions.map((p) => p.topic)).size;
  say(byId('total-note'), `in ${plural(n_topics, 'topic')}, ${plural(page.log.partitions.length, 'partition')}`);
  say(byId('log-id'), `log ${page.log.id.slice(0, 8)}, epoch ${page.log.epoch}`);
  showFreshness(layers);
  showHealth();
  parts.pipeline.update({ perSecond, log: page.log, layers, tasks: page.tasks });
  parts.tasks.update(page.tasks);
  parts.partitions.update(page.log, page.boundary);
}

function recentRate() {
  const [first, last] = [page.samples[0], page.samples.at(-1)];
  return page.samples.length < 2 ? null : ((last.total - first.total) * 1000) / Math.max(1, last.at - first.at);
}

/** What each layer holds, over the partitions that the view on show reads; null until it was answered. */
function layersNow() {
  if (!page.boundary) return null;
  const since = Date.now() - page.boundary_at;
  const aged = (age) => (age === null || age === undefined ? null : age + since);
  const sum = { batch: 0, realtime: 0, tail: 0, reached: 0, behind_batch: 0, behind_realtime: 0 };
  for (const partition of page.log.partitions) {
    const layers = layersOf(partition, page.boundary);
    if (!layers) continue;
    const { batch, realtime, reached, end } = layers;
    sum.batch += batch;
    sum.realtime += realtime - batch;
    sum.tail += reached - realtime;
    sum.reached += reached;
    sum.behind_batch += end - batch;
    sum.behind_realtime += end - realtime;
  }
  const { batch_age_ms, realtime_age_ms, tail_age_ms, complete } = page.boundary;
  return { ...sum, complete, batch_age: aged(batch_age_ms), realtime_age: aged(realtime_age_ms), tail_age: aged(tail_age_ms) };
}

function showFreshness(layers) {
  if (!layers) return;
  // The merged answer reaches to where the log ended when it was asked.
  const age = layers.tail_age ?? layers.batch_age;
  say(byId('fresh'), age === null ? '–' : ago(age));
  const batch = layers.batch_age === null ? 'no batch run yet' : `batch view from ${ago(layers.batch_age)}`;
  say(byId('fresh-note'), layers.complete ? batch : `the tail is cut short; ${batch}`);
}

function showHealth() {
  const list = [...page.tasks.values()];
  const failing = list.filter((t) => t.n_failures_in_a_row > 0);
  const running = list.filter((t) => t.state === 'running');
  byId('health').classList.toggle('bad', failing.length > 0);
  if (list.length === 0) say(byId('health'), 'none here');
  else say(byId('health'), failing.length > 0 ? `${failing.length} failing` : 'all well');
  const names = (tasks) => tasks.map((t) => t.name).join(', ');
  const note = failing.length > 0 ? names(failing) : running.length > 0 ? `running: ${names(running)}` : `${plural(list.length, 'task')}, waiting`;
  say(byId('health-note'), note);
}

function connected(isConnected, error) {
  const box = byId('connection');
  box.classList.toggle('live', isConnected);
  box.classList.toggle('lost', !isConnected);
  const isNetwork = error?.name === 'TypeError' || error?.name === 'TimeoutError';
  fill(box, h('span', { class: 'beacon' }), isConnected ? 'live' : isNetwork ? 'the server does not answer' : error.message);
}

/** Null when it was queued, else what to say. */
async function runNow(name) {
  try {
    const response = await fetch(`/api/tasks/${encodeURIComponent(name)}/run`, { method: 'POST' });
    return response.ok ? null : (await response.json()).error;
  } catch {
    return 'No answer';
  }
}

function loadViews() {
  parts.views.load().catch(() => setTimeout(loadViews, 3 * POLL_MS));
}

poll();
loadViews();
