package http1

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// An Origin is the server that a [Client] talks to, and all that the client needs to
// know about it. All fields but Key must be set. The functions are called
// concurrently.
type Origin struct {
	Scheme, Host string // that a request names, where it doesn't name its own host
	Addr         string // for the GetConn hook of net/http/httptrace

	// Dial opens a connection and secures it if the origin wants that. The client
	// sets no time limit: Dial has to.
	Dial func(ctx context.Context) (net.Conn, error)

	// Key returns a key for the request with this context. A kept connection is used
	// only for requests with the key that it was opened for. Nil: any connection
	// serves any request.
	Key func(ctx context.Context) string

	IdleTimeout time.Duration // until an idle connection is closed, sooner if the answer's Keep-Alive says so
	MaxIdle     int           // number of idle connections

	// Life ends when the origin is lost. Requests under way then fail with the
	// context's cause, and so do later ones.
	Life context.Context

	// Answered is called when the header of a final answer has arrived.
	Answered func()

	Reads *Reads // counts the reads of connections

	// Error makes the error that the caller sees of what went wrong: see Sent and
	// Invalid of balancer.Error.
	Error func(sent, invalid bool, err error) error

	// Canceler ends calls whose context has ended. Several origins may share it.
	Canceler *Canceler
}

// Reads counts reads of connections to an origin that have begun and that have ended. While
// more have begun than ended, a request waits for bytes, and the kernel has not reported the
// end of its connection. Heard counts those that have brought something.
type Reads struct{ Begun, Ended, Heard atomic.Int64 }

// end notes that a read has ended, and how many bytes it has brought.
func (r *Reads) end(n int) {
	if n > 0 {
		r.Heard.Add(1)
	}
	r.Ended.Add(1)
}

// lost returns why the origin's life has ended, nil while it lasts.
func (o *Origin) lost() error {
	if o.Life.Err() != nil {
		return context.Cause(o.Life)
	}
	return nil
}
