// A client of the package ws for each way to offer permessage-deflate. Each sends messages to the hub at the address in
// argv[2], which sends them back, and says on a line what was agreed and whether all have come back as they were.
// argv[3] is the folder of the package.
const WebSocket = require(process.argv[3]);

const messages = [0, 1, 255, 256, 1000, 10_000, 100_000].flatMap((n) => [
  Buffer.alloc(n, '{"id":17,"text":"some text"},'),
  require('node:crypto').randomBytes(n),
]);

function exchange(name, perMessageDeflate) {
  const socket = new WebSocket(process.argv[2], { perMessageDeflate });
  let came = 0;
  socket.on('open', () => {
    for (const message of messages) {
      socket.send(message.subarray(0, message.length / 3), { fin: false, binary: true });
      socket.send(message.subarray(message.length / 3), { fin: true, binary: true });
    }
  });
  socket.on('message', (data) => {
    const same = data.equals(messages[came++]);
    if (!same) console.log(JSON.stringify({ name, error: `message ${came} has come back with ${data.length} bytes` }));
    if (came === messages.length) socket.close(1000);
  });
  socket.on('close', (code) => console.log(JSON.stringify({ name, code, came, extensions: socket.extensions })));
  socket.on('error', (error) => console.log(JSON.stringify({ name, error: String(error) })));
}

exchange('off', false);
exchange('default', { threshold: 0 });
exchange('no context takeover', { threshold: 0, serverNoContextTakeover: true, clientNoContextTakeover: true });
exchange('largest window', { threshold: 0, serverMaxWindowBits: 15 });
exchange('small window of the server', { threshold: 0, serverMaxWindowBits: 10 });
exchange('small window of the client', { threshold: 0, clientMaxWindowBits: 9 });
