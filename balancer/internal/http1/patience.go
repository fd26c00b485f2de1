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
	for begin > 0 && !c.begun && c.upload == nil {
		err := c.conn.SetReadDeadline(time.Now().Add(begin))
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			break
		}
		_, err = c.conn.in.Peek(1)
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			_ = c.conn.SetReadDeadline(time.Time{})
			return err
		case !c.conn.wrote || c.patience.Leave == nil || c.patience.Leave():
			c.late = true
			return fmt.Errorf("no answer has begun within %v: %w", begin, err)
		}
	}
	_, err := c.conn.in.Peek(1)
	return err
}
