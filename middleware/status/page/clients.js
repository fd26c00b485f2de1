// Tunnels, and the clients behind them: where they belong, and how to move them.

import { $, clockTime, keyed, make, num, plural, since } from './words.js';
import { ask, call, model, toast } from './ask.js';

// listTunnels fills a list with the tunnels of a backend or a client, and returns what is to be said above it.
export async function listTunnels(list, of) {
  try {
    const { tunnels, total } = await call(`tunnels?${of}&limit=100`);
    keyed(list, tunnels, (t) => t.id, (t) => tunnelItem(list, t));
    if (!tunnels.length) return 'There are none on this gateway.';
    return total > tunnels.length ? `The first ${num(tunnels.length)} of ${num(total)} on this gateway` : `${plural(total, 'tunnel')} on this gateway`;
  } catch (error) {
    return error.message;
  }
}

function tunnelItem(list, t) {
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
      list.nodes.delete(t.id);
      return done.text ?? 'The tunnel is closed.';
    },
  });
  return li;
}

const examples = { cookie: 'name=value', sid: 'as in the query', key: '', address: '203.0.113.9' };

export function startClients() {
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
  const list = make('ul', 'tunnels');
  $('found').replaceChildren(...found, list);
  if (pin.key && pin.tunnels > 0) listTunnels(list, `key=${encodeURIComponent(pin.key)}`);
}

function movePin({ key, backend: at }) {
  const others = model.state.backends.filter((b) => b.id !== at && b.state === 'up');
  if (!others.length) return toast('No other backend is up.');
  ask({
    title: 'Move a client',
    yes: 'Move',
    field: { label: 'To', value: others[0].id, options: others.map((b) => [b.id, b.id]) },
    text: (to) => `From its next request on it belongs to ${to}. Its tunnels to other backends are closed with 1012.`,
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
