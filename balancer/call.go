package balancer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// An Error says that a backend could not be reached, or didn't answer to the end.
type Error struct {
	Backend string // its ID
	Sent    bool   // bytes of the request may have gone out; false: surely none have
	Err     error  // what went wrong, ErrLost or what the network said

	stale bool // a kept connection was closed before a byte was written
}

// Error names the backend, and tells how far the request came.
func (e *Error) Error() string {
	sent := "not sent"
	if e.Sent {
		sent = "sent"
	}
	return "balancer: backend " + e.Backend + ", request " + sent + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// A call is one request on its way, until its answer was read or given up.
type call struct {
	backend *Backend
	client  context.Context // the request's own
	ctx     context.Context // ends with the client's, and with ErrLost when the backend is lost
	cancel  context.CancelCauseFunc
	unhook  func() bool

	conn   *conn // the last one it got
	reused bool  // which had been kept
	sent   bool  // on one before that

	reqBody Interrupter           // nil if the request's body is none
	unbody  func() bool           // stops it from being interrupted by ctx
	broken  atomic.Pointer[error] // why reading the connection failed
}

// An Interrupter is the body of a request whose Read can be ended from outside.
// net/http waits for a Read that is under way before it says that an attempt
// failed, and a client that sends nothing would keep it waiting. Interrupt is
// called when the attempt's context has ended or its connection is broken; it may
// be called when no Read is under way, and must not call the Transport.
type Interrupter interface{ Interrupt() }

func newCall(req *http.Request, b *Backend, l *life) *call {
	c := &call{backend: b, client: req.Context()}
	c.ctx, c.cancel = context.WithCancelCause(c.client)
	c.unhook = context.AfterFunc(l, func() { c.cancel(ErrLost) })
	if body, ok := req.Body.(Interrupter); ok {
		c.reqBody = body
		c.unbody = context.AfterFunc(c.ctx, body.Interrupt)
	}
	return c
}

// release forgets the call. It is harmless once the answer was read to its end.
func (c *call) release() {
	c.unhook()
	if c.reqBody != nil {
		c.unbody()
		if c.conn != nil {
			c.conn.call.CompareAndSwap(c, nil)
		}
	}
	c.cancel(nil)
}

// broke tells the call that reading its connection failed.
func (c *call) broke(err error) {
	c.broken.CompareAndSwap(nil, &err)
	c.reqBody.Interrupt()
}

// traced returns the call's context with a trace that learns its connections.
// A trace that the client's context has is called as well.
func (c *call) traced() context.Context {
	// net/http calls it in the goroutine of RoundTrip.
	return httptrace.WithClientTrace(c.ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		c.sent = c.sent || c.conn != nil && !c.conn.seal()
		c.conn, c.reused = info.Conn.(*conn), info.Reused
		c.conn.fresh()
		if c.reqBody != nil {
			c.broken.Store(nil)
			c.conn.call.Store(c)
		}
	}})
}

// failed ends a call that got no answer.
func (c *call) failed(err error) *Error {
	kept := c.conn != nil && c.reused
	sent := c.sent || c.conn != nil && !c.conn.seal()
	broken := c.broken.Load()
	switch {
	case c.lost():
		err = ErrLost
	case broken != nil && !isDial(err) && !errors.Is(*broken, net.ErrClosed):
		// Not that the body was interrupted for it, nor that a server then takes
		// its client for gone. A failed dial is of another attempt, on a fresh
		// connection; one that is closed here was given up for another reason.
		err = *broken
	case c.client.Err() != nil:
		err = c.client.Err()
	case !sent && c.conn != nil && c.conn.ended.Load() && !isDial(err):
		err = io.EOF // net/http has an error of its own for it, as for a request that can't be sent
	}
	stale := kept && !sent && !c.lost() && !isDial(err)
	c.release()
	return &Error{Backend: c.backend.id, Sent: sent, Err: err, stale: stale}
}

func (c *call) lost() bool { return context.Cause(c.ctx) == ErrLost }

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
