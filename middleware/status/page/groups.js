// The groups of backends, and which share of the new clients each gets.

import { $, icon, attr, keyed, make, num, plural, say, share, show } from './words.js';
import { ask, call, model } from './ask.js';

const nameOf = (group) => group || 'no group';

// groups lists the groups that have backends or a share, by name.
function groups({ backends, shares = {} }) {
  const all = new Map();
  const of = (name) => all.get(name) ?? all.set(name, { name, backends: 0, up: 0, weight: 0, share: shares[name] ?? 0 }).get(name);
  Object.keys(shares).forEach(of);
  for (const b of backends) {
    const g = of(b.group ?? '');
    g.backends++;
    g.weight += b.weight;
    if (b.state === 'up') g.up++;
  }
  return [...all.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

// sharesNow returns the shares that are set. As long as there are none, new clients go by the weights of the backends:
// it returns these as shares of 100, for backends that aren't up as well, since they may be up again. No group gets 0,
// which would keep new clients away from it for good.
function sharesNow(state) {
  if (state.shares) return state.shares;
  const all = groups(state);
  const sum = all.reduce((n, g) => n + g.weight, 0);
  return Object.fromEntries(all.map((g) => [g.name, Math.max(1, Math.round((100 * g.weight) / (sum || 1)))]));
}

// outcome says which part of the new clients each group gets with these shares.
function outcome(shares) {
  const all = groups({ ...model.state, shares }).filter((g) => g.backends > 0);
  const sum = all.reduce((n, g) => n + (g.up && g.share), 0);
  if (!sum) return 'No group with a share has a backend that is up: new clients go to any backend.';
  const gets = (g) => (g.up && g.share ? share(g.share / sum) : 'none');
  return `Of the new clients ${all.map((g) => `${nameOf(g.name)} gets ${gets(g)}`).join(', ')}. Clients that have a home stay in its group.`;
}

function askShare(name) {
  const changed = (value) => ({ ...sharesNow(model.state), [name]: Number(value) });
  ask({
    title: `Share of ${nameOf(name)}`,
    yes: 'Set',
    field: { label: 'Share', value: sharesNow(model.state)[name] ?? 0 },
    text: (value) => outcome(changed(value)),
    run: async (value) => {
      await call('shares', { shares: changed(value) });
      return `The share of ${nameOf(name)} is set.`;
    },
  });
}

function askNone() {
  ask({
    title: 'No shares',
    yes: 'Set',
    text: () => 'Groups don’t matter any more: new clients go to all backends, by their weights. Clients that have a home stay there.',
    run: async () => {
      await call('shares', { shares: {} });
      return 'Groups don’t matter any more.';
    },
  });
}

export function startGroups() {
  $('groups-none').onclick = askNone;
}

export function updateGroups({ state }) {
  const all = groups(state);
  const { steering } = state.gateway;
  show($('groups-box'), all.some((g) => g.name));
  show($('groups-none'), steering && state.shares);
  const sum = all.reduce((n, g) => n + (g.up ? g.share : 0), 0);
  keyed($('groups'), all, (g) => g.name, (g) => {
    const button = make('button', '', 'Share…');
    button.type = 'button';
    button.setAttribute('aria-label', `Share of ${nameOf(g.name)}`);
    button.onclick = () => askShare(g.name);
    return make('li', '', icon('up'), make('b', '', nameOf(g.name)), button, make('p'));
  }, (li, g) => {
    const [shape, , button, text] = li.children;
    const idle = g.share > 0 && !g.up;
    attr(shape.firstChild, 'href', g.up ? '#i-up' : '#i-down');
    attr(li, 'class', idle ? 'is-down' : 'is-up');
    show(button, steering);
    const part = !state.shares ? 'no shares are set' : idle ? `its share of ${num(g.share)} goes to the others`
      : `${share(g.share / (sum || 1))} of the new clients (share ${num(g.share)})`;
    say(text, `${num(g.up)} of ${plural(g.backends, 'backend')} up; ${part}`);
  });
}
