// One node of the chat: a Socket.IO server like any other. It knows nothing of
// the gateway in front of it; other nodes hear of its messages through Redis.
//
//   NAME=node1 PORT=3001 REDIS=redis://127.0.0.1:6379 node server.js
'use strict';

const fs = require('fs');
const http = require('http');
const path = require('path');
const { createAdapter } = require('@socket.io/redis-adapter');
const { createClient } = require('redis');
const { Server } = require('socket.io');

const { NAME = `node${process.pid}`, PORT = 3000, REDIS = 'redis://127.0.0.1:6379' } = process.env;

// main.go starts its nodes with this flag: they end with it, however it ends.
if (process.argv.includes('--with-parent')) process.stdin.resume().on('end', () => process.exit());

const server = http.createServer((req, res) => {
  if (req.url === '/health') {
    res.end('well\n'); // what the gateway asks for every second
  } else if (req.url === '/') {
    res.setHeader('Content-Type', 'text/html; charset=utf-8');
    res.end(fs.readFileSync(path.join(__dirname, 'index.html')));
  } else {
    res.writeHead(404).end();
  }
});

const io = new Server(server, { pingInterval: 10000, pingTimeout: 5000 });

io.on('connection', (socket) => {
  const from = String(socket.handshake.query.name || 'somebody').slice(0, 30);
  socket.data.name = from;
  people();
  socket.on('disconnect', people);

  // Which node am I on?
  socket.on('who', (answer) => answer(NAME));
  // To everyone in a room, after joining it.
  socket.on('join', (room, answer) => {
    socket.join(room);
    answer();
  });
  socket.on('message', (room, text) => io.to(room).emit('message', { from, node: NAME, room, text }));
  // To one socket, on whatever node it is.
  socket.on('privateMessage', (id, text) => io.to(id).emit('privateMessage', { from, node: NAME, text }));
  // To everyone on every node.
  socket.on('broadcast', (text) => io.emit('broadcast', { from, node: NAME, text }));
});

// people tells everyone who is there, on all nodes.
async function people() {
  try {
    const sockets = await io.fetchSockets();
    io.emit('people', sockets.map(({ id, data }) => ({ id, name: data.name })));
  } catch (err) {
    console.error(`people: ${err.message}`); // a node that hangs hasn't answered: the next change tells them
  }
}

async function main() {
  const pub = createClient({ url: REDIS });
  const sub = pub.duplicate();
  for (const client of [pub, sub]) client.on('error', (err) => console.error(`redis: ${err.message}`));
  await Promise.all([pub.connect(), sub.connect()]);
  io.adapter(createAdapter(pub, sub));
  // Redis answers in order: once this is confirmed, the adapter's subscriptions
  // are, and no message from another node is missed.
  await sub.subscribe('ready', () => {});
  server.listen(PORT, '127.0.0.1', () => console.log(`${NAME} listens on http://127.0.0.1:${PORT}, pid ${process.pid}`));
}

main();
