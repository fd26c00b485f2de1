// What the parts of the page share: elements, numbers, times, and the words for what a backend does.
//
// All that comes from the gateway becomes text or the value of an attribute, never markup: a backend's error can hold
// anything.

export const $ = (id) => document.getElementById(id);

// make returns a new element with a class and children, which are elements or strings.
export function make(tag, className = '', ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// draw returns a new element of an SVG picture.
export function draw(tag, attributes = {}) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// icon returns the shape of a condition.
export function icon(name) {
  const svg = draw('svg', { class: 'icon', 'aria-hidden': 'true' });
  svg.append(draw('use', { href: `#i-${name}` }));
  return svg;
}

// The next three write to the document only if there is something new: with 200 backends most of what a second brings
// is as it was. What was written is remembered at the node, because reading it back from the document costs more.

export function say(node, text) {
  if (node.said === text) return;
  node.said = text;
  node.textContent = text;
}

export function attr(node, name, value) {
  const had = (node.had ??= {});
  if (had[name] === value) return;
  had[name] = value;
  node.setAttribute(name, value);
}

export function show(node, on) {
  if (node.hidden === Boolean(on)) node.hidden = !on;
}

// keyed makes a list show items, in their order, with one element an item that it keeps. key tells items apart, create
// makes an item's element, and update fills it.
export function keyed(list, items, key, create, update) {
  const nodes = (list.nodes ??= new Map());
  const left = new Set(nodes.keys());
  let next = list.firstChild;
  for (const item of items) {
    const id = key(item);
    left.delete(id);
    let node = nodes.get(id);
    if (!node) nodes.set(id, (node = create(item)));
    if (node === next) next = next.nextSibling;
    else list.insertBefore(node, next);
    update?.(node, item);
  }
  for (const id of left) {
    nodes.get(id).remove();
    nodes.delete(id);
  }
}

// --- numbers ---

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const num = (n) => whole.format(n);

export const plural = (n, one, many = `${one}s`) => `${num(n)} ${n === 1 ? one : many}`;

export function rate(perSecond) {
  if (!perSecond) return '0/s';
  if (perSecond < 0.05) return `${num(perSecond * 3600)}/h`;
  return `${perSecond < 10 ? tenths.format(perSecond) : num(perSecond)}/s`;
}

export function share(part) {
  if (!part) return '0%';
  if (part < 0.001) return '<0.1%';
  return `${part < 0.1 ? tenths.format(part * 100) : num(part * 100)}%`;
}

export function millis(ms) {
  if (ms == null) return '–';
  if (ms < 10) return `${tenths.format(ms)} ms`;
  return ms < 1000 ? `${num(ms)} ms` : `${tenths.format(ms / 1000)} s`;
}

// quantiles are p50 and p99 of a backend, with one unit where both have the same.
export function quantiles({ p50_ms: p50, p99_ms: p99 }) {
  if (p50 == null) return '–';
  const [a, b] = [millis(p50), millis(p99)];
  const [value, unit] = a.split(' ');
  return b.endsWith(` ${unit}`) ? `${value} / ${b}` : `${a} / ${b}`;
}

export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i && n < 10 ? tenths.format(n) : num(n)} ${units[i]}`;
}

// --- times ---

let ahead = 0; // how far this machine's clock is ahead of the gateway's, in milliseconds

export function setClock(time) {
  ahead = Date.now() - Date.parse(time);
}

// now is the present by the gateway's clock.
export const now = () => Date.now() - ahead;

export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 100) return `${s} s`;
  const min = Math.round(s / 60);
  if (min < 100) return `${min} min`;
  const h = Math.floor(min / 60);
  if (h < 48) return min % 60 && h < 10 ? `${h} h ${min % 60} min` : `${h} h`;
  return `${Math.floor(h / 24)} days`;
}

export const since = (time) => duration(now() - Date.parse(time));

const ofDay = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const ofYear = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' });

// clockTime is a time of day, with the date if it isn't of the last twelve hours.
export function clockTime(time) {
  const at = new Date(time).getTime();
  return (Math.abs(now() - at) < 12 * 3600e3 ? ofDay : ofYear).format(at);
}

// --- backends ---

// condition is what a backend does, by the operator's wish, its health and its state: the name of its shape, the word
// for it, and how much it needs somebody's attention. It is asked for often, and remembered.
export const condition = (b) => (b.condition ??= judge(b));

function judge(b) {
  if (b.wish === 'off') return { name: 'off', word: 'off', worry: 1 };
  if (b.state === 'down') return b.wish === 'drain' ? { name: 'drained', word: 'drained', worry: 1 } : { name: 'down', word: 'down', worry: 4 };
  if (b.wish === 'drain') return { name: 'draining', word: 'draining', worry: 2 };
  if (b.state === 'draining') return { name: 'sick', word: 'sick', worry: 3 };
  return { name: 'up', word: 'up', worry: 0 };
}

// reason says why a backend is as it is, in words.
export function reason(b) {
  const { name } = condition(b);
  if (name === 'up') return b.check_error ? `The last check failed: ${b.check_error}` : '';
  if (name === 'sick') return `${b.why ?? ''}${b.why ? '. ' : ''}It keeps its clients and takes no new ones.`;
  return b.why ?? '';
}

// progress says how far a drain is.
export function progress({ drain }) {
  if (!drain) return '';
  if (drain.left === 0) return drain.empty ? 'empty: it may be stopped' : 'nothing in flight, but clients may come back';
  const of = `${num(drain.left)} of ${num(Math.max(drain.at_start, drain.left))} left`;
  if (!drain.until) return `${of}, without a deadline`;
  const rest = Date.parse(drain.until) - now();
  return rest > 0 ? `${of}, ${duration(rest)}` : of;
}

// opinions lists the replicas that see a backend in another state than this gateway does.
export function opinions(state, b) {
  const others = [];
  for (const r of state.replicas ?? []) {
    const theirs = r.backends?.[b.id]?.state;
    if (theirs && theirs !== b.state) others.push({ name: r.name || r.id, state: theirs });
  }
  return others;
}

// address is a URL without what is the same everywhere.
export const address = (url) => url.replace(/^http:\/\//, '').replace(/\/$/, '');

export const inFlight = (b) => `${plural(b.tunnels, 'tunnel')} and ${plural(b.requests, 'request')}`;
