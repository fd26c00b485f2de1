// What can be done: drain, undrain, off, weight, and the clients' pins and tunnels. What hurts is asked about first, in
// words that say what will happen.

import { $, attr, bytes, clockTime, condition, duration, icon, keyed, make, millis, num, opinions, plural, progress, quantiles, rate, say, share, show, since } from './words.js';
import { plot, spark } from './spark.js';
import { address, inFlight } from './backends.js';

let model = { state: null, history: new Map() };
const backend = (id) => model.state?.backends.find((b) => b.id === id);

// call asks the gateway to do something, and returns what it answers or throws its error.
async function call(path, body) {
  const request = body === undefined ? {} : { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(`api/${path}`, request);
  } catch {
    throw new Error('The gateway can’t be reached.');
  }
  const text = await answer.text();
  let said = {};
  try {
    said = JSON.parse(text);
  } catch {
    // an answer of something between here and the gateway
  }
  if (!answer.ok) throw new Error(said.error || text.trim() || `The gateway answers ${answer.status}.`);
  return said;
}

const steer = (id, verb, body = {}) => call(`backends/${encodeURIComponent(id)}/${verb}`, body);

// --- one thing said, and one thing asked ---

let fading;
export function toast(text) {
  show($('toast'), true);
  say($('toast'), text);
  clearTimeout(fading);
  fading = setTimeout(() => show($('toast'), false), 6000);
}

let question; // that is open: {run, body(), text()}

// ask opens a dialog and runs what it asks for if the answer is yes. The text is a function because the numbers in it
// go on changing while somebody reads. With field {label, value, options} it has a field: a list if there are options.
function ask({ title, text, warning, yes, hurts, field, run }) {
  question = { text, warning, run, field };
  say($('ask-title'), title);
  say($('ask-yes'), yes);
  $('ask-yes').classList.toggle('danger', Boolean(hurts));
  show($('ask-field'), Boolean(field));
  if (field) {
    say($('ask-label'), field.label);
    show($('ask-select'), Boolean(field.options));
    show($('ask-input'), !field.options);
    if (field.options) $('ask-select').replaceChildren(...field.options.map(([value, label]) => new Option(label, value)));
    (field.options ? $('ask-select') : $('ask-input')).value = field.value;
  }
  show($('ask-error'), false);
  $('ask-yes').disabled = false;
  refreshQuestion();
  $('ask').showModal();
  (field ? (field.options ? $('ask-select') : $('ask-input')) : $('ask-no')).focus();
}

const chosen = () => question.field && (question.field.options ? $('ask-select') : $('ask-input')).value;

function refreshQuestion() {
  if (!question) return;
  say($('ask-text'), question.text(chosen()));
  const warning = question.warning?.() ?? '';
  show($('ask-warn'), warning !== '');
  say($('ask-warn'), warning);
}

function startQuestions() {
  $('ask-select').onchange = refreshQuestion;
  $('ask-input').oninput = refreshQuestion;
  $('ask-no').onclick = () => $('ask').close();
  $('ask').onclose = () => {
    if (!$('ask').open) question = undefined; // the event comes late: the next question may be open already
  };
  $('ask-form').onsubmit = async (event) => {
    event.preventDefault();
    const asked = question;
    $('ask-yes').disabled = true;
    try {
      const done = await asked.run(chosen());
      if (question === asked) $('ask').close();
      if (done) toast(done);
    } catch (error) {
      if (question !== asked) return toast(error.message);
      $('ask-yes').disabled = false;
      show($('ask-error'), true);
      say($('ask-error'), error.message);
    }
  };
}

// tell carries out what needs no question.
async function tell(run) {
  try {
    toast(await run());
  } catch (error) {
    toast(error.message);
  }
}

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
  $('sheet-tunnels-show').onclick = () => listTunnels();
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

// --- tunnels and clients ---

async function listTunnels() {
  const id = opened;
  try {
    const { tunnels, total } = await call(`tunnels?backend=${encodeURIComponent(id)}&limit=100`);
    if (id !== opened) return;
    say($('sheet-tunnels-note'), tunnels.length ? (total > tunnels.length ? `${num(tunnels.length)} of ${num(total)}` : plural(tunnels.length, 'tunnel')) : 'It has none.');
    keyed($('sheet-tunnels'), tunnels, (t) => t.id, tunnelItem);
  } catch (error) {
    say($('sheet-tunnels-note'), error.message);
  }
}

function tunnelItem(t) {
  const close = make('button', '', 'Close…');
  close.type = 'button';
  close.setAttribute('aria-label', `Close the tunnel of ${t.address}`);
  const li = make('li', '', make('span', '', `${t.address} ${t.path}`), make('small', '', `since ${clockTime(t.began)}`), close);
  close.onclick = () => ask({
    title: 'Close a tunnel',
    yes: 'Close it',
    hurts: true,
    text: () => `The WebSocket of ${t.address} to ${t.backend}, open for ${since(t.began)}, gets close code 1012. Its client reconnects to the same backend.`,
    run: async () => {
      const done = await call(`tunnels/${encodeURIComponent(t.id)}/close`, { code: 1012, reason: 'closed by the operator' });
      li.remove();
      $('sheet-tunnels').nodes.delete(t.id);
      return done.text ?? 'The tunnel is closed.';
    },
  });
  return li;
}

const examples = { cookie: 'name=value', sid: 'as in the query', key: '', address: '203.0.113.9' };

function startClients() {
  $('find-by').onchange = () => ($('find-value').placeholder = examples[$('find-by').value]);
  $('find').onsubmit = async (event) => {
    event.preventDefault();
    const by = $('find-by').value;
    try {
      showPin(await call('pins/find', { [by]: $('find-value').value }));
    } catch (error) {
      $('found').replaceChildren(make('p', 'error', error.message));
    }
  };
}

// showPin says where a client belongs, and offers what can be done with it.
function showPin(pin) {
  const says = {
    hit: `Pinned to ${pin.backend}.`,
    expired: 'Its pin has expired.',
    forged: 'This is no pin that the gateway has made: it is treated as none.',
    unknown: `Its backend${pin.backend ? `, ${pin.backend},` : ''} is not in the pool.`,
  };
  const text = says[pin.status] ?? 'It has no pin.';
  const next = pin.goes && pin.goes !== pin.backend ? ` Its next request goes to ${pin.goes}.` : pin.goes ? '' : ' Its next request goes to whichever backend has its turn.';
  const tunnels = pin.tunnels > 0 ? ` It has ${plural(pin.tunnels, 'tunnel')}.` : '';
  const found = [make('p', '', text + next + tunnels)];
  if (pin.key) {
    found.push(make('p', 'key', make('small', '', 'Key '), make('code', '', pin.key)));
    const acts = make('div', 'acts');
    for (const [title, run] of [['Move…', movePin], ['Forget…', forgetPin], ['Close its tunnels…', closeClient]]) {
      const b = make('button', '', title);
      b.type = 'button';
      b.onclick = () => run(pin);
      acts.append(b);
    }
    found.push(acts);
  }
  $('found').replaceChildren(...found);
}

function movePin({ key, backend: at }) {
  const others = model.state.backends.filter((b) => b.id !== at && b.state === 'up');
  if (!others.length) return toast('No other backend is up.');
  ask({
    title: 'Move a client',
    yes: 'Move',
    field: { label: 'To', value: others[0].id, options: others.map((b) => [b.id, b.id]) },
    text: (to) => `From its next request on it belongs to ${to}. Its tunnels stay where they are until they end.`,
    run: async (to) => (await call('pins/move', { key, backend: to })).text ?? `The client belongs to ${to}.`,
  });
}

function forgetPin({ key }) {
  ask({
    title: 'Forget a client’s pin',
    yes: 'Forget',
    text: () => 'At its next request it is placed anew, like a client that was never here.',
    run: async () => (await call('pins/forget', { key })).text ?? 'The pin is forgotten.',
  });
}

function closeClient({ key }) {
  ask({
    title: 'Close a client’s tunnels',
    yes: 'Close them',
    hurts: true,
    text: () => 'All its tunnels, on all replicas, get close code 1008. Whether its client comes back is the client’s decision.',
    run: async () => (await call('clients/close', { key, code: 1008, reason: 'closed by the operator' })).text ?? 'The client’s tunnels are closed.',
  });
}

// --- the whole ---

export function startSteering() {
  startQuestions();
  startSheet();
  startClients();
}

export function updateSteering(now) {
  model = now;
  show($('client'), now.state.gateway.steering);
  refreshSheet();
  refreshQuestion();
}
