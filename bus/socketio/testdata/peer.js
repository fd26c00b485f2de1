// A Socket.IO node with one client, for the benchmark beside @socket.io/redis-adapter:
// peer_test.go says what it does.
//
//   node peer.js FOLDER REDIS_PORT ADAPTER ROOM
//
// The packages are those of the FOLDER. The client is one that takes what the
// adapter would hand to Engine.IO.
'use strict';

const path = require('path');
const readline = require('readline');
const { createRequire } = require('module');

const [folder, port, adapter, own] = process.argv.slice(2);
const load = createRequire(path.resolve(folder, 'package.json'));
const payload = 'x'.repeat(100);

async function main() {
  const pub = load('redis').createClient({ socket: { host: '127.0.0.1', port: +port } });
  const sub = pub.duplicate();
  await Promise.all([pub.connect(), sub.connect()]);
  const io = new (load('socket.io').Server)();
  switch (adapter) {
    case 'current':
      io.adapter(load('@socket.io/redis-adapter').createAdapter(pub, sub));
      break;
    case 'sharded':
      io.adapter(load('@socket.io/redis-adapter').createShardedAdapter(pub, sub));
      break;
    case 'streams':
      io.adapter(load('@socket.io/redis-streams-adapter').createAdapter(pub));
  }

  const emit = (to, number) => io.to(to).emit('ev', number, payload);
  let heard = own === 'lead' ? () => {} : (number) => number !== '0' && emit('lead', number);
  const nsp = io.of('/');
  nsp.sockets.set('client', {
    notifyOutgoingListeners: (packet) => heard(packet.data[1]),
    client: { writeToEngine: () => {} },
  });
  nsp.adapter.addAll('client', new Set(['client', own]));

  let last = 0;
  const answer = (number) => new Promise((done) => (heard = (n) => n === number && done()));
  const lead = async (messages, batch) => {
    const times = [];
    for (let sent = 0; sent < messages; sent += batch) {
      const start = process.hrtime.bigint();
      const number = String(++last);
      const answered = answer(number);
      for (let i = 1; i < batch; i++) emit('follow', '0');
      emit('follow', number);
      await answered;
      times.push(Number(process.hrtime.bigint() - start));
    }
    return times;
  };

  if (own === 'lead') {
    await new Promise((found) => {
      const timer = setInterval(() => emit('follow', String(++last)), 50);
      heard = () => found(clearInterval(timer));
    });
  }
  const lines = readline.createInterface({ input: process.stdin }).on('close', () => process.exit());
  lines.on('line', async (line) => {
    const { id, messages, batch } = JSON.parse(line);
    const times = await lead(messages, batch);
    const { user, system } = process.cpuUsage();
    process.stdout.write(JSON.stringify({ id, times, cpu: (user + system) * 1000 }) + '\n');
  });
}

main();
