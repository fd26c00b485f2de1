// A client of the chat: it says its name and its room in the URL. The Connection comes back by itself when it ends, and brings
// what was said meanwhile.

import { Connection } from './limpet.js';

const $ = (selector) => document.querySelector(selector);
const name = sessionStorage.name ??= `Visitor ${100 + Math.floor(Math.random() * 900)}`;
let room = sessionStorage.room ??= 'tide pool';
let me, node, asking;

const chat = new Connection(() => {
  const url = new URL('chat', location.href);
  url.searchParams.set('name', name);
  url.searchParams.set('room', room);
  return url;
}, { least: 500, most: 5000 });

chat.addEventListener('message', ({ data }) => {
  const message = JSON.parse(data);
  on[message.type]?.(message);
});

chat.addEventListener('missed', () => add('note', 'Something that was said is missing here.'));

chat.addEventListener('close', ({ code }) => {
  title('Coming back', `The connection to ${node ?? 'the chat'} ended with close code ${code}.`, true);
});

const on = {
  hello({ id, node: now }) {
    if (node && node !== now) add('note', `You have moved from ${node} to ${now}.`);
    [me, node] = [id, now];
    $('#enter').elements.room.value = room;
    send({ type: 'who' });
  },
  said({ id, from, node, text, to }) {
    const line = add('', text);
    const how = !to ? '' : id === me ? ', to one alone' : ', to you alone';
    line.prepend(make('b', from), make('small', `on ${node}${how}`));
  },
  people({ people = [] }) {
    title(`${name} on ${node}`, `${people.length} here in “${room}”, over all nodes`);
    $('#people').replaceChildren(...people.map((p) => make('li', `${p.name} on ${p.node}`)));
    const chosen = $('select').value;
    $('select').replaceChildren(
      new Option('to the room', ''),
      ...people.filter(({ id }) => id !== me).map((p) => new Option(`to ${p.name} alone`, p.id)),
    );
    $('select').value = chosen;
    if ($('select').selectedIndex < 0) $('select').value = '';
  },
  changed() {
    // All who are in the room are told at once, and shouldn't all ask at once, nor again for each who comes.
    asking ??= setTimeout(() => { asking = undefined; send({ type: 'who' }); }, 50 + Math.random() * 200);
  },
};

function enter(name) {
  room = sessionStorage.room = name;
  send({ type: 'enter', room });
  send({ type: 'who' });
}

$('#enter').onsubmit = (event) => {
  event.preventDefault();
  const name = event.target.elements.room.value.trim();
  if (!name || name === room) return;
  $('#lines').replaceChildren();
  enter(name);
};

$('#say').onsubmit = (event) => {
  event.preventDefault();
  const { to, text } = event.target.elements;
  if (send({ type: 'say', to: to.value, text: text.value })) text.value = '';
  text.focus();
};

function send(message) {
  return chat.send(JSON.stringify(message));
}

function title(heading, note, lost = false) {
  $('header').className = lost ? 'lost' : '';
  $('h1').textContent = heading;
  $('#note').textContent = note;
}

function add(className, text) {
  const line = make('li', text);
  line.className = className;
  $('#lines').append(line);
  if ($('#lines').children.length > 200) $('#lines').firstElementChild.remove();
  line.scrollIntoView({ block: 'end' });
  return line;
}

function make(tag, text) {
  const node = document.createElement(tag);
  node.textContent = text;
  return node;
}
