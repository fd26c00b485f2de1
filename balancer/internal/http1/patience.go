package http1

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Patience is balancer.Patience.
type Patience struct {
	Connect, Begin time.Duration
	Leave          func() bool
	Movable        bool
}

// The states of conn.waits.
const (
	bound    int32 = iota // the call can't be released
	waiting               // the call waits for its answer, and Release may end that
	released              // Release has ended it
)

// Release ends the calls that are Movable and wait for their answer with err, each if may
// returns true for it.
func (c *Client) Release(err error, may func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	allowed := false // by may, which has a price; if the answer comes just then, the next call may go for that
	for conn := range c.conns {
		if conn.waits.Load() != waiting {
			continue
		}
		if allowed = allowed || may(); !allowed {
			continue
		}
		conn.why.Store(&err)
		if conn.waits.CompareAndSwap(waiting, released) {
			allowed = false
			conn.abort()
		}
	}
}

// firstByte is await's wait for a byte of the answer. No call is released whose answer has
// begun.
func (c *call) firstByte() error {
	if !c.patience.Movable || c.begun {
		return c.waitFirstByte()
	}
	c.conn.waits.Store(waiting)
	err := c.waitFirstByte()
	if !c.conn.waits.CompareAndSwap(waiting, bound) {
		c.letGo = *c.conn.why.Load()
		return c.letGo
	}
	return err
}

// waitFirstByte returns when a byte of the answer can be read, or when the call is to end
// because it has waited for the first one too long. A deadline of the connection limits
// the wait, since a timer and a context for each request would cost more.
func (c *call) waitFirstByte() error {
	begin := c.patience.Begin
	for begin > 0 && !c.begun && !hasBody(c.req) {
		err := c.conn.SetReadDeadline(time.Now().Add(begin))
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			break
		}
		err = c.conn.await()
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			_ = c.conn.SetReadDeadline(time.Time{})
			return err
		case !c.conn.wrote || c.patience.Leave == nil || c.patience.Leave():
			c.late = true
			return fmt.Errorf("no answer has begun within %v: %w", begin, err)
		}
	}
	return c.conn.await()
}
