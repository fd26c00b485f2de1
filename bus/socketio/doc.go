// Package socketio speaks the protocol by which Socket.IO's own nodes talk to
// each other over Redis.
//
// An [Emitter] sends to the clients of a cluster of nodes without being one of
// them: what @socket.io/redis-emitter does. The [Adapter] says which generation
// of the protocol the nodes speak: [Legacy], [PubSub], [Sharded] or [Streams].
//
// A [Cluster] is a node among them: it has [Sockets] of its own, and servers and
// clients of both kinds reach each other. A [Bridge] is one whose sockets are the
// WebSocket clients in a hub.Hub.
//
// # Arguments
//
// The arguments of an event are what encoding/json takes, with the same rules
// for structs, tags, maps, json.Marshaler and encoding.TextMarshaler, and two
// differences: a []byte is binary data, which clients get as a Buffer or an
// ArrayBuffer, and a [time.Time] is a Date, with the milliseconds that a Date
// has; clients get it as the string that Date.toISOString returns. What a
// MarshalJSON returns is taken as it is, so a []byte within it is base64. NaN
// and infinite numbers are errors. Integers beyond 2^53 are sent exactly, but
// JavaScript rounds them when it reads them: send a string if that matters.
//
// What comes from other nodes is nil, bool, float64, string, []byte, time.Time,
// []any or map[string]any; undefined is nil. A struct gets it by way of
// json.Marshal and json.Unmarshal.
package socketio
