// A publisher, subscriber or hub of Socket.IO for internal/busbench: package role says
// what it does.
//
//   node role.js FOLDER PEER REDIS ROLE [TOPIC]
//
// The packages are those of the FOLDER. Each topic is a cluster of its own, by the key
// or the name of the stream. Peers: socket.io is the emitter and nodes with the Redis
// adapter, streams are nodes with the adapter over streams, as there is no emitter for it.
'use strict';

const path = require('path');
const readline = require('readline');
const { createRequire } = require('module');

const [folder, peer, redis, role, topic] = process.argv.slice(2);
const load = createRequire(path.resolve(folder, 'package.json'));
const say = (report) => process.stdout.write(JSON.stringify(report) + '\n');
const room = 'room';
const timeDigits = 19;
const now = () => process.hrtime.bigint(); // of CLOCK_MONOTONIC, as in package role

const message = (size, at) => ('t=' + String(at).padStart(timeDigits, '0')).padEnd(size - 2, 'x');

// What was published last: an emitter doesn't tell when Redis has the message.
let taken;

async function connect() {
  const [host, port] = redis.split(':');
  const client = load('redis').createClient({ socket: { host, port: +port } });
  for (const command of ['publish', 'xAdd']) {
    const send = client[command].bind(client);
    client[command] = (...args) => (taken = send(...args));
  }
  await client.connect();
  return client;
}

async function node(client, topic) {
  const io = new (load('socket.io').Server)();
  if (peer === 'streams') {
    io.adapter(load('@socket.io/redis-streams-adapter').createAdapter(client, { streamName: topic, channelPrefix: topic, maxLen: 100_000 }));
  } else {
    const sub = client.duplicate();
    await sub.connect();
    io.adapter(load('@socket.io/redis-adapter').createAdapter(client, sub, { key: topic }));
  }
  return io;
}

// subscribe gives a node a client that takes what the adapter would hand to Engine.IO.
async function subscribe(got) {
  const nsp = (await node(await connect(), topic)).of('/');
  nsp.sockets.set('client', {
    notifyOutgoingListeners: (packet) => got(packet.data[1]),
    client: { writeToEngine: () => {} },
  });
  nsp.adapter.addAll('client', new Set(['client', room]));
}

// publisher returns a function that emits a message to a topic, and a promise of Redis' answer.
async function publisher() {
  const client = await connect();
  const emitters = {};
  for (const topic of ['one', 'all']) {
    emitters[topic] = peer === 'streams' ? await node(client, topic) : new (load('@socket.io/redis-emitter').Emitter)(client, { key: topic });
  }
  return (topic, text) => {
    emitters[topic].to(room).emit('ev', text);
    return taken;
  };
}

// members serves WebSockets that are in the room.
function members() {
  const server = require('http').createServer();
  const io = new (load('socket.io').Server)(server, { transports: ['websocket'] });
  io.on('connection', (socket) => socket.join(room));
  return new Promise((served) => {
    server.listen(0, '127.0.0.1', 4096, () => {
      served([`127.0.0.1:${server.address().port}`, async (topic, text) => io.to(topic).emit('ev', text)]);
    });
  });
}

async function publish(emit, { publish, topic, publishers, size, rate }) {
  if (rate) {
    const began = now();
    for (let i = 0; i < publish; i++) {
      const due = began + BigInt(Math.floor((i * 1e9) / rate));
      while (now() < due) await new Promise((done) => setTimeout(done, Number(due - now()) / 1e6));
      await emit(topic, message(size, now()));
    }
    return;
  }
  const text = message(size, 0);
  let left = publish;
  const one = async () => {
    while (left-- > 0) await emit(topic, text);
  };
  await Promise.all(Array.from({ length: publishers }, one));
}

async function main() {
  let emit, addr;
  let count = 0;
  let times = [];
  let reached = () => {};
  switch (role) {
    case 'publisher':
      emit = await publisher();
      break;
    case 'members':
      [addr, emit] = await members();
      break;
    case 'subscriber':
      await subscribe((text) => {
        const at = text.substr(2, timeDigits);
        if (at !== '0000000000000000000') times.push(Number(now() - BigInt(at)));
        count++;
        reached();
      });
  }
  const awaited = (want) =>
    new Promise((done) => {
      const late = setTimeout(done, 15000);
      reached = () => count >= want && done(clearTimeout(late));
      reached();
    });
  const lines = readline.createInterface({ input: process.stdin }).on('close', () => process.exit());
  lines.on('line', async (line) => {
    const command = JSON.parse(line);
    const report = {};
    try {
      if (command.publish) await publish(emit, command);
    } catch (err) {
      report.error = String(err);
    }
    if (role === 'subscriber') {
      await awaited(command.await || 0);
      Object.assign(report, { got: count, times });
      times = [];
    }
    say(report);
  });
  say({ addr });
}

main();
