// Writes down what the npm packages send to Redis, for the tests beside it.
//
//   node vectors.js > vectors.json
//
// Each vector has the frame that a package sent and the message that it was
// asked to send, in the words of message.go. Where exact is false the package
// orders the properties in another way than we do, or says more.
//
//   node vectors.js decode
//
// reads lines {"codec":…,"data":base64} and answers each with the value that the
// codec makes of it.
'use strict';

const crypto = require('crypto');
const readline = require('readline');
const { createRequire } = require('module');

// IDs are made of random bytes: here the nth ones that are asked for are all n.
let random = 0;
crypto.randomBytes = crypto.pseudoRandomBytes = (n) => Buffer.alloc(n, random++);

const codecs = {
  'notepack-2.1': require('notepack-2.1'),
  'notepack-2.2': require('notepack-2.2'),
  'notepack-2.3': require('notepack-2.3'),
  'notepack-3.0': require('notepack-3.0'),
  msgpack: require('@msgpack/msgpack'),
  json: { encode: JSON.stringify, decode: JSON.parse },
};

// tag turns what JSON can't tell apart into objects with one property.
function tag(v) {
  if (v === undefined) return null;
  if (typeof v === 'number') {
    if (!Number.isFinite(v)) return { $number: String(v) };
    return Object.is(v, -0) ? 0 : v;
  }
  if (v instanceof Date) return { $date: v.getTime() };
  if (v instanceof ArrayBuffer) return { $binary: Buffer.from(v).toString('base64') };
  if (ArrayBuffer.isView(v)) return { $binary: Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString('base64') };
  if (Array.isArray(v)) return v.map(tag);
  if (v && typeof v === 'object') return Object.fromEntries(Object.entries(v).map(([k, e]) => [k, tag(e)]));
  return v;
}

// A client of Redis that keeps what is sent.
class FakeRedis {
  constructor() {
    this.frames = [];
    this.options = {};
  }
  publish(channel, data) {
    this.frames.push({ command: 'PUBLISH', channel, data: Buffer.from(data).toString('base64') });
    return Promise.resolve(1);
  }
  spublish(channel, data) {
    this.frames.push({ command: 'SPUBLISH', channel, data: Buffer.from(data).toString('base64') });
    return Promise.resolve(1);
  }
  xadd([channel, , , maxLen, , ...entry]) {
    this.frames.push({ command: 'XADD', channel, maxLen, entry });
    return Promise.resolve('1-0');
  }
  send_command(name, args, done) {
    done(null, [args[1], '3']); // PUBSUB NUMSUB: somebody will answer
  }
  xread() {
    return new Promise(() => {});
  }
  duplicate() {
    return this;
  }
  on() {}
  subscribe(channel, done) {
    if (typeof done === 'function') done();
  }
  psubscribe() {}
  ssubscribe() {}
  hset() {} // socket.io-emitter looks for it
  listenerCount() {
    return 2;
  }
}

const socketID = 'SSSSSSSSSSSSSSSSSSSS';
const handshake = { address: '127.0.0.1', auth: {}, headers: { host: 'example.com' }, issued: 1700000000000, secure: false };
const date = new Date(1700000000123);

// A namespace with one socket, which is in the room r1 and answers everything.
function namespace(name, data) {
  const socket = {
    id: socketID, handshake: { ...handshake, sessionStore: 'left out' }, data,
    rooms: new Set([socketID, 'r1']), acks: new Map(), client: { writeToEngine() {} },
    join: (room, done) => done && done(),
    leave: (room, done) => done && done(),
    disconnect() {}, packet() {}, notifyOutgoingListeners() {},
  };
  return {
    name, _ids: 0, socket,
    sockets: new Map([[socketID, socket]]),
    connected: { [socketID]: socket },
    server: { opts: {}, encoder: { encode: (packet, done) => (done ? done([]) : []) } },
    _onServerSideEmit: (args) => args[args.length - 1]('answer'),
  };
}

const vectors = [];

// capture records the one frame that act sends.
async function capture(config, name, redis, want, act, exact = true) {
  redis.frames.length = 0;
  random = 1;
  await act();
  await new Promise(setImmediate);
  if (redis.frames.length !== 1) throw new Error(`${config.adapter} ${name}: ${redis.frames.length} frames`);
  vectors.push({ name, ...config, exact, frame: redis.frames[0], want: tag(want) });
}

const set = (...names) => new Set(names);
const opts = (rooms = [], except = [], flags = {}) => ({ rooms: set(...rooms), except: set(...except), flags });
const packetOf = (...data) => ({ type: 2, data });

// What an event may hold, with the properties of objects in order.
const args = [
  'text', 'größer 😀', '\u2028<&>"\\\b\f\n\r\t\u0001', '', 'x'.repeat(300),
  0, 1, -1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, 9007199254740991, -32, -33, -128, -129, -32769, -2147483649,
  1.5, -0.1, 1.5e-300, 1e-7, 123456789.123, true, false, null,
  [], {}, [[['deep']]], { a: { b: [{ c: 1 }] }, d: 'e' }, Array.from({ length: 20 }, (_, i) => i),
];
const binary = [Buffer.from([0, 1, 255]), { a: { file: Buffer.from('data') }, when: date }, Buffer.alloc(300, 7)];

async function legacy(version) {
  const v3 = version === 6;
  const config = { package: `socket.io-redis@${v3 ? '6.0.1' : '5.4.0'}`, adapter: v3 ? 'legacy3' : 'legacy' };
  const redis = new FakeRedis();
  const make = require(`socket.io-redis-${version}`)({ pubClient: redis, subClient: redis });
  const adapterOf = (nsp) => {
    random = 0;
    return v3 ? make(nsp) : new make(nsp);
  };
  const nsp = namespace('/chat');
  const a = adapterOf(nsp);
  const id = 'BBBBBB';
  // Socket.IO 2 sends lists, and looks for binary data itself.
  const options = (rooms, except, flags) => (v3 ? opts(rooms, except, flags) : { rooms, except, flags });
  const uid = 'AAAAAA';
  const it = (name, want, act, exact) => capture(config, name, redis, { nsp: nsp.name, ...want }, act, exact);

  await it('to all', { kind: 'broadcast', uid, event: ['hi', ...args] }, () => a.broadcast(packetOf('hi', ...args), options([], [], {})));
  await it('to one room', { kind: 'broadcast', uid, event: ['hi'], to: ['r1'] }, () => a.broadcast(packetOf('hi'), options(['r1'], [], {})));
  await it('flags', { kind: 'broadcast', uid, event: ['hi'], to: ['r1', 'r2'], except: [socketID], volatile: true, uncompressed: true },
    () => a.broadcast(packetOf('hi'), options(['r1', 'r2'], [socketID], { compress: false, volatile: true })));
  await it('binary', { kind: 'broadcast', uid, event: ['hi', ...binary] },
    () => a.broadcast({ ...packetOf('hi', ...binary), type: v3 ? 2 : 5 }, options([], [], {})));
  await it('undefined', { kind: 'broadcast', uid, event: ['hi', undefined, { a: undefined }] },
    () => a.broadcast(packetOf('hi', undefined, { a: undefined }), options([], [], {})), false);
  if (!v3) {
    await it('no except', { kind: 'broadcast', uid, event: ['hi'], to: ['r1'] },
      () => a.broadcast(packetOf('hi'), { rooms: ['r1'], flags: {} }), false);
  }

  await it('socketIDs', { kind: 'socketIDs', id, to: ['r1'] }, () => void (v3 ? a.sockets(set('r1')).catch(() => {}) : a.clients(['r1'])));
  await it('allRooms', { kind: 'allRooms', id }, () => void (v3 ? a.allRooms().catch(() => {}) : a.allRooms()));
  await it('join', { kind: 'join', id, to: ['TTTTTTTTTTTTTTTTTTTT'], rooms: ['r2'] }, () => void a.remoteJoin('TTTTTTTTTTTTTTTTTTTT', 'r2'));
  await it('leave', { kind: 'leave', id, to: ['TTTTTTTTTTTTTTTTTTTT'], rooms: ['r2'] }, () => void a.remoteLeave('TTTTTTTTTTTTTTTTTTTT', 'r2'));
  await it('disconnect', { kind: 'disconnect', id, to: ['TTTTTTTTTTTTTTTTTTTT'], close: true }, () => void a.remoteDisconnect('TTTTTTTTTTTTTTTTTTTT', true));
  if (!v3) {
    await it('roomsOf', { kind: 'roomsOf', id, socketID: 'other' }, () => a.clientRooms('other'));
    await it('customRequest', { kind: 'customRequest', id, value: { a: 1 } }, () => a.customRequest({ a: 1 }));
  }

  if (v3) a.addAll(socketID, set(socketID, 'r1'));
  else a.addAll(socketID, [socketID, 'r1']);
  const ask = (request) => () => a.onrequest(a.requestChannel, Buffer.from(JSON.stringify({ [v3 ? 'requestId' : 'requestid']: 'q1', ...request })));
  const t = v3 ? { sockets: 0, allRooms: 1, join: 2, leave: 3, disconnect: 4 } : { sockets: 0, roomsOf: 1, allRooms: 2, join: 3, leave: 4, custom: 5, disconnect: 6 };
  await it('IDs', { kind: 'socketIDList', id: 'q1', sockets: [{ ID: socketID }] }, ask({ type: t.sockets, rooms: ['r1'] }));
  await it('no IDs', { kind: 'socketIDList', id: 'q1' }, ask({ type: t.sockets, rooms: ['nowhere'] }));
  await it('rooms', { kind: 'roomList', id: 'q1', rooms: [socketID, 'r1'] }, ask({ type: t.allRooms }));
  await it('joined', { kind: 'done', id: 'q1' }, ask({ type: t.join, sid: socketID, room: 'r2' }));
  await it('left', { kind: 'done', id: 'q1' }, ask({ type: t.leave, sid: socketID, room: 'r2' }));
  await it('disconnected', { kind: 'done', id: 'q1' }, ask({ type: t.disconnect, sid: socketID, close: true }));
  if (!v3) {
    await it('rooms of a socket', { kind: 'roomList', id: 'q1', rooms: [socketID, 'r1'] }, ask({ type: t.roomsOf, sid: socketID }));
    a.customHook = (data, done) => done({ got: data });
    await it('custom answer', { kind: 'customAnswer', id: 'q1', value: { got: [1] } }, ask({ type: t.custom, data: [1] }));
  }
}

async function current(adapterOptions) {
  const specific = !!adapterOptions.publishOnSpecificResponseChannel;
  const config = { package: '@socket.io/redis-adapter@8.3.0', adapter: specific ? 'current-specific' : 'current' };
  const redis = new FakeRedis();
  random = 0;
  const nsp = namespace('/chat', { a: Buffer.from([1, 2]), b: date });
  const a = require('@socket.io/redis-adapter').createAdapter(redis, redis, adapterOptions)(nsp);
  const [uid, id] = ['AAAAAA', 'BBBBBB'];
  const it = (name, want, act, exact) => capture(config, name, redis, { nsp: nsp.name, ...want }, act, exact);

  if (!specific) {
    await it('to all', { kind: 'broadcast', uid, event: ['hi', ...args] }, () => a.broadcast(packetOf('hi', ...args), opts()));
    await it('to one room', { kind: 'broadcast', uid, event: ['hi'], to: ['r1'] }, () => a.broadcast(packetOf('hi'), opts(['r1'])));
    await it('to a numeric room', { kind: 'broadcast', uid, event: ['hi'], to: ['7'] }, () => a.broadcast(packetOf('hi'), opts([7])), false);
    await it('flags', { kind: 'broadcast', uid, event: ['hi'], to: ['r1', 'r2'], except: ['r3'], volatile: true, uncompressed: true },
      () => a.broadcast(packetOf('hi'), opts(['r1', 'r2'], ['r3'], { compress: false, volatile: true })));
    await it('binary', { kind: 'broadcast', uid, event: ['hi', ...binary] }, () => a.broadcast(packetOf('hi', ...binary), opts()));
    await it('undefined', { kind: 'broadcast', uid, event: ['hi', undefined, {}] }, () => a.broadcast(packetOf('hi', undefined, { a: undefined }), opts()));
    await it('acknowledged', { kind: 'broadcast', id, uid, event: ['hi', ...binary], to: ['r1'], timeout: 500 },
      () => a.broadcastWithAck(packetOf('hi', ...binary), opts(['r1'], [], { timeout: 500 }), () => {}, () => {}));
    await it('allRooms', { kind: 'allRooms', id, uid }, () => void a.allRooms());
    await it('fetchSockets', { kind: 'fetchSockets', id, uid, to: ['r1'], except: ['r2'] }, () => void a.fetchSockets(opts(['r1'], ['r2'])));
    await it('join', { kind: 'join', uid, to: ['r1'], except: ['r2'], rooms: ['r3', 'r4'] }, () => a.addSockets(opts(['r1'], ['r2']), ['r3', 'r4']));
    await it('leave', { kind: 'leave', uid, to: ['r1'], rooms: ['r3'] }, () => a.delSockets(opts(['r1']), ['r3']));
    await it('disconnect', { kind: 'disconnect', uid, to: ['r1'], close: true }, () => a.disconnectSockets(opts(['r1']), true));
    await it('serverSideEmit', { kind: 'serverSideEmit', uid, event: ['hi', 1, { a: 'b' }] }, () => a.serverSideEmit(['hi', 1, { a: 'b' }]));
    await it('serverSideEmit with binary', { kind: 'serverSideEmit', uid, event: ['hi', { data: [1, 2], type: 'Buffer' }] },
      () => a.serverSideEmit(['hi', Buffer.from([1, 2])]), false);
    await it('serverSideEmit to be answered', { kind: 'serverSideEmit', id, uid, event: ['hi'] }, () => a.serverSideEmit(['hi', () => {}]));
  }

  a.addAll(socketID, set(socketID, 'r1'));
  const asker = specific ? 'asker' : '';
  const ask = (request) => () => a.onrequest(a.requestChannel, Buffer.from(JSON.stringify({ uid: 'asker', requestId: 'q1', ...request })));
  const json = (v) => JSON.parse(JSON.stringify(v));
  await it('IDs', { kind: 'socketIDList', asker, id: 'q1', sockets: [{ ID: socketID }] }, ask({ type: 0, rooms: ['r1'] }));
  await it('rooms', { kind: 'roomList', asker, id: 'q1', rooms: [socketID, 'r1'] }, ask({ type: 1 }));
  await it('joined', { kind: 'done', asker, id: 'q1' }, ask({ type: 2, sid: socketID, room: 'r2' }));
  await it('sockets', { kind: 'socketList', asker, id: 'q1', sockets: [{ ID: socketID, Rooms: [socketID, 'r1'], Data: json(nsp.socket.data), Handshake: handshake }] },
    ask({ type: 5, opts: { rooms: ['r1'], except: [] } }), false);
  await it('serverSideEmit answered', { kind: 'serverSideAnswer', asker, id: 'q1', value: 'answer' }, ask({ type: 6, data: ['hi'] }));
  const broadcast = { type: 7, packet: packetOf('hi'), opts: { rooms: ['r1'], except: [], flags: { timeout: 5 } } };
  await it('client count', { kind: 'clientCount', asker, id: 'q1', count: 1 }, ask(broadcast));
  await it('acknowledgement', { kind: 'ack', asker, id: 'q1', value: [binary] }, () => [...nsp.socket.acks.values()].pop()([binary]));
}

// clusterAdapter is what Sharded and Streams have in common.
async function clusterAdapter(config, redis, a, nsp) {
  const [uid, id] = [a.uid, '0101010101010101'];
  const it = (name, want, act, exact) => capture(config, name, redis, { nsp: nsp.name, uid, ...want }, act, exact);
  await it('to all', { kind: 'broadcast', event: ['hi', ...args] }, () => a.broadcast(packetOf('hi', ...args), opts()));
  await it('to one room', { kind: 'broadcast', event: ['hi'], to: ['r1'] }, () => a.broadcast(packetOf('hi'), opts(['r1'])));
  await it('to one socket', { kind: 'broadcast', event: ['hi'], to: ['TTTTTTTTTTTTTTTTTTTT'] }, () => a.broadcast(packetOf('hi'), opts(['TTTTTTTTTTTTTTTTTTTT'])));
  await it('flags', { kind: 'broadcast', event: ['hi'], to: ['r1', 'r2'], except: ['r3'], volatile: true, uncompressed: true },
    () => a.broadcast(packetOf('hi'), opts(['r1', 'r2'], ['r3'], { compress: false, volatile: true })));
  await it('binary', { kind: 'broadcast', event: ['hi', ...binary] }, () => a.broadcast(packetOf('hi', ...binary), opts()));
  await it('undefined', { kind: 'broadcast', event: ['hi', undefined, {}] }, () => a.broadcast(packetOf('hi', undefined, { a: undefined }), opts()));
  await it('a date', { kind: 'broadcast', event: ['hi', date.toJSON()] }, () => a.broadcast(packetOf('hi', date), opts()));
  await it('acknowledged', { kind: 'broadcast', id, event: ['hi', ...binary], to: ['r1'], timeout: 500 },
    () => a.broadcastWithAck(packetOf('hi', ...binary), opts(['r1'], [], { timeout: 500 }), () => {}, () => {}));
  await it('join', { kind: 'join', to: ['r1'], except: ['r2'], rooms: ['r3', 'r4'] }, () => a.addSockets(opts(['r1'], ['r2']), ['r3', 'r4']));
  await it('leave', { kind: 'leave', to: ['r1'], rooms: ['r3'] }, () => a.delSockets(opts(['r1']), ['r3']));
  await it('disconnect', { kind: 'disconnect', to: ['r1'], close: true }, () => a.disconnectSockets(opts(['r1']), true));
  await it('fetchSockets', { kind: 'fetchSockets', id, to: ['r1'], except: ['r2'] }, () => void a.fetchSockets(opts(['r1'], ['r2'])));
  await it('serverSideEmit', { kind: 'serverSideEmit', event: ['hi', 1, { a: 'b' }] }, () => a.serverSideEmit(['hi', 1, { a: 'b' }]));
  await it('serverSideEmit with binary', { kind: 'serverSideEmit', event: ['hi', ...binary] }, () => a.serverSideEmit(['hi', ...binary]));
  await it('serverSideEmit to be answered', { kind: 'serverSideEmit', id, event: ['hi'] }, () => a.serverSideEmit(['hi', () => {}]));
  await it('initial heartbeat', { kind: 'initialHeartbeat' }, () => a.publish({ type: 1 }));
  await it('heartbeat', { kind: 'heartbeat' }, () => a.publish({ type: 2 }));
  await it('close', { kind: 'adapterClose' }, () => a.publish({ type: 13 }));

  a.addAll(socketID, set(socketID, 'r1'));
  const asker = 'asker';
  const ask = (type, data) => () => a.onMessage({ uid: asker, nsp: nsp.name, type, data: { requestId: 'q1', ...data } });
  const empty = { rooms: [], except: [], flags: {} };
  await it('sockets', { kind: 'socketList', asker, id: 'q1', sockets: [{ ID: socketID, Rooms: [socketID, 'r1'], Data: nsp.socket.data, Handshake: handshake }] },
    ask(7, { opts: empty }));
  await it('no sockets', { kind: 'socketList', asker, id: 'q1' }, ask(7, { opts: { ...empty, rooms: ['nowhere'] } }));
  await it('serverSideEmit answered', { kind: 'serverSideAnswer', asker, id: 'q1', value: 'answer' }, ask(9, { packet: ['hi'] }));
  await it('client count', { kind: 'clientCount', asker, id: 'q1', count: 1 }, ask(3, { packet: packetOf('hi'), opts: empty }));
  const ack = [...nsp.socket.acks.values()].pop();
  await it('acknowledgement', { kind: 'ack', asker, id: 'q1', value: 'got it' }, () => ack('got it'));
  await it('acknowledgement with binary', { kind: 'ack', asker, id: 'q1', value: binary }, () => ack(binary));
}

async function sharded(subscriptionMode) {
  const redis = new FakeRedis();
  random = 0;
  const nsp = namespace('/chat', { a: Buffer.from([1, 2]), b: date });
  const a = require('@socket.io/redis-adapter').createShardedAdapter(redis, redis, { subscriptionMode })(nsp);
  await clusterAdapter({ package: '@socket.io/redis-adapter@8.3.0', adapter: `sharded-${subscriptionMode}` }, redis, a, nsp);
}

async function streams(name, options) {
  const redis = new FakeRedis();
  random = 0;
  const nsp = namespace('/chat', { a: Buffer.from([1, 2]), b: date });
  const a = require('@socket.io/redis-streams-adapter').createAdapter(redis, options)(nsp);
  await clusterAdapter({ package: '@socket.io/redis-streams-adapter@0.3.1', adapter: name }, redis, a, nsp);
}

async function emitters() {
  const redis = new FakeRedis();
  const uid = 'emitter';
  {
    const config = { package: 'socket.io-emitter@3.2.0', adapter: 'legacy' };
    const it = (name, want, act) => capture(config, name, redis, { nsp: '/chat', uid, kind: 'broadcast', ...want }, act, false);
    const e = require('socket.io-emitter')(redis).of('chat');
    await it('to all', { event: ['hi', ...args, ...binary] }, () => e.emit('hi', ...args, ...binary));
    await it('to a room', { event: ['hi'], to: ['r1'], volatile: true }, () => e.to('r1').volatile.emit('hi'));
  }
  const config = { package: '@socket.io/redis-emitter@5.1.0', adapter: 'current' };
  const it = (name, want, act, exact = true) => capture(config, name, redis, { nsp: '/chat', ...want }, act, exact);
  const { Emitter } = require('@socket.io/redis-emitter');
  const e = new Emitter(redis).of('chat');
  await it('to all', { kind: 'broadcast', uid, event: ['hi', ...args, ...binary] }, () => e.emit('hi', ...args, ...binary), false);
  await it('to a room', { kind: 'broadcast', uid, event: ['hi'], to: ['r1'], except: ['r2', 'r3'], volatile: true, uncompressed: true },
    () => e.to('r1').except(['r2', 'r3']).compress(false).volatile.emit('hi'), false);
  await it('join', { kind: 'join', to: ['r1'], except: ['r2'], rooms: ['r3'] }, () => e.in('r1').except('r2').socketsJoin('r3'));
  await it('leave', { kind: 'leave', to: ['r1'], rooms: ['r3', 'r4'] }, () => e.in('r1').socketsLeave(['r3', 'r4']));
  await it('disconnect', { kind: 'disconnect', close: true }, () => e.disconnectSockets(true));
  await it('serverSideEmit', { kind: 'serverSideEmit', uid, event: ['hi', 1] }, () => e.serverSideEmit('hi', 1));
}

// Values by codec. Those that are lossy are written in another way by us.
function values() {
  const exact = { args, binary: [binary[0]], dates: [date, new Date(0), new Date(1700000000000), new Date(-1), new Date(4294967296000), new Date(253402300799999)] };
  const lossy = {
    undefined: [undefined], 'undefined in an object': [{ a: undefined, b: 1 }], 'negative zero': [-0], 'not a number': [NaN],
    infinite: [Infinity, -Infinity], 'beyond 2^53': [2 ** 53, 2 ** 60, 2 ** 63, -(2 ** 53), -(2 ** 63)], 'beyond 64 bits': [1e21],
    'an ArrayBuffer': [new Uint8Array([1, 2, 3]).buffer], 'a typed array': [new Uint8Array([1, 2, 3])],
    'a large ArrayBuffer': [new Uint8Array(300).buffer], 'an old date': [new Date(-62135596800000)],
  };
  const list = [];
  for (const codec of Object.keys(codecs)) {
    if (codec === 'json') continue;
    for (const [isExact, of] of [[true, exact], [false, lossy]]) {
      for (const [name, v] of Object.entries(of)) {
        // @msgpack/msgpack takes an ArrayBuffer for an object without properties.
        if (codec === 'msgpack' && /ArrayBuffer/.test(name)) continue;
        const data = Buffer.from(codecs[codec].encode(v));
        list.push({ codec, name, exact: isExact, data: data.toString('base64'), want: tag(codecs[codec].decode(data)) });
      }
    }
  }
  return list;
}

async function write() {
  await legacy(5);
  await legacy(6);
  await current({});
  await current({ publishOnSpecificResponseChannel: true });
  for (const mode of ['static', 'dynamic', 'dynamic-private']) await sharded(mode);
  await streams('streams', {});
  await streams('streams-sharded', { useShardedPubSub: true, streamCount: 4, maxLen: 100, channelPrefix: 'chat', streamName: 'chat' });
  await emitters();
  const lines = (list) => list.map((v) => '\n' + JSON.stringify(v)).join(',');
  const text = `{"messages":[${lines(vectors)}\n],"values":[${lines(values())}\n]}\n`;
  process.stdout.write(text, () => process.exit()); // there are timers
}

if (process.argv[2] === 'decode') {
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    const { codec, data } = JSON.parse(line);
    console.log(JSON.stringify({ value: tag(codecs[codec].decode(Buffer.from(data, 'base64'))) }));
  });
} else {
  write();
}
