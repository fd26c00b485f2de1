// The table of backends: one row each, updated in place, filtered and sorted.

import { $, address, attr, condition, make, num, opinions, progress, quantiles, rate, reason, say, share, show, since } from './words.js';
import { plot, spark } from './spark.js';

// The columns: their titles, the classes of their cells, and what they are sorted by, most first. The pool's order has
// no number.
const columns = [
  { name: 'order', title: 'Backend', cell: 'name' },
  { name: 'state', title: 'State', cell: 'state', by: (b) => condition(b).worry },
  { name: 'weight', title: 'Weight', cell: 'weight', by: (b) => b.weight },
  { name: 'requests', title: 'In flight', cell: 'requests', by: (b) => b.requests },
  { name: 'tunnels', title: 'Tunnels', cell: 'tunnels', by: (b) => b.tunnels },
  { name: 'rate', title: 'Rate', cell: 'rate', by: (b) => b.rate },
  { name: 'errors', title: 'Errors', cell: 'errors', by: (b) => b.error_rate },
  { name: 'retries', title: 'Retries', cell: 'retries', by: (b) => b.totals.retries },
  { name: 'time', title: 'p50 / p99', cell: 'time', by: (b) => b.p99_ms ?? -1 },
];

const views = [
  { name: 'all', title: 'All', holds: () => true },
  { name: 'attention', title: 'Need attention', holds: (b, state) => condition(b).worry > 0 || b.error_rate >= 0.01 || opinions(state, b).length > 0 },
  { name: 'up', title: 'Up', holds: (b) => condition(b).name === 'up' },
  { name: 'draining', title: 'Leaving', holds: (b) => ['draining', 'sick'].includes(condition(b).name) },
  { name: 'down', title: 'Down or off', holds: (b) => ['down', 'off', 'drained'].includes(condition(b).name) },
];

const rows = new Map(); // by backend ID: {tr, parts, b, near}
let view = views[0];
let column = columns[0];
let model; // {state, history} of the last update
let sorted = 0; // when the rows were put in order last
let handlers; // {open(id), act(id)}

// Only rows in or near the window are kept up to date.
const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const row = rows.get(target.backend);
    if (!row) continue;
    row.near = isIntersecting;
    if (isIntersecting && model) fill(row);
  }
}, { rootMargin: '100px' });

export function startTable(given) {
  handlers = given;
  for (const c of columns) {
    const th = make('th', `c-${c.cell}`, button(c.title, () => sortBy(c)));
    th.setAttribute('role', 'columnheader');
    th.scope = 'col';
    c.th = th;
    $('columns').append(th);
    $('sort').append(new Option(c.name === 'order' ? 'the pool’s order' : c.title, c.name));
  }
  const last = make('th', 'c-act', make('span', 'unseen', 'Steering'));
  last.setAttribute('role', 'columnheader');
  $('columns').append(last);
  for (const v of views) {
    v.count = make('span', 'count');
    v.button = button(v.title, () => choose(v));
    v.button.append(' ', v.count);
    $('chips').append(v.button);
  }
  $('sort').onchange = () => sortBy(columns.find((c) => c.name === $('sort').value));
  $('filter').oninput = () => arrange();
  sortBy(column);
  choose(view);
}

function button(text, onclick) {
  const b = make('button', '', text);
  b.type = 'button';
  b.onclick = onclick;
  return b;
}

function sortBy(c) {
  column = c;
  for (const { th, name } of columns) {
    if (name === c.name) th.setAttribute('aria-sort', c.by ? 'descending' : 'ascending');
    else th.removeAttribute('aria-sort');
  }
  $('sort').value = c.name;
  arrange();
}

function choose(v) {
  view = v;
  for (const each of views) each.button.setAttribute('aria-pressed', each === v);
  arrange();
}

// updateTable shows a new state.
export function updateTable(now) {
  model = now;
  const { backends } = now.state;
  let changed = rows.size !== backends.length;
  for (const b of backends) {
    let row = rows.get(b.id);
    if (!row) {
      rows.set(b.id, (row = newRow(b.id)));
      changed = true;
    }
    changed ||= condition(row.b ?? b).name !== condition(b).name;
    row.b = b;
    if (row.near) fill(row);
  }
  for (const v of views) say(v.count, num(backends.filter((b) => v.holds(b, now.state)).length));
  // Numbers change all the time: rows that are sorted by one move now and then, and never under a pointer or the focus.
  const table = $('rows');
  const busy = table.matches(':hover') || table.contains(document.activeElement);
  if (changed || (column.by && !busy && performance.now() - sorted > 5000)) arrange();
}

// arrange puts the rows that are to be seen in order.
function arrange() {
  if (!model) return;
  const { state } = model;
  sorted = performance.now();
  const text = $('filter').value.trim().toLowerCase();
  const shown = state.backends.filter((b) => view.holds(b, state) &&
    (!text || [b.id, b.url, b.why, condition(b).word].some((s) => s?.toLowerCase().includes(text))));
  if (column.by) {
    const by = new Map(shown.map((b) => [b.id, column.by(b)]));
    shown.sort((a, b) => by.get(b.id) - by.get(a.id)); // stable: the pool's order within equals
  }
  const focused = document.activeElement;
  const present = new Set(state.backends.map((b) => b.id));
  const visible = new Set(shown.map((b) => b.id));
  for (const [id, row] of rows) {
    if (visible.has(id)) continue;
    row.tr.remove();
    row.near = false;
    if (!present.has(id)) {
      watch.unobserve(row.tr);
      rows.delete(id);
    }
  }
  let next = $('rows').firstChild;
  for (const { id } of shown) {
    const { tr } = rows.get(id);
    if (tr === next) next = next.nextSibling;
    else $('rows').insertBefore(tr, next);
  }
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  show($('no-rows'), shown.length === 0);
  say($('no-rows'), state.backends.length ? 'No backend is like this.' : 'The pool has no backends.');
}

function newRow(id) {
  const tr = $('row').content.firstElementChild.cloneNode(true);
  tr.backend = id;
  tr.dataset.backend = id;
  const parts = {};
  for (const node of tr.querySelectorAll('[data-part]')) parts[node.dataset.part] = node;
  parts.open.onclick = () => handlers.open(id);
  parts.act.onclick = () => handlers.act(id);
  parts.charts = { rate: spark('requests'), time: spark('p99', 'p50') };
  parts['rate-chart'].append(parts.charts.rate);
  parts['time-chart'].append(parts.charts.time);
  watch.observe(tr);
  return { tr, parts, near: false };
}

function fill({ tr, parts: p, b }) {
  const { state, history } = model;
  const { name, word } = condition(b);
  attr(tr, 'class', `is-${name}`);
  say(p.id, b.id);
  attr(p.open, 'aria-label', `${b.id}, details`);
  say(p.url, address(b.url));
  attr(p.icon, 'href', `#i-${name}`);
  say(p.word, word);
  say(p.since, b.since ? since(b.since) : '');
  const why = reason(b);
  show(p.why, why !== '');
  say(p.why, why);
  attr(p.why, 'title', why);
  fillDrain(p, b);
  const others = opinions(state, b);
  show(p.differ, others.length > 0);
  say(p.thinks, others.map((o) => `${o.name} says ${o.state}`).join(', '));
  say(p.weight, num(b.weight));
  say(p.configured, b.weight === b.configured_weight ? '' : `of ${num(b.configured_weight)}`);
  say(p.requests, num(b.requests));
  say(p.tunnels, num(b.tunnels));
  say(p.rate, rate(b.rate));
  say(p.errors, share(b.error_rate));
  attr(p.errors, 'class', b.error_rate >= 0.01 ? 'bad' : '');
  say(p['errors-total'], b.totals.errors ? `${num(b.totals.errors)} in all` : '');
  say(p.retries, num(b.totals.retries));
  say(p.time, quantiles(b));
  const h = history.get(b.id);
  if (h) {
    plot(p.charts.rate, [h.rate], 1);
    plot(p.charts.time, [h.p99, h.p50], 1);
  }
  const act = b.wish === 'serve' ? 'Drain' : b.wish === 'drain' ? 'Undrain' : 'Turn on';
  show(p.act, state.gateway.steering);
  say(p.act, act);
  attr(p.act, 'aria-label', `${act} ${b.id}`);
}

function fillDrain(p, b) {
  show(p.drain, Boolean(b.drain));
  if (!b.drain) return;
  const { at_start: start, left } = b.drain;
  const part = start > 0 ? Math.min(1, Math.max(0, 1 - left / start)) : 1;
  if (p.progress.value !== part) p.progress.value = part;
  say(p.left, progress(b));
}
