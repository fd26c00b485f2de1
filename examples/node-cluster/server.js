// One worker: a server like any other that has its clients in its memory. It
// knows nothing of the others. Put your own in its place, with Socket.IO for
// example.
'use strict';

const http = require('http');
const { createHash, randomUUID } = require('crypto');

const { WORKER = 'alone', PORT = 3001 } = process.env; // PORT is a Unix socket here

const visits = new Map(); // by session

const server = http.createServer((req, res) => {
  if (req.url === '/health') {
    res.end('well\n'); // what the master asks for every second
    return;
  }
  const [, session = randomUUID()] = /(?:^|; )session=([\w-]+)/.exec(req.headers.cookie) || [];
  visits.set(session, (visits.get(session) || 0) + 1);
  res.setHeader('Set-Cookie', `session=${session}; Path=/; HttpOnly`);
  res.end(`visit ${visits.get(session)} to ${WORKER}, pid ${process.pid}\n`);
});

// The least WebSocket there is: it says where it is, and doesn't listen.
server.on('upgrade', (req, socket) => {
  const accept = createHash('sha1').update(`${req.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${accept.digest('base64')}\r\n\r\n`,
  );
  socket.write(Buffer.concat([Buffer.from([0x81, WORKER.length]), Buffer.from(WORKER)])); // one frame of text
  socket.on('error', () => {}).resume();
});

server.listen(PORT, () => console.log(`${WORKER} listens, pid ${process.pid}`));

process.on('SIGINT', () => {}); // Ctrl-C in a terminal is the master's business
process.on('SIGTERM', () => process.exit());
process.stdin.resume().on('end', () => process.exit()); // the master is gone
