//go:build !unix

package balancer

import (
	"errors"
	"net"
	"os"
	"time"
)

type socket struct{ net.Conn }

func newSocket(c net.Conn) *socket { return &socket{c} }

// peek says what the other end did. For want of a way to ask it waits for a
// moment, and takes the byte that mustn't be there on a kept connection. On a new
// one it doesn't look.
func (s *socket) peek(kept bool) sight {
	if !kept {
		return silent
	}
	_ = s.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
	n, err := s.Read(make([]byte, 1))
	switch {
	case n > 0:
		return spoke
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return closed
	}
	_ = s.SetReadDeadline(time.Time{})
	return silent
}
