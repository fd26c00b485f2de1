// Sparklines: the last minute of a number, one point a second.

import { attr, draw } from './words.js';

const points = 60;
const width = 1180; // so fine that whole numbers will do
const height = 240;

// spark returns a small picture with one line for each of kinds, which are classes of the style sheet.
export function spark(...kinds) {
  const svg = draw('svg', { class: 'spark', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  svg.lines = kinds.map((kind) => draw('path', { class: kind }));
  svg.append(...svg.lines);
  return svg;
}

// plot draws series, one for each line, on the same scale: from 0 to the largest value, or to least if that is larger.
export function plot(svg, series, least = 0) {
  let top = least;
  for (const values of series) for (const v of values ?? []) if (v > top) top = v;
  series.forEach((values, i) => attr(svg.lines[i], 'd', line(values ?? [], top || 1)));
}

// line returns the path of values, the newest at the right end. A null is a gap.
function line(values, top) {
  const from = Math.max(0, values.length - points);
  const step = width / (points - 1);
  let x = width - (values.length - from - 1) * step;
  let d = '';
  let gap = true;
  for (let i = from; i < values.length; i++, x += step) {
    const v = values[i];
    if (v == null) {
      gap = true;
      continue;
    }
    const y = Math.round(height - 15 - (v / top) * (height - 30));
    d += `${gap ? 'M' : 'L'}${x} ${y}`;
    if (gap && values[i + 1] == null) d += 'h1'; // a point of its own
    gap = false;
  }
  return d;
}

// push adds a value to a series and forgets those that are older than a minute.
export function push(values, v) {
  values.push(v);
  if (values.length > points) values.shift();
}
