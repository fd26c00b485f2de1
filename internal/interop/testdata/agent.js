// An http.Agent for one Socket.IO client: it sees every request of the client,
// polls and WebSocket handshakes alike, in all versions of the client.
'use strict';

const http = require('http');

class ClientAgent extends http.Agent {
  // cookies: keep them as a browser would. The Node clients keep none, but for
  // 4.x with withCredentials.
  // seen(status, method, url) is told of every answer.
  constructor({ cookies, seen }) {
    super({ keepAlive: true });
    this.jar = cookies ? new Map() : null;
    this.seen = seen;
  }

  // The ClientRequest calls this from its constructor: its header can still be
  // changed, and its listeners come first.
  addRequest(req, options) {
    const { jar } = this;
    if (jar && jar.size > 0) {
      req.setHeader('Cookie', [...jar].map(([name, value]) => `${name}=${value}`).join('; '));
    }
    const answered = (res) => {
      for (const line of (jar && res.headers['set-cookie']) || []) {
        const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
        jar.set(name, value);
      }
      this.seen(res.statusCode, req.method, req.path);
    };
    req.once('response', answered);
    req.once('upgrade', answered);
    super.addRequest(req, options);
  }
}

module.exports = ClientAgent;
