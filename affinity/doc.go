// Package affinity keeps each client at one backend. It finds the pin that ties
// a client to its backend in a request, and binds a new pin to the answer.
//
// Start with [Cookie], an opaque cookie of Limpet's own. The others are:
//
//   - [Table] remembers the backend of each client by the client's address, or
//     by a header, a query parameter or a cookie.
//   - [Hash] places clients by the same keys and remembers nothing.
//   - [AppCookie] uses a cookie that the application sets anyway.
//   - [EngineIO] uses the session IDs of Socket.IO, for clients that keep no cookies.
//   - [CookieMap] and [Route] let clients choose their backend.
//   - [Chain] asks several of these in turn.
//
// Backends are named by their IDs, which are plain strings here. So every
// affinity works in front of any proxy: see the example of [Cookie]. An
// affinity of your own implements [Affinity]; package affinitytest tells
// whether it is a good one.
//
// A pin says where a client goes, never who the client is. Somebody who copies
// a client's cookie or address is sent to the same backend and gains nothing
// else by it. Conclude nothing else from a pin.
package affinity
