// The page's life: the event stream, what is shown from it, and what is said when it breaks. The table, the picture and
// the steering have files of their own.

import { $, attr, clockTime, condition, duration, icon, keyed, make, num, opinions, plural, progress, rate, say, setClock, share, show, since } from './words.js';
import { plot, push, spark } from './spark.js';
import { drawFlow, drawMap } from './flow.js';
import { startTable, updateTable } from './backends.js';
import { act, open, readOnly, startSteering, updateSteering } from './steer.js';

const staleAfter = 3000; // without a message, which come each second

let state; // the last one
let heard = 0; // when it came, by performance.now
let run = ''; // the gateway's name and start: another one is another process
const history = new Map(); // by backend ID: {rate, errors, p50, p99, tunnels}
let events = []; // newest first

// --- the stream ---

let stream;
let lost = 0; // when the stream broke, by Date.now; 0 while it lives
let retry; // the timer of the next attempt
let tries = 0;

function connect() {
  clearTimeout(retry);
  stream?.close();
  stream = new EventSource('api/events');
  stream.onopen = () => {
    tries = 0;
    loadHistory();
  };
  stream.addEventListener('state', ({ data }) => receive(JSON.parse(data)));
  stream.addEventListener('event', ({ data }) => happened([JSON.parse(data)]));
  stream.onerror = broken;
}

// broken connects again by our own clock: after an answer that isn't a stream, such as a proxy's 502, the browser
// wouldn't.
function broken() {
  lost ||= Date.now();
  stream.close();
  clearTimeout(retry);
  retry = setTimeout(connect, Math.min(500 * 2 ** tries++, 5000) * (0.75 + Math.random() / 2));
  tick();
}

// loadHistory asks for the last minute and what happened: at the beginning, and after a break for what was missed.
async function loadHistory() {
  try {
    const answer = await fetch('api/state?history=1');
    if (!answer.ok) return;
    const all = await answer.json();
    history.clear();
    for (const [id, h] of Object.entries(all.history ?? {})) history.set(id, h);
    charted = all.second;
    receive(all);
    happened(all.events ?? []);
    fillTotals();
  } catch {
    // the stream says that the gateway is gone
  }
}

let drawing = false; // a frame has been asked for

function receive(next) {
  const who = `${next.gateway.name} ${next.gateway.since}`;
  if (run && run !== who) {
    // It was restarted: its counts begin anew.
    events = [];
    history.clear();
    samples.length = 0;
    run = who;
    loadHistory();
  }
  run = who;
  if (state && Date.parse(next.time) < Date.parse(state.time) && samples.length) return; // the history overtook it
  state = next;
  heard = performance.now();
  lost = 0;
  setClock(next.time);
  sample();
  if (drawing || document.hidden) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    render();
  });
}

// --- what is reckoned from one state to the next ---

let charted = 0; // the second of the newest point in history
const samples = []; // the totals of the last seconds
const gauges = { requests: [], failed: [], own: [], retries: [], tunnels: [] }; // the last minute, for the figures

function sample() {
  const t = Math.floor(Date.parse(state.time) / 1000);
  const before = samples.at(-1);
  if (before && t <= before.t) return; // a change was told between two seconds
  const errors = state.backends.reduce((n, b) => n + b.totals.errors, 0);
  samples.push({ t, pins: state.pins, totals: state.totals, errors });
  if (samples.length > 11) samples.shift();
  if (!before) return;
  const step = (from, to) => Math.max(0, to - from) / (t - before.t);
  push(gauges.requests, step(before.totals.requests, state.totals.requests));
  push(gauges.failed, step(before.errors, errors));
  push(gauges.own, step(before.totals.by_gateway, state.totals.by_gateway));
  push(gauges.retries, step(before.totals.retries, state.totals.retries));
  push(gauges.tunnels, state.tunnels);
  chart();
}

// chart appends the newest second to the history of each backend, and gaps for seconds that were missed.
function chart() {
  const missed = state.second - charted - 1;
  if (missed < 0) return;
  charted = state.second;
  for (const b of state.backends) {
    if (!history.has(b.id)) history.set(b.id, { rate: [], errors: [], p50: [], p99: [], tunnels: [] });
    for (const [name, values] of Object.entries(history.get(b.id))) {
      for (let i = Math.min(missed, 60); i > 0 && values.length; i--) push(values, null);
      push(values, b.last[name] ?? null);
    }
  }
  if (history.size > state.backends.length) {
    for (const id of history.keys()) if (!state.backends.some((b) => b.id === id)) history.delete(id);
  }
}

// fillTotals gives the figures of the whole gateway the minute that its backends have.
function fillTotals() {
  for (const [name, of] of [['requests', 'rate'], ['failed', 'errors'], ['tunnels', 'tunnels']]) {
    const sums = Array(60).fill(0);
    for (const h of history.values()) h[of]?.forEach((v, i) => (sums[i + 60 - h[of].length] += v ?? 0));
    gauges[name].splice(0, Infinity, ...sums);
  }
}

// perSecond is a rate over the last seconds.
function perSecond(of) {
  const [first, last] = [samples[0], samples.at(-1)];
  if (!first || first === last) return 0;
  return Math.max(0, (of(last) ?? 0) - (of(first) ?? 0)) / (last.t - first.t);
}

// --- the page ---

function render() {
  const { gateway } = state;
  say($('gateway-name'), gateway.name);
  say($('gateway-note'), `running for ${since(gateway.since)}`);
  say($('mode'), gateway.steering ? 'steering' : 'read-only');
  say($('how'), gateway.steering ? 'What you do here is logged with your name and shared with all replicas.' : readOnly(state));
  document.title = `${troubled() ? `${troubled()} not up · ` : ''}${gateway.name} · Limpet`;
  headline();
  figures();
  const pins = Object.fromEntries(Object.keys(state.pins).map((name) => [name, perSecond((s) => s.pins[name])]));
  drawFlow(state, { pins, own: perSecond((s) => s.totals.by_gateway + (s.totals.by_affinity ?? 0)) });
  drawMap(state);
  updateTable({ state, history });
  updateSteering({ state, history });
  findings();
  replicas();
  parts();
  story();
}

const troubled = () => state.backends.filter((b) => b.state !== 'up').length;

// headline says in one sentence how it is, and below what somebody should look at.
function headline() {
  const { backends, gateway } = state;
  const is = (...names) => backends.filter((b) => names.includes(condition(b).name)).length;
  const up = is('up');
  let text;
  let mood = 'well';
  if (!backends.length) [text, mood] = ['The pool has no backends.', 'bad'];
  else if (up === backends.length) text = up === 1 ? 'The only backend is up.' : `All ${num(up)} backends are up.`;
  else if (up) {
    const rest = ['down', 'sick', 'draining', 'drained', 'off'].filter((name) => is(name)).map((name) => `${num(is(name))} ${name}`);
    mood = is('down', 'sick') ? 'bad' : 'busy';
    text = `${num(up)} of ${num(backends.length)} backends are up: ${rest.join(', ')}.`;
  } else {
    mood = 'bad';
    text = is('sick') ? 'No backend is well: the sick ones take all clients.'
      : is('draining') ? 'No backend is up: those that drain keep their clients, new ones are answered 503.'
      : 'No backend is up: every request is answered 503.';
  }
  if (gateway.ready === false) text += ' This gateway is not ready.';
  say($('headline'), text);
  attr($('headline-box'), 'data-mood', gateway.ready === false && mood === 'well' ? 'busy' : mood);

  const matters = backends.filter((b) => condition(b).worry > 0).sort((a, b) => condition(b).worry - condition(a).worry).map((b) => ({ b }));
  for (const b of backends) {
    const others = opinions(state, b);
    if (others.length) matters.push({ b, others });
  }
  const shown = matters.slice(0, 5).map(matter);
  if (matters.length > 5) shown.push({ id: 'more', name: 'note', who: '', text: `and ${num(matters.length - 5)} more below` });
  keyed($('matters'), shown, (m) => m.id, () => {
    const name = make('button', 'name');
    name.type = 'button';
    name.onclick = () => open(name.textContent);
    return make('li', '', icon('note'), name, make('span'));
  }, (li, m) => {
    const [shape, who, what] = li.children;
    attr(shape.firstChild, 'href', `#i-${m.name}`);
    attr(li, 'class', `is-${m.name}`);
    say(who, m.who);
    say(what, m.text);
  });
}

// matter is one line below the headline: a backend that isn't up, or that others see otherwise.
function matter({ b, others }) {
  if (others) return { id: `o ${b.id}`, name: 'differ', who: b.id, text: `${b.state} here, but ${others.map((o) => `${o.state} for ${o.name}`).join(', ')}` };
  const { name, word } = condition(b);
  if (name === 'draining') return { id: `b ${b.id}`, name, who: b.id, text: `${word}: ${progress(b)}` };
  const text = [`${word}${b.since ? ` for ${since(b.since)}` : ''}`, progress(b), b.why].filter(Boolean).join(' · ');
  return { id: `b ${b.id}`, name, who: b.id, text };
}

const figureList = [
  { title: 'Requests', kind: 'requests', of: 'requests', text: () => rate(perSecond((s) => s.totals.requests)), note: () => `${num(state.requests)} in flight` },
  { title: 'Open tunnels', kind: 'tunnels', of: 'tunnels', text: () => num(state.tunnels), note: () => `${rate(perSecond((s) => s.totals.tunnels_opened))} opened` },
  {
    title: 'Backend errors', kind: 'errors', of: 'failed', least: 1,
    text: () => share(perSecond((s) => s.errors) / (perSecond((s) => s.totals.requests) || 1)),
    note: () => `${rate(perSecond((s) => s.errors))}`,
  },
  { title: 'Answered by Limpet', kind: 'errors', of: 'own', least: 1, text: () => rate(perSecond((s) => s.totals.by_gateway)), note: () => `${num(state.totals.by_gateway)} in all` },
  { title: 'Retries', kind: 'retries', of: 'retries', least: 1, text: () => rate(perSecond((s) => s.totals.retries)), note: () => `${num(state.totals.retries)} in all` },
  { title: 'Clients that left early', text: () => rate(perSecond((s) => s.totals.aborted)), note: () => `${num(state.totals.aborted)} in all` },
];

function startFigures() {
  for (const f of figureList) {
    f.value = make('span', 'value');
    f.small = make('small');
    f.svg = f.kind && spark(f.kind);
    $('figures').append(make('div', '', make('dt', '', f.title), make('dd', '', f.value, f.small, ...(f.svg ? [f.svg] : []))));
  }
}

function figures() {
  for (const f of figureList) {
    say(f.value, f.text());
    say(f.small, f.note());
    if (f.svg) plot(f.svg, [gauges[f.of]], f.least);
  }
}

function findings() {
  const list = state.findings ?? [];
  show($('findings-box'), list.length > 0);
  keyed($('findings'), list, (f) => f.code, () => make('li', '', icon('finding'), make('p', 'what'), make('p', 'cure'), make('small')), (li, f) => {
    const [, what, cure, note] = li.children;
    say(what, f.what);
    say(cure, f.cure);
    say(note, `${f.count > 1 ? `${num(f.count)} times, ` : ''}first ${since(f.since)} ago · ${f.code}`);
  });
}

function replicas() {
  const list = state.replicas ?? [];
  show($('no-replicas'), list.length === 0);
  keyed($('replicas'), list, (r) => r.id, () => make('li', '', icon('up'), make('b'), make('small'), make('p')), (li, r) => {
    const differs = state.backends.filter((b) => r.backends?.[b.id] && r.backends[b.id].state !== b.state);
    const unlike = state.backends.filter((b) => r.backends && !r.backends[b.id]).length;
    const [shape, name, when, text] = li.children;
    attr(shape.firstChild, 'href', differs.length || unlike ? '#i-differ' : '#i-up');
    attr(li, 'class', differs.length || unlike ? 'is-differ' : 'is-up');
    say(name, r.name || r.id);
    say(when, `heard ${since(r.heard)} ago`);
    const said = differs.slice(0, 3).map((b) => `${b.id} is ${r.backends[b.id].state} there, ${b.state} here`);
    if (differs.length > 3) said.push(`and ${num(differs.length - 3)} more differ`);
    if (unlike) said.push(`doesn’t know ${plural(unlike, 'backend')}`);
    say(text, said.join('; ') || 'agrees on every backend');
  });
}

// balance is what is said of rebalancing, as if it were a part.
function balance({ running, waits, moved, left }) {
  const now = !running ? 'nobody is moved at the moment' : waits ? `waits for ${waits}` : left ? `${plural(left, 'client')} yet to be moved` : 'nobody is left to be moved';
  return { name: 'Rebalancing', ok: true, text: `${now}; ${num(moved)} moved so far` };
}

function parts() {
  const list = [...(state.rebalance ? [balance(state.rebalance)] : []), ...(state.parts ?? [])];
  show($('parts-box'), list.length > 0);
  keyed($('parts'), list, (p) => p.name, () => make('li', '', icon('up'), make('b'), make('p')), (li, p) => {
    const [shape, name, text] = li.children;
    attr(shape.firstChild, 'href', p.ok ? '#i-up' : '#i-down');
    attr(li, 'class', p.ok ? 'is-up' : 'is-down');
    say(name, p.name);
    say(text, p.text);
  });
}

// --- what happened ---

const shapes = {
  up: 'up', draining: 'draining', down: 'down', drain: 'draining', off: 'off', serve: 'up', empty: 'drained', drained: 'drained', finding: 'finding',
};

// happened takes in events that may be known already.
function happened(list) {
  const known = new Set(events.map((e) => e.id));
  events = [...list.filter((e) => !known.has(e.id)), ...events].sort((a, b) => b.id - a.id).slice(0, 200);
  if (state && !document.hidden) story();
}

function story() {
  show($('no-events'), events.length === 0);
  keyed($('events'), events, (e) => e.id, (e) => {
    const time = make('time', '', make('span', 'ago'), ' ', make('small', '', clockTime(e.time)));
    time.dateTime = e.time;
    const text = make('p');
    if (e.backend && e.text.startsWith(`${e.backend} `)) text.append(make('b', '', e.backend), e.text.slice(e.backend.length));
    else if (e.backend && !e.text.includes(e.backend)) text.append(make('b', '', e.backend), ` ${e.text}`);
    else text.append(e.text);
    if (e.who) text.append(' ', make('small', 'who', `by ${e.who}`));
    const li = make('li', `is-${shapes[e.kind] ?? 'note'}`, icon(shapes[e.kind] ?? 'note'), text, time);
    return li;
  }, (li, e) => say(li.lastChild.firstChild, `${since(e.time)} ago`));
}

// --- staleness ---

// tick runs each second, and at once when the stream breaks.
function tick() {
  const age = performance.now() - heard;
  const stale = lost > 0 || age > staleAfter;
  const box = $('stale');
  show(box, stale && state);
  document.body.classList.toggle('is-stale', Boolean(stale && state));
  attr($('live'), 'data-live', stale ? 'lost' : 'live');
  say($('live'), stale ? (state ? 'Stale' : 'Connecting') : 'Live');
  if (!stale) return;
  if (!state) {
    if (lost) say($('headline'), 'The gateway doesn’t answer. Trying again…');
    return;
  }
  say($('stale-what'), lost ? 'The connection to the gateway is lost; reconnecting.' : 'The gateway has fallen silent.');
  say($('stale-age'), `What you see is from ${clockTime(Date.now() - (performance.now() - heard))}, ${duration(age)} old.`);
  if (!lost && age > 3 * staleAfter) broken(); // a connection that died without a word
}

document.onvisibilitychange = () => {
  if (!document.hidden && state) render();
};

startTable({ open, act });
startFigures();
startSteering();
connect();
setInterval(tick, 1000);
