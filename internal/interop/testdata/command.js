// The commands that nodes and emitters have in common: one JSON object a line, such as
//
//   {"id":1,"emission":{"nsp":"/chat","to":["room"],"volatile":true,"call":"emit","args":["event",1]}}
//
// call is a method of what of(nsp) returns, after to and the others have been
// called: emit, socketsJoin and so on. Arguments that JSON doesn't have are
// objects with one property, as tag writes them. When a command was carried out,
// {"event":"done","id":1} is printed.
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
  return Object.fromEntries(Object.entries(v).map(([k, e]) => [k, untag(e)]));
}

// listen carries commands out until standard input ends.
function listen(say, of, end) {
  readline
    .createInterface({ input: process.stdin })
    .on('line', async (line) => {
      const { id, emission } = JSON.parse(line);
      const { nsp, to = [], except = [], volatile, compress, call, args } = emission;
      try {
        let target = of(nsp);
        for (const room of to) target = target.to(room);
        for (const room of except) target = target.except(room);
        if (volatile) target = target.volatile;
        if (compress !== undefined) target = target.compress(compress);
        await target[call](...untag(args));
        say('done', { id });
      } catch (err) {
        say('done', { id, error: String(err) });
      }
    })
    .on('close', end);
}

module.exports = { listen, tag };
