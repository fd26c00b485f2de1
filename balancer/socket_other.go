//go:build !unix

package balancer

import (
	"errors"
	"net"
)

type socket struct{ net.Conn }

func newSocket(c net.Conn) *socket { return &socket{c} }

// peek says what the other end did, on a kept connection only.
func (s *socket) peek(kept bool) sight {
	if !kept {
		return silent
	}
	return overhear(s.Conn)
}

// asks reports whether ask works, which it does for none here.
func asks(net.Conn) bool { return false }

func (s *socket) ask(out, in []byte, kept bool) (sent, n int, err error) {
	return 0, 0, errors.ErrUnsupported
}
