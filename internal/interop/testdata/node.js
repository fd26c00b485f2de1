// A Socket.IO node of the version in the given folder, for tests.
//
//   node node.js FOLDER NAME PORT REDIS_PORT [ADAPTER]
//
// It prints one JSON line per event on standard output, the first one being
// {"event":"listening","port":N}, and ends when its standard input does, so
// that nothing is left behind by a test that was killed. There it takes
// commands, one JSON object a line, as command.js says, for the namespace as
// the node has it.
//
// Several ports of Redis, with commas between them, are those of a Redis Cluster, for Socket.IO
// 4 with a sharded adapter.
//
// The adapter is the default one of the version or, of Socket.IO 4, one of
// sharded-static, sharded-dynamic, sharded-dynamic-private, streams, streams-0.2 and
// streams-recovery: the last is streams, with the recovery of connections' state.
'use strict';

const http = require('http');
const path = require('path');
const { createRequire } = require('module');
const { listen, tag } = require('./command');

const [folder, name, port, redisPort, adapter] = process.argv.slice(2);
const load = createRequire(path.resolve(__dirname, folder, 'package.json'));
const say = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');

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
  ...(adapter === 'streams-recovery' ? { connectionStateRecovery: {} } : {}),
});

// joinRedis returns a function that resolves when Redis has heard all that this
// node had to say to it.
async function joinRedis() {
  if (folder === 'v4') return join4();
  const redis = load('redis');
  const pubClient = redis.createClient(+redisPort, '127.0.0.1');
  const subClient = redis.createClient(+redisPort, '127.0.0.1');
  io.adapter(load('socket.io-redis')({ pubClient, subClient }));
  return () => new Promise((done) => subClient.subscribe('ready', done));
}

async function join4() {
  const ports = redisPort.split(',').map(Number);
  const sockets = ports.map((port) => ({ socket: { host: '127.0.0.1', port } }));
  const redis = load('redis');
  const pub = ports.length > 1 ? redis.createCluster({ rootNodes: sockets }) : redis.createClient({ name, ...sockets[0] });
  const sub = pub.duplicate();
  await Promise.all([pub.connect(), sub.connect()]);
  const { createAdapter, createShardedAdapter } = load('@socket.io/redis-adapter');
  let topics = 0; // Redis answers in order
  switch (adapter) {
    case undefined:
      io.adapter(createAdapter(pub, sub));
      return () => sub.subscribe(`ready${topics++}`, () => {});
    case 'streams':
    case 'streams-recovery':
      io.adapter(load('@socket.io/redis-streams-adapter').createAdapter(pub));
      return () => readsStream(pub, ' sub=4 ');
    case 'streams-0.2':
      io.adapter(load('redis-streams-adapter-0.2').createAdapter(pub));
      return () => readsStream(pub, '');
    default:
      io.adapter(createShardedAdapter(pub, sub, { subscriptionMode: adapter.slice('sharded-'.length) }));
      if (ports.length > 1) return () => all(() => sub.sSubscribe(`ready${topics++}`, () => {}));
      return () => sub.sSubscribe(`ready${topics++}`, () => {});
  }
}

// all calls f so often that each primary of a Redis Cluster has a channel of it.
function all(f) {
  return Promise.all(Array.from({ length: 48 }, f));
}

// readsStream resolves when this node waits for the stream, and is subscribed to
// what it has to be: the two channels of each of its namespaces.
async function readsStream(redis, subscribed) {
  for (;;) {
    const mine = (await redis.sendCommand(['CLIENT', 'LIST'])).split('\n').filter((line) => line.includes(` name=${name} `));
    if (mine.some((line) => line.includes(' cmd=xread ')) && mine.some((line) => line.includes(subscribed))) return;
    await new Promise(setImmediate);
  }
}

async function main() {
  const chat = io.of('/chat');
  const told = await joinRedis();
  for (const nsp of [io.of('/'), chat]) {
    nsp.on('connection', (socket) => serve(nsp, socket, told));
    nsp.on('hello', (...args) => {
      const answer = typeof args[args.length - 1] === 'function' ? args.pop() : () => {};
      say('hello', { nsp: nsp.name, args: tag(args) });
      answer(name);
    });
    nsp.adapter.customHook = (data, answer) => answer({ name, data }); // of Socket.IO 2
  }
  await told();
  listen(say, (nsp) => io.of(nsp), () => process.exit());
  server.listen(+port, '127.0.0.1', () => say('listening', { port: server.address().port }));
}

function serve(nsp, socket, told) {
  const client = socket.handshake.query.client;
  say('connect', { client, socket: socket.id });
  socket.on('disconnect', (reason) => say('disconnect', { client, socket: socket.id, reason }));

  socket.on('who', (answer) => answer(name));
  socket.on('echo', (data, answer) => answer(data));
  socket.on('join', async (room, answer) => {
    socket.join(room);
    await told();
    answer();
  });
  // Each comes back as an event of its own name, from whatever node the
  // receiver is on.
  socket.on('message', (room, text) => nsp.to(room).emit('message', text));
  socket.on('privateMessage', (id, text) => nsp.to(id).emit('privateMessage', text));
  socket.on('broadcast', (text) => nsp.emit('broadcast', text));
}

main();
