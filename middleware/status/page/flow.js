// The picture: clients by what became of their pins, the gateway, and the backends. The bands' widths are requests a
// second and open tunnels, each on a scale of its own.

import { $, attr, condition, draw, num, plural, rate, say } from './words.js';

const outcomes = ['hit', 'new', 'moved', 'expired', 'forged', 'unknown'];
const rowsAtMost = 12;
const captions = 22; // the height of the line above the rows

const svg = $('flow');
const parts = new Map(); // the elements of the picture by name
let used; // the names of this drawing

// part returns the picture's element of the given name, which it makes at its first use.
function part(name, tag, className, layer) {
  used.add(name);
  let node = parts.get(name);
  if (!node) {
    parts.set(name, (node = draw(tag, { class: className })));
    layer.append(node);
  }
  return node;
}

const bands = draw('g');
const marks = draw('g');
svg.append(bands, marks);

let drawn; // what was drawn last, for another width
let width = 0; // asking for it while drawing would have the browser lay out the page twice
new ResizeObserver(([box]) => {
  width = Math.round(box.contentRect.width);
  if (drawn) drawFlow(...drawn);
}).observe(svg.parentElement);

// drawFlow draws the picture. flows are rates: of the pins by outcome, and of the gateway's own answers.
export function drawFlow(state, flows) {
  drawn = [state, flows];
  if (!width) return;
  used = new Set();
  const narrow = width < 560;
  const left = outcomes.map((name) => ({ name, text: name, requests: flows.pins[name] ?? 0, tunnels: 0 }));
  if (flows.own) left.push({ name: 'own', own: true, text: 'no backend', requests: flows.own, tunnels: 0 });
  left.push({ name: 'tunnels', text: 'tunnels', requests: 0, tunnels: state.tunnels });
  const right = destinations(state.backends);
  right.push({
    name: 'own', own: true, requests: flows.own, tunnels: 0, text: 'answered by Limpet',
    note: flows.own ? rate(flows.own) : 'nothing',
  });

  // One scale for both sides: so many pixels for all requests, and so many for all tunnels.
  const scale = (of, room) => room / Math.max(total(left, of), total(right, of), 1e-9);
  const scales = { requests: scale('requests', 84), tunnels: scale('tunnels', 60) };
  layOut(left, scales, 25);
  layOut(right, scales, 39);
  // The height is what the rows need at most, however the flows are spread: what stands below the picture must not move
  // under somebody's finger.
  const height = captions + Math.max(8 * 25 + 114, right.length * 39 + 115);
  attr(svg, 'width', width);
  attr(svg, 'height', height);
  attr(svg, 'viewBox', `0 0 ${width} ${height}`);

  const x = narrow ? { from: 96, gate: width * 0.45, to: width - 132 } : { from: 150, gate: width * 0.4, to: width - 320 };
  const gate = Math.max(48, ...[left, right].map((rows) => thickness(rows, scales) + 12));
  const gateTop = captions + (height - captions - gate) / 2;
  side(left, { scales, height, near: x.gate, far: x.from, gate, gateTop, out: false, narrow });
  side(right, { scales, height, near: x.gate + 14, far: x.to, gate, gateTop, out: true, narrow });

  const bar = part('gate', 'rect', 'gate', marks);
  for (const [name, value] of Object.entries({ x: x.gate, y: gateTop, width: 14, height: gate, rx: 4 })) attr(bar, name, value);

  place(part('clients', 'text', '', marks), narrow ? 'Clients' : 'Clients, by pin', 0, 12, 'head');
  place(part('gateway', 'text', '', marks), state.gateway.name, x.gate + 7, 12, 'head middle');
  place(part('backends', 'text', '', marks), 'Backends', x.to + 8, 12, 'head');

  attr(svg, 'aria-label', describe(state, flows, left));
  for (const [name, node] of parts) {
    if (used.has(name)) continue;
    node.remove();
    parts.delete(name);
  }
}

const total = (rows, of) => rows.reduce((sum, row) => sum + row[of], 0);

// thickness is that of all bands of a side together.
const thickness = (rows, scales) => total(rows, 'requests') * scales.requests + total(rows, 'tunnels') * scales.tunnels;

// layOut gives rows their heights: what their bands need, and so much at least.
function layOut(rows, scales, least) {
  for (const row of rows) row.height = Math.max(least, thickness([row], scales) + 10);
}

// side draws the rows of one side, from the gateway's edge (near) to the rows' ends (far).
function side(rows, { scales, height, near, far, gate, gateTop, out, narrow }) {
  let at = gateTop + (gate - thickness(rows, scales)) / 2; // where the next band meets the gateway
  let top = captions + (height - captions - total(rows, 'height')) / 2;
  for (const row of rows) {
    const middle = top + row.height / 2;
    top += row.height;
    const size = { requests: row.requests * scales.requests, tunnels: row.tunnels * scales.tunnels };
    let y = middle - (size.requests + size.tunnels) / 2;
    for (const kind of ['requests', 'tunnels']) {
      if (!size[kind]) continue;
      const className = `band ${kind}${row.name === 'hit' || out || kind === 'tunnels' ? '' : ' odd'}${row.own ? ' own' : ''}`;
      const band = part(`${out ? 'to' : 'from'} ${row.name} ${kind}`, 'path', className, bands);
      attr(band, 'd', ribbon(near, at, far, y, size[kind]));
      at += size[kind];
      y += size[kind];
    }
    if (out && !size.requests && !size.tunnels) {
      const thread = part(`thread ${row.name}`, 'path', '', bands);
      attr(thread, 'class', `thread ${row.shape ?? ''}`);
      attr(thread, 'd', `M${near} ${at}C${(near + far) / 2} ${at} ${(near + far) / 2} ${middle} ${far} ${middle}`);
    }
    label(row, middle, far, out, narrow);
  }
}

// ribbon is a band of the same width all along. It is at least so wide that it can be seen.
function ribbon(x0, y0, x1, y1, size) {
  const w = Math.max(size, 1.2);
  const m = (x0 + x1) / 2;
  const [a, b, c, d] = [y0, y1, y1 + w, y0 + w].map((y) => y.toFixed(1));
  return `M${x0} ${a}C${m} ${a} ${m} ${b} ${x1} ${b}V${c}C${m} ${c} ${m} ${d} ${x0} ${d}Z`;
}

function label(row, y, x, out, narrow) {
  const name = `${out ? 'to' : 'from'} ${row.name}`;
  const text = part(`${name} text`, 'text', '', marks);
  const note = part(`${name} note`, 'text', '', marks);
  if (out) {
    const shape = part(`${name} shape`, 'use', '', marks);
    attr(shape, 'href', `#i-${row.shape ?? 'note'}`);
    attr(shape, 'class', `shape is-${row.shape ?? 'note'}`);
    for (const [key, value] of Object.entries({ x: x + 8, y: y - 15, width: 13, height: 13 })) attr(shape, key, value);
    place(text, row.own && narrow ? 'Limpet itself' : clip(row.text, narrow ? 13 : 34), x + 26, y - 4, 'name');
    place(note, narrow ? row.short ?? row.note : row.note, x + 26, y + 12, 'note');
    return;
  }
  const quiet = row.requests || row.tunnels ? '' : ' quiet';
  place(text, row.text, 0, y + 4, `name${quiet}`);
  place(note, row.name === 'tunnels' ? num(row.tunnels) : row.requests ? rate(row.requests) : '0', x - 8, y + 4, `note end${quiet}`);
}

function place(text, content, x, y, className) {
  say(text, content);
  attr(text, 'class', className);
  attr(text, 'x', x);
  attr(text, 'y', y);
}

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

let prominent = new Set(); // the IDs of those among many backends that have rows of their own

// destinations are the rows at the right. Where there are too many backends, those that need attention and the busiest
// have rows of their own, and the others are put together by what they do.
function destinations(backends) {
  if (backends.length <= rowsAtMost) return backends.map((b) => one(b));
  const rows = [];
  // A backend that has a row keeps it until another is much busier, or the picture would never be at rest.
  const weigh = (b) => (b.rate + b.tunnels + 1) * (prominent.has(b.id) ? 1.5 : 1);
  const worst = (name) => backends.filter((b) => condition(b).name === name).sort((a, b) => weigh(b) - weigh(a));
  const chosen = new Set();
  for (const name of ['down', 'sick', 'draining', 'up']) {
    const all = worst(name);
    const alone = all.slice(0, { down: 2, sick: 1, draining: 2, up: 3 }[name]);
    for (const b of alone) chosen.add(b.id);
    rows.push(...alone.map((b) => one(b)));
    if (all.length > alone.length) rows.push(group(all.slice(alone.length), name));
  }
  prominent = chosen;
  const apart = backends.filter((b) => ['off', 'drained'].includes(condition(b).name));
  if (apart.length) rows.push(group(apart, 'off', 'off or drained'));
  return rows;
}

function one(b) {
  const { name, word } = condition(b);
  return {
    name: `backend ${b.id}`, shape: name, requests: b.rate, tunnels: b.tunnels,
    text: name === 'up' ? b.id : `${b.id} · ${word}`,
    note: `${plural(b.tunnels, 'tunnel')} · ${num(b.requests)} in flight · ${rate(b.rate)}`,
    short: `${num(b.tunnels)} tun · ${rate(b.rate)}`,
  };
}

function group(backends, shape, word = shape) {
  const sum = (of) => backends.reduce((n, b) => n + b[of], 0);
  return {
    name: `group ${shape}`, shape, requests: sum('rate'), tunnels: sum('tunnels'),
    text: `${num(backends.length)} others · ${word}`,
    note: `${plural(sum('tunnels'), 'tunnel')} · ${num(sum('requests'))} in flight · ${rate(sum('rate'))}`,
    short: `${num(sum('tunnels'))} tun · ${rate(sum('rate'))}`,
  };
}

// describe tells the picture in words.
function describe(state, flows, left) {
  const pins = left.filter((row) => row.requests > 0).map((row) => `${row.text} ${rate(row.requests)}`);
  return `Clients hold ${plural(state.tunnels, 'tunnel')}. Pins: ${pins.join(', ') || 'no requests now'}. ` +
    `They go to ${plural(state.backends.length, 'backend')}, which the table below lists. Limpet itself answers ${rate(flows.own)}.`;
}

// drawMap shows each of many backends as one small cell.
export function drawMap(state) {
  const map = $('map');
  const on = state.backends.length > rowsAtMost;
  if (map.hidden === on) map.hidden = !on;
  if (!on) return;
  const most = Math.max(...state.backends.map((b) => b.rate + b.tunnels), 1);
  map.cells ??= new Map();
  const ids = state.backends.map((b) => b.id);
  if (map.ids !== ids.join('\n')) {
    map.ids = ids.join('\n');
    map.replaceChildren(...ids.map((id) => {
      const cell = document.createElement('i');
      map.cells.set(id, cell);
      return cell;
    }));
  }
  for (const b of state.backends) {
    const cell = map.cells.get(b.id);
    const { name, word } = condition(b);
    attr(cell, 'class', `is-${name} load-${Math.ceil((4 * (b.rate + b.tunnels)) / most)}`);
    attr(cell, 'title', `${b.id}: ${word}`);
  }
}
