package http1

import (
	"context"
	"net"
	"time"
)

// An Origin is the server that a [Client] talks to: all that the client knows of
// it. Every field but Key must be set.
type Origin struct {
	Scheme, Host string // that a request to it names
	Addr         string // for the hooks of net/http/httptrace

	// Dial opens a connection, secured if the origin wants that. It has no time
	// limit but its own and that of ctx.
	Dial func(ctx context.Context) (net.Conn, error)

	// Key returns what a connection is for, where that isn't every request: a kept
	// one serves requests of the key that it was opened for. Nil: one is as good as
	// any other.
	Key func(ctx context.Context) string

	IdleTimeout time.Duration // until an idle connection is closed, at most
	MaxIdle     int           // idle connections

	// Life ends when the origin is lost: requests under way fail with its cause,
	// and so do later ones.
	Life context.Context

	Answered func()                                    // is called for each final answer
	Error    func(sent, invalid bool, err error) error // makes the error that the caller sees; see balancer.Error
	Canceler *Canceler                                 // may be shared with other origins
}

// lost returns why the origin's life has ended, nil while it lasts.
func (o *Origin) lost() error {
	if o.Life.Err() != nil {
		return context.Cause(o.Life)
	}
	return nil
}
