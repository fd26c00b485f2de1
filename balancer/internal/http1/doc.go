// Package http1 is a client for HTTP/1.1 that talks to one server: the part of
// balancer.Transport that sends requests and reads answers. A [Client] keeps the
// connections to one [Origin]; a call is one request on one of them.
//
// # The life of a call
//
// A call belongs to the goroutine that runs [Client.RoundTrip] until that returns,
// and then to whoever reads the answer's body. Its state is an atomic that changes
// at most once, by compare and swap, so that the connection is given back or closed exactly once:
//
//	state      connection          ends by                                     moved by
//	(none)     being opened        get fails: the error is returned            RoundTrip
//	answering  the call's own      no answer: failed closes the connection,    RoundTrip
//	                               and the call is dropped as it is
//	                               the answer was read, or reading it failed   settle, in the last Read, or in
//	                               (to settled)                                RoundTrip if there is no body
//	                               Close before that (to abandoned)            Close, from any goroutine
//	settled    idle, or closed     -
//	abandoned  closed              -
//
// The answer 101 leaves the call answering until its body is closed: the end of one
// direction doesn't end the other.
//
// Three events end a call from outside: the end of the request's context (see
// [Canceler]), the end of the origin's life (see [Client.End]), and a request body
// that fails. None of them changes the state. They close the connection below the
// call, by conn.abort, the Read that waits fails, and the goroutine that reads finds
// out why. call.mu is held only to hook the call to its context and to unhook it: a
// connection is given back only after unhook has reported that nothing will abort it.
//
// # Who writes a request
//
// A connection has one writer at a time:
//
//  1. The goroutine of RoundTrip writes a request that package httphead has put together, if it
//     has no body or a small one that can be read without waiting (see isThere), which
//     follows the head in the same buffer. It does so while it awaits the answer (see below).
//  2. The goroutine of RoundTrip writes any other request without a body, by
//     http.Request.Write, before it reads: a request with a httptrace hook, whose
//     moments must be right, and what is too rare for that.
//  3. A request with any other body is written by a goroutine of its own, since the origin
//     may answer before the body ends. It holds upload.mu whenever it writes.
//  4. The header of such a request waits in a buffer for the first bytes of the body.
//     The goroutine of RoundTrip, or the upload before its first Read, flushes it,
//     holding upload.mu, so that the header doesn't wait for a slow client.
//
// After a 101 the owner of the answer's body writes.
//
// # What is written while the answer is awaited
//
// A request that is in the buffer as a whole goes out in conn.await, which looks for the
// answer. Within one call of the runtime's poller, socket.await peeks at the socket, writes
// the request, and waits for the answer. There are two reasons:
//
//   - Only a moment passes between the peek and the write. A kept connection that the
//     origin has closed before that is found out with no byte written, so that any such
//     request, a POST too, may be sent again on another connection.
//     Even a request that may be repeated anyway needs the peek: what the origin has said
//     unasked can't be told from the answer once the request is written, unless a read at
//     that moment, which is a system call too, has found nothing.
//   - It saves a read that finds nothing: one by one the three would be a peek, a
//     write, a read that returns EAGAIN, a wait, and a read.
//
// It needs a connection whose bytes go to the kernel as they are (conn.direct). For
// TLS, and on systems that aren't Unix, conn.ready probes the connection and conn.await
// writes and then reads.
//
// # What a call holds while it waits
//
// Thousands of long polls may wait at the same time. So a call over a direct connection has
// a buffer for the head of the request until that was written, and one to read from the
// first byte of the answer on. Between the two it has only the call, the connection, and a
// stack that is kept small: see Client.send.
package http1
