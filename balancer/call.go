package balancer

import (
	"context"
	"net/http/httptrace"
)

// An Error says that a backend could not be reached, or didn't answer to the end.
type Error struct {
	Backend string // its ID
	Sent    bool   // bytes of the request may have gone out; false: surely none have
	Err     error  // what went wrong, ErrLost or what the network said
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

	conn *conn // the last one it got
	sent bool  // on one before that
}

func newCall(client context.Context, b *Backend, l *life) *call {
	c := &call{backend: b, client: client}
	c.ctx, c.cancel = context.WithCancelCause(client)
	c.unhook = context.AfterFunc(l, func() { c.cancel(ErrLost) })
	return c
}

// release forgets the call. It is harmless once the answer was read to its end.
func (c *call) release() {
	c.unhook()
	c.cancel(nil)
}

// traced returns the call's context with a trace that learns its connections.
// A trace that the client's context has is called as well.
func (c *call) traced() context.Context {
	// net/http calls it in the goroutine of RoundTrip.
	return httptrace.WithClientTrace(c.ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		c.sent = c.sent || c.conn != nil && !c.conn.seal()
		c.conn = info.Conn.(*conn)
		c.conn.fresh()
	}})
}

// failed ends a call that got no answer.
func (c *call) failed(err error) error {
	sent := c.sent || c.conn != nil && !c.conn.seal()
	switch {
	case c.lost():
		err = ErrLost
	case c.client.Err() != nil:
		err = c.client.Err()
	}
	c.release()
	return &Error{Backend: c.backend.id, Sent: sent, Err: err}
}

func (c *call) lost() bool { return context.Cause(c.ctx) == ErrLost }
