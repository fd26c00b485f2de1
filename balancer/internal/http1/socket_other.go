//go:build !unix

package http1

import (
	"errors"
	"net"
)

type socket struct{ seen sight }

func newSocket(net.Conn) *socket { return &socket{seen: hidden} }

func (s *socket) peek() sight { return s.seen }

// asks reports whether ask works, which it does for none here.
func asks(net.Conn) bool { return false }

func (s *socket) ask(out, in []byte, kept bool) (sent, n int, err error) {
	return 0, 0, errors.ErrUnsupported
}
