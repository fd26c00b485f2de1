// What a client of a sticky service does, and a view of the pool behind it.

const $ = (id) => document.getElementById(id);

let socket; // the present WebSocket
let home; // the backend that we are or were on: {backend, hue}
let seen = 0; // the last chat line that we have
const had = new Set(); // all that this socket has brought: a line that it opens with may come twice
let unsent = []; // what was written while no socket was open
let tries = 0; // failed attempts since the last success
let timer; // runs until the next attempt
let cut; // since when we have no socket, and how much of that we waited by our own choice: {at, delay}

// --- the socket ---

function connect() {
  const url = new URL('chat', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  url.searchParams.set('after', seen); // lines that we missed come first
  socket = new WebSocket(url);
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === 'hello') arrived(message);
    if (message.type === 'line') heard(message);
  };
  socket.onclose = lost;
}

// The gateway closes with 1012 (Service Restart) when it wants us to come back, and the cookie says where we belong.
// Jitter matters: a backend that dies loses all its clients in the same moment, and they must not return in one either.
function lost({ code }) {
  const delay = Math.min(150 * 2 ** tries++, 2000) * (1 + Math.random());
  if (!cut) {
    cut = { at: performance.now(), delay: 0 };
    if (home) {
      const why = `close code ${code}${code === 1012 ? ', service restart' : ''}`;
      headline('You were on', home, true);
      note(`The connection ended with ${why}. Coming back.`);
      way(`${home.backend} was its home; now it looks for another`);
      tell(home, `You lost ${home.backend}`, why, true);
    }
  }
  cut.delay += delay;
  look();
  wire('connecting', tries > 3 ? 'No answer, trying again' : 'Reconnecting');
  timer = setTimeout(connect, delay);
}

function arrived(now) {
  const before = home;
  home = now;
  tries = 0;
  had.clear();
  seen = Math.min(seen, now.seq); // the demo may have been restarted under us
  headline('You are on', now, false);
  wire('open', 'Connected');
  way(!before || before.backend === now.backend ? `the cookie says ${now.backend}` : `${before.backend} is gone for it: the cookie says ${now.backend} now`);
  if (!before) {
    note('This browser belongs here now, until this backend goes.');
    tell(now, `You came to ${now.backend}`, '', true);
  } else if (cut) {
    const ms = Math.round(performance.now() - cut.at);
    const how = `in ${ms} ms, ${Math.round(cut.delay)} of them this page’s own delay`;
    const what = before.backend === now.backend ? `Back on ${now.backend}` : `Moved from ${before.backend} to ${now.backend}`;
    note(`${what} ${how}.`);
    tell(now, what, how, true);
  }
  cut = undefined;
  unsent.splice(0).forEach(send);
  look();
}

function send(line) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(line));
  else unsent.push(line);
}

$('reconnect').onclick = () => {
  if (socket.readyState !== WebSocket.CLOSED) {
    socket.close(); // and lost does the rest
    return;
  }
  clearTimeout(timer);
  connect();
};

// --- the chat ---

const me = $('name');
me.value = sessionStorage.getItem('name') ?? `Visitor ${100 + Math.floor(Math.random() * 900)}`;
me.onchange = () => sessionStorage.setItem('name', me.value);

$('say').onsubmit = (event) => {
  event.preventDefault();
  send({ from: me.value, text: $('text').value });
  $('text').value = '';
  $('text').focus();
};

function heard({ seq, from, backend, hue, text }) {
  if (had.has(seq)) return;
  had.add(seq);
  seen = Math.max(seen, seq); // two lines of different backends may come in either order
  const li = document.createElement('li');
  paint(li, hue);
  li.append(make('b', from), make('span', backend, 'at'), make('p', text));
  append($('lines'), li, 200);
}

// --- the pool ---

const cards = new Map(); // by backend ID
let told = 0; // the last event that we have shown

// look asks the demo how the pool is. It is not behind the gateway: it works however many backends are dead.
async function look() {
  if (document.hidden) return;
  let pool;
  try {
    pool = await (await fetch('demo/pool')).json();
  } catch {
    return; // the gateway itself is gone; the socket says so
  }
  for (const backend of pool.backends) show(backend);
  const nobody = pool.backends.every(({ state }) => state === 'down');
  $('nobody').hidden = !nobody;
  if (nobody && cut) {
    headline('No backend is up', { backend: '', hue: 0 }, true);
    note('Limpet answers 503 until one is back. This page goes on asking.');
    way('has nowhere to send it: 503');
    wire('connecting', 'Waiting for a backend');
  }
  told = Math.min(told, pool.events.at(-1)?.seq ?? 0); // the demo may have been restarted under us
  for (const event of pool.events) {
    if (event.seq <= told) continue;
    told = event.seq;
    const { hue } = pool.backends.find(({ id }) => id === event.backend);
    const what = event.from === event.to ? `is ${event.to}` : `went from ${event.from} to ${event.to}`;
    tell({ hue }, `${event.backend} ${what}`, event.why, false, event.time);
  }
}

function show({ id, hue, address, state, clients, alive, drained, leavesIn }) {
  if (!cards.has(id)) cards.set(id, newCard(id, hue));
  const card = cards.get(id);
  const part = (selector) => card.querySelector(selector);
  card.dataset.state = drained && state === 'down' ? 'drained' : state;
  card.classList.toggle('mine', home?.backend === id && !cut);
  part('.state').textContent = card.dataset.state;
  part('.address').textContent = address;
  part('.count').textContent = count(clients) + (drained && leavesIn > 0 ? `, leaving within ${Math.ceil(leavesIn / 1000)} s` : '');
  part('.dots').replaceChildren(...Array.from({ length: Math.min(clients, 24) }, () => make('i')));
  button(part('.kill'), id, alive ? 'kill' : 'revive');
  button(part('.drain'), id, drained ? 'undrain' : 'drain');
  const end = card.end;
  end.dataset.state = card.dataset.state;
  end.classList.toggle('mine', card.classList.contains('mine'));
}

function newCard(id, hue) {
  const card = $('backend').content.firstElementChild.cloneNode(true);
  card.id = id;
  paint(card, hue);
  card.querySelector('h3').textContent = id;
  for (const b of card.querySelectorAll('button')) {
    b.onclick = async () => {
      const answer = await fetch(`demo/backends/${id}/${b.dataset.do}`, { method: 'POST' });
      if (!answer.ok) tell({ hue }, `${id}: ${b.textContent} failed`, await answer.text());
      look();
    };
  }
  $('pool').append(card);
  card.end = make('li', id);
  paint(card.end, hue);
  $('way-ends').append(card.end);
  return card;
}

function button(b, id, verb) {
  if (b.dataset.do === verb) return;
  b.dataset.do = verb;
  b.textContent = verb[0].toUpperCase() + verb.slice(1);
  b.setAttribute('aria-label', `${b.textContent} ${id}`);
}

const count = (n) => (n === 0 ? 'no clients' : n === 1 ? '1 client' : `${n} clients`);

// --- what happened, and small things ---

function tell({ hue }, what, why, self = false, at = Date.now()) {
  const li = make('li', what, self ? 'self' : '');
  const time = make('time', new Date(at).toLocaleTimeString('en-GB'));
  time.dateTime = new Date(at).toISOString();
  li.prepend(time, ' ');
  if (why) li.append(make('small', why));
  paint(li, hue);
  append($('events'), li, 100);
}

function append(list, li, max) {
  list.append(li);
  if (list.children.length > max) list.firstElementChild.remove();
}

function make(tag, text = '', className = '') {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

function paint(node, hue) {
  node.dataset.hue = hue;
  node.style.setProperty('--hue', hue);
}

function headline(text, { backend, hue }, away) {
  $('home').classList.toggle('away', away);
  $('home-text').textContent = text;
  $('home-name').textContent = backend;
  paint($('home'), hue);
}

function note(text) {
  $('home-note').textContent = text;
}

// way says in the picture what Limpet does with this browser's requests.
function way(text) {
  $('way-why').textContent = text;
}

function wire(state, text) {
  $('wire').dataset.wire = state;
  $('wire').textContent = text;
}

connect();
setInterval(look, 500);
document.onvisibilitychange = look;
