// What can be done with a backend, drain, undrain, off and weight, and the sheet that shows all about one.

import { $, attr, bytes, condition, icon, inFlight, keyed, make, millis, num, opinions, plural, progress, quantiles, rate, say, share, show, since } from './words.js';
import { plot, spark } from './spark.js';
import { ask, backend, call, model, startQuestions, tell, updateQuestion } from './ask.js';
import { listTunnels, startClients } from './clients.js';
import { startGroups, updateGroups } from './groups.js';

const steer = (id, verb, body = {}) => call(`backends/${encodeURIComponent(id)}/${verb}`, body);

// --- backends ---

const times = [['10s', '10 seconds'], ['60s', '1 minute'], ['5m', '5 minutes'], ['15m', '15 minutes'], ['1h', '1 hour'], ['0s', 'no deadline']];

// lastUp warns if nothing would take new clients any more.
function lastUp(id) {
  const up = model.state.backends.filter((b) => b.id !== id && b.state === 'up').length;
  if (up > 0) return '';
  return 'No other backend is up: clients will have nowhere to go, and are answered 503.';
}

// act does what the button of a backend's row says.
export function act(id) {
  const b = backend(id);
  if (!b) return;
  if (b.wish === 'serve') return drain(id);
  tell(async () => (await steer(id, 'undrain')).text ?? `${id} serves again.`);
}

function drain(id) {
  ask({
    title: `Drain ${id}`,
    yes: 'Drain',
    hurts: true,
    field: { label: 'Within', value: '60s', options: times },
    text: (within) => {
      const b = backend(id);
      if (!b) return 'It is gone from the pool.';
      const over = times.find(([value]) => value === within)[1];
      const tunnels = plural(b.tunnels, 'tunnel');
      return within === '0s'
        ? `It gets no new clients. Its ${tunnels} stay until their clients leave by themselves.`
        : `It gets no new clients. Its ${tunnels} will be closed over ${over}, each at its own moment; their clients reconnect elsewhere. Requests in flight end normally.`;
    },
    warning: () => lastUp(id),
    run: async (within) => (await steer(id, 'drain', within === '0s' ? {} : { within })).text ?? `${id} drains.`,
  });
}

function off(id) {
  ask({
    title: `Turn ${id} off`,
    yes: 'Turn off',
    hurts: true,
    text: () => {
      const b = backend(id);
      return b ? `Nothing goes there from now on. Its ${inFlight(b)} will be cut at once; the clients reconnect elsewhere. To be gentle, drain it.` : 'It is gone from the pool.';
    },
    warning: () => lastUp(id),
    run: async () => (await steer(id, 'off')).text ?? `${id} is off.`,
  });
}

function weight(id) {
  const b = backend(id);
  ask({
    title: `Weight of ${id}`,
    yes: 'Set',
    field: { label: 'Weight', value: b.weight },
    text: (value) => {
      const sum = model.state.backends.filter((o) => o.state === 'up' && o.id !== id).reduce((n, o) => n + o.weight, 0);
      const mine = Number(value) || b.configured_weight;
      return `${Number(value) ? '' : `0 is the configured weight, ${b.configured_weight}. `}It gets about ${share(mine / (sum + mine))} of the new clients. Clients that have a home stay there.`;
    },
    run: async (value) => (await steer(id, 'weight', { weight: Number(value) })).text ?? `The weight of ${id} is set.`,
  });
}

// --- the sheet of one backend ---

let opened; // the ID of the backend whose sheet is open
const charts = [
  { title: 'Requests a second', kinds: ['requests'], of: ['rate'], text: (b) => rate(b.rate) },
  { title: 'Errors a second', kinds: ['errors'], of: ['errors'], least: 1, text: (b) => share(b.error_rate) },
  { title: 'Time to answer, p50 and p99', kinds: ['p99', 'p50'], of: ['p99', 'p50'], text: quantiles },
  { title: 'Tunnels', kinds: ['tunnels'], of: ['tunnels'], text: (b) => num(b.tunnels) },
];

const facts = [
  ['Requests now', (b) => num(b.requests)],
  ['Tunnels now', (b) => num(b.tunnels)],
  ['Requests in all', (b) => num(b.totals.requests)],
  ['Errors', (b) => num(b.totals.errors)],
  ['Retries', (b) => num(b.totals.retries)],
  ['Clients moved here', (b) => num(b.totals.moved_in)],
  ['Bytes to it', (b) => bytes(b.totals.bytes_in)],
  ['Bytes from it', (b) => bytes(b.totals.bytes_out)],
  ['Weight', (b) => (b.weight === b.configured_weight ? num(b.weight) : `${num(b.weight)}, configured ${num(b.configured_weight)}`)],
  ['Group', (b) => b.group || 'none'],
  ['Health', (b) => b.health],
  ['Last check', (b) => (b.checked ? `${since(b.checked)} ago, took ${millis(b.check_ms)}` : 'none yet')],
];

const verbs = [
  { name: 'drain', title: 'Drain…', on: (b) => b.wish === 'serve', run: drain, danger: true },
  { name: 'undrain', title: 'Serve again', on: (b) => b.wish !== 'serve', run: act },
  { name: 'off', title: 'Turn off…', on: (b) => b.wish !== 'off', run: off, danger: true },
  { name: 'weight', title: 'Weight…', on: () => true, run: weight },
];

function startSheet() {
  for (const c of charts) {
    c.value = make('b');
    c.svg = spark(...c.kinds);
    $('sheet-charts').append(make('figure', '', make('figcaption', '', c.title, ' ', c.value), c.svg));
  }
  for (const f of facts) {
    f.value = make('dd');
    $('sheet-facts').append(make('div', '', make('dt', '', f[0]), f.value));
  }
  for (const v of verbs) {
    v.button = make('button', v.danger ? 'danger' : '', v.title);
    v.button.type = 'button';
    v.button.id = `sheet-${v.name}`;
    v.button.onclick = () => v.run(opened);
    $('sheet-acts').append(v.button);
  }
  $('sheet-close').onclick = () => $('sheet').close();
  $('sheet').onclick = (event) => event.target === $('sheet') && $('sheet').close(); // beside it
  $('sheet').onclose = () => {
    if (!$('sheet').open) opened = undefined;
  };
  $('sheet-tunnels-show').onclick = showTunnels;
}

// open shows the sheet of a backend.
export function open(id) {
  opened = id;
  keyed($('sheet-tunnels'), [], String);
  say($('sheet-tunnels-note'), '');
  refreshSheet();
  $('sheet').showModal();
  $('sheet').scrollTop = 0;
}

function refreshSheet() {
  const b = opened !== undefined && backend(opened);
  if (opened === undefined) return;
  say($('sheet-title'), opened);
  if (!b) {
    say($('sheet-state'), 'It is gone from the pool.');
    return;
  }
  const { name, word } = condition(b);
  const { state } = model;
  say($('sheet-url'), b.url);
  attr($('sheet-state'), 'class', `state is-${name}`);
  if ($('sheet-state').shape !== name) {
    $('sheet-state').shape = name;
    $('sheet-state').replaceChildren(icon(name), ' ', make('b', '', word), ' ', make('span', 'since'));
  }
  say($('sheet-state').lastChild, [b.since && `for ${since(b.since)}`, progress(b)].filter(Boolean).join(' · '));
  say($('sheet-why'), b.why ?? '');
  for (const v of verbs) show(v.button, state.gateway.steering && v.on(b));
  say($('sheet-how'), state.gateway.steering ? '' : readOnly(state));
  for (const f of facts) say(f.value, String(f[1](b)));
  const h = model.history.get(b.id);
  for (const c of charts) {
    say(c.value, c.text(b));
    if (h) plot(c.svg, c.of.map((of) => h[of]), c.least);
  }
  const replicas = (state.replicas ?? []).filter((r) => r.backends?.[b.id]);
  const others = opinions(state, b);
  show($('sheet-replicas-box'), replicas.length > 0);
  keyed($('sheet-replicas'), replicas, (r) => r.id, () => make('li'), (li, r) => {
    const its = r.backends[b.id];
    say(li, `${r.name || r.id}: ${its.state}, ${plural(its.tunnels, 'tunnel')}, ${plural(its.requests, 'request')}${others.some((o) => o.name === (r.name || r.id)) ? ' (this gateway disagrees)' : ''}`);
  });
  show($('sheet-tunnels-box'), state.gateway.steering);
}

// readOnly says why nothing can be steered, and what to do about it.
export function readOnly({ gateway }) {
  return gateway.steering_refused
    ? 'Read-only: Authorize doesn’t let you steer this gateway.'
    : 'Read-only. Give status.Options an Authorize function to drain, weigh and move from here.';
}

async function showTunnels() {
  const id = opened;
  const text = await listTunnels($('sheet-tunnels'), `backend=${encodeURIComponent(id)}`);
  if (id === opened) say($('sheet-tunnels-note'), text);
}

// --- the whole ---

export function startSteering() {
  startQuestions();
  startSheet();
  startClients();
  startGroups();
}

export function updateSteering(now) {
  updateQuestion(now);
  show($('client'), now.state.gateway.steering);
  updateGroups(now);
  refreshSheet();
}
