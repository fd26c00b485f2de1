// The client of a hub of Limpet (https://github.com/limpet-go/limpet): a WebSocket that comes back by itself, knows where it
// was in each room, and gets what was sent there meanwhile. Its protocol is limpet.v1, which package hub documents.
//
//   import { Connection } from '/limpet.js';
//
//   const chat = new Connection('/ws');
//   chat.addEventListener('message', ({ data, room }) => show(room, data));
//   chat.addEventListener('missed', ({ room }) => reload(room));
//   button.onclick = () => chat.send(input.value); // returns false, and sends nothing, while the server isn't there
//   chat.onask = async (question) => (await confirmed(question) ? 'yes' : 'no');
//
// Events:
//
//   message  data (a string, or a Uint8Array), and room and id, unless it wasn't sent to a room
//   missed   messages to a room are missing here, or may be: what was shown of it has to be read anew
//   joined   room, and recovered: whether it has got, by now, what it had missed there. If not, missed was there before, or
//            the client was never in the room
//   left     the client isn't in room any more, or isn't any more since it has come back
//   open     the server is there, also when the client has come back
//   close    code, reason, and again: the milliseconds after which the client tries again

class HubEvent extends Event {
  constructor(type, fields) {
    super(type);
    Object.assign(this, fields);
  }
}

export class Connection extends EventTarget {
  // onask answers the questions of the server (Hub.Ask). It is called with a string or a Uint8Array, and returns one, or a
  // promise of it. If it throws, or there is none, the server is told why there is no answer.
  onask;

  #url; #least; #most;
  #socket; #timer; #late;
  #tries = 0;
  #alive = 10; // seconds after which at least one line comes, which the server says
  #open = false;
  #since; // when it was opened
  #lines = false; // the server wants a line before each message
  #rooms = new Map(); // the last position in each room, if it has one; those that were joined last are the last ones
  #here = new Set(); // the rooms that were joined on this connection
  #told = new Set(); // those of which it is known that messages are missing
  #online = () => this.#timer && this.#again();

  // url may be a function, which is called each time. The client comes back after a random time, of up to least milliseconds
  // the first time, twice as many the next time, and most in the end: a crowd that has lost its server must not come back in
  // one moment. A connection that has lasted for most makes the next time the first one again.
  constructor(url, { least = 1000, most = 15_000 } = {}) {
    super();
    [this.#url, this.#least, this.#most] = [url, least, most];
    globalThis.addEventListener?.('online', this.#online);
    this.#connect();
  }

  // send sends a string or bytes. It returns false if the server isn't there: nothing is kept until it is.
  send(data) {
    if (!this.#open) return false;
    this.#socket.send(this.#lines ? behind('{}', data) : data);
    return true;
  }

  // close ends the connection for good.
  close(code = 1000, reason = '') {
    globalThis.removeEventListener?.('online', this.#online);
    this.#drop();
    this.#socket?.close(code, reason);
    this.#socket = undefined;
  }

  #connect() {
    this.#drop();
    const url = new URL(typeof this.#url === 'function' ? this.#url() : this.#url, globalThis.location?.href);
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url, 'limpet.v1');
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      const named = [...this.#rooms].filter(([, id]) => id);
      socket.send(JSON.stringify({ positions: Object.fromEntries(named), answers: true }));
    };
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#socket = socket;
    this.#wait();
  }

  // drop forgets the socket and what waits for it.
  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#late);
    this.#timer = this.#late = undefined;
    this.#open = false;
    this.#here.clear();
    this.#told.clear();
    if (this.#socket) this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
  }

  // wait takes the connection for dead when nothing comes for too long: a browser may not notice for minutes.
  #wait() {
    clearTimeout(this.#late);
    this.#late = setTimeout(() => {
      this.#socket.close();
      this.#lost(1006, 'nothing has come from the server');
    }, Math.min(this.#alive * 2000, 2 ** 31 - 1)); // a longer time would be none
  }

  // again is connect for a url that may throw: it may not the next time.
  #again() {
    try {
      this.#connect();
    } catch (error) {
      this.#lost(1006, String(error));
    }
  }

  #lost(code, reason) {
    if (code === 1009 && !this.#open) this.#forget();
    if (this.#open && performance.now() - this.#since >= this.#most) this.#tries = 0;
    this.#drop();
    const again = Math.random() * Math.min(this.#most, this.#least * 2 ** this.#tries++);
    this.#timer = setTimeout(() => this.#again(), again);
    this.#tell('close', { code, reason, again });
  }

  // forget forgets the older half of the positions: they are too many for the server, and would be the next time.
  #forget() {
    const named = [...this.#rooms.keys()].filter((room) => this.#rooms.get(room));
    for (const room of named.slice(0, Math.ceil(named.length / 2))) this.#rooms.set(room, undefined);
  }

  #take(data) {
    this.#wait();
    const [line, rest] = split(data);
    const { alive, answers, ask, room, joined, missed, left, id, recovered = false } = JSON.parse(line);
    if (alive) this.#alive = alive;
    if (!this.#open) {
      this.#open = true;
      this.#since = performance.now();
      this.#lines = answers === true;
      this.#tell('open', {});
    }
    if (room !== undefined && id) this.#rooms.set(room, id);
    if (ask !== undefined) this.#answer(ask, rest);
    else if (rest !== undefined) this.#tell('message', { data: rest, room, id });
    if (missed !== undefined) {
      this.#rooms.set(missed, id);
      this.#told.add(missed);
      this.#tell('missed', { room: missed });
    }
    if (joined !== undefined) this.#join(joined, id, recovered);
    if (left !== undefined) {
      // A server that doesn't know the room yet may let the client in later: then the position is of use.
      if (this.#here.delete(left)) this.#rooms.delete(left);
      this.#tell('left', { room: left });
    }
  }

  // answer answers a question on the connection that it has come on, if that is still there.
  async #answer(number, question) {
    const socket = this.#socket;
    let line = { answer: number };
    let reply = '';
    try {
      if (!this.onask) throw new Error('the client has no onask');
      reply = (await this.onask(question)) ?? '';
    } catch (error) {
      line = { answer: number, error: String(error) };
    }
    if (socket === this.#socket && this.#open) socket.send(behind(JSON.stringify(line), reply));
  }

  #join(room, id, recovered) {
    const again = this.#rooms.delete(room);
    this.#rooms.set(room, id);
    this.#here.add(room);
    if (again && !recovered && !this.#told.has(room)) this.#tell('missed', { room }); // the server keeps no history
    this.#told.delete(room);
    this.#tell('joined', { room, recovered });
  }

  #tell(type, fields) {
    this.dispatchEvent(new HubEvent(type, fields));
  }
}

// behind returns data with a line before it.
function behind(line, data) {
  if (typeof data === 'string') return line + '\n' + data;
  const head = new TextEncoder().encode(line + '\n');
  if (data instanceof Blob) return new Blob([head, data]);
  const bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  const all = new Uint8Array(head.length + bytes.length);
  all.set(head);
  all.set(bytes, head.length);
  return all;
}

// split returns the line of a message, and what is behind it, if there is something.
function split(data) {
  const bytes = typeof data === 'string' ? data : new Uint8Array(data);
  const end = bytes.indexOf(typeof data === 'string' ? '\n' : 10);
  if (end < 0) return [data];
  const line = typeof data === 'string' ? data.slice(0, end) : new TextDecoder().decode(bytes.subarray(0, end));
  return [line, bytes.slice(end + 1)];
}
