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
}

// firstByte returns when a byte of the answer can be read, or when the call is to end
// because it has waited for the first one too long. A deadline of the connection limits
// the wait, since a timer and a context for each request would cost more.
func (c *call) firstByte() error {
	begin := c.patience.Begin
	limited := begin > 0 && !c.begun && c.upload == nil
	if limited {
		err := c.conn.SetReadDeadline(time.Now().Add(begin))
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		limited = err == nil
	}
	_, err := c.conn.in.Peek(1)
	if !limited {
		return err
	}
	late := errors.Is(err, os.ErrDeadlineExceeded)
	if late && c.conn.wrote && c.patience.Leave != nil && !c.patience.Leave() {
		if err = c.conn.SetReadDeadline(time.Time{}); err == nil {
			_, err = c.conn.in.Peek(1)
		}
		return err
	}
	if late {
		c.late = true
		return fmt.Errorf("no answer has begun within %v: %w", begin, err)
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	return err
}
