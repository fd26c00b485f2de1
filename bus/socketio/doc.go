// Package socketio speaks the protocols that Socket.IO's nodes use among each other
// over Redis.
//
// An [Emitter] sends to the clients of a cluster of nodes without being a node, as
// @socket.io/redis-emitter does. A [Cluster] is a node: it has [Sockets] of its own,
// and its sockets and servers and those of the other nodes reach each other. A
// [Bridge] is a Cluster whose sockets are the WebSocket clients in a [hub.Hub].
//
// All of them need the [Adapter] that the nodes are configured with: [Legacy],
// [PubSub], [Sharded] or [Streams].
//
// # Arguments
//
// The arguments of an event may be whatever encoding/json takes. The rules for
// structs, tags, maps, [json.Marshaler] and [encoding.TextMarshaler] are the same,
// with two differences:
//
//   - A []byte is binary data. Clients get it as a Buffer or an ArrayBuffer.
//   - A [time.Time] is a Date, in milliseconds. Clients get it as the string that
//     Date.toISOString returns.
//
// What a MarshalJSON method returns is sent as it is, so a []byte within it is
// base64. NaN and infinite numbers are errors. Integers beyond 2^53 are sent
// exactly, but JavaScript rounds them when it reads them: send a string if that
// matters.
//
// Values that come from other nodes are nil, bool, float64, string, []byte,
// [time.Time], []any or map[string]any. An undefined is nil. To get a value into a
// struct, use json.Marshal and json.Unmarshal.
package socketio
