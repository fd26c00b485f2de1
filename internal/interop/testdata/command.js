// The commands that nodes and emitters have in common: one JSON object a line, such as
//
//   {"id":1,"emission":{"nsp":"/chat","to":["room"],"volatile":true,"call":"emit","args":["event",1]}}
//
// call is a method of what of(nsp) returns, after to and the others have been
// called: emit, socketsJoin and so on; with "adapter", one of the namespace's
// adapter. Arguments that JSON doesn't have are objects with one property, as
// tag writes them. When a command was carried out, {"event":"done","id":1} is
// printed, with the result if there is one: of a promise or, with "callback",
// what a function as the last argument is called with.
'use strict';

const readline = require('readline');

function tag(v) {
  if (v instanceof Date) return { $date: v.getTime() };
  if (v instanceof ArrayBuffer) return { $binary: Buffer.from(v).toString('base64') };
  if (ArrayBuffer.isView(v)) return { $binary: Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString('base64') };
  if (Array.isArray(v)) return v.map(tag);
  if (v && typeof v === 'object') return Object.fromEntries(Object.entries(v).map(([k, e]) => [k, tag(e)]));
  return v;
}

function untag(v) {
  if (Array.isArray(v)) return v.map(untag);
  if (!v || typeof v !== 'object') return v;
  if ('$date' in v) return new Date(v.$date);
  if ('$binary' in v) return Buffer.from(v.$binary, 'base64');
  if ('$undefined' in v) return undefined;
  if ('$set' in v) return new Set(v.$set);
  return Object.fromEntries(Object.entries(v).map(([k, e]) => [k, untag(e)]));
}

function carryOut(target, { call, args, callback }) {
  args = untag(args || []);
  if (!callback) return target[call](...args);
  return new Promise((resolve, reject) => {
    target[call](...args, (err, result) => (err ? reject(err) : resolve(result)));
  });
}

// told returns a result as JSON has it: of a socket what other nodes know.
function told(v) {
  if (v instanceof Set) return [...v];
  if (Array.isArray(v)) return v.map(told);
  if (v && v.rooms && v.join) return { id: v.id, rooms: [...v.rooms], data: tag(v.data) };
  return v && v.constructor === Object ? tag(v) : ['string', 'number', 'boolean'].includes(typeof v) ? v : null;
}

// listen carries commands out until standard input ends.
function listen(say, of, end) {
  readline
    .createInterface({ input: process.stdin })
    .on('line', async (line) => {
      const { id, emission } = JSON.parse(line);
      const { nsp, to = [], except = [], volatile, compress, timeout, adapter } = emission;
      try {
        let target = of(nsp);
        for (const room of to) target = target.to(room);
        for (const room of except) target = target.except(room);
        if (volatile) target = target.volatile;
        if (compress !== undefined) target = target.compress(compress);
        if (timeout) target = target.timeout(timeout);
        if (adapter) target = target.adapter;
        say('done', { id, result: told(await carryOut(target, emission)) });
      } catch (err) {
        say('done', { id, error: String(err) });
      }
    })
    .on('close', end);
}

module.exports = { listen, tag };
