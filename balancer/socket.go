package balancer

import (
	"errors"
	"net"
	"os"
	"time"
)

// A sight is what the other end of a connection did while nobody was reading.
type sight int

const (
	silent sight = iota
	spoke
	closed
)

// overhear says what the other end did where the kernel can't be asked. It waits
// for a moment, and takes the byte that mustn't be there on a kept connection.
func overhear(c net.Conn) sight {
	if c.SetReadDeadline(time.Now().Add(50*time.Microsecond)) != nil {
		return closed
	}
	n, err := c.Read(make([]byte, 1))
	switch {
	case n > 0:
		return spoke
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return closed
	}
	_ = c.SetReadDeadline(time.Time{})
	return silent
}
