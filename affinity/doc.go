// Package affinity knows whom a client belongs to: it finds the pin that ties
// a client to its backend in a request, and binds a new one onto the answer.
//
// [Cookie] is the one to start with: an opaque cookie of Limpet's own. [Table]
// remembers clients by address, header, query parameter or cookie, [Hash] places
// them by the same keys and remembers nothing, [AppCookie] goes by a cookie that
// the application has anyway, [EngineIO] by the sessions of Socket.IO, which need no
// cookie, [CookieMap] and [Route] let clients choose, and a [Chain] asks several
// in turn. Backends are named by their IDs, which are plain strings here, so that
// each of them works in front of any proxy.
//
// A pin says where a client goes, never who it is. Whoever copies a client's
// cookie or address is sent to the same backend; nothing else is gained by it,
// and nothing else may be concluded from a pin.
package affinity
