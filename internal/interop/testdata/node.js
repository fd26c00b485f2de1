// A Socket.IO node of the version in the given folder, for tests.
//
//   node node.js FOLDER NAME PORT REDIS_PORT
//
// It prints one JSON line per event on standard output, the first one being
// {"event":"listening","port":N}, and ends when its standard input does, so
// that nothing is left behind by a test that was killed.
'use strict';

const http = require('http');
const path = require('path');
const { createRequire } = require('module');

const [folder, name, port, redisPort] = process.argv.slice(2);
const load = createRequire(path.resolve(__dirname, folder, 'package.json'));
const say = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');

process.stdin.resume().on('end', () => process.exit());

// SIGUSR2 breaks the health page and mends it again: a node that wants to be
// left alone, but still serves those whom it has.
let healthy = true;
process.on('SIGUSR2', () => {
  healthy = !healthy;
});

const server = http.createServer((req, res) => {
  if (req.url === '/health') {
    res.writeHead(healthy ? 200 : 503).end();
    return;
  }
  res.setHeader('Content-Type', 'text/html');
  res.end(`<!DOCTYPE html><title>${name}</title><script src="/socket.io/socket.io.js"></script>`);
});

const io = load('socket.io')(server, {
  // Far above what a test may take to notice anything, so that whatever a node
  // notices sooner was told by a connection and not by a missing heartbeat.
  pingInterval: 60000,
  pingTimeout: 60000,
  maxHttpBufferSize: 1e8,
});

async function joinRedis() {
  if (folder === 'v4') {
    const pub = load('redis').createClient({ socket: { host: '127.0.0.1', port: +redisPort } });
    const sub = pub.duplicate();
    await Promise.all([pub.connect(), sub.connect()]);
    io.adapter(load('@socket.io/redis-adapter').createAdapter(pub, sub));
    // Redis answers in order: once this is confirmed, the adapter's own
    // subscriptions are.
    await sub.subscribe('ready', () => {});
    return;
  }
  const redis = load('redis');
  const pubClient = redis.createClient(+redisPort, '127.0.0.1');
  const subClient = redis.createClient(+redisPort, '127.0.0.1');
  io.adapter(load('socket.io-redis')({ pubClient, subClient }));
  await new Promise((done) => subClient.subscribe('ready', done));
}

io.on('connection', (socket) => {
  const client = socket.handshake.query.client;
  say('connect', { client, socket: socket.id });
  socket.on('disconnect', (reason) => say('disconnect', { client, socket: socket.id, reason }));

  socket.on('who', (answer) => answer(name));
  socket.on('echo', (data, answer) => answer(data));
  socket.on('join', (room, answer) => {
    socket.join(room);
    answer();
  });
  // Each comes back as an event of its own name, from whatever node the
  // receiver is on.
  socket.on('message', (room, text) => io.to(room).emit('message', text));
  socket.on('privateMessage', (id, text) => io.to(id).emit('privateMessage', text));
  socket.on('broadcast', (text) => io.emit('broadcast', text));
});

joinRedis().then(() => {
  server.listen(+port, '127.0.0.1', () => say('listening', { port: server.address().port }));
});
