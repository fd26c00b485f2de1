// The emitter from npm for the version in the given folder, for tests.
//
//   node emitter.js FOLDER REDIS_PORT
//
// It takes the commands in command.js.
'use strict';

const path = require('path');
const { createRequire } = require('module');
const { listen } = require('./command');

const [folder, redisPort] = process.argv.slice(2);
const load = createRequire(path.resolve(__dirname, folder, 'package.json'));
const say = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');

async function main() {
  let emitter;
  if (folder === 'v4') {
    const redis = load('redis').createClient({ socket: { host: '127.0.0.1', port: +redisPort } });
    await redis.connect();
    emitter = new (load('@socket.io/redis-emitter').Emitter)(redis);
  } else {
    emitter = load('socket.io-emitter')(load('redis').createClient(+redisPort, '127.0.0.1'));
  }
  listen(say, (nsp) => emitter.of(nsp), () => process.exit());
}

main();
