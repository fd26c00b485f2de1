// Drives Socket.IO clients of the version in the given folder, for the tests
// beside it.
//
//   node client.js FOLDER
//
// It takes commands on standard input, one JSON object a line, and ends with it.
// What happens is printed as JSON lines: {"event":"done","id":…} for a command,
// and connect, disconnect, message, got and refused for the clients.
'use strict';

const crypto = require('crypto');
const path = require('path');
const readline = require('readline');
const { createRequire } = require('module');
const ClientAgent = require('./agent');
const { tag } = require('./command');

const [folder] = process.argv.slice(2);
const io = createRequire(path.resolve(__dirname, folder, 'package.json'))('socket.io-client');
const say = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');

const sockets = new Map(); // by the name of the client

// open resolves once the client has an answer from its node and, where it may
// upgrade, has done so.
function open({ name, url, cookies, options }) {
  const agent = new ClientAgent({
    cookies,
    seen(status, method, target) {
      if (status !== 200 && status !== 101) say('refused', { client: name, status, method, url: target });
    },
  });
  const socket = io(url, { forceNew: true, ...options, query: { client: name, ...options.query }, agent });
  sockets.set(name, socket);
  socket.on('disconnect', (reason, details) => {
    // 4.x tells the browser's CloseEvent, if that was it.
    const code = details && details.context && details.context.code;
    say('disconnect', { client: name, reason, code, at: Date.now() });
  });
  for (const kind of ['message', 'privateMessage', 'broadcast']) {
    // The nodes beside this send a text, the chat in examples/socketio more.
    socket.on(kind, (what) => say('message', { client: name, kind, text: what.text || what }));
  }
  const connected = new Promise((done) => {
    socket.on('connect', () => {
      socket.emit('who', (node) => {
        say('connect', { client: name, node, socket: socket.id, recovered: socket.recovered, at: Date.now() });
        done();
      });
    });
  });
  return connected.then(() => upgraded(socket.io.engine));
}

function upgraded(engine) {
  if (engine.transport.name === 'websocket' || !engine.transports.includes('websocket')) return undefined;
  return new Promise((done) => engine.once('upgrade', done));
}

function ask(socket, event, arg) {
  const args = arg === undefined ? [] : [arg];
  return new Promise((done) => socket.emit(event, ...args, done));
}

const commands = {
  async open({ clients }) {
    await Promise.all(clients.map(open));
  },

  // The named clients ask their nodes something at the same time.
  async ask({ clients, kind, arg }) {
    const answers = {};
    await Promise.all(
      clients.map(async (name) => {
        answers[name] = await ask(sockets.get(name), kind, arg);
      }),
    );
    return { answers };
  },

  // From now on the clients tell of each event of these names: {"event":"got"}.
  hear({ clients, kinds }) {
    for (const name of clients) {
      for (const kind of kinds) {
        sockets.get(name).on(kind, (...args) => {
          // An acknowledgement that is wanted is the client's name.
          if (typeof args[args.length - 1] === 'function') args.pop()(name);
          say('got', { client: name, kind, args: tag(args) });
        });
      }
    }
  },

  tell({ clients, kind, args }) {
    for (const name of clients) sockets.get(name).emit(kind, ...args);
  },

  // Sends so many random bytes there and back, as binary.
  async bytes({ clients, size }) {
    const sent = crypto.randomBytes(size);
    for (const name of clients) {
      const got = await ask(sockets.get(name), 'echo', sent);
      if (!sent.equals(Buffer.from(got))) throw new Error(`${name}: ${size} bytes came back changed`);
    }
  },

  // Has every client ask for an echo every so many milliseconds, and is done when
  // each of them has had one.
  async load({ every }) {
    const first = (socket) =>
      new Promise((done) => {
        setInterval(() => socket.connected && socket.emit('echo', 'load', done), every);
      });
    await Promise.all([...sockets.values()].map(first));
  },

  transports({ clients }) {
    return { answers: Object.fromEntries(clients.map((name) => [name, sockets.get(name).io.engine.transport.name])) };
  },
};

readline
  .createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const { id, command, ...args } = JSON.parse(line);
    try {
      say('done', { id, ...(await commands[command](args)) });
    } catch (err) {
      say('done', { id, error: String(err) });
    }
  })
  .on('close', () => process.exit());
